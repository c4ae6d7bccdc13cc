"""The options that every command with a LOG shares: how the log is found and read. A run folder
remembers them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.untrusted import parse_json, read_text

if TYPE_CHECKING:
    from polars import DataFrame

    from fastgaum.logs.log import SessionLog
    from fastgaum.logs.shards import AnyLog

READING_FILE = "reading.json"

Log = Annotated[
    str,
    Parameter(
        help="a registry name, a file (csv, tsv, parquet, arrow), a folder of parquet files,"
        " or a log in shards"
    ),
]


@Parameter(name="*", group="Reading the log")
@dataclass(frozen=True)
class Reading:
    """How to find and read a log. None: not given, so that a run's own options can stand in."""

    data_dir: Annotated[Path | None, Parameter(help="where registry names are looked up first")] = (
        None
    )
    candidate_field: Annotated[
        tuple[str, ...] | None,
        Parameter(
            help="a further column of each candidate to use (repeatable)",
            negative="",
            show_default=False,
        ),
    ] = None
    item_table: Annotated[
        Path | None, Parameter(help="a file of static item columns, one row per item")
    ] = None
    ordered: Annotated[
        bool | None,
        Parameter(
            help="the display order is real (adds a position field)",
            negative="",
            show_default=False,
        ),
    ] = None
    column: Annotated[
        tuple[str, ...] | None,
        Parameter(
            help="the column of a role, as role=name: item=sku (repeatable)",
            negative="",
            show_default=False,
        ),
    ] = None
    choices: Annotated[
        Literal["error", "first"] | None,
        Parameter(help="what to do with an event of several chosen items"),
    ] = None
    split_by: Annotated[
        Literal["auto", "file", "user", "half", "other-half", "time"] | None,
        Parameter(
            help="the file's split, drawn by user, or cut by time; half, other-half: one half of"
            " the users trains and validates, the other is the test split; auto: the file's if"
            " it has one, else user"
        ),
    ] = None
    split_seed: Annotated[
        int | None, Parameter(help="seed of --split-by user, half and other-half")
    ] = None

    def options(self) -> dict[str, Any]:
        """The options given, as `fastgaum.load` takes them.

        Raises:
            ConfigError: a --column is not role=name.
        """
        given: dict[str, Any] = {
            "candidate_fields": self.candidate_field,
            "item_table": self.item_table,
            "ordered": self.ordered,
            "columns": None if self.column is None else dict(_role(text) for text in self.column),
            "choices": self.choices,
            "split": self.split_by,
            "split_seed": self.split_seed,
        }
        return {name: value for name, value in given.items() if value is not None}

    def load(self, log: str) -> SessionLog:
        """Find and read a log.

        Raises:
            DatasetError, LogFormatError, ConfigError: the name, the log or an option is wrong.
        """
        from fastgaum.logs.registry import load

        return load(log, data_dir=self.data_dir, **self.options())

    def open(self, log: str) -> AnyLog:
        """Find a log and read it; one in shards stays on disk, to be gone through part by part.

        Raises:
            DatasetError, LogFormatError, ConfigError: as `load`.
        """
        from fastgaum.logs.locate import resolve
        from fastgaum.logs.read import open_log
        from fastgaum.logs.shards import is_saved_log

        found = resolve(log, self.data_dir)
        return (
            open_log(found.path, **self.options()) if is_saved_log(found.path) else self.load(log)
        )

    def raw_rows(self, log: str) -> DataFrame | None:
        """The rows of a log as they stand in its file, for the audit; None for a saved log, which
        has none.

        Raises:
            DatasetError, LogFormatError, ConfigError: as `load`.
        """
        from fastgaum.logs.audit_rules import raw_rows
        from fastgaum.logs.locate import resolve

        found = resolve(log, self.data_dir)
        if found.dataset is not None and found.dataset.simulated:
            from fastgaum.logs.simulated_displays import shown_rows

            return shown_rows(self.load(log), found.options["seed"])
        options = {**found.options, **self.options()}
        return raw_rows(
            found.path,
            **{k: v for k, v in options.items() if k in ("columns", "candidate_fields", "choices")},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values of the options given; the data folder is the machine's, not the log's, and
        stays out."""
        values = {
            k: v for k, v in dataclasses.asdict(self).items() if v is not None and k != "data_dir"
        }
        if self.item_table is not None:
            # The run may be evaluated from another folder.
            values["item_table"] = str(self.item_table.absolute())
        return values

    def or_of_run(self, run: Path) -> Reading:
        """Fill options that were not given with those that the run in a folder was trained with.

        Raises:
            CheckpointError: the run's own record of them is damaged.
        """
        file = run / READING_FILE
        if not file.is_file():
            return self
        try:
            former = _former(parse_json(read_text(file)))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"'{file}' is damaged ({error}): train again, or remove it and give the options of "
                "reading yourself"
            ) from error
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(former, **given)

    def of_first(self, saved: dict[str, Any]) -> Reading:
        """The options of the first of several processes; where data lies is this machine's own."""
        return dataclasses.replace(_former(saved), data_dir=self.data_dir)

    def of_resumed(self, run: Path, saved: dict[str, Any]) -> Reading:
        """The options that a run's log was read with; given ones may only repeat them.

        Raises:
            ConfigError: one says otherwise.
            CheckpointError: the run's own record of them is damaged.
        """
        try:
            former = _former(saved)
        except ValueError as error:
            raise CheckpointError(
                f"the run in '{run}' says in no known way how its log was read ({error})"
            ) from error
        was, now = former.to_dict(), self.to_dict()
        differ = [
            f"--{key.replace('_', '-')} was {was.get(key)}, not {now[key]}"
            for key in now
            if now[key] != was.get(key)
        ]
        if differ:
            raise ConfigError(
                f"the log of the run in '{run}' was read otherwise: {'; '.join(differ)}: leave the "
                "options out, the folder has them"
            )
        return dataclasses.replace(former, data_dir=self.data_dir)


AS_IT_IS = Reading()
"""no option given"""


_KINDS: dict[str, type] = {
    "candidate_field": tuple,
    "item_table": str,
    "ordered": bool,
    "column": tuple,
    "choices": str,
    "split_by": str,
    "split_seed": int,
}
"""what a run's record may hold of each option"""


def _former(saved: Any) -> Reading:
    """The options that a record of them holds. Raises ValueError unless each is of its type."""
    if not isinstance(saved, dict):
        raise ValueError(f"it holds {type(saved).__name__}, options by name are required")
    known: dict[str, Any] = {}
    for name, value in saved.items():
        found: Any = tuple(value) if isinstance(value, list) else value
        if name not in _KINDS:
            raise ValueError(f"unknown option '{name}'")
        if not _is_kind(found, _KINDS[name]):
            raise ValueError(f"{name} is {value!r}")
        known[name] = Path(found) if name == "item_table" else found
    return Reading(**known)


def _is_kind(value: Any, kind: type) -> bool:
    if isinstance(value, tuple):
        return kind is tuple and all(isinstance(part, str) for part in value)
    return type(value) is kind


def lasting(log: str) -> str:
    """What names the same log from any folder: a registry name as it is, a path made absolute."""
    from fastgaum.logs.registry import names

    return log if log in names() else str(Path(log).absolute())


def _role(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if not equals or not role or not name:
        raise ConfigError(f"--column is written role=name (item=sku), got '{text}'")
    return role.strip(), name.strip()
