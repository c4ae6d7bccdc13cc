"""`fastgaum.logit` against the textbook likelihood, maximised by scipy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm

import fastgaum as fg
from fastgaum.baselines.logit_model import LogitModel
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.models.fit_data import bootstrap_of

ITEMS = ["CAR", "SM", "TRAIN"]
N, K = 900, 3


class Trips:
    """Choices among three modes, some of them not available; three choices a person."""

    def __init__(self, seed: int = 0, weighted: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.time, self.cost = rng.uniform(20, 200, (2, N, K)).round(1).astype(np.float32)
        self.income = np.repeat(rng.uniform(2, 9, N // 3), 3).round(2).astype(np.float32)
        taste = np.repeat(rng.normal(-0.01, 0.006, (N // 3, 1)), 3, axis=0)
        utility = [0.3, 0.0, -0.5] - 0.012 * self.time + taste * self.cost
        utility[:, 0] += 0.05 * self.income
        self.available = rng.random((N, K)) > 0.2
        self.available[self.available.sum(1) == 0] = True
        utility[~self.available] = -np.inf
        self.choice = (utility + rng.gumbel(size=(N, K))).argmax(1)
        self.person = np.arange(N) // 3
        self.weight = rng.uniform(0.5, 2, N) if weighted else np.ones(N)

    def frame(self) -> pl.DataFrame:
        event = np.repeat(np.arange(N), K)
        return pl.DataFrame(
            {
                "session": event,
                "event": 0 * event,
                "user": self.person[event],
                "item": ITEMS * N,
                "chosen": (np.arange(K) == self.choice[:, None]).astype(int).ravel(),
                "av": self.available.astype(int).ravel(),
                "weight": self.weight[event],
                "time": self.time.ravel(),
                "cost": self.cost.ravel(),
                "income": self.income[event],
            }
        )

    def by_scipy(self, x: np.ndarray) -> dict[str, Any]:
        """Estimates and errors of a design, (N, K, p), of the likelihood as books write it."""
        x = x.astype(float)
        of = self.weight / self.weight.mean()

        def events(beta: np.ndarray) -> np.ndarray:
            utility = np.where(self.available, x @ beta, -np.inf)
            chosen = utility[np.arange(N), self.choice]
            return np.asarray(chosen - logsumexp(utility, axis=1))

        def scores(beta: np.ndarray) -> np.ndarray:
            utility = np.where(self.available, x @ beta, -np.inf)
            share = np.exp(utility - logsumexp(utility, axis=1, keepdims=True))
            mean = np.einsum("nk,nkp->np", share, x)
            return np.asarray(of[:, None] * (x[np.arange(N), self.choice] - mean))

        unit = x.std((0, 1))
        found = minimize(
            lambda z: -float(of @ events(z / unit)),
            np.zeros(x.shape[2]),
            jac=lambda z: -scores(z / unit).sum(0) / unit,
            method="BFGS",
            options={"gtol": 1e-6},
        )
        beta = found.x / unit
        steps = np.diag(1e-5 / unit)
        hessian = np.array(
            [(scores(beta - h).sum(0) - scores(beta + h).sum(0)) / (2 * h.sum()) for h in steps]
        )
        classical, each = np.linalg.inv(hessian), scores(beta)
        by_user = np.array([each[self.person == one].sum(0) for one in np.unique(self.person)])
        sandwich = [classical @ (s.T @ s) @ classical for s in (each, by_user)]
        return {
            "beta": beta,
            "covariances": [classical, *sandwich],
            "log_likelihood": float(of @ events(beta)),
            "null": float(of @ events(0 * beta)),
        }


@pytest.mark.parametrize("weighted", [False, True])
def test_estimates_errors_and_fit_are_those_of_the_textbook(weighted: bool) -> None:
    trips = Trips(weighted=weighted)
    read: dict[str, Any] = {"weight": "weight"} if weighted else {}
    model = fg.logit(
        trips.frame(),
        ["cost"],
        by_item=["time", "income"],
        base="SM",
        available="av",
        context_fields=["income"],
        **read,
    )
    one, none = np.ones(N), np.zeros(N)
    income, time = trips.income, trips.time
    columns = [
        np.stack([one, none, none], 1),
        np.stack([none, none, one], 1),
        trips.cost,
        *(np.where(np.arange(K) == k, time, 0) for k in range(K)),
        np.stack([income, none, none], 1),
        np.stack([none, none, income], 1),
    ]
    found = trips.by_scipy(np.stack(columns, 2))
    table = model.summary()
    assert table["name"].to_list() == [
        *("constant[CAR]", "constant[TRAIN]", "cost", "time[CAR]", "time[SM]", "time[TRAIN]"),
        *("income[CAR]", "income[TRAIN]"),
    ]
    np.testing.assert_allclose(table["estimate"], found["beta"], rtol=1e-4)
    frames = (model.covariance, model.robust_covariance, model.clustered_covariance)
    errors = ("standard_error", "robust_error", "clustered_error")
    for frame, error, expected in zip(frames, errors, found["covariances"], strict=True):
        assert frame.columns == ["name", *table["name"]]
        deviations = np.sqrt(np.diag(expected))
        np.testing.assert_allclose(table[error], deviations, rtol=1e-4)
        scaled = frame.drop("name").to_numpy() / np.outer(deviations, deviations)
        np.testing.assert_allclose(scaled, expected / np.outer(deviations, deviations), atol=1e-4)
    # errors of one person's choices go together here, so that no two are alike
    assert not np.allclose(table["clustered_error"], table["robust_error"], rtol=1e-3)
    t = found["beta"] / np.sqrt(np.diag(found["covariances"][2]))
    np.testing.assert_allclose(table["t"], t, rtol=1e-3)
    np.testing.assert_allclose(table["p"], 2 * norm.sf(np.abs(t)), rtol=1e-2)
    robust = model.summary("robust")
    np.testing.assert_allclose(robust["t"], robust["estimate"] / robust["robust_error"])
    log_likelihood, null = found["log_likelihood"], found["null"]
    assert model.log_likelihood == pytest.approx(log_likelihood, abs=1e-5)
    assert model.null_log_likelihood == pytest.approx(null, abs=1e-5)
    assert model.rho2 == pytest.approx(1 - log_likelihood / null)
    assert model.adjusted_rho2 == pytest.approx(1 - (log_likelihood - 8) / null)
    assert model.aic == pytest.approx(16 - 2 * log_likelihood)
    assert model.bic == pytest.approx(8 * np.log(N) - 2 * log_likelihood)
    assert (model.n_events, model.n_users, model.n_parameters) == (N, N // 3, 8)


def test_no_click_is_the_base_where_it_is_a_choice() -> None:
    """Its utility is 0, so that all items have constants, and a number of events may be generic."""
    trips, rng = Trips(), np.random.default_rng(1)
    away = rng.random(N) < 0.3
    trips.available[:] = True
    rows = trips.frame().with_columns(
        chosen=pl.col("chosen") * pl.Series(np.repeat(~away, K).astype(int))
    )
    model = fg.logit(rows, ["time", "income"], context_fields=["income"])
    x = np.stack([*np.broadcast_to(np.eye(K)[:, None], (K, N, K)), trips.time], 2)
    x = np.concatenate([x, np.repeat(trips.income, K).reshape(N, K, 1)], 2).astype(float)
    choice = np.where(away, K, trips.choice)

    def nll(z: np.ndarray) -> float:
        utility = np.column_stack([x @ (z / [1, 1, 1, 100, 5]), np.zeros(N)])
        return float(np.sum(logsumexp(utility, axis=1) - utility[np.arange(N), choice]))

    found = minimize(nll, np.zeros(K + 2), method="BFGS", options={"gtol": 1e-4})
    table = model.summary()
    assert table["name"][0] == "constant[CAR]"
    np.testing.assert_allclose(table["estimate"], found.x / [1, 1, 1, 100, 5], atol=2e-4)
    assert model.log_likelihood == pytest.approx(-found.fun, abs=1e-4)
    assert model.null_log_likelihood == pytest.approx(-N * np.log(K + 1))
    with pytest.raises(ConfigError, match="whose utility is 0: leave base out"):
        fg.logit(rows, ["time"], base="SM")
    log = fg.read_log(rows, candidate_fields=["time"])
    shares = fg.logit(log).predict(log)
    away_share = shares.group_by("session").first()["no_click_probability"].mean()
    assert away_share == pytest.approx(away.mean(), abs=1e-4)


def test_answers_are_those_of_the_formulas() -> None:
    """Shares of the choices that were fitted, elasticities of sample enumeration, and what users
    pay, also of coefficients by item."""
    trips = Trips()
    log = fg.read_log(trips.frame(), candidate_fields=["time", "cost"], available="av")
    model = fg.logit(log)
    estimates = dict(model.summary().select("name", "estimate").rows())
    shares = fg.what_if(model, log, fields={"cost": lambda c: c}, split="all")
    observed = np.bincount(trips.choice, minlength=K) / N
    # constants make them so (Train 2009, section 3.7.1)
    np.testing.assert_allclose(shares["before"], observed, atol=1e-4)
    predicted = model.predict(log).sort(pl.col("session").cast(int), "item")
    chance = np.zeros((N, K))
    chance[trips.available] = predicted["probability"].to_numpy()
    found = fg.elasticities(model, log, "cost", "all", items=["CAR"], step=0.001)["elasticity"][0]
    own = estimates["cost"] * trips.cost * (1 - chance)
    assert found == pytest.approx(np.average(own[:, 0], weights=chance[:, 0]), rel=1e-3)
    worth = fg.willingness_to_pay(model, log, "time", "cost", "all")
    ratio = estimates["time"] / estimates["cost"]
    v = model.clustered_covariance.filter(pl.col("name").is_in(["cost", "time"]))
    v2 = v.select("cost", "time").to_numpy()
    names = v["name"].to_list()
    by = {"time": 1 / estimates["cost"], "cost": -ratio / estimates["cost"]}
    slope = np.array([by[name] for name in names])
    order = [("cost", "time").index(name) for name in names]
    half = 1.959964 * np.sqrt(slope @ v2[:, order] @ slope)
    for row in worth.rows(named=True):
        assert row["worth"] == pytest.approx(ratio)
        assert (row["worth_low"], row["worth_high"]) == pytest.approx((ratio - half, ratio + half))
        assert row["worth_error"] == pytest.approx(half / 1.959964)
    by_item = fg.logit(log, ["cost"], by_item=["time"])
    estimates = dict(by_item.summary().select("name", "estimate").rows())
    worth = fg.willingness_to_pay(by_item, log, "time", "cost", "all", items=["SM", "TRAIN"])
    of = {item: estimates[f"time[{item}]"] / estimates["cost"] for item in ("SM", "TRAIN")}
    n = trips.available.sum(0)
    mean = (n[1] * of["SM"] + n[2] * of["TRAIN"]) / (n[1] + n[2])
    assert worth["worth"].to_list() == pytest.approx([mean, of["SM"], of["TRAIN"]])
    with pytest.raises(ConfigError, match="no coefficient of 'time'; it has some of cost"):
        fg.willingness_to_pay(fg.logit(log, ["cost"]), log, "time", "cost", "all")


def test_a_split_is_fitted_alone_and_the_others_are_new_to_it() -> None:
    log = fg.read_log(Trips().frame(), candidate_fields=["time", "cost"], available="av")
    whole, part = fg.logit(log), fg.logit(log, split="train")
    assert part.n_events == log.count("events", "train") < whole.n_events == N
    assert not np.allclose(part.summary()["estimate"], whole.summary()["estimate"], rtol=1e-3)
    assert part.evaluate(log, "test").heads["reward"].nll.mean < np.log(K)
    with pytest.raises(fg.errors.SeenUsersError, match="trained this model"):
        whole.evaluate(log, "test")
    # questions are of what was fitted, unless a split is named
    for model, split in ((whole, "all"), (part, "train")):
        own, named = (
            fg.willingness_to_pay(model, log, "time", "cost", *of) for of in ((), (split,))
        )
        assert own.equals(named)
        changes: dict[str, Any] = {"fields": {"cost": lambda cost: 1.1 * cost}}
        assert fg.what_if(model, log, **changes).equals(fg.what_if(model, log, split, **changes))


def test_users_of_all_splits_are_drawn_for_a_model_of_all() -> None:
    """Refits on them spread as the errors by user say."""
    log = fg.read_log(Trips().frame(), candidate_fields=["time", "cost"], available="av")
    model = fg.logit(log)
    drawn = [bootstrap_of(log, 0, number, "all") for number in range(1, 41)]
    estimates = np.array([fg.logit(one).summary()["estimate"].to_numpy() for one in drawn])
    table = model.summary()
    error = table["clustered_error"].to_numpy()
    assert (np.abs(estimates.mean(0) - table["estimate"].to_numpy()) < 3.5 * error / 40**0.5).all()
    ratio = estimates.std(0, ddof=1) / error
    assert ((ratio > 0.6) & (ratio < 1.5)).all()
    trained = bootstrap_of(log, 0, 1)
    assert trained.count("sessions", "validation") == log.count("sessions", "validation")
    with pytest.raises(ConfigError, match="split"):
        bootstrap_of(log, 0, 1, "test")  # type: ignore[arg-type]


def test_what_has_no_finite_value_is_null_said_and_harms_no_other() -> None:
    trips = Trips()
    rows = trips.frame()
    dud = rows.with_columns(item=pl.lit("DUD"), chosen=pl.lit(0, pl.Int64))
    both = pl.concat([rows, dud.unique(["session"], keep="first")])
    both = both.with_columns(twice=2 * pl.col("cost"))
    plain = fg.logit(rows, ["time", "cost"], base="CAR", available="av")
    with pytest.warns(UserWarning, match=r"of constant\[DUD\], twice: other coefficients"):
        model = fg.logit(both, ["time", "cost", "twice"], base="CAR", available="av")
    table = {row["name"]: row for row in model.summary().rows(named=True)}
    assert table["constant[DUD]"]["estimate"] is None
    assert table["twice"]["t"] is None
    for row in plain.summary().rows(named=True):
        for key in ("estimate", "standard_error", "robust_error", "clustered_error"):
            assert table[row["name"]][key] == pytest.approx(row[key], rel=1e-5)
    assert model.n_parameters == plain.n_parameters
    assert model.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    assert "–" in str(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        log = fg.read_log(both, candidate_fields=["time", "cost", "twice"], available="av")
        never = model.predict(log).filter(pl.col("item") == "DUD")
    assert never["probability"].max() < 1e-6  # type: ignore[operator]


def test_views_in_text_and_html() -> None:
    rows = Trips().frame().with_columns(item=pl.col("item").replace("SM", "<b>SM</b>"))
    model = fg.logit(rows, ["time", "cost"], available="av")
    said = str(model).splitlines()
    assert said[0] == "Conditional logit of 'log'"
    assert ["choices", "(N)", "900"] in [line.split() for line in said]
    first = next(line.split() for line in said if line.startswith("time"))
    row = model.summary().row(2, named=True)
    assert row["name"] == "time"
    assert first[1:5] == [
        f"{row[key]:.6g}"
        for key in ("estimate", "standard_error", "robust_error", "clustered_error")
    ]
    assert said[-1].startswith("base: <b>SM</b>;")
    html = model._repr_html_()
    assert "<b>" not in html
    assert "constant[CAR]" in html
    assert f"{model.aic:,.2f}" in html
    assert "not fitted" in str(LogitModel()) + LogitModel()._repr_html_()
    assert repr(model).startswith("LogitModel(4 coefficients, 900 choices")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"numbers": ["tim"]}, "no column of numbers 'tim'; did you mean 'time'"),
        ({"numbers": "time"}, "numbers is 'time', a list of names"),
        ({"numbers": ["income"]}, r"decides nothing: .*by_item=\['income'\]"),
        ({"numbers": ["zone"]}, r"'zone' holds categories, .* 0 and 1"),
        ({"by_item": ["purpose"]}, "whole numbers of events are categories"),
        ({"numbers": ["time"], "by_item": ["time"]}, "one of them twice"),
        ({"base": "BUS"}, "base is 'BUS', one of CAR, SM, TRAIN"),
        ({"constants": 1}, "constants is 1, True or False"),
        ({"numbers": [], "constants": False}, "would have 0 coefficients"),
        ({"split": "tests"}, "split is 'tests'"),
        ({"available": "av"}, "the log has been read, available says how"),
    ],
)
def test_wrong_questions_are_refused(asked: dict[str, Any], says: str) -> None:
    rows = (
        Trips()
        .frame()
        .with_columns(zone=pl.lit("a"), purpose=pl.col("user") % 3, chosen=pl.col("chosen"))
    )
    log = fg.read_log(
        rows,
        candidate_fields=["time", "cost", "zone"],
        context_fields=["income", "purpose"],
        available="av",
    )
    with pytest.raises(ConfigError, match=says):
        fg.logit(log, **asked)


def test_what_is_no_log_and_what_cannot_be_saved() -> None:
    with pytest.raises(LogFormatError, match="no column 'tim'"):
        fg.logit(Trips().frame(), ["tim"])
    many = pl.DataFrame(
        {"session": [0] * 600, "event": 0, "item": range(600), "chosen": [1] + [0] * 599}
    )
    with pytest.raises(ConfigError, match="would have 599 coefficients, 1 to 500"):
        fg.logit(many, [])
    for unnamed in ({}, {"available": "av"}):
        with pytest.raises(ConfigError, match="only named columns are read"):
            fg.logit(Trips().frame(), **unnamed)
    with pytest.raises(ConfigError, match="has no file"):
        fg.logit(Trips().frame(), ["time"], available="av").save("logit.safetensors")
