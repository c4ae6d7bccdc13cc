"""The clicks that the best policy earns in a small world whose truth is known, and those of any
given policy, exactly.

`Planner` walks the finitely many states of a user forward, merging those that are equal, and
maximises backward over every slate of k different items:

    V_t(s) = max_slate Σ_a p(a | s, slate) ([a is a click] + V_{t+1}(s after a))

With `decay = 0` the states are few at any horizon; otherwise they multiply by the number of items
at each event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Policy
from fastgaum.worlds.true_world import TruePopulation, TrueWorld

MOST_STATES = 500_000
_DECIMALS = 10
"""states that agree to so many decimals are one"""


@dataclass(frozen=True)
class _Layer:
    """The states that are possible before one event."""

    taste: Float64Array
    boredom: Float64Array
    after: IntArray
    """state of the next layer after each item and, last, after no click, (n_states, n_items + 1)"""


class Planner:
    """All states of a small world over a horizon."""

    def __init__(self, world: TrueWorld, horizon: int, k: int = 3) -> None:
        """Walk the states of users without history. Raises ConfigError for a
        world in which slates are no sets, or more states than can be walked."""
        self.world, self.horizon, self.k = world, horizon, k
        self.pool: IntArray = np.arange(world.n_items, dtype=np.int32)
        if world.world.examination or world.world.repeat:
            raise ConfigError(
                f"examination is {world.world.examination} and repeat {world.world.repeat}, and a "
                "plan takes slates as sets of items and forgets choices: plan in a world where both "
                "are 0"
            )
        self.slates = np.array(list(combinations(self.pool, k)), np.int32)
        self.layers = self._walk()

    def best(self) -> float:
        """The best mean return."""
        return self._backward(lambda _, values: values.argmax(axis=1))

    def greedy(self) -> float:
        """The mean return of maximising each event's own probability of a click (ties: the first
        slate)."""

        def likeliest(t: int, _: Float64Array) -> npt.NDArray[np.intp]:
            clicks = [probs.sum(axis=1) for probs, _ in self._choices(self.layers[t])]
            return np.asarray(np.argmax(clicks, axis=0))

        return self._backward(likeliest)

    def policy_return(self, policy: Policy) -> float:
        """The mean return of a policy that draws nothing, without any sampling; it may read the
        users' minds, and shows k different items."""
        order = {tuple(slate): i for i, slate in enumerate(self.slates.tolist())}

        def chosen(t: int, _: Float64Array) -> npt.NDArray[np.intp]:
            users = self._users(self.layers[t])
            keys, left = np.zeros(users.n, np.uint64), 1 - t / self.horizon
            policy.start(users.n)
            slates = policy.act(Observation(users, self.pool, keys, left), self.k)
            return np.array([order[tuple(sorted(slate))] for slate in slates.tolist()])

        return self._backward(chosen)

    def _users(self, layer: _Layer) -> TruePopulation:
        users = self.world.population(len(layer.taste))
        users.take(layer.taste, layer.boredom)
        return users

    def _backward(self, choose: Callable[[int, Float64Array], npt.NDArray[np.intp]]) -> float:
        """The mean return where `choose` gives each state's slate by the event and the slates'
        values, (n_states, n_slates)."""
        future = np.zeros(int(self.layers[-1].after.max()) + 1)
        for t in range(self.horizon - 1, -1, -1):
            layer = self.layers[t]
            values = np.zeros((len(layer.taste), len(self.slates)))
            later = future[layer.after]
            for number, (probs, none) in enumerate(self._choices(layer)):
                later_of_items = later[:, self.slates[number]]
                values[:, number] = (probs * (1 + later_of_items)).sum(axis=1) + none * later[:, -1]
            future = values[np.arange(len(values)), choose(t, values)]
        return float(future[0])

    def _choices(self, layer: _Layer) -> Iterator[tuple[Float64Array, Float64Array]]:
        """Of every slate: probabilities of its items, (n_states, k), and of no click."""
        users = self._users(layer)
        for slate in self.slates:
            shown = np.ascontiguousarray(np.broadcast_to(slate, (users.n, self.k)))
            weights = users.weigh(shown)
            yield weights.probs, weights.none

    def _walk(self) -> list[_Layer]:
        taste, boredom = np.zeros((1, self.world.latents.shape[1])), np.zeros(1)
        n_outcomes = self.world.n_items + 1
        layers: list[_Layer] = []
        for _ in range(self.horizon):
            n_next = len(taste) * n_outcomes
            if n_next > MOST_STATES:
                raise ConfigError(
                    f"{n_next:,} states after {len(layers) + 1} events are more than "
                    f"{MOST_STATES:,}: plan a shorter horizon, fewer items, or a world with decay = "
                    "0"
                )
            moved, bored = self._outcomes(taste, boredom)
            flat = np.concatenate([moved.reshape(n_next, -1), bored.reshape(n_next, 1)], axis=1)
            # + 0.0: a −0.0 is not another state
            _, first, where = np.unique(
                np.round(flat, _DECIMALS) + 0.0, axis=0, return_index=True, return_inverse=True
            )
            after = where.reshape(len(taste), n_outcomes).astype(np.int32)
            layers.append(_Layer(taste, boredom, after))
            taste, boredom = flat[first, :-1], flat[first, -1]
        return layers

    def _outcomes(
        self, taste: Float64Array, boredom: Float64Array
    ) -> tuple[Float64Array, Float64Array]:
        """Taste (n_states, n_items + 1, dim) and boredom (n_states, n_items + 1) after each
        outcome."""
        w, n, decay = self.world, self.world.n_items, float(self.world.world.decay)
        bait = w.law
        moved = np.repeat(decay * taste[:, None], n + 1, axis=1)
        moved[:, :n] += (1.0 - decay) * w.latents
        step = np.append(np.where(w.is_bait, 1.0, -bait.recovery), -bait.recovery)
        return moved, np.clip(boredom[:, None] + step, 0.0, bait.most)
