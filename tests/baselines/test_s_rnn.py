"""The session RNN: the contract, and that its training never sees a display set."""

from __future__ import annotations

from fastgaum.baselines.s_rnn import SessionRnn
from tests.baselines.contract import check_baseline, check_beats_random, check_learns


def test_contract() -> None:
    check_baseline(SessionRnn(epochs=20))


def test_learns() -> None:
    check_learns(SessionRnn())


def test_beats_random() -> None:
    check_beats_random(SessionRnn())
