"""What stands between a stranger's text and a terminal, a page, the disk or the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.output import STDOUT, note, say, show_block, show_table, write_json, write_text
from fastgaum.errors import DatasetError
from fastgaum.logs.datasets import _Redirects
from fastgaum.reports.table import Block, block_to_markdown
from fastgaum.row_files import one_line
from fastgaum.untrusted import parse_json, parse_toml, plain, read_text, shown

HOSTILE = "a\x1b[31m|\u202e`b`[bold]c[/bold]\nd<script>[x](http://y)\x07\r\x9b2J"


def test_terminals_obey_nothing_that_came_from_data(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    note(HOSTILE)
    show_table([HOSTILE, "x"], [[HOSTILE, HOSTILE]], title=HOSTILE)
    show_block(Block(HOSTILE, (HOSTILE,), ((HOSTILE,),), (HOSTILE,)))
    write_text(STDOUT, HOSTILE)
    write_json(STDOUT, {"name": HOSTILE})
    out, err = capsys.readouterr()
    assert parse_json(out[out.rindex("{") :]) == {"name": HOSTILE}
    assert all(one.isprintable() or one == "\n" for one in out + err)
    assert "[bold]c[/bold]" in out
    assert r"\x1b[31m" in out


def test_markdown_shows_names_letter_by_letter() -> None:
    text = block_to_markdown(
        Block(HOSTILE, (HOSTILE, "y"), ((HOSTILE, "1"),), (HOSTILE,), frozenset({(0, 0)}))
    )
    lines = text.splitlines()
    assert len(lines) == len(
        block_to_markdown(Block("a", ("a", "y"), (("a", "1"),), ("a",))).splitlines()
    )
    assert "<script" not in text
    assert "](" not in text
    assert lines[4].replace("\\|", "").count("|") == 3
    assert lines[4].replace("\\`", "").count("`") == 0


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_json, one) for one in ("[" * 200_000, '{"a":' * 200_000, "{", "1" * 5000, "NaN,")),
        *((parse_toml, f"a = {one}") for one in ("[" * 200_000, "1" * 5000, "[1")),
        *((parse_toml, one) for one in ("a.b = 1\na = 2", "\x00", "[a]\n[a]")),
    ],
)
def test_a_text_is_a_value_or_a_value_error(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_texts_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"x" * 11)
    assert read_text(tmp_path / "t", 11) == "x" * 11
    with pytest.raises(ValueError, match="longer than the 10 bytes"):
        read_text(tmp_path / "t", 10)


def test_messages_are_one_line_of_bounded_length() -> None:
    panic = pl.exceptions.PanicException("called `Result::unwrap()`: internal error: num_bits 68")
    assert one_line(panic) == "polars fails on its contents"
    assert one_line(OSError("cut short\nat 12")) == "cut short"
    assert shown("a\nb\x1b") == r"a b\x1b"
    assert len(shown("x" * 10**6)) < 2_100
    assert plain("é – 漢字 😀") == "é – 漢字 😀"


def test_a_redirect_does_not_leave_encryption() -> None:
    import urllib.request

    request = urllib.request.Request("https://example.org/yelp.txt")
    with pytest.raises(DatasetError, match="not encrypted"):
        _Redirects().redirect_request(
            request, None, 302, "Found", {}, "http://example.org/yelp.txt"
        )
