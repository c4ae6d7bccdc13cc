"""Actions as tokens of a history: an action's bag holds its item, the item's categories, and what
was done. It has no numbers.

An item that training displays has the id that it has as a candidate, so that what is learned of it
there serves the history. An item of actions alone has an id of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import FeatureMismatchError
from fastgaum.features.sessions import ActionBags
from fastgaum.features.vocabulary import CategoricalField, after
from fastgaum.logs.columns import NO_CODE, Vocabulary
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog

if TYPE_CHECKING:
    from fastgaum.features.space import FeatureSpace


def action_fields(
    log: SessionLog, others: Sequence[CategoricalField], former: Sequence[CategoricalField] = ()
) -> tuple[CategoricalField, ...]:
    """The fields of ids that actions alone have: what was done, and items that training does not
    display. Nothing for a log without actions.

    Args:
        log: the log, of which training counts.
        others: the fields of candidates and of the context; the first is that of items.
        former: the same fields of a former log: their values come first, in their order.
    """
    if log.actions is None:
        return ()
    names = {"kinds": log.actions.kind_names, "items": log.item_ids}
    seen = {name: np.zeros(len(texts), np.bool_) for name, texts in names.items()}
    _, events = pick_rows(log.session_offsets, log.sessions_in("train"))
    _, at = pick_rows(log.actions.offsets, events)
    for name, flags in seen.items():
        flags[getattr(log.actions, name)[at]] = True
    stop = max(field.stop for field in others)
    displayed = Vocabulary(others[0].values).codes(names["items"]) != NO_CODE
    fields: list[CategoricalField] = []
    for name, flags in (("kinds", seen["kinds"]), ("items", seen["items"] & ~displayed)):
        values = names[name].gather(np.flatnonzero(flags))
        before = former[len(fields)].values if former else None
        source = "action" if name == "kinds" else "acted_item"
        fields.append(CategoricalField(source, source, stop, after(before, values)))
        stop = fields[-1].stop
    return tuple(fields)


def check_actions(fields: Sequence[CategoricalField], log: SessionLog) -> None:
    """Raise FeatureMismatchError if a model with these fields reads actions and a log has none."""
    if fields and log.actions is None:
        raise FeatureMismatchError(
            f"the model was trained on actions ({', '.join(fields[0].values.head(10))}), log "
            f"'{log.name}' has none: read it with --actions FILE, or --past COLUMN"
        )


def action_bags(
    space: FeatureSpace, log: SessionLog, events: IntArray | None = None
) -> ActionBags | None:
    """Bags of the actions before these events of a log, or all; None where none are read."""
    actions = log.actions
    if not space.actions or actions is None:
        return None
    if events is not None:
        actions = actions.picked(*pick_rows(actions.offsets, events))
    kinds, others = space.actions
    columns = [ids_of_items(space.categorical[0], others, log.item_ids)[actions.items]]
    for part in space.categorical:
        if part.source == "item_field":
            column = log.columns[part.name]
            rows = Vocabulary(part.values).codes_from(Vocabulary(column.categories))
            columns.append(rows[column.values][actions.items] + part.start + 1)
    of_kind = Vocabulary(kinds.values).codes(actions.kind_names) + kinds.start + 1
    columns.append(of_kind[actions.kinds])
    return ActionBags(np.asarray(actions.offsets), np.stack(columns, 1).astype(np.int32))


def ids_of_items(items: CategoricalField, others: CategoricalField, texts: pl.Series) -> IntArray:
    """Feature id of each item: its own as a candidate, or among the items of actions alone; shape
    (n,)."""
    displayed, acted = (Vocabulary(part.values).codes(texts) for part in (items, others))
    ids = np.where(displayed >= 0, displayed + items.start + 1, acted + others.start + 1)
    return ids.astype(np.int32)
