"""Differentiable segment operators: one distribution, or one sum, per display set, over flat ragged
arrays.

A worked miniature: offsets [0, 3, 5] cut five values into the display sets of two events.

In every function `values` is (n_candidates,), float32 or float64; `offsets` is (n_events + 1,),
int32, on the same device; `outside=True` adds to each event the no-click option, an entry of value
0 that is not in the array. Values may be large (±1e4) or −inf (impossible). An event whose
candidates are all −inf, without the no-click option, has no distribution and gives NaN, as does an
event with a NaN or +inf; an empty event is legal. Gradients are of first order.

CPU tensors run through Numba, CUDA tensors through stock torch. On the CPU, offsets that are not
int32 or values that are neither float32 nor float64 raise TypeError, and offsets that do not end at
n_candidates raise ValueError."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastgaum.nets.ops import _cpu, _stock
from fastgaum.nets.ops._dispatch import operator


def segment_log_softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of the candidates (n_candidates,) and of no click (n_events,).

    The latter is −log-sum-exp, or the constant −inf without the no-click option. Differentiable
    through both."""
    log_probs, outside_log_prob = _log_softmax(values, offsets, outside)
    return log_probs, outside_log_prob


def segment_logsumexp(values: Tensor, offsets: Tensor, outside: bool) -> Tensor:
    """Return log Σ exp(value) of each event, (n_events,); −inf where there is nothing to sum, with
    gradient 0."""
    result: Tensor = _logsumexp(values, offsets, outside)
    return result


def segment_softmax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return probabilities of the candidates (n_candidates,) and of no click (n_events,), 0 without
    that option."""
    probs, outside_prob = _softmax(values, offsets, outside)
    return probs, outside_prob


def segment_sparsemax(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return the Euclidean projection of each event's values onto the simplex, shaped as by
    `segment_softmax`.

    Exact, by sorting: Martins & Astudillo, "From softmax to sparsemax", ICML 2016.
    """
    probs, outside_prob = _entmax(values, offsets, outside, 2.0, True)
    return probs, outside_prob


def segment_entmax15(values: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return 1.5-entmax of each event's values, shaped as by `segment_softmax`.

    Exact, by sorting: Peters, Niculae & Martins, "Sparse sequence-to-sequence models", ACL 2019.
    """
    probs, outside_prob = _entmax(values, offsets, outside, 1.5, True)
    return probs, outside_prob


def segment_entmax_bisect(
    values: Tensor, offsets: Tensor, outside: bool, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return α-entmax (the Tsallis regulariser's best response) of each event, shaped as by
    `segment_softmax`.

    α > 1, else ValueError; 1.5 and 2 agree with `segment_entmax15` and `segment_sparsemax` to
    rounding. The threshold is bracketed and refined to rounding (bisection; Newton steps where they
    cannot overshoot). Not differentiable in α."""
    if not 1.0 < alpha < float("inf"):
        raise ValueError(
            f"alpha is {alpha}, but α-entmax needs a finite alpha above 1: use segment_softmax for "
            "1"
        )
    probs, outside_prob = _entmax(values, offsets, outside, float(alpha), False)
    return probs, outside_prob


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Return the sum of each event's entries, (n_candidates,) → (n_events,) or (n_candidates, d) →
    (n_events, d)."""
    result: Tensor = _segment_sum(values, offsets)
    return result


def expand_to_candidates(
    per_event: Tensor, offsets: Tensor, n_candidates: int | None = None
) -> Tensor:
    """Repeat each event's row for its candidates, (n_events,) or (n_events, d) → (n_candidates,) or
    (n_candidates, d).

    offsets [0, 3, 5]: [a, b] → [a, a, a, b, b]. Pass `n_candidates` where known: reading it from
    CUDA offsets waits for the device. The gradient is the segment sum."""
    if n_candidates is None:
        n_candidates = int(offsets[-1])
    result: Tensor = _expand(per_event, offsets, n_candidates)
    return result


def segment_argmax(values: Tensor, offsets: Tensor) -> Tensor:
    """Return the position of the greatest value in each event, int64, (n_events,); −1 for an empty
    event.

    The **first** of tied values: for rollouts, never for metrics, which count ties exactly. Not
    differentiable."""
    result: Tensor = _argmax(values, offsets)
    return result


def _save_log_softmax(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, offsets, ctx.outside = inputs
    ctx.save_for_backward(output[0], offsets)


def _log_softmax_gradient(
    ctx: Any, grad_log_probs: Tensor, grad_outside: Tensor
) -> tuple[Tensor, None, None]:
    log_probs, offsets = ctx.saved_tensors
    return (
        _log_softmax_backward(grad_log_probs, grad_outside, log_probs, offsets, ctx.outside),
        None,
        None,
    )


def _save_logsumexp(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, offsets, _ = inputs
    ctx.save_for_backward(values, output, offsets)


def _logsumexp_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    values, result, offsets = ctx.saved_tensors
    return _logsumexp_backward(values, grad, result, offsets), None, None


def _save_probs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, offsets, ctx.outside, *alpha = inputs
    ctx.alpha = alpha[0] if alpha else 1.0
    ctx.n_inputs = len(inputs)
    ctx.save_for_backward(*output, offsets)


def _probs_gradient(
    ctx: Any, grad_probs: Tensor, grad_outside: Tensor
) -> tuple[Tensor | None, ...]:
    probs, outside_prob, offsets = ctx.saved_tensors
    grad = _entmax_backward(
        grad_probs, grad_outside, probs, outside_prob, offsets, ctx.outside, ctx.alpha
    )
    return (grad, *[None] * (ctx.n_inputs - 1))


def _save_segment_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, offsets = inputs
    ctx.n_candidates = values.shape[0]
    ctx.save_for_backward(offsets)


def _segment_sum_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _expand(grad, *ctx.saved_tensors, ctx.n_candidates), None


def _save_expand(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _expand_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _segment_sum(grad, *ctx.saved_tensors), None, None


# Each operator and its backward are registered apart, so that a traced backward is one operator
# too.
_log_softmax = operator(
    "segment_log_softmax",
    "(Tensor values, Tensor offsets, bool outside) -> (Tensor, Tensor)",
    _cpu.log_softmax,
    _stock.log_softmax,
    _cpu.empty_pair,
    (_save_log_softmax, _log_softmax_gradient),
)
_log_softmax_backward = operator(
    "segment_log_softmax_backward",
    "(Tensor grad_log_probs, Tensor grad_outside, Tensor log_probs, Tensor offsets, bool outside) "
    "-> Tensor",
    _cpu.log_softmax_backward,
    _stock.log_softmax_backward,
    _cpu.empty_gradient,
)
_logsumexp = operator(
    "segment_logsumexp",
    "(Tensor values, Tensor offsets, bool outside) -> Tensor",
    _cpu.logsumexp,
    _stock.logsumexp,
    _cpu.empty_per_event,
    (_save_logsumexp, _logsumexp_gradient),
)
_logsumexp_backward = operator(
    "segment_logsumexp_backward",
    "(Tensor values, Tensor grad, Tensor result, Tensor offsets) -> Tensor",
    _cpu.logsumexp_backward,
    _stock.logsumexp_backward,
    _cpu.empty_gradient,
)
_softmax = operator(
    "segment_softmax",
    "(Tensor values, Tensor offsets, bool outside) -> (Tensor, Tensor)",
    _cpu.softmax,
    _stock.softmax,
    _cpu.empty_pair,
    (_save_probs, _probs_gradient),
)
_entmax = operator(
    "segment_entmax",
    "(Tensor values, Tensor offsets, bool outside, float alpha, bool by_sorting) -> (Tensor, "
    "Tensor)",
    _cpu.entmax,
    _stock.entmax,
    _cpu.empty_pair,
    (_save_probs, _probs_gradient),
)
_entmax_backward = operator(
    "segment_entmax_backward",
    "(Tensor grad_probs, Tensor grad_outside, Tensor probs, Tensor outside_prob, Tensor offsets, "
    "bool outside, "
    "float alpha) -> Tensor",
    _cpu.entmax_backward,
    _stock.entmax_backward,
    _cpu.empty_gradient,
)
_segment_sum = operator(
    "segment_sum",
    "(Tensor values, Tensor offsets) -> Tensor",
    _cpu.segment_sum,
    _stock.segment_sum,
    _cpu.empty_sums,
    (_save_segment_sum, _segment_sum_gradient),
)
_expand = operator(
    "expand_to_candidates",
    "(Tensor per_event, Tensor offsets, SymInt n_candidates) -> Tensor",
    _cpu.expand,
    _stock.expand,
    _cpu.empty_expanded,
    (_save_expand, _expand_gradient),
)
_argmax = operator(
    "segment_argmax",
    "(Tensor values, Tensor offsets) -> Tensor",
    _cpu.argmax,
    _stock.argmax,
    _cpu.empty_positions,
)
