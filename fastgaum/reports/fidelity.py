"""The fidelity report: a world and a log side by side, as one object of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import entr

from fastgaum.arrays import IntArray
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.logs.cut import pick_rows, slice_sessions
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.metrics.calibration import candidate_outcomes, expected_calibration_error
from fastgaum.metrics.evaluation import HeadScores
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel, fits_without
from fastgaum.nets.networks import Head
from fastgaum.reports.behaviour import (
    LogVersions,
    compare_sides,
    reliability_curve,
    score_log,
    values_of,
)
from fastgaum.reports.table import Json
from fastgaum.worlds.replay import replay, versions, world_of
from fastgaum.worlds.world import World

EPISODES, DRAWS = 20_000, 1999


def fidelity(
    model: ChoiceModel,
    log: SessionLog,
    *,
    world: World | None = None,
    split: SplitName = "test",
    head: Head | None = None,
    episodes: int = EPISODES,
    seed: int = 0,
    draws: int = DRAWS,
) -> Json:
    """Replay a split in a world and compare its users with the log.

    Args:
        model: measures surprise and calibration.
        log: the log, with the split.
        world: the world; None = that of the model over the log's items (`worlds.replay.world_of`).
            Of a model by folds each user lives in the world of one fit, as in `WorldSet`. One that
            trained it lives in that of the fit that left it out, whose counts are of the other
            folds, and this fit alone measures it.
        split: the sessions that are replayed.
        head: whose distribution users choose by; None = the generator where the model has one.
        episodes: simulated sessions, about. Of a split of more sessions, so many are drawn, by
            whole users.
        seed: seeds users and draws.
        draws: of the bootstrap.

    Returns: an object for JSON; `world_tables.fidelity_block` prints it.

    Raises:
        ConfigError: an impossible number, a model that does not fit the log, or a world without the
            log's items.
        LogFormatError: the split is empty.
        FeatureMismatchError: the log's fields are not the training log's.
    """
    for name, value, least in (("episodes", episodes, 1), ("draws", draws, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
    if model.space is None:
        raise ConfigError("the model has not been trained: call fit or load first")
    drawn, left_out = _drawn_sessions(log, split, episodes, seed)
    part, cohorts = slice_sessions(log, drawn), _cohorts(model, log, drawn, world, head)
    read_by: Head = head if head is not None else getattr(cohorts[0].world, "head", "reward")
    replicas = max(1, episodes // part.n_sessions)
    every = versions(part, _replayed(cohorts, part, replicas, seed))
    context = LogVersions.of(every, 1 + replicas, model.space)
    scored = _scored(cohorts, every, 1 + replicas, read_by)
    rows = [
        compare_sides(context, name, values, draws, seed)
        for name, values in values_of(context, scored, model.no_click)
    ]
    known = np.isin(part.item_ids.to_numpy(), model.space.categorical[0].values.to_numpy())
    return {
        "log": {"name": log.name, "fingerprint": log.fingerprint},
        "split": split,
        "head": read_by,
        "sessions": part.n_sessions,
        "events": part.n_events,
        "users": context.n_users,
        "left_out_sessions": left_out,
        "folds": model.space.folds if world is None else 0,
        "out_of_fold_sessions": sum(len(one.sessions) for one in cohorts if one.fold >= 0),
        "weighted": log.weights is not None,
        "replicas": replicas,
        "draws": draws,
        "seed": seed,
        "new_items": float(1.0 - known[part.items].mean()),
        "fields_averaged": sorted(part.columns_of("candidate")),
        "statistics": rows,
        "calibration": _calibration(context, scored, draws, seed),
    }


@dataclass(frozen=True)
class _Cohort:
    """Sessions that live in one world, and are measured by one model."""

    sessions: IntArray
    """their places among those that are replayed, (n,)"""
    model: ChoiceModel
    world: World
    fold: int = -1
    """of the users, who trained the model's other fits; -1: of users who did not train"""


def _cohorts(
    model: ChoiceModel,
    log: SessionLog,
    rows: IntArray,
    world: World | None,
    head: Head | None,
) -> list[_Cohort]:
    def cohort(sessions: IntArray, one: ChoiceModel, fold: int = -1) -> _Cohort:
        if world is not None:
            return _Cohort(sessions, one, world, fold)
        if not isinstance(one, UserModel):
            raise ConfigError(
                "a world is made of a UserModel: pass one, or a world of your own (world=…)"
            )
        return _Cohort(sessions, one, world_of(one, log, head), fold)

    held_out = None
    if isinstance(model, UserModel) and model.space is not None and model.space.folds:
        held_out = Encoder(model.space, log).held_out(rows)
    if not isinstance(model, UserModel) or held_out is None:
        return [cohort(np.arange(len(rows), dtype=np.int32), model)]
    # the last one, of fold -1, is the mean of all
    models = [*fits_without(model, log), model]
    return [
        cohort(np.flatnonzero(held_out == fold).astype(np.int32), models[fold], fold)
        for fold in np.unique(held_out).tolist()
    ]


def _replayed(cohorts: Sequence[_Cohort], part: SessionLog, replicas: int, seed: int) -> IntArray:
    """The choices of every cohort's sessions in its world, (replicas, n_events)."""
    if len(cohorts) == 1:
        return replay(cohorts[0].world, part, replicas, seed)
    choices = np.empty((replicas, part.n_events), np.int32)
    for one in cohorts:
        _, events = pick_rows(part.session_offsets, one.sessions)
        own = slice_sessions(part, one.sessions)
        # users of two worlds share no draws
        choices[:, events] = replay(one.world, own, replicas, (seed, 3, one.fold + 1))
    return choices


def _scored(
    cohorts: Sequence[_Cohort], every: SessionLog, n_versions: int, head: Head
) -> HeadScores:
    """The scores of all versions, those of a cohort by its model."""
    if len(cohorts) == 1:
        return score_log(cohorts[0].model, every, head)
    n = every.n_sessions // n_versions
    scores, log_probs = np.empty((2, every.n_candidates))
    no_click = np.empty(every.n_events)
    for one in cohorts:
        sessions = (one.sessions + n * np.arange(n_versions)[:, None]).ravel().astype(np.int32)
        _, events = pick_rows(every.session_offsets, sessions)
        _, candidates = pick_rows(every.display_offsets, events)
        own = score_log(one.model, slice_sessions(every, sessions), head)
        scores[candidates], log_probs[candidates] = own.scores, own.log_probs
        no_click[events] = own.no_click_log_prob
    # as those of `score_log`, in double precision
    found: list[Any] = [scores, log_probs, no_click]
    return HeadScores(*found)


def _drawn_sessions(
    log: SessionLog, split: SplitName, episodes: int, seed: int
) -> tuple[IntArray, int]:
    """The sessions of a split that are replayed, and how many are left out."""
    rows = log.sessions_in(split)
    if len(rows) == 0:
        raise LogFormatError(
            f"log '{log.name}' has no session in split '{split}': choose another split"
        )
    kept = rows
    if len(rows) > episodes:
        users, of_row = np.unique(log.users[rows], return_inverse=True)
        place = np.random.default_rng([seed, 2]).permutation(len(users))[of_row]
        sizes = np.bincount(place)
        # users in drawn order as long as they fit, at least one
        kept = rows[place < max(1, int(np.searchsorted(np.cumsum(sizes), episodes, side="right")))]
    return kept, len(rows) - len(kept)


def _calibration(context: LogVersions, scored: HeadScores, draws: int, seed: int) -> Json:
    c, n_versions = context, context.n_versions
    n_events = c.log.n_events // n_versions
    offsets = c.log.display_offsets
    probs, outcomes = np.exp(scored.log_probs), candidate_outcomes(offsets, c.log.choices)
    # all versions have the same displays
    errors = [
        expected_calibration_error(*both)
        for both in zip(
            probs.reshape(n_versions, -1), outcomes.reshape(n_versions, -1), strict=True
        )
    ]
    none = np.exp(scored.no_click_log_prob)
    entropy = np.add.reduceat(entr(probs), offsets[:-1]) + entr(none)
    return {
        "ece": errors[0],
        "ece_simulated": [float(value) for value in np.quantile(errors[1:], [0.025, 0.5, 0.975])],
        "entropy": float(entropy[:n_events].mean()),
        "entropy_simulated": float(entropy[n_events:].mean()),
        "no_click": float(none[:n_events].mean()),
        "curve": reliability_curve(c, scored, draws, seed),
    }
