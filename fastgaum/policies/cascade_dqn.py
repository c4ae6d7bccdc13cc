"""CascadeDqn: deep Q-learning of slates chosen item by item, a network per place (Chen et al.,
"Generative Adversarial User Model for Reinforcement Learning Based Recommendation System", ICML
2019, section 4).

    a_1* = arg max_a Q^1(s, a),  a_2* = arg max_a Q^2(s, a_1*, a),  …

Every Q^j is fitted to y = r + γ Q^k(s', a'_1* … a'_k*), with a* by the target networks; the squared
errors (y − Q^j(s, a_1 … a_j))² are added up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.policies.base import Observation, items_at
from fastgaum.policies.q_learning import QLearner, Steps
from fastgaum.policies.q_network import QNetwork
from fastgaum.worlds.world import World


class CascadeDqn(QLearner):
    """Q^1 … Q^k, arg-max item by item."""

    name = "cascade-dqn"
    per_place = True

    def make_networks(self, world: World) -> nn.ModuleList:
        """As the base says."""
        return nn.ModuleList(
            QNetwork(world, self.n_read, before, self.config) for before in range(self.k)
        )

    def best_for(self, observation: Observation) -> IntArray:
        """As the base says."""
        states = self.read_states(observation.states, observation.left)
        return self.best_slates(states, observation.pools, self.acting)[0]

    def best_slates(
        self, states: FloatArray, pools: IntArray, networks: nn.ModuleList
    ) -> tuple[IntArray, FloatArray]:
        """The cascade's places in the pools, (n, k), ties to the first, and Q^k of them, (n,)."""
        n = len(states)
        rows, places = np.arange(n), np.empty((n, self.k), np.int32)
        before = np.empty((n, 0, self.item_features.shape[1]), np.float32)
        for j, network in enumerate(networks):
            assert isinstance(network, QNetwork)
            values = network.pool_values(states, before, self.item_features, pools)
            values[rows[:, None], places[:, :j]] = -np.inf
            places[:, j] = values.argmax(axis=1)
            chosen = items_at(pools, places[:, j : j + 1])
            before = np.concatenate([before, self.item_features[chosen]], axis=1)
        return places, values[rows, places[:, -1]]

    def update_loss(self, steps: Steps) -> Tensor:
        """The sum over j of the mean squared error of Q^j to the shared target."""
        pools = self.pool.draw(steps.pools, self.n_items)
        _, next_values = self.best_slates(steps.next_states, pools, self.target)
        y = self.discounted(steps, next_values)
        states = torch.from_numpy(steps.states)
        shown = torch.from_numpy(self.item_features[steps.slates])
        losses = [
            ((y - q(states, shown[:, :j], shown[:, j])) ** 2).mean()
            for j, q in enumerate(self.networks)
        ]
        return torch.stack(losses).sum()
