"""The table of decisions: is the advice of `fg.users` right?

    python bench/experiments/decisions.py run -o decisions.jsonl [--seeds 6]
    python bench/experiments/decisions.py table -o decisions.jsonl

A unit is one truth, one log of its users and one seed. The advice is given before the truth is
opened; then plan and greedy slates are played by the true users. Units that the file holds are not
run again. The list of units and their seeds were committed before the first run; the spread of the
worlds was chosen on other truths (seeds 0 to 3), the error that they share on seeds 100 to 102
(`table --first 103` leaves them out).

Truths: users who tire of genres and of baits, with and without no click, and users whom nothing
tires, each with 30 and 100 items; the synthetic world with bait; and logs of sites, one half of
whose users advise, and a world of the other half pays."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import binomtest

import fastgaum as fg
from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.machine import machine_facts
from fastgaum.policies.advice import Advice
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.planning import LearnedUsers
from fastgaum.policies.rollout import Setting
from fastgaum.policies.trajectories import trajectories
from fastgaum.worlds.pools import Pool, draw_uniform
from fastgaum.worlds.true_world import Bait, TrueWorld
from fastgaum.worlds.world import Population, Response, World, displayed

GENRES, K, STEPS, EPISODES, PAID_USERS = 5, 3, 20, 15, 2000
FIRST_SEED = 100
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


def truth_of(unit: Unit) -> World:
    """The true world of a unit, but for the sites'."""
    if unit.truth == "bait":
        world = SyntheticWorld(n_items=unit.n_items, no_click=0.3, seed=unit.seed)
        return TrueWorld(world, Bait())
    tires = 0.0 if unit.truth == "not tiring" else 0.7
    return GenreWorld(unit.seed, unit.n_items, tires, unit.truth != "tiring, always a choice")


def decide(unit: Unit) -> dict[str, object]:
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


def table_of(rows: list[dict[str, object]]) -> pl.DataFrame:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=["run", "table"])
    parser.add_argument("-o", "--out", type=Path, default=Path("decisions.jsonl"))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the table's first")
    parser.add_argument("--json", type=Path, help="where the page's object is written")
    asked = parser.parse_args()
    rows = []
    if asked.out.exists():
        rows = [json.loads(line) for line in asked.out.read_text().splitlines()]
    if asked.verb == "run":
        done = {
            tuple(row[name] for name in ("truth", "n_items", "n_events", "seed")) for row in rows
        }
        for unit in list_units(asked.seeds):
            if tuple(asdict(unit).values()) in done:
                continue
            rows.append(decide(unit))
            with asked.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            row = rows[-1]
            print(unit, row["decision"], f"{row['lead']:+.2f}, paid {row['paid']:+.2f}", flush=True)
    chosen = [row for row in rows if row["seed"] >= asked.first]
    if asked.json:
        table = {"decisions": table_of(chosen).to_dicts(), "machine": machine_facts(0)}
        asked.json.write_text(json.dumps({**table, "rows": chosen}, indent=1) + "\n")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160):
        print(table_of(chosen))


if __name__ == "__main__":
    main()
