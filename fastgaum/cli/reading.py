"""The options that every command with a LOG shares: how the log is found and read. A run folder
remembers them."""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fastgaum.cli.options import given
from fastgaum.cli.output import note
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.logs.options import (
    DEFAULT_OPTIONS,
    FILES,
    OPTIONS,
    ReadOptions,
    columns_of,
    option_name,
)
from fastgaum.untrusted import parse_json, read_text

if TYPE_CHECKING:
    from fastgaum.logs.fold import Rows
    from fastgaum.logs.log import SessionLog, SplitName
    from fastgaum.logs.trained_users import SeenUsers
    from fastgaum.models.choice_model import ChoiceModel

READING_FILE = "reading.json"
MOST_EPOCHS_BYTES = 1 << 24
"""of metrics.jsonl"""

Log = Annotated[
    str,
    Parameter(
        name="LOG",
        help="a registry name, a file (csv, tsv, ndjson, parquet, arrow), a folder of parquet "
        "files, or a saved log",
    ),
]


def _flag(option: dataclasses.Field[Any], kind: Any) -> tuple[str, Any, Any]:
    """A field of `ReadOptions` as a field that the command line fills; None: not given."""
    kind = tuple[str, ...] if typing.get_origin(kind) is Mapping else kind
    kind = Path | None if option.name in FILES else kind
    parameter = Parameter(
        name=f"--{option_name(option.name).replace('_', '-')}",
        help=option.metadata["help"],
        negative="",
        show_default=False,
    )
    return option.name, Annotated[kind | None, parameter], field(default=None)


@dataclass(frozen=True)
class LogReading:
    """Where a log is found, and how it is read."""

    data_dir: Annotated[Path | None, Parameter(help="where registry names are looked up first")] = (
        None
    )
    of_run: Annotated[ReadOptions, Parameter(parse=False)] = DEFAULT_OPTIONS
    """what a run says of reading: taken where the command line says nothing"""

    @property
    def options(self) -> ReadOptions:
        """How the log is read.

        Raises:
            ConfigError: an option's value is impossible.
        """
        values: Any = given(**{name: getattr(self, name, None) for name in OPTIONS})
        if "columns" in values:
            values["columns"] = columns_of(values["columns"])
        return ReadOptions.of(**values).over(self.of_run)

    def load(self, source: str) -> SessionLog:
        """Find and read a log.

        Raises:
            DatasetError, LogFormatError, ConfigError: the name, the log or an option is wrong.
        """
        from fastgaum.logs.read import load

        log = load(source, data_dir=self.data_dir, options=self.options)
        self._note_layout(source)
        return log

    def _note_layout(self, source: str) -> None:
        """Say how a public log is read that is recognised by its columns."""
        from fastgaum.logs.opened_log import open_known
        from fastgaum.logs.registry import resolve
        from fastgaum.logs.store import is_saved_log

        found = resolve(source, self.data_dir)
        if found.dataset is not None or is_saved_log(found.path):
            return
        layout = open_known(found.path, self.options.delimiter)[1]
        if layout is not None:
            note(f"{found.path.name} is read as {layout}")

    def load_with_rows(self, source: str) -> tuple[SessionLog, Rows | None]:
        """As `load`, and the log's rows as `raw_rows` gives them, read once.

        Raises:
            DatasetError, LogFormatError, ConfigError: as `load`.
        """
        from fastgaum.logs.read import read_with_rows
        from fastgaum.logs.registry import resolve
        from fastgaum.logs.store import is_saved_log

        found = resolve(source, self.data_dir)
        if is_saved_log(found.path):
            return self.load(source), None
        read = read_with_rows(found, options=self.options)
        self._note_layout(source)
        return read

    def raw_rows(self, source: str) -> Rows | None:
        """The rows of a log as they are in its file, for the audit; None for a saved log, which has
        none.

        Raises:
            DatasetError, LogFormatError, ConfigError: as `load`.
        """
        from fastgaum.logs.read import raw_rows, read_with_rows
        from fastgaum.logs.registry import resolve

        found = resolve(source, self.data_dir)
        if found.simulated:
            return read_with_rows(found, options=self.options)[1]
        return raw_rows(found.path, options=self.options.over(found.options))

    def or_of_run(self, folder: Path) -> LogReading:
        """Fill options that were not given with those that the run in a folder was trained with.

        Raises:
            CheckpointError: the run's own record of them is damaged.
        """
        file = folder / READING_FILE
        if not file.is_file():
            return self
        try:
            former = ReadOptions.from_json(parse_json(read_text(file)))
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(
                f"'{file}' is damaged ({error}): train again, or remove it and give the options of "
                "reading yourself"
            ) from error
        return dataclasses.replace(self, of_run=former)

    def of_first(self, reading: dict[str, object]) -> LogReading:
        """The options of the first of several processes; where data lies is this machine's own."""
        return Reading(self.data_dir, of_run=ReadOptions.from_json(reading))

    def of_resumed(self, folder: Path, reading: dict[str, object]) -> LogReading:
        """The options that a run's log was read with; given ones may only repeat them.

        Raises:
            ConfigError: one says otherwise.
            CheckpointError: the run's own record of them is damaged.
        """
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
        return Reading(self.data_dir, of_run=former)


if TYPE_CHECKING:
    Reading = LogReading
else:
    _kinds = typing.get_type_hints(ReadOptions)
    Reading = Parameter(name="*", group="Reading the log")(
        dataclasses.make_dataclass(
            "Reading",
            [
                _flag(one, _kinds[one.name])
                for one in dataclasses.fields(ReadOptions)
                if one.metadata
            ],
            bases=(LogReading,),
            namespace={"__module__": __name__},
            frozen=True,
        )
    )
"""a source with a field for each of `ReadOptions` that has a help text, None where it is not
given"""

AS_IT_IS = Reading()
"""no option given"""


def checked_users(
    model: ChoiceModel, log: SessionLog, split: SplitName, allow_seen_users: bool
) -> SeenUsers:
    """How many users of a split trained a model.

    Raises:
        SeenUsersError: users of the test split did, and that is not allowed.
    """
    seen = model.seen_users(log, split)
    if not allow_seen_users:
        seen.require_unseen()
    return seen


def lasting(source: str) -> str:
    """What names the same log from any folder: a registry name as it is, a path made absolute."""
    from fastgaum.logs.registry import names

    return source if source in names() else str(Path(source).absolute())


def note_unfinished(run: Path, source: str) -> None:
    """Say so if the training of a run has not ended: its model is the best one so far."""
    from fastgaum.models.run_folder import RESUME_FILE

    # the table is a run's last file, and a run that goes on removes it first
    if not (run / RESUME_FILE).is_file() or (run / "metrics.parquet").is_file():
        return
    try:
        last = read_text(run / "metrics.jsonl", MOST_EPOCHS_BYTES).splitlines()[-1]
        phase = str(parse_json(last)["phase"])
    except (OSError, ValueError, LookupError, TypeError):
        phase = "unknown"
    note(
        f"{run}: its training has not ended (phase {phase!r}; a generator is trained in 'rounds' "
        "alone), this is its best epoch so far; go on with: fastgaum train "
        f"{shlex.quote(source)} -o {shlex.quote(str(run))} --resume"
    )
