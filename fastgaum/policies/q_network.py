"""QNetwork: a value of (state, items already in the slate, one more item), by two towers.

    Q = base(x) + ⟨U(x), V(f_a)⟩

x = [state; features of the items before], f_a an item's features. U is computed once per user and V
once per item, so that what is left for each of users × items is one product of `width` units.
base(x) does not depend on a. The paper's network, one hidden layer over all it reads, earned less
(design log, Cascading DQN).

`best_places` finds each user's best item of a pool. A shared pool is scanned by a kernel that keeps
a block of items in the first cache while all users pass it; a pool of each user's own is
gathered."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum import threads
from fastgaum.kernels import ranking as kernels
from fastgaum.policies.config import PolicyConfig
from fastgaum.worlds.world import FloatArray, IntArray, World

USERS = 64
"""users of a part that one thread scans a pool for: the product with 256 items of 32 columns is
then small"""
GATHERED = 1 << 22
"""units gathered at once for pools of users' own"""


class QNetwork(nn.Module):
    """One Q network for slates of `before` items and one more."""

    mean: Tensor
    scale: Tensor

    def __init__(self, world: World, state_dim: int, before: int, config: PolicyConfig) -> None:
        """Take the world's item features, which are standardised, and the size of a state."""
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

    def values(self, x: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Q of pairs: x (n, n_read), their U and V, (n, width) or what broadcasts to it."""
        base: Tensor = self.base(x)
        return base[..., 0] + (user * item).sum(dim=-1)

    def forward(self, states: Tensor, before: Tensor, features: Tensor) -> Tensor:
        """Q of each row's state, items before (n, j, n_features) and item (n, n_features), shape
        (n,)."""
        x = self.read(states, before)
        return self.values(x, self.user(x), self.items(features))

    @torch.no_grad()
    def user_parts(self, states: FloatArray, before: FloatArray) -> tuple[FloatArray, FloatArray]:
        """U (n, width) and base(x) (n,), as arrays."""
        x = self.read(torch.from_numpy(states), torch.from_numpy(before))
        return self.user(x).numpy(), self.base(x)[:, 0].numpy()

    @torch.no_grad()
    def item_parts(self, features: FloatArray) -> FloatArray:
        """V (m, width) of features (m, n_features), as an array."""
        return np.asarray(self.items(torch.from_numpy(features)).numpy())


def _tower(n_in: int, config: PolicyConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in config.towers:
        layers += [nn.Linear(n_in, width), nn.ReLU()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, config.width))


class ItemParts:
    """V of a pool by one network, laid out for the kernel; made once as long as weights and pool
    stay."""

    def __init__(self, parts: FloatArray) -> None:
        """Take V, shape (m, width)."""
        self.n, width = parts.shape
        n_blocks = -(-self.n // kernels.BLOCK)
        rows = np.zeros((n_blocks * kernels.BLOCK, width), np.float32)
        rows[: self.n] = parts
        self.blocks = np.ascontiguousarray(
            rows.reshape(n_blocks, kernels.BLOCK, -1).transpose(0, 2, 1)
        )


def best_places(users: FloatArray, items: ItemParts, taken: IntArray) -> IntArray:
    """The place in a shared pool of each user's best item that is not taken; ties to the first
    place.

    users (n, width); taken (n, j) places, -1 for none. Returns (n,) int32. Threads share the users;
    the result does not depend on how many there are."""
    users, n = np.ascontiguousarray(users, np.float32), len(users)
    best = kernels.Best(np.empty(n, np.int32), np.empty(n, np.int32))
    fixed = users, items.blocks, items.n, np.ascontiguousarray(taken, np.int32), best
    cuts = [(first, min(first + USERS, n)) for first in range(0, n, USERS)]
    threads.run(kernels.best_items, [(*cut, *fixed) for cut in cuts])
    return best.places


def best_own_places(
    users: FloatArray, items: FloatArray, pools: IntArray, taken: IntArray
) -> IntArray:
    """The same for a pool of each user's own, pools (n, m) rows of items (n_items, width)."""
    n, m = pools.shape
    best = np.empty(n, np.int32)
    at_once = max(1, GATHERED // (m * items.shape[1]))
    for first in range(0, n, at_once):
        some = slice(first, min(first + at_once, n))
        scores = own_scores(users[some], items, pools[some])
        rows = np.arange(len(scores))
        for t in range(taken.shape[1]):
            held = taken[some, t]
            scores[rows[held >= 0], held[held >= 0]] = -np.inf
        best[some] = scores.argmax(axis=1)
    return best


def own_scores(users: FloatArray, items: FloatArray, pools: IntArray) -> FloatArray:
    """What items add to base, of pools (n, m) of each user's own, shape (n, m)."""
    return np.asarray(np.einsum("nmd,nd->nm", items[pools], users))


def q_values(
    network: QNetwork, states: FloatArray, features: FloatArray, pools: IntArray
) -> FloatArray:
    """Q of every item of the pools, (m,) or (n, m), for a network of one item; shape (n, m)."""
    none = np.empty((len(states), 0, features.shape[1]), np.float32)
    (users, base), items = network.user_parts(states, none), network.item_parts(features)
    result = np.empty((len(states), pools.shape[-1]), np.float32)
    at_once = max(1, GATHERED // (pools.shape[-1] * items.shape[1]))
    for first in range(0, len(states), at_once):
        some = slice(first, first + at_once)
        if pools.ndim == 2:
            result[some] = own_scores(users[some], items, pools[some])
        else:
            result[some] = users[some] @ items[pools].T
    return result + base[:, None]
