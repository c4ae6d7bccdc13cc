"""Shares that an audit prints beside its rules: what reading did, what packing dropped, and what a
split or a context field gives away."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from fastgaum.arrays import BoolArray
from fastgaum.logs.actions import Actions
from fastgaum.logs.audit_rules import (
    ONE_VIEW,
    REPEATED_ROWS,
    DisplaySets,
    counts_views,
)
from fastgaum.logs.clicks import ClickFacts
from fastgaum.logs.column_roles import pasts_among
from fastgaum.logs.fold import Rows
from fastgaum.logs.hashes import Hashes, mix_hashes
from fastgaum.logs.log import (
    SPLITS,
    TEST,
    TRAIN,
    SessionLog,
    effective_events,
    worth_text,
)
from fastgaum.logs.vocabulary import Vocabulary
from fastgaum.logs.wide import say_absent

FIXED, FEWEST = 0.99, 20
"""share of the choices that a field must tell, and how many, to be flagged"""


@dataclass(frozen=True)
class Fact:
    """A share that a reader of the table should know."""

    name: str
    percent: float | None
    """None if nothing was counted"""
    n: int
    """the denominator"""
    action: str


def _fact(name: str, n_true: int, n: int, action: str, leaks: bool | None = None) -> Fact:
    """leaks: whether the action is flagged, or said at all."""
    if leaks is not None:
        action = f"FLAG: {action}" if leaks else "-"
    return Fact(name, 100 * n_true / n if n else None, n, action)


def _share(name: str, holds: BoolArray, action: str) -> Fact:
    return _fact(name, int(holds.sum()), len(holds), action)


def facts_of_reading(clicks: ClickFacts, actions: Actions | None) -> Iterator[Fact]:
    """Count several clicks, clicks outside a display and actions by how reading took them."""
    several = {
        "first": f"the first counts, {clicks.ignored} later clicks are ignored",
        "each": "each click is a choice event, of what is left of the display",
    }
    outside = {
        "none": f"such clicks do not count, {clicks.outside_clicks} in all",
        "append": "the item is added to the display, whose size then tells that it was clicked",
        "drop": "the display is left out",
    }
    n = clicks.displays
    if clicks.clicks in several:
        yield _fact("displays with several clicks", clicks.several, n, several[clicks.clicks])
    if clicks.outside in outside:
        name = "displays with a click on an item not displayed"
        yield _fact(name, clicks.outside_displays, n, outside[clicks.outside])
    if actions is not None:
        yield _fact(
            "actions that no event follows",
            actions.left_out,
            actions.n_actions + actions.left_out,
            "left out: of a session that the log does not have, or after its last event",
        )


def say_reading(log: SessionLog, rows: Rows | None) -> Iterator[str]:
    """Say in sentences how a log was read, to a person who trains on it; rows: as read, None for a
    saved log."""
    no_click = 100 * int((log.choices < 0).sum()) / max(log.n_events, 1)
    sizes = [
        f"{log.n_sessions:,} sessions of {len(np.unique(log.users)):,} users",
        f"{log.n_events:,} events ({no_click:.1f} % without a click)",
        f"{log.n_candidates:,} displayed items of {log.n_items:,}",
    ]
    parts = [f"{int((log.split == part).sum()):,} {name}" for part, name in enumerate(SPLITS)]
    yield f"{log.name}: {', '.join(sizes)}; sessions: {', '.join(parts)}"
    fields = [f"{name} ({one.holds}, of the {one.of})" for name, one in log.columns.items()]
    fields += [] if log.weights is None else ["weights of the events"]
    yield f"fields read: {', '.join(fields) or 'none'}"
    train = log.split[log.session_of_event] == TRAIN
    effective = None if log.weights is None else effective_events(log.weights[train])
    if effective is not None:
        yield f"training, {worth_text(int(train.sum()), effective)}"
    if 0 < log.n_candidates == log.n_events:
        yield (
            "every event displays one item; if rows of one display have times of their own, name "
            "what they share (--column event=NAME)"
        )
    if rows is None:
        return
    if rows.absent:
        yield say_absent(rows.absent)
    if rows.not_read:
        pasts = "".join(f"; --past {name} reads the past" for name in pasts_among(rows.not_read))
        yield (
            f"columns not read: {', '.join(rows.not_read)} (--candidate-field, --context-field or "
            f"--column reads one{pasts})"
        )
    if "user" not in rows.events.columns:
        yield "no column of users: each session counts as a user of its own"
    if not (rows.has_times or rows.by_session):
        yield "no numbers or times order the events: they are in the order of their rows"
    if getattr(rows.events["order"].dtype, "time_zone", None) is not None:
        yield "times order events by UTC; a time without an offset counts as UTC"
    for fact in facts_of_reading(log.clicks, log.actions):
        if fact.percent:
            yield f"{fact.name}: {fact.percent:.1f} % of {fact.n:,}; {fact.action}"


def facts_of_rows(sets: DisplaySets, candidates: pl.DataFrame) -> Iterator[Fact]:
    """Count what folding the raw rows drops: repeats and views."""
    clicked, starts = sets.choices >= 0, sets.offsets[:-1]
    choice = (starts + np.maximum(sets.choices, 0))[clicked]
    repeated = np.maximum.reduceat(candidates["rows"].to_numpy(), starts) > 1
    yield _share("events in which an item has several rows", repeated, REPEATED_ROWS)
    if counts_views(sets, candidates):
        unviewed = (candidates["views"].gather(choice) == 0).to_numpy()
        yield _share("clicked items without a view row", unviewed, ONE_VIEW)


def facts_of_log(log: SessionLog, raw: Rows | None) -> Iterator[Fact]:
    """Count actions, events without a click, and test events that say less than others; with its
    raw rows also what came first."""
    shown = log.training_counts().displays > 0
    if log.actions is not None:
        yield _share(
            "events with an action before them",
            np.diff(log.actions.offsets) > 0,
            "tokens of the history, counted apart: no display, no choice, no loss",
        )
        yield _share(
            "actions on items never displayed in training",
            ~shown[log.actions.items],
            "such an item has an id of its own, which the history alone reads",
        )
    clicked, test = log.choices >= 0, log.split[log.session_of_event] == TEST
    yield _share(
        "events without a click",
        ~clicked,
        "no click is an outcome of its own; prec@k leaves these events out",
    )
    yield _share(
        "test events that display one item",
        (np.diff(log.display_offsets) == 1)[test],
        "a free hit: prec@k is reported with and without them",
    )
    order, in_file = np.arange(log.n_events), ""
    if raw is not None and raw.has_times:
        sessions = raw.events.sort("order", maintain_order=True)["session"]
        begun = Vocabulary(sessions.unique(maintain_order=True)).codes(log.session_ids)
        order = np.argsort(begun[log.session_of_event], kind="stable")
    elif np.isin(log.users[log.split == TEST], log.users[log.split != TEST]).any():
        in_file = " in the file"
    is_first = np.zeros(log.n_events, np.bool_)
    of_users = log.users[log.session_of_event[order]]
    is_first[order[np.unique(of_users, return_index=True)[1]]] = True
    yield _share(
        f"test events whose user has no earlier event{in_file}",
        is_first[test],
        "the share is printed beside the table",
    )
    chosen = log.items[log.chosen_candidates][test[clicked]]
    yield _share(
        "clicked test items never displayed in training",
        ~shown[chosen] if shown.any() else np.zeros(0, np.bool_),
        "a trained row for unknown items (id dropout), never a random one",
    )


def facts_of_leaks(log: SessionLog) -> Iterator[Fact]:
    """Count users on both sides of the split, copied sessions, and choices that a field tells."""
    of_train, of_test = log.split == TRAIN, log.split == TEST
    users = np.unique(log.users[of_test])
    n_both = int(np.isin(users, log.users[of_train]).sum())
    known = "test figures are of users whom a model knows: split by user"
    yield _fact("test users who have training sessions too", n_both, len(users), known, n_both > 0)
    hashes = _hash_contents(log)
    train, test = hashes[of_train], hashes[of_test]
    copies = int(np.isin(test, train).sum())
    times = np.unique(train, return_counts=True)[1]
    by_chance = times[times > 1].sum() / max(len(train), 1) * len(test)
    name = "test sessions that equal a training session"
    if copies > by_chance + 3 * math.sqrt(by_chance) + 1:
        says = "FLAG: more than equal one another in training: copies under other ids are no test"
    else:
        says = "alike by nature: as many training sessions equal one another" if copies else "-"
    yield _fact(name, copies, len(test), says)
    counted = (log.choices >= 0) & (np.diff(log.display_offsets) > 1)
    item = log.items[log.display_offsets[:-1][counted] + log.choices[counted]]
    for name, column in sorted(log.context.items()):
        values = log.values_at(name, counted)
        known_values = values >= 0 if column.texts is not None else ~np.isnan(values)
        frame = pl.DataFrame({"value": values[known_values], "item": item[known_values]})
        yield _fixed(name, frame.group_by("value", "item").len())


def _hash_contents(log: SessionLog) -> Hashes:
    """A hash of what each session displays and chooses, with its fields, shape (n_sessions,)."""
    number, of_candidate = log.event_number.astype(np.uint64), log.event_of_candidate()
    chosen = np.zeros(log.n_candidates, np.uint64)
    chosen[log.chosen_candidates] = 1
    hashes = mix_hashes(number[of_candidate] * np.uint64(2) + chosen, log.items.astype(np.uint64))
    for column in log.columns_of("candidate").values():
        hashes = mix_hashes(hashes, column.values.view(np.uint32).astype(np.uint64))
    whole = np.zeros(log.n_sessions, np.uint64)
    np.add.at(whole, log.session_of_event[of_candidate], hashes)
    for column in log.columns_of("event").values():
        number = mix_hashes(number, column.values.view(np.uint32).astype(np.uint64))
    np.add.at(whole, log.session_of_event, number)
    return whole


def _fixed(name: str, counts: pl.DataFrame) -> Fact:
    by_value = counts.group_by("value").agg(n=pl.col("len").sum(), most=pl.col("len").max())
    several = by_value.filter(pl.col("n") > 1)
    n, most = int(several["n"].sum()), int(several["most"].sum())
    usual = counts.group_by("item").agg(pl.col("len").sum())["len"].max()
    share = (usual if isinstance(usual, int) else 0) / max(int(by_value["n"].sum()), 1)
    return _fact(
        f"choices of the item that is usual under their {name}",
        most,
        n,
        f"{name} tells the choice: if it is not known before the choice, leave it out",
        n >= FEWEST and most >= FIXED * n and share < FIXED,
    )
