"""Nearest neighbours in choices: item to item by co-choice, and session to session by the items
that both chose.

Sparse matrices come as compressed rows: row i holds columns `indices[indptr[i]:indptr[i + 1]]`.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import Array, jit


@jit
def nearest_items(
    indptr: Array,
    indices: Array,
    counts: Array,
    support: Array,
    shrinkage: float,
    most: int,
    near_indptr: Array,
    near_indices: Array,
    near_sims: Array,
) -> None:
    """Keep each item's `most` nearest others, by counts[i, j] / √((support[i] + shrinkage) ·
    (support[j] + shrinkage)).

    counts is symmetric; its diagonal is left out. Of equal similarities at the limit the lower
    columns stay. The room in `near_indices` and `near_sims` must hold min(most, entries) per row;
    near_indptr[-1] says how much was used."""
    sims = np.empty(len(indices), np.float64)
    used = 0
    near_indptr[0] = 0
    for item in range(len(indptr) - 1):
        n_others = 0
        for i in range(indptr[item], indptr[item + 1]):
            if indices[i] != item:
                other = support[indices[i]] + shrinkage
                sims[n_others] = counts[i] / math.sqrt((support[item] + shrinkage) * other)
                n_others += 1
        limit, room = -1.0, n_others
        if n_others > most:
            ranked = np.sort(sims[:n_others])
            limit = ranked[n_others - most]
            room = most
            for i in range(n_others - most, n_others):
                if ranked[i] > limit:
                    room -= 1
        # `room` neighbours may sit at the limit itself
        other = 0
        for i in range(indptr[item], indptr[item + 1]):
            if indices[i] == item:
                continue
            sim = sims[other]
            other += 1
            if sim > limit or (sim == limit and room > 0):
                if sim == limit:
                    room -= 1
                near_indices[used] = indices[i]
                near_sims[used] = sim
                used += 1
        near_indptr[item + 1] = used


@jit
def _add(
    sums: Array, touched: Array, is_touched: Array, n_touched: int, item: int, amount: float
) -> int:
    """Add to an item's sum and list it once; return how many are listed."""
    sums[item] += amount
    if is_touched[item]:
        return n_touched
    is_touched[item] = True
    touched[n_touched] = item
    return n_touched + 1


@jit
def score_by_items(
    session_offsets: Array,
    display_offsets: Array,
    token_offsets: Array,
    token_candidates: Array,
    items: Array,
    near_indptr: Array,
    near_indices: Array,
    near_sims: Array,
    repeat: float,
    decay: float,
    sums: Array,
    touched: Array,
    is_touched: Array,
    scores: Array,
) -> None:
    """Write Σ_j decay^j · sim(j-th newest choice before the event, candidate) per candidate; an
    item is `repeat` to itself.

    `items` holds each candidate's item, −1 for an unknown one: it scores 0, and as a choice it only
    ages the others. No click ages nothing. `sums`, `is_touched` are scratch (n_items,), zero on
    entry and on exit; `touched` likewise, any value."""
    for session in range(len(session_offsets) - 1):
        n_touched = 0
        first = session_offsets[session]
        for event in range(first, session_offsets[session + 1]):
            chosen = (
                token_candidates[token_offsets[session] + event - first - 1]
                if event > first
                else -1
            )
            if chosen >= 0:
                for i in range(n_touched):
                    sums[touched[i]] *= decay
                item = items[chosen]
                if item >= 0:
                    n_touched = _add(sums, touched, is_touched, n_touched, item, repeat)
                    for i in range(near_indptr[item], near_indptr[item + 1]):
                        n_touched = _add(
                            sums, touched, is_touched, n_touched, near_indices[i], near_sims[i]
                        )
            for candidate in range(display_offsets[event], display_offsets[event + 1]):
                scores[candidate] = sums[items[candidate]] if items[candidate] >= 0 else 0.0
        for i in range(n_touched):
            sums[touched[i]] = 0.0
            is_touched[touched[i]] = False


@jit
def _meet(
    chosen: Array,
    items: Array,
    of_item_indptr: Array,
    of_item: Array,
    norms: Array,
    by_position: bool,
    sims: Array,
    found: Array,
    in_prefix: Array,
) -> int:
    """Write into `sims` how near each training session is to the choices so far; list those met,
    and return how many."""
    length = 0
    for token in range(len(chosen)):
        if chosen[token] >= 0:
            length += 1
    n_found, distinct, place = 0, 0, length
    for token in range(len(chosen) - 1, -1, -1):
        if chosen[token] < 0:
            continue
        item = items[chosen[token]]
        weight = place / length if by_position else 1.0
        place -= 1
        if item < 0 or in_prefix[item]:
            continue
        in_prefix[item] = True
        distinct += 1
        for i in range(of_item_indptr[item], of_item_indptr[item + 1]):
            if sims[of_item[i]] == 0:
                found[n_found] = of_item[i]
                n_found += 1
            sims[of_item[i]] += weight
    scale = 1.0 if by_position else math.sqrt(distinct)
    for i in range(n_found):
        sims[found[i]] /= norms[found[i]] * scale
    return n_found


@jit
def _keep_nearest(most: int, n_found: int, sims: Array, found: Array) -> float:
    """Put 0 for all but the `most` nearest and those that tie with the last of them; return the
    sum."""
    if n_found > most:
        limit = np.sort(sims[found[:n_found]])[n_found - most]
        for i in range(n_found):
            if sims[found[i]] < limit:
                sims[found[i]] = 0.0
    total = 0.0
    for i in range(n_found):
        total += sims[found[i]]
    return total


@jit
def score_by_sessions(
    session_offsets: Array,
    display_offsets: Array,
    token_offsets: Array,
    token_candidates: Array,
    items: Array,
    of_item_indptr: Array,
    of_item: Array,
    norms: Array,
    by_position: bool,
    most: int,
    shrinkage: float,
    repeat: float,
    sims: Array,
    found: Array,
    in_prefix: Array,
    scores: Array,
) -> None:
    """Write, per candidate, its share among the training sessions nearest to the choices before the
    event.

    share(a) = Σ sim(n) · [n chose a] / (shrinkage + Σ sim(n)) over the `most` nearest sessions n
    (and those that tie with the last of them), and `repeat` more for an item chosen before. sim(n)
    sums, over the distinct items of the prefix that n chose, their weights, and is divided by
    norms[n]. Weights are i/m for the i-th of m choices, an item's latest counting, if
    `by_position`; otherwise 1/√(number of distinct items), which with norms √|n| is the cosine.

    Row i of (of_item_indptr, of_item) lists the training sessions that chose item i. `sims`
    (n_training,), `in_prefix` (n_items,) are scratch, zero on entry and on exit; `found`
    (n_training,) likewise, any value. Unknown items (−1) score 0 and keep their place among the m.
    """
    for session in range(len(session_offsets) - 1):
        first, start = session_offsets[session], token_offsets[session]
        for event in range(first, session_offsets[session + 1]):
            chosen = token_candidates[start : start + event - first]
            n_found = _meet(
                chosen, items, of_item_indptr, of_item, norms, by_position, sims, found, in_prefix
            )
            total = _keep_nearest(most, n_found, sims, found)
            for candidate in range(display_offsets[event], display_offsets[event + 1]):
                scores[candidate] = 0.0
                item = items[candidate]
                if item < 0:
                    continue
                shared = 0.0
                for i in range(of_item_indptr[item], of_item_indptr[item + 1]):
                    shared += sims[of_item[i]]
                if shared > 0:
                    scores[candidate] = shared / (shrinkage + total)
                if in_prefix[item]:
                    scores[candidate] += repeat
            for i in range(n_found):
                sims[found[i]] = 0.0
            for token in range(len(chosen)):
                if chosen[token] >= 0 and items[chosen[token]] >= 0:
                    in_prefix[items[chosen[token]]] = False
