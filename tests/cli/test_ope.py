"""`fastgaum ope`: what it prints and writes, the columns it reads, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from fastgaum.logs.store import save_log
from fastgaum.logs.synthetic import synthesise

QUICK = ["epochs=1", "warm_start=2", "catch_up=1", "search=[]", "folds=0"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of displays of 3 of 15 items, with the propensity of each and a price."""
    log, _ = synthesise(
        900, n_items=15, no_click=0.4, mean_display=2.8, max_display=3, skew=1.0, seed=2
    )
    frame = to_frame(log).drop("event_label", strict=False)
    sizes = pl.len().over("session", "event")
    propensity = pl.when(sizes == 2).then(1 / 105).otherwise(1 / 455)
    price = pl.Series(np.random.default_rng(0).integers(1, 9, frame.height))
    path = tmp_path_factory.mktemp("ope") / "shown.csv"
    frame.with_columns(propensity=propensity, price=price).write_csv(path)
    return path


@pytest.fixture(scope="module")
def run(shown: Path) -> Path:
    folder = shown.parent / "run"
    sets = [text for one in QUICK for text in ("--set", one)]
    assert main(["train", str(shown), "-o", str(folder), *sets]) == 0
    return folder


def rows_of(path: Path) -> dict[str, dict[str, object]]:
    return {one["estimator"]: one for one in json.loads(path.read_text())["estimates"]}


def test_the_table_and_its_files(
    shown: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "v.json"), "--markdown", str(tmp_path / "v.md")]
    argv = ["ope", str(shown), "--policy", "greedy", "--epsilon", "0.5", "--run", str(run)]
    capsys.readouterr()
    assert main([*argv, "--split", "all", *files]) == 0
    out, rows = capsys.readouterr().out, rows_of(tmp_path / "v.json")
    for name in ("dr-pi", "pi", "dr", "snips", "ips", "dm"):
        assert f"| {name} |" in (tmp_path / "v.md").read_text()
        assert name in out
    assert rows["dr-pi"]["ci"][0] < rows["dr-pi"]["value"] < rows["dr-pi"]["ci"][1]
    assert "no support" in rows["ips"]["why"]
    # half of the users trained the run
    (note,) = json.loads((tmp_path / "v.json").read_text())["notes"]
    assert "of these events are of the training split" in note
    assert note in (tmp_path / "v.md").read_text()
    assert "warning: " in out
    test = ["--json", str(tmp_path / "test.json")]
    assert main([*argv, *test]) == 0
    assert json.loads((tmp_path / "test.json").read_text())["notes"] == []


def test_propensities_and_values_are_columns(shown: Path, tmp_path: Path) -> None:
    """The column says what random sets have; a price multiplies; neither reaches a model."""
    argv = ["ope", str(shown), "--policy", "random", "--split", "all"]
    by_law, by_column, priced = (tmp_path / name for name in ("law.json", "column.json", "p.json"))
    assert main([*argv, "--json", str(by_law)]) == 0
    assert main([*argv, "--propensity", "propensity", "--json", str(by_column)]) == 0
    assert main([*argv, "--value", "price", "--json", str(priced)]) == 0
    law, column = rows_of(by_law)["ips"], rows_of(by_column)["ips"]
    assert column["value"] == pytest.approx(law["value"], rel=1e-5)
    assert "needs random displays" in rows_of(by_column)["pi"]["why"]
    assert rows_of(priced)["snips"]["value"] > 2 * law["value"]


def test_clicks_on_items_that_a_split_never_displays_have_a_worth(
    shown: Path, run: Path, tmp_path: Path
) -> None:
    """That of the other splits: the target shows the item, and the price that it has there."""
    frame = pl.read_csv(shown)
    sessions = frame["session"].unique(maintain_order=True)
    # every second session tests, without events that display the item
    tests = pl.col("session").is_in(sessions.gather_every(2).implode())
    item = frame["item"][0]
    displays_it = (pl.col("item") == item).any().over("session", "event")
    frame = frame.with_columns(split=pl.when(tests).then(pl.lit("test")).otherwise(pl.lit("train")))
    frame = frame.filter(~(tests & displays_it))
    values = []
    for price in (1, 1000):
        file, out = tmp_path / f"{price}.csv", tmp_path / f"{price}.json"
        priced = pl.when(pl.col("item") == item).then(price).otherwise(1)
        frame.with_columns(price=priced).write_csv(file)
        argv = ["ope", str(file), "--policy", "random", "--run", str(run), "--value", "price"]
        # the run has another split of this log
        argv += ["--json", str(out), "--allow-seen-users"]
        assert main(argv) == 0
        assert json.loads(out.read_text())["split"] == "test"
        values.append(rows_of(out))
    low, high = values
    assert low["pi"]["value"] == high["pi"]["value"], "no logged click earned it"
    assert 0.5 < low["dm"]["value"] < 1
    assert high["dm"]["value"] > 10


def test_an_item_that_no_split_displays_has_no_worth(
    fails: Callable[[list[str]], str], shown: Path, run: Path, tmp_path: Path
) -> None:
    log = read_log(shown, candidate_fields=["price"])
    item = log.item_ids[int(log.items[0])]
    with_it = np.add.reduceat(log.items == log.items[0], log.display_offsets[:-1]) > 0
    lacking = np.add.reduceat(with_it, log.session_offsets[:-1]) == 0
    save_log(slice_sessions(log, np.flatnonzero(lacking)), tmp_path / "saved")
    argv = ["ope", str(tmp_path / "saved"), "--policy", "random", "--run", str(run)]
    argv += ["--value", "price"]
    out = tmp_path / "v.json"
    assert f"1 items of the pool is worth is unknown ('{item}' …)" in fails(
        [*argv, "--json", str(out)]
    )
    assert not out.exists()
    pool = tmp_path / "pool.txt"
    pool.write_text("\n".join(one for one in log.item_ids if one != item))
    assert main([*argv, "--pool", str(pool), "--json", str(out)]) == 0
    assert rows_of(out)["dm"]["value"] > 0


def test_a_folder_with_a_policys_name_hides_nothing(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "popular").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["ope", str(shown), "--policy", "popular", "--json", "v.json"]) == 0
    assert json.loads((tmp_path / "v.json").read_text())["policy"] == "popular"


def test_a_trained_policy_has_a_value(shown: Path, run: Path, tmp_path: Path) -> None:
    small = ["episodes=1", "users=16", "warm_up=16", "evaluations=1", "batch=16"]
    sets = [text for one in small for text in ("--set", one)]
    policy, out = tmp_path / "cascade", tmp_path / "v.json"
    made = ["rl", "train", str(run), "-o", str(policy), "--policy", "cascade-dqn", "-k", "3"]
    assert main([*made, "--horizon", "3", *sets]) == 0
    argv = ["ope", str(shown), "--policy", str(policy), "--run", str(run), "--epsilon", "0.5"]
    assert main([*argv, "--split", "all", "--json", str(out)]) == 0
    facts = json.loads(out.read_text())
    assert facts["policy"] == "cascade-dqn"
    assert facts["left_out_events"] > 0, "displays of 2 items: it makes slates of 3"
    assert rows_of(out)["dr-pi"]["value"] is not None


def test_a_pool_is_a_file_of_items(
    fails: Callable[[list[str]], str], shown: Path, tmp_path: Path
) -> None:
    items = pl.read_csv(shown)["item"].unique().sort().to_list()
    pool, out = tmp_path / "pool.txt", tmp_path.parent / "pool.json"
    pool.write_text("\n".join(items[:-1]))
    argv = ["ope", str(shown), "--policy", "random", "--pool", str(pool), "--split", "all"]
    assert "displays 1 items that the pool lacks" in fails(argv)
    pool.write_text("\n".join([*items, "cup"]))
    assert "('cup' …)" in fails(argv)
    pool.write_text("\n".join(items))
    assert main([*argv, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["pool_items"] == 15
