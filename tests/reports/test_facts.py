"""The report's facts against slow twins: loops over `predict`, one candidate at a time."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import CheckpointError
from fastgaum.logs.log import TRAIN, VALIDATION, SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.reports.facts import CURVE_POINTS, EDGES, SplitScores, report_facts
from fastgaum.reports.page import to_html
from fastgaum.reports.trained_run import open_run
from fastgaum.reports.what_if import importance, response_curve
from tests.builders import put
from tests.reports.workshop import QUICK, Workshop


@dataclass(frozen=True)
class Shown:
    """One displayed candidate."""

    item: str
    utility: float
    relative: float
    probability: float
    chosen: bool
    rivals: int
    later: bool
    displayed_before: bool
    chosen_before: bool


def events_of(log: SessionLog, split: int) -> Iterator[tuple[int, int, list[str], int]]:
    """session, number in it, items and choice of each event of a split."""
    for session in np.flatnonzero(log.split == split).tolist():
        first = int(log.session_offsets[session])
        for event in range(first, int(log.session_offsets[session + 1])):
            start, stop = int(log.display_offsets[event]), int(log.display_offsets[event + 1])
            items = [str(log.item_ids[int(item)]) for item in log.items[start:stop]]
            yield session, event - first, items, int(log.choices[event])


@pytest.fixture(scope="module")
def shown(workshop: Workshop) -> list[Shown]:
    frame = open_run(workshop.runs[0]).model.predict(workshop.log, "validation")
    rows = iter(frame.iter_rows(named=True))
    result, displayed, picked = [], defaultdict(set), defaultdict(set)
    for session, number, items, choice in events_of(workshop.log, VALIDATION):
        event = [next(rows) for _ in items]
        assert [row["item"] for row in event] == items
        mean = statistics.fmean(row["utility"] for row in event)
        for place, row in enumerate(event):
            seen = row["item"] in displayed[session], row["item"] in picked[session]
            result.append(
                Shown(
                    row["item"],
                    row["utility"],
                    row["utility"] - mean,
                    row["probability"],
                    place == choice,
                    len(items),
                    number > 0,
                    *seen,
                )
            )
        displayed[session].update(items)
        if choice >= 0:
            picked[session].add(items[choice])
    assert next(rows, None) is None
    return result


@pytest.fixture(scope="module")
def training(workshop: Workshop) -> tuple[dict[str, int], dict[str, int]]:
    """Displays and choices of each item in training."""
    displays: dict[str, int] = defaultdict(int)
    choices: dict[str, int] = defaultdict(int)
    for _, _, items, choice in events_of(workshop.log, TRAIN):
        for place, item in enumerate(items):
            displays[item] += 1
            choices[item] += place == choice
    return displays, choices


def check(group: dict[str, Any], cases: list[Shown]) -> None:
    assert group["n"] == len(cases)
    if not cases:
        assert group["utility"] is None
        return
    assert group["utility"] == pytest.approx(
        statistics.fmean(one.relative for one in cases), abs=1e-5
    )
    assert group["chosen"] == pytest.approx(
        statistics.fmean(one.chosen for one in cases), abs=1e-12
    )
    assert group["predicted"] == pytest.approx(
        statistics.fmean(one.probability for one in cases), abs=1e-6
    )
    assert group["low"] == pytest.approx(
        np.quantile([one.relative for one in cases], 0.1), abs=1e-5
    )


def test_groups_of_the_session_and_of_training(
    workshop: Workshop, shown: list[Shown], training: tuple[dict[str, int], dict[str, int]]
) -> None:
    learned = workshop.facts["runs"][0]["learned"]
    several = [one for one in shown if one.rivals > 1]
    assert learned["n_candidates"] == len(several) > 300
    new, before, again = learned["in_session"]
    later = [one for one in several if one.later]
    check(new, [one for one in later if not one.displayed_before])
    check(before, [one for one in later if one.displayed_before and not one.chosen_before])
    check(again, [one for one in later if one.chosen_before])
    assert min(new["n"], before["n"], again["n"]) > 0
    displays, choices = training
    check(learned["in_training"][0], [one for one in several if not displays[one.item]])
    check(
        learned["in_training"][1],
        [one for one in several if displays[one.item] and not choices[one.item]],
    )
    check(learned["in_training"][2], [one for one in several if choices[one.item]])
    for group in learned["popularity"]:
        low, _, high = group["label"].partition("–")
        check(group, [one for one in several if int(low) <= choices[one.item] <= int(high or low)])
    assert sum(group["n"] for group in learned["popularity"]) == len(several)


def test_items_of_the_largest_and_smallest_utility(
    workshop: Workshop, shown: list[Shown], training: tuple[dict[str, int], dict[str, int]]
) -> None:
    learned = workshop.facts["runs"][0]["learned"]
    by_item: dict[str, list[Shown]] = defaultdict(list)
    for one in shown:
        if one.rivals > 1:
            by_item[one.item].append(one)
    means = {
        item: statistics.fmean(one.relative for one in cases)
        for item, cases in by_item.items()
        if len(cases) >= learned["least_displays"]
    }
    order = sorted(means, key=lambda item: -means[item])
    n = len(learned["largest"])
    assert n == len(learned["smallest"]) == len(order) // 2
    assert [row["item"] for row in learned["largest"]] == order[:n]
    assert [row["item"] for row in learned["smallest"]] == order[::-1][:n]
    for row in learned["largest"] + learned["smallest"]:
        cases = by_item[row["item"]]
        assert row["utility"] == pytest.approx(means[row["item"]], abs=1e-5)
        assert (row["displays"], row["chosen"]) == (len(cases), sum(one.chosen for one in cases))
        assert (row["training_displays"], row["training_choices"]) == tuple(
            c[row["item"]] for c in training
        )


def test_calibration_curve(workshop: Workshop, shown: list[Shown]) -> None:
    points = workshop.facts["runs"][0]["calibration"]["reward"]["candidates"]
    edges = [0.0, *EDGES, 2.0]
    groups = [
        [one for one in shown if low <= one.probability < high]
        for low, high in itertools.pairwise(edges)
    ]
    groups = [group for group in groups if group]
    assert [point["n"] for point in points] == [len(group) for group in groups]
    for point, group in zip(points, groups, strict=True):
        assert point["predicted"] == pytest.approx(
            statistics.fmean(one.probability for one in group), abs=1e-6
        )
        assert point["observed"] == pytest.approx(statistics.fmean(one.chosen for one in group))
        assert point["ci"][0] <= point["observed"] <= point["ci"][1]


def test_calibration_of_no_click(workshop: Workshop) -> None:
    run = workshop.facts["runs"][0]
    figures = run["evaluation"]["heads"]["reward"]["no_click"]
    points = run["calibration"]["reward"]["no_click"]
    n = sum(point["n"] for point in points)
    assert n == run["evaluation"]["n_events"]
    for name in ("predicted", "observed"):
        assert sum(point["n"] * point[name] for point in points) / n == pytest.approx(
            figures[name], abs=1e-6
        )
    assert [point["predicted"] for point in points] == sorted(
        point["predicted"] for point in points
    )


def test_figures_are_those_of_evaluate(workshop: Workshop) -> None:
    run = workshop.facts["runs"][0]
    model = open_run(workshop.runs[0]).model
    assert run["evaluation"] == model.evaluate(workshop.log, "validation").to_dict()
    versus, heads = run["versus_floor"], run["evaluation"]["heads"]
    floors = workshop.facts["logs"][0]["floors"]
    assert (
        versus["percent"]
        == max(floor["1"] for floor in floors.values())
        == floors[versus["floor"]]["1"]
    )
    assert versus["diff"] == pytest.approx(heads["reward"]["prec"]["1"]["mean"] - versus["percent"])
    assert versus["ci"][0] < versus["diff"] < versus["ci"][1]


def test_epochs_log_and_json(workshop: Workshop) -> None:
    facts = workshop.facts
    assert facts["split"] == "validation"
    json.dumps(facts, allow_nan=False)
    run, log = facts["runs"][0], facts["logs"][0]
    table = pl.read_parquet(workshop.runs[0] / "metrics.parquet")
    assert [row["gap"] for row in run["epochs"]] == table["gap"].to_list()
    assert run["best_epoch"] == table.filter(pl.col("best"))["epoch"][-1]
    assert run["machine"]["cost"]["seconds"] > 0
    for part, code in zip(log["splits"], range(3), strict=True):
        events = list(events_of(workshop.log, code))
        assert part["events"] == len(events)
        assert part["candidates"] == sum(len(items) for _, _, items, _ in events)
        assert part["no_click"] == pytest.approx(
            sum(choice < 0 for *_, choice in events) / len(events)
        )
    assert all(finding["test_prec_at_1"] is None for finding in log["audit"]["findings"])


def test_two_runs_compared(workshop: Workshop) -> None:
    runs = [open_run(run) for run in workshop.runs]
    facts = report_facts(runs, [workshop.log], compare=True)
    means = [run["evaluation"]["heads"]["reward"] for run in facts["runs"]]
    for one in facts["comparison"]["differences"]:
        first, second = (
            m["nll"]["mean"] if one["figure"] == "NLL" else m["prec"][one["figure"][-1]]["mean"]
            for m in means
        )
        assert one["diff"] == pytest.approx(first - second, abs=1e-6)
        assert one["ci"][0] <= one["diff"] <= one["ci"][1]
        low, high = (-end for end in one["ci"][::-1]) if one["figure"] == "NLL" else one["ci"]
        assert one["verdict"] == (
            "first is better" if low > 0 else "second is better" if high < 0 else "not told apart"
        )
    assert {one["key"] for one in facts["comparison"]["settings"]} == {"players", "protocol"}
    same = report_facts([runs[0], runs[0]], [workshop.log], compare=True)["comparison"]
    assert same["settings"] == []
    assert {(one["diff"], one["verdict"]) for one in same["differences"]} == {
        (0.0, "not told apart")
    }


@pytest.mark.usefixtures("undrawn")
def test_one_log_read_in_two_ways_is_compared_on_its_events(tmp_path: Path) -> None:
    """A field more, or a real order, is another log by fingerprint, with the same events."""
    plain = synthesise(300, preset="sample", n_items=15, seed=5)[0]
    turned = reversed_displays(plain)
    rng = np.random.default_rng(0)
    price = {"price": rng.normal(size=turned.n_candidates).astype(np.float32)}
    logs = [plain, put(turned, candidate=price, ordered=True)]
    for log, name in zip(logs, "ab", strict=True):
        train_run(
            UserModel.from_preset("fastgaum", **{**QUICK, "protocol": "bags"}), log, tmp_path / name
        )
    runs = [open_run(tmp_path / name) for name in "ab"]
    facts = report_facts(runs, logs, compare=True)
    means = [run["evaluation"]["heads"]["reward"]["prec"]["1"]["mean"] for run in facts["runs"]]
    assert facts["comparison"]["differences"][0]["diff"] == pytest.approx(means[0] - means[1])
    assert [run["log"] for run in facts["runs"]] == [0, 1]
    page, fields = to_html(facts), [run["fields"] for run in facts["runs"]]
    assert fields[0]["importance"] == []
    # few sessions: all of them are asked
    assert fields[1]["importance"] == importance(runs[1].model, logs[1], "validation").to_dicts()
    curve = response_curve(runs[1].model, logs[1], "price", CURVE_POINTS, "validation", sample=1)
    assert fields[1]["curves"]["price"] == curve.filter(pl.col("share") >= 0.01).to_dicts()
    assert "Mean log-odds of a candidate by its price" in page
    # the same data in a real order: the fingerprint alone does not tell the two apart
    same = [plain, dataclasses.replace(plain, ordered=True)]
    train_run(UserModel.from_preset("fastgaum", **QUICK), same[1], tmp_path / "c")
    facts = report_facts([runs[0], open_run(tmp_path / "c")], same[::-1])
    assert [log["ordered"] for log in facts["logs"]] == [False, True]


def reversed_displays(log: SessionLog) -> SessionLog:
    """The same log with each display set the other way round."""
    sizes = np.diff(log.display_offsets)
    start = np.repeat(log.display_offsets[:-1], sizes)
    stop = np.repeat(log.display_offsets[1:], sizes)
    items = log.items[start + stop - 1 - np.arange(log.n_candidates)]
    choices = np.where(log.choices < 0, log.choices, sizes - 1 - log.choices).astype(np.int32)
    return dataclasses.replace(log, items=items, choices=choices, views=None)


def test_a_run_that_was_interrupted_is_read_from_its_lines(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Damaged files of a run: tests/attack/table.py."""
    copy, whole = tmp_path / "copy", open_run(workshop.runs[0]).table
    shutil.copytree(workshop.runs[0], copy)
    (copy / "metrics.parquet").unlink()
    found = open_run(copy).table
    assert found["epoch"].to_list() == whole["epoch"].to_list()
    assert found["gap"].to_list() == pytest.approx(whole["gap"].to_list())
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"no metrics\.parquet and no metrics\.jsonl"):
        open_run(copy)


@pytest.mark.parametrize("folds", [0, 3])
def test_utilities_on_the_page_are_free_of_place(tmp_path: Path, folds: int) -> None:
    log, _ = synthesise(400, n_items=12, order="random", examination=1.0, no_click=0.3)
    log = dataclasses.replace(log, name="ranked")
    model = UserModel.from_preset("fastgaum", **{**QUICK, "eta": 2.0, "folds": folds})
    train_run(model, log, tmp_path / "run")
    loaded = open_run(tmp_path / "run").model
    scored = SplitScores.of(loaded, log, "validation")
    taste = loaded.predict(log, "validation", at_place=None)["utility"].to_numpy()
    means = np.add.reduceat(taste, scored.part.display_offsets[:-1]) / scored.sizes
    np.testing.assert_allclose(
        scored.advantage(), taste - np.repeat(means, scored.sizes), atol=1e-5
    )
