"""The table of a card: what can be run without one."""

from __future__ import annotations

import pytest
import torch

import fastgaum as fg
from fastgaum.bench import card
from fastgaum.bench.bench_training import world

CPU = torch.device("cpu")


class Unlike:
    """A module of mathematics in which no two numbers are close."""

    @staticmethod
    def isclose(*_: float, **__: float) -> bool:
        return False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert card.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: device 'cuda' was asked for and no card is at hand" in said.err


def test_a_race_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor, where the engine is on both sides; with other losses nothing is printed."""
    monkeypatch.setattr(card, "REPEATS", 2)
    found = card.rounds(CPU, world("scale", 400, 50), 1)
    assert found["ours, first loss"] == pytest.approx(found["stock torch, first loss"], rel=1e-4)
    assert len(found["ours, all"]) == 2
    monkeypatch.setattr(card, "math", Unlike())
    with pytest.raises(SystemExit, match="the first losses differ"):
        card.rounds(CPU, world("scale", 400, 50), 1)


def test_the_clock_stops_at_the_target() -> None:
    clock = card.Clock(10.0)
    log = fg.synthesise(100, preset="sample", n_items=10)[0]
    fg.UserModel.from_preset("paper-lstm", epochs=1, device="cpu").fit(log, observers=[clock])
    assert clock.seconds is not None
    assert clock.best < 10
