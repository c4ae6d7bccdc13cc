"""ModelPolicy: the best items by any model fitted on a log. W&D-LR and W&D-CCF, the paper's rivals,
are such models.

Any `ChoiceModel` scores display sets of a log. So the users met are kept as a log: what each was
shown and chose, and as a last event the pool. The model encodes that as it encodes any held-out
session, and the pool is ranked by its utilities."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.policies.base import BoolArray, Observation, Policy, Transition, items_at, top_places
from fastgaum.worlds.world import FloatArray, IntArray, Past, World

_TEST = 2


class ModelPolicy(Policy):
    """The k items of a pool that a fitted model finds most useful to a user with this session."""

    def __init__(self, name: str, model: ChoiceModel, world: World) -> None:
        """Take a fitted model and the world whose users it is to serve.

        Raises:
            ConfigError: the model is not fitted, or reads columns that a simulated candidate has
                not.
        """
        if model.space is None:
            raise ConfigError(f"{name} has not been trained: call fit first")
        if model.space.field_names or model.space.protocol == "views":
            raise ConfigError(
                f"{name} reads columns of the log, which simulated candidates lack: fit it without "
                "them"
            )
        self.name, self.model = name, model
        self.item_ids = world.item_ids.cast(pl.String)
        self.events: list[Past] = []

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """Meet n users with what they have behind them."""
        self.events = list(past)

    def act(self, observation: Observation, k: int) -> IntArray:
        """The k items of largest utility, shape (n, k)."""
        pools = np.broadcast_to(
            observation.pools, (observation.users.n, observation.pools.shape[-1])
        )
        return items_at(pools, top_places(self.utilities(pools), k))

    def observe(self, transition: Transition) -> None:
        """Remember what was shown and chosen."""
        self.events.append(Past(transition.slates, transition.response.places, transition.active))

    def utilities(self, pools: IntArray) -> FloatArray:
        """The model's utilities of pools (n, m) after the sessions so far, shape (n, m)."""
        log, m = self._log(pools), pools.shape[1]
        parts = [self.model.utility(batch).numpy() for batch in self.model.tensors(log, "all")]
        # the pool is the last event of each session
        starts = log.display_offsets[log.session_offsets[1:] - 1]
        return np.asarray(np.concatenate(parts)[starts[:, None] + np.arange(m)], np.float32)

    def _log(self, pools: IntArray) -> SessionLog:
        n = len(pools)
        events = [*self.events, Past(pools, np.zeros(n, np.int32), np.ones(n, np.bool_))]
        shown = [_displayed(event) for event in events]
        sizes = np.stack([mask.sum(axis=1) for mask in shown], axis=1)
        # what is not displayed is counted out of the place of the choice
        choices = [
            np.where(e.places >= 0, mask.cumsum(axis=1)[np.arange(n), e.places] - 1, -1)
            for e, mask in zip(events, shown, strict=True)
        ]
        happened = sizes > 0
        items = np.concatenate([event.slates for event in events], axis=1)[
            np.concatenate(shown, axis=1)
        ]
        return SessionLog(
            session_offsets=_offsets(happened.sum(axis=1)),
            display_offsets=_offsets(sizes[happened]),
            items=items.astype(np.int32),
            choices=np.stack(choices, axis=1)[happened].astype(np.int32),
            split=np.full(n, _TEST, np.int8),
            users=np.arange(n, dtype=np.int32),
            session_ids=pl.Series("session", [str(i) for i in range(n)], dtype=pl.String),
            event_ids=pl.Series("event", np.nonzero(happened)[1]),
            item_ids=self.item_ids,
            name="rollout",
        )


def _displayed(event: Past) -> BoolArray:
    """Places of each user's event that show something, (n, k): none where there was no event, or
    what was chosen is unknown."""
    chosen = event.slates[np.arange(len(event.slates)), event.places]
    there = event.active & ((event.places < 0) | (chosen >= 0))
    return np.asarray((event.slates >= 0) & there[:, None])


def _offsets(counts: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
