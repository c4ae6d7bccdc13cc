"""A log's learning curve: the validation NLL of fits on samples of its training users, and what
more events would gain.

The curve is a power law with an offset, NLL(n) = a + b·n^−c (Hestness et al., "Deep learning
scaling is predictable, empirically", 2017; Rosenfeld et al., "A constructive prediction of the
generalization error across scales", ICLR 2020). The median over the samples of each size is fitted
by weighted least squares, for each exponent of a grid. An interval holds 95 % of draws, each of
which

- draws the validation users anew, with replacement;
- leaves out none, one or two of the smallest sizes, where a curve may not yet follow its law;
- draws the exponent by its likelihood, and noise of the fits by their spread between samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastgaum.arrays import Float64Array, FloatArray, IntArray, LongArray
from fastgaum.config import Config
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.game.checkpoint import TriedSetting
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.hashes import sampling_numbers
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.intervals import Interval, draw_users
from fastgaum.metrics.precision import sums_by_user
from fastgaum.models.fit_checks import require_validation
from fastgaum.models.folds import member_config
from fastgaum.models.user_model import UserModel
from fastgaum.reports.table import Block, TableColumn, table_of

PARTS = (16, 8, 4, 2, 1)
"""a sample is one user in so many"""
MOST_SAMPLES = 4
"""of a size, no two of which share a user"""
FEWEST_USERS = 160
"""of training: ten in the smallest sample"""
AHEAD = (2, 4, 10)
"""times as many events as there are"""
EXPONENTS = np.linspace(0.05, 1.5, 30)
MOST_LEFT_OUT = 2
"""of the smallest sizes, which a draw may leave out"""
DRAWS = 2000
LEAST_SPREAD = 1e-6
"""of the NLL of equal fits"""


@dataclass(frozen=True)
class SampleFit:
    """The fit on a sample of the training users."""

    part: int
    """one user in so many"""
    sample: int
    """of its size, from 0"""
    n_users: int
    n_events: int
    nll: float
    """of the validation users, who are the same for all fits"""
    seconds: float

    def __str__(self) -> str:
        share = "all" if self.part == 1 else f"sample {self.sample + 1} of 1/{self.part}"
        return (
            f"{share} of the training users: {self.n_events:,} events, validation NLL "
            f"{self.nll:.4f} ({self.seconds:.1f} s)"
        )


@dataclass(frozen=True)
class Forecast:
    """What a fit on so many times as many events is expected to reach."""

    times: int
    nll: Interval
    gain: Interval
    """how much lower its NLL is than that of a fit on all training events of today"""


@dataclass(frozen=True)
class LearningCurve:
    """Fits on samples, the curve through them, and what lies ahead."""

    setting: str
    """that all fits have, by its name in `presets.PORTFOLIO`"""
    config: Config
    """its values"""
    fits: tuple[SampleFit, ...]
    law: tuple[float, float, float]
    """a, b and c of NLL = a + b·(n/N)^−c, N being all training events"""
    ahead: tuple[Forecast, ...]

    def __str__(self) -> str:
        said = [
            f"{one.times} times as many {one.gain.mean:.4f} ± "
            f"{(one.gain.high - one.gain.low) / 2:.4f}"
            for one in self.ahead
        ]
        return f"expected gain of NLL by more events, 95 %: {', '.join(said)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "setting": self.setting,
            "fits": [asdict(one) for one in self.fits],
            "law": dict(zip("abc", self.law, strict=True)),
            "ahead": [
                {"times": one.times, "nll": one.nll.to_dict(), "gain": one.gain.to_dict()}
                for one in self.ahead
            ],
        }


def learning_curve(
    log: SessionLog,
    config: Config | None = None,
    *,
    device: str = "auto",
    on_fit: Callable[[SampleFit, int, int], None] | None = None,
) -> LearningCurve:
    """Fit on 1/16, 1/8, 1/4, 1/2 and all of the training users of a log's own split, and say what
    2, 4 and 10 times as many events would gain.

    Args:
        log: with a validation split, whose users stay the same.
        config: `fastgaum` if not given; what it leaves open is chosen once, on half of the users.
        device: as of `UserModel`.
        on_fit: is told each fit, how many are done, and how many there are.

    Raises:
        LogFormatError: the log has fewer than 160 training users, or no validation.
        ConfigError: `config` asks for folds, which would train on validation users.
    """
    asked = Config() if config is None else config
    if asked.folds not in ("auto", 0):
        raise ConfigError(
            f"folds is {asked.folds}, and a learning curve is of fits on the log's own split, "
            "whose validation users train nothing: leave it out"
        )
    require_validation(log)
    ordered = training_users(log)
    if len(ordered) < FEWEST_USERS:
        raise LogFormatError(
            f"log '{log.name}' has {len(ordered)} training users, a learning curve needs "
            f"{FEWEST_USERS}, ten in its smallest sample: give a larger log"
        )
    setting, chosen = _choose(sample_of(log, ordered, 2, 0), asked.replace(folds=0), device)
    runs = [(part, k) for part in PARTS for k in range(min(part, MOST_SAMPLES))]
    fits, losses = list[SampleFit](), list[Float64Array]()
    for part, k in runs:
        started, sample = time.perf_counter(), sample_of(log, ordered, part, k)
        model = UserModel(member_config(chosen, k), device=device)
        model.fit(sample)
        found = model.evaluate(sample, "validation")
        losses.append(found.heads["reward"].nll_per_event)
        n_users, seconds = _end(ordered, part, k + 1) - _end(ordered, part, k), time.perf_counter()
        nll, n_events = found.heads["reward"].nll.mean, sample.count("events", "train")
        fits.append(SampleFit(part, k, n_users, n_events, nll, seconds - started))
        if on_fit is not None:
            on_fit(fits[-1], len(fits), len(runs))
    law, ahead = forecast(fits, np.stack(losses), found.users, found.weights, seed=asked.seed)
    return LearningCurve(setting, chosen, tuple(fits), law, ahead)


def curve_block(curve: LearningCurve, name: str) -> Block:
    """The curve as a table: a row for each size, and for each forecast."""
    n_events = curve.fits[-1].n_events
    rows = list[dict[str, Any]]()
    for part in PARTS:
        own = [one for one in curve.fits if one.part == part]
        users = f"1/{part}, median of {len(own)}" if part > 1 else "all"
        events = round(np.mean([one.n_events for one in own]))
        rows.append({"users": users, "events": events, "nll": np.median([one.nll for one in own])})
    for one in curve.ahead:
        row = {"users": f"{one.times} times as many", "events": one.times * n_events}
        for figure, found in (("nll", one.nll), ("gain", one.gain)):
            row |= {figure: found.mean, f"{figure}_ci": [found.low, found.high]}
        rows.append(row)
    columns = [
        TableColumn("training users", "users"),
        TableColumn("events", "events", 0),
        TableColumn("validation NLL", "nll", 4, ends="brackets"),
        TableColumn("gain", "gain", 4, ends="brackets"),
    ]
    note = f"setting of all fits: {curve.setting}; in brackets intervals of 95 %"
    return table_of(f"{name}: learning curve", columns, rows, [note])


def training_users(log: SessionLog) -> IntArray:
    """The training users in the order of their permanent random numbers, shape (n_users,)."""
    rows = log.sessions_in("train")
    users, first = np.unique(log.users[rows], return_index=True)
    return users[np.argsort(sampling_numbers(log.user_hashes[rows[first]]), kind="stable")]


def _end(ordered: IntArray, part: int, k: int) -> int:
    return k * len(ordered) // part


def sample_of(log: SessionLog, ordered: IntArray, part: int, k: int) -> SessionLog:
    """The k-th sample of one in `part` of the training users, which `ordered` holds, and the whole
    validation split; the first one of a size holds that of the next smaller size."""
    users = ordered[_end(ordered, part, k) : _end(ordered, part, k + 1)]
    training = log.sessions_in("train")
    rows = training[np.isin(log.users[training], users)]
    return slice_sessions(log, np.sort(np.concatenate([rows, log.sessions_in("validation")])))


def _choose(log: SessionLog, asked: Config, device: str) -> tuple[str, Config]:
    """Name and values of the setting that a fit chooses for a log."""
    model = UserModel(asked, device=device)
    settings = model.settings_for(log)
    if len(settings) > 1:
        model.fit(log)
        name = min(model.trials, key=TriedSetting.rank).name
    else:
        (name,) = settings
    return name, settings[name]


def forecast(
    fits: Sequence[SampleFit],
    losses: Float64Array,
    users: IntArray,
    weights: FloatArray | None = None,
    *,
    seed: int = 0,
) -> tuple[tuple[float, float, float], tuple[Forecast, ...]]:
    """The law through the fits, and what it says of AHEAD times as many events; losses: NLL of each
    fit on each validation event, shape (n_fits, n_events); users: of the events; weights: of the
    events, or None."""
    part = np.array([one.part for one in fits])
    sizes = np.array([np.mean([one.n_events for one in fits if one.part == p]) for p in PARTS])
    sizes /= sizes[-1]
    nll = np.array([one.nll for one in fits])
    spread, degrees = _spread(nll, part, sizes)
    n_samples = np.array([(part == p).sum() for p in PARTS])
    # the variance of a median of four is a fifth larger than that of their mean
    errors = spread * np.sqrt(np.where(n_samples > 2, 1.2, 1.0) / (sizes * n_samples))
    a, b, squared = _least_squares(_medians(nll[None], part), sizes, errors)
    best = squared.argmin()
    law = float(a[0, best]), float(b[0, best]), float(EXPONENTS[best])

    rng = np.random.default_rng(seed)
    # so few fits say their spread with Student's t
    scale = np.sqrt(degrees / rng.chisquare(degrees, DRAWS))
    drawn = _medians(_drawn_means(losses, users, weights, seed), part)
    a, b, c = _drawn_laws(drawn, sizes, errors * scale[:, None], rng)

    def fit_on(times: int) -> Float64Array:
        noise = spread * scale * rng.standard_normal(DRAWS) / np.sqrt(times)
        return np.asarray(a + b * float(times) ** -c + noise)

    today, ahead = fit_on(1), []
    for times in AHEAD:
        then = fit_on(times)
        ends = (_interval(one, users) for one in (then, today - then))
        ahead.append(Forecast(times, *ends))
    return law, tuple(ahead)


def _spread(nll: Float64Array, part: LongArray, sizes: Float64Array) -> tuple[float, int]:
    """Standard deviation of the NLL of a fit on all events between samples, which falls with the
    root of their number, pooled over the sizes; and its degrees of freedom."""
    summed, degrees = 0.0, 0
    for p, size in zip(PARTS, sizes, strict=True):
        own = nll[part == p]
        summed += float(size * ((own - own.mean()) ** 2).sum())
        degrees += len(own) - 1
    return max(float(np.sqrt(summed / degrees)), LEAST_SPREAD), degrees


def _medians(of_fits: Float64Array, part: LongArray) -> Float64Array:
    """The median over the samples of each size, (n, n_fits) → (n, n_sizes)."""
    return np.stack([np.median(of_fits[:, part == p], axis=1) for p in PARTS], axis=1)


def _drawn_means(
    losses: Float64Array, users: IntArray, weights: FloatArray | None, seed: int
) -> Float64Array:
    """The NLL of each fit on users who are drawn anew, (DRAWS, n_fits)."""
    pairs = [sums_by_user(row, users, weights) for row in losses]
    table = np.stack([*(sums for sums, _ in pairs), pairs[0][1]], axis=1)
    totals = np.concatenate([drawn @ table for drawn in draw_users(len(table), DRAWS, seed)])
    return np.asarray(totals[:, :-1] / totals[:, -1:])


def _drawn_laws(
    y: Float64Array, sizes: Float64Array, errors: Float64Array, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """a, b and c of a law for each row of y, (DRAWS,) each; y and errors: (DRAWS, n_sizes)."""
    left_out = rng.integers(0, MOST_LEFT_OUT + 1, DRAWS)
    errors = np.where(np.arange(len(sizes)) < left_out[:, None], np.inf, errors)
    squared = _least_squares(y, sizes, errors)[2]
    likelihood = np.exp((squared.min(axis=1, keepdims=True) - squared) / 2).cumsum(axis=1)
    which = (likelihood < rng.random((DRAWS, 1)) * likelihood[:, -1:]).sum(axis=1)
    noise = np.where(np.isfinite(errors), errors, 0.0) * rng.standard_normal(y.shape)
    a, b, _ = _least_squares(y + noise, sizes, errors)
    rows = np.arange(DRAWS)
    return a[rows, which], b[rows, which], EXPONENTS[which]


def _least_squares(
    y: Float64Array, sizes: Float64Array, errors: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """a ≥ 0 and b ≥ 0 of y = a + b·size^−c and the sum of squared errors for each exponent c, each
    (n, n_exponents); y (n, n_sizes); errors: standard error of each, infinite for one that is left
    out."""
    x, y = sizes ** -EXPONENTS[:, None], y[:, None]
    w = (1 / np.broadcast_to(errors, (len(y), len(sizes))) ** 2)[:, None]
    total = w.sum(axis=-1)
    mean_x, mean_y = (w * x).sum(axis=-1) / total, (w * y).sum(axis=-1) / total
    from_mean = x - mean_x[..., None]
    b = np.maximum((w * from_mean * y).sum(axis=-1) / (w * from_mean**2).sum(axis=-1), 0)
    through_zero = (w * x * y).sum(axis=-1) / (w * x**2).sum(axis=-1)
    b = np.where(b * mean_x > mean_y, through_zero, b)
    a = np.maximum(mean_y - b * mean_x, 0)
    squared = (w * (y - a[..., None] - b[..., None] * x) ** 2).sum(axis=-1)
    return a, b, squared


def _interval(draws: Float64Array, users: IntArray) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return Interval(float(draws.mean()), low, high, len(users), len(np.unique(users)))
