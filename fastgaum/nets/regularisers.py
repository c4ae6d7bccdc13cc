"""Convex regularisers Ω of the generator, each with its closed forms over ragged display sets
(Fenchel–Young losses: Blondel, Martins, Niculae, JMLR 2020).

Every function takes flat values (n_candidates,), display offsets (n_events + 1,) and `no_click`,
whether no click, pinned at 0, is one of the choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgaum.config import Config
from fastgaum.errors import ConfigError, NumericsError, as_given
from fastgaum.nets import segments

SMALLEST_PROB = 1e-12
"""floor of sparse distributions before a logarithm"""


@dataclass(frozen=True)
class ChoiceDistribution:
    """Probabilities of the candidates, (n_candidates,), and of no click, (n_events,); zero where it
    is not offered."""

    probs: Tensor
    no_click_prob: Tensor
    log_probs: Tensor
    no_click_log_prob: Tensor


class Regulariser(Protocol):
    """The functions of Ω that the game calls."""

    def best_response(
        self, scores: Tensor, offsets: Tensor, no_click: bool, /
    ) -> ChoiceDistribution:
        """∇Ω*(scores) = argmax_φ ⟨φ, scores⟩ − Ω(φ): softmax, sparsemax, entmax …"""

    def link(self, logits: Tensor, offsets: Tensor, no_click: bool, /) -> ChoiceDistribution:
        """The generator's distribution, differentiable in its logits."""

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        """Ω of each event's distribution, shape (n_events,)."""


def best_value(regulariser: Regulariser, scores: Tensor, offsets: Tensor, no_click: bool) -> Tensor:
    """Ω*(scores) = max_φ ⟨φ, scores⟩ − Ω(φ) per event, shape (n_events,); its gradient is φ*
    (Danskin's theorem)."""
    # a subclass may have another Ω
    if type(regulariser) is Shannon:
        return segments.segment_logsumexp(scores, offsets, no_click)
    with torch.no_grad():
        best = regulariser.best_response(scores.detach(), offsets, no_click)
        omega = regulariser.omega(best, offsets)
    return segments.segment_sum(best.probs * scores, offsets) - omega


@dataclass(frozen=True)
class Shannon:
    """Ω = −H(φ) = Σ φ log φ: the distribution is softmax."""

    def best_response(self, scores: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        """Softmax."""
        log_probs, no_click_log_prob = segments.segment_log_softmax(scores, offsets, no_click)
        return ChoiceDistribution(
            log_probs.exp(), no_click_log_prob.exp(), log_probs, no_click_log_prob
        )

    link = best_response

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        """Σ φ log φ, nats."""
        inside = segments.segment_sum(dist.probs * dist.log_probs.clamp(min=-1e4), offsets)
        return inside + dist.no_click_prob * dist.no_click_log_prob.clamp(min=-1e4)


@dataclass(frozen=True)
class L2:
    """Ω = ½ ‖φ‖²: the distribution is sparsemax, the Euclidean projection onto the simplex."""

    def best_response(self, scores: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        """Sparsemax."""
        return _with_logs(*segment_entmax(scores, offsets, no_click, 2.0))

    link = best_response

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        """½ Σ φ²."""
        return 0.5 * (
            segments.segment_sum(dist.probs.square(), offsets) + dist.no_click_prob.square()
        )


@dataclass(frozen=True)
class Tsallis:
    """Ω = 4/3 (Σ φ^1.5 − 1): the distribution is 1.5-entmax (Peters, Niculae, Martins, ACL
    2019)."""

    def best_response(self, scores: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        """1.5-entmax."""
        return _with_logs(*segment_entmax(scores, offsets, no_click, 1.5))

    link = best_response

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        """4/3 (Σ φ^1.5 − 1)."""
        inside = segments.segment_sum(dist.probs.pow(1.5), offsets)
        return (inside + dist.no_click_prob.pow(1.5) - 1) / 0.75


def segment_entmax(
    values: Tensor, offsets: Tensor, no_click: bool, alpha: float
) -> tuple[Tensor, Tensor]:
    """α-entmax of each event (the Tsallis regulariser's best response), shaped as by
    `segments.segment_log_softmax`; no click has 0 where it is not offered.

    α is 2, sparsemax, the Euclidean projection onto the simplex (Martins & Astudillo, ICML 2016),
    or 1.5; both are exact, by sorting (Peters, Niculae & Martins, ACL 2019). Not differentiable in
    α, nor twice."""
    n_events = offsets.shape[0] - 1
    entries, event_of = segments.entries_of(values, offsets, no_click)
    probs: Tensor
    probs = _Entmax.apply(entries, event_of, n_events, alpha)  # type: ignore[no-untyped-call]
    return segments.split_entries(probs, values.shape[0], n_events, no_click, 0.0)


@dataclass(frozen=True)
class Custom:
    """A user's own Ω, differentiable and convex on the simplex; its best response is found by
    mirror ascent.

    `function(probs, no_click_prob, offsets)` returns Ω per event, shape (n_events,), or ConfigError
    is raised."""

    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    steps: int = 300
    step_size: float = 0.3

    def best_response(self, scores: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        """argmax_φ ⟨φ, scores⟩ − Ω(φ) by exponentiated-gradient ascent from softmax(scores)."""
        softmax = Shannon()
        mirror = scores.detach().clone()
        for _ in range(self.steps):
            dist = softmax.best_response(mirror, offsets, no_click)
            probs, no_click_prob = dist.probs.requires_grad_(), dist.no_click_prob.requires_grad_()
            with torch.enable_grad():
                omega = self._values(probs, no_click_prob, offsets).sum()
                slope, no_click_slope = torch.autograd.grad(
                    omega, (probs, no_click_prob), allow_unused=True
                )
            slope = torch.zeros_like(probs) if slope is None else slope
            step = scores.detach() - slope
            if no_click and no_click_slope is not None:
                # the no-click entry stays pinned at 0: moving it by −slope is moving all others by
                # +slope
                step = step + segments.expand_to_candidates(no_click_slope, offsets)
            mirror = mirror + self.step_size * step
        return softmax.best_response(mirror, offsets, no_click)

    def link(self, logits: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        """Softmax."""
        return Shannon().link(logits, offsets, no_click)

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        """The user's function."""
        return self._values(dist.probs, dist.no_click_prob, offsets)

    def _values(self, probs: Tensor, no_click_prob: Tensor, offsets: Tensor) -> Tensor:
        values, n_events = self.function(probs, no_click_prob, offsets), len(offsets) - 1
        if not isinstance(values, Tensor) or values.shape != (n_events,):
            got = list(values.shape) if isinstance(values, Tensor) else as_given(values)
            raise ConfigError(
                f"the function of Custom returns {got} for {n_events} events, a tensor with one "
                f"value per event is required, shape [{n_events}]: sum over each display with "
                "fastgaum.nets.segments.segment_sum(…, offsets)"
            )
        return values


def require_regulariser(value: object) -> None:
    """Raise ConfigError unless a value has the functions of a regulariser."""
    verbs = ("best_response", "link", "omega")
    if isinstance(value, type) or not all(callable(getattr(value, verb, None)) for verb in verbs):
        is_function = callable(value) and not isinstance(value, type)
        name = getattr(value, "__name__", "f")
        raise ConfigError(
            f"regulariser is {as_given(value)}, an object with {', '.join(verbs)} is required: "
            + (f"give Custom({name})" if is_function else "give one of Shannon(), L2(), Tsallis()")
            + " of fastgaum.nets.regularisers"
        )


def regulariser_of(config: Config) -> Regulariser:
    """The regulariser that a configuration names."""
    if config.regulariser == "shannon":
        return Shannon()
    return L2() if config.regulariser == "l2" else Tsallis()


class _Entmax(torch.autograd.Function):
    """α-entmax of entries and the event of each."""

    @staticmethod
    def forward(ctx: Any, entries: Tensor, event_of: Tensor, n_events: int, alpha: float) -> Tensor:
        # a −inf or NaN as the greatest entry makes the whole event NaN: −inf − (−inf)
        z = (alpha - 1.0) * (
            entries.double() - segments.max_entries(entries, event_of, n_events).double()[event_of]
        )
        damaged = segments.sum_entries(z.isnan().double(), event_of, n_events)[event_of] > 0.0
        z = torch.where(damaged, 0.0, z.clamp_min(-1.0))
        sizes = torch.bincount(event_of, minlength=n_events)
        tau = _thresholds(z, event_of, sizes, alpha)
        shares = (z - tau[event_of]).clamp_min(0.0) ** (1.0 / (alpha - 1.0))
        totals = segments.sum_entries(shares, event_of, n_events)
        probs = torch.where(damaged, torch.nan, shares / totals[event_of]).to(entries.dtype)
        ctx.save_for_backward(probs, event_of)
        ctx.n_events, ctx.alpha = n_events, alpha
        return probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """s · (grad − ⟨s, grad⟩ / Σ s), s = p^(2−α) on the support."""
        probs, event_of = ctx.saved_tensors
        # the added zero keeps a NaN a NaN where the power is 0
        s = torch.where(probs == 0.0, 0.0, probs ** (2.0 - ctx.alpha) + 0.0 * probs)
        off = s == 0.0
        total = segments.sum_entries(s, event_of, ctx.n_events)
        inner = segments.sum_entries(torch.where(off, 0.0, s * grad), event_of, ctx.n_events)
        return torch.where(off, 0.0, s * (grad - (inner / total)[event_of])), None, None, None


def _thresholds(z: Tensor, event_of: Tensor, sizes: Tensor, alpha: float) -> Tensor:
    """τ per event in float64, for α = 2 or 1.5; z ∈ [−1, 0], where entries at −1 are never in the
    support."""
    order = z.argsort(descending=True, stable=True)
    order = order[event_of[order].argsort(stable=True)]
    z, event_of = z[order], event_of[order]
    starts = sizes.cumsum(0) - sizes
    # sums over the entries above each one in its event: a running sum less its value at its start
    position = torch.arange(z.shape[0], device=z.device)
    count = (position - starts[event_of]).double()
    above = _above(z, starts, event_of)
    squares = _above(z * z, starts, event_of)
    mass = above - count * z if alpha == 2.0 else squares - 2.0 * z * above + count * z * z
    support = (mass < 1.0).double()
    size = segments.sum_entries(support, event_of, sizes.shape[0])
    total = segments.sum_entries(support * z, event_of, sizes.shape[0])
    if alpha == 2.0:
        return (total - 1.0) / size
    mean = total / size
    spread = segments.sum_entries(support * z * z, event_of, sizes.shape[0]) - total * mean
    return mean - ((1.0 - spread) / size).clamp_min(0.0).sqrt()


def _above(z: Tensor, starts: Tensor, event_of: Tensor) -> Tensor:
    running = torch.cat((z.new_zeros(1), z.cumsum(0)))
    return running[:-1] - running[starts][event_of]


def _with_logs(probs: Tensor, no_click_prob: Tensor) -> ChoiceDistribution:
    return ChoiceDistribution(
        probs,
        no_click_prob,
        probs.clamp(min=SMALLEST_PROB).log(),
        no_click_prob.clamp(min=SMALLEST_PROB).log(),
    )


@torch.no_grad()
def sample_candidates(
    dist: ChoiceDistribution, offsets: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw one choice per event: its row among the candidates, or -1 for no click; int64, shape
    (n_events,). Entries of probability 0 are never drawn.

    Raises NumericsError for an event without a distribution: NaN or +inf among its scores, or −inf
    alone."""
    keys = _gumbel(dist.probs, generator) + dist.probs.log()
    best = segments.segment_argmax(keys, offsets) + offsets[:-1]
    no_click = _gumbel(dist.no_click_prob, generator) + dist.no_click_prob.log()
    highest = torch.maximum(keys[best], no_click)
    # −inf: every entry has probability 0; a NaN comes through argmax and maximum
    drawable = highest > -torch.inf
    if not bool(drawable.all()):
        event = int(torch.argmin(drawable.int()))
        raise NumericsError(
            f"event {event} of the batch has no distribution to draw from, its scores are NaN or "
            "infinite: the model has"
            " diverged, or every candidate was ruled out by −inf without a no-click option"
        )
    return torch.where(no_click > keys[best], -1, best)


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7)))
