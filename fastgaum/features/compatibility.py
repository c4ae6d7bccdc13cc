"""Whether a log can be read under a feature space: it has what the training log had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastgaum.errors import FeatureMismatchError
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.log import SessionLog


def check_columns(space: FeatureSpace, log: SessionLog) -> None:
    """Raise FeatureMismatchError when a log's columns, order, views or actions are not the training
    log's."""
    for fault in _faults(space, log):
        raise FeatureMismatchError(fault)


def _faults(space: FeatureSpace, log: SessionLog) -> Iterator[str]:
    trained, given = list(space.field_names), sorted(log.columns_of("candidate", "item"))
    if trained != given:
        missing, extra = sorted({*trained} - {*given}), sorted({*given} - {*trained})
        yield (
            f"the model was trained on fields {trained}, log '{log.name}' declares {given}"
            f" (missing {missing}, extra {extra}): declare the same fields"
        )
    trained, given = list(space.context_holds), sorted(log.context)
    if CLICKS_SO_FAR in trained and CLICKS_SO_FAR not in given:
        yield (
            f"the model was trained on successive choices of a display, log '{log.name}' has one "
            "choice of each: read it with --clicks each"
        )
    # a model of displays may be judged on successive choices
    if trained != [name for name in given if name in trained or name != CLICKS_SO_FAR]:
        yield (
            f"the model was trained on context fields {trained}, log '{log.name}' declares "
            f"{given}: declare the same context fields"
        )
    of_vectors = dict(space.vectors.widths)
    widths = {name: vectors.shape[1] for name, vectors in log.vectors.items()}
    if of_vectors != widths:
        yield (
            f"the model was trained on the item vectors {_in_words(of_vectors)}, log '{log.name}' "
            f"has {_in_words(widths)}: read it with the same columns of an item table "
            "(--item-table, --item-vectors)"
        )
    if space.grid and space.grid != log.grid:
        yield (
            f"the model reads places of a grid of {space.grid} columns, log '{log.name}' has "
            f"{log.grid or 'no grid'}: read it with --grid {space.grid}"
        )
    if space.actions and log.actions is None:
        yield (
            f"the model was trained on actions ({', '.join(space.actions[0].values.head(10))}), "
            f"log '{log.name}' has none: read it with --actions FILE, or --past COLUMN"
        )
    if space.ordered and not log.ordered:
        yield (
            f"the model was trained on displays whose order is real, log '{log.name}' is "
            "unordered: read it with --ordered"
        )
    if space.protocol == "views" and log.views is None:
        yield f"the model reads view counts, log '{log.name}' has none"
    for part in (*space.categorical, *space.context):
        if part.is_column and log.columns[part.name].texts is None:
            yield (
                f"field '{part.name}' holds categories in the training log, numbers in '{log.name}'"
            )
    for name in (*space.number_names, *space.context_number_names):
        if name in log.columns and log.columns[name].texts is not None:
            yield f"field '{name}' holds numbers in the training log, categories in '{log.name}'"


def _in_words(widths: Mapping[str, int]) -> str:
    said = [f"{name} of {width} numbers" for name, width in sorted(widths.items())]
    return ", ".join(said) or "none"
