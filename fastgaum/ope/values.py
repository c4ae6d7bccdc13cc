"""Off-policy values of a log: the one call, and its table.

A value is the expected clicks (or their worth) of one display, of the logged users in the states
that the log left them in. A log without propensities is taken to show random sets of its pool, if
displays do not depend on clicks (`logs.audit_displays`) and items are shown evenly
(`uniform_logging.judge_evenness`)."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import Float64Array
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.audit_displays import DisplayDependence, display_dependence
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.log import SessionLog
from fastgaum.ope.estimators import ratio_interval, value_estimates
from fastgaum.ope.importance_weights import weigh_events
from fastgaum.ope.replay import Target, replay_policy
from fastgaum.ope.uniform_logging import judge_evenness
from fastgaum.policies.heuristics import Popular
from fastgaum.reports.table import Block, Json, TableColumn, num, span, table_of
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet

VALUE_COLUMNS = (
    TableColumn("estimator", "estimator"),
    TableColumn("value", "value", 4, none="-"),
    TableColumn("95 %", "ci", 4),
    TableColumn("effective events", "effective_events", 0, none="-"),
    TableColumn("why", "why"),
)


def off_policy_values(
    log: SessionLog,
    target: Target,
    *,
    propensities: npt.NDArray[np.floating] | None = None,
    pool: npt.NDArray[np.integer] | None = None,
    world: World | None = None,
    item_values: npt.NDArray[np.floating] | None = None,
    seed: int = 0,
) -> Json:
    """Estimate the value of a policy in the events of a log.

    Args:
        log: all its sessions are read: `slice_sessions(log, log.sessions_in("test"))`.
        target: whose value is asked for.
        propensities: the logged probability of each event's slate, shape (n_events,); None: slates
            are random sets of the pool.
        pool: codes of the items that slates are made of; None: all items of the log.
        world: users who follow the logged ones; without, dm, dr, dr-pi and policies that read users
            have no value. Of a set of worlds values are means over the members; the policy reads
            the users as the first one follows them.
        item_values: the worth of a click on each item, shape (n_items,); None: 1.
        seed: seeds random slates.

    Returns: an object for JSON: `estimates` has a row per estimator; `dependence` whether displays
        depend on clicks; `hidden_unevenness` how much more or less often than the others an item
        may be displayed and pass the test, None with propensities; `notes` are doubts.

    Raises:
        ConfigError: the log holds successive choices of its displays; or the pool, the policy, the
            world, the propensities or the values do not fit the log.
        LogFormatError: the log has no event, or none of the size that the policy makes; or every
            event has a choice and no worth of clicks is given.
    """
    refuse_successive(log.context, "off-policy values are of")
    if log.weights is not None:
        raise ConfigError(
            f"off-policy values weigh events by their propensities, and log '{log.name}' has "
            "weights of events too: read it without them (--weight '', weight='')"
        )
    if log.n_events == 0:
        raise LogFormatError(
            f"log '{log.name}' has no event to estimate from: choose another split"
        )
    if item_values is None and not log.has_no_click:
        raise LogFormatError(
            f"every event of log '{log.name}' has a choice, so that each display earns one click "
            "under any policy: say what clicks are worth (item_values=…, --value COLUMN)"
        )
    sizes = np.diff(log.display_offsets)
    if target.k is not None and not (sizes == target.k).any():
        raise LogFormatError(
            f"log '{log.name}' has no display of {target.k} items, which {target.policy.name} "
            "makes: train it for the log's size of displays"
        )
    items = (np.arange(log.n_items) if pool is None else np.unique(pool)).astype(np.int32)
    if len(items) and not 0 <= items[0] <= items[-1] < log.n_items:
        raise ConfigError(
            f"the pool has codes from {items[0]} to {items[-1]}, and log '{log.name}' has items 0 "
            f"to {log.n_items - 1}: leave out items that the log does not have (code -1)"
        )
    outside = np.setdiff1d(log.items, items)
    if len(outside):
        raise ConfigError(
            f"log '{log.name}' displays {len(outside):,} items that the pool lacks "
            f"('{log.item_ids[int(outside[0])]}' …): give a pool that holds all that was shown"
        )
    for what, values, n in (
        ("propensities", propensities, log.n_events),
        ("values of items", item_values, log.n_items),
    ):
        if values is not None and np.shape(values) != (n,):
            raise ConfigError(f"the {what} have the shape {np.shape(values)}, ({n},) is required")
    worth, within = np.ones(log.n_items), (0.0, 1.0)
    if item_values is not None:
        worth = np.asarray(item_values, np.float64)
        unknown = items[~np.isfinite(worth[items])]
        if len(unknown):
            raise ConfigError(
                f"what a click on {len(unknown):,} items of the pool is worth is unknown "
                f"('{log.item_ids[int(unknown[0])]}' …): give a pool without them"
            )
        within = min(0.0, float(worth[items].min())), max(0.0, float(worth[items].max()))
    dependence, refused, given, hidden = display_dependence(log), "", None, None
    if propensities is not None:
        given = np.asarray(propensities, np.float64)
        wrong = np.flatnonzero(~((given > 0.0) & (given <= 1.0)))
        if len(wrong):
            raise ConfigError(
                f"the propensity of event {wrong[0]} is {given[wrong[0]]}, a probability above 0 "
                "and at most 1 is required: it is that of what was shown"
            )
    else:
        refused, hidden = judge_evenness(log, items)
        if dependence is not None and dependence.found:
            refused = (
                f"displays depend on clicks (z = {dependence.z:.1f}): they are no random sets, "
                "give logged propensities (--propensity)"
            )
    rewards = np.zeros(log.n_events)
    rewards[np.asarray(log.choices) >= 0] = worth[log.items[log.chosen_candidates]]
    shown = replay_policy(log, target, world, items, worth, seed)
    clicks = item_values is None and world is not None and world.outside
    weighted = weigh_events(log, target, shown, items, rewards, propensities=given, clicks=clicks)
    weighted = dataclasses.replace(weighted, rewards_within=within, refused=refused)
    v = weighted.slate_weights

    def interval(per_event: Float64Array) -> Json:
        value, low, high = ratio_interval(per_event, None, weighted.users)
        return {"value": value, "ci": [low, high]}

    return {
        "log": {"name": log.name, "fingerprint": log.fingerprint},
        "events": len(weighted.rewards),
        "left_out_events": log.n_events - len(weighted.rewards),
        "users": len(np.unique(weighted.users)),
        "policy": target.policy.name,
        "epsilon": target.random_share,
        "propensities": "random sets" if given is None else "logged",
        "pool_items": len(items),
        "logged_value": interval(weighted.rewards),
        "unseen": float(weighted.unseen.mean()),
        "mean_weight": interval(weighted.weights.values),
        "mean_slate_weight": None if v is None else interval(v.values),
        "dependence": None if dependence is None else dataclasses.asdict(dependence),
        "hidden_unevenness": hidden,
        "notes": _notes(log, sizes, world, target),
        "estimates": [dataclasses.asdict(one) for one in value_estimates(weighted)],
    }


def off_policy_block(result: Json) -> Block:
    """The table of an `off_policy_values`."""
    logged, dependence, hidden = (
        result[name] for name in ("logged_value", "dependence", "hidden_unevenness")
    )
    notes = [
        "whether displays depend on clicks cannot be told: too few follow a click"
        if dependence is None
        else DisplayDependence(**dependence).to_text(),
        f"{result['events']:,} events of {result['users']:,} users, who earned "
        f"{num(logged['value'], 4)} a display ({span(logged['ci'], 4)})",
        f"propensities: {result['propensities']}, pool of {result['pool_items']:,} items; wrong "
        "propensities make every value wrong but dm",
    ]
    if hidden is not None:
        notes.append(
            "whether each item is displayed about as often was tested: one that is displayed "
            f"{100 * hidden:.0f} % more or less often may have passed"
        )
    notes += result["notes"]
    if result["left_out_events"]:
        notes.append(f"{result['left_out_events']:,} events of other sizes of displays left out")
    title = f"{result['policy']} on {result['log']['name']}, random share {result['epsilon']:g}"
    return table_of(title, VALUE_COLUMNS, result["estimates"], notes)


def _notes(
    log: SessionLog, sizes: npt.NDArray[np.integer], world: World | None, target: Target
) -> list[str]:
    fitted = np.isin(log.session_of_event, log.sessions_in("train"))
    count = int((fitted & (sizes == (target.k or sizes))).sum())
    notes = []
    if isinstance(world, LearnedWorld | WorldSet):
        notes.append(
            "A run that was fitted on them knows their clicks: dm repeats them, and dr and dr-pi "
            "find too little to correct."
        )
    if isinstance(target.policy, Popular):
        notes.append("popular is made of their choices, so that every value of it is too high.")
    if not count or not notes:
        return []
    warning = f"warning: {count:,} of these events are of the training split."
    return [" ".join([warning, *notes, "Take events of another split (--split test)"])]
