"""Users of the synthetic world, shown slates: utilities that are known, a draw by key, and the
state moved on."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit, jit_part
from .keyed import uniform
from .synthetic import L2, l2_probabilities, shannon_probabilities


@jit_part
def _displayed(slate: Array, place: int) -> bool:
    """Whether a place shows something: an item that does not stand earlier in the slate."""
    shown = bool(slate[place] >= 0)
    for other in range(place):
        shown = shown and slate[other] != slate[place]
    return shown


@jit
def true_utilities(
    first: int,
    last: int,
    pools: Array,
    shared: bool,
    taste: Array,
    boredom: Array,
    chosen_before: Array,
    base: Array,
    latents: Array,
    affinity: float,
    repeat: float,
    cost: float,
    out: Array,
) -> None:
    """Write u(user, item), (n, m), 0 at an empty place; `shared`: row 0 of `pools` is everybody's.

    u = base + affinity ⟨taste, latents[item]⟩ + repeat · [chosen before] − cost · boredom;
    chosen_before (n, n_items), or (n, 0) where repeat is 0."""
    for user in range(first, last):
        for place in range(pools.shape[1]):
            item = pools[0 if shared else user, place]
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
    utilities: Array,
    eta: float,
    rule: int,
    outside: bool,
    probs: Array,
    none: Array,
) -> None:
    """Write the probability of each displayed place, (n, k), 0 for others, and of no click; one
    where nothing is displayed."""
    k = slates.shape[1]
    values, shares, scratch = np.empty(k), np.empty(k), np.empty(k + 1)
    for user in range(first, last):
        size = 0
        for place in range(k):
            if _displayed(slates[user], place):
                values[size] = eta * utilities[user, place]
                size += 1
        if size == 0:
            none[user] = 1.0
        elif rule == L2:
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
    first: int,
    last: int,
    slates: Array,
    active: Array,
    keys: Array,
    probs: Array,
    none: Array,
    utilities: Array,
    latents: Array,
    decay: float,
    bait: Array,
    recovery: float,
    most: float,
    taste: Array,
    boredom: Array,
    chosen_before: Array,
    places: Array,
    items: Array,
    of_choice: Array,
) -> None:
    """Draw the active users' choices by their keys and move their states: taste, (n, dim), and
    boredom, (n,).

    taste becomes decay · taste + (1 − decay) · latents[chosen]; boredom rises by 1 after bait, else
    falls by `recovery`, within 0 … most. An empty slate is an event without a click."""
    for user in range(first, last):
        if not active[user]:
            continue
        draw, reached, choice, possible = uniform(keys[user]), 0.0, -1, -1
        for place in range(slates.shape[1]):
            reached += probs[user, place]
            if probs[user, place] > 0.0:
                possible = place
            if draw < reached:
                choice = place
                break
        if choice < 0 and none[user] <= 0.0:
            choice = possible
        for d in range(taste.shape[1]):
            taste[user, d] *= decay
        step = -recovery
        if choice >= 0:
            item = slates[user, choice]
            places[user], items[user] = choice, item
            of_choice[user] = utilities[user, choice]
            for d in range(taste.shape[1]):
                taste[user, d] += (1.0 - decay) * latents[item, d]
            if chosen_before.shape[1] > 0:
                chosen_before[user, item] = True
            if bait[item]:
                step = 1.0
        boredom[user] = min(max(boredom[user] + step, 0.0), most)
