"""Deep Q-learning of slates: `CascadeDqn`, a network per place, and `Dqn`, one network of single
items.

Chen et al., "Generative Adversarial User Model for Reinforcement Learning Based Recommendation
System", ICML 2019, section 4: a slate chosen item by item, with a network per place.

    a_1* = arg max_a Q^1(s, a),  a_2* = arg max_a Q^2(s, a_1*, a),  …,  a_k* = arg max_a Q^k(s,
    a_1*, …, a_{k-1}*, a)

costs k scans of the pool instead of one over all slates. That is the best slate if the networks
satisfy

    Q^j(s, a_1 … a_j) = max_{a_{j+1} … a_k} Q^k(s, a_1 … a_k),

which the paper asks for softly: every Q^j is fitted to the one target y = r + γ Q^k(s', a'_1* …
a'_k*), the squared errors (y − Q^j(s, a_1 … a_j))² added up. Here a* in y is by the target
networks.

Dqn is the paper's control, GDQN: one Q(s, a), and the k items of the largest values as a slate.
Each displayed item is a step of its own: it earned the reward if it was chosen, else nothing. What
comes after it is the best single item, y = r · [a was chosen] + γ max_a' Q(s', a'). This network
does not see what items do to each other within a slate; that is what the cascade adds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.policies.base import Observation, items_at, top_places
from fastgaum.policies.q_learning import QLearner, Steps
from fastgaum.policies.q_network import (
    ItemParts,
    QNetwork,
    best_own_places,
    best_places,
    q_values,
)
from fastgaum.worlds.world import FloatArray, IntArray, World


class CascadeDqn(QLearner):
    """Q^1 … Q^k, arg-max item by item."""

    name = "cascade-dqn"

    _kept_of = -1
    _kept: dict[int, tuple[FloatArray, ItemParts]]
    _kept_pool: IntArray

    def made_networks(self, world: World) -> nn.ModuleList:
        """Q^1 … Q^k with fresh weights."""
        return nn.ModuleList(
            QNetwork(world, self.n_read, before, self.config) for before in range(self.k)
        )

    def n_layers(self) -> int:
        """A network per place."""
        return self.k * super().n_layers()

    def best_for(self, observation: Observation) -> IntArray:
        """Places of the best slates in the pools by the networks that act, shape (n, k)."""
        states = self.reading(observation.states, observation.left)
        return self.best(states, observation.pools, self.acting)

    def best(self, states: FloatArray, pools: IntArray, networks: nn.ModuleList) -> IntArray:
        """The cascade's places in the pools, shape (n, k)."""
        return self.best_with_values(states, pools, networks)[0]

    def best_with_values(
        self, states: FloatArray, pools: IntArray, networks: nn.ModuleList
    ) -> tuple[IntArray, FloatArray]:
        """The cascade's places, (n, k), and Q^k of them, (n,)."""
        n = len(states)
        places = np.full((n, self.k), -1, np.int32)
        before = np.empty((n, 0, self.item_features.shape[1]), np.float32)
        shared = pools.ndim == 1
        for j, network in enumerate(networks):
            assert isinstance(network, QNetwork)
            users, base = network.user_parts(states, before)
            if shared:
                items, laid_out = self._pool_parts(networks, j, pools)
                places[:, j] = best_places(users, laid_out, places[:, :j])
            else:
                items = network.item_parts(self.item_features)
                places[:, j] = best_own_places(users, items, pools, places[:, :j])
            chosen = items_at(pools, places[:, j : j + 1])
            if j == self.k - 1:
                met = items[places[:, j] if shared else chosen[:, 0]]
                values = base + (users * met).sum(axis=1)
            before = np.concatenate([before, self.item_features[chosen]], axis=1)
        return places, values

    def _pool_parts(
        self, networks: nn.ModuleList, j: int, pool: IntArray
    ) -> tuple[FloatArray, ItemParts]:
        """Q^j's parts of a shared pool's items; those of the acting networks are kept while weights
        and pool stay."""
        network = networks[j]
        assert isinstance(network, QNetwork)
        if networks is not self.target or self.learning:
            items = network.item_parts(self.item_features[pool])
            return items, ItemParts(items)
        if self._kept_of != self.n_updates or not np.array_equal(pool, self._kept_pool):
            self._kept, self._kept_of, self._kept_pool = {}, self.n_updates, pool.copy()
        if j not in self._kept:
            items = network.item_parts(self.item_features[pool])
            self._kept[j] = items, ItemParts(items)
        return self._kept[j]

    def weights_changed(self) -> None:
        """Forget what was kept of other weights."""
        self._kept_of = -1

    def update_loss(self, steps: Steps) -> Tensor:
        """The sum over j of the mean squared error of Q^j to the shared target."""
        _, next_values = self.best_with_values(
            steps.next_states, self.next_pools(steps.pools), self.target
        )
        y = self.discounted(steps, next_values)
        states, shown = (
            torch.from_numpy(steps.states),
            torch.from_numpy(self.item_features[steps.slates]),
        )
        losses = [
            ((y - q(states, shown[:, :j], shown[:, j])) ** 2).mean()
            for j, q in enumerate(self.networks)
        ]
        return torch.stack(losses).sum()


class Dqn(QLearner):
    """One Q network of single items."""

    name = "dqn"

    def made_networks(self, world: World) -> nn.ModuleList:
        """One Q with fresh weights."""
        return nn.ModuleList([QNetwork(world, self.n_read, 0, self.config)])

    def best_for(self, observation: Observation) -> IntArray:
        """Places of the best slates in the pools by the networks that act, shape (n, k)."""
        states = self.reading(observation.states, observation.left)
        return self.best(states, observation.pools, self.acting)

    def best(self, states: FloatArray, pools: IntArray, networks: nn.ModuleList) -> IntArray:
        """Places of the k largest values, shape (n, k)."""
        return top_places(self._scores(states, pools, networks), self.k)

    def update_loss(self, steps: Steps) -> Tensor:
        """Mean squared error over all displayed items."""
        scores = self._scores(steps.next_states, self.next_pools(steps.pools), self.target)
        chosen = steps.places[:, None] == np.arange(self.k)
        rewards = np.where(chosen, steps.rewards[:, None], 0)
        future = self.gamma * (1 - steps.ended) * scores.max(axis=1)
        y = torch.from_numpy((rewards + future[:, None]).astype(np.float32)).flatten()
        states = torch.from_numpy(np.repeat(steps.states, self.k, axis=0))
        shown = torch.from_numpy(self.item_features[steps.slates.ravel()])
        loss: Tensor = ((y - self.networks[0](states, shown[:, None][:, :0], shown)) ** 2).mean()
        return loss

    def _scores(self, states: FloatArray, pools: IntArray, networks: nn.ModuleList) -> FloatArray:
        network = networks[0]
        assert isinstance(network, QNetwork)
        return q_values(network, states, self.item_features, pools)
