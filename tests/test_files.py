"""Files are read whole, also where they are replaced meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastgaum.errors import ConfigError, OutputError
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


def test_a_link_stays_and_the_file_that_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for target in (tmp_path / "models" / "user", Path("models/new")):
        link = tmp_path / f"{target.name}-link"
        link.symlink_to(target)
        put(link, "aa")
        put(link, "bb")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "bb"
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"user", "new"}


def test_what_is_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    """A device is one; a pipe needs no rights to be made."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("pipe")
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(OutputError, match=f"{name}': it is a.*give the name of a file"):
            put(tmp_path / name, "aa")
    with pytest.raises(OutputError, match="it is a device"):
        put(Path("/dev/null"), "aa")
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("path", ["a\0b", "a" * 245])
def test_a_file_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError), atomic(tmp_path / path):
        pytest.fail("nothing is written")
    assert list(tmp_path.iterdir()) == []
