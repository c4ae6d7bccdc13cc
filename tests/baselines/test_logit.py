"""The conditional logit's weights are the maximum of the penalised likelihood."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from fastgaum.baselines.logit import ConditionalLogit
from fastgaum.baselines.logit_summary import Coefficients, find_undecided, fit_coefficients
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import N_RESERVED
from fastgaum.features.sessions import EncodedSessions
from fastgaum.logs.log import TRAIN, SessionLog
from fastgaum.logs.read import read_log
from fastgaum.nets.batches import assemble
from fastgaum.nets.segments import segment_logsumexp
from tests.builders import put, random_log


def with_context(log: SessionLog) -> SessionLog:
    """The log with a number and a category of each event."""
    rng = np.random.default_rng(0)
    fields = {
        "price": rng.standard_normal(log.n_events).astype(np.float32),
        "place": rng.integers(0, 3, log.n_events).astype(np.int32),
    }
    names = pl.Series(["a", "b", "c"])
    return put(log, event=fields, categories={"place": names})


@pytest.mark.parametrize("no_click", [0.0, 0.3])
@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_the_gradient_is_zero_at_the_weights(protocol: str, no_click: float) -> None:
    """By autograd, of the likelihood written anew over the dense design."""
    log = with_context(random_log(5, n_sessions=80, no_click=no_click))
    model = ConditionalLogit(protocol=protocol, penalty=2.0, number_penalty=3.0)  # type: ignore[arg-type]
    model.fit(log)
    assert model.space is not None
    # a fit reads training sessions in orders, each of them with what was counted before
    _, encoded = model._read_training(log)
    batch = assemble(encoded)
    rows = model._design(batch)
    dense = np.column_stack([rows.times(unit) for unit in np.eye(len(model.weights))])
    errors = np.random.default_rng(0).standard_normal(len(dense))
    for power in (1, 2):
        sums = rows.transposed_times(errors, power)
        np.testing.assert_allclose(sums, (dense**power).T @ errors, atol=1e-9)
    design = torch.from_numpy(dense)
    offsets, chosen = batch.display_offsets, batch.chosen
    penalties = torch.from_numpy(model._penalties(2.0, 3.0))

    def penalised(weights: Tensor) -> Tensor:
        utility = design @ weights
        nll = segment_logsumexp(utility, offsets, model.no_click).sum() - utility[chosen].sum()
        return nll + 0.5 * (penalties * weights.square()).sum()

    weights = torch.from_numpy(model.weights).requires_grad_()
    gradient = torch.autograd.grad(penalised(weights), weights)[0]
    assert model.weights.any()
    assert float(gradient.abs().max()) < 5e-3
    draws = torch.Generator().manual_seed(0)
    for _ in range(5):
        away = torch.randn(len(weights), dtype=torch.float64, generator=draws)
        assert penalised(weights.detach() + 0.01 * away) > penalised(weights)


def test_penalties_are_chosen_on_validation() -> None:
    table = ConditionalLogit(number_penalty=1.0).fit(random_log(7, n_sessions=80)).history_
    named = ["penalty", "number_penalty", "cross_penalty"]
    assert table.columns == [*named, "val_loss", "val_prec1"]
    assert table["number_penalty"].unique().to_list() == [1.0]
    assert table["penalty"].n_unique() == table.height > 1


N_USERS, N_EVENTS, N_SHOWN = 40, 5, 4
STATSMODELS = [-0.0438713, -1.3720234], [0.0093183, 0.2194003]
"""coefficients and standard errors of cost and time in `travel`, by statsmodels 0.15:
GLM(chosen, [cost, time, (item = 1, 2, 3), a dummy of each event], family=Poisson()).fit(
cov_type="cluster", cov_kwds={"groups": user, "use_correction": False})"""


def travel(*fields: str) -> SessionLog:
    """Trips of persons who weigh costs differently, by four modes; half of the persons once more,
    to validate."""
    rng = np.random.default_rng(20)
    shape = (N_USERS, N_EVENTS, N_SHOWN)
    cost, time = rng.gamma(3, 10, shape).round(2), rng.gamma(2, 0.4, shape).round(3)
    taste = rng.normal(-0.05, 0.03, (N_USERS, 1, 1))
    choice = (taste * cost - 1.2 * time + rng.gumbel(size=shape)).argmax(-1)
    user, event, place = (one.ravel() for one in np.indices(shape))
    chosen, number = place == choice[user, event], np.arange(cost.size)
    columns = {
        "session": number // N_SHOWN,
        "event": event,
        "user": user,
        "item": place,
        "cost": cost.ravel(),
        "time": time.ravel(),
        "both": cost.ravel() + time.ravel(),
        "answer": 5.0 * chosen,
        "chosen": chosen.astype(np.int8),
        "split": 0 * user,
    }
    frame = pl.DataFrame(columns)
    again = frame.filter(pl.col("user") % 2 == 0).with_columns(
        pl.col("session", "user") - 10_000, split=pl.col("split") + 1
    )
    return read_log(pl.concat([frame, again]), candidate_fields=fields)


def test_coefficients_and_clustered_errors_are_those_of_statsmodels() -> None:
    log = travel("cost", "time")
    model = ConditionalLogit(protocol="identity")
    model.fit(log)
    found = model.summary(log)
    coefficients, errors = STATSMODELS
    assert found["name"].to_list() == ["cost", "time"]
    np.testing.assert_allclose(found["coefficient"], coefficients, rtol=1e-5)
    np.testing.assert_allclose(found["standard_error"], errors, rtol=1e-5)


def test_coefficients_and_errors_are_those_of_newton_s_method_by_hand() -> None:
    """With no click as a choice, a context number, and several events and sessions of a user."""
    log = random_log(5, n_sessions=240, n_items=3, no_click=0.3, shared_users=True)
    rng = np.random.default_rng(1)
    price = rng.normal(900, 2, log.n_candidates).astype(np.float32)
    age = rng.normal(40, 9, log.n_events).astype(np.float32)
    log = put(log, candidate={"price": price}, event={"age": age})
    model = ConditionalLogit(protocol="identity")
    model.fit(log)
    events = np.flatnonzero(log.split[log.session_of_event] == TRAIN)
    older = age.astype(np.float64) - age[events].mean(dtype=np.float64)
    x, p = [], 8
    for event in events:
        at = slice(*log.display_offsets[event : event + 2])
        own = np.column_stack([np.eye(3)[log.items[at]], price[at] - 900.0])
        x.append(np.vstack([np.zeros(p), np.hstack([own, older[event] * own])]))
    weights = np.zeros(p)
    for _ in range(30):
        shares = [np.exp(one @ weights) / np.exp(one @ weights).sum() for one in x]
        scores = np.array(
            [q @ one - one[1 + log.choices[e]] for q, one, e in zip(shares, x, events, strict=True)]
        )
        hessian = sum(
            one.T @ np.diag(q) @ one - np.outer(q @ one, q @ one)
            for q, one in zip(shares, x, strict=True)
        )
        weights -= np.linalg.solve(hessian, scores.sum(0))
    users = log.users[log.session_of_event[events]]
    by_user = np.array([scores[users == user].sum(0) for user in np.unique(users)])
    inverse = np.linalg.inv(hessian)
    errors = np.sqrt(np.diag(inverse @ (by_user.T @ by_user) @ inverse))
    found = model.summary(log)
    assert found["name"].to_list() == ["price", "price × age"]
    np.testing.assert_allclose(found["coefficient"], weights[[3, 7]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["standard_error"], errors[[3, 7]], rtol=1e-4)
    value, error, z, low, high = found.row(0)[1:]
    by_hand = (value / error, 2 * value, 3.919928 * error)
    assert (z, low + high, high - low) == pytest.approx(by_hand)


def test_a_summary_reads_each_session_once_and_hides_no_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, read = travel("cost", "time"), list[EncodedSessions]()

    def spy(*args: Any) -> Coefficients:
        read.append(args[3])
        return fit_coefficients(*args)

    monkeypatch.setattr("fastgaum.baselines.logit.fit_coefficients", spy)
    model = ConditionalLogit(protocol="bags")
    model.fit(log)
    model.summary(log)
    items = log.items[: log.display_offsets[log.count("events", "train")]]
    np.testing.assert_array_equal(np.sort(read[0].ids[:, 0] - N_RESERVED), np.sort(items))


def test_units_of_a_number_change_nothing() -> None:
    log = travel("cost", "time")
    small = log.columns["cost"].with_values(np.float32(1e-8) * log.columns["cost"].values)
    figures = []
    for one in (log, dataclasses.replace(log, columns={**log.columns, "cost": small})):
        model = ConditionalLogit(protocol="identity")
        model.fit(one)
        figures.append(model.evaluate(one, "validation").heads["reward"].nll.mean)
    assert figures[0] == pytest.approx(figures[1], abs=1e-5)


def test_what_has_no_coefficient_is_null_or_refused() -> None:
    log, other = travel("cost", "time", "both"), travel("cost", "answer")
    model = ConditionalLogit(protocol="identity")
    with pytest.raises(ConfigError, match="has not been trained"):
        model.summary(log)
    model.fit(log)
    # the first number less the second
    assert model.summary(log).row(2) == ("time", *[None] * 5)
    with pytest.raises(ConfigError, match="was not trained on log 'log'"):
        model.summary(other)
    with pytest.raises(ConfigError, match="was not trained on log 'log'"):
        model.summary(dataclasses.replace(log, ordered=not log.ordered))
    model.fit(other)
    # no finite coefficient is the likeliest
    assert model.summary(other).row(0) == ("answer", *[None] * 5)
    bare = travel()
    model.fit(bare)
    with pytest.raises(ConfigError, match="no number"):
        model.summary(bare)


TRUTH = -0.8
"""utility per unit of the price in `priced`"""


def priced(
    seed: int, n_events: int = 1500, n_items: int = 60, n_shown: int = 5, field: bool = False
) -> SessionLog:
    """Choices among some of many items, each with a constant of its own; with `field` this is the
    constant of the brand of a candidate, and no two events show the same item."""
    rng = np.random.default_rng(seed)
    shape = (n_events, n_shown)
    item = rng.random((n_events, n_items)).argsort(1)[:, :n_shown]
    price, constant = rng.uniform(0, 4, shape).astype(np.float32), rng.normal(0, 1, n_items)
    choice = (constant[item] + TRUTH * price + rng.gumbel(size=shape)).argmax(1)
    event = np.repeat(np.arange(n_events), n_shown)
    columns = {
        "session": event,
        "event": 0 * event,
        "user": event // 5,
        "item": np.arange(item.size) if field else item.ravel(),
        "price": price.ravel(),
        "chosen": (np.arange(n_shown) == choice[:, None]).astype(np.int8).ravel(),
    }
    fields = ["price"]
    if field:
        columns["brand"] = np.char.add("b", item.ravel().astype(str))
        fields.append("brand")
    return read_log(pl.DataFrame(columns), candidate_fields=fields)


def summary_of(log: SessionLog, **settings: Any) -> dict[str, Any]:
    """The first row of the summary."""
    model = ConditionalLogit(
        protocol="identity", penalty=1.0, number_penalty=1.0, cross_penalty=1.0, **settings
    )
    model.fit(log)
    with warnings.catch_warnings():
        # some items are never chosen
        warnings.simplefilter("ignore", UserWarning)
        return model.summary(log).row(0, named=True)


def likeliest(log: SessionLog, column: str = "item") -> float:
    """The coefficient of the price beside a constant of each value of a column, by scipy."""
    events = np.flatnonzero(log.split[log.session_of_event] == TRAIN)
    sizes = np.diff(log.display_offsets)
    n_shown = int(sizes[0])
    assert (sizes == n_shown).all()
    rows = (log.display_offsets[events][:, None] + np.arange(n_shown)).ravel()
    codes = (log.items if column == "item" else log.columns[column].values)[rows]
    price, chosen = log.columns["price"].values[rows].astype(float), log.choices[events]
    n, at = int(codes.max()) + 1, np.arange(len(events)) * n_shown + chosen

    def nll(weights: np.ndarray) -> tuple[float, np.ndarray]:
        utility = weights[codes] + weights[n] * price
        total = logsumexp(utility.reshape(-1, n_shown), axis=1)
        error = np.exp(utility - np.repeat(total, n_shown))
        error[at] -= 1
        gradient = np.append(np.bincount(codes, error, n), error @ price)
        return float(total.sum() - utility[at].sum()), gradient

    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-6}
    found = minimize(nll, np.zeros(n + 1), jac=True, method="L-BFGS-B", options=options)
    return float(found.x[n])


@pytest.mark.parametrize(("case", "n_items"), [("item", 20), ("item", 21), ("brand", 21)])
def test_constants_of_more_values_than_20_are_kept(case: str, n_items: int) -> None:
    log = priced(0, n_items=n_items, field=case == "brand")
    found = summary_of(log)
    assert found["coefficient"] == pytest.approx(likeliest(log, case), abs=1e-5)
    assert found["low"] < TRUTH < found["high"]


def test_what_constants_decide_leaves_the_fit() -> None:
    """A dud is shown and never chosen, a star is chosen wherever it is shown, and two more items are
    shown with the star alone: figures are those of the log without them."""
    plain = priced(0, 300, n_items=6, n_shown=3)
    rng, rows = np.random.default_rng(0), []
    frame = pl.DataFrame(
        {
            "session": np.repeat(np.arange(300), 3),
            "user": np.repeat(np.arange(300) // 5, 3),
            "item": [f"i{code}" for code in plain.items],
            "price": plain.columns["price"].values,
            "chosen": (np.arange(3) == plain.choices[:, None]).astype(int).ravel(),
        }
    )
    for session in range(300):
        rows.append((session, session // 5, "dud", rng.random(), 0))
        extra = ("star", rng.random(), 1), (f"late{session % 2}", rng.random(), 0)
        rows += [(300 + session, session // 5, *one) for one in extra]
    more = pl.concat([frame, pl.DataFrame(rows, frame.schema, orient="row")]).sort(
        "session", maintain_order=True
    )
    found = []
    for one in (frame, more):
        log = read_log(
            one.with_columns(event=0, split=(pl.col("user") >= 50).cast(pl.Int8)),
            candidate_fields=["price"],
        )
        model = ConditionalLogit(protocol="identity", penalty=1.0, number_penalty=1.0)
        model.fit(log)
        if one is frame:
            found.append(model.summary(log).row(0)[1:])
        else:
            says = "without a finite value.*: 4 of 10; choices that they leave .*: 250 of 500"
            with pytest.warns(UserWarning, match=says):
                found.append(model.summary(log).row(0)[1:])
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("no_click", [False, True])
def test_limits_of_endless_constants(no_click: bool) -> None:
    """Three constants: a is never chosen, b wherever it is shown, c now and then."""
    held = sparse.csr_matrix(
        np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]])
    )
    # displays: a c -, b c, - c
    found = find_undecided(
        held.astype(float), np.array([0, 3, 5, 7]), np.array([1, 0, 0]), no_click
    )
    assert found.endless.tolist() == [True, True, False]
    assert found.events.tolist() == [0, 2]
    assert found.candidates.tolist() == [1, 2, 5, 6]
    assert found.chosen.tolist() == [0, 2]
    assert found.no_click.tolist() == [no_click] * 2


def test_hundreds_of_constants_in_a_chain() -> None:
    """Each display shows an item and the next one: conjugate gradients have far to go."""
    rng, n = np.random.default_rng(0), 2_500
    first = np.arange(n) % 300
    item = np.column_stack([first, first + 1])
    price = rng.uniform(0, 4, (n, 2)).astype(np.float32)
    constant = rng.normal(0, 1, 301)
    chosen = (constant[item] + TRUTH * price + rng.gumbel(size=(n, 2))).argmax(1)
    log = read_log(
        pl.DataFrame(
            {
                "session": np.repeat(np.arange(n), 2),
                "event": 0,
                "item": item.ravel(),
                "price": price.ravel(),
                "chosen": (np.arange(2) == chosen[:, None]).astype(int).ravel(),
            }
        ),
        candidate_fields=["price"],
    )
    assert summary_of(log)["coefficient"] == pytest.approx(likeliest(log), abs=1e-3)


def test_crosses_of_many_contexts_are_left_out_and_said() -> None:
    log, rng = priced(0, 1000, n_items=4, n_shown=3), np.random.default_rng(0)
    for n_values in (20, 21):
        query = rng.permutation(np.arange(log.n_events) % n_values).astype(np.int32)
        names = pl.Series([f"q{value}" for value in range(n_values)])
        asked = put(log, event={"query": query}, categories={"query": names})
        model = ConditionalLogit(protocol="identity", penalty=1.0, number_penalty=1.0)
        model.fit(asked)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            summary = model.summary(asked)
        assert summary["coefficient"].null_count() == 0
        said = "\n".join(str(one.message) for one in notes)
        assert ("'query' has 21 values, more than 20: its crosses" in said) == (n_values == 21)
        # crosses are constants: so many that choices are few beside them
        assert ("choices are few for" in said) == (n_values == 20)


def test_pairs_of_values_that_say_nothing_cost_nothing() -> None:
    """A query that decides nothing, crossed with brands that decide all: 225 pairs, 560 choices."""
    rng = np.random.default_rng(1)
    n, k, n_values = 1000, 4, 15
    brands, worth = rng.integers(0, n_values, (n, k)), rng.normal(0, 1, n_values)
    chosen = (worth[brands] + rng.gumbel(size=(n, k))).argmax(1)
    rows = pl.DataFrame(
        {
            "session": np.repeat(np.arange(n), k),
            "event": 0,
            "item": np.concatenate([rng.permutation(12)[:k] for _ in range(n)]),
            "chosen": (chosen[:, None] == np.arange(k)).astype(int).ravel(),
            "query": pl.Series(np.repeat(rng.integers(0, n_values, n), k)).cast(pl.String),
            "brand": pl.Series(brands.ravel()).cast(pl.String) + "b",
        }
    )
    losses = []
    for context in ((), ("query",)):
        log = read_log(rows, candidate_fields=["brand"], context_fields=context)
        tried = ConditionalLogit(penalty=100.0, number_penalty=100.0).fit(log).history_
        losses.append(tried["val_loss"].min())
    assert losses[1] < losses[0] + 0.02
    assert tried.filter(pl.col("cross_penalty") == 0.1)["val_loss"].item() > losses[0] + 0.1
