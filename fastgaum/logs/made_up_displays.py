"""Made-up display sets, for choices whose displays were never recorded (ratings, plays).

A session is a user's whole history, in time order. Audit such a log first."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.kernels.nearest import nearest_others
from fastgaum.logs.column_roles import ROLE_NAMES, find_role, no_column
from fastgaum.logs.columns import filled_ids, parse_numbers, refuse_at, require_filled
from fastgaum.logs.cut import check_size
from fastgaum.logs.event_order import order_of
from fastgaum.logs.tables import FileTable, LogSource, frame_of, naming, open_known
from fastgaum.logs.vocabulary import Vocabulary


def make_displays(choices: LogSource, *, displayed: int = 10, seed: int = 0) -> pl.DataFrame:
    """Make up a display set for each choice: the chosen item and those that other users chose
    nearest in time, shuffled; `read_log` reads them.

    Args:
        choices: rows of a user, an item and a time, in a frame, a file, or the folder of MovieLens
            or LastFM-1K.
        displayed: candidates of a display set, fewer only where no more exist.
        seed: breaks every tie in time.

    Returns:
        session and user, event (seconds, or the file's own numbers), items (a list) and chosen.

    Raises:
        ConfigError: a display of fewer than 2, or a negative seed.
        LogFormatError: a file is damaged, lacks a column or a value, has display sets of its own,
            or is of fewer than two users.
    """
    if displayed < 2:
        raise ConfigError(
            f"displayed is {displayed}, at least 2 candidates make a choice: give a larger number"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}, a whole number from 0 is required: give another")
    table = _read_choices(choices)
    n = table.height
    check_size(n * displayed)
    user_ids, item_ids = table["user"].unique().sort(), Vocabulary.of(table["item"])
    if (numbers := parse_numbers(user_ids)) is not None:
        user_ids = user_ids.to_frame("id").with_columns(number=numbers).sort("number", "id")["id"]
    users, items = Vocabulary(user_ids).codes(table["user"]), item_ids.codes(table["item"])
    times = table["time"].to_numpy()
    # Equal times are shuffled: neither the file's order nor the ids say which came first. A file
    # sorted by item would otherwise leave "the next film has the larger id" in every burst.
    order = np.lexsort((items, users, times))
    order = order[np.random.default_rng([seed, 0]).permutation(n)]
    order = order[np.argsort(times[order], kind="stable")]
    users, times, items = users[order], times[order], items[order]
    events = np.argsort(users, kind="stable")

    is_start = np.diff(times, prepend=times[0] - 1) != 0
    starts = np.flatnonzero(is_start)
    sole_user = np.empty(len(item_ids.texts), dtype=np.int32)
    sole_user[items] = users
    sole_user[items[users != sole_user[items]]] = -1
    exclusive = np.bincount(sole_user[sole_user >= 0], minlength=len(user_ids))
    displays = np.empty((n, displayed), dtype=np.int32)
    nearest_others(
        events,
        users,
        items,
        np.cumsum(is_start) - 1,
        np.append(starts, n),
        times[starts],
        sole_user,
        len(item_ids.texts) - exclusive,
        np.random.default_rng([seed, 1]).integers(2**31, size=(n, 2)),
        displays,
    )
    shown = np.random.default_rng([seed, 2]).permuted(displays, axis=1).ravel()
    session = user_ids.gather(users[events])
    return pl.DataFrame(
        {
            "session": session,
            "user": session,
            "event": times[events],
            "items": item_ids.decode(shown).reshape((n, displayed)).arr.to_list(),
            "chosen": item_ids.decode(items[events]),
        }
    ).with_columns(pl.col("items").list.drop_nulls())


def _read_choices(choices: LogSource) -> pl.DataFrame:
    """user (text), time (whole numbers) and item (text) of each choice."""
    with naming(choices):
        if isinstance(choices, str | os.PathLike):
            table = open_known(Path(choices))[0]
        else:
            table = FileTable.of(frame_of(choices))
        if (chosen := find_role("chosen", table.dtypes)) is not None:
            raise LogFormatError(
                f"the choices have a column '{chosen}', and so display sets of their own: read the "
                "log as it is"
            )
        columns = []
        for role in ("user", "item", "event"):
            column = find_role(role, table.dtypes)
            if column is None:
                what = f"no {role} column in choices, which are rows of a user, a time and an item"
                raise no_column(what, role, ROLE_NAMES[role], table.dtypes)
            columns.append(column)
        rows = table.read(list(dict.fromkeys(columns)))
        rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
        if rows.height == 0:
            raise LogFormatError("the choices are empty (no rows): at least one is required")
        user, item = filled_ids(rows[columns[0]], "user"), filled_ids(rows[columns[1]], "item")
        times = rows[columns[2]]
        time = order_of(times)
        if time is None or time.dtype in (pl.Time, pl.Duration):
            raise LogFormatError(
                f"column '{times.name}' holds no times: numbers, or times with a date, are required"
            )
        require_filled(time, "time", times.name)
        if user.n_unique() < 2:
            raise LogFormatError(
                "the choices are of 1 user, at least two are required: display sets are made of "
                "what others chose"
            )
        if time.dtype.is_temporal():
            time = time.dt.epoch("s")
        whole = time.cast(pl.Int64, strict=False)
        rule = "a whole number below 2^63 is required: write times in a smaller unit, or as dates"
        refuse_at(times, (whole != time).fill_null(value=True), rule)
        return pl.DataFrame({"user": user, "time": whole, "item": item})
