"""A fitted model's networks, fixed, as worlds and online users read them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from typing import Protocol

import numpy as np
import torch
from torch import nn

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.fields import ids_of_places
from fastgaum.features.item_vectors import VectorsOfRows
from fastgaum.features.space import FeatureSpace
from fastgaum.kernels.choice import choice_probs
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import HistoryEncoder, Recurrent
from fastgaum.nets.networks import Head, Networks
from fastgaum.nets.regularisers import Regulariser, Shannon
from fastgaum.ops.history import HistorySteps
from fastgaum.ops.scorer import ScorerKernels

VECTORS_AT_ONCE = 65_536


class FittedModel(Protocol):
    """What users read of a fitted model."""

    @property
    def networks(self) -> Networks | None:
        """History encoder, generator and reward model; None before a fit."""

    @property
    def space(self) -> FeatureSpace | None:
        """What the networks read of a candidate; None before a fit."""

    @property
    def config(self) -> Config:
        """Keys of the fit."""

    @property
    def regulariser(self) -> Regulariser:
        """Of the game."""

    @property
    def no_click(self) -> bool:
        """Whether no click is a choice."""

    @property
    def members(self) -> Sequence[FittedModel]:
        """Further fits, whose choice probabilities are averaged with these."""


class FixedNetworks:
    """A copy of a fitted model's networks; changing the model afterwards changes nothing here.

    Attributes:
        head: whose distribution users choose by.
        reward: the reward model, `chooser` the scorer of the head.
        items: vector of each id, then of each item that has one; empty where no context has ids.
    """

    def __init__(self, model: FittedModel, head: Head | None) -> None:
        """head: "reward" for the reward's best response, "generator", or None: the generator where
        there is one.

        Raises:
            ConfigError: the model is not fitted, or lacks the head.
        """
        networks, space = model.networks, model.space
        if networks is None or space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        if head is None:
            head = "generator" if networks.generator is not None else "reward"
        if head not in ("generator", "reward"):
            raise ConfigError(f"head must be reward or generator, got {head!r}")
        if head == "generator" and networks.generator is None:
            raise ConfigError(
                "the model has no generator (players = exact): use head='reward', whose best "
                "response it is"
            )
        self.space, self.head, self.no_click = space, head, model.no_click
        self.regulariser = model.regulariser
        self.eta = float(model.config.eta) if head == "reward" else 1.0
        self.small_eta = np.float32(self.eta)
        self.source = networks
        self.history_dim = networks.player.history.state_dim
        self.state_dim = networks.player.state_dim
        self._plain = deepcopy(networks).cpu().float().eval()
        self.reads_vectors, self.n_vectors = False, 0
        self._read(self._plain)
        self.n_ids, self.n_numbers = space.n_ids, space.n_numbers
        self.n_outcomes = space.n_outcomes
        self.fields_of_items = [
            at for at, part in enumerate(space.context) if part.source == "context_item"
        ]
        self.context_starts = np.array([part.start + 1 for part in space.context], np.int32)
        self.place_columns, self.ids_of_places = ids_of_places(space.categorical, space.grid)

    def with_vectors(self, vectors: VectorsOfRows, n_vectors: int) -> FixedNetworks:
        """The networks with the standardised vectors of n_vectors items, whose rows stand in the
        items' tables behind those of the ids."""
        other, networks = copy(self), deepcopy(self._plain)
        scorers = [networks.player, networks.generator]
        for layer in (one.items for one in scorers if one is not None):
            if layer is not None:
                _append_vectors(layer, vectors, n_vectors)
        other.reads_vectors, other.n_vectors = True, n_vectors
        other._read(networks)
        return other

    def _read(self, networks: Networks) -> None:
        player, generator = networks.player, networks.generator
        self.reward = self.chooser = ScorerKernels(player.reward)
        if self.head == "generator" and generator is not None:
            self.chooser = ScorerKernels(generator)
        self.reward.bind()
        self.chooser.bind()
        encoder = player.history
        self.history: HistorySteps | HistoryEncoder = encoder
        self.history_reads_vectors = False
        if isinstance(encoder, Recurrent) and (of := encoder.kernels()) is not None:
            self.history = HistorySteps(of)
            self.history_reads_vectors = self.reads_vectors and of.up is not None
        self.items: FloatArray = np.zeros((0, 0), np.float32)
        if self.space.context:
            assert player.items is not None
            self.items = player.items.table.detach().numpy()

    def distribution(self, scores: FloatArray, offsets: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of each candidate, and of no click in each event, by the head's scores."""
        filled, rule, n = offsets[1:] > offsets[:-1], self.regulariser, len(offsets) - 1
        if all_filled := bool(filled.all()):
            none: FloatArray = np.zeros(n, np.float32)
        else:
            offsets = np.append(offsets[:-1][filled], offsets[-1])
            none, n = np.ones(n, np.float32), len(offsets) - 1
        if type(rule) is Shannon:
            probs, totals = np.empty_like(scores), np.empty(n, np.float32)
            choice_probs(scores, self.small_eta, offsets, self.no_click, probs, totals)
            if all_filled and self.no_click:
                return probs, np.exp(-totals)
            none[filled] = np.exp(-totals) if self.no_click else 0
            return probs, none
        if n:
            values, starts = torch.from_numpy(self.eta * scores), torch.from_numpy(offsets)
            # a regulariser of the user's own says by itself what a generator's logits mean
            play = rule.link if self.head == "generator" else rule.best_response
            dist = play(values, starts, self.no_click)
            none[filled] = dist.no_click_prob.numpy()
            scores = dist.probs.numpy()
        return scores, none


def _append_vectors(layer: BagLinear, vectors: VectorsOfRows, n: int) -> None:
    """Put the rows of n items' vectors behind the rows of a table."""
    table, projection = layer.table.detach(), layer.projection
    assert projection is not None
    rows = table.new_empty(len(table) + n, table.shape[1])
    rows[: len(table)] = table
    for start in range(0, n, VECTORS_AT_ONCE):
        stop = min(start + VECTORS_AT_ONCE, n)
        part = torch.from_numpy(vectors(slice(start, stop)))
        rows[len(table) + start : len(table) + stop] = part @ projection.detach()
    layer.table, layer.projection = nn.Parameter(rows), None
