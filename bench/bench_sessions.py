"""Race: next-item training on sessions of Zipf length 2 to 100, hidden size 64, targets per second.

Ours is `session_training.py`, with all its sessions' steps in each gradient and one update per 64
sessions. The rival in the run is a stand-in for the official GRU4Rec, written anew
(`rivals/sessions_gru4rec.py` says how). RecBole's GRU4Rec runs where $FASTGAUM_RECBOLE_VENV names
an environment that holds it (`rivals/recbole_gru4rec.py` makes one)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastgaum import threads
from fastgaum.bench.races import RATE, Bar, Race
from fastgaum.bench.rivals.session_data import zipf_sessions
from fastgaum.bench.rivals.sessions_gru4rec import Lanes
from fastgaum.bench.session_training import Packed

RECBOLE_VENV = "FASTGAUM_RECBOLE_VENV"
BLOCKS = {"sessions-block50": 50, "sessions-block512": 512}
OUTSIDE = ("sessions-recbole",)
GROUPS = dict.fromkeys([*BLOCKS, *OUTSIDE])


@pytest.mark.parametrize("contender", ["ours", "gru4rec-stand-in"])
@pytest.mark.parametrize("group", BLOCKS)
def test_sessions(race: Race, full: bool, group: str, contender: str) -> None:
    block = BLOCKS[group]
    sessions = zipf_sessions(4_000 if full else 60)
    maker: Any = Packed if contender == "ours" else Lanes
    model = maker(sessions, hidden=64, block=block if full else 8)
    # the stand-in, and the best figure measured of the official code on two cores
    bars = (Bar(3.0, "gru4rec-stand-in"), Bar(3 * (40_000 if block == 50 else 100_000), RATE))

    def epoch() -> None:
        assert model.epoch() > 0

    # a target's products, forward and backward: projection and recurrence 18 H² each, the loss 6 H
    # for each of its block
    flops = sessions.n_targets * (36.0 * 64**2 + 6 * 64 * block)
    amount = sessions.n_targets
    race(
        epoch,
        None,
        unit="targets",
        amount=amount,
        bars=bars,
        flops=flops,
        rounds=5 if full else None,
    )


@pytest.mark.parametrize("group", OUTSIDE)
def test_recbole(record: Callable[..., None], full: bool, group: str) -> None:
    venv = os.environ.get(RECBOLE_VENV)
    if not venv:
        pytest.skip(
            f"${RECBOLE_VENV} names no environment with RecBole: bench/rivals/recbole_gru4rec.py "
            "makes one"
        )
    theirs = recbole(venv)["targets_per_s"]
    sessions = zipf_sessions(4_000 if full else 60)
    model = Packed(sessions, hidden=64, loss="bpr")
    model.epoch()
    from time import perf_counter

    seconds = []
    for _ in range(3):
        started = perf_counter()
        model.epoch()
        seconds.append(perf_counter() - started)
    record(sessions.n_targets / sorted(seconds)[1] / theirs, "x RecBole's targets/s", at_least=30.0)


@cache
def recbole(venv: str) -> dict[str, Any]:
    script = Path(__file__).parent / "rivals" / "recbole_gru4rec.py"
    command = [sys.executable, str(script), "--venv", venv, "--threads", str(threads.get_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
