"""Which runs a grid holds, and what it refuses before anything is trained."""

from __future__ import annotations

import pytest

from fastgaum.errors import ConfigError
from fastgaum.reports.grid import GridPlan, parse_resplits


def test_seeds_count_from_the_one_that_is_set() -> None:
    runs = GridPlan(["fastgaum"], 2, "views", settings={"seed": 10}).runs(["a", "b"])
    assert [(run.dataset, run.seed) for run in runs] == [("a", 10), ("a", 11), ("b", 10), ("b", 11)]
    assert {run.settings["protocol"] for run in runs} == {"views"}
    assert {run.resplit for run in runs} == {None}


def test_every_split_has_every_seed() -> None:
    runs = GridPlan(["random", "logit"], 2, resplits=(4, 9)).runs(["a"])
    assert [(run.model, run.resplit, run.seed) for run in runs] == [
        (model, split, seed) for model in ("random", "logit") for split in (4, 9) for seed in (0, 1)
    ]


def test_a_setting_goes_to_each_model_that_has_it() -> None:
    settings = {"lr": 0.01, "warm_start": 3}
    runs = GridPlan(["fastgaum", "logit", "random"], 1, settings=settings).runs(["a"])
    own = {run.model: set(run.settings) - {"protocol", "seed"} for run in runs}
    assert own == {"fastgaum": {"lr", "warm_start"}, "logit": set(), "random": set()}


@pytest.mark.parametrize(
    ("models", "settings", "seeds", "says"),
    [
        (["fastgaum"], {}, 0, "--seeds must be at least 1, got 0"),
        (["fastgam"], {}, 1, "no model is called 'fastgam'; did you mean 'fastgaum'"),
        (
            ["fastgaum", "logit"],
            {"epocs": 3},
            1,
            r"key 'epocs': no model of the grid \(fastgaum, logit\) has it; did you mean",
        ),
        (["random"], {"epochs": 3}, 1, "unknown configuration key 'epochs'"),
        (["fastgaum"], {"preset": "report"}, 1, "use --models"),
        (["fastgaum"], {"protocol": "views"}, 1, "use --protocol"),
        (["fastgaum"], {"eta": 0}, 1, "eta must be a number greater than 0"),
        (["logit"], {"seed": "x"}, 1, "seed must be a whole number"),
    ],
)
def test_mistakes(models: list[str], settings: dict[str, object], seeds: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        GridPlan(models, seeds, settings=settings).runs(["a"])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("1..10", list(range(1, 11))),
        ("1,4,9", [1, 4, 9]),
        (" 0 , 2..3", [0, 2, 3]),
        ("5..5", [5]),
        ("3,1..4", [3, 1, 2, 4]),
    ],
)
def test_resplits(text: str, seeds: list[int]) -> None:
    assert parse_resplits(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "1,", "-1", "1..", "1...3", "1.5", "1..2..3", "½"])
def test_resplits_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"takes seeds of at least 0 as 7, 1\.\.10 or 1,4,9"):
        parse_resplits(text)


def test_a_range_that_falls() -> None:
    with pytest.raises(ConfigError, match=r"--resplit 9\.\.2 is an empty range: write 2\.\.9"):
        parse_resplits("1,9..2")
