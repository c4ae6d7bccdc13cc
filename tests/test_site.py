"""The documentation as a site: it builds without a warning, leads nowhere that is not there, and
asks nobody for anything.

The pages are opened in Debian's chromium too; screenshots are kept in artefacts/site.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARTEFACTS = ROOT / "artefacts" / "site"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
LOADED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
"""what a browser fetches without being asked, by tag; <link> by its rel"""
LOADED_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}
IN_CSS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="the site is built by mkdocs-material and mkdocstrings: install fastgaum[docs]",
)


@dataclass
class Page(HTMLParser):
    """What one built page fetches, where it leads, and which places in it can be led to."""

    fetches: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, file: Path) -> Page:
        page = cls()
        page.feed(file.read_text(encoding="utf-8"))
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if values.get("id"):
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
            self.ids.add(values.get("name", ""))
        if tag == "link" and LOADED_LINKS & set(values.get("rel", "").split()):
            self.fetches.append(values["href"])
        for name in LOADED.get(tag, ()):
            if values.get(name):
                self.fetches += (
                    [part.split()[0] for part in values[name].split(",")]
                    if name == "srcset"
                    else [values[name]]
                )
        self.fetches += [found[0] or found[1] for found in IN_CSS.findall(values.get("style", ""))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a network: a warning is an error, unless `--quiet` keeps it from being
    counted."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # neither a proxy nor a name server: a build that wants the network fails here
    nowhere = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "NO_MKDOCS_2_WARNING": "1",
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {str(file.relative_to(site)): Page.of(file) for file in sorted(site.rglob("*.html"))}
    sources = list((ROOT / "docs").rglob("*.md"))
    # a page for each source, and the one for what is not found
    assert len(found) == len(sources) + 1
    return found


def test_the_parser_sees_what_a_browser_would_fetch(tmp_path: Path) -> None:
    """One that saw nothing would let everything pass."""
    (tmp_path / "page.html").write_text(
        '<link rel="shortcut icon" href="a"><link rel="canonical" href="not"><script src="b"></script><img src="c" srcset="d 1x, e 2x">'
        '<div style="background: url(f)" id="here"></div><a href="g#there">'
    )
    page = Page.of(tmp_path / "page.html")
    assert page.fetches == list("abcdef")
    assert page.links == ["g#there"]
    assert "here" in page.ids
    assert IN_CSS.findall('@import "x"; a { src: url( "y") }') == [("", "x"), ("y", "")]


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    fetched = [(name, target) for name, page in pages.items() for target in page.fetches]
    assert len(fetched) > 3 * len(pages)
    for file in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        fetched += [
            (str(file.relative_to(site)), one or other) for one, other in IN_CSS.findall(text)
        ]
    elsewhere = [(name, target) for name, target in fetched if urlsplit(target).netloc]
    assert elsewhere == []


def test_every_link_and_anchor_is_there(site: Path, pages: dict[str, Page]) -> None:
    dead, followed = [], 0
    for name, page in pages.items():
        for link in {*page.links, *page.fetches}:
            parts = urlsplit(link)
            # 404.html is served at any depth, so its links start at the address where the site will
            # lie
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            target = unquote(urljoin(f"/{name}", link.partition("#")[0]) or f"/{name}").lstrip("/")
            target = f"{target}index.html" if target == "" or target.endswith("/") else target
            followed += 1
            if not (site / target).exists():
                dead.append(f"{name} leads to {link}")
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].ids
            ):
                dead.append(f"{name} leads to {link}, which has no such place")
    assert followed > 500
    assert dead == []


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served on this machine."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="drives the browser: install fastgaum[browser]"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # chromium refuses its sandbox to root
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


LOOKED_AT = (
    "",
    "guide/first-table/",
    "guide/policies/",
    "concepts/game/",
    "results/",
    "api/",
    "faq/",
    "design-log/",
)


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_pages_in_a_browser(browser: Any, address: str, size: str, scheme: str) -> None:
    viewport = DESKTOP if size == "desktop" else PHONE
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for where in LOOKED_AT:
        page.goto(address + where, wait_until="load")
        name = where.rstrip("/").replace("/", "-") or "home"
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{name}-{size}-{scheme}.png")
        wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= seen == viewport["width"], where
        broken = (
            "[...document.images].filter(one => !one.complete || one.naturalWidth === 0).map(one "
            "=> one.src)"
        )
        assert page.evaluate(broken) == [], where
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    context.close()


def test_the_figure_is_read_on_a_phone(browser: Any, address: str, site: Path) -> None:
    """Its text is 9 pixels high or more, on a screen of 390."""
    page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
    for where in ("", "results/"):
        page.goto(address + where, wait_until="load")
        source, width = page.evaluate(
            "(image => [image.currentSrc, image.clientWidth])(document.querySelector('picture img'))"
        )
        svg = (site / source.removeprefix(address)).read_text(encoding="utf-8")
        across = float(re.findall(r'viewBox="0 0 ([0-9.]+)', svg)[0])
        sizes = [float(size) for size in re.findall(r"font-size: ([0-9.]+)px", svg)]
        assert min(sizes) * width / across >= 9, where


def test_no_table_is_cut(browser: Any, address: str) -> None:
    """On a desk the last column of every table is seen without scrolling."""
    page = browser.new_context(viewport={"width": 1024, "height": 800}).new_page()
    cut = []
    for where in (
        "results/",
        "resplits/",
        "other-logs/",
        "guide/which-model/",
        "performance/",
        "concepts/relations/",
        "guide/policies/",
        "guide/transfer/",
    ):
        page.goto(address + where, wait_until="load")
        cut += page.evaluate(
            "[...document.querySelectorAll('.md-typeset__scrollwrap')].filter(one => "
            "one.scrollWidth > one.clientWidth + 1).map(one => [location.pathname, "
            "one.textContent.trim().slice(0, 40), one.scrollWidth, one.clientWidth])"
        )
    assert cut == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(browser: Any, address: str, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core: install fastgaum[browser]"
    )
    page = browser.new_context(viewport=DESKTOP, color_scheme=scheme).new_page()
    grave = []
    for where in ("", "faq/", "results/", "guide/policies/"):
        page.goto(address + where, wait_until="load")
        found = axe.Axe().run(page).response
        assert len(found["passes"]) > 20
        grave += [
            (where, one["id"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    assert grave == []


def test_search_finds_without_the_network(browser: Any, address: str) -> None:
    page = browser.new_context(viewport=DESKTOP).new_page()
    page.goto(address, wait_until="networkidle")
    page.locator(".md-search__input").click()
    page.locator(".md-search__input").type("optimality gap")
    page.wait_for_selector(".md-search-result__item a", timeout=10_000)
    found = page.locator(".md-search-result__item a").all_inner_texts()
    assert any("gap" in text.lower() for text in found)
