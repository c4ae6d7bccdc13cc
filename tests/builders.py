"""Small logs for tests, drawn or written out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from fastgaum import ops
from fastgaum.arrays import FloatArray
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import Selection
from fastgaum.features.standardise import Moments, standardised
from fastgaum.features.training_order import ONCE, TrainingOrder
from fastgaum.game.game import Game
from fastgaum.logs.actions import Actions
from fastgaum.logs.log import Column, Of, SessionLog
from fastgaum.nets.batches import Batch
from fastgaum.state_file import content_sha256

NARROW: dict[str, Any] = {"preset": "paper-lstm", "players": "adversarial"}
"""settings of three networks over identities, in which no number is"""


def log_of(
    sessions: list[list[tuple[list[int], int]]],
    split: list[int] | None = None,
    users: list[int] | None = None,
    **more: object,
) -> SessionLog:
    """Build a log from sessions → events → (items, position of the choice or -1)."""
    events = [event for session in sessions for event in session]
    n_items = 1 + max(max(items) for items, _ in events)
    offsets = [0, *np.cumsum([len(session) for session in sessions])]
    displays = [0, *np.cumsum([len(items) for items, _ in events])]
    return SessionLog(
        session_offsets=np.array(offsets, np.int32),
        display_offsets=np.array(displays, np.int32),
        items=np.array([item for items, _ in events for item in items], np.int32),
        choices=np.array([choice for _, choice in events], np.int32),
        split=np.array(split or [0] * len(sessions), np.int8),
        users=np.array(users or range(len(sessions)), np.int32),
        session_ids=pl.Series([f"s{i}" for i in range(len(sessions))], dtype=pl.String),
        event_ids=pl.Series([str(i) for i in range(len(events))], dtype=pl.String),
        item_ids=pl.Series([f"i{i}" for i in range(n_items)], dtype=pl.String),
        **more,  # type: ignore[arg-type]
    )


def columns_of(
    categories: Mapping[str, pl.Series] | None = None, **kinds: Mapping[str, Any]
) -> dict[str, Column]:
    """Columns of a log from arrays by kind (`candidate=`, `event=`, `user=`, `item=`; `vector=`, of
    items) and name; categories: the texts of those that are codes."""
    texts = categories or {}
    return {
        name: Column(
            "item" if kind == "vector" else kind,  # type: ignore[arg-type]
            values,
            texts.get(name) if values.dtype == np.int32 else None,
        )
        for kind, arrays in kinds.items()
        for name, values in arrays.items()
    }


def put(
    log: SessionLog,
    *,
    categories: Mapping[str, pl.Series] | None = None,
    candidate: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    item: Mapping[str, Any] | None = None,
    vector: Mapping[str, Any] | None = None,
    **others: Any,
) -> SessionLog:
    """The log with these columns instead of those that it has of the kinds."""
    kinds = {"candidate": candidate, "event": event, "user": user, "item": item, "vector": vector}
    given = {kind: arrays for kind, arrays in kinds.items() if arrays is not None}
    texts = {name: one.texts for name, one in log.columns.items() if one.texts is not None}
    texts |= categories or {}
    kept = {
        name: dataclasses.replace(one, texts=texts.get(name))
        for name, one in log.columns.items()
        if ("vector" if one.holds == "vector" else one.of) not in given
    }
    return dataclasses.replace(log, columns=kept | columns_of(texts, **given), **others)


def values_of(log: SessionLog, of: Of) -> dict[str, Any]:
    """The arrays of a log's columns of one kind, by name."""
    return {name: column.values for name, column in log.columns_of(of).items()}


def permuted_within_sets(log: SessionLog, seed: int = 0) -> tuple[SessionLog, np.ndarray]:
    """The log with every display set's candidates in a random order, and that order, shape
    (n_candidates,)."""
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [
            rng.permutation(np.arange(a, b))
            for a, b in zip(log.display_offsets[:-1], log.display_offsets[1:], strict=True)
        ]
    )
    where = np.argsort(order)
    chosen = log.display_offsets[:-1] + np.maximum(log.choices, 0)
    moved = np.where(log.choices >= 0, where[chosen] - log.display_offsets[:-1], -1).astype(
        np.int32
    )
    permuted = put(
        log,
        items=log.items[order],
        choices=moved,
        views=None if log.views is None else log.views[order],
        candidate={k: v[order] for k, v in values_of(log, "candidate").items()},
    )
    return permuted, order


def random_log(
    seed: int = 0,
    n_sessions: int = 60,
    n_items: int = 12,
    max_length: int = 4,
    no_click: float = 0.0,
    shared_users: bool = False,
) -> SessionLog:
    """A log of chance, half of it training; low item numbers are chosen more often, so there is
    something to learn."""
    rng = np.random.default_rng(seed)
    sessions = []
    for _ in range(n_sessions):
        session = []
        for _ in range(rng.integers(1, max_length + 1)):
            items = rng.choice(n_items, size=rng.integers(1, min(6, n_items) + 1), replace=False)
            weight = np.exp(-0.5 * items)
            choice = (
                -1
                if rng.random() < no_click
                else int(rng.choice(len(items), p=weight / weight.sum()))
            )
            session.append((items.tolist(), choice))
        sessions.append(session)
    split = np.tile([0, 0, 1, 2], n_sessions)[:n_sessions].tolist()
    users = (np.arange(n_sessions) // 2).tolist() if shared_users else None
    return log_of(sessions, split, users)


def with_vectors(log: SessionLog, seed: int = 0) -> SessionLog:
    """The log with two columns of vectors of its items, far from standardised."""
    rng = np.random.default_rng(seed)
    text = 5 + 3 * rng.standard_normal((log.n_items, 4))
    image = rng.standard_normal((log.n_items, 2)) * [1, 20]
    vectors = {"text": text.astype(np.float32), "image": image.astype(np.float32)}
    return put(log, vector=vectors)


def with_fields(log: SessionLog, seed: int = 0, ordered: bool = True) -> SessionLog:
    """The log with a number and a category of each item and of each candidate, view counts, and an
    order of displays that is real."""
    rng = np.random.default_rng(seed)
    shelves = ["top", "middle", "floor", "cellar"][: 3 + seed % 2]
    return put(
        log,
        ordered=ordered,
        views=rng.integers(1, 9, log.n_candidates).astype(np.uint16),
        item={
            "size": rng.random(log.n_items).astype(np.float32),
            "brand": rng.integers(-1, 3, log.n_items).astype(np.int32),
        },
        candidate={
            "price": rng.normal(size=log.n_candidates).astype(np.float32),
            "shelf": rng.integers(-1, len(shelves), log.n_candidates).astype(np.int32),
        },
        categories={"shelf": pl.Series(shelves), "brand": pl.Series(["a", "b", "1"])},
    )


def with_drawn_actions(log: SessionLog, seed: int = 0) -> SessionLog:
    """The log with up to three actions before each event, of three kinds, some on items that it
    does not display."""
    rng = np.random.default_rng(seed)
    items = pl.concat([log.item_ids, pl.Series("item", ["x1", "x2", "x3"])])
    counts = rng.integers(0, 4, log.n_events)
    n, kinds = int(counts.sum()), pl.Series(["cart", "past", "view"])
    actions = Actions(
        np.concatenate(([0], np.cumsum(counts))).astype(np.int32),
        rng.integers(0, len(items), n).astype(np.int32),
        rng.integers(0, len(kinds), n).astype(np.int32),
        kinds,
        left_out=2,
    )
    return dataclasses.replace(log, item_ids=items, actions=actions)


def numbers_of(encoder: Encoder, part: Selection) -> FloatArray:
    """Numbers of each candidate, not standardised, shape (n_candidates, n_numbers)."""
    code = standardised(Moments(), encoder.space.n_raw)
    return dataclasses.replace(encoder.encode(part.rows), code=code).numbers


def sessions_that_speak(
    log: SessionLog, session: int, order: TrainingOrder = ONCE, number: int = 0
) -> list[int]:
    """The training sessions whose counts a session of the training log reads: a training session
    those of the blocks before its own, another one all."""
    speak = log.split == 0
    if speak[session]:
        blocks = order.blocks(log.users, number)
        speak = speak & (blocks < blocks[session])
    return np.flatnonzero(speak).tolist()


def factor_of_counts(log: SessionLog, session: int) -> float:
    """How many more displays the training split has than the sessions that a session reads."""
    displays = np.diff(log.display_offsets[log.session_offsets])
    n_read = int(displays[sessions_that_speak(log, session)].sum())
    return int(displays[log.split == 0].sum()) / n_read if n_read else 1.0


def change_state(
    file: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], object]
) -> None:
    """Change what a file of `save_state` says (`format`, and `state` with names for its arrays), or
    the arrays themselves, as no state of ours could be; its sha256 agrees, as in a file made to
    deceive."""
    with safe_open(file, framework="numpy") as reader:
        arrays = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
        about = json.loads(reader.metadata()["fastgaum"])
    about.pop("sha256")
    change(about, arrays)
    about["sha256"] = content_sha256(about, arrays)
    file.unlink()
    save_file(arrays, file, {"fastgaum": json.dumps(about)})


def flip_bit(file: Path) -> None:
    """Change one bit of the last array of a file of `save_state`."""
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def change_table(folder: Path, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change one table of a saved log; log.json agrees with it, as in a file made to deceive."""
    about = json.loads((folder / "log.json").read_text())
    stored = {**about, **about["parts"][0]}[name]
    path = folder / stored["file"]
    change(pl.read_parquet(path)).write_parquet(path)
    stored["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "log.json").write_text(json.dumps(about))


class PlainGame(Game):
    """The game with every operator as its twin in torch."""

    def exact_step(self, batch: Batch) -> float:
        with ops.plain():
            return super().exact_step(batch)

    def round(self, batch: Batch) -> float:
        with ops.plain():
            return super().round(batch)

    def generator_turn(self, batch: Batch, steps: int) -> None:
        with ops.plain():
            super().generator_turn(batch, steps)

    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        with ops.plain():
            return super().outputs(batch)
