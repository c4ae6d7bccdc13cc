"""A log of pure chance, learned to the letter: no way of scoring it may look like skill."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.errors import SeenUsersError
from fastgaum.logs.read import read_log
from fastgaum.logs.splits import resplit
from fastgaum.models.model_file import MODEL_FORMAT
from fastgaum.models.user_model import UserModel
from fastgaum.state_file import State, load_state, save_state
from tests.test_docs import undrawn

CANDIDATES = 6
FIT = ["protocol=identity", "epochs=1", "warm_start=4", "batch_sessions=8", "lr=0.05"]
FIT += ["id_dropout=0.0", "dropout=0.0"]


def chance(n_sessions: int, first: int = 0) -> pl.DataFrame:
    """Sessions of one display each. No item is in two displays, so that it is learned at once; the
    choice is chance."""
    n = n_sessions * CANDIDATES
    chosen = np.zeros((n_sessions, CANDIDATES), np.int8)
    rng = np.random.default_rng(first)
    chosen[np.arange(n_sessions), rng.integers(0, CANDIDATES, n_sessions)] = 1
    return pl.DataFrame(
        {
            "session": np.repeat(np.arange(first, first + n_sessions), CANDIDATES),
            "time": np.repeat(np.arange(first, first + n_sessions), CANDIDATES),
            "item": np.arange(first * CANDIDATES, first * CANDIDATES + n),
            "chosen": chosen.reshape(n),
            "price": np.arange(n) % 3 + 1.0,
        }
    )


LOG = chance(400)
GROWN = pl.concat([chance(40, first=400), LOG])
RUN_OPTIONS = [text for one in FIT for text in ("--set", one)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the log, and the log in several forms."""
    folder = tmp_path_factory.mktemp("chance")
    for name, frame in (("log", LOG), ("reverse", LOG.reverse()), ("grown", GROWN)):
        frame.write_parquet(folder / f"{name}.parquet")
    train(folder / "log.parquet", folder / "run")
    return folder


def train(log: Path, run: Path, *options: str) -> None:
    preset = ["--preset", "paper-pw", *RUN_OPTIONS, "--device", "cpu"]
    assert main(["train", str(log), "-o", str(run), *preset, *options]) == 0


def convert(folder: Path, log: str, *reading: str) -> str:
    """The log, saved as it is read by some options."""
    argv = ["data", "convert", str(folder / log), "-o", str(folder / "saved"), "--overwrite"]
    assert main([*argv, *reading]) == 0
    return "saved"


def score(folder: Path, log: str, *options: str, run: str = "run") -> dict[str, Any] | None:
    """The facts of `evaluate`; None where it refuses, with nothing written."""
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    argv = ["evaluate", str(folder / run), str(folder / log), "--json", str(out), *options]
    code = main(argv)
    assert (code == 0) == out.exists()
    assert code in (0, 2)
    return json.loads(out.read_text()) if code == 0 else None


def holds_chance(facts: dict[str, Any]) -> bool:
    figure = facts["heads"]["reward"]["prec"]["1"]
    return bool(figure["ci"][0] <= 100 / CANDIDATES + 1e-6 and figure["mean"] < 20)


@pytest.mark.parametrize("log", ["log.parquet", "reverse.parquet", "grown.parquet"])
def test_a_test_split_stays_one_in_any_order_and_when_the_log_grows(folder, log, capsys) -> None:
    """prec@1 was 55.0 in the reverse order and 53.8 on the grown log, without a word."""
    facts = score(folder, log)
    assert facts is not None
    assert holds_chance(facts)
    assert facts["seen_users"]["n_seen"] == 0
    n_users = facts["seen_users"]["n_users"]
    assert f"0 of {n_users} users of the test split trained this model" in capsys.readouterr().out


def test_a_part_of_another_log_is_said(folder, capsys) -> None:
    """A file of new users is split like the training log: a quarter was scored without a word."""
    chance(40, first=400).write_parquet(folder / "new.parquet")
    for log, options in (("new", ()), ("new", ("--split", "all")), ("log", ())):
        facts = score(folder, f"{log}.parquet", *options)
        assert facts is not None
        says = f"its test split is {facts['n_events']} of its 40 events: --split all takes all"
        assert (says in capsys.readouterr().err) == (log == "new" and not options)


@pytest.mark.parametrize("options", [("--split-seed", "7"), ("--split-by", "time")])
def test_users_that_trained_are_refused_as_a_test(folder, options, capsys) -> None:
    """prec@1 was 60.8 with another seed."""
    saved = convert(folder, "log.parquet", *options)
    assert score(folder, saved) is None
    said = capsys.readouterr().err
    assert "users of the test split of log 'log' trained this model" in said
    assert "--split-seed" in said
    assert "--allow-seen-users" in said
    facts = score(folder, saved, "--allow-seen-users")
    assert facts is not None
    assert facts["seen_users"]["n_leaked"] > 20
    assert not holds_chance(facts)


def test_training_users_are_scored_by_name_and_said(folder, capsys) -> None:
    facts = score(folder, "log.parquet", "--split", "train")
    assert facts is not None
    assert facts["heads"]["reward"]["prec"]["1"]["mean"] > 50
    n = facts["seen_users"]["n_users"]
    assert f"{n} of {n} users of the train split trained this model" in capsys.readouterr().out
    assert score(folder, "log.parquet", "--split", "all") is not None


def test_every_command_that_scores_a_run_refuses(folder, tmp_path, capsys) -> None:
    run, out = str(folder / "run"), str(tmp_path / "out.json")
    saved = str(folder / convert(folder, "log.parquet", "--split-seed", "7"))
    for argv in (
        ["fidelity", run, saved, "--episodes", "200"],
        ["ope", saved, "--policy", "random", "--run", run],
    ):
        assert main([*argv, "--json", out]) == 2
        assert "trained this model" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_a_report_says_who_trained(folder, tmp_path, capsys, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("fastgaum.reports.charts.picture_of", undrawn)
    page = ["-o", str(tmp_path / "page.html"), "--split", "test"]
    assert main(["report", str(folder / "run"), *page]) == 0
    assert "users of the test split trained this model" in capsys.readouterr().err


def test_python_refuses_too(folder) -> None:
    model = UserModel.load(folder / "run")
    reverse = read_log(folder / "reverse.parquet")
    assert model.seen_users(reverse, "test").n_seen == 0
    for log in (read_log(LOG, split_seed=7), resplit(reverse, 7)):
        with pytest.raises(SeenUsersError, match="allow_seen_users=True"):
            model.evaluate(log)
        seen = model.seen_users(log)
        tested = read_log(LOG, split_seed=7).split == 2
        assert seen.n_users == tested.sum()
        assert seen.n_seen == (tested & (read_log(LOG).split == 0)).sum()
        assert model.evaluate(log, allow_seen_users=True).n_users == seen.n_users


def test_a_start_keeps_both_logs_users(folder, tmp_path) -> None:
    further = chance(100, first=1000)
    further.write_parquet(tmp_path / "further.parquet")
    argv = ["train", str(tmp_path / "further.parquet"), "-o", str(folder / "on")]
    assert main([*argv, "--from", str(folder / "run"), "--set", "epochs=1"]) == 0
    model = UserModel.load(folder / "on")
    for frame in (LOG, further):
        assert model.seen_users(read_log(frame)).n_seen == 0
        train = model.seen_users(read_log(frame), "train")
        assert train.n_seen == train.n_users > 40


def test_users_in_both_parts_of_a_split_by_time_are_said(tmp_path, capsys) -> None:
    """Each user has an early and a late session: what trained is not what is tested."""
    user = pl.col("session") % 100
    LOG.with_columns(user=user).write_parquet(tmp_path / "log.parquet")
    train(tmp_path / "log.parquet", tmp_path / "run", "--split-by", "time")
    facts = score(tmp_path, "log.parquet")
    assert facts is not None
    counts = {"n_users": 100, "n_seen": 100, "n_leaked": 0}
    assert facts["seen_users"] == {"log": "log", "split": "test", **counts, "out_of_fold": False}
    assert "with other sessions: the log's own split has them" in capsys.readouterr().out
    reverse = LOG.reverse().with_columns(user=user)
    reverse.write_parquet(tmp_path / "reverse.parquet")
    assert score(tmp_path, "reverse.parquet") is not None
    # by users, all of the test split have trained
    assert score(tmp_path, convert(tmp_path, "log.parquet", "--split-by", "user")) is None


def test_a_file_that_does_not_say_who_trained_is_refused(folder, capsys) -> None:
    state = load_state(folder / "run" / "model.safetensors", MODEL_FORMAT, "", State)
    del state["space"]["base"]["trained"]
    save_state(folder / "before", MODEL_FORMAT, state)
    seen = convert(folder, "log.parquet", "--split-seed", "7")
    assert score(folder, seen, run="before") is None
    assert "trained" in capsys.readouterr().err


def test_damaged_hashes_are_refused(folder, capsys) -> None:
    state = load_state(folder / "run" / "model.safetensors", MODEL_FORMAT, "", State)
    trained = state["space"]["base"]["trained"]
    trained["users"] = trained["users"][::-1].copy()
    save_state(folder / "damaged", MODEL_FORMAT, state)
    assert score(folder, "log.parquet", run="damaged") is None
    assert "users that trained are not in order" in capsys.readouterr().err


def test_users_of_a_fit_by_folds_are_scored_out_of_fold_and_said(tmp_path, capsys) -> None:
    """Nothing on a log of chance looks like skill, though each user of these splits trained, and
    floors do not know the choices that they rank."""
    LOG.write_parquet(tmp_path / "log.parquet")
    train(tmp_path / "log.parquet", tmp_path / "run", "--set", "folds=3")
    said = capsys.readouterr()
    for fit in (1, 2, 3):
        assert f"fit {fit} of 3" in said.err
    # ids of the fold alone are read as unknown ones when an epoch is validated, too
    table = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    np.testing.assert_allclose(table["val_prec1"], 100 / CANDIDATES, rtol=0.02)
    out = re.search(r"validation prec@1 (.+), NLL (.+), out of fold", said.out)
    assert out is not None
    for split in ("train", "validation"):
        facts = score(tmp_path, "log.parquet", "--split", split)
        assert facts is not None
        assert holds_chance(facts)
        seen = facts["seen_users"]
        assert seen["n_seen"] == seen["n_users"]
        assert seen["out_of_fold"]
        assert "scored by the fit that left it out (out of fold)" in capsys.readouterr().out
        # no item is displayed twice: who did not choose it knows nothing of it
        assert facts["floors"]["train_click_rate"]["1"] == pytest.approx(100 / CANDIDATES)
    reward = facts["heads"]["reward"]
    assert out.groups() == (f"{reward['prec']['1']['mean']:.1f}", f"{reward['nll']['mean']:.3f}")
    facts = score(tmp_path, "log.parquet")
    assert facts is not None
    assert not facts["seen_users"]["n_seen"]
    assert not facts["seen_users"]["out_of_fold"]


def test_a_user_of_validation_and_test_is_not_refused_after_a_fit_by_folds(tmp_path) -> None:
    """By time, an early session of a user may validate and a late one be the test: the fit by
    folds has trained on the early one."""
    session = pl.col("session")
    user = pl.when(session < 300).then(session).otherwise(session - 100)
    LOG.with_columns(user=user).write_parquet(tmp_path / "log.parquet")
    train(tmp_path / "log.parquet", tmp_path / "run", "--split-by", "time", "--set", "folds=3")
    facts = score(tmp_path, "log.parquet")
    assert facts is not None
    assert facts["seen_users"]["n_seen"] == 100
    assert facts["seen_users"]["n_leaked"] == 0
    assert holds_chance(facts)
