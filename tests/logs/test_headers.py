"""Files without column names, and files that say what happened row by row: what becomes of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs import headers
from fastgaum.logs.read import read_log
from fastgaum.logs.tables import open_table
from tests.logs.public_files import FILES, ROW_BY_ROW, displays
from tests.logs.test_public_logs import events_of, expected


def test_queries_and_clicks_become_result_lists(tmp_path: Path) -> None:
    """The same lists as in the table of them."""
    path = ROW_BY_ROW["CLARA2"](tmp_path)
    assert events_of(read_log(path)) == expected("CLARA2")
    assert read_log(tmp_path).fingerprint == read_log(path).fingerprint
    table = open_table(path).read(["session", "event", "clicked", "outside"])
    rows = list(displays())
    assert table["event"].to_list() == [row.step for row in rows]
    assert table["clicked"].to_list() == [list(map(str, row.clicks)) for row in rows]
    assert table["outside"].to_list() == [int(row.user % 7 == 0) for row in rows]
    every = {"columns": {"chosen": "all_clicks"}, "clicks": "each"}
    with pytest.raises(LogFormatError, match="chose item '99', which is not among its"):
        read_log(path, **every)
    outside = [row for row in rows if row.user % 7 == 0]
    for rule, n in (("none", 0), ("append", len(outside)), ("drop", 0)):
        log = read_log(path, outside=rule, **every)
        assert log.clicks.outside_clicks == len(outside)
        assert int((log.item_ids.gather(log.items) == "99").sum()) == n


def test_a_click_belongs_to_its_session_s_latest_list(tmp_path: Path) -> None:
    lists = ["\t".join(f"{i}{k}" for i in range(10)) for k in "ab"]
    path = tmp_path / "log.tsv"
    path.write_text(
        f"s\t1\tQ\tq\t0\t{lists[0]}\nt\t2\tQ\tq\t0\t{lists[1]}\ns\t3\tC\t7a\n"
        f"t\t4\tC\t0a\nu\t5\tC\t9b\nt\t6\tC\t9b\nt\t6\tC\t3b\n\n"
    )
    table = open_table(path).read(["session", "chosen", "clicked", "outside"])
    assert table.rows() == [("s", "7a", ["7a"], 0), ("t", "9b", ["9b", "3b"], 1)]


def test_paths_become_pages_and_the_links_followed_there(tmp_path: Path) -> None:
    path = ROW_BY_ROW["Wikispeedia"](tmp_path)
    links: dict[str, set[str]] = {}
    for line in (tmp_path / "links.tsv").read_text().splitlines()[2:]:
        page, link = line.split("\t")
        links.setdefault(page, set()).add(link)
    games = [line.split("\t") for line in path.read_text().splitlines()[3:]]
    found: list[tuple[str, frozenset[str], str | None]] = []
    pages = []
    for game, row in enumerate(games):
        way: list[str] = []
        for page in row[3].split(";"):
            if page != "<":
                if way and page in links[way[-1]]:
                    found.append((str(game), frozenset(links[way[-1]]), page))
                    pages.append((way[-1], row[3].split(";")[-1]))
                way.append(page)
            elif len(way) > 1:
                way.pop()
    log = read_log(path)
    by_number = sorted(events_of(log), key=lambda one: int(one[0]))
    assert by_number == found
    table = open_table(path).read(["page", "target"])
    assert table.rows() == pages
    # one address, two games
    assert (log.n_sessions, len(np.unique(log.users))) == (24, 12)
    assert read_log(tmp_path).fingerprint == log.fingerprint


def test_files_without_column_names_are_read_compressed(tmp_path: Path) -> None:
    """A folder too finds them, and an item table may be one."""
    for name, write in (("MIND", FILES["MIND"]), *ROW_BY_ROW.items()):
        folder = tmp_path / name
        folder.mkdir()
        path = write(folder)
        whole = read_log(path)
        for file in list(folder.iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        packed = path.with_name(f"{path.name}.gz")
        assert read_log(packed).fingerprint == read_log(folder).fingerprint == whole.fingerprint
    news = tmp_path / "MIND" / "news.tsv.gz"
    assert "category" in read_log(tmp_path / "MIND", item_table=news).item_fields
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(LogFormatError, match=f"'{packed.name}' is no readable"):
        read_log(packed)


def test_paths_that_are_refused(tmp_path: Path) -> None:
    path = ROW_BY_ROW["Wikispeedia"](tmp_path)
    (tmp_path / "links.tsv").rename(tmp_path / "other.tsv")
    with pytest.raises(LogFormatError, match=r"links\.tsv which a page has: it is not beside"):
        read_log(path)
    (tmp_path / "links.tsv").write_bytes(b"A page without links\n")
    with pytest.raises(LogFormatError, match=r"'links\.tsv' is no list of links"):
        read_log(path)
    (tmp_path / "other.tsv").rename(tmp_path / "links.tsv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "MOST_SHOWN", 100)
        with pytest.raises(LogFormatError, match=r"show 5.. links, at most 100 are read"):
            read_log(path)
    path.write_text("# unfinished\n\n" + "a1b2c3d4e5f60718\t1300000000\t9\tP1;P2\tP7\ttimeout\n")
    with pytest.raises(LogFormatError, match="games that were given up have other columns"):
        read_log(path)
