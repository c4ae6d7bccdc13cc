"""NetworksModel: the verbs of a user model of three networks; `models.user_model` fits them."""

from __future__ import annotations

from functools import partial

import torch

from fastgaum import ops
from fastgaum.arrays import FloatArray
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.sessions import EncodedSessions
from fastgaum.game.scoring import Outputs, ScoredSessions, score_batches
from fastgaum.models.choice_model import ChoiceModel, ScoreSessions
from fastgaum.nets.batches import Batch
from fastgaum.nets.examination import Place
from fastgaum.nets.networks import Head, Networks
from fastgaum.nets.regularisers import ChoiceDistribution, Regulariser

MANY = 1 << 20
"""candidates from which a split is scored by kernels"""


class NetworksModel(ChoiceModel):
    """A choice model of a history encoder, a reward model and a generator; attributes as of
    `UserModel`."""

    config: Config
    regulariser: Regulariser
    networks: Networks | None
    members: tuple[NetworksModel, ...] = ()
    _is_training = False
    """whether a fit is on its way, whose game holds the networks' numbers"""

    @torch.no_grad()
    def utility(self, batch: Batch) -> torch.Tensor:
        """Utilities of a batch's candidates, with what their places add, (n_candidates,); no click
        has utility 0."""
        with ops.plain():
            return self._networks().eval().utility(batch)[0]

    def examination(self, head: Head = "reward") -> FloatArray | None:
        """As of `ChoiceModel`; None also for the generator of exact players."""
        networks = self._networks()
        scorer = networks.player.reward if head == "reward" else networks.generator
        if scorer is None or scorer.examination is None:
            return None
        scale = self.config.eta if head == "reward" else 1.0
        by_place: FloatArray = (scale * scorer.examination.by_place.detach()).exp().cpu().numpy()
        return by_place

    @torch.no_grad()
    def choice_distribution(self, batch: Batch, head: Head = "reward") -> ChoiceDistribution:
        """A head's distribution over each display set: the reward's best response, or the
        generator's own."""
        networks = self._networks().eval()
        with ops.plain():
            utility, states = networks.utility(batch)
            logits = None if networks.generator is None else networks.logits(batch, states)
        if head == "reward" or logits is None:
            return self.regulariser.best_response(
                self.config.eta * utility, batch.display_offsets, self.no_click
            )
        return self.regulariser.link(logits, batch.display_offsets, self.no_click)

    def _scorer(self, n_candidates: int, at_place: Place = "own") -> ScoreSessions:
        networks, outputs = self._networks(), self._outputs(n_candidates)
        if at_place == "own":
            return partial(self._scored_by, outputs)
        return partial(
            self._scored_by, lambda batch: networks.moved_to(at_place, *outputs(batch), batch)
        )

    def _outputs(self, n_candidates: int) -> Outputs:
        """The networks: for many candidates in all on the CPU by kernels, else in torch alone."""
        networks = self._networks()
        if n_candidates >= MANY and not self._is_training:
            return networks.outputs

        def outputs(batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
            # kernels take a second to import: few candidates do without
            with ops.plain():
                return networks.outputs(batch)

        return outputs

    def _scored_by(self, outputs: Outputs, encoded: EncodedSessions) -> ScoredSessions:
        batches = self._batches(encoded)
        return score_batches(outputs, batches, self.regulariser, self.config.eta, self.no_click)

    def _networks(self) -> Networks:
        if self.networks is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        return self.networks
