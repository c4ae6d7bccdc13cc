"""DQN of single items, the paper's control GDQN: one Q(s, a), and the k items of the largest values
as a slate.

Each displayed item is a step of its own: it earned the reward if it was chosen, else nothing, and
what comes after is the best single item, y = r · [a was chosen] + γ max_a' Q(s', a'). What items do
to each other within a slate is not seen: that is what the cascade is compared with."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.policies.base import top_places
from fastgaum.policies.best_items import scores_of
from fastgaum.policies.learner import Learner
from fastgaum.policies.q_network import Scorer
from fastgaum.policies.replay_buffer import Steps
from fastgaum.worlds.world import FloatArray, IntArray, World


class Dqn(Learner):
    """One Q network of single items."""

    name: ClassVar[str] = "dqn"

    def made_networks(self, world: World) -> nn.ModuleList:
        """One Q with fresh weights."""
        return nn.ModuleList([Scorer(world, self.n_read, 0, self.config)])

    def best(self, states: FloatArray, pools: IntArray, networks: nn.ModuleList) -> IntArray:
        """Places of the k largest values, shape (n, k)."""
        return top_places(self._scores(states, pools, networks), self.k)

    def update_loss(self, steps: Steps) -> Tensor:
        """Mean squared error over all displayed items."""
        scores = self._scores(steps.next_states, self.next_pools(steps.pools), self.target)
        chosen = steps.places[:, None] == np.arange(self.k)
        rewards = np.where(chosen, steps.rewards[:, None], 0)
        future = self.config.gamma * (1 - steps.ended) * scores.max(axis=1)
        y = torch.from_numpy((rewards + future[:, None]).astype(np.float32)).flatten()
        states = torch.from_numpy(np.repeat(steps.states, self.k, axis=0))
        shown = torch.from_numpy(self.features[steps.slates.ravel()])
        loss: Tensor = ((y - self.networks[0](states, shown[:, None][:, :0], shown)) ** 2).mean()
        return loss

    def _scores(self, states: FloatArray, pools: IntArray, networks: nn.ModuleList) -> FloatArray:
        scorer = networks[0]
        assert isinstance(scorer, Scorer)
        return scores_of(scorer, states, self.features, pools)
