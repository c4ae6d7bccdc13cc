"""How a table reads: rows in order, what is marked, what is bold, and what stands below."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastgaum.reports.others import (
    authors_code,
    best_published,
    published_models,
    published_table,
)
from fastgaum.reports.reproduce_table import reproduce_blocks
from fastgaum.reports.table import Block, blocks_to_markdown, finite


def cells_of(model: str, mean: float, *, head: str = "reward", **more: Any) -> list[dict[str, Any]]:
    versus = {"model": "logit", "head": "reward", "diff": -1.25, "ci": [-2.0, 0.04]}
    cell = {
        **{"dataset": "yelp", "model": model, "head": head, "sd": 0.5, "ci": [71.0, 79.0]},
        **{"seeds": 5, "n_events": 437, "nll": 0.6, "seconds": 2.0, "ece": 0.02},
        **{"selection": "loss", "protocol": "bags", "bold": False, "vs_best_other": versus},
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


def labels(block: Block) -> list[str]:
    return [row[0] for row in block.rows]


def test_rows_are_floors_then_published_then_models_by_prec_at_1() -> None:
    heads = [
        cell
        for head, mean in (("reward", 80.0), ("generator", 82.0))
        for cell in cells_of("fastgaum", mean, head=head)
    ]
    (block,) = reproduce_blocks(
        object_of([*heads, *cells_of("dfm", 81.0), *cells_of("logit", 81.0)])
    )
    assert labels(block) == [
        "floor: random",
        "floor: train click rate",
        "best published: W&D-CCF / GAN-PW",
        "authors' code: GAN-LSTM",
        "authors' code: GAN-PW",
        "authors' code: GAN-LSTM, selected by validation NLL",
        "fastgaum, generator",
        "dfm",
        "logit",
        "fastgaum, reward",
    ]


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


def test_choice_models_of_others_have_rows_and_say_what_sets_them_apart() -> None:
    result = object_of(cells_of("logit", 70.0))
    facts = {"published_best": best_published("lpmc"), "published_models": published_models("lpmc")}
    result["datasets"]["yelp"] |= facts | {"authors_code": {}}
    (block,) = reproduce_blocks(result)
    rows = [dict(zip(block.columns, row, strict=True)) for row in block.rows if "pub" in row[0]]
    assert [row["model"] for row in rows][3:] == [
        "published: XGBoost",
        "published: NN",
        "published: DNN",
    ]
    assert [rows[3][key] for key in ("prec@1", "prec@2", "NLL")] == ["74.7", "-", "0.657"]
    assert [note for note in block.notes if note.startswith("published: Martín-Baos")] == [
        f"published: {facts['published_models'][0]['source']}"
    ]


def test_a_model_that_is_a_floor_has_one_row_and_rows_of_the_identity_alone_are_marked() -> None:
    cells = [*cells_of("click-rate", 61.8, protocol="identity"), *cells_of("logit", 70.0)]
    (block,) = reproduce_blocks(object_of(cells))
    assert labels(block).count("floor: train click rate") == 1
    assert "click-rate" not in labels(block)
    row = block.rows[labels(block).index("floor: train click rate")]
    assert row[1:3] == ("62.8 ±0.5", "71.0 to 79.0")
    assert not any("†" in note for note in block.notes)
    (block,) = reproduce_blocks(object_of([*cells, *cells_of("iknn", 60.0, protocol="identity")]))
    assert labels(block)[-2:] == ["logit", "iknn †"]
    assert any(note.startswith("†: reads the identity alone") for note in block.notes)


def test_only_what_is_bold_in_the_object_is_bold() -> None:
    cells = [*cells_of("fastgaum", 80.0), *cells_of("logit", 70.0)]
    cells[1]["bold"] = True
    result = object_of(cells)
    (block,) = reproduce_blocks(result)
    assert block.bold == {(labels(block).index("fastgaum"), 3)}
    assert blocks_to_markdown(reproduce_blocks(result)).count("**") == 2
    assert "| fastgaum | 81.0 ±0.5 | 71.0 to 79.0 | **82.0 ±0.5** |" in blocks_to_markdown(
        reproduce_blocks(result)
    )


def test_notes_say_splits_budget_and_failures() -> None:
    why = "the loss is not finite"
    failed = [{"dataset": "yelp", "model": "dfm", "resplit": 2, "seed": 1, "reason": why}]
    tried = {"fastgaum": 24, "logit": 24, "dfm": 24, "iknn": 6}
    tuning = {name: {"settings_tried": n, "where": "…"} for name, n in tried.items()}
    cells = [cell for name in ("fastgaum", "logit", "iknn") for cell in cells_of(name, 70.0)]
    for cell in cells[4:]:
        cell |= {"settings_tried": 12, "selection": "—"}
    result = object_of(cells, resplit=[1, 2, 3, 7], failed=failed, tuning=tuning)
    (block,) = reproduce_blocks(result)
    assert "pooled over 4 splits of the users anew (seeds 1, 2, 3, 7)" in block.notes[0]
    for says in (
        "epoch chosen on validation by loss (fastgaum, logit)",
        "settings tried on validation folds per model: 24 (fastgaum, logit), 6 (iknn)",
        "settings compared on the validation split within each fit: 12 (iknn)",
    ):
        assert says in block.notes
    assert block.notes[-1] == f"failed, so without a row: dfm (split 2, seed 1): {why}"


def test_a_table_of_displays_that_were_made_up_says_so() -> None:
    result = object_of(cells_of("fastgaum", 95.0))
    result["datasets"]["yelp"]["simulated"] = {"rule": "nearest", "trace": 93.04}
    (block,) = reproduce_blocks(result)
    assert (
        'by the rule nearest, and "fewest displays earlier in the session" alone scores prec@1 93.0'
        in block.notes[1]
    )


def test_our_row_is_compared_in_words() -> None:
    versus = {"model": "xgboost", "head": "reward", "diff": 0.31, "ci": [-0.84, 1.3]}
    part = {"model": "fastgaum", "head": "reward", "mean": 84.0, "bold": False}
    part["vs_best_other"] = versus
    says = "fastgaum against the best other model: prec@1 +0.3 (-0.8 to +1.3, xgboost)"
    for best, ours in ((part, part), ({**part, "model": "dfm"}, None)):
        compared = {"yelp": {"1": {"best": best, "ours": ours}}}
        notes = reproduce_blocks(object_of(cells_of("dfm", 83.0), comparison=compared))[0].notes
        assert (says in notes) == (ours is not None)
        assert any("against the best other" in note for note in notes) == (ours is not None)


def test_the_whole_published_table_stands_below() -> None:
    table, published = reproduce_blocks(
        object_of(cells_of("logit", 70.0), published_table=published_table())
    )
    assert table.title == "yelp, protocol bags"
    logs = ("movielens", "lastfm", "yelp", "taobao", "yoochoose", "ant-financial (not released)")
    assert published.columns == ("model", *logs)
    rows = {row[0]: row[1:] for row in published.rows}
    assert len(rows) == 13
    assert rows["GAN-LSTM"][0] == "67.4 ±0.5 / 76.3 ±1.2"
    assert rows["GAN-LSTM"][5] == "42.1 ±0.2 / 65.9 ±0.2"
    assert rows["report: generator"] == ("", "", "3.4", "9.8", "2.7", "")
    assert "ant-financial was never released" in published.notes[1]


def test_a_table_set_again_from_its_file_is_the_same() -> None:
    cells = [*cells_of("fastgaum", 80.0, nll=float("nan")), *cells_of("logit", float("nan"))]
    result = object_of(cells, published_table=published_table(), comparison={}, failed=[])
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
