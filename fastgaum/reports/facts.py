"""What a page says of runs, as one object for JSON: their figures, what the reward learned, whether
probabilities come true, a few events in full, and the logs that they were trained on.

Only differences within a display set decide a choice among its candidates, and where no click is
not offered nothing else is learned at all. So what is averaged here is a candidate's utility minus
the mean of its display set, over display sets of several candidates; 1 more multiplies the odds
against a rival by e^eta under Shannon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.baselines.floors import Precisions, floor_precisions
from fastgaum.errors import ConfigError
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import IntArray, ItemCounts, SessionLog, SplitName
from fastgaum.metrics.calibration import candidate_outcomes
from fastgaum.metrics.intervals import bootstrap_mean, cut
from fastgaum.metrics.precision import Float64Array
from fastgaum.reports.log_facts import log_facts
from fastgaum.reports.split_scores import (
    SplitScores,
    floor_difference,
    place_facts,
    run_differences,
)
from fastgaum.reports.table import Json, finite
from fastgaum.reports.trained_run import TrainedRun, log_of, repeat_commands


def report_facts(
    runs: Sequence[TrainedRun],
    logs: Sequence[SessionLog],
    *,
    split: SplitName = "validation",
    compare: bool = False,
    raw: Mapping[str, Rows | None] | None = None,
) -> Json:
    """Gather the facts of runs and of the logs that they were trained on.

    Args:
        runs: opened run folders, in the page's order.
        logs: their logs; each run finds its own by fingerprint.
        split: the split whose events are scored. Test figures are for the end: every look at them
            makes them worth less.
        compare: put two runs side by side, with paired differences: both must be scored on the same
            events, however each read them.
        raw: raw rows by a log's fingerprint (`read.raw_rows`), for the part of the audit
            that needs them.

    Raises:
        ConfigError: no run, or not two runs of the same events to compare.
        DatasetError: a run's log is not among the logs.
        LogFormatError: the split is empty.
        FeatureMismatchError, NumericsError: as `UserModel.evaluate`.
    """
    if not runs:
        raise ConfigError("a report needs a run: name at least one run folder")
    if compare and len(runs) != 2:
        raise ConfigError(f"--compare puts two runs side by side, got {len(runs)}: name two")
    own = [log_of(run, logs) for run in runs]
    # by what tells logs apart: comparing two logs themselves would compare their arrays
    places = {key: place for place, key in enumerate(dict.fromkeys(map(_identity, own)))}
    used = {_identity(log): log for log in own}
    of_run = [places[_identity(log)] for log in own]
    names = _names([run.folder for run in runs])
    scored = [SplitScores.of(run.model, log, split) for run, log in zip(runs, own, strict=True)]
    floors = [floor_precisions(log, split) for log in used.values()]
    facts = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "split": split,
        "logs": [
            {
                "runs": [name for name, place in zip(names, of_run, strict=True) if place == i],
                **log_facts(used[key], split, floors[i], (raw or {}).get(used[key].fingerprint)),
            }
            for key, i in places.items()
        ],
        "runs": [
            {"name": name, "log": place, **_run_facts(run, one, split, floors[place])}
            for name, run, place, one in zip(names, runs, of_run, scored, strict=True)
        ],
        "comparison": run_differences((runs[0], runs[1]), (scored[0], scored[1]))
        if compare
        else None,
    }
    plain: Json = finite(facts)
    return plain


def _run_facts(run: TrainedRun, scored: SplitScores, split: SplitName, floors: Precisions) -> Json:
    best = run.table.filter(pl.col("best"))
    return {
        "config": run.settings,
        "changed": run.changed(),
        "compared": run.compared(),
        "machine": run.machine,
        "reading": run.reading,
        "epochs": run.table.to_dicts(),
        "fits": run.fits.to_dicts(),
        "best_epoch": int(best["epoch"][-1]) if best.height else None,
        "evaluation": scored.evaluation.to_dict(),
        "versus_floor": floor_difference(scored, floors),
        "calibration": calibration_facts(scored),
        "learned": learned_facts(scored, scored.log.training_counts()),
        "places": place_facts(scored),
        "displays": example_displays(scored),
        "commands": repeat_commands(run, split),
    }


def _identity(log: SessionLog) -> tuple[str, bool]:
    """What tells the logs of a page apart. A fingerprint does not say whether order is real."""
    return log.fingerprint, log.ordered


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: the folder's name, or its path where two share one."""
    short = [folder.absolute().name for folder in folders]
    return [
        str(folder) if short.count(name) > 1 else name
        for name, folder in zip(short, folders, strict=True)
    ]


TENTHS = 10
EXTREMES = 8
"""items listed at each end"""
LEAST_DISPLAYS = (10, 5, 3, 2, 1)
"""an item is listed if it was displayed so often on the split; the first that leaves enough items
is taken"""


def learned_facts(scored: SplitScores, counts: ItemCounts) -> Json:
    """Groups of candidates and extreme items, for JSON; of display sets of several candidates."""
    sizes, items = scored.sizes, scored.items
    candidates = pl.DataFrame(
        {
            "item": items,
            "utility": scored.advantage(),
            "chosen": candidate_outcomes(scored.part.display_offsets, scored.part.choices),
            "predicted": np.exp(scored.reward.log_probs.astype(np.float64)),
            "training_displays": counts.displays[items],
            "training_choices": counts.choices[items],
            "shown": scored.displayed_before > 0,
            "picked": scored.chosen_before > 0,
            "later": np.repeat(scored.part.event_number > 0, sizes),
        }
    ).filter(np.repeat(sizes > 1, sizes))
    later = candidates.filter("later")
    displays, choices = pl.col("training_displays"), pl.col("training_choices")
    shown, picked = pl.col("shown"), pl.col("picked")
    return {
        "n_candidates": candidates.height,
        "popularity": _by_popularity(candidates),
        "in_training": [
            _group("never displayed", candidates.filter(displays == 0)),
            _group("displayed, never chosen", candidates.filter((displays > 0) & (choices == 0))),
            _group("chosen", candidates.filter(choices > 0)),
        ],
        "in_session": [
            _group("new to the session", later.filter(~shown)),
            _group("displayed before, not chosen", later.filter(shown & ~picked)),
            _group("chosen before", later.filter(picked)),
        ],
        **_extremes(candidates, scored.log),
    }


def _group(label: str, cases: pl.DataFrame) -> Json:
    """Mean utility against the display set with its 10 % and 90 % quantiles, shares chosen and
    predicted, and n; None without a case."""
    utility = cases["utility"]
    return {
        "label": label,
        "n": cases.height,
        "utility": utility.mean(),
        "low": utility.quantile(0.1, "linear"),
        "high": utility.quantile(0.9, "linear"),
        "chosen": cases["chosen"].mean(),
        "predicted": cases["predicted"].mean(),
    }


def _by_popularity(candidates: pl.DataFrame) -> list[Json]:
    levels = candidates["training_choices"].to_numpy()
    if not len(levels):
        return []
    edges, labels = cut(levels, TENTHS)
    group = np.searchsorted(edges, levels)
    return [_group(label, candidates.filter(group == i)) for i, label in enumerate(labels)]


def _extremes(candidates: pl.DataFrame, log: SessionLog) -> Json:
    """The items with the largest and the smallest mean utility, of those displayed often enough to
    say so."""
    items = candidates.group_by("item").agg(
        pl.col("utility").mean(),
        pl.len().alias("displays"),
        pl.col("chosen").sum().cast(pl.Int64),
        pl.col("training_displays", "training_choices").first(),
    )
    often = [items.filter(pl.col("displays") >= n) for n in LEAST_DISPLAYS]
    enough = (i for i, listed in enumerate(often) if listed.height >= 2 * EXTREMES)
    place = next(enough, len(often) - 1)
    listed = often[place].sort("utility", "item", descending=[True, False])
    n = min(EXTREMES, listed.height // 2)

    def rows(ends: pl.DataFrame) -> list[Json]:
        return [row | {"item": log.item_ids[row["item"]]} for row in ends.iter_rows(named=True)]

    return {
        "least_displays": LEAST_DISPLAYS[place],
        "n_items": listed.height,
        "largest": rows(listed.head(n)),
        "smallest": rows(listed.reverse().head(n)),
    }


DRAWS = 300
"""of the bootstrap over users, for each point of a curve"""
EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""where the points of a candidates' curve are cut; an edge belongs to the point above it"""

Groups = npt.NDArray[np.int64]


def calibration_facts(scored: SplitScores) -> Json:
    """{head: {candidates: points, no_click: points or None}}; a point holds predicted, observed,
    ci, n; shares in [0, 1].

    Points of candidates are those of a probability between two EDGES, so that they spread over the
    axis whether displays hold two candidates or two hundred. Points of no click are tenths of the
    events, as its worst decile is."""
    part = scored.part
    users = scored.encoded.user_of_event
    outcomes = candidate_outcomes(part.display_offsets, part.choices)
    facts: Json = {}
    for name, head in scored.scores.heads.items():
        probs = np.exp(head.log_probs.astype(np.float64))
        facts[name] = {
            "candidates": _curve(
                probs,
                outcomes,
                np.repeat(users, scored.sizes),
                np.searchsorted(EDGES, probs, side="right"),
            ),
            "no_click": None,
        }
        if scored.outside:
            away = np.exp(head.outside_log_prob.astype(np.float64))
            no_click = (part.choices < 0).astype(np.float64)
            facts[name]["no_click"] = _curve(away, no_click, users, _tenths(away))
    return facts


def _tenths(probs: Float64Array) -> Groups:
    """Group of each case: tenths of the cases in order of probability, equal probabilities
    together."""
    _, level, sizes = np.unique(probs, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - 0.5 * sizes
    groups = np.minimum(middle * 10 / len(probs), 9).astype(np.int64)
    return groups[level]


def _curve(
    probs: Float64Array, outcomes: Float64Array, users: IntArray, bins: Groups
) -> list[Json]:
    points = []
    for group in np.unique(bins):
        cases = bins == group
        share = bootstrap_mean(outcomes[cases], users[cases], draws=DRAWS)
        points.append(
            {
                "predicted": float(probs[cases].mean()),
                "observed": share.mean,
                "ci": [share.low, share.high],
                "n": int(cases.sum()),
            }
        )
    return points


MOST_SHOWN = 10
"""candidates listed of a display, those of the largest utility, and the logged choice"""
HISTORY = 5
"""choices listed before an example"""


def example_displays(scored: SplitScores) -> list[Json]:
    """A few events by the reward's probability of what happened: expected, typical, a surprise, and
    one without a click."""
    return [_example(scored, event, why) for why, event in _picked(scored)]


def _picked(scored: SplitScores) -> Iterator[tuple[str, int]]:
    """Why and which event; display sets of several candidates, later events of a session where
    there are any."""
    choices = scored.part.choices
    surprise = scored.nll("reward")
    several = (scored.sizes > 1) & (choices >= 0)
    later = several & (scored.part.event_number > 0)
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


def _example(scored: SplitScores, event: int, why: str) -> Json:
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


def _choice_of(scored: SplitScores, event: int) -> str | None:
    """The item that an event chose; None for no click."""
    choice = int(scored.part.choices[event])
    if choice < 0:
        return None
    candidate = int(scored.part.display_offsets[event]) + choice
    return str(scored.log.item_ids[int(scored.items[candidate])])
