"""Sessions that a world played, as a log: what a model says of that log is what the world must have
used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from fastgaum.arrays import FloatArray
from fastgaum.features.encoder import Encoder
from fastgaum.features.event_numbers import DisplayedEvents, EventNumbers
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog
from fastgaum.worlds.learned_world import LearnedPopulation, LearnedWorld
from fastgaum.worlds.world import NO_ITEM, Population, World
from tests.builders import put, values_of


@dataclass
class Played:
    """What happened, event by event, and the probabilities that the population had."""

    slates: list[np.ndarray]
    active: list[np.ndarray]
    probabilities: list[np.ndarray]
    none: list[np.ndarray]
    places: list[np.ndarray]
    utilities: list[np.ndarray]
    contexts: list[dict[str, Any]] = field(default_factory=list)
    """the values of the context fields, where the model reads some"""


def keys_of(seed: int, shape: Any) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)


def naive_choice(key: int, items: Any, probs: Any, none: float) -> int:
    """The place whose clock, Exp(1) of the key and the item over its probability, rings first; -1:
    no click."""
    clocks = [(np.inf if naive_uniform(key) >= none else -1.0, -1)]
    for place, (item, share) in enumerate(zip(items, probs, strict=True)):
        if share > 0:
            drawn = naive_uniform(key + (int(item) + 1) * 0x9E3779B97F4A7C15)
            clocks.append((-np.log1p(-drawn) / float(share), place))
    return min(clocks)[1]


def naive_uniform(key: int) -> float:
    """SplitMix64 in whole numbers."""
    most = 2**64 - 1
    x = (key + 0x9E3779B97F4A7C15) & most
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & most
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & most
    return ((x ^ (x >> 31)) >> 11) / 2**53


def random_slates(world: World, n: int, k: int, seed: int, empty: float = 0.1) -> np.ndarray:
    """Slates of any items, repeats and empty places among them, at least one item each."""
    rng = np.random.default_rng(seed)
    slates = rng.integers(0, world.n_items, (n, k)).astype(np.int32)
    slates[rng.random((n, k)) < empty] = NO_ITEM
    slates[:, 0] = np.where(slates[:, 0] < 0, 0, slates[:, 0])
    return slates


def random_context(space: FeatureSpace, n: int, seed: int) -> dict[str, Any]:
    """A value of each context field for n users; some are unknown, some missing."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        name: rng.normal(size=n).astype(np.float32) for name in space.context_number_names
    }
    for part in space.context:
        known: list[str | None] = [*part.values, "never seen", None]
        values[part.name] = [known[at] for at in rng.integers(0, len(known), n)]
    return values


def play(
    users: Population, world: World, steps: int, seed: int = 0, k: int = 4, idle: float = 0.0
) -> Played:
    """Play random slates, in random contexts; with `idle`, users sit out at random."""
    played = Played([], [], [], [], [], [])
    rng = np.random.default_rng(seed)
    for t in range(steps):
        slates = random_slates(world, users.n, k + t % 2, seed + t)
        active = rng.random(users.n) >= idle
        if isinstance(users, LearnedPopulation) and users.contexts is not None:
            values = random_context(users.contexts.rows.space, users.n, seed + 500 + t)
            played.contexts.append(values)
            probabilities, none = users.probabilities(slates, users.world.context_of(values))
        else:
            probabilities, none = users.probabilities(slates)
        everyone = idle == 0.0
        response = users.step(
            slates, keys_of(seed + 1000 + t, users.n), None if everyone else active
        )
        for name, value in (
            ("slates", slates),
            ("active", active),
            ("probabilities", probabilities),
            ("none", none),
            ("places", response.places),
            ("utilities", response.utilities),
        ):
            getattr(played, name).append(value.copy())
    return played


class Within(Encoder):
    """The encoder, but what a session decides stays within what training has seen, as it does in a
    world."""

    def __init__(self, space: FeatureSpace, log: SessionLog) -> None:
        super().__init__(space, log)
        self.event_numbers = Kept(space)


class Kept(EventNumbers):
    def write(self, events: DisplayedEvents, numbers: FloatArray, set_size: int = 0) -> None:
        super().write(events, numbers, set_size)
        for at in self.of_session[self.of_session >= 0]:
            np.clip(numbers[:, at], self.space.least[at], self.space.most[at], out=numbers[:, at])


def encoded(space: FeatureSpace, log: SessionLog) -> EncodedSessions:
    """All sessions of a log that a world played, as bags."""
    return Within(space, log).encode(log.sessions_in("all"))


def displayed(slate: np.ndarray) -> np.ndarray:
    """Places of a slate that show something: the naive rule."""
    return np.array([i for i, item in enumerate(slate) if item >= 0 and item not in slate[:i]], int)


def as_log(
    played: Played, world: LearnedWorld, source: SessionLog | None = None
) -> tuple[SessionLog, dict[str, Any]]:
    """The sessions as a log, and per candidate or event what the population had: probability, none,
    utility of the choice."""
    sizes, items, choices, sessions, contexts = [], [], [], [0], []
    had: dict[str, Any] = {"probability": [], "none": [], "chosen": [], "utility": []}
    n = len(played.slates[0])
    for user in range(n):
        for t in range(len(played.slates)):
            if not played.active[t][user]:
                continue
            shown = displayed(played.slates[t][user])
            place = played.places[t][user]
            assert place < 0 or place in shown
            choice = int(np.flatnonzero(shown == place)[0]) if place >= 0 else -1
            if choice >= 0:
                had["chosen"].append(len(items) + choice)
                had["utility"].append(played.utilities[t][user])
            items += played.slates[t][user][shown].tolist()
            had["probability"] += played.probabilities[t][user][shown].tolist()
            had["none"].append(played.none[t][user])
            sizes.append(len(shown))
            choices.append(choice)
            if played.contexts:
                contexts.append({name: column[user] for name, column in played.contexts[t].items()})
        sessions.append(len(sizes))
    kept = np.flatnonzero(np.diff(sessions) > 0)
    log = SessionLog(
        session_offsets=np.array(sessions, np.int32)[np.append(0, kept + 1)],
        display_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        items=np.array(items, np.int32),
        choices=np.array(choices, np.int32),
        split=np.full(len(kept), 2, np.int8),
        users=np.arange(len(kept), dtype=np.int32),
        session_ids=pl.Series([f"u{i}" for i in kept], dtype=pl.String),
        event_ids=pl.Series([str(i) for i in range(len(sizes))], dtype=pl.String),
        item_ids=world.item_ids,
        name="simulated",
    )
    if contexts:
        log = _with_context(log, pl.DataFrame(contexts))
    return (log if source is None else _with_fields(log, world, source)), {
        k: np.array(v) for k, v in had.items()
    }


def _with_context(log: SessionLog, values: pl.DataFrame) -> SessionLog:
    """The log with the context of its events, a row each."""
    fields: dict[str, np.ndarray] = {}
    categories: dict[str, pl.Series] = {}
    for name, column in values.to_dict().items():
        if column.dtype == pl.String:
            known = categories[name] = column.drop_nulls().unique().sort()
            codes = column.cast(pl.Enum(known)).to_physical().cast(pl.Int32)
            fields[name] = codes.fill_null(-1).to_numpy()
        else:
            fields[name] = column.cast(pl.Float32).to_numpy()
    return put(log, event=fields, categories=categories)


def _with_fields(log: SessionLog, world: LearnedWorld, source: SessionLog) -> SessionLog:
    """The log's fields, as the catalogue says that a simulated candidate has them."""
    catalogue, space = world.catalogue, world.catalogue.space
    rows = np.array([source.item_ids.to_list().index(item) for item in world.item_ids])
    columns = {part.name: column for column, part in enumerate(space.categorical)}
    candidate: dict[str, Any] = {}
    texts = {**source.columns, **log.columns}
    categories = {name: one.categories for name, one in texts.items() if one.holds == "category"}
    for name, column in source.columns_of("candidate").items():
        if column.holds == "category":
            part = space.categorical[columns[name]]
            codes = catalogue.ids[log.items, columns[name]] - part.start - 1
            candidate[name], categories[name] = codes.astype(np.int32), part.values
        else:
            candidate[name] = catalogue.fixed[log.items, space.number_names.index(name)]
    views = None
    if source.views is not None:
        logs = (
            catalogue.fixed[log.items, space.number_names.index("log_views")]
            if space.protocol == "views"
            else 0 * log.items
        )
        views = np.rint(np.exp(logs)).astype(np.uint16)
    return put(
        log,
        candidate=candidate,
        categories=categories,
        views=views,
        ordered=source.ordered,
        grid=source.grid,
        item={name: values[rows] for name, values in values_of(source, "item").items()},
        vector={name: values[rows] for name, values in source.vectors.items()},
    )
