"""Race: one display of ten scored now, for a user who has made twenty choices.

Ours is an online user who was told these choices. The rival makes a log of the session and the
display, and predicts it. Both read all that the preset reads of a log of 200 items, relations among
it. The figures are of a session that goes on, times of one call; those of `online-http` are of the
same user as a service, asked over one connection that is kept."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fastgaum.bench.races import Bar, Group, Race, SkippedError
from fastgaum.live_users.online import OnlineUser
from fastgaum.logs.read import read_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel

K, PAST = 10, 20


@cache
def model_of(full: bool) -> UserModel:
    log, _ = synthesise(5_000 if full else 300, n_items=200 if full else 30, no_click=0.3, seed=1)
    model = UserModel.from_preset(
        warm_start=2, catch_up=1, epochs=1, search=[], folds=0, relations=True, device="cpu"
    )
    model.fit(log)
    return model


def displays_of(model: UserModel, n: int) -> list[list[str]]:
    assert model.space is not None
    items = model.space.categorical[0].values.to_list()
    draws = np.random.default_rng(0)
    return [[items[i] for i in draws.permutation(len(items))[:K]] for _ in range(n)]


def user_with_past(model: UserModel, past: list[list[str]]) -> OnlineUser:
    user = model.user()
    for display in past:
        user.probabilities(display)
        user.chose(display[0])
    return user


def online(model: UserModel, displays: list[list[str]]) -> Callable[[], Mapping[str, Tensor]]:
    user = user_with_past(model, displays[:PAST])
    return lambda: {"probabilities": torch.from_numpy(user.probabilities(displays[PAST])[:K])}


def by_log(model: UserModel, displays: list[list[str]]) -> Callable[[], Mapping[str, Tensor]]:
    def predicted() -> Mapping[str, Tensor]:
        events = [event for event in range(PAST + 1) for _ in range(K)]
        chosen = [event < PAST and place == 0 for event in range(PAST + 1) for place in range(K)]
        items = [item for display in displays[: PAST + 1] for item in display]
        frame = pl.DataFrame({"session": "now", "event": events, "item": items, "chosen": chosen})
        rows = model.predict(read_log(frame))[-K:]
        # a log keeps the items of a display in an order of its own
        found = dict(zip(rows["item"], rows["probability"], strict=True))
        return {"probabilities": torch.tensor([found[item] for item in displays[PAST]])}

    return predicted


CONTENDERS = {"ours": online, "log-and-predict": by_log}


def one_display(race: Race) -> None:
    model = model_of(race.full)
    displays = displays_of(model, PAST + 1)
    expected = by_log(model, displays)()
    bars = [Bar(20.0, over="log-and-predict", number=6)]
    step = CONTENDERS[race.contender](model, displays)
    race.time(step, expected, unit="displays", amount=1, bars=bars)


def whole_session(race: Race) -> None:
    """Record each display of ten other items, and the choice after it: microseconds."""
    model, n, record = model_of(race.full), 5_000 if race.full else 20, race.record
    displays = displays_of(model, PAST + n)
    user, seconds = user_with_past(model, displays[:PAST]), np.empty((n, 3))
    for row, display in zip(seconds, displays[PAST:], strict=True):
        started, computed = time.perf_counter(), time.thread_time()
        user.probabilities(display)
        scored = time.thread_time() - computed
        row[0], row[1] = time.perf_counter() - started, scored
        user.chose(display[1])
        row[2] = time.perf_counter() - started
    median, most = 1e6 * np.percentile(seconds, [50, 99], axis=0)
    record(median[0], "µs per display of ten, median", bar=6, at_most=150.0)
    record(most[0], "µs per display of ten, 99th percentile", bar=6, at_most=400.0)
    # without what other processes take of the machine
    record(most[1], "µs of its processor, 99th percentile")
    record(median[2], "µs with the choice told, median")


@contextmanager
def kept_alive(model: Path) -> Iterator[Callable[[str, Any], Any]]:
    """Serve a saved model in a process of its own; yield what posts a body to a path of it, over
    one connection, and returns the answer."""
    command = [sys.executable, "-m", "fastgaum", "serve", str(model), "--http", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as service:
        try:
            assert service.stdout is not None
            # MODEL: http://127.0.0.1:PORT, until Ctrl-C
            address = service.stdout.readline().decode().rpartition("http://")[2].partition(",")[0]
            connection = http.client.HTTPConnection(address, timeout=60)
            with closing(connection):

                def ask(path: str, body: Any) -> Any:
                    headers = {"content-type": "application/json"}
                    connection.request("POST", path, json.dumps(body), headers)
                    answer = connection.getresponse()
                    found = json.loads(answer.read())
                    assert answer.status < 300, found
                    # what a client keeps, and what this one would silently open anew
                    assert connection.sock is not None, "the service has closed the connection"
                    return found

                yield ask
        finally:
            service.terminate()


def over_http(race: Race) -> None:
    """Milliseconds of a request, connection and client's own work among it."""
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise SkippedError("needs the extra 'serve'")
    if not race.full:
        raise SkippedError("the tests of the service ask one over a socket")
    model, n, record = model_of(race.full), 1_000, race.record
    displays, seconds = displays_of(model, PAST + n), np.empty(n)
    with TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.safetensors")
        with kept_alive(Path(folder) / "model.safetensors") as ask:
            user = f"/users/{ask('/users', {})['user']}"
            for display in displays[:PAST]:
                ask(f"{user}/probabilities", {"items": display})
                ask(f"{user}/choice", {"item": display[0]})
            for i, display in enumerate(displays[PAST:]):
                started = time.perf_counter()
                ask(f"{user}/probabilities", {"items": display})
                seconds[i] = time.perf_counter() - started
    median, most = 1e3 * np.percentile(seconds, [50, 99])
    record(median, "ms per display of ten over HTTP, median", at_most=2.0)
    record(most, "ms per display of ten over HTTP, 99th percentile", at_most=10.0)


GROUPS = {
    "online-display": Group(one_display, tuple(CONTENDERS)),
    "online-session": Group(whole_session),
    "online-http": Group(over_http),
}
