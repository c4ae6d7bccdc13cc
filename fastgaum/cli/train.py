"""`fastgaum train`: a log in, a run folder out; a stopped run is resumed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fastgaum.cli.options import (
    COMMON,
    Device,
    Flag,
    JsonFile,
    ModelOptions,
    Threads,
    given,
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
    from fastgaum.game.processes import Processes
    from fastgaum.logs.log import SessionLog


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
    former: Annotated[Path | None, Parameter(name="--from")] = None,
    json: JsonFile = None,
    machine: Machine = THIS_MACHINE,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train a user model on a log and leave a run folder.

    Args:
        resume: continue the run in its folder; the result is identical to an uninterrupted run
        former: folder of a run: start from its weights, with its settings, in one go
    """
    overwrite = COMMON.overwrite
    folder = _usual_folder(source) if out is None else out
    check_outputs(json, resumed=resume)
    if former is not None:
        if not (former / "config.toml").is_file():
            raise ConfigError(
                f"'{former}' is no run folder, which --from takes with its settings: give the "
                "folder that train -o made, or model.fit(log, start=UserModel.load(file))"
            )
        options = replace(
            options,
            config=options.config or former / "config.toml",
            settings=(*options.settings, "folds=0", "search=[]"),
        )
    other = options.other_model() if former is None else options.named()
    if other is not None:
        if resume:
            raise ConfigError(
                f"the model '{other[0]}' is fitted in one go{' by --from' if former else ''}, "
                "there is nothing to resume: train it again (--overwrite replaces the run)"
            )
        _fit(source, folder, other, json, machine, reading, former)
        return
    config = options.resolve()
    # torch takes a second to import: a misspelt option is answered before.
    from fastgaum.game.checkpoint import places_cost, trials_as_facts
    from fastgaum.game.processes import launched, n_restarts
    from fastgaum.machine import device_of
    from fastgaum.models import run_folder
    from fastgaum.models.user_model import UserModel

    use_threads(machine.threads)
    with launched(device_of(machine.device)) as processes:
        if not processes.is_first:
            _follow(source, reading, machine.device, processes)
            return
        # torchrun gives the same command again after a process's death
        if n_restarts() and (folder / run_folder.RESUME_FILE).is_file():
            resume, overwrite = True, False
        run_folder.check_run_folder(folder, overwrite or resume)
        finished = run_folder.finished_table(folder) if resume else None
        checkpoint = run_folder.run_checkpoint(folder) if resume and finished is None else None
        if finished is not None:
            model = UserModel.load(folder, device="cpu")
            config, reading = model.config, reading.or_of_run(folder, source)
        elif checkpoint is not None:
            config = options.resumed(folder, checkpoint.config)
            reading = reading.of_resumed(folder, checkpoint.reading)
        elif resume:
            note(f"{folder}: there is no run to go on with, this one begins")
        # its tensors are not held for as long as the run
        resume, checkpoint = checkpoint is not None, None
        if finished is None:
            model = UserModel(config, device=machine.device)
        origin = run_folder.LogOrigin(lasting(source), reading.options.to_json())
        about = {"config": config.to_mapping(), "reading": origin.reading}
        processes.agree(about if finished is None else None)
        with Bar(f"reading {source}"):
            log = reading.load_to_train(source)
        n_settings, n_folds = len(model.settings_for(log)), model.folds_for(log)
        observers = [TrainingProgress(config, n_settings, n_folds)]
        try:
            with noting_compilation(), observers[0]:
                if finished is not None:
                    assert model.space is not None
                    run_folder.check_same_log(folder, log, model.space.fingerprint)
                    if options != DEFAULT_MODEL:
                        options.resumed(folder, config, lambda asked: _fitted(asked, log))
                    table = finished
                elif resume:
                    table = run_folder.resume_run(
                        model,
                        log,
                        folder,
                        observers=observers,
                        source=origin.source,
                        processes=processes,
                    )
                else:
                    table = run_folder.train_run(
                        model,
                        log,
                        folder,
                        overwrite=overwrite,
                        observers=observers,
                        origin=origin,
                        processes=processes,
                    )
        except Interrupted as interrupted:
            if interrupted.cure:
                command = _resume_command(source, folder, reading, machine, processes.size)
                interrupted.cure += f": go on with `{command}`"
            raise
    best = table.filter(table["best"]).row(-1, named=True)
    figures = f"validation prec@1 {best['val_prec1']:.1f}"
    if best["phase"] in ("generator", "rounds"):
        figures += f", the generator's {best['val_generator_prec1']:.1f}, gap {best['gap']:.4f}"
    before = ", finished before" if finished is not None else ""
    text = (
        f"{folder}: {table.height} epochs{before}, "
        f"best {best['epoch']} by {chosen_by(model.config)}: {figures}"
    )
    out_of_fold: dict[str, float] | None = None
    if model.members:
        reward = model.evaluate(log, "validation").heads["reward"]
        out_of_fold = {"prec@1": reward.precision[1].mean, "nll": reward.nll.mean}
        text = (
            f"{folder}: {len(model.members) + 1} fits{before}, each of which left out a fold of "
            f"users: validation prec@1 {out_of_fold['prec@1']:.1f}, NLL {out_of_fold['nll']:.3f}, "
            "out of fold"
        )
    if model.trials:
        then = "and one was chosen, and fitted anew"
        if model.members:
            then = "the best third again on the next fold of users, and one was chosen, whose fits "
            then += "went on with the game"
        note(
            f"{len(model.trials)} settings were compared with exact players, each by its least "
            f"validation loss; {then}:"
        )
    for one in trials_as_facts(model.trials):
        loss = one["val_loss"]
        said = "diverged" if loss is None else f"validation loss {loss:.4f}"
        # losses are comparable among settings of as many folds
        folds = f" on {one['rung'] + 1} of {len(model.members) + 1} folds" if model.members else ""
        seconds = f" · {one['seconds']:.1f} s" if "seconds" in one else ""
        chosen = " · chosen" if one["chosen"] else ""
        note(f"compared: {one['name']} · {said}{folds}{seconds}{chosen}")
    cost = places_cost(model.trials)
    if cost is not None:
        note(
            f"places: a fit that keeps them apart has a validation loss {cost:+.4f} above one that "
            "reads them as an input; "
            + (
                "apart was chosen, so their effect can be taken out"
                if model.config.examination
                else "read was chosen, and --set examination=true keeps them apart"
            )
        )
    assert model.space is not None
    context = model.space.context_holds
    if context:
        fields = ", ".join(f"{name} ({holds})" for name, holds in context.items())
        note(f"context of the events: {fields}")
    if model.space.actions:
        note(f"actions, tokens of the history: {log.n_actions} beside {log.n_events} events")
    facts = {
        "path": str(folder),
        "log": log.name,
        "context": context,
        "actions": log.n_actions if model.space.actions else 0,
        "compared": trials_as_facts(model.trials),
        "places_cost": cost,
        "folds": model.space.folds,
        "out_of_fold": out_of_fold,
        "epochs": table.height,
        "finished_before": finished is not None,
        "best": best,
        "processes": processes.size,
    }
    finish(text, json, facts)


def _usual_folder(source: str) -> Path:
    """Where a run goes that is given no place."""
    from fastgaum.logs.tables import stem_of

    return Path("runs") / stem_of(Path(source).absolute())


def _fitted(asked: Config, log: SessionLog) -> list[Config]:
    """The configurations that a fit of the asked one may end with on a log."""
    from fastgaum.models.user_model import UserModel

    displays = log.training_counts().displays.tolist()
    tried = UserModel(asked, device="cpu").settings_for(log).values()
    return [config.for_items(displays) for config in tried or [asked]]


def _fit(
    source: str,
    folder: Path,
    named: tuple[str, dict[str, object]],
    json: Path | None,
    machine: Machine,
    reading: Reading,
    former: Path | None,
) -> None:
    """Fit a baseline, or a model with the weights of a former run."""
    from fastgaum.baselines.registry import check_model, make_model
    from fastgaum.game.processes import launched
    from fastgaum.machine import device_of
    from fastgaum.models.run_folder import LogOrigin, check_run_folder, fit_run
    from fastgaum.models.user_model import UserModel

    name, settings = named
    start = None if former is None else UserModel.load(former, device="cpu")
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
    reading = reading if former is None else reading.or_of_run(former, source)
    with Bar(f"reading {source}"):
        log = reading.load_to_train(source)
    origin = LogOrigin(lasting(source), reading.options.to_json())
    with noting_compilation(), Bar(f"fitting {name}"):
        table, head = fit_run(
            model, name, log, folder, overwrite=COMMON.overwrite, origin=origin, start=start
        )
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
        log = reading.with_options(ReadOptions.from_json(first["reading"])).load(source)
        model = UserModel(Config.from_mapping(first["config"]), device=device)
        train_run(model, log, Path(), processes=processes)


def _resume_command(
    source: str, folder: Path, reading: Reading, machine: Machine, n_processes: int
) -> str:
    own = given(
        data_dir=reading.data_dir,
        device=None if machine.device == "auto" else machine.device,
        threads=machine.threads,
    )
    options = [
        text for key, value in own.items() for text in (f"--{key.replace('_', '-')}", str(value))
    ]
    command = (
        ["fastgaum"]
        if n_processes == 1
        else ["torchrun", "--nproc-per-node", str(n_processes), "-m", "fastgaum"]
    )
    return shlex.join([*command, "train", source, "-o", str(folder), "--resume", *options])
