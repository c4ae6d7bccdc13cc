"""Which settings of `presets.PORTFOLIO` suit a log: successive halving (Jamieson and Talwalkar,
"Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016).

With folds of users a rung is one more fold: every setting is fitted on the first, the best third on
the second too, and so on. Settings are compared on the same folds, by the mean loss of the users
that a fit left out. Without folds there is one rung, of short fits on the log's own split. How many
settings of the portfolio are compared, from its first on, is what the budget pays for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fastgaum.config import Config
from fastgaum.features.relations import mean_display
from fastgaum.game.checkpoint import TriedSetting
from fastgaum.logs.log import SessionLog
from fastgaum.logs.store import StoredLog
from fastgaum.presets import (
    FOLDS_BELOW,
    LARGE_DISPLAYS,
    MANY_BATCH_EVENTS,
    PORTFOLIO,
    LogSetting,
)

SHARE_LEFT, FEWEST_LEFT, LAST_RUNG = 3, 2, 3
"""one setting in so many goes on to the next rung, two at least until they have seen so many folds,
after which the better one is taken"""
SHORT_VISITS, FEWEST_EPOCHS = 1_000_000, 6
"""training candidates times epochs of a short fit at most, and its epochs at least"""
WHOLE_EPOCHS = 20
"""epochs of a whole fit without folds, with which a budget reckons"""
FEW_BUDGET, MANY_BUDGET = 3.0, 1.0
"""the budget `auto` below FOLDS_BELOW training events, and from there on"""
STEPS = 64
"""of an epoch, from which on batches grow with the log, up to MANY_BATCH_EVENTS: small ones learn
more from few events, and the same from many, in more time"""

LossOf = Callable[[str, int, int | None], float]
"""the loss of a setting, by name, of the fit without a fold, with so many epochs at most"""


def short_epochs(n_candidates: int) -> int:
    """Epochs of a short fit on so many training candidates."""
    return min(max(SHORT_VISITS // max(n_candidates, 1), FEWEST_EPOCHS), WHOLE_EPOCHS)


def budget_of(asked: Config, log: SessionLog | StoredLog) -> float:
    """What comparing settings may cost on a log, in whole fits."""
    if asked.budget != "auto":
        return asked.budget
    return FEW_BUDGET if log.count("events", "train") < FOLDS_BELOW else MANY_BUDGET


@dataclass(frozen=True)
class Halving:
    """The rungs of a comparison."""

    names: tuple[str, ...]
    """the settings, of which the first wins among equals"""
    folds: int
    """0: none"""
    epochs: int
    """of a fit without folds"""

    def cost(self) -> float:
        """What the comparison costs, in whole fits: all folds, or WHOLE_EPOCHS."""
        alive, cost = len(self.names), 0.0
        if alive < 2:
            return cost
        if not self.folds:
            return alive * self.epochs / WHOLE_EPOCHS
        for _ in range(min(self.folds, LAST_RUNG)):
            cost += alive / self.folds
            alive = self._left(alive)
        return cost

    def within(self, budget: float) -> Halving:
        """The comparison of so many settings, from the first on, as a budget pays for."""
        fewer = self
        while fewer.cost() > budget:
            fewer = replace(fewer, names=fewer.names[:-1])
        return fewer

    def run(self, loss_of: LossOf) -> list[TriedSetting]:
        """Compare the settings."""
        alive, rung = list(self.names), 0
        fits: dict[str, list[TriedSetting]] = {name: [] for name in self.names}
        while True:
            for name in alive:
                started = time.perf_counter()
                loss = loss_of(name, rung, None if self.folds else self.epochs)
                fits[name].append(TriedSetting(name, loss, time.perf_counter() - started, rung))
            rung += 1
            if rung == min(max(self.folds, 1), LAST_RUNG) or len(alive) == 1:
                return [_joined(fits[name]) for name in self.names]
            best = sorted(alive, key=lambda name: _joined(fits[name]).rank())
            best = best[: self._left(len(alive))]
            alive = [name for name in self.names if name in best]

    def _left(self, n: int) -> int:
        return max(-(-n // SHARE_LEFT), min(FEWEST_LEFT, n))


def _joined(fits: Sequence[TriedSetting]) -> TriedSetting:
    """A setting by its fits, one of each rung."""
    losses = [one.val_loss for one in fits]
    # a setting that diverged on any fold has diverged
    loss = max(losses) if max(losses) == sys.float_info.max else fmean(losses)
    seconds = sum(one.seconds for one in fits)
    return TriedSetting(fits[-1].name, loss, seconds, fits[-1].rung, losses)


def settings_of(
    asked: Config, log: SessionLog | StoredLog, portfolio: Mapping[str, LogSetting] | None = None
) -> dict[str, Config]:
    """The settings of a portfolio, `presets.PORTFOLIO` without another, that a log and a
    configuration leave open, by name; the configuration itself where nothing is to choose."""
    n_sessions, n_events = log.count("sessions", "train"), log.count("events", "train")
    n_candidates = log.count("candidates", "train")
    part = log.first if isinstance(log, StoredLog) else log
    has_numbers = any(one.texts is None for one in part.columns_of("item", "candidate").values())
    display = mean_display(part)
    is_large = display > LARGE_DISPLAYS
    found: dict[str, Config] = {}
    for name, setting in (portfolio or PORTFOLIO).items():
        if not asked.search or not setting.suits(n_events, n_candidates):
            continue
        values = {key: value for key, value in setting.values.items() if key in asked.search}
        if not log.ordered:
            values.pop("examination", None)
        if not has_numbers:
            values.pop("tastes", None)
        if asked.protocol == "identity":
            values.pop("counts", None)
        if is_large and "relations" in asked.search:
            if values.get("relations"):
                continue
            values["relations"] = False
            name += f" (displays of {display:,.0f}: no relations)"
        if "batch_sessions" in asked.search and n_events:
            least = min(n_events // STEPS, MANY_BATCH_EVENTS)
            events = max(setting.batch_events, least)
            values["batch_sessions"] = max(1, round(events * n_sessions / n_events))
        config = asked.replace(**values)
        if config not in found.values():
            found[name] = config
    return {
        name: config.replace(search=()) for name, config in (found or {"as it is": asked}).items()
    }
