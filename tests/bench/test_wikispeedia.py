"""What players do on their own, on a toy site: the figures are those of the paths, and the page
holds them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.bench import wikispeedia_loop as loop
from fastgaum.bench.wikispeedia_games import Games, Site
from fastgaum.models.user_model import UserModel
from fastgaum.reports.loop_table import draw_loop, loop_to_markdown
from fastgaum.worlds.world import NO_ITEM
from tests.logs.test_context import navigation
from tests.worlds.test_learned_world import fitted


@pytest.fixture(scope="module")
def site() -> Site:
    log = navigation(120, n_items=20, fixed=True)
    fields = {name: log.event_fields[name] for name in ("page", "target")}
    log = dataclasses.replace(log, event_fields=fields)
    shown = {
        int(page): log.items[log.display_offsets[event] : log.display_offsets[event + 1]].tolist()
        for event, page in enumerate(fields["page"])
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
def model(site: Site) -> UserModel:
    return fitted(site.log, tower_dim=6, players="exact")


def test_human_games_are_paths_of_links(site: Site) -> None:
    humans = site.games(site.log)
    assert humans.arrived.all()
    assert len(humans.starts) == len(site.log.sessions_in("validation"))
    for start, target, path in zip(humans.starts, humans.targets, humans.paths, strict=True):
        page, clicks = int(start), path[path >= 0]
        for click in clicks:
            assert (
                click in site.graph.links[site.graph.offsets[page] : site.graph.offsets[page + 1]]
            )
            page = int(click)
        assert page == target


def test_training_clicks_stand_at_their_links(site: Site) -> None:
    clicked = site.clicked(site.log)
    n = len(site.log.session_offsets) - 1
    events = sum(
        int(site.log.session_offsets[i + 1] - site.log.session_offsets[i])
        for i in range(n)
        if i in set(site.log.sessions_in("train").tolist())
    )
    assert int(np.floor(clicked).sum()) == events


def test_figures_are_those_of_the_paths() -> None:
    """Two games of known lengths; a game that does not arrive is in the shares alone."""
    table = pl.DataFrame({"page": ["a", "b", "c"], "links": [["b", "c"], ["c", "a"], ["a"]]})
    items = pl.DataFrame({"item": ["a", "b", "c"], "subcategory": ["X", "X.Y", "X"]})
    site = Site.of(navigation(20, 20), table, items)
    starts, targets = np.array([0, 0], np.int32), np.array([2, 2], np.int32)

    def games(*paths: list[int]) -> Games:
        full = np.full((2, 60), NO_ITEM, np.int32)
        for row, path in enumerate(paths):
            full[row, : len(path)] = path
        return Games(starts, targets, full)

    humans, simulated = games([1, 2], [2]), games([1, 0, 1, 2], [1, 0] * 30)
    found = loop.compare(site, humans, simulated)
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


def test_the_page_has_both_tables(site: Site, model: UserModel, tmp_path: Path) -> None:
    humans = site.games(site.log)
    again = loop.compare(site, humans, humans)
    assert again["clicks"]["difference"] == [0.0]
    assert again["clicks"]["p"] == 1.0
    simulated = loop.walk(site, site.world(model, "reward"), humans)
    assert np.array_equal(simulated.starts, humans.starts)
    links = loop.shorten(site, model, model, site.half(0))
    assert set(links["policies"]) == {"all links", "10 most clicked", "10 nearest", "10 planned"}
    # pages have six links: ten of them are all
    assert links["policies"]["all links"] == links["policies"]["10 planned"]
    result = {
        "games": len(humans.starts),
        "limit": 60,
        "humans_arrived": 1.0,
        "players": {"behaviour cloning": loop.compare(site, humans, simulated)},
        "links": links,
    }
    text = loop_to_markdown(result)
    assert "| clicks to the target, mean |" in text
    assert "| 10 planned |" in text
    draw_loop(result, tmp_path / "loop.svg")
    drawn = (tmp_path / "loop.svg").read_text(encoding="utf-8")
    assert "humans" in drawn
    assert "behaviour cloning" in drawn
    assert "prefers-color-scheme: dark" in drawn
