"""Rankings of whole displays: one ranking against the set of all its clicks.

A log that was read with `clicks="each"` has several choice events of one display. The ranking is
that of the first of them, the clicks are those of all. For one display with R clicks among n
candidates, ranks counted from 1:

    recall@k  share of the R clicks whose rank is at most k
    MRR       1 / rank of the best-ranked click (reciprocal rank: Voorhees, The TREC-8 Question
              Answering Track Report, 1999)
    NDCG      sum over clicks of 1 / log2(1 + rank), over the same sum for the ranks 1 … R
              (Järvelin & Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002, with
              gains of 0 and 1, over the whole display)
    AUC       share of the R (n - R) pairs of a click and another candidate in which the click
              ranks higher (Hanley & McNeil, The meaning and use of the area under a receiver
              operating characteristic curve, 1982); none where all are clicked

Ties are counted by their exact expectation (McSherry & Najork, Computing information retrieval
performance measures efficiently in the presence of tied scores, 2008). Denominator: displays with a
click."""

from __future__ import annotations

from collections.abc import Iterable
from math import comb

import numpy as np

from fastgaum.arrays import BoolArray, Float64Array, IntArray
from fastgaum.kernels.ranking import rank_counts
from fastgaum.logs.cut import pick_rows
from fastgaum.metrics.precision import AnyFloats, AnyInts, require_finite


def clicks_of_displays(choices: AnyInts, first_choices: BoolArray) -> tuple[IntArray, IntArray]:
    """The first event of each click's display, ascending, and the position of the clicked candidate
    there, (n_clicks,) each. An event displays what is left of the event before, so a position
    counts the clicks before it back in.

    Args:
        choices: position of each event's choice, -1 for none, shape (n_events,).
        first_choices: whether an event is the first of its display, shape (n_events,).

    The third of four candidates is clicked, and then the third of the other three:

    >>> choices, first = np.array([2, 2, -1]), np.array([True, False, False])
    >>> clicks_of_displays(choices, first)[1].tolist()
    [2, 3]
    """
    starts = np.flatnonzero(first_choices)
    first = starts[np.cumsum(first_choices) - 1]
    events = np.flatnonzero(np.asarray(choices) >= 0)
    first = first[events]
    positions, before = np.array(choices, np.int32)[events], events - first
    for number in range(int(before.max(initial=0)) - 1, -1, -1):
        later = np.flatnonzero(before > number)
        positions[later] += positions[later] >= np.asarray(choices)[first[later] + number]
    return first.astype(np.int32), positions


def rank_displays(
    scores: AnyFloats,
    display_offsets: AnyInts,
    events: IntArray,
    positions: IntArray,
    ks: Iterable[int],
) -> dict[str, Float64Array]:
    """Rank every display, and find its clicks in the ranking: {"recall1": …, "mrr": …, "ndcg": …,
    "auc": …}, in [0, 1], at the display's first event, NaN elsewhere and without a click,
    (n_events,) each.

    scores (n_candidates,), higher is better; display_offsets (n_events + 1,); `events` and
    `positions` as of `clicks_of_displays`. Raises NumericsError
    for a score that is not finite.

    Two of four candidates are clicked, the best and the third:

    >>> scores, offsets = np.array([4.0, 3.0, 2.0, 1.0]), np.array([0, 4])
    >>> clicks = np.array([0, 0], np.int32), np.array([0, 2], np.int32)
    >>> found = rank_displays(scores, offsets, *clicks, [2])
    >>> {name: float(values[0].round(3)) for name, values in found.items()}
    {'recall2': 0.5, 'mrr': 1.0, 'ndcg': 0.92, 'auc': 0.75}
    """
    require_finite(scores, display_offsets)
    offsets, candidates = pick_rows(np.asarray(display_offsets, np.int32), events)
    better, tied = rank_counts(
        np.ascontiguousarray(scores[candidates], np.float64), offsets, positions
    )
    displays, first, of_click = np.unique(events, return_index=True, return_inverse=True)
    n_clicks = np.bincount(of_click)
    n_events, longest = len(display_offsets) - 1, int(np.diff(display_offsets).max(initial=0))
    ranks = np.arange(1.0, longest + 1)
    discounts = np.concatenate(([0.0], np.cumsum(1 / np.log2(1 + ranks))))
    reciprocals = np.concatenate(([0.0], np.cumsum(1 / ranks)))

    def at_events(values: Float64Array) -> Float64Array:
        every = np.full(n_events, np.nan)
        every[displays] = values
        return every

    # a click has each of the ranks better + 1 … better + tied + 1 alike
    last = better + tied + 1
    gains = (discounts[last] - discounts[better]) / (tied + 1)
    best = np.minimum.reduceat(better, first) if len(first) else better
    at_best = better == best[of_click]
    n_best = np.bincount(of_click[at_best], minlength=len(displays))
    width = np.zeros(len(displays), np.int64)
    width[of_click[at_best]] = tied[at_best] + 1
    mrr = (reciprocals[best + width] - reciprocals[best]) / np.maximum(width, 1)
    for display in np.flatnonzero(n_best > 1):
        numbers = (int(of[display]) for of in (best, width, n_best))
        mrr[display] = _best_of_several(*numbers)
    found = {
        f"recall{k}": np.bincount(of_click, np.clip((k - better) / (tied + 1.0), 0, 1)) / n_clicks
        for k in ks
    }
    # a click is above those that follow it and half of those that tie; two clicks make one pair
    # that each order ranks rightly
    above = np.bincount(of_click, np.diff(offsets) - 1 - better - tied / 2)
    pairs = n_clicks * (np.diff(display_offsets)[displays] - n_clicks)
    right = above - n_clicks * (n_clicks - 1) / 2
    found |= {"mrr": mrr, "ndcg": np.bincount(of_click, gains) / discounts[n_clicks]}
    found["auc"] = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return {name: at_events(values) for name, values in found.items()}


def _best_of_several(better: int, tied: int, n_clicks: int) -> float:
    """Expected 1 / rank of the best of `n_clicks` clicks among `tied` candidates of one score, with
    `better` candidates before them."""
    orders = comb(tied, n_clicks)
    return sum(
        comb(tied - 1 - place, n_clicks - 1) / orders / (better + 1 + place)
        for place in range(tied - n_clicks + 1)
    )
