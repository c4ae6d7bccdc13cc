"""One model's figures on one split, each with its denominator and interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import ConfigError, require_type
from fastgaum.features.sessions import EncodedSessions
from fastgaum.html_view import html_view
from fastgaum.logs.log import effective_events
from fastgaum.metrics.calibration import (
    NoClickCalibration,
    brier_score,
    candidate_outcomes,
    choice_nll,
    expected_calibration_error,
    no_click_calibration,
)
from fastgaum.metrics.displays import clicks_of_displays, rank_displays
from fastgaum.metrics.intervals import Interval, bootstrap_means, paired_difference
from fastgaum.metrics.outcomes import OutcomeFigures
from fastgaum.metrics.precision import KS, micro_mean, precision_at_k, user_mean


@dataclass(frozen=True)
class HeadScores:
    """One head's choice distribution; shapes (n_candidates,) and (n_events,)."""

    scores: FloatArray
    """utilities, logits, or a baseline's own scores"""
    log_probs: FloatArray
    no_click_log_prob: FloatArray
    spread: FloatArray | None = None
    """standard deviation of a candidate's probability over the members"""


@dataclass(frozen=True)
class DisplayFigures:
    """One head's rankings of displays against all clicks of each (`metrics.displays`)."""

    recall: dict[int, Interval]
    """percent, over displays with a click; empty where each has one choice event: it is prec@k"""
    mrr: Interval
    """in [0, 1], likewise"""
    ndcg: Interval
    """in [0, 1], likewise"""
    auc: Interval
    """in [0, 1], over displays with a click and another candidate"""
    per_event: dict[str, Float64Array] = field(repr=False)
    """kept for paired differences: recall1 and so on in percent, mrr, ndcg, auc"""


@dataclass(frozen=True)
class GroupFigures:
    """Figures of one head over some of the events."""

    n_events: int
    precision: Interval
    """prec@1; NaN without a choice"""
    nll: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        prec = {"1": self.precision.to_dict()}
        return {"n_events": self.n_events, "prec": prec, "nll": self.nll.to_dict()}


@dataclass(frozen=True)
class HeadFigures:
    """Figures of one head. prec@k in percent; NLL in nats, over all events."""

    precision: dict[int, Interval]
    """micro average over events with a choice"""
    per_user: dict[int, float]
    """mean over users of their own prec@k"""
    nontrivial: dict[int, float]
    """events with more than k candidates only"""
    nll: Interval
    brier: float
    ece: float
    """expected calibration error of candidate probabilities, in [0, 1]"""
    no_click: NoClickCalibration | None
    precision_per_event: dict[int, np.ndarray] = field(repr=False)
    """kept for paired differences, shape (n_events,), NaN without a choice"""
    nll_per_event: np.ndarray = field(repr=False)
    """kept for the same, nats, shape (n_events,)"""
    displays: DisplayFigures
    known_items: GroupFigures | None = None
    """events without an unseen item; None if there are none, or no others"""
    unseen_items: GroupFigures | None = None
    """events with such an item; None if there are none"""

    def __str__(self) -> str:
        parts = [f"prec@{k} {found.mean:.1f}" for k, found in self.precision.items()]
        return ", ".join([*parts, f"NLL {self.nll.mean:.3f}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what the head does not have."""
        shown, known, unseen = self.displays, self.known_items, self.unseen_items
        return {
            "prec": {str(k): one.to_dict() for k, one in self.precision.items()},
            "prec_nontrivial": {str(k): one for k, one in self.nontrivial.items()},
            "prec_per_user": {str(k): one for k, one in self.per_user.items()},
            "recall": {str(k): one.to_dict() for k, one in shown.recall.items()} or None,
            "mrr": shown.mrr.to_dict(),
            "ndcg": shown.ndcg.to_dict(),
            "auc": shown.auc.to_dict(),
            "nll": self.nll.to_dict(),
            "brier": self.brier,
            "ece": self.ece,
            "no_click": None if self.no_click is None else asdict(self.no_click),
            "known_items": None if known is None else known.to_dict(),
            "unseen_items": None if unseen is None else unseen.to_dict(),
        }


@dataclass(frozen=True)
class Figure:
    """How tables show a figure of a head. A further one is a field of `HeadFigures`, computed in
    `_figures`, a key of `HeadFigures.to_dict` and an entry in `figures_of`."""

    path: tuple[str, ...]
    """its keys in the JSON object of a head"""
    label: str
    unit: Literal["%", "share", "nats", ""] = "%"
    """a share is a number in [0, 1], which tables show in percent"""
    digits: int = 1
    note: str = ""
    """what a reader must know, shown below the label"""

    @property
    def title(self) -> str:
        """The label with the unit that tables show."""
        unit = "%" if self.unit == "share" else self.unit
        return f"{self.label}, {unit}" if unit else self.label

    def text(self, head: Mapping[str, object]) -> tuple[str, str]:
        """The value and its interval as text, from the JSON object of a head; empty where it has
        none."""
        value: Any = head
        for key in self.path:
            value = None if value is None else value[key]
        if isinstance(value, Mapping):
            low, high = map(self._number, value["ci"])
            return self._number(value["mean"]), f"{low} to {high}"
        return ("" if value is None else self._number(value)), ""

    def _number(self, value: float | None) -> str:
        if value is None or np.isnan(value):
            return "–"
        return f"{100 * value if self.unit == 'share' else value:.{self.digits}f}"


def figures_of() -> list[Figure]:
    """The figures of every head, in the order of tables."""
    found = []
    for k in KS:
        more = f"events with more than {k} candidate{'s' if k > 1 else ''} only"
        own = "mean over users of their own"
        found += [
            Figure(("prec", str(k)), f"prec@{k}"),
            Figure(("prec_nontrivial", str(k)), f"prec@{k}, long displays", note=more),
            Figure(("prec_per_user", str(k)), f"prec@{k} by user", note=own),
        ]
    clicks = "share of all clicks of a display"
    found += [Figure(("recall", str(k)), f"recall@{k} of displays", note=clicks) for k in KS]
    distance = "mean distance of predicted and observed shares, candidates"
    found += [
        Figure(("mrr",), "MRR", "", 3, "1 / rank of a display's best click"),
        Figure(("ndcg",), "NDCG", "", 3, "all clicks of a display"),
        Figure(("auc",), "AUC", "", 3, "pairs of a click and another candidate"),
        Figure(("nll",), "negative log-likelihood", "nats", 3, "per event"),
        Figure(("brier",), "Brier score", "", 3, "0 is best, 2 worst"),
        Figure(("ece",), "expected calibration error", "share", note=distance),
        Figure(("no_click", "predicted"), "no click, predicted", "share"),
        Figure(("no_click", "observed"), "no click, observed", "share"),
        Figure(("no_click", "error"), "no click, difference", "share"),
        Figure(("no_click", "worst_decile"), "no click, worst tenth", "share"),
    ]
    for name, which in (("known_items", "all items known"), ("unseen_items", "an unseen item")):
        found += [
            Figure((name, "n_events"), f"events, {which}", "", 0),
            Figure((name, "prec", "1"), f"prec@1, {which}"),
            Figure((name, "nll"), f"NLL, {which}", "nats", 3),
        ]
    return found


@dataclass(frozen=True)
class Evaluation:
    """Figures of each head, and the floors of the split."""

    heads: dict[str, HeadFigures]
    n_events: int
    n_users: int
    random: dict[int, float]
    """prec@k of a random order, percent"""
    gap: float | None
    """mean optimality gap; None without a generator"""
    users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    """user of each event, kept for paired differences, shape (n_events,)"""
    choices: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    """chosen position of each event, likewise"""
    unseen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_), repr=False)
    """whether an event displays an item that training never displayed, shape (n_events,)"""
    hidden: int = 0
    """items that were hidden from the model (`hide_items`)"""
    weights: FloatArray | None = field(default=None, repr=False)
    """of the events, by which all figures are weighted means, shape (n_events,); None: all alike"""
    outcomes: Mapping[str, OutcomeFigures] = field(default_factory=dict)
    """how well what followed choices is predicted, by the name of the outcome"""

    def __repr__(self) -> str:
        heads = "; ".join(f"{name} {head}" for name, head in self.heads.items())
        heads += "".join(f"; {name} {one}" for name, one in self.outcomes.items())
        return f"Evaluation({self.n_events} events of {self.n_users} users: {heads})"

    def _repr_html_(self) -> str:
        """Text of a notebook: each figure of each head, with its interval."""
        heads = {name: head.to_dict() for name, head in self.heads.items()}
        rows = []
        for figure in figures_of():
            cells = [figure.text(head) for head in heads.values()]
            if any(value for value, _ in cells):
                texts = [f"{value} ({ends})" if ends else value for value, ends in cells]
                rows.append([figure.title, *texts])
        title = f"{self.n_events:,} events of {self.n_users:,} users"
        notes = [f"prec@1 of a random order: {self.random[1]:.1f} %; intervals of 95 % over users"]
        return html_view(title, ["", *heads], rows, notes)

    def lead(self, other: Evaluation, k: int = 1) -> Interval:
        """How much higher the reward's prec@k is than that of another model on the same events, in
        points, paired, over users. Raises ConfigError for a k that was not scored, or other events.
        """
        require_type("other", other, Evaluation)
        same = (np.array_equal(getattr(self, a), getattr(other, a)) for a in ("users", "choices"))
        if not all(same):
            raise ConfigError(
                f"the two models were scored on other events ({self.n_events} and "
                f"{other.n_events}): evaluate both on one split of one log"
            )
        ours, theirs = (one.heads["reward"].precision_per_event for one in (self, other))
        if k not in ours or k not in theirs:
            known = ", ".join(map(str, sorted(ours.keys() & theirs.keys())))
            raise ConfigError(f"there is no prec@{k} of both models: they have k = {known}")
        return paired_difference(ours[k], theirs[k], self.users, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "n_events": self.n_events,
            "n_users": self.n_users,
            "n_unseen_events": int(np.count_nonzero(self.unseen)),
            "n_hidden_items": self.hidden,
            "weighted": self.weights is not None,
            "effective_events": effective_events(self.weights),
            "gap": self.gap,
            "floors": {"random": {str(k): v for k, v in self.random.items()}},
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
            **(
                {"outcomes": {name: one.to_dict() for name, one in self.outcomes.items()}}
                if self.outcomes
                else {}
            ),
        }


def evaluate_heads(
    heads: Mapping[str, HeadScores],
    encoded: EncodedSessions,
    no_click: bool,
    gap: FloatArray | None,
) -> Evaluation:
    """Compute every head's figures; gap: (n_events,). Raises NumericsError for a value that is not
    finite."""
    # where all candidates tie, prec@k is that of a random order
    ties = np.zeros(encoded.display_offsets[-1]), encoded.display_offsets, encoded.choices
    return Evaluation(
        heads={name: _figures(head, encoded, no_click) for name, head in heads.items()},
        n_events=encoded.n_events,
        n_users=len(np.unique(encoded.users)),
        random={k: 100 * micro_mean(precision_at_k(*ties, k), encoded.weights) for k in KS},
        gap=None if gap is None else micro_mean(gap.astype(np.float64), encoded.weights),
        users=encoded.user_of_event,
        choices=encoded.choices,
        unseen=encoded.holds_unseen,
        weights=encoded.weights,
    )


def _figures(head: HeadScores, encoded: EncodedSessions, no_click: bool) -> HeadFigures:
    offsets, choices, users = encoded.display_offsets, encoded.choices, encoded.user_of_event
    unseen, sizes, weights = encoded.holds_unseen, np.diff(offsets), encoded.weights
    per_event = {k: 100 * precision_at_k(head.scores, offsets, choices, k) for k in KS}
    probs = np.exp(head.log_probs)
    no_click_probs = np.exp(head.no_click_log_prob) if no_click else None
    no_click_log_probs = head.no_click_log_prob if no_click else None
    nll = choice_nll(head.log_probs, no_click_log_probs, offsets, choices)
    of_candidates = None if weights is None else np.repeat(weights, sizes)
    apart = per_event[1], nll, users, weights
    ranked = _rank_displays(head, encoded)
    names, columns = [*KS, "nll", *ranked], [*per_event.values(), nll, *ranked.values()]
    found: dict[Any, Interval] = dict(
        zip(names, bootstrap_means(columns, users, weights), strict=True)
    )
    return HeadFigures(
        precision={k: found[k] for k in KS},
        per_user={k: user_mean(values, users, weights) for k, values in per_event.items()},
        nontrivial={
            k: micro_mean(np.where(sizes > k, values, np.nan), weights)
            for k, values in per_event.items()
        },
        nll=found["nll"],
        brier=micro_mean(brier_score(probs, no_click_probs, offsets, choices), weights),
        ece=expected_calibration_error(
            probs, candidate_outcomes(offsets, choices), weights=of_candidates
        ),
        no_click=no_click_calibration(no_click_probs, choices, weights=weights)
        if no_click_probs is not None
        else None,
        precision_per_event=per_event,
        nll_per_event=nll,
        displays=DisplayFigures(
            recall={k: found[f"recall{k}"] for k in KS if f"recall{k}" in ranked},
            **{name: found[name] for name in ("mrr", "ndcg", "auc")},
            per_event=ranked,
        ),
        known_items=_of_group(~unseen, *apart) if unseen.any() else None,
        unseen_items=_of_group(unseen, *apart),
    )


def _of_group(
    group: np.ndarray,
    precision: Float64Array,
    nll: Float64Array,
    users: IntArray,
    weights: FloatArray | None,
) -> GroupFigures | None:
    if not group.any():
        return None
    both = bootstrap_means(
        [np.where(group, one, np.nan) for one in (precision, nll)], users, weights
    )
    return GroupFigures(int(group.sum()), *both)


def _rank_displays(head: HeadScores, encoded: EncodedSessions) -> dict[str, Float64Array]:
    first = encoded.first_choices
    alone = np.ones(encoded.n_events, np.bool_) if first is None else first
    clicks = clicks_of_displays(encoded.choices, alone)
    ranked = rank_displays(
        head.scores, encoded.display_offsets, *clicks, () if first is None else KS
    )
    return {k: 100 * of if k.startswith("recall") else of for k, of in ranked.items()}
