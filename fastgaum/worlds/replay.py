"""Replay: logged sessions shown again to simulated users who make choices of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray, LongArray
from fastgaum.errors import ConfigError
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.models.choice_model import Head
from fastgaum.models.context import EncodedContext
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import ContextPopulation, LearnedWorld, contexts_of
from fastgaum.worlds.world import NO_ITEM, Population, World
from fastgaum.worlds.world_set import SetPopulation, WorldSet, world_of_model

USERS_AT_ONCE = 8192
"""users of one population, about"""


def world_of(
    model: UserModel, log: SessionLog, head: Head | None = None
) -> LearnedWorld | WorldSet:
    """The model's users over its training items and every other item of a log; of a model by folds
    the set of all its fits. Raises as `LearnedWorld`."""
    if model.space is None:
        raise ConfigError("the model has not been trained: call fit or load first")
    new = Vocabulary(model.space.categorical[0].values).codes(log.item_ids) < 0
    return world_of_model(model, head=head, log=log, further=log.item_ids.filter(new))


def replay(
    world: World, log: SessionLog, replicas: int = 1, seed: int | Sequence[int] = 0
) -> IntArray:
    """Let simulated users live every session of a log, `replicas` times each, in its display sets
    and contexts; choices (replicas, n_events) as in a log. Users of a set live in a member each.

    Raises:
        ConfigError: the log displays an item that the world does not have, or holds successive
            choices of its displays.
    """
    refuse_successive(log.context, "a replay asks its users for")
    items = Vocabulary(world.item_ids).codes(log.item_ids)
    rows = items[log.items]
    if len(missing := np.unique(log.items[rows < 0])):
        raise ConfigError(
            f"log '{log.name}' displays {len(missing):,} items that the world does not have "
            f"('{log.item_ids[int(missing[0])]}' …): make the world with them (further=…)"
        )
    contexts = contexts_of(world, log)
    choices = np.full((replicas, log.n_events), -1, np.int32)
    rng = np.random.default_rng(seed)
    lengths = np.diff(log.session_offsets)
    # by length: users who stand beside each other end about together
    order = np.argsort(-lengths, kind="stable")
    step = max(1, USERS_AT_ONCE // replicas)
    for start in range(0, len(order), step):
        _live(world, log, items, contexts, order[start : start + step], choices, rng)
    return choices


def _live(
    world: World,
    log: SessionLog,
    items: IntArray,
    contexts: Callable[[LongArray], EncodedContext] | None,
    sessions: np.ndarray,
    choices: IntArray,
    rng: np.random.Generator,
) -> None:
    replicas, n, rows = len(choices), len(sessions), items[log.items]
    first, lengths = log.session_offsets[sessions], np.diff(log.session_offsets)[sessions]
    sizes = np.diff(log.display_offsets)
    widest = max(int(sizes[a : a + length].max()) for a, length in zip(first, lengths, strict=True))
    places = np.arange(widest)

    users = world.population(replicas * n)
    if isinstance(users, SetPopulation):
        # no reset, which may begin within logged sessions
        keys = rng.integers(0, 2**64, users.n, dtype=np.uint64)
        users.members[:] = users.world.members_of(keys)
    for t in range(int(lengths.max())):
        active = lengths > t
        tell_logged(users, log, items, np.tile(np.where(active, first + t, -1), replicas))
        events = np.where(active, first + t, 0)
        # an empty place points at the set's first candidate, and is blanked
        filled = (places < sizes[events][:, None]) & active[:, None]
        at = log.display_offsets[events][:, None] + np.where(filled, places, 0)
        slates = np.where(filled, rows[at], np.int32(NO_ITEM)).astype(np.int32)
        keys = rng.integers(0, 2**64, users.n, dtype=np.uint64)
        shown = np.tile(slates, (replicas, 1)), keys, np.tile(active, replicas)
        if contexts is None:
            response = users.step(*shown)
        else:
            assert isinstance(users, ContextPopulation)
            response = users.step(*shown, contexts(np.tile(events, replicas)))
        choices[:, first[active] + t] = response.places.reshape(replicas, n)[:, active]


def tell_logged(
    users: Population, log: SessionLog, codes: IntArray, events: npt.NDArray[np.integer]
) -> None:
    """Tell each user the actions before its event of a log, (n,), -1 for no event; `codes` has the
    world's number of each of the log's items. Raises ConfigError for an item without one."""
    actions = log.actions
    if actions is None:
        return
    told = np.where(events >= 0, events, 0)
    starts = actions.offsets[told]
    lengths = np.where(events >= 0, actions.offsets[told + 1] - starts, 0)
    for number in range(int(lengths.max(initial=0))):
        at = np.where(lengths > number, starts + number, 0)
        for kind in np.unique(actions.kinds[at[lengths > number]]).tolist():
            now = (lengths > number) & (actions.kinds[at] == kind)
            items = np.where(now, codes[actions.items[at]], NO_ITEM).astype(np.int32)
            if (items[now] < 0).any():
                unknown = log.item_ids[int(actions.items[at][now & (items < 0)][0])]
                raise ConfigError(
                    f"log '{log.name}' has actions on items that the world does not have "
                    f"('{unknown}' …): make the world with them (further=…)"
                )
            users.acted(items, str(actions.kind_names[kind]))


def versions(log: SessionLog, simulated: IntArray) -> SessionLog:
    """The log and its replicas, one below the other, as one log of (1 + replicas) × n_sessions
    sessions."""
    n_versions = 1 + len(simulated)
    every = slice_sessions(log, np.tile(np.arange(log.n_sessions), n_versions))
    choices = np.concatenate([log.choices[None], simulated]).astype(np.int32).reshape(-1)
    return dataclasses.replace(every, choices=choices)
