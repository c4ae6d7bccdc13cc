"""What shows how far a command is, on stderr: live on a terminal; elsewhere few plain lines, or
nothing; never with --quiet."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from fastgaum.cli.console import note, stderr
from fastgaum.untrusted import plain

if TYPE_CHECKING:
    from fastgaum.config import Config
    from fastgaum.game.observers import EpochRow


Trace = TracebackType | None


def most_epochs(config: Config) -> int:
    """How many epochs a run may take at most, the generator's catching up aside; early stop usually
    ends it before."""
    if config.players == "exact":
        return config.epochs
    return config.warm_start + config.epochs


class TrainingProgress:
    """Shows epochs as they come; a context manager, and the observer of one run."""

    def __init__(self, config: Config) -> None:
        """Take the run's configuration: it bounds the number of epochs."""
        self.most_epochs = most_epochs(config)
        self.started = time.perf_counter()
        self.rows = self.counted = self.done_before = 0
        self.drawn = 0.0
        self.begun = False
        self.reading = f"trying {config.n_searched} settings" if config.search else "reading"
        self.console = stderr()
        self.live = _live(self.console) if _shows(self.console) else None
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
        if self.live is not None:
            self.live.start()
            self.task = self.live.add_task(self.reading, total=None, figures="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Trace
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def on_resume(self, rows: Sequence[EpochRow]) -> None:
        """Count the epochs that a former process did."""
        self.done_before = len(rows)
        self.counted = sum(row.phase != "generator" for row in rows)

    def on_batch(self, done: int, total: int) -> None:
        """Move the bar of the running epoch, at most ten times a second: a step may take less time
        than drawing it."""
        now = time.perf_counter()
        if (
            self.live is not None
            and self.task is not None
            and (now - self.drawn > 0.1 or done == total)
        ):
            self.drawn = now
            if not self.begun:
                self.begun = True
                self.live.update(self.task, description=f"epoch {self.done_before + self.rows + 1}")
            self.live.update(self.task, completed=done, total=total)

    def on_epoch(self, row: EpochRow) -> None:
        """Show an epoch's figures."""
        self.rows += 1
        self.counted += row.phase != "generator"
        if self.live is None or self.task is None:
            note(epoch_line(row))
            return
        spent = time.perf_counter() - self.started
        left = spent / self.rows * max(self.most_epochs - self.counted, 0)
        figures = f"{live_figures(row)} · up to {clock(left)} left"
        self.live.update(
            self.task, description=f"epoch {row.epoch + 1}", figures=figures, completed=0
        )


class DownloadProgress:
    """Shows a download on a terminal, and nothing elsewhere; a context manager, called with bytes
    done and expected."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.console = stderr()
        self.live = _download_bar(self.console) if _shows(self.console) else None
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Trace
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """Move the bar; the first call shows it, so that a file that is there already shows
        none."""
        if self.live is None:
            return
        if self.task is None:
            self.live.start()
            self.task = self.live.add_task(plain(self.name))
        self.live.update(self.task, completed=done, total=total)


class PartsProgress:
    """Shows parts done, rate, time left and a figure on a terminal; a context manager, called with
    done, total, figures.

    Elsewhere it prints one line per tenth once a second is over, or nothing where `lines` is off.
    """

    def __init__(self, name: str, unit: str, *, lines: bool = True) -> None:
        self.name, self.unit, self.lines = name, unit, lines
        self.console = stderr()
        self.live = _parts_bar(self.console, unit) if _shows(self.console) else None
        self.task: TaskID | None = None
        self.started, self.printed = time.perf_counter(), 0

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
            self.task = self.live.add_task(plain(self.name), total=None, figures="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Trace
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, done: int, total: int | None, figures: str = "") -> None:
        """Move on; `figures` says how it goes. Before the first call a terminal shows that
        something is going on."""
        if self.live is not None and self.task is not None:
            self.live.update(self.task, completed=done, total=total, figures=figures)
        elif (
            self.lines
            and total
            and time.perf_counter() - self.started > 1
            and done * 10 // total > self.printed
        ):
            self.printed = done * 10 // total
            note(f"{self.name}: {done} of {total} {self.unit}{figures and ' · '}{figures}")

    def line(self, text: str) -> None:
        """Print a line for good, above the live display."""
        if self.live is not None:
            self.live.console.print(Text(plain(text)), soft_wrap=True)
        else:
            note(text)


class EventProgress(PartsProgress):
    """Parts that are events, on a terminal only."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "events", lines=False)


class StageProgress(PartsProgress):
    """One bar after the other: called with what is being done, how much of it is done, and how much
    there is."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "", lines=False)

    def stage(self, what: str, done: int, total: int | None) -> None:
        """Move on; a new stage begins a new clock."""
        if self.live is not None and self.task is not None:
            if what != self.name:
                self.name = what
                self.live.reset(self.task, description=plain(what), figures="")
            self(done, total)


class Waiting:
    """Shows what is going on, and for how long, where nobody can say how much is left; on a
    terminal, a context manager."""

    def __init__(self, what: str) -> None:
        console = stderr()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TimeElapsedColumn(),
        )
        self.live = Progress(*columns, console=console, transient=True) if _shows(console) else None
        self.what = what

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
            self.live.add_task(plain(self.what), total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: Trace
    ) -> None:
        if self.live is not None:
            self.live.stop()


class _Rate(TextColumn):
    """Parts per second, or seconds per part where they are slow."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """The mean since the last reset."""
        speed = task.finished_speed or task.speed
        return Text("" if not speed else rate(speed), style="progress.data.speed")


def epoch_line(row: EpochRow) -> str:
    """One epoch as a line: rate, losses, validation prec@1, gap where there is a generator to have
    one."""
    has_generator = not math.isnan(row.val_generator_prec1)
    generator = (
        [f"generator {row.val_generator_prec1:.1f}", f"gap {row.gap:.4f}"] if has_generator else []
    )
    parts = [
        f"epoch {row.epoch:>3} {row.phase:<9}",
        "loss      -" if math.isnan(row.loss) else f"loss {row.loss:.4f}",
        f"val loss {row.val_loss:.4f}",
        f"val prec@1 {row.val_prec1:.1f}",
        *generator,
        f"{row.events_per_second:,.0f} events/s",
    ]
    if row.skipped:
        parts.append(f"{row.skipped} batches skipped ({row.at_fault})")
    return " · ".join(parts) + (" · best" if row.best else "")


def live_figures(row: EpochRow) -> str:
    """One epoch's figures in some 50 characters: beside a bar, a terminal of 80 columns has room
    for no more."""
    gap = "" if math.isnan(row.val_generator_prec1) else f" · gap {row.gap:.4f}"
    skipped = f" · {row.skipped} skipped" if row.skipped else ""
    return (
        f"prec@1 {row.val_prec1:.1f}{gap} · {row.events_per_second / 1000:.1f}k events/s{skipped}"
    )


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(61.2)
    '1:01'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def rate(per_second: float) -> str:
    """Parts per second in few characters.

    >>> rate(12_300.0), rate(2.5), rate(0.25)
    ('12.3k/s', '2.5/s', '4.0 s each')
    """
    if per_second < 1:
        return f"{1 / per_second:.1f} s each"
    return f"{per_second / 1000:.1f}k/s" if per_second >= 1000 else f"{per_second:.1f}/s"


def _download_bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _parts_bar(console: Console, unit: str) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Rate(),
    )
    figures = TextColumn("{task.fields[figures]}", markup=False)
    return Progress(*columns, TimeRemainingColumn(), figures, console=console, transient=True)


def _live(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        transient=True,
    )


def _shows(console: Console) -> bool:
    """Whether a live display makes sense: on a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet
