"""A feature space as the record of a model file, and back: a file may hold anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray, LongArray
from fastgaum.config import MOST_FOLDS
from fastgaum.features.crossed import check_crossed
from fastgaum.features.fields import OF_PLACE
from fastgaum.features.item_vectors import component_names
from fastgaum.features.number_columns import PLACE_NUMBERS, made_numbers
from fastgaum.features.outcomes import is_ranked, names_of_outcomes
from fastgaum.features.relations import Relations, pairs_of, ranks_of
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.crossed import CrossedCounts
from fastgaum.kernels.pairs import PairCounts
from fastgaum.kernels.relations import RivalRule
from fastgaum.logs.options import ReadOptions


@dataclass(frozen=True)
class SavedPairs:
    """`PairCounts` with the types that a file must have."""

    starts: LongArray
    keys: LongArray
    counts: IntArray


@dataclass(frozen=True)
class SavedCrossed:
    """`CrossedCounts` likewise."""

    events: IntArray
    starts: LongArray
    items: IntArray
    displays: IntArray
    choices: IntArray
    expected: npt.NDArray[np.float32]


@dataclass(frozen=True)
class SavedSpace:
    """A feature space, less what the rest says."""

    base: FeatureSpace
    """without relations, crossed tables and the values of context fields that hold items"""
    crossed: tuple[SavedCrossed, ...]
    relations: tuple[SavedPairs, SavedPairs] | None
    """of rivals, and of what follows what"""
    most_rivals: int


def saved_space(space: FeatureSpace) -> SavedSpace:
    """The record of a space."""

    def saved(table: PairCounts) -> SavedPairs:
        return SavedPairs(table.starts, table.keys, table.counts)

    relations = space.relations
    context = [
        dataclasses.replace(one, values=one.values[:0], rows=None)
        if one.source == "context_item"
        else one
        for one in space.context
    ]
    return SavedSpace(
        dataclasses.replace(space, relations=None, crossed=(), context=tuple(context)),
        tuple(SavedCrossed(**table._asdict()) for table in space.crossed),
        None if relations is None else (saved(relations.rivals), saved(relations.follows)),
        0 if relations is None else relations.rule.most,
    )


def space_of(saved: SavedSpace) -> FeatureSpace:
    """The space of a record. Raises ValueError for one that loops may not trust."""
    space = saved.base
    if space.reading is not None:
        ReadOptions.from_json(space.reading)
    if not space.categorical or space.categorical[0].source != "item":
        raise ValueError("the first field of ids must be the items")
    items = space.categorical[0]
    context = [
        dataclasses.replace(one, values=items.values, rows=items.rows)
        if one.source == "context_item"
        else one
        for one in space.context
    ]
    space = dataclasses.replace(space, context=tuple(context))
    n_items = len(items.values)
    for fault in chain(_faulty_fields(space), _faulty_shapes(space, n_items)):
        raise ValueError(fault)
    relations = None
    if saved.relations is not None:
        rivals, follows = (
            pairs_of(n_items, n_items, (one.starts, one.keys, one.counts))
            for one in saved.relations
        )
        rule = RivalRule(saved.most_rivals, ranks_of(space.item_counts.displays))
        relations = Relations(rivals, follows, rule)
        relations.check(n_items)
        relations = relations.completed()
    crossed = tuple(CrossedCounts(**vars(one)) for one in saved.crossed)
    if crossed and len(crossed) != len(context):
        raise ValueError(f"{len(crossed)} tables of pairs for {len(context)} context fields")
    for table, field in zip(crossed, context, strict=False):
        check_crossed(table, len(field.values), n_items)
    space = dataclasses.replace(space, relations=relations, crossed=crossed)
    for fault in _faulty_numbers(space):
        raise ValueError(fault)
    return space


def _faulty_fields(space: FeatureSpace) -> Iterator[str]:
    start, items = 1, space.categorical[0]
    for one in space.fields:
        wanted = items.start if one.source == "context_item" else start
        if one.start != wanted:
            yield f"the ids of field '{one.name}' start at {one.start}, {wanted} is required"
        if one.values.n_unique() != len(one.values):
            yield f"field '{one.name}' holds a value twice"
        if one.rows is not None and (
            one.rows.shape != (len(one.values),)
            or not (0 <= one.rows.min(initial=0) <= one.rows.max(initial=0) < len(one.values))
        ):
            yield f"the rows of field '{one.name}' are not those of its values"
        start = start if one.source == "context_item" else one.stop
    of_candidates = ("item_field", "candidate_field", *OF_PLACE)
    if any(one.source not in of_candidates for one in space.categorical[1:]):
        yield "a candidate's field of ids has an unknown source"
    if any(one.source not in ("context", "context_item") for one in space.context):
        yield "a context field has an unknown source"
    if tuple(one.source for one in space.actions) not in ((), ("action", "acted_item")):
        yield f"{len(space.actions)} fields of actions, 2 or none are required"
    places = [one.source for one in space.categorical if one.source in OF_PLACE]
    if space.grid < 0 or places != (list(OF_PLACE) if space.grid else ["position"][: len(places)]):
        yield f"a grid of {space.grid} columns does not fit the fields {places}"


def _faulty_shapes(space: FeatureSpace, n_items: int) -> Iterator[str]:
    vectors, dim = space.vectors, sum(width for _, width in space.vectors.widths)
    wanted = {
        **{(f"item_counts.{name}", n_items): one for name, one in vars(space.item_counts).items()},
        **{
            (f"{what}.{name}", one.n_numbers): values
            for what, one in (("code", space.code), ("context_code", space.context_code))
            for name, values in vars(one).items()
        },
        ("least", space.n_raw): space.least,
        ("most", space.n_raw): space.most,
        ("vectors.mean", dim): vectors.mean,
        ("vectors.scale", dim): vectors.scale,
        ("place_rates", space.place_rates.size): space.place_rates,
        **{
            (f"outcomes.{one.name}.{what}", one.width): values
            for one in space.outcomes
            for what, values in (("mean", one.mean), ("scale", one.scale))
        },
    }
    for (name, n), found in wanted.items():
        if found.shape != (n,):
            yield f"space.{name} has the shape {found.shape}, {(n,)} is required"
        elif ("scale" in name or "rates" in name) and not (found > 0).all():
            yield f"space.{name} holds a number that is not positive"
        elif "item_counts" in name and not (found >= 0).all():
            yield f"space.{name} holds a count below 0"
    if vectors.axes.ndim != 2 or len(vectors.axes) != dim or any(w < 1 for _, w in vectors.widths):
        yield f"the axes of the vectors of items are not those of {dim} numbers"
    if space.folds not in (0, *range(2, MOST_FOLDS + 1)):
        yield f"space.folds is {space.folds}, 0 or 2 to {MOST_FOLDS} is required"
    if not 0 <= space.prior_rate <= 1:
        yield f"space.prior_rate is {space.prior_rate}, 0 to 1 is required"
    rates, has_place = space.place_rates, any(f.source == "position" for f in space.categorical)
    if len(rates) and (len(rates) < 2 or has_place or not space.ordered):
        yield f"{len(rates)} places cannot be kept apart from these bags"
    for hashes in vars(space.trained).values():
        if hashes.ndim != 1 or (hashes[1:] <= hashes[:-1]).any():
            yield "the hashes of the users that trained are not in order"


def _faulty_numbers(space: FeatureSpace) -> Iterator[str]:
    """Each number is one that an encoder makes of a log with these fields."""
    of_context = [*(part.name for part in space.context), *space.context_number_names]
    if len(set(of_context)) < len(of_context):
        yield "a context field is given twice"
    wanted = () if space.protocol == "identity" else space.numbers_of_context
    names = space.number_names
    if wanted and len(space.crossed) != len(space.context):
        yield "the numbers of the context are not those of its fields"
    of_items = (*(PLACE_NUMBERS if space.grid else ()), *component_names(space.vectors))
    known = {*made_numbers(space.protocol, space.relations is not None)}
    known |= {*made_numbers("bags", False), *space.numbers_of_context, *space.field_names}
    others = [name for name in names if name not in space.signs]
    read = [name for name in others if name not in space.unread]
    ranked = [name for name in read if is_ranked(name, name in space.field_names)]
    products = {name for name in space.signs if name not in space.field_names}
    for field, number in space.products:
        if field not in space.context_number_names or number not in space.field_names:
            yield f"'{field[:40]}*{number[:40]}' is no product of two numbers of the log"
    given = names_of_outcomes(space.outcomes, space.categorical, ranked)
    known |= {*given}
    if wanted and given and not set(given) <= set(names):
        yield "the numbers of outcomes are not those of its fields"
    for code, n_raw in (
        (space.code, space.n_raw),
        (space.context_code, len(space.context_number_names)),
    ):
        if ((code.columns < 0) | (code.columns >= n_raw)).any():
            yield f"the code of numbers reads a column that is none of {n_raw}"
    if names != (*others, *space.signs) or not _are_last(space):
        yield f"the numbers with a sign ({', '.join(space.signs)}) do not stand last"
    for name in names:
        if name not in {*known, *of_items, *products} or names.count(name) > 1:
            yield f"'{name[:40]}' is not a number that this version makes, or it is given twice"
    if not set(wanted) <= set(names):
        yield "the numbers of the context are not those of its fields"
    if tuple(name for name in names if name in of_items) != of_items:
        yield "the numbers of places or vectors are not those of the fields"


def _are_last(space: FeatureSpace) -> bool:
    """Whether networks read the numbers with a sign one after another, behind all others."""
    n = len(space.number_names)
    columns = space.code.columns
    wanted = np.arange(n - len(space.signs), n).repeat([width for _, width in space.signed])
    first = len(columns) - len(wanted)
    return np.array_equal(columns[first:], wanted) and all(w for _, w in space.signed)
