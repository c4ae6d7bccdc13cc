"""Users of the synthetic world, shown slates: utilities that are known, a draw by key, and the
state moved on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import Array, jit, jit_part
from .keyed import uniform
from .synthetic import (
    L2,
    ChoiceLaw,
    KnownItems,
    TasteLaw,
    l2_probabilities,
    shannon_probabilities,
)


class BaitLaw(NamedTuple):
    """What makes users bored: boredom rises by 1 after bait, else it falls, within 0 … most."""

    is_bait: Array
    """shape (n_items,)"""
    cost: float
    """taken from every utility per unit of boredom"""
    recovery: float
    most: float


class TrueUsers(NamedTuple):
    """The users' states."""

    taste: Array
    """shape (n, dim)"""
    boredom: Array
    """shape (n,)"""
    chosen_before: Array
    """shape (n, n_items), or (n, 0) where nothing depends on it"""


class TrueWeights(NamedTuple):
    """What slates are to their users."""

    utilities: Array
    """shape (n, k)"""
    probs: Array
    """shape (n, k)"""
    none: Array
    """of no click, shape (n,)"""


class TrueChoices(NamedTuple):
    """What users chose."""

    places: Array
    """shape (n,)"""
    items: Array
    """shape (n,)"""
    utilities: Array
    """shape (n,)"""


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
    users: TrueUsers,
    known: KnownItems,
    law: TasteLaw,
    bait: BaitLaw,
    out: Array,
) -> None:
    """Write u(user, item), (n, m), 0 at an empty place; pools (n, m), or (1, m) for all users.

    u = base + affinity ⟨taste, latents[item]⟩ + repeat · [chosen before] − cost · boredom."""
    taste, latents = users.taste, known.latents
    for user in range(first, last):
        for place in range(pools.shape[1]):
            item = pools[user if len(pools) > 1 else 0, place]
            if item < 0:
                out[user, place] = 0.0
                continue
            product = 0.0
            for d in range(taste.shape[1]):
                product += taste[user, d] * latents[item, d]
            value = known.base[item] + law.affinity * product - bait.cost * users.boredom[user]
            if law.repeat != 0.0 and users.chosen_before[user, item]:
                value += law.repeat
            out[user, place] = value


@jit
def true_probabilities(
    first: int,
    last: int,
    slates: Array,
    law: ChoiceLaw,
    weights: TrueWeights,
) -> None:
    """Write the probability of each displayed place, (n, k), 0 for others, and of no click; one
    where nothing is displayed."""
    utilities, probs, none = weights
    outside = law.outside
    k = slates.shape[1]
    values, shares, scratch = np.empty(k), np.empty(k), np.empty(k + 1)
    for user in range(first, last):
        size = 0
        for place in range(k):
            if _displayed(slates[user], place):
                values[size] = law.eta * utilities[user, place]
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
    first: int,
    last: int,
    slates: Array,
    active: Array,
    keys: Array,
    weights: TrueWeights,
    latents: Array,
    decay: float,
    bait: BaitLaw,
    users: TrueUsers,
    choices: TrueChoices,
) -> None:
    """Draw the active users' choices by their keys and move their states. An empty slate is an
    event without a click."""
    utilities, probs, none = weights
    taste, boredom, chosen_before = users
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
        step = -bait.recovery
        if choice >= 0:
            item = slates[user, choice]
            choices.places[user], choices.items[user] = choice, item
            choices.utilities[user] = utilities[user, choice]
            for d in range(taste.shape[1]):
                taste[user, d] += (1.0 - decay) * latents[item, d]
            if chosen_before.shape[1] > 0:
                chosen_before[user, item] = True
            if bait.is_bait[item]:
                step = 1.0
        boredom[user] = min(max(boredom[user] + step, 0.0), bait.most)
