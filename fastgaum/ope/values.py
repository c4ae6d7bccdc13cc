"""Off-policy values of a log: the one call, and its table.

    log = fg.load("clicks.csv")
    world = world_over(UserModel.load("runs/mine"), log)
    result = off_policy_values(log, Target(Greedy(), epsilon=0.1), world=world)
    print(result["estimates"])

A value is the expected clicks (or the expected worth of the click) of one display: of the logged
users, in the states that the log left them in, under the target policy. What the target's
displays would make of users later is not in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgaum.errors import LogFormatError
from fastgaum.logs.log import SessionLog
from fastgaum.ope.display_law import Float64Array
from fastgaum.ope.estimators import WeightedEvents, ratio_interval, value_estimates
from fastgaum.ope.shown import replay_policy
from fastgaum.ope.targets import Target
from fastgaum.ope.weights import LoggedDisplays, LoggedEvents, weigh_events
from fastgaum.reports.table import Block, Json, num, span
from fastgaum.worlds.world import World

POPULAR_DISPLAYS = LoggedDisplays()


def off_policy_values(
    log: SessionLog,
    target: Target,
    *,
    displays: LoggedDisplays = POPULAR_DISPLAYS,
    world: World | None = None,
    values: npt.NDArray[np.floating] | None = None,
    seed: int = 0,
) -> Json:
    """Estimate what a policy would have earned in the events of a log.

    Args:
        log: all its sessions are read: `slice_sessions(log, log.sessions_in("test"))` has those of
            a split.
        target: whose value is asked for.
        displays: how the log's slates came about.
        world: users who follow the logged ones; for the direct method, doubly robust values, and
            policies that read users. None: those have no value.
        values: what a click on each candidate is worth, shape (n_candidates,); None: 1.
        seed: seeds random slates.

    Returns: an object for JSON: `estimates` has a row per estimator; `off_policy_block` prints it.

    Raises:
        ConfigError: the pool, the policy, the world or the propensities do not fit the log.
        LogFormatError: the log has no event, or none of the size that the policy makes; or every
            event has a choice and no worth of clicks is given.
    """
    if values is None and log.n_events and not log.has_no_click:
        raise LogFormatError(
            f"every event of log '{log.name}' has a choice, so that each display earns one click "
            "under any policy: say what clicks are worth (values=…, --value COLUMN)"
        )
    events = LoggedEvents(log, displays)
    worth, of_items = np.ones(log.n_candidates), None
    if values is not None:
        worth = np.asarray(values, np.float64)
        counts = np.maximum(np.bincount(log.items, minlength=log.n_items), 1)
        of_items = np.bincount(log.items, weights=worth, minlength=log.n_items) / counts
    shown = replay_policy(log, target, world, events.pool, of_items, seed)
    if not shown.read.any():
        raise LogFormatError(
            f"log '{log.name}' has no display of {target.k} items, which {target.policy.name} "
            "makes: train it for the log's size of displays"
        )
    weighted = weigh_events(events, target, shown, worth)
    slate_side = weighted.slate_weights
    return {
        "log": {"name": log.name, "fingerprint": log.fingerprint},
        "events": len(weighted.rewards),
        "left_out_events": int((~shown.read).sum()),
        "users": len(np.unique(weighted.users)),
        "policy": target.policy.name,
        "epsilon": target.random_share,
        "propensities": "logged" if events.law is None else displays.law,
        "pool_items": len(events.pool),
        "logged_value": _interval(weighted.rewards, weighted),
        "unseen": float(weighted.unseen.mean()),
        "mean_weight": _interval(weighted.weights.values, weighted),
        "mean_slate_weight": None if slate_side.why else _interval(slate_side.values, weighted),
        "estimates": [
            {
                "estimator": one.estimator,
                "value": one.value,
                "ci": [one.low, one.high],
                "effective_events": one.effective_events,
                "why": one.why,
            }
            for one in value_estimates(weighted)
        ],
    }


def off_policy_block(result: Json) -> Block:
    """The table of an `off_policy_values`."""
    rows = [
        (
            one["estimator"],
            num(one["value"], 4),
            "" if one["value"] is None else span(one["ci"], 4),
            num(one["effective_events"], 0),
            one["why"],
        )
        for one in result["estimates"]
    ]
    logged = result["logged_value"]
    notes = [
        f"{result['events']:,} events of {result['users']:,} users, who earned "
        f"{num(logged['value'], 4)} a display ({span(logged['ci'], 4)})",
        f"propensities: {result['propensities']}, pool of {result['pool_items']:,} items; wrong "
        "propensities make every value wrong but dm, and the log cannot show it",
    ]
    if result["left_out_events"]:
        notes.append(f"{result['left_out_events']:,} events of other sizes of displays left out")
    title = f"{result['policy']} on {result['log']['name']}, random share {result['epsilon']:g}"
    columns = ("estimator", "value", "95 %", "effective events", "why not")
    return Block(title, columns, tuple(rows), tuple(notes))


def _interval(per_event: Float64Array, events: WeightedEvents) -> Json:
    value, low, high = ratio_interval(per_event, None, events.users)
    return {"value": value, "ci": [low, high]}
