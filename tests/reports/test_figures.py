"""Charts in files are drawn, say what they show, and are refused in time where they cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastgaum.bench.excerpts import draw_leads
from fastgaum.errors import ConfigError
from fastgaum.reports import charts, plots
from fastgaum.reports.plots import COLOURS
from fastgaum.reports.published_figures import best_published


def table(n_models: int = 18) -> dict[str, Any]:
    cells = [
        {
            "dataset": dataset,
            "model": f"model-{i}",
            "head": "reward",
            "k": k,
            "mean": 50.0 + i,
            "ci": [45.0, 60.0 + i],
            "nll_vs_logit": {"diff": -0.1, "ci": [-0.2, 0.1]} if i else None,
        }
        for dataset in ("yelp", "sample")
        for i in range(n_models)
        for k in (1, 2)
    ]
    floors = {"random": {"1": 30.0}, "train_click_rate": {"1": 40.0}}
    facts = {
        name: {"floors": floors, "published_best": best_published(name)}
        for name in ("yelp", "sample")
    }
    return {"datasets": facts, "cells": cells}


def texts_of(path: Path) -> set[str]:
    return set(re.findall(r">([^<>\n]+)</text>", path.read_text()))


def test_svg_shows_every_model_floor_and_data_set(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures: install fastgaum[plots]")
    path = tmp_path / "t.svg"
    charts.draw_precision(table(), path)
    shown = texts_of(path)
    assert {*(f"model-{i}" for i in range(18)), "yelp", "sample", "floor: random"} <= shown
    assert {"floor: train click rate", "best published: W&amp;D-CCF / G…"} <= shown
    drawn, _, rest = path.read_text().partition("</style>")
    assert "prefers-color-scheme: dark" in drawn
    assert set(re.findall(r"#[0-9a-f]{6}\b", rest)) <= {light for light, _ in COLOURS.values()}
    first = path.read_bytes()
    charts.draw_precision(table(), path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]
    charts.draw_precision(table(0), tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_leads_over_the_linear_model_share_a_scale(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures: install fastgaum[plots]")
    result, models = table(4), ["model-1", "model-3"]
    path = tmp_path / "t.svg"
    with pytest.raises(ConfigError, match=r"table of yelp does not compare model-0 with logit"):
        draw_leads(result, path=path, models=["model-0"])
    draw_leads(result, path=path, models=models)
    shown = texts_of(tmp_path / "t.svg")
    assert {*models, "yelp", "sample", "linear model (logit)"} <= shown
    assert "model-2" not in shown
    # a model that no object has takes a row without a mark
    draw_leads(result, path=path, models=[*models, "another"])
    assert "another" in texts_of(path)


def test_what_cannot_be_drawn_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plots.check_figure(None)
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[plots\]' in the clone"):
        plots.check_figure(Path("t.svg"))
