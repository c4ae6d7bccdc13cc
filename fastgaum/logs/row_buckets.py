"""Rows of a log on disk, by a hash of their user: what `convert` keeps between its two passes.

A piece of a bucket is three tables: lines (what `Rows.events` holds, and the context), candidates,
and the texts of the items that these have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.logs.action_tables import ActionTable, add_items, no_actions
from fastgaum.logs.clicks import CLICKS_SO_FAR, ClickFacts
from fastgaum.logs.columns import CodedIds, DistinctTexts, Vocabulary
from fastgaum.logs.context import CATEGORIES_OF_TIME
from fastgaum.logs.fold import EVENT_COLUMNS, Rows
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.logs.options import ReadOptions

_LINES, _CANDIDATES, _ITEMS = "lines", "candidates", "items"
"""the three tables of a piece"""


@dataclass
class RowBuckets:
    """Rows by a hash of their user, in files, and what all of them say together."""

    folder: Path
    n: int
    fields: Sequence[str]
    context: Sequence[str]
    logs_views: bool = False
    clicks: ClickFacts = field(default_factory=ClickFacts)
    has_times: bool = True
    _n_pieces: dict[int, int] = field(default_factory=dict)
    _items: DistinctTexts = field(default_factory=DistinctTexts)
    _values: dict[str, DistinctTexts] = field(default_factory=dict)
    _types: dict[str, np.dtype[np.generic]] = field(default_factory=dict)

    @property
    def filled(self) -> list[int]:
        """Numbers of the buckets that hold rows, ascending."""
        return sorted(self._n_pieces)

    def append(self, rows: Rows) -> None:
        """Add a piece's rows, in order."""
        self.logs_views = self.logs_views or rows.logs_views
        self.clicks = self.clicks.plus(rows.clicks)
        self.has_times = self.has_times and rows.has_times
        self._items.add(rows.item.texts)
        if "past" in rows.events.columns:
            add_items(rows.events["past"], self._items)
        for name, values in (*rows.fields.items(), *rows.context.items()):
            if isinstance(values.dtype, pl.String | pl.Categorical | pl.Enum):
                self._values.setdefault(name, DistinctTexts()).add(values.cast(pl.String))
                self._types[name] = np.dtype(np.int32)
            else:
                self._types[name] = np.dtype(np.float32)
        owner = "user" if "user" in rows.events.columns else "session"
        lines = rows.events.with_columns(
            *(rows.context[name].alias(column) for column, name in self._context_columns.items()),
            bucket=(pl.col(owner).hash(0) % self.n).cast(pl.Int32),
        )
        candidates = pl.DataFrame(
            [
                pl.Series("item", rows.item.codes),
                pl.Series("chosen", rows.chosen),
                rows.of_rows(lines["bucket"]),
                *(rows.fields[name].alias(f"field_{i}") for i, name in enumerate(self.fields)),
                *([] if rows.views is None else [pl.Series("views", rows.views)]),
                *([] if rows.click_order is None else [rows.click_order.alias("click_order")]),
            ]
        )
        if rows.event_of_row is not None:
            sizes = np.bincount(rows.event_of_row, minlength=lines.height)
            lines = lines.with_columns(pl.Series("size", sizes.astype(np.int32)))
        shown = _by_bucket(candidates)
        for number, part in _by_bucket(lines).items():
            codes = shown[number]["item"].to_numpy()
            used = np.flatnonzero(np.bincount(codes, minlength=len(rows.item.texts)))
            of_code = np.zeros(len(rows.item.texts), np.int32)
            of_code[used] = np.arange(len(used), dtype=np.int32)
            piece = self._n_pieces.get(number, 0)
            self._n_pieces[number] = piece + 1
            tables = {
                _LINES: part,
                _CANDIDATES: shown[number].with_columns(pl.Series("item", of_code[codes])),
                _ITEMS: pl.DataFrame([rows.item.texts.gather(used).alias("item")]),
            }
            for table, frame in tables.items():
                path = self._path(table, number, piece)
                frame.write_parquet(path, compression="lz4", statistics=False)

    def head(self, options: ReadOptions, actions: ActionTable | None = None) -> SessionLog:
        """All the items, categories and kinds of actions, and no session."""
        if actions is not None:
            self._items.add(actions.rows["item"])
        return replace(
            SessionLog.empty(self._items.sorted()),
            views=np.zeros(0, np.uint16) if self.logs_views else None,
            candidate_fields={name: np.zeros(0, self._types[name]) for name in self.fields},
            event_fields={name: np.zeros(0, self._types[name]) for name in self.context}
            | {
                name: np.zeros(0, np.int32 if name in CATEGORIES_OF_TIME else np.float32)
                for name in options.time_fields
            }
            | ({CLICKS_SO_FAR: np.zeros(0, np.float32)} if options.clicks == "each" else {}),
            categories={
                name: self._values[name].sorted()
                for name in (*self.fields, *self.context)
                if name in self._values
            }
            | {
                name: CATEGORIES_OF_TIME[name]
                for name in options.time_fields
                if name in CATEGORIES_OF_TIME
            },
            ordered=options.ordered,
            name=options.name or "log",
            actions=no_actions(bool(options.past), actions),
        )

    def users_of(self, number: int) -> pl.Series:
        """Distinct users (or sessions, where there are no users) of a bucket."""
        paths = list(self._paths(_LINES, number))
        owner = "user" if "user" in pl.read_parquet_schema(paths[0]) else "session"
        return pl.scan_parquet(paths, glob=False).select(owner).unique().collect()[owner]

    def have_no_click(self) -> bool:
        """Whether an event of any bucket has no click."""
        return not all(self._all_clicked(number) for number in self.filled)

    def read(self, number: int) -> Rows:
        """A bucket's rows, in the order of the files; its own files are removed."""
        lines, shown = self._table(_LINES, number), self._table(_CANDIDATES, number)
        item = self._coded_items(number)
        for table in (_LINES, _CANDIDATES, _ITEMS):
            for path in self._paths(table, number):
                path.unlink()
        views: npt.NDArray[np.integer] | None = None
        if self.logs_views:
            ones = np.ones(shown.height, np.int64)
            views = shown["views"].to_numpy() if "views" in shown.columns else ones
        return Rows(
            lines.select(name for name in EVENT_COLUMNS if name in lines.columns),
            item,
            shown["chosen"].to_numpy(),
            {name: shown[f"field_{i}"] for i, name in enumerate(self.fields)},
            views=views,
            context={name: lines[column] for column, name in self._context_columns.items()},
            event_of_row=_event_of_row(lines),
            has_times=self.has_times,
            click_order=shown["click_order"] if "click_order" in shown.columns else None,
        )

    def _all_clicked(self, number: int) -> bool:
        lines, chosen = self._table(_LINES, number), self._table(_CANDIDATES, number)["chosen"]
        event = _event_of_row(lines)
        if event is not None:
            return len(np.unique(event[chosen.to_numpy()])) == lines.height
        clicked = lines.with_columns(chosen).group_by("session", "key").agg(pl.col("chosen").any())
        return bool(clicked["chosen"].all())

    def _coded_items(self, number: int) -> CodedIds:
        """The items of a bucket's rows; each piece has codes of its own texts."""
        texts, codes = (
            [pl.read_parquet(path, columns=["item"], glob=False)["item"] for path in paths]
            for paths in (self._paths(_ITEMS, number), self._paths(_CANDIDATES, number))
        )
        known = Vocabulary.of(pl.concat(texts))
        parts = zip(texts, codes, strict=True)
        turned = [known.codes(own)[part.to_numpy()] for own, part in parts]
        return CodedIds(np.concatenate(turned), known.texts)

    def _path(self, table: str, number: int, piece: int) -> Path:
        return self.folder / f"{table}-{number}-{piece:06}.parquet"

    def _paths(self, table: str, number: int) -> Iterator[Path]:
        return (self._path(table, number, piece) for piece in range(self._n_pieces[number]))

    def _table(self, table: str, number: int) -> pl.DataFrame:
        return pl.read_parquet(list(self._paths(table, number)), glob=False)

    @property
    def _context_columns(self) -> dict[str, str]:
        """Name of each context column: names are free text, so columns have numbers."""
        return {f"context_{i}": name for i, name in enumerate(self.context)}


def _by_bucket(frame: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """The lines of each bucket, in order."""
    parts = frame.partition_by("bucket", as_dict=True, include_key=False, maintain_order=True)
    return {number: part for (number,), part in parts.items()}


def _event_of_row(lines: pl.DataFrame) -> IntArray | None:
    """Line of each row; None where each row is a line."""
    if "size" not in lines.columns:
        return None
    return np.repeat(np.arange(lines.height, dtype=np.int32), lines["size"].to_numpy())
