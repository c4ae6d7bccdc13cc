"""A feature space as a part of a model's state, and back, checked: what a file holds is not known
to be right."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import polars as pl

from fastgaum.checkpoint import State
from fastgaum.features.formulas import made_numbers
from fastgaum.features.relations import Relations
from fastgaum.features.space import CategoricalField, FeatureSpace
from fastgaum.kernels.relations import PairCounts
from fastgaum.logs.log import ItemCounts

ARRAYS = {"mean": np.float32, "scale": np.float32, "least": np.float32, "most": np.float32}
COUNTS = {
    field.name: getattr(ItemCounts.zeros(0), field.name).dtype
    for field in dataclasses.fields(ItemCounts)
}
PAIRS = {"starts": np.int64, "keys": np.int64, "counts": np.int32}
VALUES: dict[str, type] = {
    "protocol": str,
    "set_context": bool,
    "prior_rate": float,
    "no_click": bool,
    "ordered": bool,
    "fingerprint": str,
}
SOURCES = ("item", "item_field", "candidate_field", "position")


def space_state(space: FeatureSpace) -> State:
    """The space as a state that a file can hold."""
    return {
        **{name: getattr(space, name) for name in (*VALUES, *ARRAYS)},
        "item_counts": {name: getattr(space.item_counts, name) for name in COUNTS},
        "number_names": list(space.number_names),
        "field_names": list(space.field_names),
        "categorical": [
            {"name": one.name, "source": one.source, "start": one.start, **_text_state(one.values)}
            for one in space.categorical
        ],
        "relations": None
        if space.relations is None
        else {
            name: {part: getattr(table, part) for part in PAIRS}
            for name, table in space.relations._asdict().items()
        },
    }


def space_of(state: Any) -> FeatureSpace:
    """The space that `space_state` describes. Raises KeyError, TypeError or ValueError for a
    damaged one."""
    for name, kind in VALUES.items():
        if type(state[name]) is not kind:
            raise ValueError(f"the feature space's {name} is no {kind.__name__}")
    if not 0 <= state["prior_rate"] <= 1:
        raise ValueError(
            f"the feature space's prior_rate is {state['prior_rate']}, 0 to 1 is required"
        )
    fields = [CategoricalField(*_field(one), _text_series(one)) for one in state["categorical"]]
    n_items = _check_fields(fields)
    counts = {name: _array(state["item_counts"], name, kind) for name, kind in COUNTS.items()}
    space = FeatureSpace(
        **{name: state[name] for name in VALUES},
        **{name: _array(state, name, kind) for name, kind in ARRAYS.items()},
        item_counts=ItemCounts(**counts),
        relations=_relations(state["relations"], n_items),
        number_names=_names(state["number_names"]),
        field_names=_names(state["field_names"]),
        categorical=tuple(fields),
    )
    _check_arrays(space, n_items)
    _check_numbers(space)
    return space


def _field(state: Any) -> tuple[str, str, int]:
    name, source, start = state["name"], state["source"], state["start"]
    if not isinstance(name, str) or source not in SOURCES or type(start) is not int:
        raise ValueError(f"{str(name)[:40]!r} is no field of ids")
    return name, source, start


def _check_fields(fields: list[CategoricalField]) -> int:
    """Fields of ids lie one after the other, items first, each value once; returns the number of
    items."""
    if (
        not fields
        or fields[0].source != "item"
        or sum(field.source == "item" for field in fields) != 1
    ):
        raise ValueError("the first field of ids must be the items")
    start = 1
    for field in fields:
        if field.start != start:
            raise ValueError(
                f"the ids of field '{field.name}' start at {field.start}, {start} is required"
            )
        if field.values.n_unique() != len(field.values):
            raise ValueError(f"field '{field.name}' holds a value twice")
        start = field.stop
    return len(fields[0].values)


def _check_arrays(space: FeatureSpace, n_items: int) -> None:
    for name in COUNTS:
        counts = getattr(space.item_counts, name)
        if len(counts) != n_items or (n_items and counts.min() < 0):
            raise ValueError(f"space.item_{name} does not hold a count for each of {n_items} items")
    for name in ("mean", "scale", "least", "most"):
        if len(getattr(space, name)) != space.n_numbers:
            raise ValueError(
                f"space.{name} holds {len(getattr(space, name))} numbers, {space.n_numbers} are "
                "named"
            )
    if space.n_numbers and space.scale.min() <= 0:
        raise ValueError("space.scale holds a number that is not positive")


def _check_numbers(space: FeatureSpace) -> None:
    """Each number is one that an encoder makes of a log with these fields."""
    made = made_numbers(space.protocol, space.relations is not None)
    known = {*made, *made_numbers("bags", False), *space.field_names}
    for name in space.number_names:
        if name not in known or space.number_names.count(name) > 1:
            raise ValueError(
                f"'{name[:40]}' is not one of the numbers that this version makes, or stands there "
                "twice"
            )


def _array(state: Any, name: str, kind: Any, axes: int = 1) -> Any:
    value = state[name]
    if not isinstance(value, np.ndarray) or value.dtype != kind or value.ndim != axes:
        raise ValueError(f"'{name}' is no array of {np.dtype(kind)} with {axes} axes")
    return value


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{str(values)[:60]} are no names")
    return tuple(values)


def _relations(state: Any, n_items: int) -> Relations | None:
    if state is None:
        return None
    tables = [
        [_array(state[name], part, kind, 1 + (part == "counts")) for part, kind in PAIRS.items()]
        for name in Relations._fields
    ]
    relations = Relations(*(PairCounts(n_items, *table) for table in tables))
    relations.check(n_items)
    return relations


def _text_state(values: pl.Series) -> State:
    """Text as bytes and offsets: the tables of a large catalogue stay out of the JSON header."""
    encoded = [value.encode() for value in values.to_list()]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    return {"bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), "offsets": offsets}


def _text_series(state: Any) -> pl.Series:
    offsets, joined = _array(state, "offsets", np.int64), _array(state, "bytes", np.uint8)
    # Offsets that went back and forth would make a text of the whole for each of them.
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(joined)
        or (np.diff(offsets) < 0).any()
    ):
        name = str(state["name"])[:40]
        raise ValueError(f"the offsets of field '{name}' do not cut its bytes into texts")
    text = joined.tobytes()
    return pl.Series(
        [text[a:b].decode() for a, b in itertools.pairwise(offsets.tolist())], dtype=pl.String
    )
