"""The published figures are read as they are written in data/published."""

from __future__ import annotations

from contextlib import suppress

import pytest

from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.errors import ConfigError
from fastgaum.reports.published_figures import (
    authors_code,
    best_published,
    published_mean,
    published_row,
    published_table,
)


def test_figures_by_row() -> None:
    assert published_mean("yelp", "GAN-LSTM", 1) == 73.0
    assert published_mean("taobao", "GAN-PW", 2) == 54.1
    assert published_mean("yelp", "report: generator", 1) == pytest.approx(3.43)
    assert published_mean("yelp", None, 1) is published_mean("sample", "GAN-LSTM", 1) is None
    assert authors_code("yelp")["GAN-LSTM"] == {"1": 74.5, "2": 85.9}
    assert authors_code("sample") == {}


def test_rows_that_models_repeat_are_in_the_table() -> None:
    rows = published_table()["rows"]
    assert published_row("fastgaum", "reward") is published_row("random", "reward") is None
    for preset in ("paper-lstm", "paper-pw"):
        assert published_row(preset, "reward") in rows
    for name in BASELINES:
        with suppress(ConfigError):  # its extra is not installed
            assert baseline_class(name).published_name in (None, *rows)


@pytest.mark.parametrize(
    ("dataset", "best"),
    [("yelp", (73.2, 92.5)), ("taobao", (35.9, 55.0)), ("yoochoose", (61.3, 82.5)), ("sample", ())],
)
def test_best_published(dataset: str, best: tuple[float, ...]) -> None:
    assert tuple(row["mean"] for row in best_published(dataset).values()) == best
