"""Planning where the truth is known: what the best policy over a small pool earns, and what any
given policy earns, exactly.

A user of a `TrueWorld` is in one of finitely many states after t events, for what can have happened
is finite: each event ends with one of the pool's items or none. `Planner` walks these states
forward, merging those that are equal, and then maximises backward over every slate of k different
items of the pool:

    V_t(s) = max_slate Σ_a p(a | s, slate) (reward(s, a) + V_{t+1}(s after a)),   no click being one
    of the a

With `decay = 0` the taste is that of the last choice, boredom takes few values, and the states are
few at any horizon; otherwise they multiply by the pool's size at each event, and only short
horizons are possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.worlds.true_world import Bait, TruePopulation, TrueWorld
from fastgaum.worlds.world import FloatArray, IntArray

Float64Array = npt.NDArray[np.float64]
SlatePolicy = Callable[[int, FloatArray], IntArray]
"""(event number, states (m, state_dim)) → slates (m, k)"""
MOST_STATES = 500_000
MOST_SLATES = 5_000
_DECIMALS = 10
"""states that agree to so many decimals are one"""


def short_sighted(n_items: int = 10, seed: int = 0) -> TrueWorld:
    """A small world in which greed is short-sighted and a horizon of any length can be planned
    exactly.

    Half of the items, those of highest base, are bait: worth 1 more now, and each choice of one
    makes every item worth 1.5 less until two events without bait have passed (boredom at most 3).
    The taste is that of the last choice (decay 0); no click is offered. Over 20 events and slates
    of 3 the greedy policy earns 77 % of what is possible (10 items, seed 0)."""
    world = SyntheticWorld(
        n_items=n_items,
        seed=seed,
        no_click=0.4,
        decay=0.0,
        affinity=0.5,
        popularity=0.6,
        max_display=n_items,
    )
    return TrueWorld(world, Bait(share=0.5, bonus=1.0, cost=1.5, most=3.0, recovery=0.5))


@dataclass(frozen=True)
class _Layer:
    """The states that are possible before one event."""

    taste: Float64Array
    boredom: Float64Array
    chosen: npt.NDArray[np.bool_]
    """which of the pool were chosen before, shape (n_states, pool); empty columns where repeat is 0
    """
    after: IntArray
    """state of the next layer after each item of the pool and, last, after no click, shape
    (n_states, pool + 1)"""


class Planner:
    """All states of a small world over a horizon.

    Attributes:
        n_states: how many states are possible before each event.
    """

    def __init__(
        self,
        world: TrueWorld,
        horizon: int,
        k: int = 3,
        *,
        pool: IntArray | None = None,
        reward: Literal["click", "utility"] = "click",
    ) -> None:
        """Walk the states.

        Args:
            world: users who start without history.
            horizon: events of an episode.
            k: items of a slate, all different.
            pool: the items that may be shown; None = all.
            reward: what an event earns: 1 for a click, or the utility of the choice; no click earns
                0.

        Raises:
            ConfigError: an impossible value, or more states or slates than can be walked.
        """
        self.world, self.horizon, self.k, self.reward = world, horizon, k, reward
        self.pool: IntArray = (
            np.arange(world.n_items, dtype=np.int32) if pool is None else np.asarray(pool, np.int32)
        )
        if horizon < 1 or not 1 <= k <= len(self.pool):
            raise ConfigError(
                f"a plan needs a horizon of at least 1 and 1 to {len(self.pool)} items of the pool "
                f"in a slate, got horizon {horizon} and k = {k}"
            )
        if reward not in ("click", "utility"):
            raise ConfigError(f"reward must be click or utility, got '{reward}'")
        if world.world.examination:
            raise ConfigError(
                f"examination is {world.world.examination}, and a plan takes slates as sets of "
                "items: plan in a world with examination = 0"
            )
        self.slates = np.array(list(combinations(range(len(self.pool)), k)), np.int32)
        if len(self.slates) > MOST_SLATES:
            raise ConfigError(
                f"{len(self.slates):,} slates are more than {MOST_SLATES:,}: plan over a smaller "
                "pool"
            )
        self.layers = self._walk()
        self.n_states = [len(layer.taste) for layer in self.layers]

    def best(self) -> float:
        """The best mean return: what no policy can exceed."""
        return self._backward(lambda _, values: values.argmax(axis=1))

    def greedy(self) -> float:
        """The mean return of the policy that maximises each event's own expected reward (ties: the
        first slate)."""
        return self._backward(lambda t, _: self._rewards(self.layers[t]).argmax(axis=1))

    def policy_return(self, policy: SlatePolicy) -> float:
        """The mean return of a policy that reads states and event number, without any sampling.

        Raises:
            ConfigError: the policy shows an item outside the pool, or slates that are not of k
                different items.
        """
        order = {tuple(slate): i for i, slate in enumerate(self.slates.tolist())}
        place = {int(item): i for i, item in enumerate(self.pool)}

        def chosen(t: int, _: Float64Array) -> npt.NDArray[np.intp]:
            slates = policy(t, self.states(t))
            rows = [tuple(sorted(place.get(int(item), -1) for item in slate)) for slate in slates]
            for slate, row in zip(slates, rows, strict=True):
                if row not in order:
                    raise ConfigError(
                        f"the policy shows {np.asarray(slate).tolist()}, {self.k} different items "
                        "of the pool are required"
                    )
            return np.array([order[row] for row in rows])

        return self._backward(chosen)

    def states(self, t: int) -> FloatArray:
        """The possible states before event t as a policy sees them, shape (n_states[t],
        state_dim)."""
        layer = self.layers[t]
        parts = [layer.taste] if self.world.bait is None else [layer.taste, layer.boredom[:, None]]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def users(self, t: int) -> TruePopulation:
        """Users in the possible states before event t, in the order of `states`; a policy that
        reads users' minds reads theirs."""
        return self._users(self.layers[t])

    def _users(self, layer: _Layer) -> TruePopulation:
        users = self.world.population(len(layer.taste))
        users.take(layer.taste, layer.boredom)
        if users.truth.chosen_before.shape[1]:
            users.truth.chosen_before[:, self.pool] = layer.chosen
        return users

    def _backward(self, choose: Callable[[int, Float64Array], npt.NDArray[np.intp]]) -> float:
        """Values of the states, from the last event to the first; `choose` gives each state's slate
        by the event and the slates' values, (n_states, n_slates)."""
        future = np.zeros(int(self.layers[-1].after.max()) + 1)
        for t in range(self.horizon - 1, -1, -1):
            layer = self.layers[t]
            values = np.zeros((len(layer.taste), len(self.slates)))
            later = future[layer.after]
            for number, places, probs, none, earned in self._shown(layer):
                values[:, number] = (probs * (earned + later[:, places])).sum(
                    axis=1
                ) + none * later[:, -1]
            future = values[np.arange(len(values)), choose(t, values)]
        return float(future[0])

    def _rewards(self, layer: _Layer) -> Float64Array:
        """Expected reward of each slate in each state, (n_states, n_slates)."""
        values = np.zeros((len(layer.taste), len(self.slates)))
        for number, _, probs, _, earned in self._shown(layer):
            values[:, number] = (probs * earned).sum(axis=1)
        return values

    def _shown(
        self, layer: _Layer
    ) -> Iterator[tuple[int, IntArray, FloatArray, FloatArray, FloatArray]]:
        """Of every slate: its number, its places in the pool, probabilities, of no click, and what
        each place earns."""
        users = self._users(layer)
        for number, places in enumerate(self.slates):
            slates = np.ascontiguousarray(np.broadcast_to(self.pool[places], (users.n, self.k)))
            utilities, probs, none = users.weigh(slates)
            yield (
                number,
                places,
                probs,
                none,
                np.ones_like(utilities) if self.reward == "click" else utilities,
            )

    def _walk(self) -> list[_Layer]:
        """Every layer's states and where each outcome leads."""
        w, n = self.world, len(self.pool)
        taste, boredom = np.zeros((1, w.latents.shape[1])), np.zeros(1)
        chosen = np.zeros((1, n if w.world.repeat != 0.0 else 0), bool)
        layers: list[_Layer] = []
        for _ in range(self.horizon):
            if len(taste) * (n + 1) > MOST_STATES:
                raise ConfigError(
                    f"{len(taste) * (n + 1):,} states after {len(layers) + 1} events are more than "
                    f"{MOST_STATES:,}: plan a shorter horizon, over a smaller pool, or in a world "
                    "with decay = 0 and repeat = 0"
                )
            nexts = self._outcomes(taste, boredom, chosen)
            flat = np.concatenate(
                [part.reshape(len(taste) * (n + 1), -1) for part in nexts], axis=1
            ).astype(np.float64)
            # + 0.0: a −0.0 is not another state
            _, first, where = np.unique(
                np.round(flat, _DECIMALS) + 0.0, axis=0, return_index=True, return_inverse=True
            )
            layers.append(
                _Layer(taste, boredom, chosen, where.reshape(len(taste), n + 1).astype(np.int32))
            )
            taste = nexts[0].reshape(len(flat), -1)[first]
            boredom = nexts[1].reshape(len(flat))[first]
            chosen = nexts[2].reshape(len(flat), chosen.shape[1])[first]
        return layers

    def _outcomes(
        self, taste: Float64Array, boredom: Float64Array, chosen: npt.NDArray[np.bool_]
    ) -> tuple[Float64Array, Float64Array, npt.NDArray[np.bool_]]:
        """States after each outcome: taste (m, pool + 1, dim), boredom (m, pool + 1), chosen (m,
        pool + 1, ·)."""
        w, n, decay = self.world, len(self.pool), float(self.world.world.decay)
        bait = w.law.bait
        moved = np.repeat(decay * taste[:, None], n + 1, axis=1)
        moved[:, :n] += (1.0 - decay) * w.latents[self.pool]
        step = np.append(np.where(w.is_bait[self.pool], 1.0, -bait.recovery), -bait.recovery)
        bored = np.clip(boredom[:, None] + step, 0.0, bait.most)
        marked = np.repeat(chosen[:, None], n + 1, axis=1)
        if chosen.shape[1]:
            marked[:, np.arange(n), np.arange(n)] = True
        return moved, bored, marked
