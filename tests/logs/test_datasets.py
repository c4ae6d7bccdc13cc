"""The registry, finding logs by name, and the front door."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.baselines.floors import floor_table
from fastgaum.errors import DatasetError, LogFormatError
from fastgaum.logs.context import context_of
from fastgaum.logs.datasets import (
    card,
    data_folders,
    data_root,
    dataset,
    find_log,
    names,
    parse_registry,
    resolve,
    sha256_of,
)
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import load

SharedData = Callable[[str], Path]
REAL = {
    "yelp": "yelp.txt",
    "taobao": "tb.txt",
    "yoochoose": "rsc.txt",
    "search_clicks": "search_clicks.parquet",
    "ebnerd": "ebnerd/behaviors.parquet",
    "wikispeedia": "wikispeedia/choices.parquet",
    "clara2": "clara2/displays.parquet",
    "lpmc": "lpmc/trips.parquet",
    "lpmc-persons": "lpmc/trips.parquet",
    "tastenet": "tastenet/choices.parquet",
    "movielens-small": "ml-latest-small/ratings.csv",
}
_OF_TRIPS = {
    **dict.fromkeys(("age", "bus_scale", "distance", "start_time_linear"), "numbers"),
    **dict.fromkeys(("purpose", "fueltype", "faretype", "day_of_week"), "categories"),
    **dict.fromkeys(("travel_month", "female", "driving_license", "car_ownership"), "categories"),
}
CONTEXT = {
    "wikispeedia": {"page": "items", "target": "items"},
    "clara2": {"query": "categories"},
    "lpmc": _OF_TRIPS,
    "lpmc-persons": _OF_TRIPS,
    "tastenet": {"income": "numbers", "full_time": "categories", "flexible": "categories"},
}
"""what the context of a registered log holds"""
_ANY_LOG = ("random", "train click rate", "train click count")
FLOORS = {
    "wikispeedia": (*_ANY_LOG, "target, else click rate"),
    "clara2": (*_ANY_LOG, "first place"),
    "lpmc": ("random", "train click rate", "traffic alone", "dur alone"),
    "tastenet": ("random", "train click rate", "cost alone"),
}
"""the floors that a card names"""


def in_time(names: Iterable[str]) -> list[Any]:
    """The largest log takes half a minute, and `make slow` reads it."""
    return [pytest.param(n, marks=pytest.mark.slow) if n == "wikispeedia" else n for n in names]


@cache
def loaded(name: str, folder: Path) -> SessionLog:
    """A registered log, read once."""
    return load(name, data_dir=folder)


@pytest.fixture
def real_folder(shared_data: SharedData) -> Path:
    """The folder of the real logs, looked up before `empty_home` hides the environment."""
    return shared_data("yelp.txt").parent


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any data; returns the cache folder, which is not made."""
    monkeypatch.delenv("FASTGAUM_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fastgaum" / "data"


def test_every_entry_is_whole() -> None:
    assert names() == [*REAL, "sample"]
    for entry in map(dataset, names()):
        assert entry.title
        assert entry.origin
        assert entry.terms
        assert entry.counts
        assert entry.files[0].bytes
        assert card(entry.name).startswith("# ")
        assert entry.terms.split(";")[0].split(",")[0].lower() in card(entry.name).lower()
    assert [dataset(name).files[0].path for name in REAL] == list(REAL.values())


@pytest.mark.parametrize("name", in_time(REAL))
def test_real_logs_have_the_counts_of_the_registry(name: str, shared_data: SharedData) -> None:
    folder = shared_data(REAL[name]).parents[REAL[name].count("/")]
    log = loaded(name, folder)
    found = {
        "sessions": log.n_sessions,
        "events": log.n_events,
        "candidates": log.n_candidates,
        "items": log.n_items,
    }
    assert found == dataset(name).counts
    assert log.name == name
    assert log.ordered == (name in ("search_clicks", "clara2"))
    context = {field.name: field.holds for field in context_of(log)}
    assert context == CONTEXT.get(name, {})
    if name.startswith("lpmc"):  # a household trains, validates or is tested
        assert len(np.unique(log.users)) == 17616


@pytest.mark.parametrize("name", in_time(FLOORS))
def test_the_card_has_the_floors_of_the_log(name: str, shared_data: SharedData) -> None:
    folder = shared_data(REAL[name]).parents[1]
    floors = floor_table(loaded(name, folder))
    for floor, by_k in floors.items():
        row = f"| {floor} | {by_k[1]:.1f} | {by_k[2]:.1f} |"
        assert (row in card(name)) == (floor in FLOORS[name])


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_hashes_of_the_registry(name: str, shared_data: SharedData) -> None:
    for file in dataset(name).files:
        path = shared_data(file.path)
        assert sha256_of(path) == file.sha256
        assert path.stat().st_size == file.bytes


def test_the_sample_needs_no_data_folder(empty_home: Path) -> None:
    assert load("sample").n_events == 2000
    assert not empty_home.exists()


def test_names_are_looked_up_in_order(
    real_folder: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, named = tmp_path / "given", tmp_path / "named"
    for folder in (given, named, empty_home):
        folder.mkdir(parents=True)
    monkeypatch.setenv("FASTGAUM_DATA_DIR", str(named))
    assert data_folders(given) == [given, named, empty_home]
    assert find_log("yelp", given) is None
    for folder in (empty_home, named, given):
        shutil.copyfile(real_folder / "yelp.txt", folder / "yelp.txt")
        assert find_log("yelp", given) == folder / "yelp.txt"
    assert load("yelp", data_dir=given).n_events == 1725


def test_a_path_is_used_as_it_is(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample.csv").write_text("session,event,item,chosen\na,0,x,1\na,0,y,0\n")
    (tmp_path / "sample").mkdir()
    assert load("sample.csv").n_events == 1
    assert load(Path("sample.csv")).name == "sample"
    assert resolve("sample").dataset is dataset("sample")
    assert resolve("./sample").path == Path("sample")
    assert resolve(tmp_path).path == tmp_path


def test_options_of_the_caller_come_first(shared_data: SharedData) -> None:
    folder = shared_data("ebnerd/behaviors.parquet").parents[1]
    shared_data("search_clicks.parquet")
    log = load("search_clicks", data_dir=folder, ordered=False, name="mine")
    assert (log.ordered, log.name) == (False, "mine")
    with pytest.raises(LogFormatError, match="has 2 clicks"):
        load("ebnerd", data_dir=folder, clicks="error")


def test_a_changed_file_is_refused_by_name_and_read_by_path(
    real_folder: Path, empty_home: Path, tmp_path: Path
) -> None:
    text = (real_folder / "yelp.txt").read_text()
    (tmp_path / "yelp.txt").write_text(text + text.splitlines()[-1] + "\n")
    with pytest.raises(DatasetError, match="sha256") as error:
        load("yelp", data_dir=tmp_path)
    assert dataset("yelp").files[0].sha256 in str(error.value)
    assert sha256_of(tmp_path / "yelp.txt") in str(error.value)
    assert load(tmp_path / "yelp.txt").n_events == 1725


def test_a_misspelt_file_finds_its_neighbour_and_a_data_folder_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").touch()
    with pytest.raises(DatasetError, match=r"did you mean 'clicks\.csv'"):
        resolve(tmp_path / "click.csv")
    for look in (find_log, resolve, load):
        with pytest.raises(DatasetError, match="is not a folder"):
            look("yelp", data_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    "text", ["[a", "[a]\ntitle = 'x'", "a = 1", "[a]\nfiles = []", "[a]\nfiles = [{path = 'x'}]"]
)
def test_a_damaged_registry_is_one_line(text: str) -> None:
    with pytest.raises(DatasetError) as error:
        parse_registry(text)
    assert "\n" not in str(error.value)


def test_published_tables_are_tidy() -> None:
    rows = []
    for file in sorted((data_root() / "published").glob("*.csv")):
        with open(file, newline="", encoding="utf-8") as text:
            found = list(csv.DictReader(text))
        keys = [(row["dataset"], row["model"], row["k"]) for row in found]
        assert len(keys) == len(set(keys)), file
        rows += found
    assert len([row for row in rows if row["source"].startswith("paper")]) == 9 * 6 * 2
    assert all(0 < float(row["mean"]) < 100 and row["k"] in ("1", "2") for row in rows)
