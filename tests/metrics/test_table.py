"""How a table reads: what is marked, and what stands below. Whole tables, with rows of every kind in
their order, are held by tests/test_tables.py: the pages are what the objects give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastgaum.reports.published_figures import (
    authors_code,
    best_published,
    published_table,
)
from fastgaum.reports.reproduce_table import reproduce_blocks
from fastgaum.reports.table import blocks_to_markdown, finite


def cells_of(model: str, mean: float, *, head: str = "reward", **more: Any) -> list[dict[str, Any]]:
    versus = {"model": "logit", "head": "reward", "diff": -1.25, "ci": [-2.0, 0.04]}
    cell = {
        **{"dataset": "yelp", "model": model, "head": head, "sd": 0.5, "ci": [71.0, 79.0]},
        **{"seeds": 5, "n_events": 437, "nll": 0.6, "seconds": 2.0, "ece": 0.02},
        **{"selection": "loss", "protocol": "bags", "bold": False},
        **dict.fromkeys(("vs_best_other", "nll_vs_best_other"), versus),
        **dict.fromkeys(("published", "gap", "settings_tried", "way_to_oracle")),
    }
    return [{**cell, "k": k, "mean": mean + k, **more} for k in (1, 2)]


def object_of(cells: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    facts = {
        "n_test_events": 437,
        "n_test_users": 352,
        "floors": {"random": {"1": 39.7, "2": 63.6}, "train_click_rate": {"1": 62.8, "2": 83.4}},
        "shares": {
            "test events whose user has no earlier event": {"percent": 80.8, "n": 437},
            "none": {"percent": None, "n": 0},
        },
        "published_best": best_published("yelp"),
        "authors_code": authors_code("yelp"),
    }
    usual = {"protocol": "bags", "seeds": 5, "resplit": None}
    return {**usual, "datasets": {"yelp": facts}, "cells": cells, **more}


def test_published_figures_stand_beside_ours() -> None:
    cells = cells_of("paper-lstm", 75.0)
    cells[0]["published"], cells[1]["published"] = 73.0, 88.7
    result = object_of(cells, protocol="identity", resplit=[3])
    (block,) = reproduce_blocks(result)
    row = dict(zip(block.columns, block.rows[-1], strict=True))
    assert (row["model"], row["prec@1"], row["published"]) == (
        "paper-lstm †",
        "76.0 ±0.5",
        "73.0 / 88.7",
    )
    assert (row["gap"], row["vs best other"]) == ("", "-1.2 (-2.0 to +0.0)")
    assert "users split anew with seed 3" in block.notes[0]
    assert "released split" in block.notes[1]
    assert block.notes[-2] == "test events whose user has no earlier event: 81 %"
    assert block.notes[-1] == "intervals: 95 %, from a bootstrap over users"
    facts = result["datasets"]["yelp"]
    (block,) = reproduce_blocks({**result, "datasets": {"yelp": facts | {"unit": "households"}}})
    assert "437 test events of 352 households" in block.notes[0]
    assert block.notes[-1] == "intervals: 95 %, from a bootstrap over households and seeds"
    assert "random → oracle" not in block.columns
    assert "| paper-lstm † | 76.0 ±0.5 | 71.0 to 79.0 |" in blocks_to_markdown(
        reproduce_blocks(result)
    )


def test_a_row_whose_scale_was_not_applied_says_so() -> None:
    for more, label in (({}, "paper-pw, not calibrated"), ({"calibrated": True}, "paper-pw")):
        cells = cells_of("paper-pw", 75.0, selection="calibrated loss", **more)
        (block,) = reproduce_blocks(object_of(cells))
        assert block.rows[-1][0] == label


def test_notes_say_splits_and_failures() -> None:
    why = "the loss is not finite"
    failed = [{"dataset": "yelp", "model": "dfm", "resplit": 2, "seed": 1, "reason": why}]
    cells = [cell for name in ("fastgaum", "logit", "iknn") for cell in cells_of(name, 70.0)]
    for cell in cells[4:]:
        cell |= {"settings_tried": 12, "selection": "—"}
    result = object_of(cells, resplit=[1, 2, 3, 7], failed=failed)
    (block,) = reproduce_blocks(result)
    assert "pooled over 4 splits of the users anew (seeds 1, 2, 3, 7)" in block.notes[0]
    for says in (
        "epoch chosen on validation by loss (fastgaum, logit)",
        "settings compared on the validation split within each fit: 12 (iknn)",
    ):
        assert says in block.notes
    assert block.notes[-1] == f"failed, so without a row: dfm (split 2, seed 1): {why}"


def test_notes_say_where_epochs_and_settings_of_folds_were_chosen() -> None:
    """A preset compares settings once, a baseline in each of its fits."""
    tried = {"fastgaum": 12, "xgboost": 9, "logit": 12, "dfm": None, "iknn": 216}
    cells = []
    for name, settings in tried.items():
        more = {} if name == "iknn" else {"folds": 5}
        found = cells_of(name, 70.0, settings_tried=settings, **more)
        for cell in found:
            cell["selection"] = "—" if name in ("xgboost", "iknn") else "loss"
        cells += found
    cells += cells_of("paper-pw", 60.0)
    (block,) = reproduce_blocks(object_of(cells))
    assert [note for note in block.notes if "compared" in note] == [
        "settings compared once for all fits, each setting on folds of users that its trials left "
        "out: 12 (fastgaum)",
        "settings compared within each fit, on the fold of users that it left out: 9 (xgboost), 12 "
        "(logit)",
        "settings compared on the validation split within each fit: 216 (iknn)",
    ]
    assert [note for note in block.notes if "epoch" in note] == [
        "epoch chosen on validation by loss (paper-pw)",
        "epoch of each fit on folds chosen on the fold that it left out by loss (fastgaum, logit, "
        "dfm)",
    ]


def test_a_table_set_again_from_its_file_is_the_same() -> None:
    cells = [*cells_of("fastgaum", 80.0, nll=float("nan")), *cells_of("logit", float("nan"))]
    result = object_of(cells, published_table=published_table(), failed=[])
    text = json.dumps(finite(result), allow_nan=False)
    assert blocks_to_markdown(reproduce_blocks(json.loads(text))) == blocks_to_markdown(
        reproduce_blocks(result)
    )


@pytest.mark.parametrize("protocol", ["views", "bags"])
def test_views_is_not_comparable(protocol: str) -> None:
    (block,) = reproduce_blocks(
        object_of(cells_of("logit", 70.0, protocol=protocol), protocol=protocol)
    )
    assert any("not comparable" in note for note in block.notes) == (protocol == "views")
