"""What the arrays of a log must be. Kernels index memory by them without a look, so each log is
checked where it is made: one pass over each array."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastgaum.errors import as_given

if TYPE_CHECKING:
    from fastgaum.logs.log import Column, SessionLog

Array = npt.NDArray[Any]
MOST_USERS = 2**31 - 1
"""codes of users are int32, and one more than the largest is counted to"""


def check_arrays(log: SessionLog) -> None:
    """Raise ValueError, naming the array and its first wrong value, unless the arrays of a log
    agree with one another: their types and lengths, offsets, codes, choices."""
    _check_offsets("display_offsets", log.display_offsets, 1)
    _check_offsets("session_offsets", log.session_offsets, 0)
    events, sessions = len(log.display_offsets) - 1, len(log.session_offsets) - 1
    _check_end("session_offsets", log.session_offsets, events, "events")
    _check_codes("items", log.items, np.int32, log.n_items, "items")
    _check_end("display_offsets", log.display_offsets, len(log.items), "candidates")
    _check_codes("split", log.split, np.int8, 3, "parts")
    _check_codes("users", log.users, np.int32, MOST_USERS, "users at most")
    sizes = {"candidate": len(log.items), "event": events, "item": log.n_items}
    for name, (of, values) in log.arrays().items():
        # what is of users has an entry for each session
        n, of = (sizes[of], of) if of in sizes else (sessions, "session")
        _check_length(name, values, n, f"{of}s")
    _check_kind("choices", log.choices, np.int32)
    outside = (log.choices < -1) | (log.choices >= np.diff(log.display_offsets))
    rule = "a place in the event's display from 0, or -1 for no click, is required"
    _check_where("choices", log.choices, outside, rule)
    if log.views is not None:
        _check_kind("views", log.views, np.uint16)
        _check_where("views", log.views, log.views < 1, "at least 1 is required")
    for name, column in log.columns.items():
        _check_column(f"{column.of}.{name}", column)
    if log.actions is not None:
        actions = log.actions
        _check_offsets("actions.offsets", actions.offsets, 0)
        _check_length("actions.offsets", actions.offsets, events + 1, "events and one more")
        _check_end("actions.offsets", actions.offsets, len(actions.items), "actions")
        _check_codes("actions.items", actions.items, np.int32, log.n_items, "items")
        _check_codes("actions.kinds", actions.kinds, np.int32, len(actions.kind_names), "kinds")
        _check_length("actions.kinds", actions.kinds, len(actions.items), "actions")


def check_displays(log: SessionLog) -> None:
    """Raise ValueError unless the candidates of each display set are distinct; most are stored by
    item, which shows it without sorting them."""
    starts = log.display_offsets[1:-1]

    def falls(items: Array, compare: np.ufunc) -> bool:
        found = compare(items[1:], items[:-1])
        found[starts - 1] = False
        return bool(found.any())

    if falls(log.items, np.less_equal):
        order = np.lexsort((log.items, log.event_of_candidate()))
        if falls(log.items[order], np.equal):
            raise ValueError("a display set holds an item twice")


def make_read_only(log: SessionLog) -> None:
    """Replace each array of a log by a view that cannot be written to."""
    for part in dataclasses.fields(log):
        value = getattr(log, part.name)
        if isinstance(value, np.ndarray):
            object.__setattr__(log, part.name, _read_only(value))
    columns = {name: one.with_values(_read_only(one.values)) for name, one in log.columns.items()}
    # a mapping of a log that was checked stays the one that it is
    if any(columns[name].values is not one.values for name, one in log.columns.items()):
        object.__setattr__(log, "columns", columns)
    if log.actions is not None:
        own = {
            name: _read_only(getattr(log.actions, name)) for name in ("offsets", "items", "kinds")
        }
        object.__setattr__(log, "actions", dataclasses.replace(log.actions, **own))


def _read_only(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or not value.flags.writeable:
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _check_kind(what: str, values: Any, dtype: type[np.generic], dims: int = 1) -> None:
    """The array has this type and so many dimensions."""
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{what} is {as_given(values)}, an array is required")
    if values.dtype != dtype or values.ndim != dims:
        raise ValueError(
            f"{what} is {values.dtype} of shape {list(values.shape)}, {np.dtype(dtype)} with "
            f"{dims} dimension{'s' * (dims > 1)} is required"
        )


def _check_length(what: str, values: Any, n: int, of: str) -> None:
    """It has so many entries."""
    if not hasattr(values, "__len__"):
        raise ValueError(f"{what} is {as_given(values)}, {n:,} entries are required")
    if len(values) != n:
        raise ValueError(f"{what} has {len(values):,} entries, the log has {n:,} {of}")


def _check_where(what: str, values: Array, broken: npt.NDArray[np.bool_], rule: str) -> None:
    """Nowhere is a rule broken."""
    if broken.any():
        at = int(broken.argmax())
        raise ValueError(f"{what} holds {values[at]} at {at}, {rule}")


def _check_offsets(what: str, values: Any, least: int) -> None:
    """It goes up from 0, in steps of `least` or more."""
    _check_kind(what, values, np.int32)
    if not len(values) or values[0] != 0:
        raise ValueError(f"{what} begins with {values[:1].tolist()}, 0 is required")
    falls = np.append(False, values[1:] < values[:-1] if least == 0 else values[1:] <= values[:-1])
    rule = f"at least {least} more than the entry before it is required"
    _check_where(what, values, falls, rule)


def _check_end(what: str, values: Array, n: int, of: str) -> None:
    """Its last entry is the number of what it cuts."""
    if values[-1] != n:
        raise ValueError(f"{what} ends with {values[-1]}, the log has {n:,} {of}")


def _check_codes(
    what: str, values: Any, dtype: type[np.generic], n: int, of: str, least: int = 0
) -> None:
    """Each is a row of a table of n rows; -1 stands for a missing one where `least` is -1."""
    _check_kind(what, values, dtype)
    # the least and the largest are found at the speed of memory; where one is wrong, each is
    # looked at
    if len(values) and (values.min() < least or values.max() >= n):
        outside = (values < least) | (values >= n)
        rule = f"codes from {least} to {n - 1} are required, for the log has {n:,} {of}"
        _check_where(what, values, outside, rule)


def _check_column(what: str, column: Column) -> None:
    """Numbers, codes of categories, or vectors."""
    values = column.values
    if column.texts is not None:
        _check_codes(what, values, np.int32, len(column.texts), "categories", -1)
    elif isinstance(values, np.ndarray) and values.dtype == np.int32:
        raise ValueError(f"{what} holds codes, and has no texts for them")
    else:
        _check_kind(what, values, np.float32, 2 if column.of == "item" and values.ndim == 2 else 1)
        _check_finite(what, values.reshape(-1))


def _check_finite(what: str, values: Array) -> None:
    """Each is a finite number."""
    # a NaN is the least and the largest of its array
    if len(values) and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        _check_where(what, values, ~np.isfinite(values), "finite numbers are required")
