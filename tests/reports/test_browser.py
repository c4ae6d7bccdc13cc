"""The page in a real browser: Debian's chromium, headless, through Playwright. Screenshots are kept
in artefacts/report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="charts: install fastgaum[plots]")

ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts" / "report"
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
SCREENS = {390: "dark", 1280: "light"}
"""widths at which every page is looked at; colours decide no width, so that each has one palette"""
OPEN_DETAILS = "for (const one of document.querySelectorAll('details')) one.open = true"


@dataclass
class Opened:
    """A page in the browser, and all that it said or asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def files(html: str, compared: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {"one": html, "two": compared}
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def opened(browser: Any, file: Path, **options: Any) -> Opened:
    page = browser.new_context(**{"viewport": DESKTOP, **options}).new_page()
    result = Opened(page)
    page.on("console", lambda message: result.said.append(message.text))
    page.on("pageerror", lambda error: result.said.append(str(error)))
    page.on("dialog", lambda dialog: result.said.append(dialog.message))
    page.on("request", lambda request: result.asked.append(request.url))
    page.goto(file.as_uri())
    return result


def keep(page: Any, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


@pytest.mark.parametrize("name", ["one", "two"])
def test_opens_from_disk_in_silence(browser: Any, files: dict[str, Path], name: str) -> None:
    seen = opened(browser, files[name])
    assert seen.asked == [files[name].as_uri()]
    assert seen.said == []
    assert seen.page.title().endswith("FastGAUM report")
    boxes = [chart.bounding_box() for chart in seen.page.locator("figure img").all()]
    assert len(boxes) >= 9
    assert min(box["width"] for box in boxes) > 200
    assert min(box["height"] for box in boxes) > 80
    # an address that is no picture has no size of its own
    widths = seen.page.evaluate(
        "[...document.querySelectorAll('figure img')].map(one => one.naturalWidth)"
    )
    assert min(widths) > 150
    keep(seen.page, f"{name}-desktop")


def test_tables_sort_by_mouse_and_by_key(browser: Any, files: dict[str, Path]) -> None:
    page = opened(browser, files["one"]).page
    table = page.locator("table.sortable").first
    heading = table.locator("thead th").nth(1)

    def column() -> list[float]:
        return [
            float(cell.get_attribute("data-value"))
            for cell in table.locator("tbody td:nth-child(2)").all()
        ]

    before = column()
    assert len(before) >= 5
    assert heading.get_attribute("aria-sort") is None
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column() == sorted(before) != before
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column() == sorted(before, reverse=True)
    last = table.locator("thead th").last
    last.locator("button").click()
    assert heading.get_attribute("aria-sort") is None
    # floors have no likelihood: what has no figure stays last, whichever way
    nll = [cell.get_attribute("data-value") for cell in table.locator("tbody td:last-child").all()]
    assert nll[0] != ""
    assert nll[-1] == ""


def test_reads_without_its_script(browser: Any, files: dict[str, Path]) -> None:
    page = opened(browser, files["one"], java_script_enabled=False).page
    assert page.locator("thead button").count() == 0
    assert page.locator("table").first.is_visible()
    assert page.locator("figure img").first.is_visible()


SCROLLED = """[...document.querySelectorAll('.card, .scroll')].filter(one =>
  one.scrollWidth > one.clientWidth + 1 && !one.closest('details:not([open])')
).map(one => [one.textContent.trim().slice(0, 60), one.scrollWidth, one.clientWidth])"""
CUT = """[...document.querySelectorAll('body, body *')].filter(one => {
  const style = getComputedStyle(one);
  return one.scrollWidth > one.clientWidth + 1 && style.display != 'inline' && one.clientWidth > 0
    && !['auto', 'scroll'].includes(style.overflowX);
}).map(one => one.outerHTML.slice(0, 80))"""
LETTERS = "[...document.querySelectorAll('figure img')].map(one => one.width / one.naturalWidth)"
WIDTHS = "(e => [e.scrollWidth, e.clientWidth])(document.documentElement)"
SMALLEST = """Math.min(...[...document.querySelectorAll('p, td, th, dd')].map(e =>
  parseFloat(getComputedStyle(e).fontSize)))"""
HEIGHTS = """[...document.querySelectorAll('.grid')].map(grid =>
  [...grid.querySelectorAll(':scope > figure img')].map(one => one.naturalHeight))"""


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize(("width", "scheme"), SCREENS.items())
def test_nothing_is_cut_off(
    browser: Any, files: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    """The page is as wide as the screen, also one of 360 pixels, no column is beyond its box, no text
    beyond its own or below 12 pixels; letters of all charts have one size, and charts of a row one
    height."""
    viewport = {"width": width, "height": 900}
    page = opened(browser, files[name], viewport=viewport, color_scheme=scheme).page
    keep(page, f"{name}-{width}-{scheme}")
    assert page.evaluate(SCROLLED) == []
    page.evaluate(OPEN_DETAILS)
    # on a phone the long tables that are folded scroll in their boxes
    assert page.evaluate(SCROLLED) == [] or width == min(SCREENS)
    assert page.evaluate(WIDTHS) == [width, width]
    assert page.evaluate(CUT) == []
    assert 0.9 < min(letters := page.evaluate(LETTERS)) <= max(letters) == 1
    assert all(max(row) - min(row) <= 1 for row in page.evaluate(HEIGHTS) if row)
    assert page.evaluate(SMALLEST) >= 12
    if width == min(SCREENS):
        page.set_viewport_size(PHONE)
        keep(page, f"{name}-phone")
        assert page.evaluate(WIDTHS) == [PHONE["width"]] * 2


def brightness(page: Any) -> float:
    return float(
        page.evaluate(
            "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).slice(0, "
            "3).reduce((a, b) => a + +b, 0)"
        )
    ) / (3 * 255)


def test_dark_and_print(browser: Any, files: dict[str, Path]) -> None:
    assert brightness(opened(browser, files["one"]).page) > 0.9
    page = opened(browser, files["one"], color_scheme="dark").page
    assert brightness(page) < 0.1
    keep(page, "one-dark")
    page.emulate_media(media="print")
    assert brightness(page) == 1.0
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
    (ARTEFACTS / "one.pdf").write_bytes(pdf)


@pytest.mark.parametrize(
    ("name", "scheme", "viewport"), [("one", "light", DESKTOP), ("two", "dark", PHONE)]
)
def test_is_accessible(
    browser: Any, files: dict[str, Path], name: str, scheme: str, viewport: dict[str, int]
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core: install fastgaum[browser]"
    )
    page = opened(browser, files[name], color_scheme=scheme, viewport=viewport).page
    page.evaluate(OPEN_DETAILS)
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 20
    grave = [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert grave == []
