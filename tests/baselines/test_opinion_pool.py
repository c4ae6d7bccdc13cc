"""The pool's formulas against finite differences and by hand; what is fitted on what; files, the
command line, and members that are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastgaum as fg
from fastgaum.baselines.floors import ClickRateFloor
from fastgaum.baselines.iknn import ItemKnn
from fastgaum.baselines.linucb import LinUcb
from fastgaum.baselines.member_fits import FOLD_EVENTS, HeldOut, folds_of, pooled_opinion
from fastgaum.baselines.opinion_pool import OpinionPool
from fastgaum.baselines.registry import check_model, load_model, make_model
from fastgaum.cli.app import main
from fastgaum.errors import CheckpointError, ConfigError, LogFormatError
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.reports.page import write_report
from fastgaum.worlds.learned_world import LearnedWorld
from tests.builders import change_state, log_of, random_log

QUICK = ("click-rate", "linucb", "iknn")


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return random_log(7, n_sessions=80, no_click=0.3)


@pytest.fixture(scope="module")
def pool(log: SessionLog) -> OpinionPool:
    pool = OpinionPool(QUICK)
    pool.fit(log)
    return pool


def held_out(seed: int, outside: bool, n_members: int = 3, n_events: int = 12) -> HeldOut:
    """Events of chance."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, n_events)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    choices = rng.integers(-1 if outside else 0, sizes).astype(np.int32)
    odds = torch.from_numpy(2 * rng.standard_normal((offsets[-1], n_members)))
    return HeldOut(torch.from_numpy(offsets), choices, outside, odds)


def naive_nll(held: HeldOut, weights: np.ndarray, lapse: float) -> float:
    """Event by event."""
    total = 0.0
    offsets = held.display_offsets.numpy()
    for event, choice in enumerate(held.choices):
        part = held.opinions[offsets[event] : offsets[event + 1]].numpy()
        odds = np.exp(part @ weights)
        whole = odds.sum() + (1 if held.outside else 0)
        if choice < 0:
            total -= np.log(1 / whole)
        else:
            click = odds.sum() / whole
            total -= np.log((1 - lapse) * odds[choice] / whole + lapse * click / len(odds))
    return float(total / len(held.choices))


@given(st.integers(0, 10_000), st.booleans(), st.floats(0.001, 0.4))
def test_nll_and_its_gradient(seed: int, outside: bool, lapse: float) -> None:
    held = held_out(seed, outside)
    weights = np.random.default_rng(seed).random(3)
    naive = naive_nll(held, weights, lapse)
    assert held.nll(weights, lapse)[0] == pytest.approx(naive, rel=1e-9)
    value, gradient = held.penalised(weights, lapse)
    assert value == pytest.approx(naive - np.log(lapse) / 12, rel=1e-9)
    at, step = np.append(weights, lapse), 1e-6

    def penalised(values: np.ndarray) -> float:
        return held.penalised(values[:-1], float(values[-1]))[0]

    numeric = [
        (penalised(at + step * one) - penalised(at - step * one)) / (2 * step) for one in np.eye(4)
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("outside", [False, True])
def test_the_best_is_no_worse_than_any_member(outside: bool) -> None:
    held = held_out(3, outside, n_events=60)
    weights, lapse = held.best()
    assert (weights >= 0).all()
    best = held.penalised(weights, lapse)[0]
    assert all(best <= held.penalised(one, 0.01)[0] for one in np.eye(3))
    for seed in range(20):
        other = np.random.default_rng(seed).random(4)
        assert best <= held.penalised(other[:3], 0.5 * other[3])[0] + 1e-6


@pytest.mark.parametrize("n_events", [4, 400])
def test_a_lapse_that_was_never_seen_is_rare_and_never_0(n_events: int) -> None:
    """A member is sure of each event, and right. A lapse ε costs log(1 − ε/2) at each of n, and one
    click more costs log ε: least at 2 / (n + 1)."""
    offsets = torch.arange(0, 2 * n_events + 1, 2, dtype=torch.int32)
    sure = torch.tensor([[9.0], [-9.0]], dtype=torch.float64).repeat(n_events, 1)
    held = HeldOut(offsets, np.zeros(n_events, np.int32), False, sure)
    assert held.best()[1] == pytest.approx(2 / (n_events + 1), rel=0.02)


def test_models_of_the_folds_have_not_seen_their_users(pool: OpinionPool, log: SessionLog) -> None:
    """Each is the member fitted on its fold alone, and stays so when the next is fitted."""
    folds = folds_of(log, seed=0)
    for name in pool.models:
        for fold, kept in zip(folds, pool.fold_models[name], strict=True):
            alone = make_model(name, {"protocol": "bags"})
            alone.fit(fold)
            assert kept.predict(log, "test").equals(alone.predict(log, "test"))


def test_few_folds_leave_no_models(log: SessionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    n_events = log.count("events", "train")
    monkeypatch.setattr("fastgaum.baselines.member_fits.FOLD_EVENTS", 3 * n_events)
    pool = OpinionPool(["linucb"])
    pool.fit(log)
    assert pool.fold_models == {"linucb": []}
    assert len(pool.initial(3)) == 1
    alone = pool.models["linucb"].predict(log, "test")
    own = pool.weights["linucb"] * (
        alone["probability"].log() - alone["no_click_probability"].log()
    )
    pool.lapse = 0.0
    np.testing.assert_allclose(pool.predict(log, "test")["utility"], own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outside", [False, True])
def test_one_member_of_weight_1_is_the_member(outside: bool) -> None:
    held = held_out(5, outside, n_members=1)
    offsets = held.display_offsets
    pooled = pooled_opinion(held.opinions, torch.ones(1).double(), 0.0, offsets, outside)
    shift = pooled - held.opinions[:, 0]
    if not outside:
        # log-probabilities: the same up to a constant of each display set
        shift = shift - shift[offsets[:-1].long()].repeat_interleave(offsets.diff())
    np.testing.assert_allclose(shift, 0, atol=1e-12)


def test_a_lapse_spreads_clicks_and_leaves_no_click_alone() -> None:
    """Odds 3 and 1 against no click: .6, .2 and .2; half of the clicks to either alike: .5, .3."""
    odds = torch.log(torch.tensor([[3.0], [1.0]], dtype=torch.float64))
    offsets = torch.tensor([0, 2], dtype=torch.int32)
    pooled = pooled_opinion(odds, torch.ones(1).double(), 0.5, offsets, True)
    odds_of_all = np.append(pooled.exp().numpy(), 1)
    probs = odds_of_all / odds_of_all.sum()
    np.testing.assert_allclose(probs, [0.5, 0.3, 0.2])


def test_folds_hold_each_training_user_out_once_and_no_test_session() -> None:
    log = random_log(1, n_sessions=80, shared_users=True)
    log = log.with_split(np.repeat([0, 0, 1, 2], 20).astype(np.int8))
    folds = folds_of(log, seed=0)
    assert len(folds) == 5
    held = [set(fold.users[fold.split == 2]) for fold in folds]
    training = set(log.users[log.split == 0])
    assert set().union(*held) == training
    assert sum(map(len, held)) == len(training)
    for fold, users in zip(folds, held, strict=True):
        assert not users & set(fold.users[fold.split == 0])
        assert not set(fold.session_ids) & set(log.session_ids.filter(log.split == 2))
        assert (fold.split == 1).sum() == (log.split == 1).sum()


def test_a_large_log_holds_some_users_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log(1, n_sessions=80)
    n_events = log.count("events", "train")
    monkeypatch.setattr("fastgaum.baselines.member_fits.FOLD_EVENTS", n_events)
    (fold,) = folds_of(log, seed=0)
    assert fold.count("sessions", "test") == round(0.2 * log.count("sessions", "train"))
    assert fold.count("sessions", "train") + fold.count("sessions", "test") == 40
    assert FOLD_EVENTS == 50_000


def test_on_its_folds_the_pool_is_no_worse_than_its_best_member(pool: OpinionPool) -> None:
    table = pool.table
    assert table is not None
    own = table.filter(pl.col("member") != "pool")["fold_nll"]
    # but for what a lapse above 0 may cost, by which weights are chosen too
    assert table.row(-1, named=True)["fold_nll"] <= own.min() + 0.01  # type: ignore[operator]
    assert set(pool.weights) == set(QUICK)
    assert set(pool.models) == {name for name, weight in pool.weights.items() if weight > 0}


def test_probabilities_are_the_formula(pool: OpinionPool, log: SessionLog) -> None:
    """Of the predictions of members and of their models of the folds, by hand."""
    frames, weights = [], []
    for name, model in pool.models.items():
        assert len(pool.fold_models[name]) == 5
        for one, share in ((model, 1 / 2), *((fold, 1 / 10) for fold in pool.fold_models[name])):
            frames.append(one.predict(log, "test"))
            weights.append(share * pool.weights[name])
    frame = pool.predict(log, "test").with_columns(
        log_q=sum(
            weight * (one["probability"].log() - one["no_click_probability"].log())
            for weight, one in zip(weights, frames, strict=True)
        )
    )
    by = ["session", "event"]
    frame = frame.with_columns(q=pl.col("log_q").exp() / (1 + pl.col("log_q").exp().sum().over(by)))
    click = pl.col("q").sum().over(by)
    expected = frame.select((1 - pool.lapse) * pl.col("q") + pool.lapse * click / pl.len().over(by))
    np.testing.assert_allclose(frame["probability"], expected.to_series(), rtol=1e-4)
    np.testing.assert_allclose(
        frame.select(1 - click).to_series(), frame["no_click_probability"], rtol=1e-4
    )


def test_every_verb_says_the_same(pool: OpinionPool, log: SessionLog) -> None:
    frame = pool.predict(log, "test")
    parts = [pool.choice_log_probs(batch) for batch in pool.tensors(log, "test")]
    np.testing.assert_allclose(
        np.concatenate([candidates.exp() for candidates, _ in parts]), frame["probability"]
    )
    _, scored = pool.score(log, "test")
    np.testing.assert_array_equal(scored.heads["reward"].scores, frame["utility"])
    drawn = pool.sample(log, "all", seed=1)
    assert drawn.equals(pool.sample(log, "all", seed=1))
    assert 0 < drawn["item"].is_null().mean() < 1  # type: ignore[operator]
    assert len(pool.initial(3)) == 6 * len(pool.models)


def test_the_same_bits_from_its_file(pool: OpinionPool, log: SessionLog, tmp_path: Path) -> None:
    file = tmp_path / "pool.safetensors"
    pool.save(file)
    same = load_model(file)
    assert repr(same) == repr(pool)
    assert same.predict(log, "all").equals(pool.predict(log, "all"))
    same.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    with pytest.raises(CheckpointError, match="has no states of its own"):
        UserModel.load(file)
    change_state(file, lambda about, arrays: about["state"]["weights"].update(linucb=-1.0))
    with pytest.raises(CheckpointError, match="no weight above 0"):
        load_model(file)


def test_a_member_that_cannot_be_fitted_is_left_out(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, log: SessionLog, observer: object = None) -> None:
        raise ConfigError("it takes too much memory")

    monkeypatch.setattr(ItemKnn, "fit", refuse)
    pool = OpinionPool(QUICK)
    table = pool.fit(log)
    assert pool.left_out == {"iknn": "it takes too much memory"}
    assert "left out: iknn" in repr(pool)
    assert set(pool.weights) == {"click-rate", "linucb"}
    assert table.filter(pl.col("member") == "iknn")["left_out"].item() == pool.left_out["iknn"]
    with pytest.raises(ConfigError, match="no member of the pool could be fitted: iknn: it takes"):
        OpinionPool(["iknn"]).fit(log)


def test_a_member_that_fails_on_the_whole_split_leaves_its_weight_to_the_others(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = LinUcb.fit

    def refuse_the_whole(self: LinUcb, part: SessionLog, observer: object = None) -> object:
        if part is log:
            raise ConfigError("it takes too much memory")
        return fit(self, part, observer)

    monkeypatch.setattr(LinUcb, "fit", refuse_the_whole)
    pool = OpinionPool(["linucb", ClickRateFloor(protocol="bags")])
    pool.fit(log)
    assert set(pool.weights) == set(pool.models) == {"click-rate"}
    assert set(pool.left_out) == {"linucb"}
    assert pool.evaluate(log).heads["reward"].nll.n_events == log.count("events", "test")


def test_what_a_pool_refuses(log: SessionLog) -> None:
    with pytest.raises(ConfigError, match="no model is called 'logi'; did you mean 'logit'"):
        OpinionPool(["logi"])
    with pytest.raises(ConfigError, match="a pool has no member"):
        OpinionPool([])
    with pytest.raises(ConfigError, match="not been trained"):
        OpinionPool(QUICK).predict(log)
    with pytest.raises(ConfigError, match="unknown setting of a pool 'member'"):
        make_model("pool", {"member": ["logit"]})
    session = [([0, 1], 0)]
    with pytest.raises(LogFormatError, match="has 1 training user, and a pool is weighed on users"):
        OpinionPool(QUICK).fit(log_of([session, session, session], [0, 1, 2]))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    members = ["--set", 'members=["click-rate", "iknn"]']
    assert main(["train", "sample", "--preset", "pool", *members, "-o", run]) == 0
    assert "OpinionPool(" in capsys.readouterr().out
    for command in (["evaluate", run, "sample"], ["predict", run, "sample", "-o", f"{run}.csv"]):
        assert main([*command, "--split", "validation"]) == 0
    _check_page(Path(run))
    again = [*("train", "sample", "--config", f"{run}/config.toml"), "-o", f"{run}-again"]
    assert main(again) == 0
    files = [Path(one) / "model.safetensors" for one in (run, f"{run}-again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for wrong, message in (
        (["train", "sample", "--preset", "pool", *members, "-o", run], "holds a run already"),
        (["train", "sample", "--preset", "pool", "-o", run, "--resume"], "nothing to resume"),
        (["simulate", run, "-o", f"{run}.parquet"], "has no states of its own"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err


def _check_page(run: Path) -> None:
    """A page on a pool has its members in place of epochs."""
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    facts = write_report([run], [fg.load("sample")], run.parent / "page.html")
    (about,) = facts["runs"]
    assert about["epochs"] == []
    assert [row["member"] for row in about["fits"]] == ["click-rate", "iknn", "pool"]
    assert about["changed"] == {"members": ["click-rate", "iknn"]}
    page = (run.parent / "page.html").read_text()
    assert "fitted in one go" in page
    assert "Fits of run" in page
    with pytest.raises(ConfigError, match="OpinionPool has no states of its own"):
        LearnedWorld(load_model(run))  # type: ignore[arg-type]


@pytest.mark.parametrize("members", [[], ["pool", "logit"], ["logi"]])
def test_members_that_no_pool_has_are_refused_before_any_fit(members: list[str]) -> None:
    with pytest.raises(ConfigError):
        OpinionPool(members)
    with pytest.raises(ConfigError):
        check_model("pool", {"members": members})


def test_members_must_agree_on_no_click() -> None:
    log = random_log(7, n_sessions=40, no_click=0.0)
    always = UserModel.from_preset("paper-pw", epochs=1, no_click="always")
    for members in ([always, "logit"], ["logit", always]):
        with pytest.raises(ConfigError, match="give the members of a pool one value of no_click"):
            OpinionPool(members).fit(log)
