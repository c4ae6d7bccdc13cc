"""The documentation as a site: it builds without a warning (a dead link or anchor is one), asks nobody
for anything, and reads well in Debian's chromium; screenshots are kept in artefacts/site."""

from __future__ import annotations

import functools
import http.server
import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARTEFACTS = ROOT / "artefacts" / "site"


# what a browser fetches without being asked: all but <link rel="canonical"> and the like
FETCHED = re.compile(
    r"<(?:script|img|source|iframe|video|audio|embed|use|image|link rel=\W?(?:stylesheet|\w*icon|"
    r"shortcut icon|pre\w+|dns-prefetch|modulepreload|manifest))\b[^>]*?"
    r"\s(?:src|srcset|href|xlink:href|poster)=\W?([^\s\">]+)"
)
IN_CSS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="the site is built by mkdocs-material and mkdocstrings: install fastgaum[docs]",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a network: a warning is an error, unless `--quiet` keeps it from being
    counted."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # neither a proxy nor a name server: a build that wants the network fails here
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    env = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    # a page for each source, and the one for what is not found
    sources = [file for kind in ("md", "ipynb") for file in (ROOT / "docs").rglob(f"*.{kind}")]
    # and what is a page already, the example of a report
    assert len(pages) == len(sources) + 1 + len(list((ROOT / "docs").rglob("*.html")))
    fetched: list[str] = []
    for page in pages:
        fetched += FETCHED.findall(page.read_text(encoding="utf-8"))
    # a pattern that finds nothing would let everything pass
    assert len(fetched) > 3 * len(pages)
    for file in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        fetched += [one or other for one, other in IN_CSS.findall(text)]
    assert [one for one in fetched if re.match(r"(\w+:)?//", one)] == []


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


LOOKED_AT = (
    *("", "guide/quick-start/", "guide/environment/", "concepts/game/", "results/", "api/", "faq/"),
    *(
        "guide/transfer/",
        "learned/",
        "published-numbers/",
        "other-logs/",
        "guide/which-model/",
        "performance/",
    ),
)
PALETTE = {"light": "default", "dark": "slate"}
BROKEN = "[...document.images].filter(o => !o.complete || o.naturalWidth === 0).map(o => o.src)"
LOADED = "[...document.images].every(o => o.complete)"
CUT = (
    "[...document.querySelectorAll('.md-typeset__scrollwrap')].filter(o => o.scrollWidth > "
    "o.clientWidth + 1).map(o => o.textContent.trim().slice(0, 40))"
)

LEAVING = """[...document.querySelectorAll('text')].filter(text => {
  const own = text.getBBox(), middle = own.y + own.height / 2;
  return [...document.querySelectorAll('rect')].map(o => o.getBBox()).some(box =>
    box.x <= own.x && own.x < box.x + box.width && box.y < middle && middle < box.y + box.height
    && own.x + own.width > box.x + box.width);
}).map(text => text.textContent)"""


SCREENS = ((1280, 900, "light"), (390, 740, "dark"))
AUDITED = {"light": ("", "results/"), "dark": ("", "faq/", "guide/environment/")}
"""by palette; colours decide no width, so that other pages have one"""


def test_pages_in_a_browser(browser: Any, address: str, site: Path) -> None:
    """They say nothing, ask nobody else, and are as wide as the screen; but for phones the last column
    of every table is seen without scrolling; the figure's text is 9 pixels high or more; axe-core finds
    nothing serious."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core: install fastgaum[browser]"
    )
    said: list[str] = []
    asked: list[str] = []
    # a browser remembers the palette that it began with
    pages = {one: browser.new_context(color_scheme=one).new_page() for one in PALETTE}
    for page in pages.values():
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    for where, (width, height, palette) in itertools.product(LOOKED_AT, SCREENS):
        name = where.rstrip("/").replace("/", "-") or "home"
        scheme = palette if where in AUDITED["dark"] else "light"
        page = pages[scheme]
        page.set_viewport_size({"width": width, "height": height})
        if page.url != address + where:
            page.goto(address + where, wait_until="load")
        # what the screen before has not shown
        page.wait_for_function(LOADED)
        assert page.locator("body").get_attribute("data-md-color-scheme") == PALETTE[scheme]
        page.screenshot(path=ARTEFACTS / f"{name}-{width}.png")
        wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= seen == width, where
        assert page.evaluate(BROKEN) == [], where
        if width > 390:
            assert page.evaluate(CUT) == [], where
        if where == "results/":
            source, across = page.evaluate(
                "(image => [image.currentSrc, image.clientWidth])(document.querySelector('picture img'))"
            )
            svg = (site / source.removeprefix(address)).read_text(encoding="utf-8")
            drawn = float(re.findall(r'viewBox="0 0 ([0-9.]+)', svg)[0])
            sizes = [float(size) for size in re.findall(r"font-size: ([0-9.]+)px", svg)]
            assert min(sizes) * across / drawn >= 9, where
        if scheme == palette and where in AUDITED[scheme]:
            found = axe.Axe().run(page).response
            assert len(found["passes"]) > 20
            grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in grave] == [], where
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    for page in pages.values():
        page.context.close()


def test_no_text_of_the_drawing_leaves_its_box(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}overview.svg")
    assert page.locator("text").count() > 10
    assert page.evaluate(LEAVING) == []


def test_search_finds_without_the_network(browser: Any, address: str) -> None:
    page = browser.new_context().new_page()
    page.goto(address, wait_until="networkidle")
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").type("optimality gap")
    page.wait_for_selector(".md-search-result__item a", timeout=10_000)
    found = page.locator(".md-search-result__item a").all_inner_texts()
    assert any("gap" in text.lower() for text in found)
