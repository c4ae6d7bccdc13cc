"""SlateQ: Ie et al., "SlateQ: A Tractable Decomposition for Reinforcement Learning with
Recommendation Sets", IJCAI 2019.

A user chooses one item of a slate or none, so the slate's value is the mean of what each outcome is
worth:

    Q(s, A) = P(⊥ | s, A) Q̄(s, ⊥) + Σ_{a ∈ A} P(a | s, A) Q̄(s, a),    P(a | s, A) = w(s, a) /
    (w(⊥) + Σ_{b ∈ A} w(s, b))

Q̄(s, a) is fitted to r + γ max_A' Q(s', A') of the steps in which a was chosen, Q̄(s, ⊥) to that of
steps without a choice. The choice model w = exp(score), w(⊥) = 1 where no click is offered, is
fitted beside it by the likelihood of the choices. The best slate is built greedily, each place
taking the item that raises Q most, as in section 5.2 there: k scans of the pool."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.policies.q_learning import QLearner, Steps
from fastgaum.policies.q_network import QNetwork, q_values
from fastgaum.worlds.world import FloatArray, IntArray, World


class SlateQ(QLearner):
    """Long-term values of single choices, and a choice model."""

    name = "slateq"

    def made_networks(self, world: World) -> nn.ModuleList:
        """Q̄ of items, Q̄(⊥) of the state, the choice model's scores."""
        none = nn.Sequential(
            nn.Linear(self.n_read, self.config.width), nn.ReLU(), nn.Linear(self.config.width, 1)
        )
        return nn.ModuleList([self._network(world), none, self._network(world)])

    def best(self, states: FloatArray, pools: IntArray, networks: nn.ModuleList) -> IntArray:
        """Places of the slates, shape (n, k)."""
        return self._best(*self._parts(states, pools, networks))[0]

    def update_loss(self, steps: Steps) -> Tensor:
        """Squared error of the outcome's value, and the choice's negative log-likelihood."""
        parts = self._parts(steps.next_states, self.next_pools(steps.pools), self.target)
        y = self.discounted(steps, self._best(*parts)[1])
        value, none, choice = self.networks
        states, places = torch.from_numpy(steps.states), torch.from_numpy(steps.places).long()
        shown = torch.from_numpy(self.item_features[steps.slates])
        chosen = shown[torch.arange(len(places)), places.clamp_min(0)]
        nothing = shown[:, :0]
        predicted = torch.where(places >= 0, value(states, nothing, chosen), none(states)[:, 0])
        scores = torch.stack([choice(states, nothing, shown[:, j]) for j in range(self.k)], dim=1)
        return ((y - predicted) ** 2).mean() + self._nll(scores, places)

    def _nll(self, scores: Tensor, places: Tensor) -> Tensor:
        if self.outside:
            # no click is one more outcome, of score 0, in the last place: where index -1 points
            scores = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)
            places = torch.where(places >= 0, places, self.k)
        return nn.functional.cross_entropy(scores, places)

    def _network(self, world: World) -> QNetwork:
        return QNetwork(world, self.n_read, 0, self.config)

    @torch.no_grad()
    def _parts(
        self, states: FloatArray, pools: IntArray, networks: nn.ModuleList
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Weights w and values Q̄ of the pools' items, (n, m), and Q̄(⊥), (n,)."""
        value, none, choice = networks
        assert isinstance(value, QNetwork)
        assert isinstance(choice, QNetwork)
        scores = q_values(choice, states, self.item_features, pools)
        weights = np.exp(np.clip(scores, -30, 30))
        return (
            weights,
            q_values(value, states, self.item_features, pools),
            none(torch.from_numpy(states))[:, 0].numpy(),
        )

    def _best(
        self, weights: FloatArray, values: FloatArray, none: FloatArray
    ) -> tuple[IntArray, FloatArray]:
        """Places of the slates, (n, k), and their Q, (n,)."""
        n, rows = len(weights), np.arange(len(weights))
        total = np.full(n, float(self.outside))
        gain = none * total
        places = np.empty((n, self.k), np.int32)
        free = np.ones(weights.shape, bool)
        weighted = weights * values
        for j in range(self.k):
            with_item = (gain[:, None] + weighted) / (total[:, None] + weights)
            places[:, j] = np.where(free, with_item, -np.inf).argmax(axis=1)
            free[rows, places[:, j]] = False
            total = total + weights[rows, places[:, j]]
            gain = gain + weighted[rows, places[:, j]]
        return places, (gain / total).astype(np.float32)
