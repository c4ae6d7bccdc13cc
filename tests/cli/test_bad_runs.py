"""Runs that are damaged or made to deceive, and what a run cannot be asked for: one row each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import change_state, flip_bit
from tests.cli.bad_input import DEEP, Make, Row, Seeds, check_refused


def run(change: Callable[[Path], None], *options: str) -> Make:
    """An evaluation of a run folder that was changed."""

    def make(seeds: Seeds) -> list[str]:
        shutil.copytree(seeds.run, seeds.folder / "run")
        change(seeds.folder / "run")
        return ["evaluate", str(seeds.folder / "run"), str(seeds.log), *options]

    return make


def model(change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Make:
    """A run of which the model's state, arrays named, or its arrays were changed."""
    return run(
        lambda folder: change_state(
            folder / "model.safetensors", lambda about, arrays: change(about["state"], arrays)
        )
    )


def config(**changes: Any) -> Make:
    """A model whose configuration asks for something else than its weights are."""
    return model(lambda state, _: state["config"].update(changes))


def tensor(name: str, at: int, value: float) -> Make:
    """A model with one number of one array changed."""

    def change(_: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[name].reshape(-1)[at] = value

    return model(change)


def another_version(folder: Path) -> None:
    change_state(
        folder / "model.safetensors", lambda about, _: about.update(format="fastgaum-model-9")
    )


def header(length: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])

    return change


def same_texts(_: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    name = "space/base/categorical/0/values"
    texts = json.loads(arrays[name].tobytes())
    arrays[name] = np.frombuffer(json.dumps(["same"] * len(texts)).encode(), np.uint8)


def other_fields(seeds: Seeds) -> list[str]:
    seeds.frame.drop("price").write_parquet(seeds.folder / "log.parquet")
    return ["evaluate", str(seeds.run), str(seeds.folder / "log.parquet")]


def unwritable(seeds: Seeds) -> list[str]:
    (seeds.folder / "file").write_text("in the way")
    return ["predict", str(seeds.run), str(seeds.log), "-o", str(seeds.folder / "file" / "p.csv")]


def spreadsheet(seeds: Seeds) -> list[str]:
    return ["predict", str(seeds.run), str(seeds.log), "-o", str(seeds.folder / "probs.xlsx")]


ROWS: dict[str, Row] = {
    "run of another version": (
        run(another_version),
        "fastgaum-model-9",
    ),
    "truncated run": (
        run(lambda folder: os.truncate(folder / "model.safetensors", 5000)),
        "is damaged",
    ),
    "model with one bit changed": (
        run(lambda folder: flip_bit(folder / "model.safetensors")),
        "bytes have changed since",
    ),
    "empty run": (run(lambda folder: os.truncate(folder / "model.safetensors", 0)), "damaged"),
    "unknown option of reading": (
        run(lambda folder: (folder / "reading.json").write_text('{"candidate_feild": ["price"]}')),
        "reading.json",
    ),
    "log of other fields": (other_fields, "price"),
    "header of exabytes": (run(header(2**60)), "its header declares"),
    "header beyond the file": (run(header(4_000_000)), "its header declares"),
    "wider than its weights": (config(hidden=[60000, 60000]), "the configuration asks for"),
    "deeper than its weights": (
        config(history_layers=100),
        "asks for more layers than",
    ),
    "impossible configuration": (
        config(hidden=[10**9]),
        "hidden must be a list of 1 to 100 values, each a whole number",
    ),
    "NaN weight": (
        tensor("weights/player.reward.rest.0.weight", 1, float("nan")),
        "rest.0.weight' holds nan at 1",
    ),
    "infinite mean": (
        tensor("space/base/mean", 0, float("inf")),
        "space/base/mean' holds inf at 0",
    ),
    "scale of 0": (tensor("space/base/scale", 0, 0.0), "not positive"),
    "texts that are cut": (
        tensor("space/base/categorical/0/values", -1, 0),
        "is damaged",
    ),
    "negative count": (tensor("space/base/item_counts/displays", 0, -1), "holds a count below 0"),
    "two items of one id": (
        model(same_texts),
        "holds a value twice",
    ),
    "weights missing": (
        model(lambda _, arrays: arrays.pop("weights/player.reward.rest.0.weight")),
        "is missing",
    ),
    "number of another version": (
        model(
            lambda state, _: state["space"]["base"]["number_names"].__setitem__(
                0, "displayed_afore"
            )
        ),
        "is not a number that this version makes",
    ),
    "ids that overlap": (
        model(lambda state, _: state["space"]["base"]["categorical"][0].update(start=0)),
        "1 is required",
    ),
    "damaged space": (model(lambda state, _: state.update(space=[])), "is damaged"),
    "reading.json of another type": (
        run(lambda folder: (folder / "reading.json").write_text('{"candidate_field": 3}')),
        "candidate_field is 3",
    ),
    "reading.json nested": (
        run(lambda folder: (folder / "reading.json").write_text(DEEP)),
        "nested too deeply",
    ),
    "reading.json a list": (
        run(lambda folder: (folder / "reading.json").write_text("[]")),
        "options by name",
    ),
    "unwritable output": (unwritable, "cannot write"),
    "table of another kind": (spreadsheet, ".parquet or .csv"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_run_is_refused(fails: Callable[[list[str]], str], seeds: Seeds, row: str) -> None:
    check_refused(ROWS[row], seeds, fails)
