"""`fastgaum train`: a log in, a run folder out; stopped by a signal or a crash, it goes on where it
was."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fastgaum.cli.compiling import noting_compilation
from fastgaum.cli.console import Json, check_outputs, finish, note
from fastgaum.cli.progress import TrainingProgress, Waiting
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, lasting
from fastgaum.cli.settings import Device, Settings, resolve_config, resumed_config, set_threads
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.interrupts import Interrupted, stop_on_signals

if TYPE_CHECKING:
    from fastgaum.parallel.ranks import Ranks


def train(
    log: Log,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the run folder to write")],
    preset: Annotated[
        str | None, Parameter(help="named configuration; fastgaum if not given")
    ] = None,
    config: Annotated[Path | None, Parameter(help="a TOML file of configuration keys")] = None,
    settings: Settings = (),
    seed: Annotated[int | None, Parameter(help="seeds every random stream of the run")] = None,
    protocol: Annotated[
        Literal["identity", "bags", "views"] | None, Parameter(help="what a candidate's bag holds")
    ] = None,
    overwrite: Annotated[
        bool, Parameter(help="replace a run that is there already", negative="", show_default=False)
    ] = False,
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
    device: Device = "auto",
    threads: Annotated[int | None, Parameter(help="threads to use; all cores if not given")] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train a user model on a log and leave a run folder.

    Ctrl-C and SIGTERM end the run after the batch at hand, saved; `--resume` goes on with it to the
    same bytes, also after a crash. More epochs: `--resume --set epochs=N`.

    Several processes: `torchrun --nproc-per-node K -m fastgaum train …` trains the same run, a
    batch's sessions shared."""
    if resume and overwrite:
        raise ConfigError(
            "--resume goes on with a run and --overwrite replaces it: give one of them"
        )
    check_outputs(json)
    given = (preset, config, settings)
    resolved = resolve_config(*given, seed=seed, protocol=protocol)
    # torch takes a second to import: a misspelt option is answered before.
    from fastgaum.models.run_folder import (
        RESUME_FILE,
        check_run_folder,
        finished_table,
        kept_run,
        resume_run,
        train_run,
    )
    from fastgaum.models.user_model import UserModel, device_of
    from fastgaum.parallel.launch import launched, n_restarts

    set_threads(threads)
    with launched(device_of(device)) as ranks:
        if not ranks.is_first:
            _follow(log, reading, device, ranks)
            return
        if n_restarts():
            # torchrun gives the same command again after a process's death
            before = kept_run(out)
            resume = before is not None and not (overwrite and before.is_finished)
            overwrite, before = overwrite and not resume, None
        check_run_folder(out, overwrite or resume)
        kept = kept_run(out) if resume else None
        if kept is not None:
            resolved = resumed_config(out, kept.config, *given, seed=seed, protocol=protocol)
            reading = reading.of_resumed(out, kept.reading)
        elif resume:
            note(f"{out}: there is no run to go on with, this one begins")
        was_finished = (
            kept is not None and finished_table(out, replace(kept, config=resolved)) is not None
        )
        ranks.json_of_first({"config": resolved.to_mapping(), "reading": reading.to_dict()})
        with Waiting(f"reading {log}"):
            sessions = reading.open(log)
        source = lasting(log)
        model = UserModel(resolved, device=device)
        with (
            noting_compilation(),
            TrainingProgress(resolved) as progress,
            stop_on_signals() as stop,
        ):
            also: dict[str, Any] = {
                "observer": progress,
                "stop": stop,
                "source": source,
                "ranks": ranks,
            }
            try:
                if kept is not None:
                    del kept
                    table = resume_run(model, sessions, out, **also)
                else:
                    table = train_run(
                        model, sessions, out, overwrite=overwrite, reading=reading.to_dict(), **also
                    )
            except Interrupted as interrupted:
                if (out / RESUME_FILE).is_file():
                    interrupted.cure = (
                        "go on with "
                        f"`{_resume_command(log, out, reading, device, threads, ranks.size)}`"
                    )
                raise
    best = table.filter(table["best"]).row(-1, named=True)
    figures = f"validation prec@1 {best['val_prec1']:.1f}"
    if best["phase"] != "exact":
        figures += f", the generator's {best['val_generator_prec1']:.1f}, gap {best['gap']:.4f}"
    finished = ", finished before" if was_finished else ""
    traffic = ranks.traffic.sent_per_step(ranks.size) / 1000 if ranks.traffic.steps else None
    sent = (
        ""
        if traffic is None
        else (
            f"\n{ranks.size} processes, {ranks.traffic.steps} steps of players: each process sent "
            f"{traffic:,.1f} kB a step"
        )
    )
    facts = {
        "path": str(out),
        "log": sessions.name,
        "epochs": table.height,
        "finished_before": was_finished,
        "best": best,
        "processes": ranks.size,
        "kilobytes_sent_per_step": traffic,
    }
    finish(
        f"{out}: {table.height} epochs{finished}, best {best['epoch']}: {figures}{sent}",
        json,
        facts,
    )


def _follow(log: str, reading: Reading, device: str, ranks: Ranks) -> None:
    """Take part in what the first process trains: it knows the run, and it alone writes and
    speaks."""
    from fastgaum.models.run_folder import follow_run
    from fastgaum.models.user_model import UserModel

    asked = ranks.json_of_first()
    sessions = reading.of_first(asked["reading"]).open(log)
    with stop_on_signals() as stop:
        follow_run(
            UserModel(Config.from_mapping(asked["config"]), device=device), sessions, ranks, stop
        )


def _resume_command(
    log: str, out: Path, reading: Reading, device: str, threads: int | None, n_processes: int
) -> str:
    """What goes on with the run: the folder knows all but where this machine keeps its data, and
    its own parts."""
    options = {
        "--data-dir": reading.data_dir,
        "--device": None if device == "auto" else device,
        "--threads": threads,
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
