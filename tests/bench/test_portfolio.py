"""How the portfolio is chosen and judged, and that `presets.PORTFOLIO` is what was chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastgaum.bench.experiments import portfolio
from fastgaum.bench.experiments.portfolio import (
    CAP,
    LENGTH,
    candidates,
    choose_greedily,
    judge,
    judged_markdown,
    list_markdown,
    log_named,
    regrets,
)
from fastgaum.config import Config
from fastgaum.logs.log import TEST
from fastgaum.presets import FOLDS_BELOW, PORTFOLIO, LogSetting
from fastgaum.reports.table import Json

OBJECT = Path(__file__).parents[2] / "docs" / "tables" / "portfolio.json"


def facts_of(losses: dict[str, dict[str, list[float]]]) -> Json:
    return {
        "logs": {
            log: {name: {"losses": one, "seconds": 1.0} for name, one in of.items()}
            for log, of in losses.items()
        }
    }


THREE = facts_of(
    {
        "x": {"a": [0.1, 0.1], "b": [0.2, 0.4], "c": [0.5, 0.5]},
        "y": {"a": [0.9, 0.9], "b": [0.6, 0.6], "c": [0.5, 0.5]},
        "z": {"a": [0.4, 0.4], "b": [0.3, 0.3], "c": [0.9, 0.9], "d": [0.0, 0.0]},
    }
)


def test_regrets_are_of_settings_that_all_logs_have() -> None:
    logs, settings, regret = regrets(THREE)
    assert (logs, settings) == (["x", "y", "z"], ["a", "b", "c"])
    wanted = np.array([[0, 0.2, 0.4], [0.4, 0.1, 0], [0.1, 0, 0.6]])
    np.testing.assert_allclose(regret, np.minimum(wanted, CAP))


def test_the_first_setting_is_the_best_alone_and_the_next_the_best_beside_it() -> None:
    regret = np.array([[0.0, 0.05, 0.2], [0.2, 0.05, 0.0], [0.2, 0.0, 0.05]])
    assert choose_greedily(regret, 3) == [1, 0, 2]
    # beside the best of all nothing is better: none comes twice
    assert sorted(choose_greedily(np.zeros((2, 4)), 4)) == [0, 1, 2, 3]


def test_a_list_is_judged_on_the_log_that_it_was_chosen_without() -> None:
    """By what a fit's comparison finds in it: the second fold decides between the last two."""
    found = {one["log"]: one["regret"] for one in judge(THREE, [1])}
    # without x the best alone is b, without y and without z it is a
    assert found["x"] == pytest.approx(0.2)
    assert found["y"] == pytest.approx(0.4)
    # the least of the log's settings counts, also one that other logs lack
    assert found["z"] == pytest.approx(0.4)
    assert all(one["regret"] >= 0 for one in judge(THREE, [2, 3]))
    table = judged_markdown(list(judge(THREE, [1, 3]))).splitlines()
    assert table[0] == "| log left out | 1 settings | 3 settings |"
    assert [row.split(" | ")[0].strip("| ") for row in table[2:]] == [
        "x",
        "y",
        "z",
        "mean",
        "worst",
    ]
    assert list_markdown(THREE, 2).splitlines()[2].startswith("| a | ")


def test_settings_are_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"short": LogSetting({"dropout": 0.1, "hidden": (4,)}, 64)}
    monkeypatch.setattr(portfolio, "candidates", lambda: few)
    path = tmp_path / "losses.json"
    argv = ["measure", str(path), "--logs", "main:80:1", "places:80:1"]
    portfolio.main(argv)
    logs = json.loads(path.read_text("utf-8"))["logs"]
    assert list(logs) == ["main:80:1", "places:80:1"]
    for found in (one["short"] for one in logs.values()):
        assert len(found["losses"]) == 2
        assert all(0.5 < loss < 2 for loss in found["losses"])
    written = path.read_text("utf-8")
    portfolio.main(argv)
    assert path.read_text("utf-8") == written
    portfolio.main(["choose", str(path)])
    assert "| log left out |" in capsys.readouterr().out


def test_logs_are_named_and_hold_no_test_session_when_cut(tmp_path: Path) -> None:
    assert log_named("places:80:3").ordered
    whole, part = log_named("sample"), log_named("sample/3")
    assert 0 < part.n_sessions < whole.n_sessions
    assert not (part.split == TEST).any()


def as_chosen(setting: LogSetting) -> tuple[Config, int]:
    """All that a candidate says, in the configuration that a fit would have."""
    return Config().replace(**setting.values), setting.batch_events


def test_the_portfolio_is_what_was_chosen() -> None:
    """In its order; of logs that are fitted by folds."""
    _, settings, regret = regrets(json.loads(OBJECT.read_text("utf-8")))
    chosen = [candidates()[settings[j]] for j in choose_greedily(regret, LENGTH)]
    few = [one for one in PORTFOLIO.values() if one.suits(FOLDS_BELOW - 1, 0)]
    assert [as_chosen(one) for one in few] == [as_chosen(one) for one in chosen]
