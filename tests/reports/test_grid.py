"""Which runs a grid holds, and what it refuses before anything is trained."""

from __future__ import annotations

import multiprocessing
from contextlib import closing

import numpy as np
import pytest

from fastgaum.baselines.registry import make_model
from fastgaum.errors import ConfigError
from fastgaum.features.training_order import folds_of
from fastgaum.logs.log import TEST, TRAIN, VALIDATION
from fastgaum.logs.synthetic import synthesise
from fastgaum.reports.grid import LOST, GridPlan, RunFigures, parse_resplits, run_all


def test_every_split_has_every_seed_from_the_one_that_is_set() -> None:
    plan = GridPlan(["random", "logit"], 2, "views", resplits=(4, 9), settings={"seed": 10})
    assert [(run.dataset, run.model, run.resplit, run.seed) for run in plan.runs(["a", "b"])] == [
        (log, model, split, seed)
        for log in ("a", "b")
        for model in ("random", "logit")
        for split in (4, 9)
        for seed in (10, 11)
    ]
    assert {run.settings["protocol"] for run in plan.runs(["a"])} == {"views"}


def test_a_setting_goes_to_each_model_that_has_it() -> None:
    settings = {"lr": 0.01, "warm_start": 3}
    runs = GridPlan(["fastgaum", "logit", "random"], 1, settings=settings).runs(["a"])
    own = {run.model: set(run.settings) - {"protocol", "seed"} for run in runs}
    assert own == {"fastgaum": {"lr", "warm_start", "folds"}, "logit": set(), "random": set()}


@pytest.mark.parametrize(
    ("protocol", "settings", "folds"),
    [
        ("bags", {}, "auto"),
        ("identity", {}, 0),
        ("bags", {"folds": 0}, 0),
        ("views", {"folds": 3}, 3),
    ],
)
def test_all_rows_have_the_same_folds(
    protocol: str, settings: dict[str, object], folds: object
) -> None:
    """The paper's table is of single fits on its own split."""
    models = ["fastgaum", "paper-pw", "logit"]
    runs = GridPlan(models, 1, protocol, settings=settings).runs(["a"])
    assert {run.folds for run in runs} == {folds}
    assert {run.settings["folds"] for run in runs if "folds" in run.settings} == {folds}
    assert sum("folds" in run.settings for run in runs) == 2


ONE = {"penalty": 10.0, "number_penalty": 10.0, "relations": False}
"""of the logit: settings that are not compared"""


def test_a_row_by_folds_is_the_mean_of_the_fits_that_leave_one_out() -> None:
    """Each fit trains on the other folds of training and validation, and validates on its own; a
    floor is fitted once."""
    log = synthesise(400, preset="sample", seed=2)[0]
    runs = GridPlan(["logit", "click-rate"], 1, settings=ONE).runs(["log"])
    folded, floor = (one for _, one in sorted(run_all({"log": log}, runs, 1, "cpu")))
    assert isinstance(folded, RunFigures)
    assert isinstance(floor, RunFigures)
    assert (folded.folds, floor.folds) == (5, 0)
    of_users, chances = folds_of(log.user_hashes, 5), []
    for fold in range(5):
        split = np.where(log.split == TEST, TEST, np.where(of_users == fold, VALIDATION, TRAIN))
        model = make_model("logit", ONE)
        model.fit(log.with_split(split.astype(np.int8)))
        frame = model.predict(log, "test")
        chances.append(frame["probability"].to_numpy())
    chosen = log.choices[log.split[log.session_of_event] == TEST]
    sizes = frame.group_by("session", "event", maintain_order=True).len()["len"].to_numpy()
    picked = (np.cumsum(sizes, dtype=np.int64) - sizes.astype(np.int64) + chosen)[chosen >= 0]
    by_hand = -np.log(np.mean(chances, axis=0)[picked])
    nll = folded.test.heads["reward"].nll_per_event[chosen >= 0]
    np.testing.assert_allclose(nll, by_hand, rtol=1e-5)
    once = make_model("click-rate", {})
    once.fit(log)
    assert floor.test.to_dict() == once.evaluate(log).to_dict()
    runs = GridPlan(["logit"], 1, settings={**ONE, "folds": 0}).runs(["log"])
    ((_, single),) = run_all({"log": log}, runs, 1, "cpu")
    alone = make_model("logit", ONE)
    alone.fit(log)
    assert isinstance(single, RunFigures)
    assert single.folds == 0
    assert single.test.to_dict() == alone.evaluate(log).to_dict()


def test_resplits() -> None:
    for text, seeds in ((" 0 , 2..3", [0, 2, 3]), ("5..5", [5]), ("3,1..4", [3, 1, 2, 4])):
        assert parse_resplits(text) == seeds
    for text in ("", "x", "1,", "-1", "1..", "1...3", "1.5", "1..2..3", "½"):
        with pytest.raises(ConfigError, match=r"takes seeds of at least 0 as 7, 1\.\.10 or 1,4,9"):
            parse_resplits(text)
    with pytest.raises(ConfigError, match=r"--resplit 9\.\.2 is an empty range: write 2\.\.9"):
        parse_resplits("1,9..2")


def test_runs_go_on_after_the_system_has_ended_their_processes() -> None:
    logs = {"sample": synthesise(60, preset="sample")[0]}
    # so many that they cannot end before the second kill
    runs = GridPlan(["random"], 60, settings={}).runs(list(logs))
    with closing(run_all(logs, runs, 2, "cpu")) as outcomes:
        found = dict([next(outcomes)])
        # of several, the one whose process is ended is not known: they are run again
        first = set(multiprocessing.active_children())
        for worker in first:
            worker.kill()
        # runs that had ended before come first, while no other process runs
        while not set(multiprocessing.active_children()) - first:
            found |= dict([next(outcomes)])
        assert LOST not in found.values()
        # of one, it is
        for worker in multiprocessing.active_children():
            worker.kill()
        found |= dict(outcomes)
    assert sorted(found) == list(range(60))
    assert list(found.values()).count(LOST) == 1
