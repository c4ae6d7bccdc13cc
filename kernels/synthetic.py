"""The synthetic user, event by event: draw a display set, weigh it, choose, move the state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit

SHANNON, L2 = 0, 1


class KnownItems(NamedTuple):
    """What is true of the items."""

    base: Array
    """utility without a user, shape (n_items,)"""
    latents: Array
    """direction of each item, shape (n_items, dim)"""


class TasteLaw(NamedTuple):
    """How a taste weighs items, and moves: decay · taste + (1 − decay) · latents[chosen]."""

    affinity: float
    """weight of ⟨taste, latents[item]⟩"""
    repeat: float
    """added for an item that was chosen before"""
    decay: float


class ChoiceLaw(NamedTuple):
    """How utilities become choices."""

    eta: float
    rule: int
    """SHANNON or L2"""
    outside: bool
    """whether a user may choose nothing"""


class DisplayLaw(NamedTuple):
    """How displays are drawn."""

    skew: float
    code_of_rank: Array
    """item of each popularity rank, shape (n_items,)"""


class SimulatedEvents(NamedTuple):
    """What happens in a log, event by event."""

    items: Array
    """shape (n_candidates,)"""
    choices: Array
    """shape (n_events,)"""
    utility: Array
    """shape (n_candidates,)"""
    probability: Array
    """shape (n_candidates,)"""
    outside_probability: Array
    """shape (n_events,)"""


@jit
def shannon_probabilities(values: Array, size: int, outside: bool, probs: Array) -> float:
    """Write softmax(values[:size]) to probs[:size]; return the no-click probability (value 0), 0 if
    not offered."""
    top = 0.0 if outside else -np.inf
    for i in range(size):
        top = max(top, values[i])
    total = np.exp(-top) if outside else 0.0
    none = total
    for i in range(size):
        probs[i] = np.exp(values[i] - top)
        total += probs[i]
    for i in range(size):
        probs[i] /= total
    return none / total


@jit
def l2_probabilities(
    values: Array, size: int, outside: bool, probs: Array, scratch: Array
) -> float:
    """Write the Euclidean projection of values[:size] onto the simplex to probs[:size]; return the
    no-click part.

    Insertion sort, then the threshold of the longest prefix that stays positive: values [1.2, 0.4,
    -1] → [0.9, 0.1, 0]."""
    count = size
    for i in range(size):
        scratch[i] = values[i]
    if outside:
        scratch[size] = 0.0
        count += 1
    for i in range(1, count):
        moved, j = scratch[i], i
        while j > 0 and scratch[j - 1] < moved:
            scratch[j] = scratch[j - 1]
            j -= 1
        scratch[j] = moved
    total, tau = 0.0, 0.0
    for i in range(count):
        total += scratch[i]
        if scratch[i] * (i + 1) <= total - 1.0:
            break
        tau = (total - 1.0) / (i + 1)
    for i in range(size):
        probs[i] = max(values[i] - tau, 0.0)
    return max(-tau, 0.0) if outside else 0.0


@jit
def draw_display(
    rng: np.random.Generator, size: int, skew: float, code_of_rank: Array, items: Array
) -> None:
    """Write `size` distinct item codes, ascending, to items[:size].

    Popularity rank floor(n U^skew) has density ∝ rank^(1/skew − 1): one power per draw however
    large the catalogue."""
    n_items = len(code_of_rank)
    held = 0
    while held < size:
        code = code_of_rank[min(int(n_items * rng.random() ** skew), n_items - 1)]
        place = held
        while place > 0 and items[place - 1] > code:
            place -= 1
        if place > 0 and items[place - 1] == code:
            continue
        for i in range(held, place, -1):
            items[i] = items[i - 1]
        items[place] = code
        held += 1


@jit
def _pick(draw: float, probs: Array, size: int) -> int:
    """Return the position that `draw` in [0, 1) falls on, or -1 for what lies beyond the
    candidates' mass."""
    reached = 0.0
    for i in range(size):
        reached += probs[i]
        if draw < reached:
            return i
    return -1


@jit
def _last_possible(probs: Array, size: int) -> int:
    """Where rounding left the mass a hair below 1, the draw falls on the last candidate that can be
    chosen at all."""
    last = size - 1
    while probs[last] == 0.0:
        last -= 1
    return last


@jit
def simulate(
    rng: np.random.Generator,
    session_offsets: Array,
    display_offsets: Array,
    display: DisplayLaw,
    known: KnownItems,
    taste: TasteLaw,
    law: ChoiceLaw,
    events: SimulatedEvents,
) -> None:
    """Fill `events`, in order.

    u(s, a) = base[a] + affinity ⟨s, latents[a]⟩ + repeat · [a was chosen before in the
    session]; s starts at 0 and becomes decay · s + (1 − decay) · latents[chosen] after an event
    (decay · s without a click)."""
    base, latents = known.base, known.latents
    dim = latents.shape[1]
    widest, longest = 1, 1
    for event in range(len(display_offsets) - 1):
        widest = max(widest, display_offsets[event + 1] - display_offsets[event])
    for session in range(len(session_offsets) - 1):
        longest = max(longest, session_offsets[session + 1] - session_offsets[session])
    values, probs, scratch = np.empty(widest), np.empty(widest), np.empty(widest + 1)
    state, chosen_before = np.empty(dim), np.empty(longest, np.int32)
    for session in range(len(session_offsets) - 1):
        state[:] = 0.0
        n_chosen = 0
        for event in range(session_offsets[session], session_offsets[session + 1]):
            start = display_offsets[event]
            size = display_offsets[event + 1] - start
            shown = events.items[start : start + size]
            draw_display(rng, size, display.skew, display.code_of_rank, shown)
            for i in range(size):
                code = shown[i]
                value = 0.0
                for d in range(dim):
                    value += state[d] * latents[code, d]
                value = base[code] + taste.affinity * value
                if taste.repeat != 0.0:
                    for j in range(n_chosen):
                        if chosen_before[j] == code:
                            value += taste.repeat
                            break
                events.utility[start + i] = value
                values[i] = law.eta * value
            if law.rule == L2:
                none = l2_probabilities(values, size, law.outside, probs, scratch)
            else:
                none = shannon_probabilities(values, size, law.outside, probs)
            for i in range(size):
                events.probability[start + i] = probs[i]
            events.outside_probability[event] = none
            choice = _pick(rng.random(), probs, size)
            if choice < 0 and not (law.outside and none > 0.0):
                choice = _last_possible(probs, size)
            events.choices[event] = choice
            for d in range(dim):
                state[d] *= taste.decay
                if choice >= 0:
                    state[d] += (1.0 - taste.decay) * latents[shown[choice], d]
            if choice >= 0:
                chosen_before[n_chosen] = shown[choice]
                n_chosen += 1
