"""Scorer: a value of (state, items already in the slate, one more item), in two parts that meet
late.

    joint:  Q = base(x) + q · relu(U(x) + V(f_a))         q = ±1/√width, one half of the units each
    inner:  Q = base(x) + ⟨U(x), V(f_a)⟩                  two towers

With U and V linear, joint is q · σ(L [s; f_1; …; f_j] + c), the paper's network: its first layer is
a sum over what it reads, and relu lets the size of q's entries be part of L and c.

x = [state; features of the items before], f_a an item's features. U is computed once per user and V
once per item, so that what is left for each of users × items is one sum over `width` units
(`search`). base(x) does not depend on a."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.policies.config import PolicyConfig
from fastgaum.worlds.world import FloatArray, World


class Scorer(nn.Module):
    """One Q network for slates of `before` items and one more."""

    mean: Tensor
    scale: Tensor
    sign: Tensor

    def __init__(self, world: World, state_dim: int, before: int, config: PolicyConfig) -> None:
        """Take the world's item features, which are standardised, and the size of a state."""
        super().__init__()
        features = torch.from_numpy(np.asarray(world.item_features, np.float32))
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("scale", features.std(dim=0, unbiased=False).clamp_min(1e-6))
        n_read = state_dim + before * features.shape[1]
        self.joint = config.form == "joint"
        self.user = _tower(n_read, config)
        self.item = _tower(features.shape[1], config)
        self.base = nn.Linear(n_read, 1)
        half = torch.full((config.width // 2,), config.width**-0.5)
        self.register_buffer(
            "sign", torch.cat([half, -half]) if self.joint else torch.ones(config.width)
        )

    def read(self, states: Tensor, before: Tensor) -> Tensor:
        """x of states (n, state_dim) and features of the items before (n, j, n_features)."""
        return torch.cat([states, ((before - self.mean) / self.scale).flatten(1)], dim=1)

    def items(self, features: Tensor) -> Tensor:
        """V of features (m, n_features): shape (m, width)."""
        result: Tensor = self.item((features - self.mean) / self.scale)
        return result

    def values(self, x: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Q of pairs: x (n, n_read), their U and V, (n, width) or what broadcasts to it."""
        met = torch.relu(user + item) @ self.sign if self.joint else (user * item).sum(dim=-1)
        base: Tensor = self.base(x)
        return base[..., 0] + met

    def forward(self, states: Tensor, before: Tensor, features: Tensor) -> Tensor:
        """Q of each row's state, items before (n, j, n_features) and item (n, n_features), shape
        (n,)."""
        x = self.read(states, before)
        return self.values(x, self.user(x), self.items(features))

    @torch.no_grad()
    def user_parts(self, states: FloatArray, before: FloatArray) -> tuple[FloatArray, FloatArray]:
        """U (n, width) and base(x) (n,), as arrays for `search`."""
        x = self.read(torch.from_numpy(states), torch.from_numpy(before))
        return self.user(x).numpy(), self.base(x)[:, 0].numpy()

    @torch.no_grad()
    def item_parts(self, features: FloatArray) -> FloatArray:
        """V (m, width) of features (m, n_features), as an array for `search`."""
        return np.asarray(self.items(torch.from_numpy(features)).numpy())


def _tower(n_in: int, config: PolicyConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in config.towers:
        layers += [nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, config.width))
