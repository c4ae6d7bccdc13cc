"""QNetwork: a value of (state, items already in the slate, one more item), by two towers.

Q = base(x) + ⟨U(x), V(f_a)⟩,    x = [state; features of the items before]
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.policies.config import PolicyConfig
from fastgaum.worlds.world import World

GATHERED = 1 << 22
"""units gathered at once for pools of users' own"""


class QNetwork(nn.Module):
    """One Q network for slates of `before` items and one more."""

    mean: Tensor
    scale: Tensor

    def __init__(self, world: World, state_dim: int, before: int, config: PolicyConfig) -> None:
        super().__init__()
        features = torch.from_numpy(np.asarray(world.item_features, np.float32))
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("scale", features.std(dim=0, unbiased=False).clamp_min(1e-6))
        n_read = state_dim + before * features.shape[1]
        self.user = _tower(n_read, config)
        self.item = _tower(features.shape[1], config)
        self.base = nn.Linear(n_read, 1)

    def read(self, states: Tensor, before: Tensor) -> Tensor:
        """x of states (n, state_dim) and features of the items before (n, j, n_features)."""
        return torch.cat([states, ((before - self.mean) / self.scale).flatten(1)], dim=1)

    def items(self, features: Tensor) -> Tensor:
        """V of features (m, n_features): shape (m, width)."""
        result: Tensor = self.item((features - self.mean) / self.scale)
        return result

    def forward(self, states: Tensor, before: Tensor, features: Tensor) -> Tensor:
        """Q of each row's state, items before (n, j, n_features) and item (n, n_features), shape
        (n,)."""
        x = self.read(states, before)
        values: Tensor = self.base(x)[:, 0] + (self.user(x) * self.items(features)).sum(dim=1)
        return values

    @torch.no_grad()
    def pool_values(
        self, states: FloatArray, before: FloatArray, features: FloatArray, pools: IntArray
    ) -> FloatArray:
        """Q of every item of the pools, (m,) or (n, m), shape (n, m), after items of features (n,
        j, n_features); `features` are those of all items."""
        x = self.read(torch.from_numpy(states), torch.from_numpy(before))
        users, base = self.user(x).numpy(), self.base(x).numpy()
        if pools.ndim == 1:
            return np.asarray(
                users @ self.items(torch.from_numpy(features[pools])).numpy().T + base
            )
        items = self.items(torch.from_numpy(features)).numpy()
        values = np.empty(pools.shape, np.float32)
        at_once = max(1, GATHERED // (pools.shape[1] * items.shape[1]))
        for first in range(0, len(pools), at_once):
            some = slice(first, first + at_once)
            values[some] = np.einsum("nmd,nd->nm", items[pools[some]], users[some])
        return np.asarray(values + base)


def _tower(n_in: int, config: PolicyConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in config.towers:
        layers += [nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, config.width))
