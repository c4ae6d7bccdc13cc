"""The live display: it must fit a terminal of 80 columns and say time left and prec@1."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastgaum.cli.progress import Bar, TrainingProgress
from fastgaum.config import Config
from fastgaum.game.observers import EpochRow

ROW = EpochRow(
    epoch=12,
    phase="rounds",
    loss=0.5,
    val_loss=0.9,
    val_prec1=64.25,
    val_generator_prec1=63.0,
    gap=0.0123,
    val_gap=0.02,
    events_per_second=28_400.0,
    best=True,
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where a terminal of 80 columns would show its text."""
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr("fastgaum.cli.progress.stderr", lambda: console)
    return screen


def test_live_display_fits_and_says_all(terminal: io.StringIO) -> None:
    with TrainingProgress(Config(epochs=60, warm_start=40)) as progress:
        progress.on_epoch_begin(12)
        progress.on_batch_end(1, 2)
        progress.on_epoch_end(ROW)
        progress.on_epoch_begin(13)
        progress.on_batch_end(1, 2)
    shown = terminal.getvalue()
    for what in ("epoch 13", "prec@1 64.2", "2%", "0:0"):
        assert what in shown
    assert "…" not in shown


def test_waiting_names_what_is_going_on(terminal: io.StringIO) -> None:
    with Bar("reading [clicks].csv"):
        pass
    assert "reading [clicks].csv" in terminal.getvalue()


def test_no_live_display_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("scoring") as events, Bar("reading"):
        events(1, 2)
    assert capsys.readouterr() == ("", "")
