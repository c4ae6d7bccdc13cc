"""Whether the arrays of a log are what every loop over them relies on: what a file holds is not
known to be what was written.

Kernels do not check bounds, so an offset that falls or an item that is no row of the vocabulary
would read foreign memory. The checks read each array once, in blocks, and make nothing of its
size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.logs.log import NO_CLICK, SPLITS, SessionLog

_BLOCK = 1 << 20
_DTYPES: dict[str, type[np.generic]] = {
    "session_offsets": np.int32,
    "display_offsets": np.int32,
    "items": np.int32,
    "choices": np.int32,
    "split": np.int8,
    "users": np.int32,
}


def check_head(head: SessionLog) -> None:
    """Raise ValueError, naming the array and the rule, unless the items, item fields and categories
    that all parts of a log share may be trusted."""
    _check_text("item_ids", head.item_ids)
    _check_distinct("item_ids", head.item_ids)
    fields = {**head.candidate_fields, **head.item_fields}
    if (
        len(fields) < len(head.candidate_fields) + len(head.item_fields)
        or not head.categories.keys() <= fields.keys()
    ):
        raise ValueError("fields and categories do not have the same names")
    for name, values in head.categories.items():
        _check_text(f"the categories of field '{name}'", values)
        _check_distinct(f"the categories of field '{name}'", values)
    _check_fields(head, head.item_fields, head.n_items)


def check_part(log: SessionLog, ids: bool = True) -> None:
    """Raise ValueError, naming the array and the rule, unless the sessions of a log whose head was
    checked may be trusted; without `ids` those of sessions and events are left out."""
    for name, dtype in _DTYPES.items():
        _check_kind(name, getattr(log, name), dtype)
    if log.views is not None:
        _check_kind("views", log.views, np.uint16)
    _check_lengths(log)
    _check_offsets("session_offsets", log.session_offsets)
    _check_offsets("display_offsets", log.display_offsets)
    _check_range("items", log.items, 0, log.n_items - 1)
    _check_range("users", log.users, 0, np.iinfo(np.int32).max - 1)
    _check_range("split", log.split, 0, len(SPLITS) - 1)
    _check_choices(log.choices, log.display_offsets)
    if log.views is not None:
        _check_range("views", log.views, 1, np.iinfo(np.uint16).max)
    _check_displays(log)
    if ids:
        _check_ids(log)
    _check_fields(log, log.candidate_fields, log.n_candidates)


def _check_lengths(log: SessionLog) -> None:
    n_events, n_candidates = log.n_events, log.n_candidates
    fits = (
        len(log.session_offsets)
        and len(log.display_offsets)
        and log.session_offsets[0] == 0 == log.display_offsets[0]
        and log.session_offsets[-1] == n_events == len(log.choices) == len(log.event_ids)
        and log.display_offsets[-1] == n_candidates
        and log.n_sessions == len(log.session_ids) == len(log.split) == len(log.users)
        and (log.views is None or len(log.views) == n_candidates)
    )
    if not fits:
        raise ValueError("the arrays do not fit together")


def _check_kind(name: str, array: npt.NDArray[Any], *dtypes: type[np.generic]) -> None:
    if array.ndim != 1 or array.dtype not in dtypes:
        raise ValueError(
            f"{name} is {array.dtype} of shape {list(array.shape)}, one axis of "
            f"{dtypes[0].__name__} is required"
        )


def _blocks(array: npt.NDArray[Any], overlap: int = 0) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    for start in range(0, len(array) - overlap, _BLOCK):
        yield start, array[start : start + _BLOCK + overlap]


def _check_offsets(name: str, offsets: npt.NDArray[Any]) -> None:
    """A session has an event and a display set a candidate, so that starts rise."""
    for start, block in _blocks(offsets, 1):
        falls = np.flatnonzero(block[1:] <= block[:-1])
        if len(falls):
            at = start + int(falls[0])
            raise ValueError(
                f"{name} goes from {offsets[at]} to {offsets[at + 1]} at {at}, starts must rise"
            )


def _check_range(name: str, array: npt.NDArray[Any], least: int, most: int) -> None:
    for start, block in _blocks(array):
        if block.min() < least or block.max() > most:
            at = int(((block < least) | (block > most)).argmax())
            raise ValueError(
                f"{name} holds {block[at]} at {start + at}, {least} to {most} is required"
            )


def _check_choices(choices: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> None:
    for start, block in _blocks(choices):
        sizes = np.diff(offsets[start : start + len(block) + 1])
        wrong = np.flatnonzero((block < NO_CLICK) | (block >= sizes))
        if len(wrong):
            at = int(wrong[0])
            raise ValueError(
                f"choices holds {block[at]} at {start + at} for {sizes[at]} candidates"
            )


def _check_displays(log: SessionLog) -> None:
    """The candidates of a display set are distinct; most are stored by item, which shows it without
    sorting them."""
    for start, offsets in _blocks(log.display_offsets, 1):
        items = log.items[offsets[0] : offsets[-1]]
        starts = offsets[1:-1] - offsets[0]
        if _falls(items, starts, np.less_equal):
            order = np.lexsort((items, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))))
            if _falls(items[order], starts, np.equal):
                raise ValueError(
                    f"a display set of the events {start} to {start + len(offsets) - 2} holds an "
                    "item twice"
                )


def _falls(items: npt.NDArray[Any], starts: npt.NDArray[Any], compare: np.ufunc) -> bool:
    """Whether an item compares so with the one before it in its display set."""
    found = compare(items[1:], items[:-1])
    found[starts - 1] = False
    return bool(found.any())


def _check_ids(log: SessionLog) -> None:
    _check_text("session_ids", log.session_ids)
    if (
        log.event_ids.dtype.is_nested()
        or log.event_ids.dtype in (pl.Object, pl.Binary)
        or log.event_ids.null_count()
    ):
        raise ValueError(f"event_ids holds {log.event_ids.dtype}, labels without gaps are required")


def _check_text(name: str, values: pl.Series) -> None:
    if values.dtype != pl.String or values.null_count():
        raise ValueError(
            f"{name} holds {values.dtype} and {values.null_count()} gaps, text without gaps is "
            "required"
        )


def _check_distinct(name: str, values: pl.Series) -> None:
    # Sorted ids, which is how they are written, need no table of all of them.
    if (
        len(values) > 1
        and not (values.slice(1) > values.slice(0, len(values) - 1)).all()
        and values.is_duplicated().any()
    ):
        raise ValueError(f"{name} holds a value twice")


def _check_fields(log: SessionLog, fields: dict[str, npt.NDArray[Any]], length: int) -> None:
    for name, values in fields.items():
        named = f"field '{name}'"
        if len(values) != length:
            raise ValueError(f"{named} has {len(values)} values, {length} are required")
        if name in log.categories:
            _check_kind(named, values, np.int32)
            _check_range(named, values, -1, len(log.categories[name]) - 1)
            continue
        _check_kind(named, values, np.float32)
        for start, block in _blocks(values):
            if not np.isfinite(block).all():
                at = int((~np.isfinite(block)).argmax())
                raise ValueError(
                    f"{named} holds {block[at]} at {start + at}, finite numbers are required"
                )
