"""Slates of many users: rows of k places, displayed as packed sets without repeats."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit
from .draws import choose

FEW_PLACES = 32
"""places up to which repeats are found by comparing pairs"""


@jit
def find_displayed(
    slates: Array, users: Array, n_items: int, offsets: Array, items: Array, places: Array
) -> int:
    """Write the displays of some users: start of each, (n_users + 1,), item and place of each
    candidate; return how many. slates: of all users, (n, k), -1 where nothing is shown."""
    k, n = slates.shape[1], 0
    seen = np.zeros(n_items if k > FEW_PLACES else 0, np.int32)
    offsets[0] = 0
    for event in range(len(users)):
        for place in range(k):
            item, first = slates[users[event], place], offsets[event]
            if item >= 0 and k > FEW_PLACES:
                if seen[item] == event + 1:
                    item = -1
                else:
                    seen[item] = event + 1
            elif item >= 0:
                for other in range(first, n):
                    if items[other] == item:
                        item = -1
                        break
            if item >= 0:
                items[n], places[n] = item, place
                n += 1
        offsets[event + 1] = n
    return n


@jit
def draw_choices(
    offsets: Array, items: Array, probs: Array, none: Array, keys: Array, chosen: Array
) -> None:
    """Draw the candidate that each user chooses by its key, (n_events,), -1 for no click.

    items, probs: of each candidate; none: of no click, (n_events,)."""
    for event in range(len(keys)):
        start, end = offsets[event], offsets[event + 1]
        place = choose(keys[event], items[start:end], probs[start:end], none[event])
        chosen[event] = start + place if place >= 0 else -1


@jit
def slates_of(actions: Array, pools: Array, active: Array, strict: bool, slates: Array) -> int:
    """Write slates[i, j] = pools[i, actions[i, j]] of active users; one pool may stand for all.

    Return -1, or the flat place of the first action outside the pool or, if strict, repeated."""
    n_users, width = actions.shape
    size, shared = pools.shape[1], len(pools) == 1
    for i in range(n_users):
        if not active[i]:
            continue
        row = 0 if shared else i
        for j in range(width):
            action = actions[i, j]
            if action < 0 or action >= size:
                return int(i * width + j)
            slates[i, j] = pools[row, action]
        for j in range(1, width if strict else 0):
            for h in range(j):
                if actions[i, h] == actions[i, j]:
                    return int(i * width + j)
    return -1
