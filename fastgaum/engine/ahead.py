"""Kernels compiled ahead of their use, in processes of their own.

The compiler holds one lock and so has one core. While a first fit compiles what encodes its log,
other processes compile the engine: each plays a step of a game over a few made-up sessions, and
what it compiles is then in the cache of kernels."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import fastgaum
from fastgaum.config import Config
from fastgaum.engine.dispatch import game_for
from fastgaum.engine.game import NOTHING, EngineGame
from fastgaum.features.batches import assemble
from fastgaum.features.sessions import EncodedSessions
from fastgaum.kernels.choice import CHOICES, Loss
from fastgaum.nets.histories import Encoders, history_encoder
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tables import TableMaker
from fastgaum.nets.tensors import BatchTensors, to_tensors
from fastgaum.threads import get_threads
from fastgaum.untrusted import parse_json

try:
    from fastgaum.kernels import _cache
except ImportError:  # numba's own cache is used then, as kernels/_jit.py says
    _cache = None  # type: ignore[assignment]

N_SESSIONS = 4
"""made-up sessions"""
N_NUMBERS = 3
"""numbers of each candidate in them"""
N_IDS = 8
"""feature ids that their bags hold, those of unknown values among them"""
SCORER = "scorer"
"""the part of the engine that scores candidates, with the players' steps"""
HISTORY = "history"
"""the part of the engine that makes states of tokens"""
PATIENCE = 180.0
"""seconds: ten times what a process takes on two cores"""
LONGEST = {"lstm": "lstm.lstm_tiles"}
"""the kernel of each history that is worth a process"""

_waited_for: set[str] = set()
"""kernels that were compiled ahead for this process: it asks once, though a full disk keeps none"""


@contextlib.contextmanager
def compiling_ahead(
    config: Config, device: torch.device, history: Encoders, tables: TableMaker | None
) -> Iterator[None]:
    """Compile within, and until that is done, what the cache does not hold of the engine for these
    networks, unless torch has one thread. What fails is compiled where it is used, as ever."""
    by_hand = device.type == "cpu" and history is history_encoder and tables is None
    wanted = by_hand and config.states == "logged" and get_threads() > 1 and bool(sys.executable)
    wanted = wanted and _cache is not None
    kernels = {SCORER: "scorer.scorer_pass", HISTORY: LONGEST.get(config.history)}
    with contextlib.ExitStack() as running:
        for part, kernel in kernels.items() if wanted else ():
            if kernel is not None and kernel not in _waited_for:
                # a machine may let no further process begin
                with contextlib.suppress(OSError):
                    running.enter_context(_compiling(part, kernel, config))
        yield


@contextlib.contextmanager
def _compiling(part: str, kernel: str, config: Config) -> Iterator[None]:
    """Let another process compile a part within, unless the cache holds the part's longest kernel
    or has it claimed. What hangs is ended, and so is what serves a fit that has failed."""
    with _cache.claimed(kernel) as is_ours:
        if not is_ours:
            yield
            return
        process = _begin(part, config)
        try:
            yield
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            _waited_for.add(kernel)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _begin(part: str, config: Config) -> subprocess.Popen[bytes]:
    home = str(Path(fastgaum.__file__).parents[1])
    path = os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])
    # -P: a folder of this name where the user works is not this package
    module = ["-P", "-m", "fastgaum.engine.ahead"]
    command = [sys.executable, *module, part, json.dumps(config.to_mapping())]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
    )


def rehearse(part: str, config: Config) -> None:
    """Compile a part of the engine, by its use on a few made-up sessions."""
    torch.manual_seed(0)
    networks = Networks(config, N_IDS, N_NUMBERS, history_encoder)
    unknown = torch.ones(N_IDS, dtype=torch.int32)
    game = game_for(networks, config, regulariser_of(config), unknown, True)
    batch = _batch()
    if not isinstance(game, EngineGame):
        return
    if part == HISTORY:
        history = game.states_layer.history
        states = history.forward(batch, batch.tokens)
        history.backward(np.zeros_like(states), game.slot_of)
        return
    # The scorer first, which takes longest: the other process has then compiled the history.
    shown, _ = game.drawn(batch)
    states = np.zeros((batch.n_events, networks.player.state_dim), np.float32)
    loss = Loss(CHOICES, np.float32(1), True, batch.source.choices, NOTHING)
    game.reward.learn(loss, shown, states, 1 if config.dropout > 0 else None)
    game.exact_step(batch)
    if game.generator is not None:
        game.round(batch)
    game.release()


def _batch() -> BatchTensors:
    """Sessions of two events with two candidates each; every other choice is no click."""
    n_events = 2 * N_SESSIONS
    n = 2 * n_events
    rng = np.random.default_rng(0)
    sessions = EncodedSessions(
        rows=np.arange(N_SESSIONS, dtype=np.int32),
        session_offsets=np.arange(0, n_events + 1, 2, dtype=np.int32),
        display_offsets=np.arange(0, n + 1, 2, dtype=np.int32),
        choices=(np.arange(n_events) % 2 - 1).astype(np.int32),
        users=np.arange(N_SESSIONS, dtype=np.int32),
        ids=rng.integers(2, N_IDS, (n, 1)).astype(np.int32),
        numbers=rng.normal(size=(n, N_NUMBERS)).astype(np.float32),
        context_ids=np.empty((n_events, 0), np.int32),
        context_numbers=np.empty((n_events, 0), np.float32),
    )
    return to_tensors(assemble(sessions, sessions.rows), torch.device("cpu"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    rehearse(sys.argv[1], Config.from_mapping(parse_json(sys.argv[2])))
