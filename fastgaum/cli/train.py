"""`fastgaum train`: a log in, a run folder out; stopped by a signal or a crash, it goes on where it
was."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fastgaum.cli.options import COMMON, Device, Json, ModelOptions, Threads, use_threads
from fastgaum.cli.output import check_outputs, finish, note
from fastgaum.cli.progress import TrainingProgress, Waiting, noting_compilation
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, lasting
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.interrupts import Interrupted, stop_on_signals

if TYPE_CHECKING:
    from fastgaum.processes import Processes


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """What a training computes on."""

    device: Device = "auto"
    threads: Threads = None


DEFAULT_MODEL, THIS_MACHINE = ModelOptions(), Machine()


def train_command(
    log: Log,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the run folder to write")],
    asked: ModelOptions = DEFAULT_MODEL,
    resume: Annotated[
        bool,
        Parameter(
            help="go on with the run that is there: its options, and the very bytes it would"
            " have had",
            negative="",
            show_default=False,
        ),
    ] = False,
    json: Json = None,
    machine: Machine = THIS_MACHINE,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train a user model on a log and leave a run folder.

    Ctrl-C and SIGTERM end the run after the batch at hand, saved; `--resume` goes on with it to the
    same bytes, also after a crash. More epochs: `--resume --set epochs=N`.

    Several processes: `torchrun --nproc-per-node K -m fastgaum train …` trains the same run, a
    batch's sessions shared."""
    overwrite, device = COMMON.overwrite, machine.device
    if resume and overwrite:
        raise ConfigError(
            "--resume goes on with a run and --overwrite replaces it: give one of them"
        )
    check_outputs(json, resumed=resume)
    resolved = asked.resolve()
    # torch takes a second to import: a misspelt option is answered before.
    from fastgaum.models.run_folder import (
        RESUME_FILE,
        LogOrigin,
        check_run_folder,
        finished_table,
        resume_run,
        run_checkpoint,
        train_run,
    )
    from fastgaum.models.user_model import UserModel, device_of
    from fastgaum.processes import launched, n_restarts

    use_threads(machine.threads)
    with launched(device_of(device)) as processes:
        if not processes.is_first:
            _follow(log, reading, device, processes)
            return
        if n_restarts():
            # torchrun gives the same command again after a process's death
            before = run_checkpoint(out)
            resume = before is not None and not (overwrite and before.is_finished)
            overwrite, before = overwrite and not resume, None
        check_run_folder(out, overwrite or resume)
        former = run_checkpoint(out) if resume else None
        if former is not None:
            resolved = asked.resumed(out, former.config)
            reading = reading.of_resumed(out, former.reading)
        elif resume:
            note(f"{out}: there is no run to go on with, this one begins")
        was_finished = (
            former is not None and finished_table(out, replace(former, config=resolved)) is not None
        )
        processes.agree({"config": resolved.to_mapping(), "reading": reading.options.to_json()})
        with Waiting(f"reading {log}"):
            sessions = reading.open(log)
        source = lasting(log)
        origin = LogOrigin(source, reading.options.to_json())
        model = UserModel(resolved, device=device)
        with (
            noting_compilation(),
            TrainingProgress(resolved) as progress,
            stop_on_signals() as stop,
        ):
            processes.stop = stop
            also: dict[str, Any] = {"observer": progress, "processes": processes}
            try:
                if former is not None:
                    del former
                    table = resume_run(model, sessions, out, source=source, **also)
                else:
                    table = train_run(
                        model, sessions, out, overwrite=overwrite, origin=origin, **also
                    )
            except Interrupted as interrupted:
                if (out / RESUME_FILE).is_file():
                    command = _resume_command(log, out, reading, machine, processes.size)
                    interrupted.cure = f"go on with `{command}`"
                raise
    best = table.filter(table["best"]).row(-1, named=True)
    figures = f"validation prec@1 {best['val_prec1']:.1f}"
    if best["phase"] != "exact":
        figures += f", the generator's {best['val_generator_prec1']:.1f}, gap {best['gap']:.4f}"
    finished = ", finished before" if was_finished else ""
    sent_bytes = processes.traffic.sent_per_step(processes.size)
    traffic = sent_bytes / 1000 if processes.traffic.steps else None
    sent = (
        ""
        if traffic is None
        else (
            f"\n{processes.size} processes, {processes.traffic.steps} steps of players: each "
            f"process sent {traffic:,.1f} kB a step"
        )
    )
    facts = {
        "path": str(out),
        "log": sessions.name,
        "epochs": table.height,
        "finished_before": was_finished,
        "best": best,
        "processes": processes.size,
        "kilobytes_sent_per_step": traffic,
    }
    finish(
        f"{out}: {table.height} epochs{finished}, best {best['epoch']}: {figures}{sent}",
        json,
        facts,
    )


def _follow(log: str, reading: Reading, device: str, processes: Processes) -> None:
    """Take part in what the first process trains: it knows the run, and it alone writes and
    speaks."""
    from fastgaum.models.run_folder import follow_run
    from fastgaum.models.user_model import UserModel

    asked = processes.agree()[0]
    sessions = reading.of_first(asked["reading"]).open(log)
    with stop_on_signals() as stop:
        processes.stop = stop
        model = UserModel(Config.from_mapping(asked["config"]), device=device)
        follow_run(model, sessions, processes)


def _resume_command(
    log: str, out: Path, reading: Reading, machine: Machine, n_processes: int
) -> str:
    """What goes on with the run: the folder knows all but where this machine keeps its data, and
    its own parts."""
    options = {
        "--data-dir": reading.data_dir,
        "--device": None if machine.device == "auto" else machine.device,
        "--threads": machine.threads,
    }
    given = [
        str(part)
        for option, value in options.items()
        if value is not None
        for part in (option, value)
    ]
    command = (
        ["fastgaum"]
        if n_processes == 1
        else ["torchrun", "--nproc-per-node", str(n_processes), "-m", "fastgaum"]
    )
    return shlex.join([*command, "train", log, "-o", str(out), "--resume", *given])
