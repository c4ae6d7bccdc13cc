"""The live display: it must fit a terminal of 80 columns and say rate, time left, gap and
prec@1."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from fastgaum.cli.progress import PartsProgress, TrainingProgress, Waiting, clock, epoch_line
from fastgaum.config import Config
from fastgaum.game.epochs import EpochRow

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


def test_progress_says_rate_and_time_left_on_a_terminal(terminal: io.StringIO) -> None:
    with PartsProgress("scoring", "events") as progress:
        for done in (1000, 2000, 3000):
            progress(done, 4000, "well")
            time.sleep(0.02)
    shown = terminal.getvalue()
    for what in ("scoring", "3000/4000", "events", "/s", "0:00:0", "well"):
        assert what in shown
    assert "…" not in shown


def test_stages_and_waiting_name_what_is_going_on(terminal: io.StringIO) -> None:
    with PartsProgress("converting", "") as progress:
        progress.stage("rows read", 10, None)
        progress.stage("shards written", 1, 2)
    with Waiting("reading [clicks].csv"):
        pass
    for what in ("rows read", "shards written", "1/2", "reading [clicks].csv"):
        assert what in terminal.getvalue()


def test_no_live_display_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PartsProgress("scoring") as events, Waiting("reading"):
        events(1, 2)
    assert capsys.readouterr() == ("", "")
    clock = iter([0.0, 0.5, 2.0, 2.1, 9.0])
    monkeypatch.setattr("fastgaum.cli.progress.time.perf_counter", lambda: next(clock))
    with PartsProgress("training", "runs", lines=True) as parts:
        for done in (10, 20, 21, 100):
            parts(done, 100)
    # not within the first second, and once a tenth
    assert capsys.readouterr().err == "training: 20 of 100 runs\ntraining: 100 of 100 runs\n"
