"""Nearest neighbours in choices: item to item by co-choice, and session to session by the items
that both chose.

Sparse matrices come as compressed rows: row i holds columns `indices[indptr[i]:indptr[i + 1]]`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ._jit import Array, jit


class SparseRows(NamedTuple):
    """A sparse matrix of n rows."""

    indptr: Array
    """where each row starts in the others, shape (n + 1,)"""
    indices: Array
    """column of each entry, shape (n_entries,)"""
    values: Array
    """each entry, shape (n_entries,)"""


class SessionDisplays(NamedTuple):
    """The displays of whole sessions, and what was chosen of each."""

    session_offsets: Array
    """first event of each session, shape (n_sessions + 1,)"""
    display_offsets: Array
    """first candidate of each event, shape (n_events + 1,)"""
    token_offsets: Array
    """first choice of each session, shape (n_sessions + 1,)"""
    token_candidates: Array
    """candidate that each choice is, shape (n_tokens,); −1: no click"""
    items: Array
    """item of each candidate, shape (n_candidates,); −1: unknown"""


class ItemSums(NamedTuple):
    """Scratch of `score_by_items`; `sums`, `is_touched` are zero on entry and on exit."""

    sums: Array
    """shape (n_items,)"""
    touched: Array
    """items whose sum is not zero, shape (n_items,)"""
    is_touched: Array
    """whether an item is among them, shape (n_items,)"""


class SessionSums(NamedTuple):
    """Scratch of `score_by_sessions`; `sims`, `in_prefix` are zero on entry and on exit."""

    sims: Array
    """shape (n_training,)"""
    found: Array
    """training sessions whose similarity is not zero, shape (n_training,)"""
    in_prefix: Array
    """whether an item was chosen before, shape (n_items,)"""


class NeighbourSessions(NamedTuple):
    """Which training sessions chose an item, as compressed rows, and how similarities are made of
    it."""

    indptr: Array
    """where each item's sessions start, shape (n_items + 1,)"""
    sessions: Array
    """shape (n_entries,)"""
    norms: Array
    """what each session's similarity is divided by, shape (n_training,)"""
    by_position: bool
    """later choices weigh more"""


class ShareRule(NamedTuple):
    """How neighbours' similarities become a score."""

    most: int
    """neighbours that count; those that tie with the last of them count as well"""
    shrinkage: float
    """added to the sum that shares are taken of"""
    repeat: float
    """what an item scores more that was chosen before"""


@jit
def nearest_items(
    counts: SparseRows, support: Array, shrinkage: float, most: int, near: SparseRows
) -> None:
    """Keep each item's `most` nearest others, by counts[i, j] / √((support[i] + shrinkage) ·
    (support[j] + shrinkage)).

    counts is symmetric; its diagonal is left out. Of equal similarities at the limit the lower
    columns stay. The room in `near` must hold min(most, entries) per row; near.indptr[-1] says how
    much was used.

    Args:
        counts: how often both were chosen by one user, (n_items, n_items).
        support: how often each item was chosen, shape (n_items,).
        shrinkage: what draws the similarity of rare items to 0.
        most: neighbours of an item.
        near: what is written."""
    indptr, indices, values = counts
    near_indptr, near_indices, near_sims = near
    sims = np.empty(len(indices), np.float64)
    used = 0
    near_indptr[0] = 0
    for item in range(len(indptr) - 1):
        n_others = 0
        for i in range(indptr[item], indptr[item + 1]):
            if indices[i] != item:
                other = support[indices[i]] + shrinkage
                sims[n_others] = values[i] / math.sqrt((support[item] + shrinkage) * other)
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
    displays: SessionDisplays,
    near: SparseRows,
    repeat: float,
    decay: float,
    scratch: ItemSums,
    scores: Array,
) -> None:
    """Write Σ_j decay^j · sim(j-th newest choice before the event, candidate) per candidate; an
    item is `repeat` to itself.

    An unknown item scores 0, and as a choice it only ages the others. No click ages nothing.

    Args:
        displays: sessions whose candidates are scored.
        near: each item's neighbours and their similarities, (n_items, n_items).
        repeat: similarity of an item to itself.
        decay: weight of a choice relative to the next one.
        scratch: room to sum in.
        scores: what is written, shape (n_candidates,)."""
    # unpacked once: each access of a record counts a reference
    session_offsets, display_offsets, token_offsets, token_candidates, items = displays
    near_indptr, near_indices, near_sims = near
    sums, touched, is_touched = scratch
    for session in range(len(session_offsets) - 1):
        n_touched = 0
        first, start = session_offsets[session], token_offsets[session]
        for event in range(first, session_offsets[session + 1]):
            chosen = token_candidates[start + event - first - 1] if event > first else -1
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
def _meet(chosen: Array, items: Array, training: NeighbourSessions, scratch: SessionSums) -> int:
    """Write into `sims` how near each training session is to the choices so far; list those met,
    and return how many."""
    indptr, sessions, norms, by_position = training
    sims, found, in_prefix = scratch
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
        for i in range(indptr[item], indptr[item + 1]):
            session = sessions[i]
            if sims[session] == 0:
                found[n_found] = session
                n_found += 1
            sims[session] += weight
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
    displays: SessionDisplays,
    training: NeighbourSessions,
    rule: ShareRule,
    scratch: SessionSums,
    scores: Array,
) -> None:
    """Write, per candidate, its share among the training sessions nearest to the choices before the
    event.

    share(a) = Σ sim(n) · [n chose a] / (shrinkage + Σ sim(n)) over the `most` nearest sessions n
    (and those that tie with the last of them), and `repeat` more for an item chosen before. sim(n)
    sums, over the distinct items of the prefix that n chose, their weights, and is divided by
    norms[n]. Weights are i/m for the i-th of m choices, an item's latest counting, if
    `by_position`; otherwise 1/√(number of distinct items), which with norms √|n| is the cosine.
    Unknown items (−1) score 0 and keep their place among the m.

    Args:
        displays: sessions whose candidates are scored.
        training: the sessions that may be neighbours.
        rule: how similarities become a score.
        scratch: room to sum in.
        scores: what is written, shape (n_candidates,).
    """
    session_offsets, display_offsets, token_offsets, token_candidates, items = displays
    indptr, sessions = training.indptr, training.sessions
    sims, found, in_prefix = scratch
    for session in range(len(session_offsets) - 1):
        first, start = session_offsets[session], token_offsets[session]
        for event in range(first, session_offsets[session + 1]):
            chosen = token_candidates[start : start + event - first]
            n_found = _meet(chosen, items, training, scratch)
            total = _keep_nearest(rule.most, n_found, sims, found)
            for candidate in range(display_offsets[event], display_offsets[event + 1]):
                scores[candidate] = 0.0
                item = items[candidate]
                if item < 0:
                    continue
                shared = 0.0
                for i in range(indptr[item], indptr[item + 1]):
                    shared += sims[sessions[i]]
                if shared > 0:
                    scores[candidate] = shared / (rule.shrinkage + total)
                if in_prefix[item]:
                    scores[candidate] += rule.repeat
            for i in range(n_found):
                sims[found[i]] = 0.0
            for token in range(len(chosen)):
                if chosen[token] >= 0 and items[chosen[token]] >= 0:
                    in_prefix[items[chosen[token]]] = False
