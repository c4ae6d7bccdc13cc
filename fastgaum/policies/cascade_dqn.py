"""CascadeDqn: deep Q-learning of slates, a network per place.

Chen et al., "Generative Adversarial User Model for Reinforcement Learning Based Recommendation
System", ICML 2019, section 4: a slate chosen item by item, with a network per place.

    a_1* = arg max_a Q^1(s, a),  a_2* = arg max_a Q^2(s, a_1*, a),  …,  a_k* = arg max_a Q^k(s,
    a_1*, …, a_{k-1}*, a)

costs k scans of the pool instead of one over all slates. That is the best slate if the networks
satisfy

    Q^j(s, a_1 … a_j) = max_{a_{j+1} … a_k} Q^k(s, a_1 … a_k),

which the paper asks for softly: every Q^j is fitted to the one target y = r + γ Q^k(s', a'_1* …
a'_k*), the squared errors (y − Q^j(s, a_1 … a_j))² added up. Here a* in y is by the target
networks."""

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

    def make_networks(self, world: World) -> nn.ModuleList:
        """Q^1 … Q^k with fresh weights."""
        return nn.ModuleList(
            QNetwork(world, self.n_read, before, self.config) for before in range(self.k)
        )

    def n_layers(self) -> int:
        """A network per place."""
        return self.k * super().n_layers()

    def best_for(self, observation: Observation) -> IntArray:
        """Places of the best slates in the pools by the networks that act, shape (n, k)."""
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
