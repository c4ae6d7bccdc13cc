"""Options that several commands share; the help of an option is the docstring of its field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from fastgaum.config import Config

# -- options of every command

COMMON_OPTIONS = {
    "--quiet": "print errors and results only, no progress and no notes",
    "--overwrite": "replace files and folders that are there already",
    "--debug": "print the traceback of an error",
}
"""options that stand anywhere on the command line"""
FOR_MACHINES = ("--json", "--markdown")
"""options whose file may be stdout"""


@dataclass
class Common:
    """The options of every command."""

    quiet: bool = False
    overwrite: bool = False
    debug: bool = False
    text: bool = True
    """whether results are text on stdout, not the JSON object"""


COMMON = Common()


def read_common(tokens: Sequence[str]) -> list[str]:
    """Set `COMMON` from a command line; return its other words."""
    rest: list[str] = []
    for token in tokens:
        if token == "-" and rest and rest[-1] in FOR_MACHINES:
            # the parser takes a lone hyphen for no value
            rest[-1] += "=-"
        elif token not in COMMON_OPTIONS:
            rest.append(token)
    COMMON.quiet, COMMON.overwrite, COMMON.debug = (name in tokens for name in COMMON_OPTIONS)
    COMMON.text = not any(f"{option}=-" in rest for option in FOR_MACHINES)
    return rest


# -- options of several commands

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Repeated = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
RunPath = Annotated[Path, Parameter(help="a run folder, or a model file")]
HeadOption = Annotated[
    Literal["generator", "reward"] | None,
    Parameter(help="the network that chooses; the generator if the run has one"),
]
ScoredSplit = Annotated[
    Literal["train", "validation", "test", "all"], Parameter(help="the split to score")
]
AllowSeenUsers = Annotated[
    Flag, Parameter(help="score the test split even if its users trained the model")
]
DataDir = Annotated[
    Path | None, Parameter(help="the folder in which names of logs are looked up first")
]
TablePath = Annotated[
    Path, Parameter(name=["--out", "-o"], help="the table to write: .parquet or .csv")
]
JsonFile = Annotated[
    Path | None,
    Parameter(help="also write the result as a JSON object; -: print it instead of text"),
]
Markdown = Annotated[Path | None, Parameter(help="also write the table as markdown")]
Device = Annotated[str, Parameter(help="cpu, cuda or auto")]
Threads = Annotated[int | None, Parameter(help="threads to use; all cores if not given")]
FewThreads = Annotated[
    int, Parameter(help="threads to use; so small networks are slower on more than one")
]
ONE_THREAD = 1
ProtocolOption = Annotated[
    Literal["identity", "bags", "views"],
    Parameter(
        help="what a model reads of an item: its id; also fields and counts (bags); also how often "
        "the display shows it (views)"
    ),
]
Settings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="set a key of the configuration: epochs=3 (repeatable)",
        negative="",
        show_default=False,
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class TableFiles:
    """Where a table is written beside the terminal."""

    json: JsonFile = None
    markdown: Markdown = None


NO_FILES = TableFiles()


@Parameter(name="*")
@dataclass(frozen=True)
class PlotFiles(TableFiles):
    """The same, and where it is drawn."""

    plot: Path | None = None
    """also draw a figure: .svg or .png"""


@Parameter(name="*")
@dataclass(frozen=True)
class FigureFiles(TableFiles):
    """The same, and where prec@1 is drawn."""

    figure: Path | None = None
    """also draw prec@1 by model: .svg or .png"""


def given(**values: Any) -> dict[str, Any]:
    """The values of those options that the command line has."""
    return {name: value for name, value in values.items() if value is not None}


def parse_settings(settings: Sequence[str]) -> dict[str, object]:
    """Read `key=value` texts; a later one wins. Raises ConfigError for one that is not."""
    from fastgaum.config import parse_setting

    return dict(parse_setting(text) for text in settings)


def parse_signs(signs: Sequence[str]) -> dict[str, str]:
    """Read `cost=-` texts; a later one wins. Raises ConfigError for one that is not."""
    pairs = [text.rpartition("=") for text in signs]
    for name, _, sign in pairs:
        if not name or sign not in ("+", "-"):
            raise ConfigError(
                f"--sign takes a number and + or -, as cost=-, got '{name or sign}"
                f"{'=' + sign if name else ''}'"
            )
    return {name: sign for name, _, sign in pairs}


def use_threads(threads: int | None) -> None:
    """Let torch and the kernels use so many threads; None: all cores."""
    if threads is not None:
        from fastgaum.threads import set_threads

        set_threads(threads)


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """A preset or a file, and changes of it."""

    preset: str | None = None
    """name of a preset or of another model; fastgaum if not given"""
    config: Path | None = None
    """a TOML file with the configuration"""
    settings: Settings = ()
    sign: Repeated = ()
    """a number of candidates by which utilities of all users only fall: cost=-, or rise: comfort=+
    (repeatable); income*cost=- is a number of the context times one of candidates"""
    seed: int | None = None
    """seed of everything random in the run"""
    protocol: ProtocolOption | None = None

    def named(self) -> tuple[str, dict[str, object]]:
        """Name of a preset or of another model, and its settings: those of the file, then --seed
        and --protocol, then --set. Raises ConfigError."""
        from fastgaum.config import read_settings

        values = {} if self.config is None else read_settings(self.config)
        changes = given(preset=self.preset) | self._changes()
        # a name means the preset's values, which a file of all keys would replace
        if {"preset"} <= changes.keys() & values.keys() and changes["preset"] != values["preset"]:
            raise ConfigError(
                f"'{self.config}' has the preset {values['preset']}, and {changes['preset']} is "
                "asked for: leave one of them out"
            )
        values |= changes
        name = values.pop("preset", "fastgaum")
        if not isinstance(name, str):
            raise ConfigError(f"preset must be a name, got {name!r}")
        return name, values

    def resolve(self) -> Config:
        """The configuration of a preset. Raises ConfigError."""
        from fastgaum.config import Config as Configuration

        name, values = self.named()
        return Configuration.from_preset(name, **values)

    def other_model(self) -> tuple[str, dict[str, object]] | None:
        """Name and settings of a baseline or a pool, if that is asked for. Raises ConfigError."""
        from fastgaum.presets import PRESETS

        name, values = self.named()
        if name in PRESETS:
            return None
        from fastgaum.baselines.registry import check_name

        check_name(name)
        if self.sign:
            raise ConfigError(
                f"--sign is of presets ({', '.join(PRESETS)}): the model '{name}' holds no "
                "coefficient to one side, leave the option out"
            )
        return name, values

    def after(self, run: Path) -> ModelOptions:
        """With the settings of a run whose weights a fit takes over. Raises ConfigError."""
        file = run / "config.toml"
        if not file.is_file():
            raise ConfigError(
                f"'{run}' is no run folder, which --from takes with its settings: give the folder "
                "that train -o made, or model.fit(log, start=UserModel.load(file))"
            )
        settings = (*self.settings, "folds=0", "search=[]")
        return replace(self, config=self.config or file, settings=settings)

    def check_same(self, folder: Path, asked: Config, *, ended: bool) -> None:
        """Raise ConfigError unless options only repeat what a run was asked for, which goes on or
        has ended."""
        changes = self._changes()
        anew = self.preset is not None or self.config is not None or "preset" in changes
        now = (self.resolve() if anew else asked.replace(**changes)).to_mapping()
        was = asked.to_mapping()
        if differ := [f"{k} = {was[k]}, not {now[k]}" for k in was if now[k] != was[k]]:
            cure = f", or go on with new data (--from {folder})" if ended else ""
            raise ConfigError(
                f"the run in '{folder}'{' has ended and' if ended else ''} has "
                f"{', '.join(differ)}: leave the options out (the folder has them), or train in "
                f"another folder{cure}"
            )

    def _changes(self) -> dict[str, object]:
        signs = parse_signs(self.sign) or None
        own = given(seed=self.seed, protocol=self.protocol, signs=signs)
        return own | parse_settings(self.settings)
