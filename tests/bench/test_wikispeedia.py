"""What players do on their own, on a toy site: the figures are those of the paths, no fit sees the
games that are judged, and the page holds it all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.bench import wikispeedia_loop as loop
from fastgaum.bench.experiments.loop_table import draw_loop, loop_to_markdown
from fastgaum.bench.wikispeedia_figures import bars_of, compare
from fastgaum.bench.wikispeedia_games import LIMIT, Games, Site
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.reports.table import finite
from fastgaum.worlds.world import NO_ITEM
from tests.builders import put
from tests.logs.test_context import navigation
from tests.worlds.test_learned_world import fitted


@pytest.fixture(scope="module")
def log() -> SessionLog:
    log = navigation(120, n_items=20, fixed=True)
    fields = {name: log.columns[name].values for name in ("page", "target")}
    return put(log, event=fields)


@pytest.fixture(scope="module")
def site(log: SessionLog) -> Site:
    shown = {
        int(page): log.items[log.display_offsets[event] : log.display_offsets[event + 1]].tolist()
        for event, page in enumerate(log.columns["page"].values)
    }
    ids = log.item_ids.to_list()
    table = pl.DataFrame(
        {
            "page": [ids[page] for page in shown],
            "links": [[ids[i] for i in s] for s in shown.values()],
        }
    )
    items = pl.DataFrame({"item": ids, "subcategory": ["A", "A.B"] * 10})
    return Site.of(log, table, items)


@pytest.fixture(scope="module")
def models(site: Site) -> dict[str, UserModel]:
    """Two fits stand for four."""
    exact = fitted(site.log, tower_dim=6, players="exact")
    game = fitted(site.log, tower_dim=6, players="adversarial", warm_start=1, epochs=1)
    return {"half-0": exact, "half-1": exact, "exact": exact, "adversarial": game}


def games_of(site: Site, *paths: list[int]) -> Games:
    """Games from page 0 to page 2."""
    full = np.full((len(paths), LIMIT), NO_ITEM, np.int32)
    for row, path in enumerate(paths):
        full[row, : len(path)] = path
    ends = np.array([[0, 2]] * len(paths), np.int32)
    return Games(ends[:, 0], ends[:, 1], full)


@pytest.fixture(scope="module")
def small() -> Site:
    """a links to b and c, b to c and a, c to a."""
    table = pl.DataFrame({"page": ["a", "b", "c"], "links": [["b", "c"], ["c", "a"], ["a"]]})
    items = pl.DataFrame({"item": ["a", "b", "c"], "subcategory": ["X", "X.Y", "X"]})
    return Site.of(navigation(20, 20), table, items)


def linked(site: Site, page: int) -> set[int]:
    return set(site.graph.links[site.graph.offsets[page] : site.graph.offsets[page + 1]].tolist())


def test_human_games_are_paths_of_links(site: Site) -> None:
    humans = site.judged
    assert humans.arrived.all()
    for start, target, path in zip(humans.starts, humans.targets, humans.paths, strict=True):
        page, clicks = int(start), path[path >= 0].tolist()
        for click in clicks:
            assert click in linked(site, page)
            page = click
        assert page == target


def test_no_fit_sees_a_judged_game_or_the_other_half_s(site: Site, log: SessionLog) -> None:
    """Training and validation sessions alike: a fit chooses its epoch by the latter."""
    validation = set(log.session_ids.gather(log.sessions_in("validation")))
    fitted_on = set(site.log.session_ids)
    halves = [set(site.half(i).session_ids) for i in (0, 1)]
    assert halves[0].isdisjoint(halves[1])
    assert halves[0] | halves[1] == fitted_on
    assert len(site.judged.starts) == len(validation - fitted_on) > 0
    assert set(log.session_ids.gather(log.sessions_in("test"))).isdisjoint(fitted_on)
    for half in (0, 1):
        counts = site.half(half).counts()["sessions"]
        assert min(counts[:2]) > 0


def test_figures_are_those_of_the_paths(small: Site) -> None:
    """Two games of known lengths; a game that does not arrive is in the shares alone."""
    humans, simulated = (
        games_of(small, *paths) for paths in (([1, 2], [2]), ([1, 0, 1, 2], [1, 0] * (LIMIT // 2)))
    )
    found = compare(small, humans, simulated)
    assert found["arrived"] == 0.5
    assert found["median"] == [1.5, 4.0]
    assert found["clicks"]["logged"] == [1.5]
    assert found["clicks"]["simulated"] == [4.0]
    assert found["soon"]["logged"] == [1.0]
    assert found["soon"]["simulated"] == [0.5]
    assert found["depth"]["logged"] == [0.0, 1.0]
    assert found["depth"]["simulated"] == pytest.approx([1 / 3, 2 / 3], abs=1e-4)
    # from b one click is left; a is one click away too
    assert found["distance"]["logged"][:2] == [0.5, 0.0]
    assert found["distance"]["simulated"][:4] == [1.0, 1.0, 1.0, 0.0]
    bars = bars_of(found)
    assert {name: bar["value"] for name, bar in bars.items()} == pytest.approx(
        {
            "clicks, mean": 2.5 / 1.5,
            "clicks, median": 2.5 / 1.5,
            "soon": -0.5,
            "hub visits": found["hub visits"]["distance"],
            "depth": 1 / 3,
        },
        abs=1e-4,
    )
    # two games tell nobody apart
    assert {name for name, bar in bars.items() if bar["holds"]} == {"hub visits", "depth"}


def test_the_page_has_all_tables(site: Site, models: dict[str, UserModel], tmp_path: Path) -> None:
    told: list[str] = []
    result = json.loads(json.dumps(finite(loop.play(site, models, told.append))))
    assert len(told) == 5
    assert list(result["players"]) == list(result["bars"])
    assert result["machine"]["cores"] >= 1
    assert set(result["links"]) == {"half-0", "half-1"}
    for links in result["links"].values():
        # pages have six links: ten of them are all
        for policy in links["policies"].values():
            assert policy == links["policies"]["all links"]
        assert not links["holds"]
    text = loop_to_markdown(result)
    players = (
        "behaviour cloning | generator | adversarial reward | any link | target, else any link"
    )
    assert f"| bar | {players} |" in text
    assert f"| figure | humans | {players} |" in text
    assert "| clicks to the target, mean |" in text
    assert text.count("| 10 planned |") == 2
    assert "an interval below 0, is missed" in text
    draw_loop(result, tmp_path / "loop.svg")
    drawn = (tmp_path / "loop.svg").read_text(encoding="utf-8")
    assert all(name in drawn for name in ("humans", *result["players"]))
    assert "prefers-color-scheme: dark" in drawn


def test_policies_of_fewer_links_are_judged(site: Site, models: dict[str, UserModel]) -> None:
    """With the target among two links players arrive sooner than with all six."""
    model = models["exact"]
    links = loop.shorten(site, model, model, site.half(0), k=2)
    clicks = {name: one["clicks"] for name, one in links["policies"].items()}
    assert clicks["2 nearest"] < clicks["all links"]
    assert clicks["2 planned"] < clicks["all links"]
    assert links["holds"]
    saved = links["policies"]["all links"]["saved by the planned"][0]
    assert saved == pytest.approx(clicks["all links"] - clicks["2 planned"])
