"""The synthetic user, in a log and in a world."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_leaf
from .draws import choose

SHANNON, L2 = 0, 1


class UtilityLaw(NamedTuple):
    """Makes utilities; a taste becomes decay · taste + (1 − decay) · latents[chosen]."""

    base: Array  # utility without a user, (n_items,)
    latents: Array  # direction of each item, (n_items, dim)
    affinity: float  # weight of ⟨taste, latents[item]⟩
    repeat: float  # added for an item that was chosen before
    decay: float


class ChoiceLaw(NamedTuple):
    """Turns utilities into choices."""

    eta: float
    rule: int  # SHANNON or L2
    outside: bool  # whether a user may choose nothing
    log_examination: Array  # added to eta · u by place, the last for further places, (n_places,)


class DisplayDraw(NamedTuple):
    """Draws displays."""

    skew: float
    code_of_rank: Array  # item of each popularity rank, (n_items,)
    sort_keys: Array  # displays are sorted by these of their items, all different, (n_items,)
    shuffled: bool  # whether their order is drawn instead


class SimulatedEvents(NamedTuple):
    """A log, event by event: (n_candidates,), or (n_events,) for choices and
    outside_probability."""

    items: Array
    choices: Array
    utility: Array
    probability: Array
    outside_probability: Array


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
    no-click part. [1.2, 0.4, -1] → [0.9, 0.1, 0]"""
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
def draw_display(rng: np.random.Generator, size: int, law: DisplayDraw, items: Array) -> None:
    """Write `size` distinct item codes, in the order of the law, to items[:size].

    Popularity rank floor(n U^skew) has density ∝ rank^(1/skew − 1)."""
    skew, code_of_rank, sort_keys, shuffled = law
    n_items = len(code_of_rank)
    held = 0
    while held < size:
        code = code_of_rank[min(int(n_items * rng.random() ** skew), n_items - 1)]
        place = held
        while place > 0 and sort_keys[items[place - 1]] > sort_keys[code]:
            place -= 1
        if place > 0 and items[place - 1] == code:
            continue
        for i in range(held, place, -1):
            items[i] = items[i - 1]
        items[place] = code
        held += 1
    for last in range(size - 1 if shuffled else 0, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]


@jit_leaf
def _pick(draw: float, probs: Array, none: float) -> int:
    """The place that a draw in [0, 1) falls on, −1 for no click; mass that rounding leaves falls on
    the last that is possible."""
    reached, possible = 0.0, -1
    for place in range(len(probs)):
        reached += probs[place]
        if probs[place] > 0.0:
            possible = place
        if draw < reached:
            return place
    return -1 if none > 0.0 else possible


@jit
def simulate(
    rng: np.random.Generator,
    session_offsets: Array,
    display_offsets: Array,
    display: DisplayDraw,
    utility: UtilityLaw,
    law: ChoiceLaw,
    events: SimulatedEvents,
) -> None:
    """Fill `events`, in order.

    u(s, a) = base[a] + affinity ⟨s, latents[a]⟩ + repeat · [a was chosen before in the session]; s
    starts at 0 and becomes decay · s + (1 − decay) · latents[chosen] after an event (decay · s
    without a click)."""
    base, latents, affinity, repeat, decay = utility
    dim, examination = latents.shape[1], law.log_examination
    furthest = len(examination) - 1
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
            draw_display(rng, size, display, shown)
            for i in range(size):
                code = shown[i]
                value = 0.0
                for d in range(dim):
                    value += state[d] * latents[code, d]
                value = base[code] + affinity * value
                if repeat != 0.0:
                    for j in range(n_chosen):
                        if chosen_before[j] == code:
                            value += repeat
                            break
                events.utility[start + i] = value
                values[i] = law.eta * value + examination[min(i, furthest)]
            if law.rule == L2:
                none = l2_probabilities(values, size, law.outside, probs, scratch)
            else:
                none = shannon_probabilities(values, size, law.outside, probs)
            for i in range(size):
                events.probability[start + i] = probs[i]
            events.outside_probability[event] = none
            choice = _pick(rng.random(), probs[:size], none)
            events.choices[event] = choice
            for d in range(dim):
                state[d] *= decay
                if choice >= 0:
                    state[d] += (1.0 - decay) * latents[shown[choice], d]
            if choice >= 0:
                chosen_before[n_chosen] = shown[choice]
                n_chosen += 1


class TrueLaw(NamedTuple):
    """Moves users of a world; boredom rises by 1 after bait, else it falls, within 0 … most."""

    utility: UtilityLaw
    is_bait: Array  # (n_items,)
    cost: float  # taken from every utility per unit of boredom
    recovery: float
    most: float


class TrueUsers(NamedTuple):
    """The users' states."""

    taste: Array  # (n, dim)
    boredom: Array  # (n,)
    chosen_before: Array  # (n, n_items), or (n, 0) where nothing depends on it


class TrueWeights(NamedTuple):
    """Utilities and probabilities of slates."""

    utilities: Array  # (n, k)
    probs: Array  # (n, k)
    none: Array  # of no click, (n,)


class TrueChoices(NamedTuple):
    """The users' choices, (n,) each."""

    places: Array
    items: Array
    utilities: Array


@jit_leaf
def _displayed(slate: Array, place: int) -> bool:
    """Whether a place shows an item that does not stand earlier in the slate."""
    shown = bool(slate[place] >= 0)
    for other in range(place):
        shown = shown and slate[other] != slate[place]
    return shown


@jit
def true_utilities(
    first: int,
    last: int,
    pools: Array,
    users: TrueUsers,
    law: TrueLaw,
    out: Array,
) -> None:
    """Write u(user, item), (n, m), 0 at an empty place; pools (n, m), or (1, m) for all.

    u = base + affinity ⟨taste, latents[item]⟩ + repeat · [chosen before] − cost · boredom."""
    taste, boredom, chosen_before = users
    base, latents, affinity, repeat, _ = law.utility
    cost = law.cost
    for user in range(first, last):
        for place in range(pools.shape[1]):
            item = pools[user if len(pools) > 1 else 0, place]
            if item < 0:
                out[user, place] = 0.0
                continue
            product = 0.0
            for d in range(taste.shape[1]):
                product += taste[user, d] * latents[item, d]
            value = base[item] + affinity * product - cost * boredom[user]
            if repeat != 0.0 and chosen_before[user, item]:
                value += repeat
            out[user, place] = value


@jit
def true_probabilities(
    first: int,
    last: int,
    slates: Array,
    law: ChoiceLaw,
    weights: TrueWeights,
) -> None:
    """Write the probability of each displayed place, (n, k), 0 for others, and of no click; 1 where
    nothing is displayed."""
    utilities, probs, none = weights
    outside, examination = law.outside, law.log_examination
    k, furthest = slates.shape[1], len(examination) - 1
    values, shares, scratch = np.empty(k), np.empty(k), np.empty(k + 1)
    for user in range(first, last):
        size = 0
        for place in range(k):
            if _displayed(slates[user], place):
                seen = examination[min(size, furthest)]
                values[size] = law.eta * utilities[user, place] + seen
                size += 1
        if size == 0:
            none[user] = 1.0
        elif law.rule == L2:
            none[user] = l2_probabilities(values, size, outside, shares, scratch)
        else:
            none[user] = shannon_probabilities(values, size, outside, shares)
        size = 0
        for place in range(k):
            probs[user, place] = 0.0
            if _displayed(slates[user], place):
                probs[user, place] = shares[size]
                size += 1


@jit
def true_step(
    rows: Array,
    slates: Array,
    keys: Array,
    weights: TrueWeights,
    law: TrueLaw,
    users: TrueUsers,
    choices: TrueChoices,
) -> None:
    """Draw the choices of the users `rows` by their keys, (n,), and move their states. An empty
    slate is an event without a click."""
    utilities, probs, none = weights
    taste, boredom, chosen_before = users
    places, items, utilities_chosen = choices
    latents, decay = law.utility.latents, law.utility.decay
    _, is_bait, _, recovery, most = law
    for user in rows:
        choice = choose(keys[user], slates[user], probs[user], none[user])
        for d in range(taste.shape[1]):
            taste[user, d] *= decay
        step = -recovery
        if choice >= 0:
            item = slates[user, choice]
            places[user], items[user] = choice, item
            utilities_chosen[user] = utilities[user, choice]
            for d in range(taste.shape[1]):
                taste[user, d] += (1.0 - decay) * latents[item, d]
            if chosen_before.shape[1] > 0:
                chosen_before[user, item] = True
            if is_bait[item]:
                step = 1.0
        boredom[user] = min(max(boredom[user] + step, 0.0), most)
