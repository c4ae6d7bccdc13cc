"""The live display: it must fit a terminal of 80 columns and say rate, time left, gap and
prec@1."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastgaum.cli.progress import TrainingProgress, clock, epoch_line
from fastgaum.config import Config
from fastgaum.game.loop import EpochRow

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
        progress.on_batch(1, 2)
        progress.on_epoch(ROW)
        progress.on_batch(1, 2)
    shown = terminal.getvalue()
    for what in ("epoch 13", "prec@1 64.2", "gap 0.0123", "28.4k events/s", "left"):
        assert what in shown
    assert "…" not in shown


def test_line_of_an_epoch_without_generator() -> None:
    exact = EpochRow(1, "exact", 1.0, 0.9, 60.0, float("nan"), 0.0, 0.0, 100.0, best=False)
    assert "gap" not in epoch_line(exact)
    assert "best" not in epoch_line(exact)
    assert epoch_line(ROW).endswith("gap 0.0123 · 28,400 events/s · best")


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 60, 3600)] == ["0:00", "0:59", "1:00", "60:00"]
