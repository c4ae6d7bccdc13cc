"""OpinionPool: unlike user models as one, weighted by how they do on users who did not train them.

    q(a) ∝ Π_m p_m(a)^w_m                  over the display set, and no click where it is offered
    p(a) = (1 − ε) q(a) + ε q(click) / n   of n candidates; p(no click) = q(no click)

q is the log-opinion pool of Genest and Zidek, "Combining probability distributions", Statistical
Science 1986, with weights of at least 0, whose sum is a temperature; ε is the lapse of Wichmann and
Hill, "The psychometric function", 2001. Weights and lapse minimise the NLL of the validation
split's choices, and of one lapse more, so that ε is above 0; weights are drawn to equal ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch
from scipy.optimize import minimize
from torch import Tensor

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.baselines.base import SoftmaxModel
from fastgaum.baselines.registry import POOL, check_name, make_model, name_of
from fastgaum.checkpoint import State
from fastgaum.config import CheckedSettings, Protocol, Seed
from fastgaum.errors import ConfigError, NumericsError, as_given
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import PackedArrays, SessionLog, SplitName
from fastgaum.logs.read import as_log
from fastgaum.logs.tables import Frame
from fastgaum.machine import device_of
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.splits import require_validation
from fastgaum.nets.segments import expand_to_candidates, segment_log_softmax, segment_logsumexp
from fastgaum.nets.tensors import BatchTensors

MEMBERS = ("fastgaum", "logit", "wd-ccf", "xgboost", "scknnc", "linucb")
LEAST_LAPSE, MOST_LAPSE = 1e-9, 0.5
PULL = 10.0
"""how strongly weights are drawn to equal ones; chosen on other splits of the released logs"""
TABLE = {
    "member": pl.String,
    "weight": pl.Float64,
    "val_nll": pl.Float64,
    "seconds": pl.Float64,
    "left_out": pl.String,
}


@dataclass(frozen=True)
class PoolSettings(CheckedSettings):
    """Members of a pool, and settings of those that are named."""

    what: ClassVar[str] = "setting of a pool"

    members: tuple[str, ...] = MEMBERS
    protocol: Protocol = "bags"
    """for each member that can read it"""
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise ConfigError("a pool has no member: name at least one model")
        if POOL in self.members:
            raise ConfigError("a pool is no member of a pool: name its members instead")
        for name in self.members:
            check_name(name)


@dataclass(frozen=True)
class PoolSessions(EncodedSessions):
    """Sessions as each member reads them, those of the first itself."""

    of_members: tuple[EncodedSessions, ...] = ()


@dataclass(frozen=True)
class PoolBatch(BatchTensors):
    """A batch as each member reads it, that of the first itself."""

    of_members: tuple[BatchTensors, ...] = ()


class PoolEncoder(Encoder):
    """The members' encoders of one log."""

    def __init__(self, spaces: Sequence[FeatureSpace], log: SessionLog) -> None:
        super().__init__(spaces[0], log)
        self.others = [Encoder(space, log) for space in spaces[1:]]

    def encode(self, rows: IntArray, *, numbers: bool = True) -> PoolSessions:
        """The sessions `rows` as each member reads them."""
        first = super().encode(rows, numbers=numbers)
        others = (one.encode(rows, numbers=numbers) for one in self.others)
        return PoolSessions(**vars(first), of_members=(first, *others))


class OpinionPool(SoftmaxModel):
    """Several user models as one: `OpinionPool(["fastgaum", "logit", UserModel(config)])`.

    A member that cannot be fitted (no library, too little memory, a loss that is not finite) is
    left out.

    Attributes:
        weights: the weight of each member that was fitted, by name.
        lapse: share of the clicks that the pool takes to go to any candidate alike.
        left_out: the members that were not fitted, with the reason, by name.
        models: the fitted members of weight above 0, by name.
    """

    name: ClassVar[str] = POOL
    settings: PoolSettings = PoolSettings()
    """the members by name, and settings of those that were named"""

    def __init__(
        self,
        members: Sequence[ChoiceModel | str] = MEMBERS,
        *,
        protocol: Protocol = "bags",
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        """Take models, and names of models; `protocol`, `seed` and `device` are for those named.
        Raises ConfigError: no member, a pool among them, an unknown name, an impossible value."""
        device_of(device)
        several = isinstance(members, Sequence) and not isinstance(members, str)
        if not several or not all(isinstance(one, ChoiceModel | str) for one in members):
            raise ConfigError(
                f"members is {as_given(members)}, a list of models and of their names is required"
            )
        names = [one if isinstance(one, str) else name_of(one) for one in members]
        self.settings = PoolSettings(tuple(names), protocol, seed)
        self.asked = {
            name if name not in names[:i] else f"{name} {i + 1}": one
            for i, (name, one) in enumerate(zip(names, members, strict=True))
        }
        self.asked_device = device
        self.models: dict[str, ChoiceModel] = {}
        self.weights: dict[str, float] = {}
        self.lapse = 0.0
        self.left_out: dict[str, str] = {}

    def __repr__(self) -> str:
        if not self.weights:
            return f"OpinionPool({', '.join(self.asked)}; not fitted)"
        ranked = sorted(self.weights.items(), key=lambda one: -one[1])
        texts = [f"{name} {weight:.2f}" for name, weight in ranked]
        out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"OpinionPool({', '.join([*texts, f'lapse {self.lapse:.3f}'])}{out})"

    def fit(
        self, log: SessionLog | Frame, progress: Callable[[str, int, int], None] | None = None
    ) -> pl.DataFrame:
        """Fit the members, and weigh them on the validation split; `progress` receives the member
        that is fitted, how many were, and how many there are. Returns a row per member, then the
        pool: weight, NLL on validation (nats per event), seconds, and why it was left out. Raises
        ConfigError: no member could be fitted, or they do not agree on no click. Raises
        LogFormatError: there is no training or no validation session."""
        log = as_log(log)
        require_validation(log)
        self.models, self.left_out = {}, {}
        rows: list[dict[str, Any]] = []
        opinions: list[Tensor] = []
        named = {"protocol": self.settings.protocol, "seed": self.settings.seed}
        for name, one in self.asked.items():
            if progress is not None:
                progress(name, len(rows), len(self.asked))
            row: dict[str, Any] = {"member": name}
            started = time.perf_counter()
            try:
                model = make_model(one, named, self.asked_device) if isinstance(one, str) else one
                model.fit(log)
                encoded, scored = model.score_sessions(log, "validation")
            except (ConfigError, NumericsError) as error:
                self.left_out[name] = row["left_out"] = str(error)
            else:
                self.models[name], head = model, scored.heads["reward"]
                choices = Choices.of(encoded, model.outside)
                parts = map(torch.from_numpy, (head.log_probs, head.outside_log_prob))
                opinions.append(choices.log_odds(*parts))
                row["val_nll"] = float(choices.nll(opinions[-1]))
            rows.append(row | {"seconds": time.perf_counter() - started})
        self._agree()
        odds = torch.stack(opinions, dim=1)
        weights, self.lapse = best_weights(odds, choices)
        self.weights = dict(zip(self.models, weights.tolist(), strict=True))
        nll = choices.nll(choices.pooled(odds, weights, _numbers(self.lapse)))
        seconds = sum(row["seconds"] for row in rows)
        rows = [row | {"weight": self.weights.get(row["member"])} for row in rows]
        rows.append({"member": POOL, "val_nll": float(nll), "seconds": seconds})
        self.settings_tried = sum(model.settings_tried for model in self.models.values())
        self.models = {name: one for name, one in self.models.items() if self.weights[name] > 0}
        self.table = pl.DataFrame(rows, schema=TABLE)
        return self.table

    def _agree(self) -> None:
        """Take over what the members agree on."""
        if not self.models:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            raise ConfigError(f"no member of the pool could be fitted: {reasons}")
        first, *others = self.models.values()
        if any(model.outside != first.outside for model in others):
            offered = [name for name, model in self.models.items() if model.outside]
            raise ConfigError(
                f"no click is a choice for {', '.join(offered)} and none for the other members: "
                "give the members of a pool one value of no_click"
            )
        self.outside, self.space, self.device = first.outside, first.space, first.device

    def _ranked(self, batch: BatchTensors) -> tuple[np.ndarray, Tensor]:
        assert isinstance(batch, PoolBatch)
        choices = Choices.of(batch.source, self.outside)
        odds = [
            choices.log_odds(*model.choice_log_probs(part))
            for model, part in zip(self.models.values(), batch.of_members, strict=True)
        ]
        weights = _numbers([self.weights[name] for name in self.models])
        utilities = choices.pooled(torch.stack(odds, dim=1), weights, _numbers(self.lapse))
        return utilities.numpy(), utilities

    def state(self) -> State:
        """The members' states and weights. Raises ConfigError: it has not been fitted, or a member
        has code of its own."""
        self._trained_space()
        members = {name: model.state() for name, model in self.models.items()}
        own = [name for name, state in members.items() if state.get("own")]
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
    def of_state(cls, state: State, models: dict[str, ChoiceModel], device: str = "auto") -> Self:
        """The pool of a state and its members. Raises ValueError for a damaged one."""
        settings = PoolSettings.from_mapping(state["settings"])
        pool = cls(settings.members, protocol=settings.protocol, seed=settings.seed, device=device)
        pool.weights = {name: float(weight) for name, weight in state["weights"].items()}
        pool.lapse = float(state["lapse"])
        pool.left_out = {name: str(reason) for name, reason in state["left_out"].items()}
        if not models or not all(0 < pool.weights[name] < math.inf for name in models):
            raise ValueError("a member of the pool has no weight above 0")
        if not 0 <= pool.lapse <= MOST_LAPSE:
            raise ValueError(f"the lapse is {pool.lapse}, 0 to {MOST_LAPSE} is required")
        pool.models, pool.asked = models, dict(models)
        pool._agree()
        return pool

    def _encoder(self, log: SessionLog, split: SplitName) -> PoolEncoder:
        self._checked_space(log, split)
        return PoolEncoder([model._trained_space() for model in self.models.values()], log)

    def _batches(self, encoded: EncodedSessions) -> Iterator[BatchTensors]:
        assert isinstance(encoded, PoolSessions)
        members = zip(self.models.values(), encoded.of_members, strict=True)
        for parts in zip(*(one._batches(of) for one, of in members), strict=True):
            yield PoolBatch(**vars(parts[0]), of_members=parts)


@dataclass(frozen=True)
class Choices:
    """The choices of some events, among what they displayed."""

    offsets: Tensor
    """start of each display, (n_events + 1,)"""
    choices: Tensor
    """-1 for no click, (n_events,)"""
    outside: bool
    of_events: Tensor
    """weight of each event, of mean 1, float64, (n_events,)"""

    @classmethod
    def of(cls, shown: PackedArrays, outside: bool) -> Self:
        """Those of a log, of encoded sessions or of a batch."""
        offsets, choices, weights = map(
            torch.from_numpy, (shown.display_offsets, shown.choices, shown.weight_of_event)
        )
        return cls(offsets, choices, outside, weights)

    def nll(self, utilities: Tensor) -> Tensor:
        """NLL of the choices, nats per event."""
        clicked = self.choices >= 0
        chosen = (self.offsets[:-1][clicked] + self.choices[clicked]).long()
        sums = segment_logsumexp(utilities, self.offsets, self.outside)
        of_choices = utilities[chosen] @ self.of_events[clicked]
        return (sums @ self.of_events - of_choices) / len(self.choices)

    def pooled(self, odds: Tensor, weights: Tensor, lapse: Tensor) -> Tensor:
        """The pool's log-odds of each candidate, (n_candidates,), of its members', (n_candidates,
        n_members)."""
        log_probs, no_click = segment_log_softmax(odds @ weights, self.offsets, self.outside)
        log_click = segment_logsumexp(log_probs, self.offsets, False)
        lapsed = log_click - self.offsets.diff().double().log() + lapse.log()
        log_probs = torch.logaddexp(
            log_probs + torch.log1p(-lapse), expand_to_candidates(lapsed, self.offsets)
        )
        return self.log_odds(log_probs, no_click)

    def log_odds(self, log_probs: Tensor, no_click: Tensor) -> Tensor:
        """Log-odds against no click, float64, (n_candidates,); without it log-probabilities."""
        odds = log_probs.cpu().double()
        if not self.outside:
            return odds
        return odds - expand_to_candidates(no_click.cpu().double(), self.offsets)


def best_weights(odds: Tensor, choices: Choices) -> tuple[Tensor, float]:
    """The weights ≥ 0, (n_members,), and the lapse > 0 that minimise the NLL of the choices and one
    lapse, and `PULL` times the squared distance of the weights from equal ones. odds:
    (n_candidates, n_members)."""

    def penalised(values: Float64Array) -> tuple[float, Float64Array]:
        at = torch.from_numpy(values).requires_grad_()
        nll = choices.nll(choices.pooled(odds, at[:-1], at[-1]))
        pull = PULL * (at[:-1] - 1 / n).square().sum()
        loss = nll + (pull - at[-1].log()) / len(choices.choices)
        return float(loss.detach()), torch.autograd.grad(loss, at)[0].numpy()

    n = odds.shape[1]
    start, bounds = np.append(np.full(n, 1 / n), 0.01), [(0.0, None)] * n
    found = minimize(penalised, start, jac=True, bounds=[*bounds, (LEAST_LAPSE, MOST_LAPSE)]).x
    # where no member says anything of any candidate, one is kept
    weights = found[:-1] if found[:-1].any() else np.eye(n)[0]
    return torch.from_numpy(weights), float(found[-1])


def _numbers(values: float | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")
