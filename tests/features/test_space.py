"""Bags: the numbers equal a slow twin; no choice of an event's own user reaches its bag."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.logs.log import SessionLog
from tests.builders import (
    columns_of,
    factor_of_counts,
    log_of,
    random_log,
    sessions_that_speak,
    with_vectors,
)


def _events(log: SessionLog, session: int) -> list[tuple[list[int], int]]:
    starts = log.display_offsets
    return [
        (log.items[starts[event] : starts[event + 1]].tolist(), int(log.choices[event]))
        for event in range(log.session_offsets[session], log.session_offsets[session + 1])
    ]


def _naive_numbers(log: SessionLog, session: int) -> list[list[float]]:
    """The slow twin: counts by walking the sessions that come before in the order."""
    others = sessions_that_speak(log, session)
    train = [s for s in range(log.n_sessions) if log.split[s] == 0]
    total = [event for s in train for event in _events(log, s)]
    prior = sum(choice >= 0 for _, choice in total) / sum(len(items) for items, _ in total)
    rows = []
    factor = factor_of_counts(log, session)
    before: list[tuple[list[int], int]] = []
    for number, (items, choice) in enumerate(_events(log, session)):
        for item in items:
            seen = [event for s in others for event in _events(log, s) if item in event[0]]
            displays = len(seen)
            choices = sum(c >= 0 and shown[c] == item for shown, c in seen)
            expected = sum(1 / len(shown) for shown, _ in seen)
            displays, choices = round(displays * factor), round(choices * factor)
            expected *= factor
            rows.append(
                [
                    np.log1p(sum(item in shown for shown, _ in before)),
                    np.log1p(sum(c >= 0 and shown[c] == item for shown, c in before)),
                    np.log1p(displays),
                    np.log1p(choices),
                    (choices + 2 * prior) / (displays + 2),
                    np.log((choices + 0.5) / (expected + 0.5)),
                    float(displays == 0),
                    float(choices == 0),
                    np.log(len(items)),
                    np.log1p(number),
                ]
            )
        before.append((items, choice))
    return rows


@pytest.mark.parametrize("shared_users", [False, True])
@pytest.mark.parametrize("no_click", [0.0, 0.3])
def test_numbers_equal_the_slow_twin(shared_users: bool, no_click: float) -> None:
    log = random_log(3, n_sessions=24, no_click=no_click, shared_users=shared_users)
    space = fit_space(log, "bags", relative_numbers=False)
    encoded = Encoder(space, log).encode(log.sessions_in("all"))
    ours = encoded.numbers * space.code.scale + space.code.start
    naive = np.array(
        [row for session in range(log.n_sessions) for row in _naive_numbers(log, session)]
    )
    np.testing.assert_allclose(ours, naive, atol=2e-5)


def test_items_unseen_in_training_have_the_unknown_row() -> None:
    log = log_of([[([0, 1], 0)], [([1, 2], 1)]], split=[0, 2])
    space = fit_space(log, "identity")
    ids = Encoder(space, log).encode(log.sessions_in("test")).ids[:, 0]
    assert ids.tolist() == [3, 1]
    assert space.unknown_of_id.tolist() == [0, 1, 1, 1]


def test_named_fields_become_ids_and_numbers() -> None:
    log = log_of(
        [[([0, 1], 0)], [([1, 2], 1)]],
        split=[0, 2],
        ordered=True,
        columns=columns_of(
            candidate={
                "price": np.array([1, 3, 2, 4], np.float32),
                "shelf": np.array([0, 1, 1, 2], np.int32),
            },
            item={"brand": np.array([1, 0, -1], np.int32)},
            categories={
                "shelf": pl.Series(["low", "mid", "top"]),
                "brand": pl.Series(["acme", "zeta"]),
            },
        ),
    )
    space = fit_space(log, "identity", relative_numbers=False)
    assert [part.name for part in space.categorical] == ["item", "brand", "shelf", "position"]
    test = Encoder(space, log).encode(log.sessions_in("test"))
    unknown = [part.start for part in space.categorical]
    assert test.ids[1, 0] == unknown[0]  # item 2 was never displayed in training
    assert test.ids[1, 1] == unknown[1]  # its brand is missing
    assert test.ids[1, 2] == unknown[2]  # shelf 'top' is new
    assert test.ids[0, 2] == unknown[2] + 2  # 'mid' is the second known shelf
    assert (test.numbers * space.code.scale + space.code.start)[:, 0].tolist() == [2.0, 4.0]


def test_a_log_with_other_fields_is_refused() -> None:
    log = log_of(
        [[([0, 1], 0)]], columns=columns_of(candidate={"price": np.array([1, 3], np.float32)})
    )
    space = fit_space(log, "bags")
    with pytest.raises(FeatureMismatchError, match=r"missing \['price'\]"):
        Encoder(space, log_of([[([0, 1], 0)]]))


def test_views_need_view_counts_and_training_needs_sessions() -> None:
    with pytest.raises(ConfigError, match="views"):
        fit_space(log_of([[([0, 1], 0)]]), "views")
    with pytest.raises(LogFormatError, match="no training session"):
        fit_space(with_vectors(log_of([[([0, 1], 0)]], split=[2])))
