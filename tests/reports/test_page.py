"""The page as text: nothing from data becomes markup, nothing is asked of the network, everything
is told apart."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, OutputError
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import NO_CLICK, VALIDATION
from fastgaum.logs.read import read_log
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.reports import plots as drawing
from fastgaum.reports.charts import _by_epoch
from fastgaum.reports.facts import report_facts
from fastgaum.reports.page import standings, to_html, write_report
from fastgaum.reports.published_figures import best_published, published_models
from fastgaum.reports.trained_run import open_run
from tests.reports.workshop import HOSTILE, QUICK, Workshop

pytest.importorskip("matplotlib", reason="charts: install fastgaum[plots]")

MOST_BYTES = 3_000_000


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.headings: list[int] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("style", "script"):
            self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def test_names_from_data_stay_text(html: str, workshop: Workshop) -> None:
    page = Page(html)
    assert page.tags["script"] == page.tags["style"] == page.tags["title"] == 1
    assert page.tags["img"] == page.tags["figure"]
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    text = "".join(page.text)
    assert "<i>first" in text
    assert "<b>log</b>" in text
    learned = workshop.facts["runs"][0]["learned"]
    listed = {row["item"] for row in learned["largest"] + learned["smallest"]}
    assert set(HOSTILE) <= listed
    for name in HOSTILE:
        assert name in text


@pytest.mark.parametrize("name", ["html", "compared"])
def test_asks_the_network_for_nothing(name: str, request: pytest.FixtureRequest) -> None:
    text: str = request.getfixturevalue(name)
    page = Page(text)
    assert len(text.encode()) < MOST_BYTES
    links = page.values("href")
    assert len(links) >= 9
    assert [link for link in links if not link.startswith("#") and link != "data:,"] == []
    assert not {"srcset", "action", "data", "poster", "xlink:href"} & {
        name for _, name, _ in page.attributes
    }
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.values("src"))
    assert not re.search(r"@import|url\((?!#)", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", ["html", "compared"])
def test_ids_headings_and_charts(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name))
    ids = Counter(page.values("id"))
    assert {key for key, n in ids.items() if n > 1} == set()
    references = {link[1:] for link in page.values("href") if link.startswith("#")} | set(
        page.values("aria-labelledby")
    )
    assert references <= set(ids)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(page.headings))
    charts = [value for tag, key, value in page.attributes if (tag, key) == ("img", "alt")]
    assert len(charts) == page.tags["img"] == page.tags["figure"] >= 9
    assert len(set(charts)) > 5
    assert all(charts)


def test_colours_are_the_page_s_own(html: str) -> None:
    assert 'style="' not in html
    light, dark, _ = palettes_of(html)
    assert {role: (light[role], dark[role]) for role in drawing.COLOURS} == drawing.COLOURS
    drawn = [base64.b64decode(address.partition(",")[2]) for address in Page(html).values("src")]
    for svg in drawn:
        head, _, rest = svg.decode().partition("</style>")
        assert "prefers-color-scheme: dark" in head
        assert set(re.findall(r"#[0-9a-f]{6}\b", rest)) <= set(light.values())


def tick_labels(svg: str, axis: str) -> list[str]:
    found = re.findall(rf'<g id="{axis}tick_\d+">.*?<text[^>]*>([^<]*)</text>', svg, re.DOTALL)
    return [label for label in found if label.strip()]


@pytest.mark.parametrize("name", ["html", "compared"])
def test_every_axis_has_labels(name: str, request: pytest.FixtureRequest) -> None:
    for address in Page(request.getfixturevalue(name)).values("src"):
        svg = base64.b64decode(address.partition(",")[2]).decode()
        assert min(len(tick_labels(svg, axis)) for axis in "xy") >= 2


def test_losses_and_gaps_fill_their_axes() -> None:
    """The game's value, far below the losses, does not stretch their axis; a gap that moves within a
    decade has labels."""
    rows = [
        ("exact", 0.9, 0.0),
        ("exact", 0.8, 0.0),
        ("rounds", -80.0, 0.021),
        ("rounds", -90.0, 0.028),
    ]
    epochs = [
        {"epoch": i, "phase": phase, "loss": loss, "val_loss": 0.85, "gap": gap, "val_gap": gap}
        for i, (phase, loss, gap) in enumerate(rows, 1)
    ]
    with drawing.new_figure((3, 2)) as figure:
        panel = figure.subplots()
        _by_epoch(epochs, 2, "loss").fill(panel)
        assert panel.get_ylim()[0] > 0.7
    with drawing.new_figure((3, 2)) as figure:
        _by_epoch(epochs, 2, "gap").fill(figure.subplots())
        assert len(tick_labels(drawing.svg_of(figure), "y")) >= 2


def palettes_of(html: str) -> list[dict[str, str]]:
    """Colours by role: light, dark and print."""
    return [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    ]


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_stand_out_in_light_dark_and_print(html: str) -> None:
    """axe does not see the colours of charts: text needs a contrast of 4.5, marks need 3."""
    palettes = palettes_of(html)
    assert len(palettes) == 3

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for palette in palettes:
        for ground in ("card", "page", "soft", "note"):
            assert min(contrast(palette[text], palette[ground]) for text in ("ink", "muted")) >= 4.5
        assert (
            min(
                contrast(palette[mark], palette["card"])
                for mark in ("reward", "generator", "published", "floor", "accent")
            )
            >= 3
        )


def test_the_two_runs_stand_side_by_side(compared: str, html: str) -> None:
    text = "".join(Page(compared).text)
    assert "Paired differences" in text
    assert "Settings that differ" in text
    assert compared.count('class="runs pair"') == html.count('class="runs"') == 6
    assert "No click is not offered" not in text
    assert "None: with exact players" in text


@pytest.mark.usefixtures("undrawn")
def test_a_page_of_folds_says_whose_figures_these_are(
    workshop: Workshop, html: str, tmp_path: Path
) -> None:
    """Of a run by folds, and of no other."""
    model = UserModel.from_preset("fastgaum", **{**QUICK, "folds": 3})
    train_run(model, workshop.log, tmp_path / "run")
    run = open_run(tmp_path / "run")
    of_folds = [
        to_html(report_facts([run], [workshop.log], split=split))
        for split in ("validation", "train")
    ]
    for page, has_folds in ((html, False), *((one, True) for one in of_folds)):
        text = " ".join("".join(Page(page).text).split())
        assert ("A run by folds" in text or "a run by folds" in text) == has_folds
        assert ("of the fold of users that this fit left out, the first of 3" in text) == has_folds
        assert ("chosen by validation" in text) != has_folds


@pytest.mark.usefixtures("undrawn")
def test_test_figures_are_named_as_such(workshop: Workshop, html: str) -> None:
    facts = report_facts([open_run(workshop.runs[1])], [workshop.log], split="test")
    assert "These are <strong>test</strong> figures" in to_html(facts)
    assert "These are <strong>validation</strong> figures" in html
    assert "No model was scored on the test split" in html
    assert any(
        finding["test_prec_at_1"] is not None for finding in facts["logs"][0]["audit"]["findings"]
    )


@pytest.mark.usefixtures("undrawn")
def test_choice_models_of_others_stand_beside_ours(workshop: Workshop) -> None:
    facts = copy.deepcopy(workshop.facts)
    others = published_models("lpmc")
    facts["logs"][0] |= {"published_best": best_published("lpmc"), "published_models": others}
    row = next(row for row in standings(facts, 0) if row["label"] == "published: XGBoost")
    assert (row["prec"]["1"]["mean"], row["nll"]["mean"]) == (74.72, 0.6568)
    page = to_html(facts)
    assert page.count(f"Published: {others[0]['source']}.") == 1
    assert page.count('class="key published"') == len(others)
    assert "published models read items" not in page


@pytest.mark.usefixtures("undrawn")
def test_letters_stay_and_what_a_terminal_obeys_is_spelt_out(workshop: Workshop) -> None:
    facts = copy.deepcopy(workshop.facts)
    facts["runs"][0]["reading"] = {"candidate_field": ["größe", "цена"]}
    facts["runs"][0]["machine"]["processor"] = "a\x1b[31mb\u202ec\x85"
    page = to_html(facts)
    for text in ("größe", "цена", "a\\x1b[31mb\\x202ec\\x85"):
        assert text in "".join(Page(page).text)
    assert [one for one in page if not one.isprintable() and one not in "\n\u202f\u00a0"] == []


def test_written_whole_or_not_at_all(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    facts = write_report([workshop.runs[1]], [workshop.log], out)
    assert facts["runs"][0]["name"] == "second"
    assert out.read_text(encoding="utf-8").endswith("</html>")
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(OutputError, match="cannot write"):
        write_report([workshop.runs[1]], [workshop.log], out / "below")
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[plots\]' in the clone"):
        write_report([workshop.runs[1]], [workshop.log], out)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("case", ["nobody clicks", "one item is displayed"])
def test_a_split_that_ranks_nothing(workshop: Workshop, tmp_path: Path, case: str) -> None:
    log = workshop.log
    session = log.session_of_event
    if case == "nobody clicks":
        choices = np.where(log.split[session] == VALIDATION, NO_CLICK, log.choices).astype(np.int32)
        log = dataclasses.replace(log, choices=choices)
    else:
        frame = to_frame(log).filter(
            (pl.col("split") != "validation")
            | (pl.int_range(pl.len()).over("session", "event") == 0)
        )
        frame.write_parquet(tmp_path / "log.parquet")
        log = read_log(tmp_path / "log.parquet")
    train_run(
        UserModel.from_preset("fastgaum", **{**QUICK, "players": "exact", "epochs": 1}),
        log,
        tmp_path / "run",
    )
    facts = write_report([tmp_path / "run"], [log], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (facts["runs"][0]["learned"]["n_candidates"] == 0) == (case == "one item is displayed")
    assert ("there is nothing to rank" in text) == (case == "nobody clicks")
    assert not re.search(
        r"\b(nan|None|inf)\b", "".join(Page(text).text).replace("None: with exact", "")
    )
