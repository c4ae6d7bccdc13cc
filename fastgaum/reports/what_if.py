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

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import polars as pl
from scipy import sparse

from fastgaum.arrays import BoolArray, Float64Array
from fastgaum.baselines.logit import ConditionalLogit
from fastgaum.baselines.logit_model import LogitModel
from fastgaum.baselines.logit_summary import HALF_WIDTH, Coefficients
from fastgaum.errors import ConfigError, as_given, require_type, require_whole
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import TRAIN, SessionLog, SplitName
from fastgaum.metrics.calibration import choice_nll
from fastgaum.metrics.intervals import paired_difference, ratio
from fastgaum.models.choice_model import ChoiceModel, Progress
from fastgaum.reports.changed_displays import Change, Displays, expected_columns, ranks_in_groups

MOST_ITEMS = 50
"""of elasticities at once: each takes two passes over the displays"""


def what_if(
    model: ChoiceModel,
    log: SessionLog,
    split: SplitName | None = None,
    *,
    fields: Mapping[str, Change] | None = None,
    items: Sequence[object] = (),
    drop: Sequence[object] = (),
    outcomes: bool = False,
    refits: Sequence[ChoiceModel] = (),
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The share of each item, and of no click, before and after a change of every display; or what
    follows its choice.

    Args:
        model: any fitted model.
        log: the log, of which the displays of `split` are changed.
        split: "train", "validation", "test" or "all"; None: "test", and of a model of
            `fastgaum.logit` what it was fitted to.
        fields: a function of the values of a field of numbers, by the field's name.
        items: ids of the items whose fields change; all if none is given.
        drop: ids of items that are no longer displayed.
        outcomes: answer in outcomes, 0 without a choice, for shares. Intervals hold how sure the
            choices are; of what follows them only refits with outcomes do.
        refits: the same model, fitted on bootstraps of the users that it was fitted to
            (`models.fit_data.bootstrap_of`). Without, a model that was fitted by folds of users has
            the fits of its folds.
        progress: is told of events scored, and in all, in each pass over the displays.

    Returns: a row for each displayed item, and one for no click (item null) if that is a choice:
        `before`, `after` and `difference`, shares from 0 to 1, and the ends of their intervals,
        `…_low` and `…_high`. In outcomes a row for each number (`outcome`), its mean per display,
        and for each category, the share of displays that it follows.

    Raises:
        ConfigError: nothing changes; a field is unknown or holds no numbers; an item is unknown; a
            new number is not finite; a display loses its last item; the sessions trained the model;
            or outcomes are asked of a model without any.
        LogFormatError: the split is empty.
        FeatureMismatchError: the log's fields are not the training log's.
    """
    displays = Displays.of(model, log, split, refits, progress)
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
    labels, ask = expected_columns(model), Displays.outcomes if outcomes else Displays.shares
    if outcomes and not labels:
        raise ConfigError(
            f"outcomes are asked for, and this {type(model).__name__} says nothing of what follows "
            "a choice: train a UserModel on a log with some (--outcome COLUMN)"
        )
    sides = (displays, changed)
    *sums, n = displays.drawn(lambda model: [ask(one, model) for one in sides])
    before, after = (ratio(one, n) for one in sums)
    figures = displays.figures({"before": before, "after": after, "difference": after - before})
    if outcomes:
        names = [label.removeprefix("expected_") for label in labels]
        return pl.DataFrame({"outcome": names} | figures)
    shown = np.append(np.bincount(displays.items, minlength=log.n_items) > 0, model.no_click)
    return pl.DataFrame({"item": displays.names} | figures).filter(pl.Series(shown))


def elasticities(
    model: ChoiceModel,
    log: SessionLog,
    field: str,
    split: SplitName | None = None,
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
    displays = Displays.of(model, log, split, refits, progress)
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
    return frame.with_columns(**displays.figures({"elasticity": values}))


def willingness_to_pay(
    model: ChoiceModel,
    log: SessionLog,
    field: str,
    price: str,
    split: SplitName | None = None,
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
    and intervals are by the delta method. So it is of a model of `fastgaum.logit`, whatever the
    log, by its errors clustered by user. With `refits`, and of other models and logs, figures are
    those of the model that predicts; without `refits` these have no intervals.

    Args:
        field: a field of numbers, of candidates or items. If users like it, its worth is negative.
        price: another one.
        items: ids of the items; all that are displayed if none is given.
        step: of the differences, in standard deviations of a field among these candidates.

    Returns: a row for all candidates (item null), then one for each item: `worth`, the marginal
        utilities `by_field` and `by_price`, and the ends of their intervals, `…_low` and `…_high`;
        by the delta method also the standard error of the worth, `worth_error`.
        Ends are null where nothing says how sure a figure is. The worth is null unless `by_price`
        and its interval lie below 0; where it has no ends, unless the users of the split agree.
    """
    displays = Displays.of(model, log, split, refits, progress)
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
    if not displays.refits and (isinstance(model, LogitModel) or is_own_logit(model, log)):
        groups = [chosen, *(displays.items == code for code in codes)]
        if isinstance(model, LogitModel):
            found = model.coefficients
            slopes = [_slopes_of_items(model, displays, groups, name) for name in (field, price)]
        else:
            found = model.coefficients(log)
            slopes = [_slopes_at_means(found, displays, groups, name) for name in (field, price)]
        return _worth_frame(rows, _delta_figures(found, *slopes))

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
    frame = _worth_frame(rows, displays.figures(drawn))
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
    split: SplitName | None = None,
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
    displays = Displays.of(model, log, split, refits, progress)
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
        chosen[order[ranks_in_groups(displays.display[order]) >= sample]] = False

    def sums_of(model: ChoiceModel) -> list[sparse.csr_array]:
        changes = [partial(np.full_like, fill_value=point) for point in points]
        odds = [displays.log_odds(model, field, chosen, change) for change in changes]
        nothing = np.zeros_like(displays.items)
        return [one[:, :1] for one in displays.finite_sums(odds, chosen, nothing)]

    *tops, counts, _ = displays.drawn(sums_of)
    figures = displays.figures({"log_odds": ratio(np.hstack(tops), counts)})
    return pl.DataFrame({"value": points, "share": share} | figures)


def importance(
    model: ChoiceModel,
    log: SessionLog,
    split: SplitName | None = None,
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
    split = split or model.default_split
    displays = Displays.of(model, log, split, (), progress)
    choices = log.choices[pick_rows(log.session_offsets, log.sessions_in(split))[1]]
    first = np.flatnonzero(np.diff(displays.display, prepend=-1))
    rng = np.random.default_rng(seed)

    def nll(of: Displays) -> Float64Array:
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


def _require_step(step: float) -> None:
    if isinstance(step, bool) or not (isinstance(step, int | float) and 0 < step < 1):
        raise ConfigError(f"step is {as_given(step)}, a number between 0 and 1 is required: try .1")


def is_own_logit(model: ChoiceModel, log: SessionLog) -> TypeGuard[ConditionalLogit]:
    """Whether the model is a logit that this log trained: then its own error is known."""
    return isinstance(model, ConditionalLogit) and model.learned_from(log)


def _slopes_at_means(
    found: Coefficients, displays: Displays, groups: Sequence[BoolArray], field: str
) -> Float64Array:
    """By how much of each coefficient a unit of a field raises the utility of each group of
    candidates, at the mean context of these, (n_groups, n_coefficients)."""
    last, means = displays.log.session_offsets[1:] - 1, found.context_means
    moved = [displays.log.values_at(name)[last] - np.float64(z) for name, z in means.items()]
    by = np.column_stack([np.ones(len(last)), *moved])[displays.display]
    at = _means(by, displays, groups)
    slopes = np.zeros((len(groups), len(found.names)))
    for column, suffix in enumerate(["", *(f" × {name}" for name in means)]):
        slopes[:, found.names.index(field + suffix)] = at[:, column]
    return slopes


def _slopes_of_items(
    model: LogitModel, displays: Displays, groups: Sequence[BoolArray], field: str
) -> Float64Array:
    """The same by the items of the candidates."""
    return _means(model.slopes(field, displays.names)[displays.items], displays, groups)


def _means(values: Float64Array, displays: Displays, groups: Sequence[BoolArray]) -> Float64Array:
    """Means of values of the candidates, (n_shown, n), by the weights of their displays, (n_groups,
    n)."""
    weights = displays.weights[displays.display]
    return np.array([np.average(values[one], 0, weights[one]) for one in groups])


def _delta_figures(
    found: Coefficients, of_field: Float64Array, of_price: Float64Array
) -> dict[str, Any]:
    """The marginal utilities of a field and a price and their ratio, with 95 % intervals by the
    delta method, of slopes of each group, (n_groups, n_coefficients)."""
    # what moves no coefficient needs none
    used = ~(np.isclose(of_field, 0).all(0) & np.isclose(of_price, 0).all(0))
    of_field, of_price, values = of_field[:, used], of_price[:, used], found.values[used]
    covariance = found.covariance[np.ix_(used, used)]
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
        error = np.sqrt(np.einsum("gi,ij,gj->g", slope, covariance, slope))
        half = HALF_WIDTH * error
        columns |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
        if name == "worth":
            columns["worth_error"] = error
    return columns


def _worth_frame(items: list[str | None], figures: Mapping[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame({"item": items} | dict(figures)).fill_nan(None)
    # where all users weigh the price alike, their draws have no ends
    paid = (pl.col("by_price") < 0) & (pl.col("by_price_high") < 0).fill_null(True)
    worth = pl.when(paid).then(pl.col("^worth.*$"))
    return frame.with_columns(worth.name.keep())
