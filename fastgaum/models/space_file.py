"""A feature space as tensors and metadata of a model's file, and back, checked: what a file holds
is not known to be right."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fastgaum.checkpoint import check_finite
from fastgaum.features.formulas import made_numbers
from fastgaum.features.relations import Relations
from fastgaum.features.space import CategoricalField, FeatureSpace
from fastgaum.kernels.relations import PairCounts
from fastgaum.logs.log import ItemCounts

ARRAYS = {
    "mean": torch.float32,
    "scale": torch.float32,
    "least": torch.float32,
    "most": torch.float32,
}
COUNTS = {
    field.name: torch.from_numpy(getattr(ItemCounts.zeros(0), field.name)).dtype
    for field in dataclasses.fields(ItemCounts)
}
"""item counts of the training split: each is kept as `space.item_…`"""
VALUES: dict[str, type] = {
    "protocol": str,
    "set_context": bool,
    "prior_rate": float,
    "no_click": bool,
    "ordered": bool,
    "fingerprint": str,
}
SOURCES = ("item", "item_field", "candidate_field", "position")


def space_tensors(space: FeatureSpace) -> dict[str, Tensor]:
    """The arrays and tables of text of a space, by name."""
    tensors = {
        f"space.{name}": torch.from_numpy(np.ascontiguousarray(getattr(space, name)))
        for name in ARRAYS
    }
    for name in COUNTS:
        values = np.ascontiguousarray(getattr(space.item_counts, name))
        tensors[f"space.item_{name}"] = torch.from_numpy(values)
    for part in space.categorical:
        for name, value in _text_tensors(part.values).items():
            tensors[f"values.{part.name}.{name}"] = value
    return tensors | _relation_tensors(space.relations)


def space_facts(space: FeatureSpace) -> dict[str, Any]:
    """Everything else of a space, as plain values."""
    return {name: getattr(space, name) for name in VALUES} | {
        "number_names": space.number_names,
        "field_names": space.field_names,
        "categorical": [[part.name, part.source, part.start] for part in space.categorical],
    }


def space_of(facts: Any, tensors: dict[str, Tensor]) -> FeatureSpace:
    """The space that `space_facts` and `space_tensors` describe. Raises KeyError, TypeError or
    ValueError for a damaged one."""
    for name, kind in VALUES.items():
        if type(facts[name]) is not kind:
            raise ValueError(f"the feature space's {name} is no {kind.__name__}")
    if not 0 <= facts["prior_rate"] <= 1:
        raise ValueError(
            f"the feature space's prior_rate is {facts['prior_rate']}, 0 to 1 is required"
        )
    arrays: dict[str, Any] = {
        name: _array(tensors, f"space.{name}", kind) for name, kind in ARRAYS.items()
    }
    fields = [
        CategoricalField(*_field(entry), _text_series(tensors, f"values.{entry[0]}"))
        for entry in facts["categorical"]
    ]
    n_items = _check_fields(fields)
    space = FeatureSpace(
        **{name: facts[name] for name in VALUES},
        **arrays,
        item_counts=ItemCounts(
            **{name: _array(tensors, f"space.item_{name}", kind) for name, kind in COUNTS.items()}
        ),
        relations=_relations(tensors, n_items),
        number_names=_names(facts["number_names"]),
        field_names=_names(facts["field_names"]),
        categorical=tuple(fields),
    )
    _check_arrays(space, n_items)
    _check_numbers(space)
    return space


def _field(entry: Any) -> tuple[str, str, int]:
    name, source, start = entry
    if not isinstance(name, str) or source not in SOURCES or type(start) is not int:
        raise ValueError(f"{entry!r} is no field of ids")
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


def _array(tensors: dict[str, Tensor], name: str, kind: torch.dtype) -> Any:
    value = tensors[name]
    if value.dtype is not kind or value.ndim != 1:
        raise ValueError(
            f"'{name}' is {value.dtype} of shape {list(value.shape)}, one axis of {kind} is "
            "required"
        )
    check_finite(f"'{name}'", value)
    return value.numpy()


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{str(values)[:60]} are no names")
    return tuple(values)


def _relation_tensors(relations: Relations | None) -> dict[str, Tensor]:
    if relations is None:
        return {}
    tensors = {"relations.n_items": torch.tensor(relations.rivals.n_items)}
    for name, table in relations._asdict().items():
        for part in ("starts", "keys", "counts"):
            tensors[f"relations.{name}.{part}"] = torch.from_numpy(
                np.ascontiguousarray(getattr(table, part))
            )
    return tensors


def _relations(tensors: dict[str, Tensor], n_items: int) -> Relations | None:
    if "relations.n_items" not in tensors:
        return None
    if int(tensors["relations.n_items"]) != n_items:
        raise ValueError(
            f"relations are of {int(tensors['relations.n_items'])} items, the space has {n_items}"
        )
    tables = []
    for name in Relations._fields:
        starts, keys = (
            _array(tensors, f"relations.{name}.{part}", torch.int64) for part in ("starts", "keys")
        )
        counts = tensors[f"relations.{name}.counts"]
        if counts.dtype is not torch.int32:
            raise ValueError(
                f"'relations.{name}.counts' is {counts.dtype}, torch.int32 is required"
            )
        tables.append(PairCounts(n_items, starts, keys, counts.numpy()))
    relations = Relations(*tables)
    relations.check(n_items)
    return relations


def _text_tensors(values: pl.Series) -> dict[str, Tensor]:
    """Text as bytes and offsets: the tables of a large catalogue stay out of the JSON header."""
    encoded = [value.encode() for value in values.to_list()]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    joined = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    return {"bytes": torch.from_numpy(joined), "offsets": torch.from_numpy(offsets)}


def _text_series(tensors: dict[str, Tensor], name: str) -> pl.Series:
    offsets, joined = (
        _array(tensors, f"{name}.offsets", torch.int64),
        _array(tensors, f"{name}.bytes", torch.uint8),
    )
    # Offsets that went back and forth would make a text of the whole for each of them.
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(joined)
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError(f"the offsets of '{name}' do not cut its bytes into texts")
    text = joined.tobytes()
    return pl.Series(
        [text[a:b].decode() for a, b in itertools.pairwise(offsets.tolist())], dtype=pl.String
    )
