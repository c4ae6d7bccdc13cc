"""A log as an offline data set of Minari, with the states of a world's users."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError, LogFormatError, as_given, require_known, require_type
from fastgaum.features.outcomes import outcomes_of
from fastgaum.logs.log import SessionLog
from fastgaum.worlds.env_options import OF_OUTCOME, Reward, StepReward
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.replay import live, population_of
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.world import NO_ITEM, Population, Response
from fastgaum.worlds.world_set import WorldSet

USERS_AT_ONCE = 1024


def to_minari(
    log: SessionLog,
    world: LearnedWorld | WorldSet,
    dataset_id: str,
    *,
    reward: Reward = "click",
    end: str = "truncation",
    propensities: npt.ArrayLike | None = None,
    **options: Any,
) -> Any:
    """Write the sessions of a log as episodes of a Minari data set, which offline learners read.

    Spaces are those of `UserEnv(world=world, slate_size=k)`, k the widest logged display, in which
    what was learned can be played: an observation is the user's state before the display, float32
    (state_dim,), and the last one that after the last display; an action has the displayed items'
    numbers in the world, int64 (k,), where a shorter display repeats its first item, which the
    environment shows once. With `infos["event"]`, int64 (n_steps + 1,), the log's number of the
    event that led to each observation, -1 at the first.

    Args:
        log: its sessions are the episodes; of one split, `slice_sessions(log,
            log.sessions_in("train"))`.
        world: of a model that was not trained on the same users, if values shall be honest.
        dataset_id: as Minari's: "shop/clicks-v0".
        reward: as of an environment; "click" and "outcome:NAME" pay what was logged, all others the
            world's utilities of it.
        end: "truncation": the log was cut off after a session, and learners count what would have
            followed; "termination": the user left.
        propensities: the probability with which the log showed each display, (n_events,); they are
            `infos["propensity"]`, float64 (n_steps + 1,), beside the event's number.
        options: of `minari.create_dataset_from_buffers`: `data_format`, `description`, `author` …

    Returns: the `minari.MinariDataset`, written to Minari's folder.

    Raises:
        ConfigError: Minari is not installed, the log displays an item that the world does not
            have, the world has no such outcome, or an argument is wrong.
        LogFormatError: nobody knows what followed a choice that is paid by it.
    """
    minari = _import_minari()
    require_type("log", log, SessionLog)
    if not isinstance(world, WorldSet):
        require_type("world", world, LearnedWorld)
    require_known("end", end, ("truncation", "termination"))
    rewards_of, n_events = StepReward(reward), log.n_events
    rewards_of.require_world(world)
    if propensities is not None:
        given, propensities = propensities, np.asarray(propensities)
        is_number = propensities.dtype.kind in "iuf" and propensities.shape == (n_events,)
        # a NaN fails the comparison
        if not (is_number and ((propensities > 0) & (propensities <= 1)).all()):
            raise ConfigError(
                f"propensities are {as_given(given)}, a probability above 0 for each of the log's "
                f"{n_events:,} events is required"
            )
    followed = outcomes_of(world.catalogue.space.outcomes, log) if world.outcome_labels else None
    if followed is not None and rewards_of.name.startswith(OF_OUTCOME):
        paid = followed[:, world.outcome_labels.index(rewards_of.name.removeprefix(OF_OUTCOME))]
        if unknown := int((np.isnan(paid) & (log.choices >= 0)).sum()):
            raise LogFormatError(
                f"log '{log.name}' does not say what followed {unknown:,} of its choices: pay "
                "another reward, or leave their sessions out (slice_sessions)"
            )

    k = int(np.diff(log.display_offsets).max(initial=1))
    pool = np.arange(world.n_items, dtype=np.int32)
    rng = np.random.default_rng(0)
    before = np.zeros((n_events, world.state_dim), np.float32)
    after, rewards = np.zeros_like(before), np.zeros(n_events, np.float32)
    actions = np.zeros((n_events, k), np.int64)

    def users_of(n: int) -> Population:
        return population_of(world, n, rng)

    for users, events, active, slates in live(world, log, users_of, USERS_AT_ONCE):
        now, keys = events[active], rng.integers(0, 2**64, users.n, dtype=np.uint64)
        places = np.where(active, log.choices[events], -1).astype(np.int32)
        response = _respond(users, slates, places)
        if followed is not None:
            response = replace(response, outcomes=followed[events])
        before[now] = users.states[active]
        paid_before = rewards_of.before(users, slates, pool, world.no_click, keys)
        users.follow(slates, places, active, outcomes=response.outcomes)
        after[now] = users.states[active]
        rewards[now] = rewards_of.of(response, slates, users.states, paid_before)[active]
        actions[now, : slates.shape[1]] = np.where(slates == NO_ITEM, slates[:, :1], slates)[active]
        actions[now, slates.shape[1] :] = slates[active, :1]

    space = UserEnv(world=world, slate_size=k)
    buffers = []
    for session, (first, last) in enumerate(pairwise(log.session_offsets.tolist())):
        rows, over = np.arange(first, last), np.arange(first, last) == last - 1
        infos = {"event": np.append(-1, rows)}
        if propensities is not None:
            infos["propensity"] = np.append(np.nan, propensities[rows])
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                id=session,
                observations=np.concatenate([before[rows], after[last - 1 : last]]),
                actions=actions[rows],
                rewards=rewards[rows].tolist(),
                terminations=(over & (end == "termination")).tolist(),
                truncations=(over & (end == "truncation")).tolist(),
                infos=infos,
            )
        )
    spaces = {"observation_space": space.observation_space, "action_space": space.action_space}
    try:
        return minari.create_dataset_from_buffers(dataset_id, buffers, **spaces, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Minari does not write the data set {dataset_id!r}: {error}") from error


def _respond(users: Population, slates: IntArray, places: IntArray) -> Response:
    """The logged choices (n,) from slates (n, k) as users would answer them."""
    response, who = Response.none(users.n), np.flatnonzero(places >= 0)
    response.places[:], response.items[who] = places, slates[who, places[who]]
    response.utilities[who] = users.utilities(slates)[who, places[who]]
    return response


def _import_minari() -> Any:
    try:
        return import_module("minari")
    except ImportError as error:
        raise ConfigError(
            f"an offline data set needs Minari, and it cannot be imported ({error}): "
            "pip install 'minari[hdf5]'"
        ) from error
