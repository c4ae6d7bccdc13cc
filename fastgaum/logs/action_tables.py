"""Reading actions: a table of what users did between displays, and the past of a user in a column.

A table has a row for each action: the session or the user, the item and, if known, the action and
its time; or lists of these. An action is told before the first event with a later time; without
times, before a session's first event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.logs.actions import ACTED, PAST, Actions
from fastgaum.logs.column_roles import ROLE_NAMES, LogSchema, find_column, is_list, no_column
from fastgaum.logs.columns import (
    CodedIds,
    as_list,
    filled_ids,
    ids_as_text,
    refuse_at,
    require_filled,
    row_number,
    show,
)
from fastgaum.logs.event_order import order_of
from fastgaum.logs.tables import open_table
from fastgaum.logs.vocabulary import Vocabulary

NAMES = {
    "session": ROLE_NAMES["session"],
    "user": ROLE_NAMES["user"],
    "item": (*ROLE_NAMES["item"], "article_id_fixed", "reference"),
    "time": (*ROLE_NAMES["event"], "impression_time_fixed"),
    "action": ("action", "action_type", "event_type", "behavior", "kind", "type"),
}
_AT_ONCE = 1 << 18
_NANOSECONDS = {"ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True)
class ActionTable:
    """A table of actions, read."""

    path: Path
    of_users: bool
    """whether its actions belong to users, not to sessions"""
    rows: pl.DataFrame
    """owner, item, kind and, if known, time; in the order of the file"""

    @classmethod
    def read(cls, path: Path, schema: LogSchema) -> ActionTable:
        """Read a table in any format that `read_log` takes; the log's own names of columns go
        before NAMES. Raises LogFormatError."""
        table = open_table(path)
        known = list(table.dtypes)
        items = schema.item or schema.items
        own = {"session": schema.session, "user": schema.user, "item": items, "time": schema.event}
        found = {
            role: name if (name := own.get(role)) in known else find_column(names, known)
            for role, names in NAMES.items()
        }
        if found["session"] == found["user"] or schema.session == schema.user:
            # the log's sessions are its users
            found["session"] = None if found["user"] else found["session"]
        owner = "session" if found["session"] else "user"
        for role in (owner, "item"):
            if found[role] is None:
                wanted = "an item" if role == "item" else "a session or user"
                names = NAMES[role] if role == "item" else (*NAMES["session"], *NAMES["user"])
                raise no_column(f"a table of actions needs {wanted} column", role, names, known)
        roles = (owner, "item", "time", "action")
        columns = {role: name for role in roles if (name := found[role]) is not None}
        frame = table.read(list(dict.fromkeys(columns.values())))
        if frame.height == 0:
            raise LogFormatError("the table is empty (no rows): one row per action is required")
        lists = [name for name in frame.columns if is_list(frame[name].dtype)]
        frame = _one_by_one(frame, lists) if lists else frame
        rows = {
            "owner": filled_ids(frame[columns[owner]], owner),
            "item": filled_ids(frame[columns["item"]], "item"),
            "kind": (
                filled_ids(frame[columns["action"]], "action")
                if "action" in columns
                else pl.repeat(ACTED, frame.height, eager=True)
            ),
        }
        if "time" in columns:
            column = frame[columns["time"]]
            if (times := order_of(column)) is None:
                raise LogFormatError(
                    f"column '{column.name}' holds {column.dtype}, the times of actions are "
                    "numbers or times: correct the column, or leave it out, and all actions come "
                    "before the first event"
                )
            require_filled(times, "time", column.name)
            rows["time"] = times
        return cls(path, owner == "user", pl.DataFrame([v.alias(k) for k, v in rows.items()]))

    def require_some(self, left_out: int, session: str) -> None:
        """Raise LogFormatError if all actions of the table were left out."""
        if left_out == self.rows.height:
            owner = "user" if self.of_users else "session"
            raise LogFormatError(
                f"actions {self.path.name}: none of the {left_out} actions comes before an event "
                f"of its {owner} (the table has {show(self.rows['owner'][0])} …, the log the "
                f"session {show(session)} …): use the same ids and the same clock in both, or give "
                "this log's own table (a run remembers that of its own log)"
            )

    def rows_of(self, events: pl.DataFrame, has_times: bool) -> pl.DataFrame:
        """Row of the table, event (a row of `events`), item and kind of each action that an event
        follows; events: session, user and order of each, sorted; has_times: whether orders compare
        sessions. Raises LogFormatError for times that cannot be compared."""
        owner = "user" if self.of_users else "session"
        events = events.with_row_index("event").with_columns(owner=owner)
        rows = self.rows.with_row_index("row")
        if "time" not in rows.columns:
            # a user's actions are the past of each of its sessions
            first = events.unique("session", keep="first", maintain_order=True)
            found = rows.join(first, on="owner", how="inner", maintain_order="left")
            return found.select("row", "event", "item", "kind")
        order, time = _comparable(events["order"], rows["time"], self.path, has_times)
        # in one order of time: an event before the actions of its own time
        both = pl.concat(
            [
                events.select("owner", order, "event"),
                rows.select("owner", time, "row", "item", "kind"),
            ],
            how="diagonal_relaxed",
        )
        both = both.sort("owner", "order", pl.col("row").is_not_null(), maintain_order=True)
        following = pl.col("event").fill_null(strategy="backward").over("owner")
        found = both.with_columns(following).drop_nulls(["row", "event"])
        return found.select("row", "event", "item", "kind")


def past_column(column: pl.Series) -> pl.Series:
    """The items of users' pasts as lists of text, without gaps; text is ids with spaces between
    them. Raises LogFormatError if they are no ids."""
    if column.dtype == pl.String:
        rule = "a list of items, or text of ids with spaces between them, is required: write it so"
        refuse_at(column, column.str.contains(r"[,;|\[\]]"), rule)
        column = column.str.extract_all(r"\S+")
    lists = as_list(column)
    flat = ids_as_text(lists.explode().alias(column.name), "past item")
    if isinstance(lists.dtype, pl.List) and lists.dtype.inner.is_float():
        whole = flat.str.contains(r"^-?\d+$").all()
        lists = lists.cast(pl.List(pl.Int64)) if whole else lists
    return lists.cast(pl.List(pl.String)).list.eval(
        pl.element().filter(pl.element().is_not_null() & (pl.element() != ""))
    )


def with_acted_items(
    items: CodedIds, pasts: pl.Series | None, table: ActionTable | None
) -> CodedIds:
    """The items of a log by texts that hold those of its actions too."""
    if pasts is None and table is None:
        return items
    known = [items.texts]
    # a part of the pasts at a time: most items are the same in many rows
    if pasts is not None:
        starts = range(0, len(pasts), _AT_ONCE)
        known += [pasts.slice(start, _AT_ONCE).explode().unique() for start in starts]
    if table is not None:
        known.append(table.rows["item"])
    texts = pl.concat([one.rename("") for one in known])
    known_texts = texts.drop_nulls().unique().sort()
    return CodedIds(Vocabulary(known_texts).codes(items.texts)[items.codes], known_texts)


def pack_actions(
    events: pl.DataFrame,
    item_ids: pl.Series,
    pasts: pl.Series | None,
    table: ActionTable | None,
    has_times: bool,
) -> Actions | None:
    """The actions of a log, if any; events: session, user, order and row of each, sorted; pasts: of
    each row. Raises as `ActionTable.rows_of`."""
    if pasts is None and table is None:
        return None
    kinds = {PAST} if pasts is not None else set()
    kinds |= set() if table is None else set(table.rows["kind"].unique())
    parts, left_out = [], 0
    if pasts is not None:
        first = events.with_row_index("event").unique("session", keep="first", maintain_order=True)
        rows = first.select("event", item=pasts.gather(first["row"]), kind=pl.lit(PAST))
        parts.append(rows.explode("item").drop_nulls("item"))
    if table is not None:
        found = table.rows_of(events, has_times)
        left_out = table.rows.height - found["row"].n_unique()
        parts.append(found.drop("row"))
    # those of an event stay in their order
    rows = pl.concat(parts, how="vertical_relaxed").sort("event", maintain_order=True)
    counts = np.bincount(rows["event"].to_numpy(), minlength=events.height)
    names = Vocabulary(pl.Series("", sorted(kinds), dtype=pl.String))
    return Actions(
        np.append(0, np.cumsum(counts)).astype(np.int32),
        Vocabulary(item_ids).codes(rows["item"]),
        names.codes(rows["kind"]),
        names.texts,
        left_out,
    )


def _one_by_one(frame: pl.DataFrame, lists: Sequence[str]) -> pl.DataFrame:
    frame = frame.with_columns(as_list(frame[name]) for name in lists)
    lengths = [frame[name].list.len().fill_null(0) for name in lists]
    row = next((i for n in lengths for i in (n != lengths[0]).arg_true()), None)
    if row is not None:
        each = " and ".join(f"{n[row]} in '{name}'" for name, n in zip(lists, lengths, strict=True))
        raise LogFormatError(
            f"{row_number(row)} has lists of {each}, one length is required: correct the row"
        )
    return frame.filter(lengths[0] > 0).explode(*lists)


def _comparable(order: pl.Series, time: pl.Series, path: Path, has_times: bool) -> list[pl.Series]:
    """Orders of events and times of actions, both called `order`, as one type."""
    found = []
    kinds = []
    zones = [getattr(one.dtype, "time_zone", None) or "none" for one in (order, time)]
    for one in (order, time):
        if isinstance(one.dtype, pl.Datetime) and one.dtype.time_zone is not None:
            one = one.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        dated = isinstance(one.dtype, pl.Datetime | pl.Date)
        other = "numbers" if one.dtype.is_numeric() else str(one.dtype.base_type())
        kinds.append("times" if dated else other)
        if dated:
            unit = one.dtype.time_unit if isinstance(one.dtype, pl.Datetime) else "us"
            # nanoseconds of the year 9999 need more than 64 bits
            long = pl.Series([_NANOSECONDS[unit]], dtype=pl.Int128)
            one = one.cast(pl.Datetime(unit)).to_physical().cast(pl.Int128) * long
        found.append(one.alias("order"))
    if not has_times or kinds[0] != kinds[1]:
        held = kinds[0] if has_times else "no order in time"
        raise LogFormatError(
            f"actions {path.name}: their times are {kinds[1]}, the log's events have {held}: give "
            "both as numbers of one clock, or as times; or leave the times of actions out, and "
            "all come before the first event"
        )
    if "none" in zones and {*zones} - {"none", "UTC"}:
        raise LogFormatError(
            f"actions {path.name}: the zone of their times is {zones[1]}, that of the log's events "
            f"is {zones[0]}: give both a zone, or neither"
        )
    return found
