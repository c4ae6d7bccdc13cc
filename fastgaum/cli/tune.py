"""`fastgaum tune`: a log in, a configuration that `train --config` reads out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fastgaum.cli.options import COMMON, Flag, Json, Settings, given, parse_settings, use_threads
from fastgaum.cli.output import check_outputs, finish
from fastgaum.cli.progress import Bar, noting_compilation
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.train import THIS_MACHINE, Machine
from fastgaum.errors import ConfigError
from fastgaum.interrupts import Interrupted


@Parameter(name="*")
@dataclass(frozen=True)
class SearchOptions:
    """How much is searched, and what is not."""

    trials: int = 30
    """fits in all, those that were done before included"""
    resume: Annotated[
        Flag, Parameter(help="go on with a search that has ended, for more trials")
    ] = False
    settings: Settings = ()
    seed: int | None = None
    """seeds the search, and every fit of it"""
    protocol: Literal["identity", "bags", "views"] | None = None
    """what a candidate's bag holds"""

    @property
    def fixed(self) -> dict[str, object]:
        """The keys that are set, and so not varied."""
        return given(seed=self.seed, protocol=self.protocol) | parse_settings(self.settings)


USUAL_SEARCH = SearchOptions()


def tune_command(
    source: Log,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="the configuration to write: .toml")],
    search: SearchOptions = USUAL_SEARCH,
    json: Json = None,
    machine: Machine = THIS_MACHINE,
    reading: Reading = AS_IT_IS,
) -> None:
    """Search settings of the preset fastgaum for a log, and write what `train --config` reads."""
    if search.resume and COMMON.overwrite:
        raise ConfigError(
            "--resume goes on with a search and --overwrite replaces it: give one of them"
        )
    check_outputs(out, json, resumed=search.resume)
    fixed = search.fixed
    from fastgaum.machine import device_of, machine_facts
    from fastgaum.models.tuning import checked_base, trials_as_rows, trials_file, tune

    base = checked_base(out, fixed)
    device_of(machine.device)
    use_threads(machine.threads)
    with Bar(f"reading {source}"):
        log = reading.load(source)
    try:
        with noting_compilation(), Bar("tuning") as progress:
            found = tune(
                log,
                out,
                trials=search.trials,
                settings=fixed,
                device=machine.device,
                overwrite=COMMON.overwrite,
                progress=progress,
            )
    except Interrupted as interrupted:
        if trials_file(out).is_file():
            less = " less --overwrite" if COMMON.overwrite else ""
            interrupted.cure = f"the same command{less} goes on with the trials that have ended"
        raise
    difference = found.difference
    facts = {
        "machine": machine_facts(base.seed),
        "path": str(out),
        "log": log.name,
        "reading": reading.options.to_json(),
        "trials": trials_as_rows(found.trials),
        "default": asdict(found.default),
        "best": asdict(found.best),
        "difference": None if difference is None else asdict(difference),
        "default_stands": found.default_stands,
        "config": found.config.to_mapping(),
    }
    finish(f"{out}: {found.sentence()}", json, facts)
