"""SlateQ: Ie et al., "SlateQ: A Tractable Decomposition for Reinforcement Learning with
Recommendation Sets", IJCAI 2019.

The slate's value is the mean of the values of its outcomes:

    Q(s, A) = P(⊥ | s, A) Q̄(s, ⊥) + Σ_{a ∈ A} P(a | s, A) Q̄(s, a),    P(a | s, A) = w(s, a) /
    (w(⊥) + Σ_{b ∈ A} w(s, b))

Q̄(s, a) is fitted to r + γ Q(s', A') of the steps in which a was chosen, Q̄(s, ⊥) to that of steps
without a choice; A' is the best slate by the networks that acted then. The users are known: w(s, a)
= exp(c · u(s, a)), w(⊥) = 1 where no click is offered; c is fitted by the likelihood of the
choices.

Where a slate is paid its surplus, which is no item's, Q(s, A) = surplus + that mean, and Q̄ is
fitted to γ Q(s', A') alone, with what the pay has beside the surplus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError
from fastgaum.policies.base import Observation, Transition, items_at, top_places
from fastgaum.policies.q_learning import QLearner, Steps
from fastgaum.policies.q_network import QNetwork
from fastgaum.worlds.world import Past, Population, World


@dataclass(frozen=True)
class SlateSteps(Steps):
    """Steps with what the users' minds were."""

    utilities: FloatArray
    """of the items shown, shape (n, k)"""
    next_slates: IntArray
    """the best slates of the next step, shape (n, k)"""
    next_utilities: FloatArray
    """of their items then, shape (n, k)"""
    paid: FloatArray
    """what the slates were paid as wholes, 0 where it is their choices that are paid, (n,)"""
    next_zero: FloatArray
    """what the pay of the next slates is less by, (n,)"""


class SlateQ(QLearner):
    """Long-term values of single choices; how users choose is known."""

    name = "slateq"
    # targets of single choices hardly vary, so they can be those of the return itself
    undiscounted = True

    _users: Population | None = None
    """who was shown the last slates"""
    _shown: FloatArray
    """utilities of these slates' items then"""
    _paid: FloatArray
    """what they are paid as wholes"""
    _known: FloatArray | None = None
    """utilities of the present pools, if known"""

    def make_networks(self, world: World) -> nn.ModuleList:
        """Q̄ of items, Q̄(⊥) of the state, and the scales of utilities in choices and in Q̄."""
        none = nn.Sequential(
            nn.Linear(self.n_read, self.config.width), nn.ReLU(), nn.Linear(self.config.width, 1)
        )
        scales = nn.ParameterList([nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))])
        return nn.ModuleList([QNetwork(world, self.n_read, 0, self.config), none, scales])

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        """As the base says."""
        self._users = self._known = None

    def best_for(self, observation: Observation) -> IntArray:
        """As the base says, by the users' utilities."""
        if self._known is None:
            self._known = observation.users.utilities(observation.pools, self.k)
        states = self.read_states(observation.states, observation.left)
        return self._best(states, observation.pools, self._known)

    def _best(self, states: FloatArray, pools: IntArray, known: FloatArray) -> IntArray:
        """Places of the best slates in pools of these utilities, by the networks that act."""
        parts = self._parts(states, pools, known, self.acting)
        if self.pays_surplus:
            return best_paid_slates(*parts, np.exp(np.clip(known, -30, 30)), self.k)
        return best_slates(*parts, self.k)[0]

    def _zero(self, known: FloatArray) -> FloatArray:
        """What a surplus is less by: the mean of a pool's utilities where users always choose."""
        if self.no_click or not self.pays_surplus:
            return np.zeros(len(known), np.float32)
        return np.asarray(known.mean(axis=1, dtype=np.float64), np.float32)

    def _surplus(self, utilities: FloatArray) -> FloatArray:
        """The surplus of slates of these utilities, (n, k), or 0; shape (n,)."""
        if not self.pays_surplus:
            return np.zeros(len(utilities), np.float32)
        gains = np.exp(np.clip(utilities, -30, 30))
        return np.asarray(np.log(gains.sum(axis=1) + self.no_click), np.float32)

    def choose_places(self, observation: Observation) -> IntArray:
        """As the base says; utilities of them are kept for `observe`."""
        places = super().choose_places(observation)
        assert self._known is not None
        self._shown = np.take_along_axis(self._known, places, axis=1)
        self._paid = self._surplus(self._shown) - self._zero(self._known)
        self._users, self._known = observation.users, None
        return places

    def steps_of(self, transition: Transition) -> SlateSteps:
        """As the base says. Raises ConfigError unless it chose the slates."""
        if self._users is None:
            raise ConfigError(f"{self.name} learns from slates that it chose: call act first")
        steps = super().steps_of(transition)
        pools = self.pool.draw(transition.next_pools, self.n_items)
        self._known = self._users.utilities(pools, self.k)
        places = self._best(steps.next_states, pools, self._known)
        return SlateSteps(
            **vars(steps),
            utilities=self._shown,
            next_slates=items_at(pools, places),
            next_utilities=np.take_along_axis(self._known, places, axis=1),
            paid=self._paid,
            next_zero=self._zero(self._known),
        )

    def update_loss(self, steps: Steps) -> Tensor:
        """Squared error of the outcome's value, and the choice's negative log-likelihood."""
        assert isinstance(steps, SlateSteps)
        parts = self._parts(steps.next_states, steps.next_slates, steps.next_utilities, self.target)
        next_paid = self._surplus(steps.next_utilities) - steps.next_zero
        y = self.discounted(steps, slate_values(*parts) + next_paid)
        y = y - torch.from_numpy(steps.paid)
        value, none, scales = self.networks
        assert isinstance(scales, nn.ParameterList)
        states, places = torch.from_numpy(steps.states), torch.from_numpy(steps.places).long()
        utilities = torch.from_numpy(steps.utilities)
        rows, place = torch.arange(len(places), device="cpu"), places.clamp_min(0)
        chosen = torch.from_numpy(self.item_features[steps.slates])[rows, place]
        worth = value(states, chosen[:, None][:, :0], chosen) + scales[1] * utilities[rows, place]
        predicted = torch.where(places >= 0, worth, none(states)[:, 0])
        scores = scales[0] * utilities
        if self.no_click:
            # no click is one more outcome, of score 0, in the last place
            scores = nn.functional.pad(scores, (0, 1))
            places = torch.where(places >= 0, places, self.k)
        return ((y - predicted) ** 2).mean() + nn.functional.cross_entropy(scores, places)

    @torch.no_grad()
    def _parts(
        self, states: FloatArray, pools: IntArray, utilities: FloatArray, networks: nn.ModuleList
    ) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """Weights w and values Q̄ of the pools' items, (n, m), Q̄(⊥), (n,), and w(⊥)."""
        value, none, scales = networks
        assert isinstance(value, QNetwork)
        assert isinstance(scales, nn.ParameterList)
        weights = np.exp(np.clip(float(scales[0]) * utilities, -30, 30))
        before = np.empty((len(states), 0, self.item_features.shape[1]), np.float32)
        values = value.pool_values(states, before, self.item_features, pools)
        return (
            weights,
            values + float(scales[1]) * utilities,
            none(torch.from_numpy(states))[:, 0].numpy(),
            float(self.no_click),
        )


def slate_values(
    weights: FloatArray, values: FloatArray, none: FloatArray, no_click: float
) -> FloatArray:
    """(Σ w Q̄ + w(⊥) Q̄(⊥)) / (Σ w + w(⊥)) of slates, whose items' weights and values are (n, k);
    shape (n,)."""
    gain = (weights * values).sum(axis=1) + no_click * none
    return np.asarray(gain / (weights.sum(axis=1) + no_click), np.float32)


def best_slates(
    weights: FloatArray, values: FloatArray, none: FloatArray, no_click: float, k: int
) -> tuple[IntArray, FloatArray]:
    """Places of the slates of k items of the largest Q, (n, k), and their Q, (n,).

    A slate is worth more than z if Σ w (Q̄ − z) + w(⊥) (Q̄(⊥) − z) > 0: each step takes the k
    largest w (Q̄ − z) for the z of the last slate, until none is worth more (Dinkelbach 1967)."""
    places = top_places(weights, k)
    worth = _slates_worth(weights, values, none, no_click, places)
    rows = np.arange(len(weights))
    while len(rows):
        own = weights[rows], values[rows]
        found = top_places(own[0] * (own[1] - worth[rows, None]), k)
        value = _slates_worth(*own, none[rows], no_click, found)
        better = value > worth[rows]
        rows = rows[better]
        places[rows], worth[rows] = found[better], value[better]
    return places, worth


SWEEPS = 10
"""over the places of a slate that is paid its surplus; most need two or three"""


def best_paid_slates(
    weights: FloatArray,
    values: FloatArray,
    none: FloatArray,
    no_click: float,
    gains: FloatArray,
    k: int,
) -> IntArray:
    """Places of slates of k items, (n, k), of a large surplus log(Σ exp u + w(⊥)) + Q, by gains exp
    u of the items, (n, m): place by place the best item beside the others, until none is better."""
    places = top_places(gains, k)
    rows = np.arange(len(gains))[:, None]
    later = weights * values
    for _ in range(SWEEPS):
        before = places.copy()
        for place in range(k):
            others = np.delete(places, place, axis=1)
            held = [
                np.take_along_axis(one, others, axis=1).sum(axis=1, keepdims=True)
                for one in (gains, weights, later)
            ]
            ratio = (held[2] + later + no_click * none[:, None]) / (held[1] + weights + no_click)
            worth = np.log(held[0] + gains + no_click) + ratio
            worth[rows, others] = -np.inf
            places[:, place] = worth.argmax(axis=1)
        if (places == before).all():
            break
    return places


def _slates_worth(
    weights: FloatArray, values: FloatArray, none: FloatArray, no_click: float, places: IntArray
) -> FloatArray:
    return slate_values(
        np.take_along_axis(weights, places, axis=1),
        np.take_along_axis(values, places, axis=1),
        none,
        no_click,
    )
