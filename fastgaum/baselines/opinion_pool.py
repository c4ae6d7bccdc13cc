"""OpinionPool: unlike models as one, weighted by how they do on users whom they have not seen.

    q(a) ∝ Π_m p_m(a)^w_m                  over the display set, and no click where it is offered
    p(a) = (1 − ε) q(a) + ε q(click) / n   of n candidates; p(no click) = q(no click)

q is the log-opinion pool of Genest and Zidek, "Combining probability distributions", Statistical
Science 1986. Its weights are at least 0 and need not sum to 1: their sum is a temperature. The
lapse ε (Wichmann and Hill, "The psychometric function", 2001) keeps a few choices that no member
explains from making the weights small. Both minimise the NLL on folds of the training users
(Wolpert, "Stacked generalization", 1992), and of one lapse more, so that ε is above 0: each member
is fitted without a fold's users, and says how likely their choices are. Then it is fitted once
more, on the whole training split. On a small log the fits without a fold's users are kept: they
have half of a member's weight between them (a bag: Breiman, "Bagging predictors", 1996)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fastgaum.baselines.member_fits import (
    MOST_LAPSE,
    MemberFits,
    Stage,
    folds_of,
    opinion_of,
    pooled_opinion,
)
from fastgaum.baselines.members import check_member, make_member, member_of, name_of
from fastgaum.baselines.pool_settings import MEMBERS, POOL, PoolSettings, check_members
from fastgaum.checkpoint import State, damage_named
from fastgaum.config import Protocol
from fastgaum.errors import ConfigError, NumericsError, as_given
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import EncodedSessions
from fastgaum.game.scoring import SCORING_SESSIONS, HeadScores, ScoredSessions
from fastgaum.logs.log import IntArray, SessionLog, SplitName
from fastgaum.logs.shards import AnyLog, require_log
from fastgaum.logs.trained_users import TrainedUsers
from fastgaum.machine import device_of
from fastgaum.models.choice_model import ChoiceModel, Head
from fastgaum.models.splits import require_validation
from fastgaum.nets.regularisers import ChoiceDistribution, Shannon
from fastgaum.nets.tensors import Bags, BatchTensors


@dataclass(frozen=True)
class PoolSessions(EncodedSessions):
    """Sessions as each fitted model reads them; the arrays that all share are the first's."""

    of_models: tuple[EncodedSessions, ...] = ()

    def without_bags(self) -> EncodedSessions:
        """The same sessions without ids and numbers of any model."""
        return dataclasses.replace(self.of_models[0], users=self.users).without_bags()


@dataclass(frozen=True)
class PoolBatch(BatchTensors):
    """A batch as each fitted model reads it; the tensors that all share are the first's."""

    of_models: tuple[BatchTensors, ...] = ()


@dataclass(frozen=True)
class PoolEncoder:
    """The fitted models' encoders of one log."""

    encoders: tuple[Encoder, ...]

    def on(self, part: SessionLog) -> PoolEncoder:
        """The encoders of a part of the log."""
        return PoolEncoder(tuple(encoder.on(part) for encoder in self.encoders))

    def encode(self, rows: IntArray) -> PoolSessions:
        """The sessions `rows` as each fitted model reads them."""
        encoded = tuple(encoder.encode(rows) for encoder in self.encoders)
        return PoolSessions(**_fields(encoded[0]), of_models=encoded)


class OpinionPool(ChoiceModel):
    """Unlike user models as one: `OpinionPool(["fastgaum", "logit", UserModel(config)])`.

    A member that cannot be fitted (a library is missing, its networks do not fit the memory, its
    loss is not finite) is left out.

    Attributes:
        weights: the weight of each member that was fitted, by name.
        lapse: share of the clicks that the pool takes to go to any candidate alike.
        left_out: the members that were not fitted, with the reason, by name.
        models: the fitted members of weight above 0, by name.
        fold_models: the same members fitted without each fold's users, by name; none on a large
            log.
    """

    name: ClassVar[str] = POOL

    def __init__(
        self,
        members: Sequence[ChoiceModel | str] = MEMBERS,
        *,
        protocol: Protocol = "bags",
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        """Take models, and names of models; `protocol`, `seed` and `device` are for those named.

        Raises:
            ConfigError: no member, a pool among them, an unknown name, an impossible value, or the
                device is not available.
        """
        device_of(device)
        several = isinstance(members, Sequence) and not isinstance(members, str)
        if not several or not all(isinstance(one, ChoiceModel | str) for one in members):
            raise ConfigError(
                f"members is {as_given(members)}, a list of models and of their names is required"
            )
        names = [one if isinstance(one, str) else name_of(one) for one in members]
        check_members(names, check_member)
        self._settings = PoolSettings(tuple(names), protocol, seed)
        self.asked = {
            name if name not in names[:i] else f"{name} {i + 1}": one
            for i, (name, one) in enumerate(zip(names, members, strict=True))
        }
        self.asked_device = device
        self.models: dict[str, ChoiceModel] = {}
        self.fold_models: dict[str, list[ChoiceModel]] = {}
        self.weights: dict[str, float] = {}
        self.lapse = 0.0
        self.left_out: dict[str, str] = {}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], device: str = "auto") -> Self:
        """The pool of some settings, which are those of `PoolSettings`.

        Raises:
            ConfigError: an unknown setting, or an impossible value.
        """
        settings = PoolSettings.from_mapping(values)
        return cls(settings.members, protocol=settings.protocol, seed=settings.seed, device=device)

    @property
    def settings(self) -> PoolSettings:
        """The members by name, and what those that were named are made with."""
        return self._settings

    def __repr__(self) -> str:
        if not self.weights:
            return f"OpinionPool({', '.join(self.asked)}; not fitted)"
        out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"OpinionPool({self.weights_text()}{out})"

    def weights_text(self) -> str:
        """The members' weights, the largest first: `fastgaum 0.61, logit 0.32`."""
        ranked = sorted(self.weights.items(), key=lambda one: -one[1])
        texts = [f"{name} {weight:.2f}" for name, weight in ranked]
        return ", ".join([*texts, f"lapse {self.lapse:.3f}"])

    def fit(self, log: AnyLog, progress: Stage | None = None) -> pl.DataFrame:
        """Fit the members without each fold's users, weigh them, and fit those of weight above 0 on
        the whole training split.

        The validation split chooses each member's epoch and settings, as it does outside a pool.

        Returns:
            A row per member: weight, its own NLL on the folds (nats per event; that of the pool in
            the last row), the seconds of its fits, and why it was left out.

        Raises:
            ConfigError: no member could be fitted, they do not agree on whether no click is a
                choice, or the log is in shards.
            LogFormatError: there is no validation session, or only one training user.
        """
        require_log(log)
        if not isinstance(log, SessionLog):
            raise ConfigError(
                f"log '{log.name}' is in shards, and a pool wants it in memory: read it with "
                "fastgaum.load, or train the preset fastgaum alone"
            )
        require_validation(log)
        fits = MemberFits(folds_of(log, self.settings.seed), progress, len(self.asked))
        self.left_out, self.models = {}, {}
        candidates: dict[str, ChoiceModel] = {}
        for name, one in self.asked.items():
            with self._leaving_out(name):
                candidates[name] = self._made(one)
                fits.on_folds(name, candidates[name])
            fits.require_agreement()
        # a member that fails on the whole split leaves its weight to the others
        while True:
            kept = [name for name in fits.opinions if name not in self.left_out]
            if not kept:
                reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
                raise ConfigError(f"no member of the pool could be fitted: {reasons}")
            self.weights, self.lapse = fits.best(kept)
            left = [name for name in kept if self.weights[name] > 0 and name not in self.models]
            if not left:
                break
            with self._leaving_out(left[0]):
                fits.whole(left[0], candidates[left[0]], log)
                self.models[left[0]] = candidates[left[0]]
        fits.end()
        self.models = {name: self.models[name] for name in kept if self.weights[name] > 0}
        self.fold_models = {name: fits.models[name] for name in self.models}
        self._complete()
        self.settings_tried = sum(model.settings_tried for model in candidates.values())
        self.table = fits.table(self.weights, self.lapse, self.left_out)
        return self.table

    def utility(self, batch: BatchTensors) -> Tensor:
        """Log-odds of a batch's candidates against no click, shape (n_candidates,); where no click
        is no choice, their log-probabilities: utilities up to a constant."""
        assert isinstance(batch, PoolBatch)
        opinions = []
        for model, part in zip(self._fitted(), batch.of_models, strict=True):
            dist = model.choice_distribution(part)
            opinion = opinion_of(
                dist.log_probs, dist.outside_log_prob, part.display_offsets, self.outside
            )
            opinions.append(opinion.cpu())
        weights = torch.tensor(self._weights_of_fitted(), dtype=torch.float64)
        offsets = batch.display_offsets.cpu()
        return pooled_opinion(
            torch.stack(opinions, dim=1), weights, self.lapse, offsets, self.outside
        )

    def choice_distribution(self, batch: BatchTensors, head: Head = "reward") -> ChoiceDistribution:
        """The pool's distribution over each display set, whatever the head: members give their
        reward's best response."""
        return Shannon().best_response(
            self.utility(batch), batch.display_offsets.cpu(), self.outside
        )

    def initial(self, n: int) -> tuple[object, ...]:
        """Histories of n users who have chosen nothing yet, one for each fitted model."""
        return tuple(model.initial(n) for model in self._fitted())

    def advance(self, carries: Sequence[object], tokens: Sequence[Bags]) -> tuple[object, ...]:
        """Histories after one more choice of each user; `tokens` holds the bags of each model."""
        members = zip(self._fitted(), carries, tokens, strict=True)
        return tuple(model.advance(carry, bags) for model, carry, bags in members)

    def state(self) -> State:
        """The members' states and weights.

        Raises:
            ConfigError: it has not been fitted, or a member has code of its own, which no file
                holds.
        """
        self._fitted()
        members = {
            name: [one.state() for one in (model, *self.fold_models[name])]
            for name, model in self.models.items()
        }
        own = [name for name, (state, *_) in members.items() if state.get("own")]
        if own:
            raise ConfigError(
                f"member '{own[0]}' has a regulariser or a history encoder of its own, and a file "
                "holds no code: pool models without"
            )
        return {
            "model": POOL,
            "settings": self.settings.to_mapping(),
            "outside": self.outside,
            "members": members,
            "weights": self.weights,
            "lapse": self.lapse,
            "left_out": self.left_out,
        }

    @classmethod
    def of_state(cls, file: Path, state: State, device: str = "auto") -> Self:
        """The pool of a state that was read from `file`.

        Raises:
            CheckpointError: the state is damaged.
        """
        with damage_named(file):
            pool = cls.from_mapping(state["settings"], device)
            pool.weights = {name: float(weight) for name, weight in state["weights"].items()}
            pool.lapse = float(state["lapse"])
            pool.left_out = {name: str(reason) for name, reason in state["left_out"].items()}
            if not state["members"] or not all(
                0 < pool.weights[name] < math.inf for name in state["members"]
            ):
                raise ValueError("a member of the pool has no weight above 0")
            if not 0 <= pool.lapse <= MOST_LAPSE:
                raise ValueError(f"the lapse is {pool.lapse}, 0 to {MOST_LAPSE} is required")
            for name, (whole, *folds) in state["members"].items():
                pool.models[name] = member_of(file, whole, device)
                pool.fold_models[name] = [member_of(file, one, device) for one in folds]
            pool.asked = dict(pool.models)
            pool._complete()
        return pool

    def _made(self, member: ChoiceModel | str) -> ChoiceModel:
        if not isinstance(member, str):
            return member
        settings = {"protocol": self.settings.protocol, "seed": self.settings.seed}
        return make_member(member, settings, self.asked_device)

    @contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Leave a member out, with the reason, where it cannot be fitted."""
        try:
            yield
        except (ConfigError, NumericsError) as error:
            self.left_out[name] = str(error)

    def _complete(self) -> None:
        """Take over what the members say of the log. Raises ValueError unless they agree."""
        first, *others = self._fitted()
        if any(model.outside != first.outside for model in others):
            raise ValueError("its members do not agree whether no click is a choice")
        self.outside, self.space, self.device = first.outside, first.space, first.device

    def _fitted(self) -> list[ChoiceModel]:
        """Each member and its models of the folds, member after member."""
        if not self.models:
            raise ConfigError("the model has not been trained: call fit or load first")
        return [
            one for name, model in self.models.items() for one in (model, *self.fold_models[name])
        ]

    def _weights_of_fitted(self) -> list[float]:
        """The weight of each of `_fitted`: the models of the folds share half of a member's."""
        weights = []
        for name in self.models:
            n_folds = len(self.fold_models[name])
            shares = [0.5, *[0.5 / n_folds] * n_folds] if n_folds else [1.0]
            weights += [share * self.weights[name] for share in shares]
        return weights

    @property
    def _trained(self) -> TrainedUsers | None:
        """Those of all members: users of a fold train the models of the other folds."""
        parts = [model._trained for model in self._fitted()]
        known = [part for part in parts if part is not None]
        return reduce(TrainedUsers.plus, known) if len(known) == len(parts) else None

    def _encoder(self, log: AnyLog, split: SplitName) -> PoolEncoder:
        # what is wrong with a log is the first member's to say
        super()._encoder(log, split)
        spaces = [model.space for model in self._fitted()]
        return PoolEncoder(tuple(space.encoder(log) for space in spaces if space is not None))

    def _batches(
        self, encoded: EncodedSessions, batch_sessions: int = SCORING_SESSIONS
    ) -> Iterator[BatchTensors]:
        assert isinstance(encoded, PoolSessions)
        members = zip(self._fitted(), encoded.of_models, strict=True)
        streams = [model._batches(part, batch_sessions) for model, part in members]
        return (
            PoolBatch(**_fields(parts[0]), of_models=parts) for parts in zip(*streams, strict=True)
        )

    def _score(self, encoded: EncodedSessions) -> ScoredSessions:
        parts = []
        for batch in self._batches(encoded):
            utilities = self.utility(batch)
            dist = Shannon().best_response(utilities, batch.display_offsets.cpu(), self.outside)
            each = (utilities, dist.log_probs, dist.outside_log_prob)
            parts.append([values.cpu().numpy() for values in each])
        columns = map(np.concatenate, zip(*parts, strict=True))
        return ScoredSessions({"reward": HeadScores(*columns)})


def _fields(of: EncodedSessions | BatchTensors) -> dict[str, Any]:
    """The fields of a dataclass, not copied."""
    return {one.name: getattr(of, one.name) for one in dataclasses.fields(of)}
