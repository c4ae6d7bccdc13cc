"""`fastgaum train`: a log in, a run folder out; stopped by a signal or a crash, it goes on where it was."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.console import note, say
from fastgaum.cli.progress import TrainingProgress
from fastgaum.cli.reading import AS_IT_IS, Log, Reading, lasting
from fastgaum.cli.settings import Device, Settings, resolve_config, resumed_config, set_threads
from fastgaum.errors import ConfigError
from fastgaum.interrupts import Interrupted, stop_on_signals


def train(
    log: Log,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the run folder to write")],
    preset: Annotated[str | None, Parameter(help="named configuration; fastgaum if not given")] = None,
    config: Annotated[Path | None, Parameter(help="a TOML file of configuration keys")] = None,
    settings: Settings = (),
    seed: Annotated[int | None, Parameter(help="seeds every random stream of the run")] = None,
    protocol: Annotated[
        Literal["identity", "bags", "views"] | None, Parameter(help="what a candidate's bag holds")
    ] = None,
    overwrite: Annotated[bool, Parameter(help="replace a run that is there already", negative="")] = False,
    resume: Annotated[
        bool,
        Parameter(
            help="go on with the run that is there: its options, and the very bytes it would have had", negative=""
        ),
    ] = False,
    device: Device = "auto",
    threads: Annotated[int | None, Parameter(help="threads to use; all cores if not given")] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train a user model on a log and leave a run folder.

    Ctrl-C and SIGTERM end the run after the batch at hand, saved; `--resume` goes on with it to the same bytes, also after
    a crash. More epochs: `--resume --set epochs=N`.
    """
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it: give one of them")
    given = (preset, config, settings)
    resolved = resolve_config(*given, seed=seed, protocol=protocol)
    # torch takes a second to import: a misspelt option is answered before.
    from fastgaum.models.user_model import UserModel
    from fastgaum.training.runs import (
        RESUME_FILE,
        check_run_folder,
        finished_table,
        kept_run,
        resume_run,
        train_run,
    )

    set_threads(threads)
    check_run_folder(out, overwrite or resume)
    kept = kept_run(out) if resume else None
    if kept is not None:
        resolved = resumed_config(out, kept.config, *given, seed=seed, protocol=protocol)
        reading = reading.of_resumed(out, kept.reading)
    elif resume:
        note(f"{out}: there is no run to go on with, this one begins")
    was_finished = kept is not None and finished_table(out, replace(kept, config=resolved)) is not None
    sessions = reading.open(log)
    source = lasting(log)
    model = UserModel(resolved, device=device)
    with TrainingProgress(resolved) as progress, stop_on_signals() as stop:
        try:
            if kept is not None:
                del kept
                table = resume_run(model, sessions, out, observer=progress, stop=stop, source=source)
            else:
                options = reading.to_dict()
                table = train_run(
                    model,
                    sessions,
                    out,
                    overwrite=overwrite,
                    observer=progress,
                    reading=options,
                    stop=stop,
                    source=source,
                )
        except Interrupted as interrupted:
            if (out / RESUME_FILE).is_file():
                interrupted.cure = f"go on with `{_resume_command(log, out, reading, device, threads)}`"
            raise
    best = table.filter(table["best"]).row(-1, named=True)
    figures = f"validation prec@1 {best['val_prec1']:.1f}"
    if best["phase"] != "exact":
        figures += f", the generator's {best['val_generator_prec1']:.1f}, gap {best['gap']:.4f}"
    finished = ", finished before" if was_finished else ""
    say(f"{out}: {table.height} epochs{finished}, best {best['epoch']}: {figures}")


def _resume_command(log: str, out: Path, reading: Reading, device: str, threads: int | None) -> str:
    """What goes on with the run: the folder knows all but where this machine keeps its data, and its own parts."""
    options = {"--data-dir": reading.data_dir, "--device": None if device == "auto" else device, "--threads": threads}
    given = [str(part) for option, value in options.items() if value is not None for part in (option, value)]
    return shlex.join(["fastgaum", "train", log, "-o", str(out), "--resume", *given])
