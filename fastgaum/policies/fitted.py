"""Fitted: greedy by any model fitted on a log, the published ones too: W&D-LR and W&D-CCF are the paper's rivals.

Any `ChoiceModel` scores display sets of a log. So the users met are kept as a log: what each was shown and chose, and as a
last event the pool. The model encodes that as it encodes any held-out session, and the pool is ranked by its utilities.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from fastgaum.envs.world import FloatArray, IntArray, World
from fastgaum.errors import ConfigError
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.policies.base import Observation, Policy, Transition, items_at, top_places
from fastgaum.sessions.packed import SessionLog

_TEST = 2


class Fitted(Policy):
    """The k items of a pool that a fitted model finds most useful to a user with this session."""

    def __init__(self, name: str, model: ChoiceModel, world: World) -> None:
        """Take a fitted model and the world whose users it is to serve.

        Raises:
            ConfigError: the model is not fitted, or reads columns that a simulated candidate has not.
        """
        if model.space is None:
            raise ConfigError(f"{name} has not been trained: call fit first")
        if model.space.field_names or model.space.protocol == "views":
            raise ConfigError(f"{name} reads columns of the log, which simulated candidates lack: fit it without them")
        self.name, self.model, self.item_ids = name, model, world.item_ids.cast(pl.String)  # type: ignore[misc]
        self.shown: list[IntArray] = []
        self.places: list[IntArray] = []

    def start(self, n: int) -> None:
        """Meet n users without history."""
        self.shown, self.places = [], []

    def act(self, observation: Observation, k: int) -> IntArray:
        """The k items of largest utility, shape (n, k)."""
        pools = np.broadcast_to(observation.pools, (observation.users.n, observation.pools.shape[-1]))
        return items_at(pools, top_places(self.utilities(pools), k))

    def observe(self, transition: Transition) -> None:
        """Remember what was shown and chosen."""
        self.shown.append(transition.slates)
        self.places.append(transition.response.places)

    def utilities(self, pools: IntArray) -> FloatArray:
        """The model's utilities of pools (n, m) after the sessions so far, shape (n, m)."""
        n, m = pools.shape
        # all sessions are alike in shape, and the pool is the last event of each
        parts = [self.model.utility(batch).numpy() for batch in self.model.tensors(self._log(pools), "all")]
        return np.concatenate(parts).astype(np.float32).reshape(n, -1)[:, -m:]

    def _log(self, pools: IntArray) -> SessionLog:
        n, m = pools.shape
        sizes = np.array([shown.shape[1] for shown in self.shown] + [m])
        events = len(sizes)
        choices = np.stack([*self.places, np.zeros(n, np.int32)], axis=1)
        return SessionLog(
            session_offsets=np.arange(0, n * events + 1, events, dtype=np.int32),
            display_offsets=np.concatenate([[0], np.cumsum(np.tile(sizes, n))]).astype(np.int32),
            items=np.concatenate([*self.shown, pools], axis=1).ravel().astype(np.int32),
            choices=choices.ravel().astype(np.int32),
            split=np.full(n, _TEST, np.int8),
            users=np.arange(n, dtype=np.int32),
            session_ids=pl.Series("session", [str(i) for i in range(n)], dtype=pl.String),
            event_ids=pl.Series("event", np.tile(np.arange(events), n)),
            item_ids=self.item_ids,
            name="rollout",
        )
