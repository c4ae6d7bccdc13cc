"""What shows how far a command is, on stderr: live on a terminal; elsewhere few plain lines, or
nothing; never with --quiet."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fastgaum.cli.output import note, stderr
from fastgaum.game.epochs import Observer
from fastgaum.untrusted import plain

if TYPE_CHECKING:
    from fastgaum.config import Config
    from fastgaum.game.epochs import EpochRow


class Bar(Progress):
    """rich's display with one line; a context manager. Nothing is shown elsewhere than on a
    terminal."""

    def __init__(self, what: str, *columns: ProgressColumn) -> None:
        """Take the bar's text and the columns beside it.

        Args:
            what: the text, which may come from anywhere: what a terminal obeys is spelt out.
            columns: rich's, from left to right.
        """
        console = stderr()
        self.shows = console.is_terminal and not console.is_dumb_terminal and not console.quiet
        named = TextColumn("{task.description}", markup=False)
        super().__init__(named, *columns, console=console, transient=True, disable=not self.shows)
        self.bar = self.add_task(plain(what), total=None, figures="")

    def move(self, **changes: Any) -> None:
        """Change what is shown: `completed`, `total`, `description`, `figures`."""
        self.update(self.bar, **changes)


class Waiting(Bar):
    """Shows what is going on, and for how long, where it cannot be said how much is left."""

    def __init__(self, what: str) -> None:
        super().__init__(what, BarColumn(10), TimeElapsedColumn())


class PartsProgress(Bar):
    """Shows parts done, rate, time left and a figure; called with done, total, figures.

    With `lines`, elsewhere than on a terminal, it prints one line per tenth once a second is over.
    """

    def __init__(self, name: str, unit: str = "events", *, lines: bool = False) -> None:
        columns = BarColumn(20), MofNCompleteColumn(), TextColumn(unit), _Rate()
        super().__init__(name, *columns, TimeRemainingColumn(), _figures())
        self.name, self.unit, self.lines = name, unit, lines
        self.started, self.printed = time.perf_counter(), 0

    def __call__(self, done: int, total: int | None, figures: str = "") -> None:
        """Move on; `figures` says how it goes. Before the first call a terminal shows that
        something is going on."""
        self.move(completed=done, total=total, figures=figures)
        if self.shows or not self.lines or not total:
            return
        if time.perf_counter() - self.started > 1 and done * 10 // total > self.printed:
            self.printed = done * 10 // total
            note(f"{self.name}: {done} of {total} {self.unit}{figures and ' · '}{figures}")

    def stage(self, what: str, done: int, total: int | None) -> None:
        """Move on in one of several stages; a new one begins a new clock."""
        if what != self.name:
            self.name = what
            self.reset(self.bar, description=plain(what), figures="")
        self.move(completed=done, total=total)

    def line(self, text: str) -> None:
        """Print a line for good, above the live display."""
        if self.shows:
            self.console.print(Text(plain(text)), soft_wrap=True)
        else:
            note(text)


class TrainingProgress(Bar, Observer):
    """Shows epochs as they come; an observer of one run."""

    def __init__(self, config: Config, n_settings: int = 0) -> None:
        """Take the run's configuration, which bounds the number of epochs, and how many settings
        are compared before."""
        self.most_epochs = most_epochs(config)
        self.started = time.perf_counter()
        self.rows = self.counted = 0
        self.epoch = 1
        self.drawn = 0.0
        reading = f"trying {n_settings} settings" if n_settings else "reading"
        super().__init__(reading, BarColumn(10), _figures())

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Count the epochs that a former process did."""
        self.counted = sum(map(_is_counted, rows))

    def on_epoch_begin(self, epoch: int) -> None:
        """Say which epoch is running."""
        self.epoch = epoch

    def on_bootstrap(self, number: int, n_bootstraps: int) -> None:
        """Say which world is fitted; the run's own comes last."""
        what = f"bootstrap {number} of {n_bootstraps}"
        self.move(description=what, completed=0, total=None)
        if not self.shows:
            note(what)

    def on_batch_end(self, done: int, total: int) -> None:
        """Move the bar of the running epoch, at most ten times a second: a step may take less time
        than drawing it."""
        now = time.perf_counter()
        if now - self.drawn > 0.1 or done == total:
            self.drawn = now
            self.move(description=f"epoch {self.epoch}", completed=done, total=total)

    def on_epoch_end(self, row: EpochRow) -> None:
        """Show an epoch's figures."""
        self.rows += 1
        self.counted += _is_counted(row)
        if not self.shows:
            note(epoch_line(row))
            return
        spent = time.perf_counter() - self.started
        left = spent / self.rows * max(self.most_epochs - self.counted, 0)
        figures = f"{live_figures(row)} · up to {clock(left)} left"
        self.move(description=f"epoch {row.epoch + 1}", figures=figures, completed=0)


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


def _figures() -> TextColumn:
    return TextColumn("{task.fields[figures]}", markup=False)


def _is_counted(row: EpochRow) -> bool:
    return row.phase not in ("start", "generator")


def most_epochs(config: Config) -> int:
    """How many epochs a run may take at most, the generator's catching up aside; early stop usually
    ends it before."""
    if config.players == "exact":
        return config.epochs
    return config.warm_start + config.epochs


# -- compiling


def kernel_cache() -> Path | None:
    """The folder of compiled kernels; None where there can be none, or where kernels run as plain
    Python."""
    from fastgaum.kernels import choice

    stats = getattr(choice.choice_probs, "stats", None)
    return Path(stats.cache_path) if stats is not None and stats.cache_path else None


def note_compiling() -> None:
    """Say that kernels will be compiled, if none is at hand: nothing else moves for as long as that
    takes."""
    cache = kernel_cache()
    if cache is not None and not any(cache.glob("*.nbc")):
        note("compiling kernels, once on this machine: half a minute, longer on a busy one")


@contextmanager
def noting_compilation() -> Iterator[None]:
    """Say the same, but when a first kernel is about to be compiled in this process: a refused
    input is one line alone."""
    try:
        from fastgaum.kernels import _cache
    except ImportError:  # numba's own cache is used then, as kernels/_jit.py says
        yield
        return
    _cache.before_compiling = note_compiling
    try:
        yield
    finally:
        _cache.before_compiling = None
