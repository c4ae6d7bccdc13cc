"""The programs of docs/examples, each in an empty folder and at a small size: they run, and print
what they promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.test_examples import FOLDER, OTHERS, module_of
from tests.worlds.test_examples import SIZES as AGENTS

QUICK: dict[str, Any] = {"epochs": 2, "warm_start": 2, "catch_up": 1, "search": (), "folds": 0}
TRAINED: dict[str, Any] = {"epochs": 4, "warm_start": 12, "catch_up": 3, "search": (), "folds": 0}
SIZES: dict[str, dict[str, Any]] = {
    "quickstart": QUICK,
    "own_log": {"n_visits": 200, **TRAINED},
    "no_click": {"n_events": 1500, **TRAINED},
    "compare_models": {"logit": {"penalty": 1.0}, "fastgaum": QUICK},
    "what_if": {"n": 2000, **TRAINED},
    "train_policy": {"episodes": 4, "n_users": 80, **QUICK},
    "custom_regulariser": {"n_events": 400, "epochs": 4, "search": (), "folds": 0},
    "custom_encoder": {"n_events": 400, **QUICK},
    "online_service": QUICK,
    "nano": {"epochs": 4},
}


def _own_log(learned: Any) -> bool:
    """Customers like tea, and like it cheap."""
    utility = {(category, dear): value for category, dear, value in learned.rows()}
    likes = all(
        utility["tea", dear] > utility[name, dear]
        for name in ("coffee", "mugs")
        for dear in (False, True)
    )
    return likes and all(
        utility[name, False] > utility[name, True] for name in ("tea", "coffee", "mugs")
    )


RIGHT: dict[str, Callable[[Any], bool]] = {
    # a random order: 34.5
    "nano": lambda prec1: prec1 > 50,
    "own_log": _own_log,
    "compare_models": lambda table: (
        table["prec@1"].is_sorted(descending=True) and table["model"][0] != "random"
    ),
    "no_click": lambda shares: abs(shares[0] - shares[1]) < 12,
    "what_if": lambda found: 0 < found["fare cut"]["difference"][1] < 0.2,
    "train_policy": lambda earned: earned["cascade-dqn"] > earned["random"] + 5,
    # the same items, ranked otherwise once one of them was clicked
    "online_service": lambda ranked: (
        sorted(ranked["first"]) == sorted(ranked["second"]) and ranked["first"] != ranked["second"]
    ),
}
SAYS = {
    "quickstart": r"reward: prec@1 \d\d\.\d \[.*generator: prec@1 .*known .*true",
    "own_log": r"the audit names 'field price, smallest'.*prec@1 \d\d",
    "no_click": r"900 of 1500 events|\d+ of 1500 events end with a click.*predicted \d\d\.\d %",
    "compare_models": r"fastgaum.*(is|need not be) better than .*points of prec@1",
    "what_if": r"fare cut.*elasticities.*worth of time.*curve",
    "train_policy": r"return.*random .*greedy .*cascade-dqn",
    "custom_regulariser": r"half and half: .*NLL (\d\.\d+).*shannon.*loaded: NLL \1",
    "online_service": r"at first: \S+ .*after a click on \S+: \S+ ",
    "nano": r"epoch 4: .*test prec@1 .*step 3: \d+ % took their favourite",
    "custom_encoder": r"with MeanOfChoices.*64 users with states of 8 numbers",
}


@pytest.mark.parametrize("name", list(SIZES))
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTGAUM_DATA_DIR", raising=False)
    monkeypatch.setattr("fastgaum.policies.training.EVALUATED_USERS", 20)
    result = module_of(name).main(**SIZES[name])
    assert RIGHT.get(name, lambda _: True)(result)
    printed = capsys.readouterr().out
    assert re.search(SAYS[name], printed, re.DOTALL), printed


def test_every_example_is_short_tested_and_on_its_page() -> None:
    files = {
        path.stem: len(path.read_text(encoding="utf-8").splitlines())
        for path in FOLDER.glob("*.py")
    }
    assert set(files) == {*SIZES, *AGENTS, *OTHERS}
    # the game itself, the oracle of ours, is the one long program
    assert files.pop("nano") <= 300
    assert max(files.values()) < 80
    page = (FOLDER.parent / "examples.md").read_text(encoding="utf-8")
    for name in SIZES:
        assert f'```python\n--8<-- "docs/examples/{name}.py"\n```' in page
    assert all(f"{name}.py" in page for name in (*AGENTS, *OTHERS))
