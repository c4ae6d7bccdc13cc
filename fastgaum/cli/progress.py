"""Progress on stderr: live on a terminal; elsewhere a line an epoch, or nothing; never with
--quiet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.text import Text

from fastgaum.cli.output import note, stderr, take_notes
from fastgaum.models.fit_bar import EpochCount
from fastgaum.untrusted import plain

if TYPE_CHECKING:
    from fastgaum.config import Config
    from fastgaum.game.observers import EpochRow


class Bar(Progress):
    """rich's display of one task; called with done, total, figures."""

    def __init__(self, what: str) -> None:
        console = stderr()
        self.shows = console.is_terminal and not console.is_dumb_terminal and not console.quiet
        columns = *Progress.get_default_columns(), TextColumn("{task.fields[figures]}")
        super().__init__(*columns, console=console, transient=True, disable=not self.shows)
        # the text may come from anywhere: what rich or a terminal would obey is spelt out
        self.bar = self.add_task(escape(plain(what)), total=None, figures="")

    def __call__(self, done: float, total: float | None, figures: str = "") -> None:
        """Move on; `figures` says how it goes."""
        self.update(self.bar, completed=done, total=total, figures=figures)

    def line(self, text: str) -> None:
        """Print a line for good, above the live display."""
        if self.shows:
            for one in (*take_notes(), text):
                self.console.print(Text(plain(one)), soft_wrap=True)
        else:
            note(text)


class TrainingProgress(Bar, EpochCount):
    """Shows epochs as they come; an observer of one run."""

    def __init__(self, config: Config, n_settings: int = 0, n_folds: int = 0) -> None:
        EpochCount.__init__(self, config)
        self.n_folds = n_folds
        Bar.__init__(self, f"trying {n_settings} settings" if n_settings > 1 else "reading")

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Count the epochs that a former process did, and say what the losses are."""
        EpochCount.on_fit_begin(self, config, rows)
        if self.n_folds:
            # fits of the further folds are done before
            self.line(
                f"fit {self.n_folds} of {self.n_folds}: validation figures of its epochs are of "
                "the fold of users that it leaves out"
            )
        if not self.shows:
            note(losses_line(config))

    def on_epoch_begin(self, epoch: int) -> None:
        """Name the epoch."""
        for waiting in take_notes():
            self.line(waiting)
        self.update(self.bar, description=f"epoch {epoch}")

    def on_fold_begin(self, fold: int, n_folds: int) -> None:
        """Name the fit."""
        self.line(f"fit {fold} of {n_folds}, each of which leaves out another fold of users")

    def on_batch_end(self, done: int, total: int) -> None:
        """Move on to a share of the epochs that there are at most."""
        self(self.counted + done / total, self.most_epochs, self.figures)

    def on_epoch_end(self, row: EpochRow) -> None:
        """Show an epoch's figures."""
        EpochCount.on_epoch_end(self, row)
        if not self.shows:
            note(epoch_line(row))


def chosen_by(config: Config) -> str:
    """The validation score that chooses the epoch, in words."""
    return config.select.replace("loss", "validation loss")


def losses_line(config: Config) -> str:
    """What the losses of `epoch_line` are."""
    line = f"epochs: loss is the reward's in training; the least {chosen_by(config)} is kept"
    if config.players == "adversarial":
        line += "; in rounds loss is the game's value, on another scale, and may be below 0"
    return line


def epoch_line(row: EpochRow) -> str:
    """One epoch as a line."""
    parts = [
        f"epoch {row.epoch:>3} {row.phase:<9}",
        "loss      -" if math.isnan(row.loss) else f"loss {row.loss:.4f}",
        f"val loss {row.val_loss:.4f}",
        f"val prec@1 {row.val_prec1:.1f}",
    ]
    if not math.isnan(row.val_generator_prec1):
        parts += [f"generator {row.val_generator_prec1:.1f}", f"gap {row.gap:.4f}"]
    parts.append(f"{row.events_per_second:,.0f} events/s")
    return " · ".join(parts) + (" · best" if row.best else "")


def kernel_cache() -> Path | None:
    """The folder of compiled kernels, if there can be one."""
    from fastgaum.kernels import choice

    stats = getattr(choice.choice_probs, "stats", None)
    return Path(stats.cache_path) if stats is not None and stats.cache_path else None


def note_compiling() -> None:
    """Say that kernels will be compiled, if none is at hand."""
    cache = kernel_cache()
    if cache is not None and not any(cache.glob("*.nbc")):
        note("compiling kernels, once on this machine: a minute, longer on a busy one")


@contextmanager
def noting_compilation() -> Iterator[None]:
    """Say so when a first kernel is about to be compiled: a refused input is one line alone."""
    from numba.core import event

    class Compiling(event.Listener):
        told = False

        def on_start(self, _: object) -> None:
            if not self.told:
                self.told = True
                note_compiling()

        def on_end(self, _: object) -> None:
            """Say nothing."""

    with event.install_listener("numba:compile", Compiling()):
        yield
