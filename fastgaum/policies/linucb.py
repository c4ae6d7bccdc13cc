"""LinUCB online: Li et al., "A contextual-bandit approach to personalized news article
recommendation", WWW 2010.

One ridge regression of the reward on x = [1; s] ⊗ [1; f_a], state times item features, learned
while it recommends: A = λI + Σ x xᵀ, b = Σ r x over displayed items (r = the reward for the chosen
one, 0 for the others), and the k items of the largest x·A⁻¹b + alpha √(xᵀA⁻¹x) are shown. With
features instead of a weight vector per item it learns of all items at once; it does not look past
the next choice. A and b take a whole step of users at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastgaum.checkpoint import State, check_finite, check_like
from fastgaum.errors import ConfigError
from fastgaum.policies.base import LearningPolicy, Observation, Transition, items_at, top_places
from fastgaum.policies.config import PolicyConfig
from fastgaum.worlds.world import FloatArray, IntArray, World

MOST = 1024
"""columns of x: beyond, the inverse and the bonuses would take seconds"""
_AT_ONCE = 1 << 22


class LinUcbPolicy(LearningPolicy):
    """A linear regression with a bonus for what is uncertain; `act` adds it while learning."""

    name = "linucb"

    def __init__(self, world: World, config: PolicyConfig | None = None) -> None:
        """Start from the prior alone.

        Raises:
            ConfigError: state and item features are too many for it.
        """
        self.config, self.made_in = config or PolicyConfig(), world.fingerprint
        self.item_features = np.asarray(world.item_features, np.float32)
        self.columns = _columns(world)
        self.n_states = world.state_dim + 1
        width = self.n_states * self.columns.shape[1]
        if width > MOST:
            raise ConfigError(
                f"linucb reads products of {self.n_states} state and {self.columns.shape[1]} item "
                f"columns, {width} in all, and"
                f" at most {MOST} are possible: use a world with smaller states or features"
            )
        self.gram = self.config.ridge * np.eye(width)
        self.response = np.zeros(width)
        self.learning = True
        self._solved: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None

    def act(self, observation: Observation, k: int) -> IntArray:
        """The k items of the largest upper bound, or of the largest mean once it no longer learns,
        shape (n, k)."""
        scores = self.scores(observation.states, observation.pools)
        return items_at(observation.pools, top_places(scores, k))

    def scores(self, states: FloatArray, pools: IntArray) -> FloatArray:
        """Upper bounds of the pools' items, (m,) or (n, m); shape (n, m)."""
        inverse, theta = self._solution()
        n_features = self.columns.shape[1]
        context = _with_one(states)
        result = np.empty((len(states), pools.shape[-1]), np.float32)
        at_once = max(1, _AT_ONCE // (pools.shape[-1] * n_features))
        for first in range(0, len(states), at_once):
            some = slice(first, first + at_once)
            own = self.columns[np.broadcast_to(pools, result.shape)[some]]
            s = context[some]
            result[some] = np.einsum(
                "nmf,nf->nm", own, s @ theta.reshape(self.n_states, n_features)
            )
            if self.learning:
                # (s ⊗ I)ᵀ A⁻¹ (s ⊗ I): what is left of A⁻¹ for a user, one small matrix
                halves = np.tensordot(
                    s, inverse.reshape(self.n_states, n_features, self.n_states, n_features), 1
                )
                middle = np.einsum("nfsg,ns->nfg", halves, s)
                squares = ((own @ middle) * own).sum(axis=2)
                result[some] += self.config.alpha * np.sqrt(np.maximum(squares, 0))
        return result

    def observe(self, transition: Transition) -> None:
        """Add a step of all users to A and b."""
        if not self.learning:
            return
        there, k = transition.active, transition.slates.shape[1]
        own = self.columns[transition.slates[there]]
        x = np.einsum("ns,nkf->nksf", _with_one(transition.states[there]), own).reshape(
            len(own) * k, -1
        )
        chosen = transition.response.places[there, None] == np.arange(k)
        self.gram += x.T @ x
        self.response += x.T @ np.where(chosen, transition.rewards[there, None], 0).ravel()
        self._solved = None

    def weights(self) -> dict[str, Tensor]:
        """A and b."""
        return {"gram": torch.from_numpy(self.gram), "response": torch.from_numpy(self.response)}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Act by A and b. Raises ValueError, or its LinAlgError if A has no inverse."""
        for name, own in self.weights().items():
            found = weights[name]
            check_like(f"'{name}'", found, own)
            check_finite(f"'{name}'", found)
        self.gram, self.response = weights["gram"].numpy(), weights["response"].numpy()
        self._solved, self.learning = None, False
        self._solution()

    def state(self) -> State:
        """A and b are all that it is."""
        return dict(self.weights())

    def load_state(self, state: State) -> None:
        """Go on from A and b."""
        self.load_weights(state)

    def _solution(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        if self._solved is None:
            inverse = np.asarray(np.linalg.inv(self.gram), np.float64)
            self._solved = inverse, np.asarray(inverse @ self.response, np.float64)
        return self._solved


def _columns(world: World) -> npt.NDArray[np.float64]:
    """[1; f_a] of each item, features standardised, shape (n_items, 1 + n_features)."""
    features = np.asarray(world.item_features, np.float64)
    scale = np.maximum(features.std(axis=0), 1e-6)
    return np.column_stack([np.ones(len(features)), (features - features.mean(axis=0)) / scale])


def _with_one(states: FloatArray) -> npt.NDArray[np.float64]:
    return np.column_stack([np.ones(len(states)), states.astype(np.float64)])
