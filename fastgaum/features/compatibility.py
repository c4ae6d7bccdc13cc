"""Whether a log can be read under a feature space: it has what the training log had."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastgaum.errors import FeatureMismatchError
from fastgaum.features.actions import check_actions
from fastgaum.features.vocabulary import OF_PLACE
from fastgaum.logs.clicks import CLICKS_SO_FAR

if TYPE_CHECKING:
    from fastgaum.features.space import FeatureSpace
    from fastgaum.logs.log import SessionLog


def check_columns(space: FeatureSpace, log: SessionLog) -> None:
    """Raise FeatureMismatchError when a log's declared fields, order or views differ from the
    training log's."""
    fields = tuple(sorted(log.columns_of("candidate", "item")))
    if fields != space.field_names:
        missing = sorted(set(space.field_names) - set(fields))
        extra = sorted(set(fields) - set(space.field_names))
        raise FeatureMismatchError(
            f"the model was trained on fields {list(space.field_names)}, log '{log.name}' "
            f"declares {list(fields)}"
            f" (missing {missing}, extra {extra}): declare the same fields"
        )
    _check_context(space.context_holds, log)
    _check_vectors(space, log)
    if space.grid and space.grid != log.grid:
        raise FeatureMismatchError(
            f"the model reads places of a grid of {space.grid} columns, log '{log.name}' has "
            f"{log.grid or 'no grid'}: read it with --grid {space.grid}"
        )
    check_actions(space.actions, log)
    if space.ordered and not log.ordered:
        raise FeatureMismatchError(
            f"the model was trained on displays whose order is real, log '{log.name}' is "
            "unordered: read it with --ordered"
        )
    if space.protocol == "views" and log.views is None:
        raise FeatureMismatchError(f"the model reads view counts, log '{log.name}' has none")
    for part in (*space.categorical, *space.context):
        if part.source not in ("item", *OF_PLACE) and log.columns[part.name].texts is None:
            raise FeatureMismatchError(
                f"field '{part.name}' holds categories in the training log, numbers in '{log.name}'"
            )
    for name in (*space.number_names, *space.context_number_names):
        if name in log.columns and log.columns[name].texts is not None:
            raise FeatureMismatchError(
                f"field '{name}' holds numbers in the training log, categories in '{log.name}'"
            )


def _check_context(trained: Iterable[str], log: SessionLog) -> None:
    """Raise FeatureMismatchError unless a log has the context fields of the training log.

    `clicks_so_far` may be one more: a model of displays may be judged on successive choices."""
    trained, given = sorted(trained), sorted(log.context)
    if CLICKS_SO_FAR in trained and CLICKS_SO_FAR not in given:
        raise FeatureMismatchError(
            f"the model was trained on successive choices of a display, log '{log.name}' has one "
            "choice of each: read it with --clicks each"
        )
    if trained != [name for name in given if name in trained or name != CLICKS_SO_FAR]:
        raise FeatureMismatchError(
            f"the model was trained on context fields {trained}, log '{log.name}' declares "
            f"{given}: declare the same context fields"
        )


def _check_vectors(space: FeatureSpace, log: SessionLog) -> None:
    """Raise FeatureMismatchError unless a log has the training log's vectors of items."""
    trained, given = (
        dict(space.vectors.widths),
        {name: vectors.shape[1] for name, vectors in log.vectors.items()},
    )
    if trained == given:
        return
    said = [
        ", ".join(f"{name} of {width} numbers" for name, width in sorted(widths.items())) or "none"
        for widths in (trained, given)
    ]
    raise FeatureMismatchError(
        f"the model was trained on the item vectors {said[0]}, log '{log.name}' has {said[1]}: "
        "read it with the same columns of an item table (--item-table, --item-vectors)"
    )
