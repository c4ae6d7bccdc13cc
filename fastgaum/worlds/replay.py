"""Replay: logged sessions shown again to simulated users who make choices of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import BoolArray, IntArray, LongArray
from fastgaum.errors import ConfigError
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Head
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
    choices = np.full((replicas, log.n_events), -1, np.int32)
    rng = np.random.default_rng(seed)

    def users_of(n: int) -> Population:
        return population_of(world, n, rng)

    for users, events, active, slates in live(world, log, users_of, USERS_AT_ONCE, replicas):
        keys = rng.integers(0, 2**64, users.n, dtype=np.uint64)
        response = users.step(np.tile(slates, (replicas, 1)), keys, np.tile(active, replicas))
        choices[:, events[active]] = response.places.reshape(replicas, -1)[:, active]
    return choices


def population_of(world: World, n: int, rng: np.random.Generator) -> Population:
    """n users at the begin of their sessions, those of a set in a member each that `rng` draws."""
    users = world.population(n)
    if isinstance(users, SetPopulation):
        # no reset, which may begin within logged sessions
        keys = rng.integers(0, 2**64, n, dtype=np.uint64)
        users.members[:] = users.world.members_of(keys)
    return users


def live(
    world: World,
    log: SessionLog,
    users_of: Callable[[int], Population],
    at_once: int,
    replicas: int = 1,
) -> Iterator[tuple[Population, LongArray, BoolArray, IntArray]]:
    """Let users live every session of a log, `replicas` of each: the caller shows them a slate, or
    tells them the logged one, at every step.

    Args:
        world, log: whose numbers of items, and whose sessions.
        users_of: makes n users.
        at_once: users who live beside each other, about.
        replicas: of each session.

    Yields: users, (replicas × n,), who have the context of their event and know what they did
        before; the event of each of the n sessions, their last one where they are over; which are
        not; and the logged slates by the world's numbers, empty where they are, (n, widest).

    Raises:
        ConfigError: the log displays an item that the world does not have.
    """
    items = Vocabulary(world.item_ids).codes(log.item_ids)
    rows = items[log.items]
    if len(missing := np.unique(log.items[rows < 0])):
        raise ConfigError(
            f"log '{log.name}' displays {len(missing):,} items that the world does not have "
            f"('{log.item_ids[int(missing[0])]}' …): make the world with them (further=…)"
        )
    contexts, sizes = contexts_of(world, log), np.diff(log.display_offsets)
    all_lengths = np.diff(log.session_offsets)
    # by length: users who stand beside each other end about together
    order = np.argsort(-all_lengths, kind="stable")
    step = max(1, at_once // replicas)
    for start in range(0, len(order), step):
        sessions = order[start : start + step]
        first, lengths = log.session_offsets[sessions], all_lengths[sessions]
        users = users_of(replicas * len(sessions))
        for t in range(int(lengths.max())):
            active, events = lengths > t, first + np.minimum(t, lengths - 1).astype(np.int64)
            tell_logged(users, log, items, np.tile(np.where(active, events, -1), replicas))
            if contexts is not None:
                assert isinstance(users, ContextPopulation)
                users.take(contexts(np.tile(events, replicas)))
            # an empty place points at the set's first candidate, and is blanked
            places = np.arange(int(sizes[events].max()))
            filled = (places < sizes[events][:, None]) & active[:, None]
            at = log.display_offsets[events][:, None] + np.where(filled, places, 0)
            yield users, events, active, np.where(filled, rows[at], NO_ITEM).astype(np.int32)


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
