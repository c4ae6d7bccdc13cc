"""Actions told to simulated users: what an action says to a history."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.features.actions import ids_of_items
from fastgaum.features.sessions import ActionBags
from fastgaum.logs.log import SessionLog
from fastgaum.models.users import Users
from fastgaum.worlds.catalogue import Catalogue
from fastgaum.worlds.world import NO_ITEM, Population


class ActionIds:
    """Bags of the actions that users of a world may be told, as `features.actions` makes them."""

    def __init__(self, catalogue: Catalogue) -> None:
        space = catalogue.space
        kinds, others = space.actions
        columns = [ids_of_items(space.categorical[0], others, catalogue.item_ids)]
        for column, part in enumerate(space.categorical):
            if part.source == "item_field":
                columns.append(catalogue.ids[:-1, column])
        self.of_items: IntArray = np.stack(columns, 1).astype(np.int32)
        self.of_kinds = {name: kinds.start + 1 + row for row, name in enumerate(kinds.values)}

    def of(self, items: IntArray, action: str) -> IntArray:
        """Feature ids of an action on each item, (n, ·).

        Raises:
            ConfigError: training had no such action.
        """
        if action not in self.of_kinds:
            raise ConfigError(
                f"the world knows no action '{action}', its users have {', '.join(self.of_kinds)}"
                f"{did_you_mean(str(action), self.of_kinds)}"
            )
        kinds = np.full((len(items), 1), self.of_kinds[action], np.int32)
        return np.concatenate([self.of_items[items], kinds], axis=1)


def act_as_logged(
    users: Users, who: IntArray, bags: ActionBags, events: npt.NDArray[np.integer]
) -> None:
    """Tell the users `who` the actions before an encoded event each, one after the other."""
    starts, lengths = bags.offsets[events], bags.offsets[events + 1] - bags.offsets[events]
    for number in range(int(lengths.max(initial=0))):
        now = np.flatnonzero(lengths > number)
        users.act(who[now], bags.ids[starts[now] + number])


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
