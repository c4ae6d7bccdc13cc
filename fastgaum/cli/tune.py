"""`fastgaum tune`: a log in, a configuration that `train --config` reads out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fastgaum.cli.options import (
    COMMON,
    Flag,
    JsonFile,
    ProtocolOption,
    Settings,
    given,
    parse_settings,
    use_threads,
)
from fastgaum.cli.output import check_outputs, finish
from fastgaum.cli.progress import Bar, noting_compilation
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.train import THIS_MACHINE, Machine
from fastgaum.interrupts import Interrupted


def tune_command(
    source: Log,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the configuration to write: .toml")],
    trials: Annotated[int, Parameter(help="fits in all, earlier ones included")] = 30,
    resume: Annotated[
        Flag, Parameter(help="continue a search that has ended, with more trials")
    ] = False,
    settings: Settings = (),
    seed: Annotated[int | None, Parameter(help="seed of the search and of its fits")] = None,
    protocol: ProtocolOption | None = None,
    json: JsonFile = None,
    machine: Machine = THIS_MACHINE,
    reading: Reading = AS_IT_IS,
) -> None:
    """Search settings of the preset fastgaum for a log."""
    check_outputs(out, json, resumed=resume)
    fixed = given(seed=seed, protocol=protocol) | parse_settings(settings)
    from fastgaum.machine import device_of, machine_facts
    from fastgaum.models.tuning import TunedTrial, checked_base, trials_file, tune

    base = checked_base(out, fixed)
    device_of(machine.device)
    use_threads(machine.threads)
    with Bar(f"reading {source}"):
        log = reading.load_to_train(source)
    try:
        with noting_compilation(), Bar("tuning") as progress:

            def say(n_ended: int, trial: TunedTrial) -> None:
                took = f"({trial.seconds:.1f} s)"
                progress.line(f"[{n_ended}/{trials}] {trial.line()} {took}")

            found = tune(
                log,
                out,
                trials=trials,
                settings=fixed,
                device=machine.device,
                overwrite=COMMON.overwrite,
                progress=progress.stage,
                on_trial=say,
            )
    except Interrupted as interrupted:
        if trials_file(out).is_file():
            less = " less --overwrite" if COMMON.overwrite else ""
            interrupted.cure = f"the same command{less} goes on with the trials that have ended"
        raise
    facts = {
        **asdict(found),
        "config": found.config.to_mapping(),
        "default_stands": found.best is found.default,
        "machine": machine_facts(base.seed),
        "path": str(out),
        "log": log.name,
        "reading": reading.options.to_json(),
    }
    finish(f"{out}: {found.sentence()}", json, facts)
