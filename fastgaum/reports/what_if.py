"""Questions to a fitted model about displays that were never shown.

A question changes one display at a time, behind the logged history; its choice is not read, nor
anything after it. Probabilities are the reward's best responses. An interval is the 95 % percentile
interval of a bootstrap over users, both sides of a difference of the same draws; with `refits`, and
of a model by folds of users, it also holds how far other training users would have moved the model.
Where all draws are alike, as of one user, or of displays that do not differ, they say nothing: its
ends are null. What users of a model hardly differ in, as its willingness to pay, has an interval
only if its own error is known: by `refits` or folds, or of `logit` by the covariance of its
coefficients.

Derivatives are central finite differences; a marginal utility is that of a candidate's log-odds,
log P / (1 − P), by a number of its own. Elasticities and willingness to pay: Train, Discrete
Choice Methods with Simulation, 2nd edition, 2009, sections 2.5, 2.6, 3.2 and 3.6."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse
from scipy.special import stdtrit

from fastgaum.arrays import BoolArray, Float64Array
from fastgaum.baselines.logit import ConditionalLogit
from fastgaum.baselines.logit_summary import HALF_WIDTH, Coefficients
from fastgaum.errors import (
    ConfigError,
    LogFormatError,
    as_given,
    did_you_mean,
    require_known,
    require_type,
    require_whole,
)
from fastgaum.features.sessions import event_weights
from fastgaum.logs.columns import MOST_NUMBER
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import TEST, TRAIN, Column, Of, SessionLog, SplitName
from fastgaum.metrics.calibration import choice_nll
from fastgaum.metrics.intervals import (
    draw_users,
    jackknife_error,
    paired_difference,
    percentile_interval,
    ratio,
)
from fastgaum.metrics.precision import AnyInts
from fastgaum.models.choice_model import ChoiceModel, Progress
from fastgaum.models.user_model import members_of

DRAWS = 1000
NO_WIDTH = 1e-4
"""width of an interval, as a share of its figure, that is the rounding of single precision"""
MOST_ITEMS = 50
"""of elasticities at once: each takes two passes over the displays"""
MOST_CANDIDATES = 1 << 27
"""of all displays, each with those before it in its session"""

Change = Callable[[Float64Array], Any]
"""new numbers of a field, (n,) or one for all, from the old ones, (n,)"""


def what_if(
    model: ChoiceModel,
    log: SessionLog,
    split: SplitName = "test",
    *,
    fields: Mapping[str, Change] | None = None,
    items: Sequence[object] = (),
    drop: Sequence[object] = (),
    refits: Sequence[ChoiceModel] = (),
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The share of each item, and of no click, before and after a change of every display.

    Args:
        model: any fitted model.
        log: the log, of which the displays of `split` are changed.
        split: "train", "validation", "test" or "all".
        fields: a function of the values of a field of numbers, by the field's name.
        items: ids of the items whose fields change; all if none is given.
        drop: ids of items that are no longer displayed.
        refits: the same model, fitted on bootstraps of the training users
            (`models.fit_data.bootstrap_of`). Without, a model that was fitted by folds of users has
            the fits of its folds.
        progress: is told of events scored, and in all, in each pass over the displays.

    Returns: a row for each displayed item, and one for no click (item null) if that is a choice:
        `before`, `after` and `difference`, shares from 0 to 1, and the ends of their intervals,
        `…_low` and `…_high`.

    Raises:
        ConfigError: nothing changes; a field is unknown or holds no numbers; an item is unknown; a
            new number is not finite; a display loses its last item; the sessions trained the model.
        LogFormatError: the split is empty.
        FeatureMismatchError: the log's fields are not the training log's.
    """
    displays = _displays(model, log, split, refits, progress)
    require_type("fields", fields or {}, Mapping)
    require_type("items", items, Collection)
    require_type("drop", drop, Collection)
    if not fields and not len(drop):
        raise ConfigError("nothing changes: give fields={'price': lambda p: .9 * p}, or drop=[…]")
    changed = displays
    for field, change in (fields or {}).items():
        at = displays.rows_of(field, of_items=len(items) > 0)
        if len(items):
            at = at[np.isin(displays.items, displays.codes("items", items))]
        changed = changed.with_numbers(field, at, change)
    if len(drop):
        changed = changed.without(displays.codes("drop", drop))
    sides = (displays, changed)
    *sums, n = displays.drawn(lambda model: [one.shares(model) for one in sides])
    before, after = (ratio(one, n) for one in sums)
    figures = _figures(
        {"before": before, "after": after, "difference": after - before}, displays.folds
    )
    shown = np.append(np.bincount(displays.items, minlength=log.n_items) > 0, model.no_click)
    return pl.DataFrame({"item": displays.names} | figures).filter(pl.Series(shown))


def elasticities(
    model: ChoiceModel,
    log: SessionLog,
    field: str,
    split: SplitName = "test",
    *,
    items: Sequence[object] = (),
    step: float = 0.01,
    refits: Sequence[ChoiceModel] = (),
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Own and cross elasticities: by how many % an item's share grows for each % that a field of
    one item grows, E_ij = Σ_n [P_ni(x_nj (1 + h)) − P_ni(x_nj (1 − h))] / (2 h Σ_n P_ni) over all
    displays n of the split. Other arguments and errors are as of `what_if`.

    Args:
        field: a field of numbers, of candidates or items.
        items: ids of the items i and j, at most 50; all that are displayed if none is given.
        step: h. A model whose utility has steps, as trees have, needs a larger one.

    Returns: a row for each `changed` item j and `item` i, and one for no click (item null) if that
        is a choice: `elasticity`, `elasticity_low`, `elasticity_high`.
    """
    displays = _displays(model, log, split, refits, progress)
    shown, codes = displays.rows_of(field, of_items=True), displays.codes("items", items)
    _require_step(step)
    if len(codes) > MOST_ITEMS:
        raise ConfigError(
            f"elasticities of {len(codes)} items are asked for, at most {MOST_ITEMS} are found at "
            "once: name some, items=[…]"
        )
    kept = np.append(codes, np.repeat(log.n_items, model.no_click))

    def sums_of(model: ChoiceModel) -> list[sparse.csr_array]:
        sums = [displays.shares(model)[:, kept]]
        for code in codes:
            at = shown[displays.items == code]
            more, less = (
                displays.with_numbers(field, at, partial(np.multiply, by)).shares(model)
                for by in (1 + step, 1 - step)
            )
            sums.append((more - less)[:, kept] / (2 * step))
        return sums

    shares, *changes, _ = displays.drawn(sums_of)
    pairs = [(displays.names[j], displays.names[i]) for j in codes for i in kept]
    frame = pl.DataFrame(pairs, {"changed": pl.String, "item": pl.String}, orient="row")
    values = np.hstack([ratio(change, shares) for change in changes])
    return frame.with_columns(**_figures({"elasticity": values}, displays.folds))


def willingness_to_pay(
    model: ChoiceModel,
    log: SessionLog,
    field: str,
    price: str,
    split: SplitName = "test",
    *,
    items: Sequence[object] = (),
    step: float = 0.01,
    refits: Sequence[ChoiceModel] = (),
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The rise of the price that outweighs one unit less of a field: the mean marginal utility of
    the field over that of the price, by item and over all displayed candidates. Other arguments and
    errors are as of `what_if`; a field of one value is an error too, and a step too small for its
    numbers.

    Of a `logit` without `refits`, asked of the log that it was trained on, all figures are those of
    its fit without penalty (`ConditionalLogit.summary`), at the mean context of these candidates,
    and intervals are by the delta method. With `refits`, and of other models and logs, figures are
    those of the model that predicts; without `refits` these have no intervals.

    Args:
        field: a field of numbers, of candidates or items. If users like it, its worth is negative.
        price: another one.
        items: ids of the items; all that are displayed if none is given.
        step: of the differences, in standard deviations of a field among these candidates.

    Returns: a row for all candidates (item null), then one for each item: `worth`, the marginal
        utilities `by_field` and `by_price`, and the ends of their intervals, `…_low` and `…_high`.
        Ends are null where nothing says how sure a figure is. The worth is null unless `by_price`
        and its interval lie below 0; where it has no ends, unless the users of the split agree.
    """
    displays = _displays(model, log, split, refits, progress)
    _require_step(step)
    codes, steps = displays.codes("items", items), []
    chosen = np.isin(displays.items, codes)
    for name in (field, price):
        at = displays.rows_of(name, of_items=True)[chosen]
        old = displays.log.values_at(name)[at]
        by = step * float(old.std(dtype=np.float64))
        if by == 0:
            raise ConfigError(
                f"field '{name}' is {old[0]:g} in all of {len(old)} candidates, a derivative needs "
                "several values: choose other items, or another field"
            )
        # what a log, which holds float32, makes of twice the step
        more, less = (np.asarray(old + np.float64(one), np.float32) for one in (by, -by))
        steps.append((name, by, more.astype(np.float64) - less))
        if not steps[-1][2].all():
            raise ConfigError(
                f"step {step:g} changes field '{name}' by {by:g}, too little for numbers up to "
                f"{np.abs(old).max():g} in single precision: give a larger step, or subtract a "
                "constant from the field"
            )

    rows = [None, *(displays.names[code] for code in codes)]
    if not displays.refits and is_own_logit(model, log):
        return _worth_frame(
            rows, _delta_figures(model.coefficients(log), displays, codes, (field, price))
        )

    def sums_of(model: ChoiceModel) -> list[sparse.csr_array]:
        slopes = [
            displays.log_odds(model, name, chosen, partial(np.add, by))
            - displays.log_odds(model, name, chosen, partial(np.add, -by))
            for name, by, _ in steps
        ]
        slopes = [slope / made for slope, (_, _, made) in zip(slopes, steps, strict=True)]
        return [one[:, codes] for one in displays.finite_sums(slopes, chosen, displays.items)]

    *parts, _ = displays.drawn(sums_of)
    sums = (np.hstack([part.sum(axis=1, keepdims=True), part]) for part in parts)
    by_field, by_price, counts = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = by_field / by_price
    drawn = {"worth": worth}
    drawn |= {"by_field": ratio(by_field, counts), "by_price": ratio(by_price, counts)}
    frame = _worth_frame(rows, _figures(drawn, displays.folds))
    # users of one model hardly differ in what they pay: their draws say nothing of its error
    return (
        frame
        if displays.refits
        else frame.with_columns(
            pl.lit(None, pl.Float64).alias(name)
            for name in frame.columns
            if name.endswith(("_low", "_high"))
        )
    )


def response_curve(
    model: ChoiceModel,
    log: SessionLog,
    field: str,
    n: int = 20,
    split: SplitName = "test",
    *,
    items: Sequence[object] = (),
    sample: int | None = None,
    refits: Sequence[ChoiceModel] = (),
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The mean log-odds of a displayed candidate along the range of a field, all else left as it
    is; a field of events or users is set in the whole event. Other arguments and errors are as of
    `what_if`.

    Args:
        field: a field of numbers.
        n: numbers that are tried, at least 2: quantiles of the field in the log's training split,
            or in `split` if the log has no training sessions; equal ones once.
        items: ids of the items; all that are displayed if none is given.
        sample: asks so many of these candidates of each display, drawn at random; None: all.

    Returns: a row for each number: `value`; `share`, from 0 to 1, of those numbers that are nearest
        to it, each counted once; `log_odds`, `log_odds_low`, `log_odds_high`.
    """
    displays = _displays(model, log, split, refits, progress)
    require_whole("n", n, 2)
    if sample is not None:
        require_whole("sample", sample, 1)
    rows, codes = displays.rows_of(field), displays.codes("items", items)
    chosen, known = np.isin(displays.items, codes), log.split[log.session_of_event] == TRAIN
    if displays.is_of_items(field):
        rows, known = rows[chosen], known[log.event_of_candidate()] & np.isin(log.items, codes)
    values = log.values_at(field, known) if known.any() else displays.log.values_at(field)[rows]
    points = np.unique(np.quantile(values, np.linspace(0, 1, n)).astype(np.float32))
    nearest = np.searchsorted((points[1:] + points[:-1]) / 2, values)
    share = np.bincount(nearest, minlength=len(points)) / len(values)
    if sample is not None:
        order = np.random.default_rng(0).permutation(np.flatnonzero(chosen))
        order = order[np.argsort(displays.display[order], kind="stable")]
        chosen[order[_ranks(displays.display[order]) >= sample]] = False

    def sums_of(model: ChoiceModel) -> list[sparse.csr_array]:
        changes = [partial(np.full_like, fill_value=point) for point in points]
        odds = [displays.log_odds(model, field, chosen, change) for change in changes]
        nothing = np.zeros_like(displays.items)
        return [one[:, :1] for one in displays.finite_sums(odds, chosen, nothing)]

    *tops, counts, _ = displays.drawn(sums_of)
    figures = _figures({"log_odds": ratio(np.hstack(tops), counts)}, displays.folds)
    return pl.DataFrame({"value": points, "share": share} | figures)


def importance(
    model: ChoiceModel,
    log: SessionLog,
    split: SplitName = "test",
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """By how much the model's NLL rises where a field's values are permuted among the candidates of
    each display (Breiman, "Random forests", 2001); `seed` seeds the permutations, one of each
    field. Other arguments and errors are as of `what_if`.

    Returns: a row for each field of candidates or items, the most important first: `field`, and
        `nll`, the rise in nats an event, with `nll_low` and `nll_high`. In a log with actions,
        categories of items are left out.
    """
    require_whole("seed", seed)
    displays = _displays(model, log, split, (), progress)
    choices = log.choices[pick_rows(log.session_offsets, log.sessions_in(split))[1]]
    first = np.flatnonzero(np.diff(displays.display, prepend=-1))
    rng = np.random.default_rng(seed)

    def nll(of: _Displays) -> Float64Array:
        chances, none = of.scores(model)
        with np.errstate(divide="ignore"):
            away = np.log(none[first]) if model.no_click else None
            return choice_nll(np.log(chances), away, np.append(first, len(chances)), choices)

    logged, rows = nll(displays), []
    for field, column in log.columns_of("candidate", "item").items():
        if log.actions is not None and (column.of, column.holds) == ("item", "category"):
            continue
        order = np.lexsort((rng.random(len(displays.shown)), displays.display))
        values = displays.log.values_at(field)[displays.shown[order]]
        rise = nll(displays.with_values(field, displays.shown, values)), logged
        found = paired_difference(*rise, displays.log.users, displays.weights)
        rows.append((field, found.mean, found.low, found.high))
    columns = ("nll", "nll_low", "nll_high")
    schema = {"field": pl.String, **dict.fromkeys(columns, pl.Float64)}
    return pl.DataFrame(rows, schema, orient="row").sort("nll", descending=True)


@dataclass(frozen=True)
class _Displays:
    """The displays of a split, each the last event of a session of its own."""

    model: ChoiceModel
    log: SessionLog
    shown: AnyInts
    """row of each candidate of the displays in the log, shape (n_shown,)"""
    refits: Sequence[ChoiceModel]
    progress: Progress | None
    folds: int
    """folds of users whose fits `refits` are; 0: none are"""

    @cached_property
    def items(self) -> AnyInts:
        """Item code of each candidate of the displays, shape (n_shown,)."""
        return self.log.items[self.shown]

    @cached_property
    def display(self) -> AnyInts:
        """Display of each of these candidates, shape (n_shown,)."""
        return self.log.session_of_event[self.log.event_of_candidate()[self.shown]]

    @cached_property
    def users(self) -> AnyInts:
        """User of each display, from 0, shape (n_displays,)."""
        return np.unique(self.log.users, return_inverse=True)[1]

    @cached_property
    def weights(self) -> Float64Array:
        """Weight of each display, 1 on average, (n_displays,)."""
        of_events = event_weights(self.log, self.log.session_offsets[1:] - 1)
        return np.ones(len(self.users)) if of_events is None else of_events.astype(np.float64)

    @cached_property
    def names(self) -> list[str | None]:
        return [*self.log.item_ids.to_list(), None]

    def codes(self, what: str, items: Sequence[object]) -> AnyInts:
        require_type(what, items, Collection)
        codes = np.unique(self.items)
        known = {self.names[code]: code for code in codes.tolist()}
        names = [str(one) for one in ([items] if isinstance(items, str) else items)]
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"{what} has '{name}', none of the {len(known)} items that are displayed has "
                    f"this id: correct it{did_you_mean(name, map(str, known))}"
                )
        return np.unique([known[name] for name in names]) if names else codes

    def is_of_items(self, field: str) -> bool:
        return self.log.columns[field].of in ("candidate", "item")

    def rows_of(self, field: str, of_items: bool = False) -> AnyInts:
        columns = self.log.columns_of("candidate", "item", "event", "user")
        if not columns:
            raise ConfigError(
                f"field is '{field}', and the log was read without fields: train with it, "
                "--candidate-field NAME (candidate_fields=['NAME'])"
            )
        require_known("field", field, columns)
        if columns[field].holds != "number":
            numbers = [name for name, one in columns.items() if one.holds == "number"]
            raise ConfigError(
                f"field '{field}' holds categories, a field of numbers is required: "
                f"{', '.join(numbers) or 'the log has none'}"
            )
        if of_items and not self.is_of_items(field):
            raise ConfigError(
                f"field '{field}' is of {columns[field].of}s, one of candidates or items is "
                "required: a number of an event belongs to no single item"
            )
        return self.shown if self.is_of_items(field) else self.log.session_offsets[1:] - 1

    def with_numbers(self, field: str, at: AnyInts, change: Change) -> _Displays:
        old = self.log.values_at(field)[at].astype(np.float64)
        return self.with_values(field, at, _new_numbers(field, change, old))

    def with_values(self, field: str, at: AnyInts, new: npt.NDArray[Any]) -> _Displays:
        """The same with new values of a field in some rows; the history keeps its own."""
        values = np.array(self.log.values_at(field))
        values[at] = new
        of: Of = "candidate" if self.is_of_items(field) else "event"
        column = Column(of, values, self.log.columns[field].texts)
        log = dataclasses.replace(self.log, columns={**self.log.columns, field: column})
        return dataclasses.replace(self, log=log)

    def without(self, codes: AnyInts) -> _Displays:
        log, kept = self.log, np.ones(self.log.n_candidates, np.bool_)
        kept[self.shown] = ~np.isin(self.items, codes)
        sizes = np.add.reduceat(kept, log.display_offsets[:-1], dtype=np.int64)
        if empty := int((sizes == 0).sum()):
            raise ConfigError(
                f"{empty} of {log.n_sessions} displays would lose their last item, each must keep "
                "one: drop fewer items, or leave these displays out of the log"
            )
        offsets = np.append(0, np.cumsum(sizes)).astype(np.int32)
        picked = log.picked(candidate=np.flatnonzero(kept))
        log = dataclasses.replace(log, display_offsets=offsets, **picked)
        shown = (np.cumsum(kept) - 1)[self.shown[kept[self.shown]]]
        return dataclasses.replace(self, log=log, shown=shown)

    def scores(self, model: ChoiceModel) -> tuple[Float64Array, Float64Array]:
        """Probabilities of the displays' candidates, and of no click there, (n_shown,) each."""
        parts = model.predict_parts(self.log, "all", self.progress)
        columns = [part.select("probability", "no_click_probability") for part in parts]
        chances, none = pl.concat(columns)[self.shown].cast(pl.Float64).to_numpy().T
        return chances, none

    def log_odds(
        self, model: ChoiceModel, field: str, chosen: BoolArray, change: Change
    ) -> Float64Array:
        """The log-odds of each chosen candidate, one changed at a time, (n_chosen,); infinite
        for probabilities 0 and 1."""
        rows, of_items = self.rows_of(field), self.is_of_items(field)
        if not of_items:
            chances, none = self.with_numbers(field, rows, change).scores(model)
        at = np.flatnonzero(chosen)
        ranks, found = _ranks(self.display[at]), np.empty(len(at))
        for rank in range(int(ranks.max(initial=-1)) + 1):
            one = at[ranks == rank]
            if of_items:
                chances, none = self.with_numbers(field, rows[one], change).scores(model)
            others = np.array(chances)
            others[one] = 0.0
            others = np.bincount(self.display, others)[self.display[one]]
            with np.errstate(divide="ignore"):
                found[ranks == rank] = np.log(chances[one]) - np.log(others + none[one])
        return found

    def shares(self, model: ChoiceModel) -> sparse.csr_array:
        """Sums of probabilities, (n_users, n_items + 1), those of no click last."""
        chances, none = self.scores(model)
        first = np.flatnonzero(np.diff(self.display, prepend=-1))
        groups = np.append(self.items, np.full(len(first), self.log.n_items))
        at = np.append(np.arange(len(chances)), first)
        return self.sums(np.append(chances, none[first]), groups, at)

    def finite_sums(
        self, values: Sequence[Float64Array], chosen: BoolArray, groups: AnyInts
    ) -> list[sparse.csr_array]:
        """`sums` of values of the chosen candidates, (n_chosen,) each, and their number, where
        all are finite."""
        kept = np.isfinite(values).all(axis=0)
        at = np.flatnonzero(chosen)[kept]
        return [self.sums(one[kept], groups[at], at) for one in (*values, np.ones(kept.shape))]

    def sums(self, values: Float64Array, groups: AnyInts, at: AnyInts) -> sparse.csr_array:
        """Sums by user and group, (n_users, n_items + 1), of values (n,) of the candidates `at`,
        times the weights of their displays."""
        display = self.display[at]
        place, values = (self.users[display], groups), values * self.weights[display]
        shape = self.users.max() + 1, self.log.n_items + 1
        return sparse.coo_array((values, place), shape).tocsr()

    def drawn(self, sums_of: Callable[[ChoiceModel], list[sparse.csr_array]]) -> list[Float64Array]:
        """Sums that are made of a model, (n_users, ·), and the number of displays: of all users,
        then of each draw, (1 + draws, ·)."""
        counts, rows = np.bincount(self.users, self.weights), []
        of_each = -(-DRAWS // max(len(self.refits), 1))
        for number, model in enumerate([self.model, *self.refits]):
            sums = [*sums_of(model), sparse.csr_array(counts[:, None])]
            weights = [] if number else [np.ones((1, len(counts)))]
            if number or not self.refits:
                weights += draw_users(len(counts), of_each, number)
            rows += [one @ sparse.hstack(sums, "csr") for one in weights]
        ends = np.cumsum([part.shape[1] for part in sums[:-1]])
        return np.split(np.concatenate(rows), ends, axis=1)


def _displays(
    model: ChoiceModel,
    log: SessionLog,
    split: SplitName,
    refits: Sequence[ChoiceModel],
    progress: Progress | None,
) -> _Displays:
    require_type("refits", refits, Sequence)
    for one in (model, *refits):
        require_type("model", one, ChoiceModel)
    seen = model.seen_users(log, split)
    if seen.n_leaked:
        # the changed log is another log: nothing would be left out of the counts of training
        raise ConfigError(
            f"users that did not train are required, {seen.n_leaked:,} of {seen.n_users:,} users "
            f"of split '{split}' of log '{log.name}' trained the model: take split 'test' of a log "
            "that is split as for training"
        )
    _, events = pick_rows(log.session_offsets, log.sessions_in(split))
    lengths = log.event_number[events].astype(np.int64) + 1
    before = np.append(0, np.cumsum(np.diff(log.display_offsets)))
    size = int((before[events + 1] - before[events + 1 - lengths]).sum())
    if not 0 < size <= MOST_CANDIDATES:
        raise LogFormatError(
            f"split '{split}' of log '{log.name}' has {size} candidates in its displays, each with "
            f"those before it in its session, 1 to {MOST_CANDIDATES} are required: choose another "
            "split, or fewer sessions"
        )
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1]) + np.repeat(events + 1 - ends, lengths)
    display_offsets, candidates = pick_rows(log.display_offsets, rows)
    session = log.session_of_event[events]
    picked = log.picked(session=session, event=rows, candidate=candidates)
    picked["split"][:] = TEST
    picked["choices"][ends - 1] = 0
    own = dataclasses.replace(
        log,
        session_offsets=np.append(0, ends).astype(np.int32),
        display_offsets=display_offsets,
        actions=log.actions and log.actions.picked(*pick_rows(log.actions.offsets, rows)),
        **picked,
    )
    _, shown = pick_rows(display_offsets, ends.astype(np.int32) - 1)
    folds = len(members_of(model)) if not refits else 0
    return _Displays(model, own, shown, refits or members_of(model), progress, folds)


def _new_numbers(field: str, change: Change, old: Float64Array) -> Float64Array:
    if not callable(change):
        raise ConfigError(
            f"the change of field '{field}' is {as_given(change)}, a function of its values is "
            "required: lambda x: .9 * x"
        )
    try:
        new = np.broadcast_to(np.asarray(change(old), np.float64), old.shape)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the change of field '{field}' does not make numbers of its {len(old)} values "
            f"({error}): give a function of an array, lambda x: .9 * x"
        ) from error
    wrong = ~(np.abs(new) <= MOST_NUMBER)
    if wrong.any():
        raise ConfigError(
            f"the change of field '{field}' makes {new[wrong][0]:g} of {old[wrong][0]:g} (one of "
            f"{wrong.sum()} such values), a finite number is required: correct the function (the "
            f"largest number is {MOST_NUMBER:g})"
        )
    return new


def _ranks(groups: AnyInts) -> AnyInts:
    """Place of each entry among those of its group, from 0; groups ascend."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _require_step(step: float) -> None:
    if isinstance(step, bool) or not (isinstance(step, int | float) and 0 < step < 1):
        raise ConfigError(f"step is {as_given(step)}, a number between 0 and 1 is required: try .1")


def is_own_logit(model: ChoiceModel, log: SessionLog) -> TypeGuard[ConditionalLogit]:
    """Whether the model is a logit that this log trained: then its own error is known."""
    return isinstance(model, ConditionalLogit) and model.learned_from(log)


def _delta_figures(
    found: Coefficients, displays: _Displays, codes: AnyInts, fields: tuple[str, str]
) -> dict[str, Any]:
    """The marginal utilities of a field and a price and their ratio, with 95 % intervals by the
    delta method, over all candidates of `codes`, then by code."""
    last, means = displays.log.session_offsets[1:] - 1, found.context_means
    moved = [displays.log.values_at(name)[last] - np.float64(z) for name, z in means.items()]
    by = np.column_stack([np.ones(len(last)), *moved])[displays.display]
    weights = displays.weights[displays.display]
    groups = [np.isin(displays.items, codes), *(displays.items == code for code in codes)]
    at = np.array([np.average(by[one], 0, weights[one]) for one in groups])
    # a number that is the same in all events has no coefficient, and needs none
    used = ~np.isclose(at, 0).all(0)
    suffixes = np.array(["", *(f" × {name}" for name in means)])[used]
    names = [field + suffix for field in fields for suffix in suffixes]
    rows, at = [found.names.index(name) for name in names], at[:, used]
    values, covariance = found.values[rows], found.covariance[np.ix_(rows, rows)]
    of_field, of_price = np.hstack([at, 0 * at]), np.hstack([0 * at, at])
    by_field, by_price = of_field @ values, of_price @ values
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = by_field / by_price
        of_worth = (of_field - worth[:, None] * of_price) / by_price[:, None]
    columns = dict[str, Any]()
    for name, value, slope in (
        ("worth", worth, of_worth),
        ("by_field", by_field, of_field),
        ("by_price", by_price, of_price),
    ):
        half = HALF_WIDTH * np.sqrt(np.einsum("gi,ij,gj->g", slope, covariance, slope))
        columns |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
    return columns


def _worth_frame(items: list[str | None], figures: Mapping[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame({"item": items} | dict(figures)).fill_nan(None)
    # where all users weigh the price alike, their draws have no ends
    paid = (pl.col("by_price") < 0) & (pl.col("by_price_high") < 0).fill_null(True)
    worth = pl.when(paid).then(pl.col("^worth.*$"))
    return frame.with_columns(worth.name.keep())


def _widened(draws: Float64Array, folds: int) -> Float64Array:
    """The draws of each fold's fit about the mean of all, with the model's error drawn anew, from
    Student's t of the `jackknife_error`."""
    if not folds:
        return draws
    by_fold = draws.reshape(folds, -1, *draws.shape[1:])
    centres = by_fold.mean(1, keepdims=True)
    error = jackknife_error(centres, folds)
    n = len(draws)
    # equally likely values of t, in an order that knows no fold
    equally = stdtrit(folds - 1, (np.arange(n) + 0.5) / n)
    drawn = equally[np.random.default_rng(0).permutation(n)].reshape(n, *[1] * (draws.ndim - 1))
    return np.asarray((by_fold - centres).reshape(draws.shape) + centres.mean(0) + error * drawn)


def _figures(drawn: Mapping[str, Float64Array], folds: int = 0) -> dict[str, Any]:
    """Figures, the first rows, and the ends of their intervals by the others; null where these do
    not differ. folds: of whose fits the draws are, in this order; 0: of other refits."""
    columns = dict[str, Any]()
    for name, values in drawn.items():
        low, high = percentile_interval(_widened(values[1:], folds))
        alike = high - low <= NO_WIDTH * np.abs(values[0])
        ends = [pl.Series(np.where(alike, np.nan, end)).fill_nan(None) for end in (low, high)]
        columns |= {name: values[0], f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return columns
