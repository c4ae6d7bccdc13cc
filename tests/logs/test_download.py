"""Downloads against a server on this machine that can be told to misbehave, and adopting local
copies."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fastgaum.errors import DatasetError, OutputError
from fastgaum.logs import datasets
from fastgaum.logs.datasets import DataFile, Dataset, find_log

CONTENT = bytes(range(256)) * 1200
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """What the server sends, and what it was asked."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.cuts: list[int] = []
        """bytes after which each next answer breaks off; empty: it does not"""
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        moved = {"/moved": f"{self.url}/file", "/to-disk": "file:///etc/hostname"}
        if request.path in moved:
            request.send_response(302)
            request.send_header("Location", moved[request.path])
            request.end_headers()
            return
        if request.path != "/file":
            request.send_error(404)
            return
        body = self.content
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        body = body[: self.cuts.pop(0)] if self.cuts else body
        request.wfile.write(body)

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def entry(server: Server) -> Dataset:
    file = DataFile("sub/mine.bin", SHA, len(CONTENT), f"{server.url}/file")
    return Dataset("mine", "t", "o", "MIT", (file,), "c.md")


def _from(entry: Dataset, **changes: Any) -> Dataset:
    return dataclasses.replace(entry, files=(dataclasses.replace(entry.files[0], **changes),))


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setattr(datasets, "TIMEOUT", 5.0)

    def run(entry: Dataset, **options: Any) -> Path:
        return datasets.fetch(entry, data_dir=tmp_path / "data", **options)

    return run


def _files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data").rglob("*") if path.is_file())


def test_a_good_file(
    server: Server, entry: Dataset, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    path = fetch(entry)
    assert path == tmp_path / "data" / "sub" / "mine.bin"
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == ["mine.bin"]
    assert fetch(entry) == path
    assert len(server.asked) == 1, "what is there with the right hash is not asked for again"
    # a damaged copy is replaced, and what a killed download left is removed
    path.write_bytes(b"old")
    path.with_name(".mine.bin.01234567.part").write_bytes(CONTENT[:99])
    assert fetch(_from(entry, url=f"{server.url}/moved")).read_bytes() == CONTENT
    assert _files(tmp_path) == ["mine.bin"]


@pytest.mark.parametrize(
    ("path", "sent", "cut", "says"),
    [
        ("/file", CONTENT[:-1] + b"x", None, SHA),
        ("/file", CONTENT, 70_000, "run the same command again"),
        ("/gone", CONTENT, None, "404"),
        ("/to-disk", CONTENT, None, "file:"),
    ],
)
def test_what_is_not_the_file_leaves_nothing(
    server: Server,
    entry: Dataset,
    fetch: Callable[..., Path],
    tmp_path: Path,
    path: str,
    sent: bytes,
    cut: int | None,
    says: str,
) -> None:
    server.content, server.cuts = sent, [] if cut is None else [cut]
    with pytest.raises(DatasetError, match=says):
        fetch(_from(entry, url=f"{server.url}{path}"))
    assert len(server.asked) == 1
    server.content = CONTENT * 2
    with pytest.raises(DatasetError, match="sends more than"):
        fetch(entry)
    assert _files(tmp_path) == []


def test_no_address(entry: Dataset, fetch: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match="--from FILE"):
        fetch(_from(entry, url=None))
    assert datasets.fetch("sample") == find_log("sample"), "it is bundled"


def test_adopting_a_file(
    entry: Dataset, fetch: Callable[..., Path], tmp_path: Path, server: Server
) -> None:
    (tmp_path / "copy").write_bytes(CONTENT)
    assert fetch(entry, from_file=tmp_path / "copy").read_bytes() == CONTENT
    path = fetch(entry, from_file=tmp_path / "data" / "sub" / "mine.bin")
    assert path.read_bytes() == CONTENT, "adopting what is in place already leaves it there"
    assert server.asked == []


def test_adopting_a_folder_takes_every_file(
    entry: Dataset, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    other = b"history"
    file = DataFile("sub/other.bin", hashlib.sha256(other).hexdigest(), len(other))
    both = dataclasses.replace(entry, files=(*entry.files, file))
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "mine.bin").write_bytes(CONTENT)
    with pytest.raises(DatasetError, match=r"has no other\.bin"):
        fetch(both, from_file=tmp_path / "from")
    assert not (tmp_path / "data").exists()
    (tmp_path / "from" / "other.bin").write_bytes(other)
    assert fetch(both, from_file=tmp_path / "from").name == "mine.bin"
    assert _files(tmp_path) == ["mine.bin", "other.bin"]


def test_adopting_the_wrong_file(
    entry: Dataset, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "copy").write_bytes(b"something else")
    with pytest.raises(DatasetError, match="sha256") as error:
        fetch(entry, from_file=tmp_path / "copy")
    assert SHA in str(error.value)
    with pytest.raises(DatasetError, match="there is no file"):
        fetch(entry, from_file=tmp_path / "absent")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_made(
    entry: Dataset, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(OutputError, match="choose another data folder"):
        fetch(entry)


def test_who_waited_for_another_finds_its_file(
    entry: Dataset, fetch: Callable[..., Path], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = datasets.name_lock

    @contextmanager
    def late(target: Path) -> Iterator[None]:
        with lock(target):
            target.write_bytes(CONTENT)
            yield

    monkeypatch.setattr(datasets, "name_lock", late)
    assert fetch(entry).read_bytes() == CONTENT
    assert server.asked == []
