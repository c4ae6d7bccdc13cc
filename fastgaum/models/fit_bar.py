"""How far a fit is, on a terminal or in a notebook, by rich; nothing in pipes and files."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastgaum.errors import ConfigError, as_given
from fastgaum.game.observers import EpochRow, Observer

if TYPE_CHECKING:
    from rich.console import Console

    from fastgaum.config import Config

UNCOUNTED = ("start", "generator")
"""phases whose rows are no epochs"""

_shows = True


def show_bars(shown: bool) -> None:
    """Whether fits that are not asked show how far they are: the command line has its own."""
    global _shows
    _shows = shown


class EpochCount(Observer):
    """Counts the epochs of a fit, of the most that there can be."""

    def __init__(self, config: Config) -> None:
        warm_start = 0 if config.players == "exact" else config.warm_start
        self.most_epochs, self.counted, self.figures = config.epochs + warm_start, 0, ""

    def on_fit_begin(self, config: Config, rows: Sequence[EpochRow]) -> None:
        """Count the epochs that a former process did."""
        self.counted = sum(row.phase not in UNCOUNTED for row in rows)

    def on_epoch_end(self, row: EpochRow) -> None:
        """Count the epoch."""
        self.counted += row.phase not in UNCOUNTED
        self.figures = f"prec@1 {row.val_prec1:.1f}"


class FitBar(EpochCount):
    """A bar of the epochs of a fit, which leaves nothing when it ends."""

    def __init__(self, config: Config, n_settings: int, console: Console) -> None:
        from rich.progress import Progress, TextColumn

        super().__init__(config)
        columns = *Progress.get_default_columns(), TextColumn("{task.fields[figures]}")
        self.live = Progress(*columns, console=console, transient=True)
        what = f"comparing {n_settings} settings" if n_settings > 1 else "reading"
        self.bar = self.live.add_task(what, total=None, figures="")

    def on_fold_begin(self, fold: int, n_folds: int) -> None:
        """Name the fit."""
        self.live.update(self.bar, description=f"fit {fold} of {n_folds}")

    def on_epoch_begin(self, epoch: int) -> None:
        """Name the epoch."""
        self.live.update(self.bar, description=f"epoch {epoch}")

    def on_batch_end(self, done: int, total: int) -> None:
        """Move on to a share of the epochs that there are at most."""
        at = self.counted + done / total
        self.live.update(self.bar, completed=at, total=self.most_epochs, figures=self.figures)


@contextmanager
def bar_of_fit(progress: bool | None, config: Config, n_settings: int) -> Iterator[list[Observer]]:
    """The observers that show a fit: one if `progress` is true, or None on a terminal or in a
    notebook. Raises ConfigError for another value."""
    if progress is not None and not isinstance(progress, bool):
        raise ConfigError(f"progress is {as_given(progress)}, True, False or None is required")
    wanted = progress
    if wanted is None:
        wanted = _shows and multiprocessing.parent_process() is None
    if not wanted:
        yield []
        return
    from rich.console import Console

    console = Console(stderr=True)
    if progress is None and (console.is_dumb_terminal or not console.is_interactive):
        yield []
        return
    bar = FitBar(config, n_settings, console)
    with bar.live:
        yield [bar]
