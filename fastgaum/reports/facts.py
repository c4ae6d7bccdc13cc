"""The facts of a page on runs, as one object for JSON.

Averages are of a candidate's utility minus the mean of its display set, over display sets of
several candidates. 1 more multiplies the odds against a rival by e^eta under Shannon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import Float64Array, IntArray
from fastgaum.baselines.floors import Precisions, floor_precisions, means_of
from fastgaum.errors import ConfigError
from fastgaum.features.sessions import Selection, counts_before, select_sessions
from fastgaum.game.checkpoint import places_cost, trials_as_facts
from fastgaum.kernels.candidate_counts import CHOSEN, DISPLAYED
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import TEST, VALIDATION, ItemCounts, SessionLog, SplitName
from fastgaum.metrics.calibration import candidate_outcomes
from fastgaum.metrics.evaluation import Evaluation, HeadScores, evaluate_heads
from fastgaum.metrics.intervals import Interval, bootstrap_mean, cut, paired_difference
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel, members_of
from fastgaum.reports.log_facts import log_facts
from fastgaum.reports.table import Json, finite
from fastgaum.reports.trained_run import TrainedRun, log_of, repeat_commands
from fastgaum.reports.what_if import importance, response_curve


def report_facts(
    runs: Sequence[TrainedRun],
    logs: Sequence[SessionLog],
    *,
    split: SplitName = "validation",
    compare: bool = False,
    raw: Mapping[str, Rows | None] | None = None,
) -> Json:
    """Gather the facts of opened run folders and of their logs. Arguments are as of `write_report`.

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
    # a fingerprint does not say whether order is real
    keys = [(log.fingerprint, log.ordered) for log in own]
    used = dict(zip(keys, own, strict=True))
    of_run = [list(used).index(key) for key in keys]
    # two folders of one name are called by their paths
    short = [run.folder.absolute().name for run in runs]
    names = [
        str(r.folder) if short.count(name) > 1 else name
        for r, name in zip(runs, short, strict=True)
    ]
    scored = [SplitScores.of(run.model, log, split) for run, log in zip(runs, own, strict=True)]
    floors = [
        floor_precisions(log, split, space=runs[of_run.index(i)].model.space)
        for i, log in enumerate(used.values())
    ]
    facts: Json = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "split": split,
        "logs": [
            {
                "runs": [name for name, place in zip(names, of_run, strict=True) if place == i],
                **log_facts(log, split, floors[i], (raw or {}).get(log.fingerprint)),
            }
            for i, log in enumerate(used.values())
        ],
        "runs": [
            {"name": name, "log": place, **_run_facts(run, one, split, floors[place])}
            for name, run, place, one in zip(names, runs, of_run, scored, strict=True)
        ],
        "comparison": run_differences(runs, scored) if compare else None,
    }
    found: Json = finite(facts)
    return found


def _run_facts(run: TrainedRun, scored: SplitScores, split: SplitName, floors: Precisions) -> Json:
    rows, by_epoch = run.table.to_dicts(), isinstance(run.model, UserModel)
    assert run.model.space is not None
    best = [row["epoch"] for row in rows if by_epoch and row["best"]]
    return {
        "config": run.settings,
        "changed": run.changed(),
        "compared": trials_as_facts(getattr(run.model, "trials", ())),
        "places_cost": places_cost(getattr(run.model, "trials", ())),
        "folds": run.model.space.folds,
        "machine": run.machine,
        "reading": run.reading,
        "epochs": rows if by_epoch else [],
        "fits": [] if by_epoch else rows,
        "best_epoch": best[-1] if best else None,
        "evaluation": scored.evaluation.to_dict(),
        "versus_floor": floor_difference(scored, floors),
        "calibration": calibration_facts(scored),
        "learned": learned_facts(scored, run.model.space.counts_of(scored.log.item_ids)),
        "fields": field_facts(run.model, scored.log, split),
        "commands": repeat_commands(run, split),
    }


TENTHS = 10
EXTREMES = 8
"""items listed at each end"""
LEAST_DISPLAYS = (10, 5, 3, 2, 1)
"""displays on the split from which items are listed; the first that leaves enough counts"""


def learned_facts(scored: SplitScores, counts: ItemCounts) -> Json:
    """Groups of candidates and extreme items, of display sets of several candidates."""
    sizes, items = scored.sizes, scored.items
    before = counts_before(scored.log, scored.part)
    displayed, chosen = before[:, DISPLAYED], before[:, CHOSEN]
    candidates = pl.DataFrame(
        {
            "item": items,
            "utility": scored.advantage(),
            "chosen": candidate_outcomes(scored.part.display_offsets, scored.part.choices),
            "predicted": np.exp(scored.heads["reward"].log_probs.astype(np.float64)),
            "training_displays": counts.displays[items],
            "training_choices": counts.choices[items],
            "shown": displayed > 0,
            "picked": chosen > 0,
            "later": np.repeat(scored.part.event_number > 0, sizes),
            "weight": np.repeat(scored.weights, sizes),
        }
    ).filter(np.repeat(sizes > 1, sizes))
    displays, choices = pl.col("training_displays"), pl.col("training_choices")
    shown, picked, later = pl.col("shown"), pl.col("picked"), pl.col("later")
    in_training = {
        "never displayed": displays == 0,
        "displayed, never chosen": (displays > 0) & (choices == 0),
        "chosen": choices > 0,
    }
    in_session = {
        "new to the session": later & ~shown,
        "displayed before, not chosen": later & shown & ~picked,
        "chosen before": later & picked,
    }
    popularity: dict[str, pl.Expr] = {}
    levels = candidates["training_choices"].to_numpy()
    if len(levels):
        edges, labels = cut(levels, TENTHS)
        groups = pl.lit(pl.Series(np.searchsorted(edges, levels)))
        popularity = {label: groups == i for i, label in enumerate(labels)}
    return {
        "n_candidates": candidates.height,
        "popularity": _groups(candidates, popularity),
        "in_training": _groups(candidates, in_training),
        "in_session": _groups(candidates, in_session),
        **_extremes(candidates, scored.log),
    }


def _groups(candidates: pl.DataFrame, groups: Mapping[str, pl.Expr]) -> list[Json]:
    utility, weight = pl.col("utility"), pl.col("weight")
    figures = {
        "n": pl.len(),
        "utility": (utility * weight).sum() / weight.sum(),
        "low": utility.quantile(0.1, "linear"),
        "high": utility.quantile(0.9, "linear"),
        "chosen": (pl.col("chosen") * weight).sum() / weight.sum(),
        "predicted": (pl.col("predicted") * weight).sum() / weight.sum(),
    }
    return [
        {"label": label, **candidates.filter(which).select(**figures).row(0, named=True)}
        for label, which in groups.items()
    ]


def _extremes(candidates: pl.DataFrame, log: SessionLog) -> Json:
    items = candidates.group_by("item").agg(
        (pl.col("utility") * pl.col("weight")).sum() / pl.col("weight").sum(),
        pl.len().alias("displays"),
        pl.col("chosen").sum().cast(pl.Int64),
        pl.col("training_displays", "training_choices").first(),
    )
    often = [items.filter(pl.col("displays") >= n) for n in LEAST_DISPLAYS]
    enough = (i for i, listed in enumerate(often) if listed.height >= 2 * EXTREMES)
    place = next(enough, len(often) - 1)
    listed = often[place].sort("utility", "item", descending=[True, False])
    listed = listed.with_columns(item=log.item_ids.gather(listed["item"]))
    n = min(EXTREMES, listed.height // 2)
    return {
        "least_displays": LEAST_DISPLAYS[place],
        "n_items": listed.height,
        "largest": listed.head(n).to_dicts(),
        "smallest": listed.reverse().head(n).to_dicts(),
    }


MOST_SESSIONS, MOST_CANDIDATES = 2000, 1 << 17
"""sessions, and candidates with those before in the session, that fields are asked of"""
MOST_CURVES, CURVE_POINTS = 6, 16
LEAST_SHARE = 0.01
"""of the data, below which a curve leaves out a value"""


def field_facts(model: ChoiceModel, log: SessionLog, split: SplitName) -> Json:
    """Importance of fields of candidates and items, and curves of the most important numbers, on
    some sessions of a split."""
    facts: Json = {"sessions": 0, "importance": [], "curves": {}}
    fields = log.columns_of("candidate", "item")
    if not fields or split not in ("validation", "test") or model.seen_users(log, split).n_leaked:
        return facts
    rest = np.diff(log.session_offsets)[log.session_of_event] - log.event_number
    costs = np.add.reduceat(rest * np.diff(log.display_offsets), log.session_offsets[:-1])
    sessions = log.sessions_in(split)
    drawn = np.random.default_rng(0).permutation(sessions)[:MOST_SESSIONS]
    drawn = drawn[np.cumsum(costs[drawn]) <= MOST_CANDIDATES]
    if not len(drawn):
        return facts
    # sessions that are not drawn leave the split; training, which tells where data lie, stays whole
    own = np.array(log.split)
    own[sessions] = TEST if split == "validation" else VALIDATION
    own[drawn] = VALIDATION if split == "validation" else TEST
    asked = log.with_split(own)
    found = importance(model, asked, split).to_dicts()
    facts |= {"sessions": len(drawn), "importance": found}
    numbers = [row["field"] for row in found if fields[row["field"]].holds == "number"]
    for field in numbers[:MOST_CURVES]:
        curve = response_curve(model, asked, field, CURVE_POINTS, split, sample=1)
        curve = curve.filter(pl.col("share") >= LEAST_SHARE)
        if curve.height > 1 and curve["log_odds"].is_finite().all():
            facts["curves"][field] = curve.to_dicts()
    return facts


BOOTSTRAPS = 300
"""of the bootstrap over users, for each point of a curve"""
EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""cuts of a candidates' curve; an edge belongs to the point above it"""


def calibration_facts(scored: SplitScores) -> Json:
    """{head: {candidates: points, no_click: points or None}}; a point holds predicted, observed,
    ci, n. Candidates are cut at EDGES, no clicks into tenths of the events."""
    part, users = scored.part, scored.evaluation.users
    weights = scored.weights
    outcomes = candidate_outcomes(part.display_offsets, part.choices)
    facts: Json = {}
    for name, head in scored.heads.items():
        probs = np.exp(head.log_probs.astype(np.float64))
        facts[name] = {
            "candidates": _curve(
                probs,
                outcomes,
                np.repeat(users, scored.sizes),
                np.repeat(weights, scored.sizes),
                np.searchsorted(EDGES, probs, side="right"),
            ),
            "no_click": None,
        }
        if scored.evaluation.heads[name].no_click is not None:
            away = np.exp(head.no_click_log_prob.astype(np.float64))
            no_click = (part.choices < 0).astype(np.float64)
            tenths = np.searchsorted(np.quantile(away, np.arange(1, TENTHS) / TENTHS), away)
            facts[name]["no_click"] = _curve(away, no_click, users, weights, tenths)
    return facts


def _curve(
    probs: Float64Array,
    outcomes: Float64Array,
    users: IntArray,
    weights: Float64Array,
    bins: npt.NDArray[np.integer],
) -> list[Json]:
    points = []
    for group in np.unique(bins):
        cases = bins == group
        share = bootstrap_mean(outcomes[cases], users[cases], weights[cases], draws=BOOTSTRAPS)
        points.append(
            {
                "predicted": float(np.average(probs[cases], weights=weights[cases])),
                "observed": share.mean,
                "ci": [share.low, share.high],
                "n": int(cases.sum()),
            }
        )
    return points


@dataclass(frozen=True)
class SplitScores:
    """A split as a run's heads see it."""

    log: SessionLog
    part: Selection
    """the split's sessions"""
    heads: Mapping[str, HeadScores]
    """the scores of the reward are utilities"""
    evaluation: Evaluation
    of_place: Float64Array | None
    """what its place adds to each candidate's utility, shape (n_candidates,); None where places are
    not kept apart"""

    @classmethod
    def of(cls, model: ChoiceModel, log: SessionLog, split: SplitName) -> SplitScores:
        """Score a split once. Raises LogFormatError, FeatureMismatchError, NumericsError."""
        encoded, scores = model.score_sessions(log, split)
        part = select_sessions(log, log.sessions_in(split))
        of_place = _of_place(model, part)
        if of_place is not None and encoded.held_out is not None:
            # who trained is scored by the fit that left it out, which has places of its own
            starts = part.display_offsets[part.session_offsets]
            of_fold = np.repeat(encoded.held_out, np.diff(starts))
            for fold, one in enumerate(members_of(model)):
                own = _of_place(one, part)
                assert own is not None
                of_place = np.where(of_fold == fold, own, of_place)
        evaluation = evaluate_heads(scores.heads, encoded, model.no_click, scores.gap)
        return cls(log, part, scores.heads, evaluation, of_place)

    @property
    def items(self) -> IntArray:
        """Item of each candidate, shape (n_candidates,)."""
        return self.log.items[self.part.candidates]

    @property
    def weights(self) -> Float64Array:
        """Weight of each event, shape (n_events,)."""
        return self.log.weight_of_event[self.part.events]

    @property
    def sizes(self) -> IntArray:
        """Candidates of each event, shape (n_events,)."""
        return np.diff(self.part.display_offsets)

    def events(self) -> pl.DataFrame:
        """A row per displayed candidate, by names, in no order within a display."""
        part, sizes = self.part, self.sizes
        sessions = np.repeat(np.repeat(part.rows, np.diff(part.session_offsets)), sizes)
        return pl.DataFrame(
            {
                "event": np.repeat(np.arange(part.n_events), sizes),
                "session": self.log.session_ids.gather(sessions),
                "item": self.log.item_ids.gather(self.items),
                "chosen": candidate_outcomes(part.display_offsets, part.choices),
            }
        ).sort("event", "item", "chosen")

    def advantage(self) -> Float64Array:
        """Utility, free of place where places are kept apart, minus the mean of its display set,
        shape (n_candidates,)."""
        utility = self.heads["reward"].scores.astype(np.float64)
        if self.of_place is not None:
            utility -= self.of_place
        means = np.add.reduceat(utility, self.part.display_offsets[:-1]) / self.sizes
        return utility - np.repeat(means, self.sizes)


def _of_place(model: ChoiceModel, part: Selection) -> Float64Array | None:
    examination = model.examination()
    if examination is None:
        return None
    eta = model.config.eta if isinstance(model, UserModel) else 1.0
    by_place: Float64Array = np.log(examination.astype(np.float64)) / eta
    return by_place[np.minimum(part.places, len(by_place) - 1)]


def floor_difference(scored: SplitScores, floors: Precisions) -> Json:
    """The reward's prec@1 against that of the best floor: {floor, percent, diff, ci}."""
    users, weights = scored.evaluation.users, scored.weights
    means = {name: by_k[1] for name, by_k in means_of(floors, weights).items()}
    if np.isnan(means["random"]):
        return {"floor": None, "percent": None, "diff": None, "ci": [None, None]}
    best = max(means, key=lambda name: means[name])
    ours = scored.evaluation.heads["reward"].precision_per_event[1]
    return {
        "floor": best,
        "percent": means[best],
        **_plain(paired_difference(ours, floors[best][1], users, weights)),
    }


def run_differences(runs: Sequence[TrainedRun], scored: Sequence[SplitScores]) -> Json:
    """Differences first − second of each figure, and the settings that differ. Raises ConfigError
    for runs that were scored on different events."""
    if not scored[0].events().equals(scored[1].events()):
        about = [
            f"'{run.folder}' has {one.part.n_events} events of log '{one.log.name}' "
            f"(fingerprint {run.fingerprint[:12]})"
            for run, one in zip(runs, scored, strict=True)
        ]
        raise ConfigError(
            f"--compare needs two runs that are scored on the same events: {' and '.join(about)}: "
            "train both on one log with one split, or leave --compare out"
        )
    differences, of_both = [], scored[0].evaluation
    for head in (head for head in scored[0].heads if head in scored[1].heads):
        figures = [one.evaluation.heads[head] for one in scored]
        for figure, unit, (ours, theirs) in (
            ("prec@1", "points", [one.precision_per_event[1] for one in figures]),
            ("prec@2", "points", [one.precision_per_event[2] for one in figures]),
            ("NLL", "nats", [one.nll_per_event for one in figures]),
        ):
            found = paired_difference(ours, theirs, of_both.users, of_both.weights)
            low, high = (found.low, found.high) if unit == "points" else (-found.high, -found.low)
            verdict = "first is better" if low > 0 else "second is better"
            differences.append(
                {"head": head, "figure": figure, "unit": unit, **_plain(found)}
                | {"verdict": verdict if low > 0 or high < 0 else "not told apart"}
            )
    first, second = (run.settings for run in runs)
    return {
        "differences": differences,
        "settings": [
            {"key": key, "first": first.get(key), "second": second.get(key)}
            for key in dict.fromkeys((*first, *second))
            if first.get(key) != second.get(key)
        ],
    }


def _plain(interval: Interval) -> Json:
    return {"diff": interval.mean, "ci": [interval.low, interval.high], "n_users": interval.n_users}
