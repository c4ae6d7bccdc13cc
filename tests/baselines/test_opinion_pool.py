"""The pool's formulas by hand; files, the command line, and members that are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import fastgaum as fg
from fastgaum.baselines.neighbours import ItemKnn
from fastgaum.baselines.opinion_pool import PULL, Choices, OpinionPool, best_weights
from fastgaum.baselines.registry import load_model, make_model
from fastgaum.cli.app import main
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.reports.page import write_report
from fastgaum.worlds.learned_world import LearnedWorld
from tests.builders import change_state, random_log

QUICK = ("click-rate", "linucb", "iknn")


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return random_log(7, n_sessions=80, no_click=0.3)


@pytest.fixture(scope="module")
def pool(log: SessionLog) -> OpinionPool:
    pool = OpinionPool(QUICK)
    pool.fit(log)
    return pool


def drawn(seed: int, outside: bool, n_events: int = 12) -> tuple[Tensor, Choices]:
    """Opinions of three members, and choices of chance."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, n_events)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    choices = torch.from_numpy(rng.integers(-1 if outside else 0, sizes).astype(np.int32))
    odds = torch.from_numpy(2 * rng.standard_normal((int(offsets[-1]), 3)))
    return odds, Choices(offsets, choices, outside, torch.ones(n_events).double())


def nll_of(weights: np.ndarray, lapse: float, odds: Tensor, choices: Choices) -> float:
    at = torch.from_numpy(weights), torch.tensor(lapse).double()
    return float(choices.nll(choices.pooled(odds, *at)))


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 0.001, 0.4]))
def test_the_formula_event_by_event(seed: int, outside: bool, lapse: float) -> None:
    odds, of = drawn(seed, outside)
    weights, total = np.random.default_rng(seed).random(3), 0.0
    for event, choice in enumerate(of.choices.tolist()):
        each = np.exp(odds[of.offsets[event] : of.offsets[event + 1]].numpy() @ weights)
        whole = each.sum() + (1 if outside else 0)
        if choice < 0:
            total -= np.log(1 / whole)
        else:
            click = each.sum() / whole
            total -= np.log((1 - lapse) * each[choice] / whole + lapse * click / len(each))
    assert nll_of(weights, lapse, odds, of) == pytest.approx(total / len(of.choices), rel=1e-6)


@pytest.mark.parametrize("outside", [False, True])
def test_no_other_weights_are_better(outside: bool) -> None:
    odds, choices = drawn(3, outside, n_events=60)
    best, lapse = best_weights(odds, choices)
    assert (best >= 0).all()

    def penalised(weights: np.ndarray, lapse: float) -> float:
        pull = PULL * np.square(weights - 1 / 3).sum()
        return nll_of(weights, lapse, odds, choices) + (pull - np.log(lapse)) / 60

    least = penalised(best.numpy(), lapse)
    others = [*np.eye(3), *np.random.default_rng(0).random((20, 3))]
    for other in others:
        assert all(least <= penalised(other, at) + 1e-6 for at in (0.01, 0.1, 0.4))


@pytest.mark.parametrize("n_events", [4, 400])
def test_a_lapse_that_was_never_seen_is_rare_and_never_0(n_events: int) -> None:
    """A member is sure of each event, and right. A lapse ε costs log(1 − ε/2) at each of n, and one
    click more costs log ε: least at 2 / (n + 1)."""
    offsets = torch.arange(0, 2 * n_events + 1, 2, dtype=torch.int32)
    sure = torch.tensor([[9.0], [-9.0]], dtype=torch.float64).repeat(n_events, 1)
    choices, ones = torch.zeros(n_events, dtype=torch.int32), torch.ones(n_events).double()
    lapse = best_weights(sure, Choices(offsets, choices, False, ones))[1]
    assert lapse == pytest.approx(2 / (n_events + 1), rel=0.02)


def test_a_row_for_each_member_and_for_the_pool(pool: OpinionPool) -> None:
    assert pool.table is not None
    assert pool.table["member"].to_list() == [*QUICK, "pool"]
    assert pool.table["val_nll"].null_count() == 0
    assert set(pool.weights) == set(QUICK)
    assert set(pool.models) == {name for name, weight in pool.weights.items() if weight > 0}


def test_probabilities_are_the_formula(pool: OpinionPool, log: SessionLog) -> None:
    """Of the predictions of members, by hand."""
    frames = {name: model.predict(log, "test") for name, model in pool.models.items()}
    log_q: pl.Series = sum(  # type: ignore[assignment]
        pool.weights[name] * (one["probability"].log() - one["no_click_probability"].log())
        for name, one in frames.items()
    )
    frame, by = pool.predict(log, "test").with_columns(log_q=log_q), ["session", "event"]
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
    _, scored = pool.score_sessions(log, "test")
    np.testing.assert_array_equal(scored.heads["reward"].scores, frame["utility"])
    drawn = pool.sample(log, "all", seed=1)
    assert drawn.equals(pool.sample(log, "all", seed=1))
    assert 0 < drawn["item"].is_null().mean() < 1  # type: ignore[operator]


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


def test_what_a_pool_refuses(log: SessionLog) -> None:
    with pytest.raises(ConfigError, match="no model is called 'logi'; did you mean 'logit'"):
        OpinionPool(["logi"])
    with pytest.raises(ConfigError, match="a pool has no member"):
        OpinionPool([])
    with pytest.raises(ConfigError, match="not been trained"):
        OpinionPool(QUICK).predict(log)
    with pytest.raises(ConfigError, match="unknown setting of a pool 'member'"):
        make_model("pool", {"member": ["logit"]})


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    members = ["--set", 'members=["click-rate", "iknn"]']
    assert main(["train", "sample", "--preset", "pool", *members, "-o", run]) == 0
    printed = capsys.readouterr()
    assert "OpinionPool(" in printed.out
    assert "member 1 of " in printed.err
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


def test_members_must_agree_on_no_click() -> None:
    log = random_log(7, n_sessions=40, no_click=0.0)
    always = UserModel.from_preset("paper-pw", epochs=1, no_click="always")
    for members in ([always, "logit"], ["logit", always]):
        with pytest.raises(ConfigError, match="give the members of a pool one value of no_click"):
            OpinionPool(members).fit(log)
