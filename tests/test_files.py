"""Files are read whole, also where they are replaced meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgaum.files import atomic, read_whole


def put(path: Path, text: str) -> None:
    with atomic(path) as beside:
        beside.write_text(text)


def test_a_file_replaced_between_two_opens_is_read_again(tmp_path: Path) -> None:
    file, reads = tmp_path / "file", []
    put(file, "aa")

    def read() -> str:
        first = file.read_text()[0]
        reads.append(first)
        if len(reads) == 1:
            put(file, "bb")
        second = file.read_text()[1]
        if (len(reads), first) == (2, "b"):
            put(file, "cc")
            raise ValueError("damaged")
        return first + second

    assert read_whole(file, read) == "cc"
    assert reads == ["a", "b", "c"]


def test_what_is_wrong_with_a_file_that_stays_is_raised(tmp_path: Path) -> None:
    put(tmp_path / "file", "aa")

    def read() -> str:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        read_whole(tmp_path / "file", read)
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "absent", (tmp_path / "absent").read_text)
