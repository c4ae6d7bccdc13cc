"""Learning curves: samples of users, the law through their fits, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.config import Config
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.reports.learning_curve import (
    EXPONENTS,
    MOST_SAMPLES,
    PARTS,
    Forecast,
    SampleFit,
    _least_squares,
    forecast,
    learning_curve,
    sample_of,
    training_users,
)

N_VALIDATION = 200
QUICK = {"players": "exact", "search": [], "epochs": 6}


def fits_of(
    law: tuple[float, float, float], spread: float, seed: int
) -> tuple[list[SampleFit], np.ndarray]:
    """Fits whose NLL follows a law, and their losses on users who differ."""
    rng = np.random.default_rng(seed)
    a, b, c = law
    level = rng.normal(0, 0.3, N_VALIDATION)
    fits, losses = [], []
    for part in PARTS:
        for sample in range(min(part, MOST_SAMPLES)):
            noise = spread * rng.standard_normal() * np.sqrt(part)
            own = a + b * part**c + noise + level
            losses.append(own + rng.normal(0, 0.02, N_VALIDATION))
            nll = float(losses[-1].mean())
            fits.append(SampleFit(part, sample, 10 * 16 // part, 9600 // part, nll, 0.0))
    return fits, np.stack(losses)


def forecast_of(law: tuple[float, float, float], spread: float, seed: int) -> list[Forecast]:
    fits, losses = fits_of(law, spread, seed)
    return list(forecast(fits, losses, np.arange(N_VALIDATION), seed=seed)[1])


@pytest.mark.parametrize("law", [(0.5, 0.4, 0.15), (1.2, 0.01, 1.0)])
def test_what_is_promised_holds_as_often_as_it_says(law: tuple[float, float, float]) -> None:
    a, b, c = law
    held = np.zeros((3, 2))
    for seed in range(20):
        for row, one in enumerate(forecast_of(law, 0.004, seed)):
            n = float(one.times)
            gain = b * (1 - n**-c)
            nll = a + b - gain
            held[row] += one.gain.low <= gain <= one.gain.high, one.nll.low <= nll <= one.nll.high
    assert (held >= 18).all(), held


def test_a_seed_says_all_of_a_forecast() -> None:
    assert forecast_of((1.0, 0.05, 0.5), 0.01, 4) == forecast_of((1.0, 0.05, 0.5), 0.01, 4)


def test_more_events_never_promise_a_worse_law() -> None:
    for seed in range(5):
        means = [one.gain.mean for one in forecast_of((1.0, 0.0, 0.5), 0.01, seed)]
        assert min(means) > -0.002
    # where nothing is learned nothing is promised
    for one in forecast_of((1.0, 0.0, 0.5), 0.0, 1):
        assert one.gain.low <= 0.001
        assert abs(one.gain.mean) < 0.005


def test_a_fit_that_went_wrong_hardly_moves_the_law() -> None:
    fits, losses = fits_of((1.0, 0.05, 0.5), 0.001, 3)
    wrong = [SampleFit(16, 0, 10, 600, 5.0, 0.0), *fits[1:]]
    losses[0] += 5 - losses[0].mean()
    for one in forecast(wrong, losses, np.arange(N_VALIDATION))[1]:
        assert one.gain.low <= 0.05 * (1 - one.times**-0.5) <= one.gain.high


def test_least_squares_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    sizes = 1 / np.array(PARTS)
    errors = rng.uniform(0.5, 2, (6, 5))
    y = 1 + 0.1 * sizes**-0.5 + 0.01 * rng.standard_normal((6, 5))
    a, b, squared = _least_squares(y, sizes, errors)
    for row in range(6):
        for at in (0, 10, 29):
            x = sizes ** -EXPONENTS[at]
            slope, offset = np.polyfit(x, y[row], 1, w=1 / errors[row])
            found = max(slope, 0), offset
            if found[0] > 0 and offset > 0:
                assert (b[row, at], a[row, at]) == pytest.approx(found)
                left = (y[row] - offset - slope * x) / errors[row]
                assert squared[row, at] == pytest.approx((left**2).sum())
    a, b, _ = _least_squares(sizes[None], sizes, np.ones(5))
    assert (b == 0).all()
    assert a == pytest.approx(sizes.mean())
    a, b, _ = _least_squares(sizes[None] ** -1.5, sizes, np.ones(5))
    assert (a >= 0).all()
    assert (a[0, 0], b[0, 29]) == (0, pytest.approx(1))


@pytest.fixture(scope="module")
def whole() -> SessionLog:
    return synthesise(5000, seed=2)[0]


@pytest.fixture(scope="module")
def log(whole: SessionLog) -> SessionLog:
    """A quarter of its training events."""
    users = whole.sessions_in("train")
    few = np.concatenate([users[: len(users) // 4], whole.sessions_in("validation")])
    return slice_sessions(whole, np.sort(few))


def test_samples_are_nested_and_apart(log: SessionLog) -> None:
    ordered = training_users(log)
    training = set(log.session_ids.gather(log.sessions_in("train")))
    validation = log.session_ids.gather(log.sessions_in("validation")).to_list()
    smaller: set[str] = set()
    for part in PARTS:
        samples = []
        for k in range(min(part, MOST_SAMPLES)):
            sample = sample_of(log, ordered, part, k)
            own = sample.session_ids.gather(sample.sessions_in("validation")).to_list()
            assert own == validation
            samples.append(set(sample.session_ids) - set(validation))
            assert len(samples[-1]) == pytest.approx(len(ordered) / part, abs=1)
        assert sum(map(len, samples)) == len(set().union(*samples))
        assert smaller < samples[0]
        smaller = samples[0]
    assert smaller == training


def test_a_curve_falls_and_its_interval_holds_what_four_times_as_many_events_reach(
    whole: SessionLog, log: SessionLog
) -> None:
    config = Config.from_preset("fastgaum", **QUICK)
    curve = learning_curve(log, config, device="cpu")
    told = curve.fits
    assert [one.part for one in told] == [16] * 4 + [8] * 4 + [4] * 4 + [2, 2, 1]
    medians = [np.median([one.nll for one in told if one.part == part]) for part in PARTS]
    assert medians[0] > medians[2] > medians[4]
    assert told[-1].n_events == log.count("events", "train")
    means = [one.nll.mean for one in curve.ahead]
    assert medians[4] > means[0] > means[1] > means[2]
    model = UserModel(curve.config, device="cpu")
    model.fit(whole)
    truth = model.evaluate(whole, "validation").heads["reward"].nll.mean
    promised = curve.ahead[1]
    assert promised.nll.low <= truth <= promised.nll.high
    assert promised.gain.low <= curve.fits[-1].nll - truth <= promised.gain.high


def test_what_is_refused(log: SessionLog) -> None:
    with pytest.raises(ConfigError, match="folds is 5, and a learning curve is of fits on the log"):
        learning_curve(log, Config(folds=5))
    with pytest.raises(LogFormatError, match=r"has \d+ training users, a learning curve needs 160"):
        learning_curve(slice_sessions(log, np.arange(200)), device="cpu")
    with pytest.raises(LogFormatError, match="no validation session"):
        learning_curve(slice_sessions(log, log.sessions_in("train")), device="cpu")
