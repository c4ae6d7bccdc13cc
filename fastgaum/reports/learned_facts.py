"""What the reward learned: utility by the item's popularity, by what the session has seen of it,
and by item.

Only differences within a display set decide a choice among its candidates, and where no click is
not offered nothing else is learned at all. So what is averaged here is a candidate's utility minus
the mean of its display set, over display sets of several candidates; 1 more multiplies the odds
against a rival by e^eta under Shannon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.metrics.calibration import candidate_outcomes
from fastgaum.metrics.sums import cut
from fastgaum.reports.scored_split import Float64Array, ItemCounts, Scored

TENTHS = 10
EXTREMES = 8
"""items listed at each end"""
LEAST_DISPLAYS = (10, 5, 3, 2, 1)
"""an item is listed if it was displayed so often on the split; the first that leaves enough items
is taken"""

Group = dict[str, Any]
BoolArray = npt.NDArray[np.bool_]


def learned_facts(scored: Scored, counts: ItemCounts) -> dict[str, Any]:
    """Groups of candidates and extreme items, for JSON."""
    several = np.repeat(scored.sizes > 1, scored.sizes)
    average = _Averages(scored, several)
    return {
        "n_candidates": int(several.sum()),
        "popularity": _by_popularity(average, counts, scored, several),
        "in_training": _in_training(average, counts, scored),
        "in_session": _in_session(average, scored),
        **_extremes(average, counts, scored, several),
    }


class _Averages:
    """Means over candidates of display sets of several."""

    def __init__(self, scored: Scored, several: BoolArray) -> None:
        self.several = several
        self.advantage = scored.advantage()
        self.chosen = candidate_outcomes(scored.part.display_offsets, scored.part.choices)
        self.predicted = np.exp(scored.reward.log_probs.astype(np.float64))

    def of(self, label: str, among: BoolArray) -> Group:
        """A group: utility against its display set's mean with its 10 % and 90 % quantiles, chosen,
        predicted, n."""
        cases = among & self.several
        n = int(cases.sum())
        if n == 0:
            return {
                "label": label,
                "n": 0,
                "utility": None,
                "low": None,
                "high": None,
                "chosen": None,
                "predicted": None,
            }
        low, high = np.quantile(self.advantage[cases], [0.1, 0.9])
        means = (
            float(values[cases].mean()) for values in (self.advantage, self.chosen, self.predicted)
        )
        utility, chosen, predicted = means
        return {
            "label": label,
            "n": n,
            "utility": utility,
            "low": float(low),
            "high": float(high),
            "chosen": chosen,
            "predicted": predicted,
        }


def _by_popularity(
    average: _Averages, counts: ItemCounts, scored: Scored, several: BoolArray
) -> list[Group]:
    levels = counts.choices[scored.items]
    if not several.any():
        return []
    edges, labels = cut(levels[several], TENTHS)
    group = np.searchsorted(edges, levels)
    return [average.of(label, group == i) for i, label in enumerate(labels)]


def _in_training(average: _Averages, counts: ItemCounts, scored: Scored) -> list[Group]:
    displays, choices = counts.displays[scored.items], counts.choices[scored.items]
    return [
        average.of("never displayed", displays == 0),
        average.of("displayed, never chosen", (displays > 0) & (choices == 0)),
        average.of("chosen", choices > 0),
    ]


def _in_session(average: _Averages, scored: Scored) -> list[Group]:
    later = np.repeat(scored.event_number > 0, scored.sizes)
    shown, picked = scored.displayed_before > 0, scored.chosen_before > 0
    return [
        average.of("new to the session", later & ~shown),
        average.of("displayed before, not chosen", later & shown & ~picked),
        average.of("chosen before", later & picked),
    ]


def _extremes(
    average: _Averages, counts: ItemCounts, scored: Scored, several: BoolArray
) -> dict[str, Any]:
    """The items with the largest and the smallest mean utility, of those displayed often enough to
    say so."""
    n_items = scored.log.n_items
    items = scored.items[several]
    displays = np.bincount(items, minlength=n_items)
    chosen = np.bincount(items, average.chosen[several], minlength=n_items)
    total = np.bincount(items, average.advantage[several], minlength=n_items)
    least = next((n for n in LEAST_DISPLAYS if (displays >= n).sum() >= 2 * EXTREMES), 1)
    listed = np.flatnonzero(displays >= least)
    mean: Float64Array = total[listed] / displays[listed]
    order = np.argsort(-mean, kind="stable")
    n = min(EXTREMES, len(listed) // 2)

    def rows(places: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "item": scored.log.item_ids[int(listed[place])],
                "utility": float(mean[place]),
                "displays": int(displays[listed[place]]),
                "chosen": int(chosen[listed[place]]),
                "training_displays": int(counts.displays[listed[place]]),
                "training_choices": int(counts.choices[listed[place]]),
            }
            for place in places
        ]

    return {
        "least_displays": least,
        "n_items": len(listed),
        "largest": rows(order[:n].tolist()),
        "smallest": rows(order[::-1][:n].tolist()),
    }
