"""Actions told to simulated users: what an action says to a history, in rows of folded tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.features.actions import ids_of_items
from fastgaum.features.sessions import ActionBags
from fastgaum.logs.log import SessionLog
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import NO_ITEM, IntArray, Population

if TYPE_CHECKING:
    from fastgaum.worlds.learned_population import LearnedPopulation


class ActionRows:
    """Rows of the actions that users of a world may be told.

    Each id of an action's bag has a row of its own, behind those of the catalogue: a bag is the sum
    of its ids, as `features.actions` makes them."""

    def __init__(self, catalogue: Catalogue) -> None:
        space = catalogue.space
        kinds, others = space.actions
        columns = [ids_of_items(space.categorical[0], others, catalogue.item_ids)]
        for column, part in enumerate(space.categorical):
            if part.source == "item_field":
                columns.append(catalogue.ids[:-1, column])
        self.first = catalogue.first_id_row
        self.of_items: IntArray = np.stack(columns, 1).astype(np.int32) + np.int32(self.first)
        self.of_kinds = {
            name: self.first + kinds.start + 1 + row for row, name in enumerate(kinds.values)
        }

    def of(self, items: IntArray, action: str) -> IntArray:
        """Rows of an action on each item (n,), -1 for `NO_ITEM`; shape (n, ·).

        Raises:
            ConfigError: training had no such action.
        """
        if action not in self.of_kinds:
            raise ConfigError(
                f"the world knows no action '{action}', its users have {', '.join(self.of_kinds)}"
                f"{did_you_mean(str(action), self.of_kinds)}"
            )
        kinds = np.full((len(items), 1), self.of_kinds[action], np.int32)
        rows = np.concatenate([self.of_items[items], kinds], axis=1)
        return np.where(items[:, None] == NO_ITEM, -1, rows).astype(np.int32)


class LoggedActions:
    """The actions before the events of some logged sessions, as rows."""

    def __init__(self, catalogue: Catalogue, bags: ActionBags) -> None:
        self.offsets, self.rows = bags.offsets, bags.ids + np.int32(catalogue.first_id_row)

    def tell(
        self, users: LearnedPopulation, who: IntArray, events: npt.NDArray[np.integer]
    ) -> None:
        """Tell the users `who` the actions before an event each, one after the other."""
        starts, lengths = self.offsets[events], self.offsets[events + 1] - self.offsets[events]
        for number in range(int(lengths.max(initial=0))):
            now = np.flatnonzero(lengths > number)
            rows = np.full((users.n, self.rows.shape[1]), -1, np.int32)
            rows[who[now]] = self.rows[starts[now] + number]
            tell_rows(users, rows)


def tell_rows(users: LearnedPopulation, rows: IntArray) -> None:
    """Move histories on by an action each, rows (n, ·), those of users who have one."""
    active = rows[:, 0] >= 0
    numbers = np.zeros((users.n, 1, users.world.catalogue.space.n_numbers), np.float32)
    users.advance(active, np.ascontiguousarray(rows[:, None]), numbers)
    if users.contexts is not None:
        users.contexts.read_histories()


def tell_logged(
    users: Population, log: SessionLog, codes: IntArray, events: npt.NDArray[np.integer]
) -> None:
    """Tell each user the actions before its event of a log, (n,), -1 for no event.

    codes: the world's number of each of the log's items."""
    actions = log.actions
    if actions is None:
        return
    told = np.where(events >= 0, events, 0)
    starts = actions.offsets[told]
    lengths = np.where(events >= 0, actions.offsets[told + 1] - starts, 0)
    for number in range(int(lengths.max(initial=0))):
        at = np.where(lengths > number, starts + number, 0)
        for kind in np.unique(actions.kinds[at[lengths > number]]).tolist():
            now = (lengths > number) & (actions.kinds[at] == kind)
            items = np.where(now, codes[actions.items[at]], NO_ITEM).astype(np.int32)
            users.acted(items, str(actions.kind_names[kind]))
