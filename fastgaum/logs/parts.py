"""Reading a large file a part at a time, so that its rows are never in memory together: a tenth of
what they take at once.

A part ends where a session does, is packed as a small log is, and joins the others. This is
possible where every row can be read without the others: a typed file in the long layout whose
columns are numbers, times or ids, and whose sessions are not scattered. Everything else, and every
file with an error in it, is read at once, whose messages count its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.log import IntArray, SessionLog
from fastgaum.logs.pack import Packed, check_size, pack_rows
from fastgaum.logs.rows import ChoiceRule, rows_of
from fastgaum.logs.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fastgaum.logs.schema import LogSchema
    from fastgaum.logs.tables import Table

PART_ROWS = 1_000_000
"""rows that are packed at once"""


def read_in_parts(
    table: Table,
    schema: LogSchema,
    *,
    candidate_fields: Sequence[str],
    ordered: bool,
    choices: ChoiceRule,
    name: str,
) -> Packed | None:
    """The log that reading at once gives, or None where that is what must be done."""
    columns = list(dict.fromkeys([*schema.columns(), *candidate_fields]))
    if not _row_by_row(table, schema, candidate_fields) or table.n_rows() <= PART_ROWS:
        return None
    parts: list[_Part] = []
    n_rows = 0
    try:
        for frame in _pieces(table, columns, schema.session):
            n_rows += frame.height
            check_size(n_rows)
            rows = rows_of(
                frame, schema, candidate_fields=candidate_fields, untyped=False, choices=choices
            )
            packed = pack_rows(rows, ordered=ordered, choices=choices, name=name)
            if parts and packed.log.session_ids.is_in(parts[-1].log.session_ids.implode()).any():
                return None
            parts.append(_Part(packed.log, packed.first_order, _users(rows.frame)))
        return _joined(parts)
    except LogFormatError:
        return None


@dataclass(frozen=True)
class _Part:
    log: SessionLog
    first_order: pl.Series
    users: pl.Series | None
    """user ids by the log's own codes, where users are logged"""


def _users(frame: pl.DataFrame) -> pl.Series | None:
    return frame["user"].unique(maintain_order=True) if "user" in frame.columns else None


def _row_by_row(table: Table, schema: LogSchema, candidate_fields: Sequence[str]) -> bool:
    """Whether the meaning of a row's values depends on that row alone."""

    def number_or_time(column: str) -> bool:
        dtype = table.dtypes[column]
        return dtype.is_numeric() or dtype.is_temporal()

    roles = (schema.session, schema.item, schema.split, schema.user)
    ids = [column for column in roles if column is not None]
    orders = [column for column in (schema.event, schema.event_label) if column is not None]
    return (
        not (table.untyped or schema.nested)
        and schema.event is not None
        and all(map(number_or_time, orders))
        and all(table.dtypes[column].is_numeric() for column in candidate_fields)
        # floats that are whole numbers throughout are ids without a point
        and not any(table.dtypes[column].is_float() for column in ids)
    )


def _pieces(table: Table, columns: Sequence[str], session: str) -> Iterator[pl.DataFrame]:
    """Rows in order, about PART_ROWS at a time, cut where the session changes."""
    rest: pl.DataFrame | None = None
    for frame in table.read_some(columns, PART_ROWS):
        piece = frame if rest is None else pl.concat([rest, frame], how="vertical_relaxed")
        # the last session may go on in the next part
        others = np.flatnonzero(piece[session].ne_missing(piece[session][-1]).to_numpy())
        whole = int(others[-1]) + 1 if len(others) else 0
        if whole:
            yield piece.head(whole)
        rest = piece.slice(whole)
    if rest is not None and rest.height:
        yield rest


def _joined(parts: Sequence[_Part]) -> Packed | None:
    """One log of consecutive parts; None where a session has rows in two of them."""
    logs = [part.log for part in parts]
    session_ids = pl.concat([log.session_ids for log in logs])
    if session_ids.n_unique() < len(session_ids):
        return None
    items = Vocabulary.union(Vocabulary(log.item_ids) for log in logs)

    def joined(name: str) -> Any:
        return np.concatenate([getattr(log, name) for log in logs])

    def offsets(name: str) -> Any:
        each = [getattr(log, name) for log in logs]
        starts = np.cumsum([0, *(int(one[-1]) for one in each)])
        steps = [
            one[1:] + np.int32(start) for one, start in zip(each, starts[:-1].tolist(), strict=True)
        ]
        return np.concatenate([np.zeros(1, np.int32), *steps])

    log = dataclasses.replace(
        logs[0],
        session_offsets=offsets("session_offsets"),
        display_offsets=offsets("display_offsets"),
        # both vocabularies are sorted, so that the order within a display set stays
        items=np.concatenate([items.codes(log.item_ids)[log.items] for log in logs]),
        choices=joined("choices"),
        split=joined("split"),
        users=_joined_users(parts, len(session_ids)),
        session_ids=session_ids,
        event_ids=pl.concat([log.event_ids for log in logs]),
        item_ids=items.texts,
        views=joined("views") if logs[0].views is not None else None,
        candidate_fields={
            name: np.concatenate([log.candidate_fields[name] for log in logs])
            for name in logs[0].candidate_fields
        },
    )
    return Packed(log, pl.concat([part.first_order for part in parts]))


def _joined_users(parts: Sequence[_Part], n_sessions: int) -> IntArray:
    """User of each session, coded by appearance in the whole log."""
    own = [part.users for part in parts if part.users is not None]
    if not own:
        return np.arange(n_sessions, dtype=np.int32)
    users = Vocabulary(pl.concat(own).unique(maintain_order=True))
    return np.concatenate(
        [users.codes(ids)[part.log.users] for ids, part in zip(own, parts, strict=True)]
    )
