"""`fastgaum train`: a log in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.console import say
from fastgaum.cli.progress import TrainingProgress
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.settings import Device, Settings, resolve_config, set_threads


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
    device: Device = "auto",
    threads: Annotated[int | None, Parameter(help="threads to use; all cores if not given")] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Train a user model on a log and leave a run folder."""
    resolved = resolve_config(preset, config, settings, seed=seed, protocol=protocol)
    options = reading.to_dict()
    # torch takes a second to import: a misspelt option is answered before.
    from fastgaum.models.user_model import UserModel
    from fastgaum.training.runs import check_run_folder, train_run

    set_threads(threads)
    check_run_folder(out, overwrite)
    sessions = reading.load(log)
    model = UserModel(resolved, device=device)
    with TrainingProgress(resolved) as progress:
        table = train_run(model, sessions, out, overwrite=overwrite, observer=progress, reading=options)
    best = table.filter(table["best"]).row(-1, named=True)
    figures = f"validation prec@1 {best['val_prec1']:.1f}"
    if best["phase"] != "exact":
        figures += f", the generator's {best['val_generator_prec1']:.1f}, gap {best['gap']:.4f}"
    say(f"{out}: {table.height} epochs, best {best['epoch']}: {figures}")
