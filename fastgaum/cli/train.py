"""`fastgaum train`: a log in, a run folder out; a stopped run is resumed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fastgaum.cli.options import (
    COMMON,
    Device,
    Flag,
    JsonFile,
    ModelOptions,
    Threads,
    use_threads,
)
from fastgaum.cli.output import check_outputs, finish, note
from fastgaum.cli.progress import Bar, TrainingProgress, chosen_by, noting_compilation
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, lasting
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.interrupts import Interrupted
from fastgaum.logs.options import ReadOptions

if TYPE_CHECKING:
    from polars import DataFrame

    from fastgaum.game.processes import Processes
    from fastgaum.logs.log import SessionLog
    from fastgaum.logs.store import StoredLog
    from fastgaum.models.user_model import UserModel


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """What a training computes on."""

    device: Device = "auto"
    threads: Threads = None


DEFAULT_MODEL, THIS_MACHINE = ModelOptions(), Machine()


def train_command(
    source: Log,
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            name=["--out", "-o"], help="the run folder to write; runs/NAME of the log if not given"
        ),
    ] = None,
    options: ModelOptions = DEFAULT_MODEL,
    resume: Flag = False,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    json: JsonFile = None,
    machine: Machine = THIS_MACHINE,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train a user model on a log and write a run folder.

    After Ctrl-C, SIGTERM or a crash the run is kept as it was last saved, and --resume continues
    it: the result is identical to an uninterrupted run. To train more after a run has ended, use
    --from.

    With several processes, `torchrun --nproc-per-node K -m fastgaum train …`, each takes its part
    of every batch. After every 16 steps they average their weights (--set local_steps=N).

    Args:
        resume: continue the run in its folder; the result is identical to an uninterrupted run
        start: folder of a run: start from its weights, with its settings
    """
    folder = _usual_folder(source) if out is None else out
    check_outputs(json, resumed=resume)
    if start is not None:
        options = options.after(start)
    other = options.other_model()
    if other is None:
        _train(source, folder, options, resume, start, json, machine, reading)
        return
    for is_given, what in ((resume, "there is nothing to resume"), (start, "--from has no use")):
        if is_given:
            raise ConfigError(
                f"the model '{other[0]}' is fitted in one go, {what}: train it again (--overwrite "
                "replaces the run)"
            )
    _fit(source, folder, other, json, machine, reading)


def _train(
    source: str,
    folder: Path,
    options: ModelOptions,
    resume: bool,
    start: Path | None,
    json: Path | None,
    machine: Machine,
    reading: Reading,
) -> None:
    """Train a `UserModel`: a run that is new, that goes on, or that has ended."""
    config = options.resolve()
    # torch takes a second to import: a misspelt option is answered before.
    from fastgaum.game.processes import launched, n_restarts
    from fastgaum.machine import device_of
    from fastgaum.models import run_folder
    from fastgaum.models.user_model import UserModel

    use_threads(machine.threads)
    with launched(device_of(machine.device)) as processes:
        if not processes.is_first:
            _follow(source, reading, machine.device, processes)
            return
        overwrite = COMMON.overwrite
        # torchrun gives the same command again after a process's death
        if n_restarts() and (folder / run_folder.RESUME_FILE).is_file():
            resume, overwrite = True, False
        run_folder.check_run_folder(folder, overwrite or resume)
        table = run_folder.finished_table(folder) if resume else None
        found = run_folder.run_checkpoint(folder) if resume and table is None else None
        if table is not None:
            model = UserModel.load(folder, device="cpu")
            if options != DEFAULT_MODEL:
                options.check_same(folder, run_folder.asked_of(folder), ended=True)
            reading = reading.or_of_run(folder, source, training_log=True)
        elif found is not None:
            options.check_same(folder, config := found.config, ended=False)
            reading = reading.of_resumed(folder, found.reading)
        else:
            reading = reading if start is None else reading.or_of_run(start, source)
            if resume:
                note(f"{folder}: there is no run to go on with, this one begins")
        # its tensors are not held for as long as the run
        found, is_former = None, table is not None
        origin = run_folder.LogOrigin(lasting(source), reading.options.to_json())
        about = {"config": config.to_mapping(), "reading": origin.reading}
        processes.agree(None if is_former else about)
        with Bar(f"reading {source}"):
            log = reading.open_to_train(source)
        if table is not None:
            assert model.space is not None
            run_folder.check_same_log(folder, log, model.space.fingerprint)
        else:
            model = UserModel(config, device=machine.device)
            progress = TrainingProgress(config, len(model.settings_for(log)), model.folds_for(log))
            try:
                with noting_compilation(), progress:
                    table = run_folder.train_run(
                        model,
                        log,
                        folder,
                        overwrite=overwrite,
                        resume=resume,
                        start=start,
                        observers=[progress],
                        origin=origin,
                        processes=processes,
                    )
            except Interrupted as interrupted:
                if interrupted.cure:
                    command = _resume_command(source, folder, reading, machine, processes.size)
                    interrupted.cure += f": go on with `{command}`"
                raise
    text, facts = _result(folder, model, log, table, is_former)
    finish(text, json, facts | {"processes": processes.size})


def _result(
    folder: Path, model: UserModel, log: SessionLog | StoredLog, table: DataFrame, is_former: bool
) -> tuple[str, dict[str, Any]]:
    """The line and the facts of a run that has ended; notes say how its setting was chosen."""
    from fastgaum.game.checkpoint import places_cost, trials_as_facts

    assert model.space is not None
    before = ", finished before" if is_former else ""
    best = table.filter(table["best"]).row(-1, named=True)
    out_of_fold: dict[str, float] | None = None
    if model.members:
        reward = model.evaluate(log, "validation").heads["reward"]
        out_of_fold = {"prec@1": reward.precision[1].mean, "nll": reward.nll.mean}
        text = (
            f"{folder}: {len(model.members) + 1} fits{before}, each of which left out a fold of "
            f"users: validation prec@1 {out_of_fold['prec@1']:.1f}, NLL {out_of_fold['nll']:.3f}, "
            "out of fold"
        )
    else:
        text = (
            f"{folder}: {table.height} epochs{before}, best {best['epoch']} by "
            f"{chosen_by(model.config)}: validation prec@1 {best['val_prec1']:.1f}"
        )
        if best["phase"] in ("generator", "rounds"):
            text += f", the generator's {best['val_generator_prec1']:.1f}, gap {best['gap']:.4f}"
    trials, cost = trials_as_facts(model.trials), places_cost(model.trials)
    _note_trials(model, trials, cost)
    context = model.space.context_holds
    if context:
        fields = ", ".join(f"{name} ({holds})" for name, holds in context.items())
        note(f"context of the events: {fields}")
    if model.space.actions:
        note(f"actions, tokens of the history: {log.n_actions} beside {log.n_events} events")
    return text, {
        "path": str(folder),
        "log": log.name,
        "context": context,
        "actions": log.n_actions if model.space.actions else 0,
        "compared": trials,
        "places_cost": cost,
        "folds": model.space.folds,
        "out_of_fold": out_of_fold,
        "epochs": table.height,
        "finished_before": is_former,
        "best": best,
    }


def _note_trials(model: UserModel, trials: list[dict[str, Any]], cost: float | None) -> None:
    """Say which settings a fit compared, and what it costs to keep places apart."""
    if trials:
        then = "and one was chosen, and fitted anew"
        if model.members:
            then = "the best third again on the next fold of users, and one was chosen, whose fits "
            then += "went on with the game"
        note(
            f"{len(trials)} settings were compared with exact players, each by its least "
            f"validation loss; {then}:"
        )
    for one in trials:
        loss = one["val_loss"]
        said = "diverged" if loss is None else f"validation loss {loss:.4f}"
        # losses are comparable among settings of as many folds
        folds = f" on {one['rung'] + 1} of {len(model.members) + 1} folds" if model.members else ""
        seconds = f" · {one['seconds']:.1f} s" if "seconds" in one else ""
        chosen = " · chosen" if one["chosen"] else ""
        note(f"compared: {one['name']} · {said}{folds}{seconds}{chosen}")
    if cost is not None:
        chosen = (
            "apart was chosen, so their effect can be taken out"
            if model.config.examination
            else "read was chosen, and --set examination=true keeps them apart"
        )
        note(
            f"places: a fit that keeps them apart has a validation loss {cost:+.4f} above one that "
            f"reads them as an input; {chosen}"
        )


def _usual_folder(source: str) -> Path:
    """Where a run goes that is given no place."""
    from fastgaum.logs.tables import stem_of

    return Path("runs") / stem_of(Path(source).absolute())


def _fit(
    source: str,
    folder: Path,
    named: tuple[str, dict[str, object]],
    json: Path | None,
    machine: Machine,
    reading: Reading,
) -> None:
    """Fit a baseline."""
    from fastgaum.baselines.registry import check_model, make_model
    from fastgaum.game.processes import launched
    from fastgaum.machine import device_of
    from fastgaum.models.run_folder import LogOrigin, check_run_folder, fit_run

    name, settings = named
    check_model(name, settings)
    check_run_folder(folder, COMMON.overwrite)
    use_threads(machine.threads)
    with launched(device_of(machine.device)) as processes:
        if processes.size > 1:
            raise ConfigError(
                f"the model '{name}' is fitted by one process, not by {processes.size}: start it "
                "without torchrun"
            )
    model = make_model(name, settings, machine.device)
    with Bar(f"reading {source}"):
        log = reading.load_to_train(source)
    origin = LogOrigin(lasting(source), reading.options.to_json())
    with noting_compilation(), Bar(f"fitting {name}"):
        table, head = fit_run(model, name, log, folder, overwrite=COMMON.overwrite, origin=origin)
    figures = f"validation prec@1 {head.precision[1].mean:.1f}, NLL {head.nll.mean:.3f}"
    text = f"{folder}: {name}, {figures}"
    facts = {
        "path": str(folder),
        "log": log.name,
        "model": name,
        "rows": table.to_dicts(),
        "validation": {"prec@1": head.precision[1].mean, "nll": head.nll.mean},
    }
    finish(text, json, facts)


def _follow(source: str, reading: Reading, device: str, processes: Processes) -> None:
    """Take part in what the first process trains."""
    from fastgaum.models.run_folder import train_run
    from fastgaum.models.user_model import UserModel

    first = processes.agree()[0]
    if first is not None:
        # where data lies is this machine's own
        log = reading.with_options(ReadOptions.from_json(first["reading"])).open_to_train(source)
        model = UserModel(Config.from_mapping(first["config"]), device=device)
        train_run(model, log, Path(), processes=processes)


def _resume_command(
    source: str, folder: Path, reading: Reading, machine: Machine, n_processes: int
) -> str:
    started = [] if n_processes == 1 else ["torchrun", "--nproc-per-node", str(n_processes), "-m"]
    words = [*started, "fastgaum", "train", source, "-o", str(folder), "--resume"]
    device = None if machine.device == "auto" else machine.device
    options = {"--data-dir": reading.data_dir, "--device": device, "--threads": machine.threads}
    for option, value in options.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
