"""ModelWorld: any other choice model as users. The model reads each session again at every step,
O(t), and has no kernel of its own.

A `ChoiceModel` scores display sets of whole sessions. So each user's past choices become events
that displayed the choice alone, and the slate the event after them. That is all that our baselines
read of the past."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastgaum.errors import ConfigError
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import EncodedSessions
from fastgaum.kernels import slates as kernels
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.nets.tensors import to_tensors
from fastgaum.worlds.catalogue import ITEM_STATISTICS, Catalogue, item_features
from fastgaum.worlds.session_counts import SessionCounts
from fastgaum.worlds.user_networks import ChoiceHistory
from fastgaum.worlds.world import (
    FloatArray,
    IntArray,
    KeyArray,
    Population,
    Response,
    World,
    checked_slates,
)


class ModelWorld(World):
    """Users who choose as a fitted `ChoiceModel` does, by its reward head; all start without
    history.

    A state, which such a model does not have, is made of what a policy may know: the mean features
    of the user's choices, the share of events with a choice, and log(1 + events)."""

    def __init__(self, model: ChoiceModel, *, log: SessionLog | None = None) -> None:
        """Take a fitted model; `log` says what fields the items have, as for `LearnedWorld`.

        Raises:
            ConfigError: the model is not fitted, or a log is needed and none is given.
            FeatureMismatchError: the log's fields are not the training log's.
        """
        if model.space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        self.model, self.outside = model, model.outside
        self.catalogue = Catalogue.of(model.space, log)
        self.item_ids = self.catalogue.item_ids
        self.item_features = item_features(self.catalogue, [], len(ITEM_STATISTICS))
        self.state_dim = len(ITEM_STATISTICS) + 2

    def population(self, n: int) -> ModelPopulation:
        """Make n users without history.

        Raises:
            ConfigError: n is not positive.
        """
        if n < 1:
            raise ConfigError(f"a population has at least one user, got n = {n}")
        return ModelPopulation(self, n)


class ModelPopulation(Population):
    """Users of a `ModelWorld`."""

    def __init__(self, world: ModelWorld, n: int) -> None:
        self.world, self.n = world, n
        self.session_counts, self.choices = (
            SessionCounts(world.catalogue, n),
            ChoiceHistory(world.catalogue, n),
        )
        self.events, self.n_chosen = np.zeros((2, n), np.int64)
        self.sums: FloatArray = np.zeros((n, len(ITEM_STATISTICS)), np.float32)
        self._states: FloatArray = np.zeros((n, world.state_dim), np.float32)
        self._seen = self._states.view()
        self._seen.flags.writeable = False

    @property
    def states(self) -> FloatArray:
        """The users' states now, shape (n, state_dim); read-only, overwritten by the next `reset`
        or `step`."""
        return self._seen

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        """Start users anew, without history; nothing is drawn."""
        users: Any = slice(None) if rows is None else rows
        self.session_counts.reset(users)
        self.choices.reset(users)
        for part in (self.events, self.n_chosen, self.sums, self._states):
            part[users] = 0

    def step(
        self, slates: IntArray, keys: KeyArray, active: npt.NDArray[np.bool_] | None = None
    ) -> Response:
        """Show each user a slate (n, k) and let them choose; their histories grow.

        Raises:
            ConfigError: the slates are not of n users, or hold a number that is no item.
        """
        slates = checked_slates(slates, self.n, self.world.n_items)
        who = np.ones(self.n, bool) if active is None else active
        rows, numbers, utilities, probs, none = self._weigh(slates, who)
        n, n_numbers = self.n, numbers.shape[2]
        places, items, taken = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32)
        chosen, of_choice = (
            np.empty((n, 1, rows.shape[2]), np.int32),
            np.empty((n, 1, n_numbers), np.float32),
        )
        keys = np.ascontiguousarray(keys, np.uint64)
        kernels.draw_places(
            0,
            n,
            probs,
            none,
            keys,
            kernels.Displayed(rows, numbers),
            kernels.Chosen(places, items, chosen, of_choice),
        )
        kernels.take_places(0, n, utilities, places, taken)
        self.session_counts.make_room(slates.shape[1])
        self.session_counts.count(0, n, who, rows, items)
        self.choices.append(who, chosen, of_choice)
        self.events += who
        clicked = np.flatnonzero(items >= 0)
        self.n_chosen[clicked] += 1
        self.sums[clicked] += self.world.item_features[items[clicked]]
        self._states[:, :-2] = self.sums / np.maximum(self.n_chosen, 1)[:, None]
        self._states[:, -2] = self.n_chosen / np.maximum(self.events, 1)
        self._states[:, -1] = np.log1p(self.events)
        return Response(places, items, taken)

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        """Each user's utility now of each item of a pool, (n, m) or one for all (m,); shape (n, m),
        0 at an empty place.

        Each item as one of an average slate of k; with None the pool is the display set.
        """
        pools = checked_slates(pools, self.n, self.world.n_items, any_rows=True)
        each = np.ascontiguousarray(np.broadcast_to(pools, (self.n, pools.shape[-1])))
        return self._weigh(each, np.ones(self.n, bool), k or 0)[2]

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of each place of the slates (n, k), and of no click (n,); no state moves."""
        _, _, _, probs, none = self._weigh(
            checked_slates(slates, self.n, self.world.n_items), np.ones(self.n, bool)
        )
        return probs, none

    def _weigh(
        self, slates: IntArray, who: npt.NDArray[np.bool_], pool_for: int = 0
    ) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Rows, numbers, utilities and probabilities of the displayed places, and of no click; of a
        pool for slates of so many."""
        catalogue, (n, k) = self.world.catalogue, slates.shape
        rows = np.empty((n, k, 1 if catalogue.position_column < 0 else 2), np.int32)
        numbers = np.empty((n, k, catalogue.space.n_numbers), np.float32)
        kernels.displayed_rows(0, n, slates, who, len(catalogue.ids), catalogue.n_positions, rows)
        if pool_for and catalogue.position_column >= 0:
            rows[:, :, 1] = np.where(rows[:, :, 0] >= 0, len(catalogue.ids) + 1, -1)
        self.session_counts.write(0, n, rows, numbers, pool_for)
        utilities, probs = np.zeros((2, n, k), np.float32)
        none: FloatArray = np.ones(n, np.float32)
        shown = rows[:, :, 0] >= 0
        users = np.flatnonzero(shown.any(axis=1))
        if len(users):
            batch = to_tensors(
                assemble(
                    self._sessions(users, rows, numbers), np.arange(len(users), dtype=np.int32)
                )
            )
            with torch.no_grad():
                dist, utility = (
                    self.world.model.choice_distribution(batch),
                    self.world.model.utility(batch),
                )
            last = batch.source.session_offsets[1:] - 1
            now = np.repeat(
                np.isin(np.arange(batch.n_events), last), np.diff(batch.source.display_offsets)
            )
            probs[shown], utilities[shown] = dist.probs.numpy()[now], utility.numpy()[now]
            none[users] = dist.outside_prob.numpy()[last] if self.world.outside else 0.0
        return rows, numbers, utilities, probs, none

    def _sessions(
        self, users: npt.NDArray[np.intp], rows: IntArray, numbers: FloatArray
    ) -> EncodedSessions:
        """The users' past choices as events of one candidate each, then the slate."""
        ids, all_numbers, sizes, choices, ends = [], [], [], [], [0]
        for user in users.tolist():
            length = int(self.choices.lengths[user])
            shown = rows[user, rows[user, :, 0] >= 0]
            ids += [self.choices.ids[user, :length], self.world.catalogue.bags(shown)]
            all_numbers += [
                self.choices.numbers[user, :length],
                numbers[user, rows[user, :, 0] >= 0],
            ]
            sizes += [1] * length + [len(shown)]
            choices += [*np.where(self.choices.clicked[user, :length], 0, -1).tolist(), -1]
            ends.append(len(sizes))
        return EncodedSessions(
            rows=np.arange(len(users), dtype=np.int32),
            session_offsets=np.array(ends, np.int32),
            display_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
            choices=np.array(choices, np.int32),
            users=np.arange(len(users), dtype=np.int32),
            ids=np.ascontiguousarray(np.concatenate(ids), np.int32),
            numbers=np.ascontiguousarray(np.concatenate(all_numbers), np.float32),
        )
