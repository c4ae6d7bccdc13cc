"""A feature space as the state that a model file holds, and back: what a file holds is not known to
be what was written."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.checkpoint import State
from fastgaum.features.crossed import check_crossed
from fastgaum.features.item_vectors import NO_VECTORS, ItemVectors, component_names
from fastgaum.features.numbers import PLACE_NUMBERS, made_numbers
from fastgaum.features.relations import Relations, pairs_of, ranks_of
from fastgaum.features.space import FeatureSpace
from fastgaum.features.vocabulary import OF_PLACE, CategoricalField
from fastgaum.kernels.crossed import CrossedCounts
from fastgaum.kernels.pairs import PairCounts
from fastgaum.kernels.relations import RivalRule
from fastgaum.logs.log import ItemCounts
from fastgaum.logs.trained_users import TrainedUsers

NUMBERS = ("mean", "scale", "least", "most")
ARRAYS = dict.fromkeys((*NUMBERS, "context_mean", "context_scale", "place_rates"), np.float32)
COUNTS = {
    field.name: getattr(ItemCounts.zeros(0), field.name).dtype
    for field in dataclasses.fields(ItemCounts)
}
PAIR_TABLES = ("rivals", "follows")
PAIRS = {"starts": np.int64, "keys": np.int64, "counts": np.int32}
CROSSED = {
    **{"events": np.int32, "starts": np.int64, "items": np.int32},
    **{"displays": np.int32, "choices": np.int32, "expected": np.float32},
}
VALUES: dict[str, type] = {
    "protocol": str,
    "set_context": bool,
    "prior_rate": float,
    "no_click": bool,
    "ordered": bool,
    "fingerprint": str,
}
SOURCES = ("item", "item_field", "candidate_field", *OF_PLACE)
OF_CONTEXT = ("context", "context_item")
OF_ACTIONS = ("action", "acted_item")


def space_state(space: FeatureSpace) -> State:
    """The space as a state that a file can hold."""
    return {
        **{name: getattr(space, name) for name in (*VALUES, *ARRAYS)},
        "item_counts": {name: getattr(space.item_counts, name) for name in COUNTS},
        "number_names": list(space.number_names),
        "field_names": list(space.field_names),
        "context_number_names": list(space.context_number_names),
        "categorical": [{**_named(one), **_text_state(one.values)} for one in space.categorical],
        # the values of a field that holds items are the items'
        "context": [
            {**_named(one), **(_text_state(one.values) if one.source == "context" else {})}
            for one in space.context
        ],
        "actions": [{**_named(one), **_text_state(one.values)} for one in space.actions],
        "relations": None
        if space.relations is None
        else {
            "most_rivals": space.relations.rule.most,
            **{
                name: {part: getattr(getattr(space.relations, name), part) for part in PAIRS}
                for name in PAIR_TABLES
            },
        },
        "crossed": [table._asdict() for table in space.crossed],
        "vectors": _vectors_state(space.vectors),
        "grid": space.grid,
        "trained": _trained_state(space.trained),
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
    fields = [
        CategoricalField(*_field(one, SOURCES), _text_series(one)) for one in state["categorical"]
    ]
    n_items = _check_fields(fields)
    context = _context(state["context"], fields)
    counts = {name: _array(state["item_counts"], name, kind) for name, kind in COUNTS.items()}
    space = FeatureSpace(
        **{name: state[name] for name in VALUES},
        **{name: _array(state, name, kind) for name, kind in ARRAYS.items()},
        item_counts=ItemCounts(**counts),
        relations=_relations(state["relations"], counts["displays"], n_items),
        crossed=_crossed(state["crossed"], context, n_items),
        # files of versions that read no vectors do not say so
        vectors=_vectors(state.get("vectors")),
        grid=_grid(state.get("grid", 0), fields),
        trained=_trained(state.get("trained")),
        number_names=_names(state["number_names"]),
        field_names=_names(state["field_names"]),
        categorical=tuple(fields),
        context=context,
        context_number_names=_names(state["context_number_names"]),
        actions=_actions(state.get("actions", []), (*fields, *context)),
    )
    _check_arrays(space, n_items)
    _check_numbers(space)
    _check_places(space)
    return space


def _named(field: CategoricalField) -> State:
    return {"name": field.name, "source": field.source, "start": field.start}


def _field(state: Any, sources: Sequence[str]) -> tuple[str, str, int]:
    name, source, start = state["name"], state["source"], state["start"]
    if not isinstance(name, str) or source not in sources or type(start) is not int:
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
        start = _check_field(field, start)
    return len(fields[0].values)


def _check_field(field: CategoricalField, start: int) -> int:
    """A field's ids start where they must, each value once; returns where the next ones start."""
    if field.start != start:
        raise ValueError(
            f"the ids of field '{field.name}' start at {field.start}, {start} is required"
        )
    if field.values.n_unique() != len(field.values):
        raise ValueError(f"field '{field.name}' holds a value twice")
    return field.stop


def _context(state: Any, fields: list[CategoricalField]) -> tuple[CategoricalField, ...]:
    """Context fields of ids, by name: those of categories follow the candidates' fields, those of
    items have the items' ids."""
    items, stop = fields[0], fields[-1].stop
    context = []
    for one in state:
        name, source, start = _field(one, OF_CONTEXT)
        holds_items = source == "context_item"
        values = items.values if holds_items else _text_series(one)
        context.append(CategoricalField(name, source, start, values))
        if holds_items:
            _check_field(context[-1], items.start)
        else:
            stop = _check_field(context[-1], stop)
    return tuple(context)


def _actions(state: Any, others: Sequence[CategoricalField]) -> tuple[CategoricalField, ...]:
    """Fields of actions, whose ids follow all others; a model of before has none."""
    fields = [CategoricalField(*_field(one, OF_ACTIONS), _text_series(one)) for one in state]
    if tuple(one.source for one in fields) not in ((), OF_ACTIONS):
        raise ValueError(f"{len(fields)} fields of actions, {len(OF_ACTIONS)} or none are required")
    stop = max(field.stop for field in others)
    for one in fields:
        stop = _check_field(one, stop)
    return tuple(fields)


def _check_arrays(space: FeatureSpace, n_items: int) -> None:
    for name in COUNTS:
        counts = getattr(space.item_counts, name)
        if len(counts) != n_items or (n_items and counts.min() < 0):
            raise ValueError(f"space.item_{name} does not hold a count for each of {n_items} items")
    n_of_context = len(space.context_number_names)
    for name in (*NUMBERS, "context_mean", "context_scale"):
        named = space.n_numbers if name in NUMBERS else n_of_context
        if len(getattr(space, name)) != named:
            raise ValueError(
                f"space.{name} holds {len(getattr(space, name))} numbers, {named} are named"
            )
    for name in ("scale", "context_scale"):
        scale = getattr(space, name)
        if len(scale) and scale.min() <= 0:
            raise ValueError(f"space.{name} holds a number that is not positive")


def _check_places(space: FeatureSpace) -> None:
    """Places are kept apart of an ordered log, out of its bags, and each has a rate."""
    rates, has_field = space.place_rates, any(f.source == "position" for f in space.categorical)
    if not len(rates):
        return
    if len(rates) < 2 or has_field or not space.ordered:
        raise ValueError(f"{len(rates)} places cannot be kept apart from these bags")
    if not (np.isfinite(rates).all() and rates.min() > 0):
        raise ValueError("space.place_rates holds a number that is not positive")


def _check_numbers(space: FeatureSpace) -> None:
    """Each number is one that an encoder makes of a log with these fields."""
    of_context = [*(part.name for part in space.context), *space.context_number_names]
    if len(set(of_context)) < len(of_context):
        raise ValueError("a context field is given twice")
    made = made_numbers(space.protocol, space.relations is not None)
    of_events = space.numbers_of_context
    wanted = () if space.protocol == "identity" else of_events
    if wanted and len(space.crossed) != len(space.context):
        raise ValueError("the numbers of the context are not those of its fields")
    components = component_names(space.vectors)
    of_places = PLACE_NUMBERS if space.grid else ()
    known = {*made, *made_numbers("bags", False), *of_events, *components, *space.field_names}
    known |= {*of_places}
    for name in space.number_names:
        if name not in known or space.number_names.count(name) > 1:
            raise ValueError(
                f"'{name[:40]}' is not a number that this version makes, or it is given twice"
            )
    if not set(wanted) <= set(space.number_names):
        raise ValueError("the numbers of the context are not those of its fields")
    of_items = (*of_places, *components)
    found = tuple(name for name in space.number_names if name in of_items)
    if found != of_items:
        raise ValueError("the numbers of places or vectors are not those of the fields")


def _array(state: Any, name: str, kind: Any, axes: int = 1) -> Any:
    value = state[name]
    if not isinstance(value, np.ndarray) or value.dtype != kind or value.ndim != axes:
        raise ValueError(f"'{name}' is no array of {np.dtype(kind)} with {axes} axes")
    return value


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{str(values)[:60]} are no names")
    return tuple(values)


def _relations(state: Any, displays: npt.NDArray[np.integer], n_items: int) -> Relations | None:
    if state is None:
        return None
    most = state["most_rivals"]
    if type(most) is not int:
        raise ValueError("most_rivals is no whole number")

    def counted(name: str) -> PairCounts:
        starts, keys, counts = (
            _array(state[name], part, kind, 1 + (part == "counts")) for part, kind in PAIRS.items()
        )
        return pairs_of(n_items, n_items, (starts, keys, counts))

    rivals, follows = map(counted, PAIR_TABLES)
    relations = Relations(rivals, follows, RivalRule(most, ranks_of(displays)))
    relations.check(n_items)
    return relations.completed()


def _grid(grid: object, fields: Sequence[CategoricalField]) -> int:
    sources = [field.source for field in fields if field.source in OF_PLACE]
    wanted = list(OF_PLACE) if grid else ["position"][: len(sources)]
    if type(grid) is not int or grid < 0 or sources != wanted:
        raise ValueError(f"a grid of {str(grid)[:20]} columns does not fit the fields {sources}")
    return grid


def _trained_state(trained: TrainedUsers | None) -> State | None:
    # tensors of a file have no 64 bits without a sign
    if trained is None:
        return None
    return {name: array.view(np.int64) for name, array in vars(trained).items()}


def _trained(state: Any) -> TrainedUsers | None:
    if state is None:
        return None
    users, sessions = (
        _array(state, name, np.int64).view(np.uint64) for name in ("users", "sessions")
    )
    if any((one[1:] <= one[:-1]).any() for one in (users, sessions)):
        raise ValueError("the hashes of the users that trained are not in order")
    return TrainedUsers(users, sessions)


def _vectors_state(vectors: ItemVectors) -> State | None:
    if not vectors.dim:
        return None
    arrays = {"mean": vectors.mean, "scale": vectors.scale, "axes": vectors.axes}
    return {"names": dict(vectors.widths), **arrays}


def _vectors(state: Any) -> ItemVectors:
    if state is None:
        return NO_VECTORS
    widths = tuple(sorted(state["names"].items()))
    mean, scale = _array(state, "mean", np.float32), _array(state, "scale", np.float32)
    axes = _array(state, "axes", np.float32, 2)
    lengths = [width for _, width in widths]
    if not all(type(width) is int and width > 0 for width in lengths):
        raise ValueError("the vectors of items have no lengths")
    if {sum(lengths)} != {len(mean), len(scale), len(axes)} or not (scale > 0).all():
        raise ValueError(f"the moments of the vectors of items are not those of {lengths} numbers")
    return ItemVectors(widths, mean, scale, axes)


def _crossed(
    state: Any, context: Sequence[CategoricalField], n_items: int
) -> tuple[CrossedCounts, ...]:
    if state and len(state) != len(context):
        raise ValueError(f"{len(state)} tables of pairs for {len(context)} context fields")
    tables = []
    for one, field in zip(state, context, strict=False):
        table = CrossedCounts(*(_array(one, name, kind) for name, kind in CROSSED.items()))
        check_crossed(table, len(field.values), n_items)
        tables.append(table)
    return tuple(tables)


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
