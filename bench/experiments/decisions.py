"""The table of decisions: is the advice of `fg.users` right?

    fastgaum bench decisions --units decisions.jsonl --seeds 7

A unit is one truth, one log of its users and one seed. The advice is given before the truth is
opened; then plan and greedy slates are played by the true users. Units that the file holds are not
run again. The list of units and their seeds were committed before the first run; the spread of the
worlds was chosen on other truths (seeds 0 to 3), the error that they share on seeds 100 to 102;
the table begins behind them.

Truths: users who tire of genres and of baits, with and without no click, and users whom nothing
tires, each with 30 and 100 items; the synthetic world with bait; and logs of sites, one half of
whose users advise, and a world of the other half pays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import binomtest

import fastgaum as fg
from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.errors import ConfigError
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.machine import machine_facts
from fastgaum.policies.advice import Advice
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.planning import LearnedUsers
from fastgaum.policies.rollout import Setting
from fastgaum.policies.trajectories import trajectories
from fastgaum.reports.table import Json
from fastgaum.untrusted import parse_json, read_text
from fastgaum.worlds.pools import Pool, draw_uniform
from fastgaum.worlds.true_world import Bait, TrueWorld
from fastgaum.worlds.world import Population, Response, World, displayed

GENRES, K, STEPS, EPISODES, PAID_USERS = 5, 3, 20, 15, 2000
FIRST_SEED = 103
"""the first seed of the table: by those before it a constant was chosen"""
EVENTS = (2000, 4000, 16_000)
SITES = ("yelp", "yoochoose", "taobao")


class GenreWorld(World):
    """u = quality + [bait] − tires · (satiation of the genre + fatigue / .7); no click has 0. A
    choice adds 1 to its genre's satiation, which keeps 75 % a step, and a bait .45 to fatigue,
    which keeps 85 %."""

    def __init__(self, seed: int, n_items: int, tires: float, no_click: bool) -> None:
        rng = np.random.default_rng(seed)
        self.genre = rng.permutation(np.arange(n_items) % GENRES)
        self.is_bait = rng.permutation(np.arange(n_items) % 3 == 0)
        self.quality = rng.normal(-0.6, 0.6, n_items)
        self.tires, self.no_click, self.state_dim = tires, no_click, GENRES + 1
        self.item_ids = pl.Series([f"i{at:04d}" for at in range(n_items)])
        genres = self.genre[:, None] == np.arange(GENRES)
        features = np.column_stack([self.quality, self.is_bait, genres])
        self.item_features: FloatArray = features.astype(np.float32)

    def population(self, n: int) -> GenreUsers:
        return GenreUsers(self, n)


class GenreUsers(Population):
    """Users of a `GenreWorld`; their states are satiation by genre, then fatigue."""

    def __init__(self, world: GenreWorld, n: int) -> None:
        self.world, self.n = world, n
        self._states = np.zeros((n, world.state_dim), np.float32)

    @property
    def states(self) -> FloatArray:
        return self._states

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        self._states[slice(None) if rows is None else rows] = 0

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        world, pools = self.world, np.broadcast_to(pools, (self.n, pools.shape[-1]))
        satiation = np.take_along_axis(self._states, world.genre[pools], axis=1)
        tired = world.tires * (satiation + self._states[:, GENRES:] / 0.7)
        return np.asarray(world.quality[pools] + world.is_bait[pools] - tired, np.float32)

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        weights = np.where(displayed(slates) >= 0, np.exp(self.utilities(slates)), 0)
        total = weights.sum(axis=1) + self.world.no_click
        none = np.asarray(self.world.no_click / total, np.float32)
        return np.asarray(weights / total[:, None], np.float32), none

    def step(self, slates: IntArray, keys: KeyArray, active: BoolArray | None = None) -> Response:
        world, there = self.world, np.ones(self.n, np.bool_) if active is None else active
        probs, k = self.probabilities(slates)[0], slates.shape[1]
        places = (draw_uniform(keys)[:, None] > np.cumsum(probs, axis=1)).sum(axis=1)
        if not world.no_click:
            places = np.minimum(places, k - 1)
        rows = np.flatnonzero(there & (places < k))
        response = Response.none(self.n)
        items = slates[rows, places[rows]]
        response.places[rows], response.items[rows] = places[rows], items
        response.utilities[rows] = self.utilities(slates)[rows, places[rows]]
        self._states[there] *= np.array([0.75] * GENRES + [0.85], np.float32)
        self._states[rows, world.genre[items]] += 1
        self._states[rows, GENRES] += 0.45 * world.is_bait[items]
        return response


@dataclass(frozen=True)
class Unit:
    """One decision: a kind of truth and its size, events of the log, and the seed of both."""

    truth: str
    n_items: int
    n_events: int
    seed: int


def list_units(n_seeds: int) -> Iterator[Unit]:
    """All units, a seed after the other."""
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        for truth in ("tiring", "tiring, always a choice", "not tiring"):
            for n_items in (30, 100):
                yield from (Unit(truth, n_items, n, seed) for n in EVENTS)
        for n_items in (10, 200):
            yield from (Unit("bait", n_items, n, seed) for n in EVENTS[1:])
        yield from (Unit(site, 0, 0, seed) for site in SITES)


def unit_of(row: Json) -> Unit:
    """The unit of a row, whose events are those of its log: a site has as many as it has."""
    unit = Unit(**{one.name: row[one.name] for one in fields(Unit)})
    return replace(unit, n_events=0) if unit.truth in SITES else unit


def truth_of(unit: Unit) -> World:
    """The true world of a unit, but for the sites'."""
    if unit.truth == "bait":
        world = SyntheticWorld(n_items=unit.n_items, no_click=0.3, seed=unit.seed)
        return TrueWorld(world, Bait())
    tires = 0.0 if unit.truth == "not tiring" else 0.7
    return GenreWorld(unit.seed, unit.n_items, tires, unit.truth != "tiring, always a choice")


def decide(unit: Unit) -> Json:
    """The advice on a log of the unit's users, and what is then paid."""
    if unit.truth in SITES:
        home, away = fg.halves(fg.load(unit.truth), seed=unit.seed)
        users = fg.users(home, seed=unit.seed, progress=False)
        pool = Pool("per_user", 40)
        plan = users.train("slateq", k=10, horizon=5, pool=pool, episodes=EPISODES, evaluations=1)
        advice = plan.advice()
        truth: World | LearnedUsers = fg.users(away, seed=unit.seed + 1, progress=False)
    else:
        truth = truth_of(unit)
        reward = "click" if truth.no_click else "surplus"
        terms = Setting(K, STEPS, reward=reward)
        frames = trajectories(truth, RandomPolicy(), terms, unit.n_events // STEPS, unit.seed)
        columns = ["session", "event", "item", "chosen"]
        log = fg.read_log(pl.concat([*frames]).select(columns))
        users = fg.users(log, seed=unit.seed, progress=False)
        plan = users.train("slateq", k=K, horizon=STEPS, episodes=EPISODES, evaluations=1)
        advice = plan.advice()
    paid = fg.judge([plan, "greedy"], among=truth, n_users=PAID_USERS).to_frame()
    lead, low, high = paid.row(0, named=True)["lead"], *paid.select("low", "high").row(0)
    return {**asdict(unit), **advice.to_dict(), "paid": lead, "paid_low": low, "paid_high": high}


def table_of(rows: list[Json]) -> pl.DataFrame:
    """A row per kind of truth, and one of all: units, answers, false deployments with the upper
    95 % bound of Clopper and Pearson, taken gain, and how often the interval holds the paid lead.
    """
    # by today's rule: a file holds the leads
    frame = pl.DataFrame([{**row, **Advice.of(row).to_dict()} for row in rows])
    found = []
    for truth, part in [*frame.group_by("truth", maintain_order=True), (("all",), frame)]:
        deployed = part.filter(pl.col("decision") == "deploy")
        false = deployed.filter(pl.col("paid") < 0).height
        gain = part["paid"].clip(lower_bound=0).sum()
        bound = (
            binomtest(false, deployed.height).proportion_ci(0.95).high if deployed.height else 1.0
        )
        found.append(
            {
                "truth": truth[0],
                "units": part.height,
                "deploy": deployed.height,
                "keep greedy": part.filter(pl.col("decision") == "keep greedy").height,
                "cannot tell": part.filter(pl.col("decision") == "cannot tell").height,
                "false": false,
                "false at most": round(bound, 3),
                "taken gain": deployed["paid"].clip(lower_bound=0).sum() / gain if gain else None,
                "covered": part.select(
                    pl.col("paid").is_between(pl.col("low"), pl.col("high")).mean()
                ).item(),
            }
        )
    return pl.DataFrame(found)


def read_rows(path: Path) -> list[Json]:
    """The units that a file holds, a line each; none where there is no file. Raises ConfigError for
    a line that is no unit's."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            rows.append(parse_json(line))
            unit_of(rows[-1])
            Advice.of(rows[-1])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"line {number} of '{path}' is no decision ({error}): give the file that "
                "`fastgaum bench decisions --units` wrote, or a new one"
            ) from error
    return rows


def run(path: Path, n_seeds: int, say: Callable[[str], None]) -> list[Json]:
    """Decide the units of so many seeds that the file does not hold, each added to it when it is
    done; return all that it holds."""
    rows = read_rows(path)
    done = set(map(unit_of, rows))
    for unit in list_units(n_seeds):
        if unit not in done:
            rows.append(decide(unit))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            lead, paid = rows[-1]["lead"], rows[-1]["paid"]
            say(f"{unit}: {rows[-1]['decision']}, lead {lead:+.2f}, paid {paid:+.2f}")
    return rows


def lines_of(result: Json) -> list[tuple[str, ...]]:
    """The table of an object as text: names of columns, a row per kind of truth, the last of
    all."""
    rows = result["decisions"]
    lines = [tuple(rows[0])]
    for row in rows:
        cells = ("–" if one is None else one for one in row.values())
        lines.append(tuple(f"{one:.2f}" if isinstance(one, float) else str(one) for one in cells))
    return lines


def decisions_object(rows: list[Json]) -> Json:
    """The page's object, of units by which nothing was chosen. Raises ConfigError for none."""
    judged = [row for row in rows if row["seed"] >= FIRST_SEED]
    if not judged:
        raise ConfigError(f"no unit has a seed from {FIRST_SEED} on, by which nothing was chosen")
    return {
        "decisions": table_of(judged).to_dicts(),
        "machine": machine_facts(0),
        "rows": judged,
    }
