"""The context of events, of their own or of their user, and its kinds: numbers, categories, items.

A field holds items where at least 90 % of its training values are ids of the log's items, and these
are displayed in their own session far more often than chance, the share of the training items that
the session displays: (observed - chance) / (1 - chance) is at least .1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from fastgaum.arrays import BoolArray, IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.log import TRAIN, Column, SessionLog
from fastgaum.logs.vocabulary import Vocabulary

Holds = Literal["numbers", "categories", "items"]
MOST_OTHERS = 0.1
"""share of training values that may be no item's id"""
LEAST_LIFT = 0.1
"""of values displayed in their own sessions, beyond chance"""


_HOURS = pl.Series("", sorted(str(hour) for hour in range(24)))
_DAYS = pl.Series("", ["Fri", "Mon", "Sat", "Sun", "Thu", "Tue", "Wed"])
CATEGORIES_OF_TIME = {"hour": _HOURS, "day": _DAYS}


def time_columns(
    names: Sequence[str], events: pl.DataFrame, has_times: bool, taken: Iterable[str]
) -> dict[str, Column]:
    """Context made of the times of events, by names of `options.TIME_FIELDS`.

    gap is log(1 + seconds) since the event before in its session, 0 for the first; of numbers, in
    their own unit. hour and day are the written clock's: of text, before its offset from UTC; of a
    column with a zone, the zone's. events: session and order of each, sorted, and the clock if
    order does not show it; taken: other fields. Raises LogFormatError for a name of `taken`, and
    without times."""
    order, session = events["order"], events["session"].to_numpy()
    kind = order.dtype if has_times else pl.String()
    columns: dict[str, Column] = {}
    for name in names:
        if name in taken:
            raise LogFormatError(
                f"the log has a field '{name}', which --time-field {name} makes: rename that "
                "column, or leave the option out"
            )
        dated = isinstance(kind, pl.Datetime | pl.Date)
        if not (dated or (kind.is_numeric() and name == "gap")):
            raise LogFormatError(
                f"--time-field {name} needs events with times, the log's are ordered by {kind}: "
                "name a time column (--column event=NAME), or leave the option out"
            )
        if name == "gap":
            seconds = order
            if dated:
                seconds = order.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
            steps = np.diff(seconds.cast(pl.Float64).to_numpy(), prepend=0.0)
            steps[np.append(True, session[1:] != session[:-1])] = 0.0
            gaps = np.log1p(np.maximum(steps, 0.0)).astype(np.float32)
            columns[name] = Column("event", gaps)
        else:
            local = order.cast(pl.Datetime("us", getattr(kind, "time_zone", None)))
            local = events["clock"] if "clock" in events.columns else local
            text = local.dt.hour().cast(pl.String) if name == "hour" else local.dt.strftime("%a")
            texts = CATEGORIES_OF_TIME[name]
            columns[name] = Column("event", Vocabulary(texts).codes(text), texts)
    return columns


@dataclass(frozen=True)
class ContextField:
    """A field of the events or of their users, and what its values are."""

    name: str
    holds: Holds
    displayed: float | None = None
    """share of the training events whose value the own session displays; None: no items' ids"""
    by_chance: float | None = None
    of_user: bool = False

    def __str__(self) -> str:
        name = f"{self.name} of the user" if self.of_user else self.name
        if self.displayed is None or self.by_chance is None:
            return f"{name} ({self.holds})"
        return (
            f"{name} ({self.holds}: {100 * self.displayed:.1f} % are displayed in their own "
            f"session, {100 * self.by_chance:.1f} % by chance)"
        )


def context_of(log: SessionLog) -> tuple[ContextField, ...]:
    """The fields of a log's events and of their users, in the order of their names."""
    displayed = pl.Series(dtype=pl.Int64)
    if any(column.texts is not None for column in log.context.values()):
        session = log.session_of_event[log.event_of_candidate()]
        training = log.split[session] == TRAIN
        keys = session[training].astype(np.int64) * log.n_items + log.items[training]
        displayed = pl.Series(keys).unique()
    return tuple(_field_of(log, name, displayed) for name in sorted(log.context))


def _field_of(log: SessionLog, name: str, displayed: pl.Series) -> ContextField:
    """displayed: session · n_items + item of what training sessions display, each once."""
    of_user = log.columns[name].of == "user"
    if log.columns[name].texts is None:
        return ContextField(name, "numbers", of_user=of_user)
    training = training_events(log)
    codes = log.values_at(name, training)
    session = log.session_of_event[training][codes >= 0].astype(np.int64)
    items = item_of_codes(log, name)[codes[codes >= 0]]
    n = len(items)
    if n == 0 or (items >= 0).sum() < (1 - MOST_OTHERS) * n:
        return ContextField(name, "categories", of_user=of_user)
    keys = pl.Series((session * log.n_items + items)[items >= 0])
    share = int(keys.is_in(displayed.implode()).sum()) / n
    sizes = np.bincount(displayed.to_numpy() // log.n_items, minlength=log.n_sessions)
    n_items = (displayed % log.n_items).n_unique()
    chance = float(sizes[session].sum()) / n / max(n_items, 1)
    holds_items = share - chance >= LEAST_LIFT * (1 - chance) and chance < 1
    return ContextField(name, "items" if holds_items else "categories", share, chance, of_user)


def item_of_codes(log: SessionLog, name: str) -> IntArray:
    """Item code of each code of a field's values, -1 for no item; the last entry is that of code
    -1."""
    return Vocabulary(log.item_ids).codes_from(Vocabulary(log.columns[name].categories))


def training_events(part: SessionLog) -> BoolArray:
    """Whether each event is a training event, shape (n_events,)."""
    training: BoolArray = part.split[part.session_of_event] == TRAIN
    return training
