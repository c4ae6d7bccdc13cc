"""How a log is found and read: the options of every command with a LOG, which a run remembers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fastgaum.cli.options import DataDir
from fastgaum.cli.output import note, note_later
from fastgaum.cli.progress import Bar
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.logs.options import ABOUT, ReadOptions, columns_of, option_name
from fastgaum.untrusted import parse_json, read_text

if TYPE_CHECKING:
    from fastgaum.logs.datasets import Located
    from fastgaum.logs.fold import Rows
    from fastgaum.logs.log import SessionLog, SplitName
    from fastgaum.logs.read import RowsToPredict
    from fastgaum.logs.store import StoredLog
    from fastgaum.logs.trained_users import SeenUsers
    from fastgaum.models.choice_model import ChoiceModel

READING_FILE = "reading.json"
_SAVED_BY = ("columns", "wide", "clicks", "outside", "available", "weight", "user_table")
"""options that a saved log was saved by"""

Log = Annotated[
    str,
    Parameter(
        name="LOG",
        help="a registry name, a file (csv, tsv, ndjson, parquet, arrow), a folder of parquet "
        "files, or a saved log",
    ),
]


@Parameter(
    name="*",
    group="Reading the log",
    negative="",
    show_default=False,
    name_transform=lambda field: option_name(field).replace("_", "-"),
)
@dataclass(frozen=True, kw_only=True, init=False)
class GivenOptions(ReadOptions):
    """`ReadOptions` as the command line gives them: columns are texts, item=sku."""

    columns: tuple[str, ...] = field(  # type: ignore[assignment]
        default=(), metadata=ReadOptions.__dataclass_fields__["columns"].metadata
    )
    name: Annotated[str | None, Parameter(parse=False)] = None
    given: Annotated[frozenset[str], Parameter(parse=False)] = field(
        default=frozenset(), compare=False
    )
    recorded: Annotated[frozenset[str], Parameter(parse=False)] = field(
        default=frozenset(), compare=False
    )
    means: Annotated[Mapping[str, float], Parameter(parse=False)] = field(
        default_factory=dict, compare=False
    )
    categories: Annotated[frozenset[str], Parameter(parse=False)] = field(
        default=frozenset(), compare=False
    )

    def __init__(self, **given: Any) -> None:
        columns = given.get("columns")
        if isinstance(columns, tuple):
            given["columns"] = columns_of(columns)
        super().__init__(**{"given": frozenset(given), **given})


NO_OPTIONS = GivenOptions()


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """Where a log is found, and how it is read."""

    options: GivenOptions = NO_OPTIONS
    data_dir: DataDir = None

    def with_options(self, options: ReadOptions) -> Reading:
        """The same with other options."""
        about = {name: getattr(options, name) for name in ABOUT}
        return Reading(GivenOptions(**options.values, **about), self.data_dir)

    def load(self, source: str) -> SessionLog:
        """Find and read a log. Raises DatasetError, LogFormatError or ConfigError."""
        return self.load_with_rows(source)[0]

    def open_parts(self, source: str) -> StoredLog | None:
        """A saved log of several parts, which is read part by part, unless an option of reading
        asks for another log than was saved; None for any other log."""
        from fastgaum.logs.datasets import resolve
        from fastgaum.logs.store import StoredLog, is_saved_log

        path = resolve(source, self.data_dir).source
        if not is_saved_log(path) or self.options.given - self.options.recorded:
            return None
        stored = StoredLog(path)
        return stored if stored.n_parts > 1 else None

    def open_to_train(self, source: str) -> SessionLog | StoredLog:
        """As `load_to_train`, but a large saved log in parts is opened."""
        if (stored := self.open_parts(source)) is None:
            return self.load_to_train(source)
        from fastgaum.models.fit_data import in_memory

        log = in_memory(stored)
        if log is stored:
            note_later(f"{source}: {stored.n_parts} parts, read one by one")
        return log

    def load_to_train(self, source: str) -> SessionLog:
        """As `load`; notes say later what was read, what was not, and what reading decided."""
        from fastgaum.features.relations import left_out
        from fastgaum.logs.audit_facts import say_reading

        log, rows = self.load_with_rows(source)
        for text in say_reading(log, rows):
            note_later(text)
        if why := left_out(log):
            note_later(f"models leave relations out: {why}")
        return log

    def load_with_rows(self, source: str) -> tuple[SessionLog, Rows | None]:
        """As `load`, and the rows of a log that is not a saved one."""
        from fastgaum.logs.datasets import resolve
        from fastgaum.logs.read import ONE_DISPLAY, read_with_rows

        found = resolve(source, self.data_dir)
        log, rows = read_with_rows(found, options=self.options)
        if rows is not None and rows.by_session:
            note(f"{found.path.name}: {ONE_DISPLAY}")
        if rows is not None and not found.dataset:
            _dtypes_of(found, self.options.delimiter)
        return log, rows

    def or_of_run(self, folder: Path, source: str, *, training_log: bool = False) -> Reading:
        """Fill options that were not given with those of a run, or of a model file, less those that
        the log, if it is a saved one, was saved by. A sample of users is of the `training_log`
        alone: other logs are read whole. Raises CheckpointError, DatasetError for no log, or
        LogFormatError for its item table."""
        from fastgaum.baselines.registry import load_model
        from fastgaum.logs.datasets import resolve
        from fastgaum.logs.side_tables import has_item_table
        from fastgaum.logs.store import is_saved_log

        file = folder / READING_FILE
        try:
            if folder.is_file():
                file, space = folder, load_model(folder, device="cpu").space
                record = None if space is None else space.reading
            else:
                record = parse_json(read_text(file)) if file.is_file() else None
            if record is None:
                return self
            former = ReadOptions.from_json(record)
            former = former if training_log else former.whole_log()
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(
                f"'{file}' is damaged ({error}): train again, or remove it and give the options of "
                "reading yourself"
            ) from error
        kept = former.given
        path = resolve(source, self.data_dir).source
        if is_saved_log(path):
            kept -= {*_SAVED_BY, *(["split"] if former.split == "time" else [])}
            if former.item_table is not None and has_item_table(path, former.item_table):
                kept -= {"item_table"}
        values = {name: value for name, value in former.values.items() if name in kept}
        base = replace(
            ReadOptions.of(**values),
            recorded=frozenset(kept),
            means=former.means,
            categories=former.categories,
        )
        return self.with_options(self.options.over(base))

    def of_resumed(self, folder: Path, reading: dict[str, object]) -> Reading:
        """The options that a run's log was read with. Raises ConfigError where a given one says
        otherwise, CheckpointError where its record is damaged."""
        try:
            former = ReadOptions.from_json(reading)
        except (ValueError, ConfigError) as error:
            raise CheckpointError(
                f"the run in '{folder}' says in no known way how its log was read ({error})"
            ) from error
        was, now = former.to_json(), self.options.to_json()
        differ = [
            f"--{key.replace('_', '-')} was {was.get(key)}, not {now[key]}"
            for key in now
            if now[key] != was.get(key)
        ]
        if differ:
            raise ConfigError(
                f"the log of the run in '{folder}' was read otherwise: {'; '.join(differ)}: leave "
                "the options out, the folder has them"
            )
        return self.with_options(self.options.over(former))


AS_IT_IS = Reading()


def log_of_run(run: Path, source: str, data_dir: Path | None, split: SplitName) -> SessionLog:
    """Read a log as the log of a run was read, to look at a split; a note says if the training has
    not ended. Of a saved log in parts this reads the split alone, and where it has more than
    MOST_EVALUATED events, users drawn at random. Raises as `Reading.load` and `or_of_run`."""
    _note_unfinished(run, source)
    reading = Reading(data_dir=data_dir).or_of_run(run, source)
    if (stored := reading.open_parts(source)) is None:
        with Bar(f"reading {source}"):
            return reading.load(source)
    from fastgaum.models.choice_model import MOST_EVALUATED

    n_events = stored.count("events", split)
    if n_events > MOST_EVALUATED:
        note(
            f"{n_events:,} events of split '{split}': those of users drawn at random are read, "
            f"about {MOST_EVALUATED:,}"
        )
    with Bar(f"reading {source}"):
        return stored.read_split(split, MOST_EVALUATED)


def rows_of_run(
    run: Path, source: str, data_dir: Path | None, split: SplitName
) -> SessionLog | StoredLog | RowsToPredict:
    """As `log_of_run`, of displays that may lack choices; with the rows as they stand, if they hold
    the log's displays; a saved log in parts is opened."""
    from fastgaum.logs.datasets import resolve
    from fastgaum.logs.read import read_to_predict, without_choices
    from fastgaum.logs.store import is_saved_log

    _note_unfinished(run, source)
    reading = Reading(data_dir=data_dir).or_of_run(run, source)
    if (stored := reading.open_parts(source)) is not None:
        return stored
    found = resolve(source, data_dir)
    if found.simulated or is_saved_log(found.source):
        with Bar(f"reading {source}"):
            return reading.load(source)
    found.verify()
    dtypes = _dtypes_of(found, reading.options.delimiter)
    if without_choices(reading.options, dtypes) is not reading.options:
        note(f"{found.path.name} has no choices: its displays are read as without a click")
    with Bar(f"reading {source}"):
        options = reading.options.over(found.options)
        rows = read_to_predict(found.path, options, any_split=split == "all")
    return rows.log if rows.candidate is None else rows


def checked_users(
    model: ChoiceModel, log: SessionLog, split: SplitName, allow_seen_users: bool
) -> SeenUsers:
    """Users of a split that trained a model; a note says if the split is a part of another log than
    the training log. Raises SeenUsersError."""
    from fastgaum.features.encoder import Encoder

    seen = model.seen_users(log, split)
    if not allow_seen_users:
        seen.require_unseen()
    n, space = log.count("events", split), model.space
    counts = space is not None and space.has_statistics
    other = space is not None and log.fingerprint != space.fingerprint
    if split in ("train", "all") and seen.n_seen and counts and other and not seen.out_of_fold:
        note_later(
            f"'{log.name}' is not the log that the model was trained on, row by row, and "
            f"{seen.n_seen:,} of its users trained it: a training user reads the counts of the "
            "users before it in the training log, so that these figures depend on the rows and "
            "their order; those of other users do not (predict marks rows, trained_on)"
        )
    if n < log.n_events and space is not None and not Encoder(space, log).reads_training_log:
        note_later(
            f"'{log.name}' is not the log that the model was trained on, and its {split} split is "
            f"{n:,} of its {log.n_events:,} events: --split all takes all"
        )
    return seen


def lasting(source: str) -> str:
    """A name of the log from any folder."""
    from fastgaum.logs.addresses import is_address
    from fastgaum.logs.datasets import names

    return source if source in names() or is_address(source) else str(Path(source).absolute())


def _dtypes_of(found: Located, delimiter: str | None) -> Mapping[str, Any]:
    """The columns of a file of rows; a note says which layout it is, if it is a public log's."""
    from fastgaum.logs.tables import open_known

    table, layout = open_known(found.path, delimiter)
    if layout is not None and not found.dataset:
        note(f"{found.path.name} is read as {layout}")
    return table.dtypes


def _note_unfinished(run: Path, source: str) -> None:
    """Say so if the training of a run has not ended."""
    from fastgaum.models.run_folder import RESUME_FILE

    if (run / RESUME_FILE).is_file():
        note(
            f"{run}: its training has not ended, this is its best epoch so far (its generator is "
            f"trained last); go on with: fastgaum train {shlex.quote(source)} -o "
            f"{shlex.quote(str(run))} --resume"
        )
