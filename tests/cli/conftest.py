"""A small log in several forms, and a run trained on it: made once for all tests of the command
line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from tests.cli.good_files import Seeds, made_store, made_trained, sample_frame
from tests.cli.rl_runs import made_run


@pytest.fixture(autouse=True)
def _warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that a test starts, as they are in its own."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    """300 events with a price per candidate and a query per event."""
    return sample_frame()


@pytest.fixture(scope="session")
def log_file(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "world.parquet"
    frame.write_parquet(path)
    return path


@pytest.fixture(scope="session")
def trained(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder. Tests copy it before they damage it."""
    return made_trained(log_file, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[[list[str]], str]:
    """Run a command that must fail with exit code 2, one line on stderr, no traceback, and nothing
    written."""

    def run(argv: list[str]) -> str:
        before = tree(tmp_path)
        capsys.readouterr()
        code = main(argv)
        out, err = capsys.readouterr()
        assert code == 2, (out, err)
        assert tree(tmp_path) == before
        assert err.startswith("fastgaum: error: ")
        assert err.count("\n") == 1, err
        assert out == ""
        return err

    return run


def tree(folder: Path) -> dict[str, bytes | int]:
    """Every file below a folder and what it holds, or how much if that is gigabytes; folders hold
    nothing."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> bytes | int:
    if not path.is_file():
        return b""
    size = path.stat().st_size
    return path.read_bytes() if size < 1 << 26 else size


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A log, a run on it, a run on other users."""
    folder = tmp_path_factory.mktemp("rl")
    log, run = made_run(folder, 0)
    return log, run, made_run(folder, 1)[1]


@pytest.fixture(scope="session")
def saved(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved log. Tests copy it before they damage it."""
    return made_store(log_file, tmp_path_factory.mktemp("saved") / "store")


@pytest.fixture
def seeds(frame: pl.DataFrame, log_file: Path, trained: Path, saved: Path, tmp_path: Path) -> Seeds:
    """Good files, and an empty folder."""
    return Seeds(frame, log_file, trained, saved, tmp_path)
