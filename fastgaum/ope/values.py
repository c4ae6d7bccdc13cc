"""Off-policy values of a log: the one call, and its table.

    log = fg.load("clicks.csv")
    world = world_over(UserModel.load("runs/mine"), log)
    result = off_policy_values(log, Target(Greedy(), epsilon=0.1), world=world)
    print(result["estimates"])

A value is the expected clicks (or the expected worth of the click) of one display: of the logged
users, in the states that the log left them in, under the target policy. What the target's
displays would make of users later is not in it.

Before anything is weighed, the log is asked whether its displays depend on what users clicked
(`logs.audit_displays`). Where they do, no law that leaves the user out made them: without logged
propensities nothing that is made of weights has a value."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.audit_displays import DependenceSums, DisplayDependence
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.log import SessionLog
from fastgaum.ope.display_law import Float64Array
from fastgaum.ope.estimators import WeightedEvents, ratio_interval, value_estimates
from fastgaum.ope.shown import Shown, replay_policy
from fastgaum.ope.targets import Target
from fastgaum.ope.weights import LoggedDisplays, LoggedEvents, weigh_events
from fastgaum.policies.evaluation import lower_bound_of
from fastgaum.reports.table import Block, Json, num, span
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet

POPULAR_DISPLAYS = LoggedDisplays()


def off_policy_values(
    log: SessionLog,
    target: Target,
    *,
    displays: LoggedDisplays = POPULAR_DISPLAYS,
    world: World | None = None,
    values: npt.NDArray[np.floating] | None = None,
    item_values: npt.NDArray[np.floating] | None = None,
    seed: int = 0,
) -> Json:
    """Estimate what a policy would have earned in the events of a log.

    Args:
        log: all its sessions are read: `slice_sessions(log, log.sessions_in("test"))` has those of
            a split.
        target: whose value is asked for.
        displays: how the log's slates came about.
        world: users who follow the logged ones; for the direct method, doubly robust values, and
            policies that read users. None: those have no value. A set of worlds says the mean of
            what its members say.
        values: what a click on each candidate is worth, shape (n_candidates,); None: 1.
        item_values: with `values` and a world, what a click on each item is worth, shape (n_items,)
            and NaN where it is not known; None: the item's mean in this log. The
            `mean_item_values` of a whole log know the items too that one of its splits never
            displays.
        seed: seeds random slates.

    Returns: an object for JSON: `estimates` has a row per estimator; `set` what each member of a
        set promises (`dm`), the bound that 95 % of new members exceed, and how far they are apart
        about a display of the target; `dependence` whether displays depend on clicks; `notes` what
        is doubtful. `off_policy_block` prints it.

    Raises:
        ConfigError: the log holds successive choices of its displays; or the pool, the policy, the
            world, the propensities or the values do not fit the log; or a world is to value an item
            of the pool whose clicks have no known worth.
        LogFormatError: the log has no event, or none of the size that the policy makes; or every
            event has a choice and no worth of clicks is given.
    """
    refuse_successive(log.event_fields, "off-policy values are of")
    if values is None and log.n_events and not log.has_no_click:
        raise LogFormatError(
            f"every event of log '{log.name}' has a choice, so that each display earns one click "
            "under any policy: say what clicks are worth (values=…, --value COLUMN)"
        )
    events = LoggedEvents(log, displays)
    worth = np.ones(log.n_candidates)
    of_items: Float64Array | None = None
    if values is not None:
        worth = _checked(values, log)
        of_items = np.asarray(
            mean_item_values(log, worth) if item_values is None else item_values, np.float64
        )
        if of_items.shape != (log.n_items,):
            raise ConfigError(
                f"the values of items have the shape {of_items.shape}, one per item is required: "
                f"({log.n_items},)"
            )
        unknown = events.pool[~np.isfinite(of_items[events.pool])]
        if world is not None and len(unknown):
            raise ConfigError(
                f"what a click on {len(unknown):,} items of the pool is worth is unknown "
                f"('{log.item_ids[int(unknown[0])]}' …), the log never displays them: give a pool "
                "without them"
            )
    shown = replay_policy(log, target, world, events.pool, of_items, seed)
    if not shown.read.any():
        raise LogFormatError(
            f"log '{log.name}' has no display of {target.k} items, which {target.policy.name} "
            "makes: train it for the log's size of displays"
        )
    dependence = DependenceSums.of(log).test()
    weighted = dataclasses.replace(
        weigh_events(events, target, shown, worth),
        rewards_within=_rewards_within(worth, of_items, events.pool),
        refused=_refusal(dependence, events),
    )
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
        "dependence": None if dependence is None else dataclasses.asdict(dependence),
        "set": _of_set(shown) if isinstance(world, WorldSet) else None,
        "notes": _notes(log, shown, world, target),
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


def mean_item_values(log: SessionLog, values: npt.NDArray[np.floating]) -> Float64Array:
    """What a click on each item is worth in the mean of its displays, shape (n_items,); NaN of an
    item that is never displayed.

    Args:
        log: where the items are displayed.
        values: what a click on each candidate is worth, shape (n_candidates,).

    Raises:
        ConfigError: there is not one finite value per candidate.
    """
    counts = np.bincount(log.items, minlength=log.n_items)
    sums = np.bincount(log.items, weights=_checked(values, log), minlength=log.n_items)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


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
    said = "whether displays depend on clicks cannot be told: too few follow a click"
    if result["dependence"] is not None:
        said = DisplayDependence(**result["dependence"]).to_text()
    notes = [
        f"{result['events']:,} events of {result['users']:,} users, who earned "
        f"{num(logged['value'], 4)} a display ({span(logged['ci'], 4)})",
        f"propensities: {result['propensities']}, pool of {result['pool_items']:,} items; wrong "
        "propensities make every value wrong but dm",
        said,
    ]
    if (members := result["set"]) is not None:
        promised = ", ".join(num(value, 4) for value in members["dm"])
        bound = members["lower_bound"]
        notes.append(
            f"dm is the mean of {len(members['dm'])} worlds, which promise {promised}"
            + ("" if bound is None else f" (lower bound {num(bound, 4)})")
            + f"; their disagreement about a display of the policy is {members['disagreement']:.3f}"
        )
    notes += result["notes"]
    if result["left_out_events"]:
        notes.append(f"{result['left_out_events']:,} events of other sizes of displays left out")
    title = f"{result['policy']} on {result['log']['name']}, random share {result['epsilon']:g}"
    columns = ("estimator", "value", "95 %", "effective events", "why")
    return Block(title, columns, tuple(rows), tuple(notes))


def _checked(values: npt.NDArray[np.floating], log: SessionLog) -> Float64Array:
    given = np.asarray(values, np.float64)
    if given.shape != (log.n_candidates,):
        raise ConfigError(
            f"the values of clicks have the shape {given.shape}, one per candidate is required: "
            f"({log.n_candidates},)"
        )
    wrong = np.flatnonzero(~np.isfinite(given))
    if len(wrong):
        raise ConfigError(
            f"the value of a click on candidate {wrong[0]} is {given[wrong[0]]}, a finite number "
            "is required"
        )
    return given


def _of_set(shown: Shown) -> Json:
    by_member = shown.by_member[:, shown.read].mean(axis=1)
    return {
        "dm": by_member.tolist(),
        "lower_bound": lower_bound_of(by_member),
        "disagreement": float(shown.disagreement[shown.read].mean()),
    }


def _rewards_within(
    worth: Float64Array, of_items: Float64Array | None, pool: npt.NDArray[np.integer]
) -> tuple[float, float]:
    """The least and the most that a display can earn: no click, or the click worth most."""
    worths = worth if of_items is None else np.append(worth, of_items[pool])
    return min(0.0, float(np.nanmin(worths))), max(0.0, float(np.nanmax(worths)))


def _refusal(dependence: DisplayDependence | None, events: LoggedEvents) -> str:
    """Why no law of displays holds; empty where one may, or propensities are logged."""
    if events.law is None or dependence is None or not dependence.found:
        return ""
    return (
        f"displays depend on clicks (z = {dependence.z:.1f}): no law without the user made them, "
        "give logged propensities (--propensity)"
    )


def _notes(log: SessionLog, shown: Shown, world: World | None, target: Target) -> list[str]:
    """What makes the values doubtful."""
    fitted = np.zeros(log.n_sessions, bool)
    fitted[log.sessions_in("train")] = True
    count = int(fitted[log.session_of_event[shown.read]].sum())
    if count == 0:
        return []
    of_training = f"warning: {count:,} of these events are of the training split. "
    notes = []
    if isinstance(world, LearnedWorld | WorldSet):
        notes.append(
            f"{of_training}A run that was fitted on them knows their clicks: dm repeats them, and "
            "dr and dr-pi find too little to correct. Take events that the run was not fitted on "
            "(--split test)"
        )
    if target.fitted:
        notes.append(
            f"{of_training}{target.policy.name} is made of their choices, so that every value of "
            "it is too high. Take events that it was not made of (--split test)"
        )
    return notes


def _interval(per_event: Float64Array, events: WeightedEvents) -> Json:
    value, low, high = ratio_interval(per_event, None, events.users)
    return {"value": value, "ci": [low, high]}
