"""Example displays: what was shown, what the model expected, what was chosen. Picked by rule, never
by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastgaum.reports.scored_split import Scored

MOST_SHOWN = 10
"""candidates listed of a display, those of the largest utility, and the logged choice"""
HISTORY = 5
"""choices listed before an example"""


def example_displays(scored: Scored) -> list[dict[str, Any]]:
    """A few events by the reward's probability of what happened: expected, typical, a surprise, and
    one without a click."""
    return [_example(scored, event, why) for why, event in _picked(scored)]


def _picked(scored: Scored) -> Iterator[tuple[str, int]]:
    """Why and which event; display sets of several candidates, later events of a session where
    there are any."""
    choices = scored.part.choices
    surprise = scored.nll("reward")
    several = (scored.sizes > 1) & (choices >= 0)
    later = several & (scored.event_number > 0)
    events = np.flatnonzero(later if later.sum() >= 3 else several)
    taken = set()
    if len(events):
        order = events[np.argsort(surprise[events], kind="stable")]
        for why, place in (
            ("as expected", 0),
            ("typical", (len(order) - 1) // 2),
            ("a surprise", len(order) - 1),
        ):
            if order[place] not in taken:
                taken.add(order[place])
                yield why, int(order[place])
    away = np.flatnonzero((choices < 0) & (scored.sizes > 1))
    if len(away):
        order = away[np.argsort(surprise[away], kind="stable")]
        yield "without a click", int(order[(len(order) - 1) // 2])


def _example(scored: Scored, event: int, why: str) -> dict[str, Any]:
    log, part = scored.log, scored.part
    start, stop = int(part.display_offsets[event]), int(part.display_offsets[event + 1])
    choice = int(part.choices[event])
    session = int(np.searchsorted(part.session_offsets, event, side="right")) - 1
    utility = scored.reward.scores[start:stop]
    order = np.argsort(-utility, kind="stable")
    shown = [
        place for rank, place in enumerate(order.tolist()) if rank < MOST_SHOWN or place == choice
    ]
    heads = scored.scores.heads
    first = int(part.session_offsets[session])
    return {
        "why": why,
        "session": log.session_ids[int(part.rows[session])],
        "number": event - first + 1,
        "history": [
            _choice_of(scored, before) for before in range(max(first, event - HISTORY), event)
        ],
        "n_before": event - first,
        "candidates": [
            {
                "item": log.item_ids[int(scored.items[start + place])],
                "utility": float(utility[place]),
                "chosen": place == choice,
                "probability": {
                    name: float(np.exp(head.log_probs[start + place]))
                    for name, head in heads.items()
                },
            }
            for place in shown
        ],
        "n_candidates": stop - start,
        "no_click": {
            name: float(np.exp(head.outside_log_prob[event])) for name, head in heads.items()
        }
        if scored.outside
        else None,
        "clicked": choice >= 0,
    }


def _choice_of(scored: Scored, event: int) -> str | None:
    """The item that an event chose; None for no click."""
    choice = int(scored.part.choices[event])
    if choice < 0:
        return None
    return str(
        scored.log.item_ids[int(scored.items[int(scored.part.display_offsets[event]) + choice])]
    )
