"""Promised and paid among users that others wrote, of RecSim's interest evolution and of SARDINE:
`pip install recsim-no-tf sardine-rec`, then `python bench/experiments/foreign.py [recsim] [sardine]
[--json docs/tables/foreign.json]`.

A seed logs them with random slates, fits a user model, trains a policy among the learned users, and
plays it, greedy, popular and random slates among the package's own, who choose, change and leave by
its code. The same learner is trained among these too, on the truth, where it reads their minds.

    gap closed = (paid − random) / (trained on the truth − random)"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import BoolArray, FloatArray, IntArray, KeyArray
from fastgaum.bench.experiments.promises import FITTED, MODEL, Learner, seeds_figure
from fastgaum.bench.experiments.transfer_table import FIGURES
from fastgaum.bench.report import write_object
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.splits import shuffled_split
from fastgaum.machine import machine_facts
from fastgaum.models.user_model import UserModel
from fastgaum.policies.base import Observation, Policy, Transition, top_places
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import gap_closed
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.rollout import Setting
from fastgaum.policies.trajectories import trajectories
from fastgaum.policies.transfer import TransferPolicy, shared_pool
from fastgaum.reports.table import Block, Json, TableColumn, blocks_to_markdown, finite, table_of
from fastgaum.threads import one_thread
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import draw_uniforms
from fastgaum.worlds.rules import session_leaving
from fastgaum.worlds.world import Past, Population, Response, World, checked_slates

N_ITEMS, SLATES = 200, 32_000
"""of a catalogue; slates of a training"""
TRAINING = PolicyConfig(evaluations=1, users=64, updates=2, batch=256)
LEARNER, LEARNED, TRUTH = "slateq", "learned world", "truth"
Figures = dict[tuple[str, str], dict[str, float]]
"""of one seed, by policy and where it was made"""


def foreign(module: str) -> Any:
    """A module of another package. Raises ConfigError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{error}: pip install recsim-no-tf sardine-rec") from error


class ForeignWorld(World):
    """Users of another package, an object of it each, over items that stay the same. They choose by
    a softmax over the items of a slate and no click."""

    package: ClassVar[str]
    outside = True
    topics: IntArray
    """main topic of each item, (n_items,)"""
    table: pl.DataFrame
    """what the log says of items: what the package shows its agents"""
    vectors: Sequence[str] = ()
    """its columns of vectors"""

    @abstractmethod
    def user(self, key: int) -> Any:
        """A new user."""

    @abstractmethod
    def choose(self, user: Any, slate: list[int], key: int) -> int:
        """The place of the user's choice, or -1; the user moves on."""

    @abstractmethod
    def state(self, user: Any) -> npt.NDArray[np.floating]:
        """What a learner on the truth reads of a user, (state_dim,)."""

    @abstractmethod
    def log_odds(self, states: FloatArray) -> npt.NDArray[np.floating]:
        """Of each item against no click, (n, n_items)."""

    def population(self, n: int) -> Population:
        return ForeignUsers(self, n)


class ForeignUsers(Population):
    """Users of a `ForeignWorld`; slates hold different items."""

    def __init__(self, world: ForeignWorld, n: int) -> None:
        self.world, self.n, self.users = world, n, np.empty(n, object)
        self._states = np.zeros((n, world.state_dim), np.float32)

    @property
    def states(self) -> FloatArray:
        return self._states

    def reset(self, keys: KeyArray, rows: IntArray | None = None) -> None:
        for row, key in zip(np.arange(self.n) if rows is None else rows, keys, strict=True):
            self.users[row] = self.world.user(int(key))
            self._states[row] = self.world.state(self.users[row])

    def step(self, slates: IntArray, keys: KeyArray, active: BoolArray | None = None) -> Response:
        slates = checked_slates(slates, self.n, self.world.n_items)
        thought, response = self.utilities(slates), Response.none(self.n)
        for row in np.flatnonzero(np.ones(self.n) if active is None else active):
            place = self.world.choose(self.users[row], slates[row].tolist(), int(keys[row]))
            if place >= 0:
                response.places[row], response.items[row] = place, slates[row, place]
                response.utilities[row] = thought[row, place]
            self._states[row] = self.world.state(self.users[row])
        return response

    def utilities(self, pools: IntArray, k: int | None = None) -> FloatArray:
        every = self.world.log_odds(self._states).astype(np.float32)
        pools = np.broadcast_to(pools, (self.n, np.shape(pools)[-1]))
        return np.take_along_axis(every, pools, axis=1)

    def probabilities(self, slates: IntArray) -> tuple[FloatArray, FloatArray]:
        odds = np.exp(self.utilities(slates))
        total = 1 + odds.sum(axis=1, keepdims=True)
        return odds / total, 1 / total[:, 0]


class RecSim(ForeignWorld):
    """RecSim's interest evolution. A click moves the interest in the document's topic; a document
    of high quality takes little of the time that a session has, one of low quality much.

    The package draws candidates for each slate; here they are `N_ITEMS` documents that its sampler
    drew once. State: interests in 20 topics, and the share of the time that is left."""

    package = "recsim-no-tf"

    def __init__(self) -> None:
        self.code = foreign("recsim.environments.interest_evolution")
        self.law = foreign("recsim.choice_model").MultinomialProportionalChoiceModel
        sampler = self.code.UtilityModelVideoSampler(seed=0)
        self.documents = [sampler.sample_document() for _ in range(N_ITEMS)]
        self.item_ids = pl.Series("item", [f"d{one.doc_id()}" for one in self.documents])
        topics = np.array([one.create_observation() for one in self.documents], np.float32)
        quality = np.array([[one.quality] for one in self.documents], np.float32)
        self.item_features = np.concatenate([topics, quality], axis=1)
        self.topics = topics.argmax(axis=1)
        named = [f"topic {topic}" for topic in self.topics]
        self.table = pl.DataFrame({"item": self.item_ids, "topic": named})
        self.time, self.state_dim = self.user(0)._user_state.time_budget, 21

    def user(self, key: int) -> Any:
        return self.code.IEvUserModel(N_ITEMS, self.law, seed=key >> 32)

    def choose(self, user: Any, slate: list[int], key: int) -> int:
        np.random.seed(key >> 32)  # noqa: NPY002  the package draws by numpy's global state
        documents = [self.documents[item] for item in slate]
        responses = user.simulate_response(documents)
        user.update_state(documents, responses)
        return next((place for place, one in enumerate(responses) if one.clicked), -1)

    def state(self, user: Any) -> npt.NDArray[np.floating]:
        return np.append(user.create_observation(), user._user_state.time_budget / self.time)

    def log_odds(self, states: FloatArray) -> npt.NDArray[np.floating]:
        # proportional to interest + 1, where no click is 1 + 1
        return np.log(np.maximum(states[:, self.topics] + 1, 1e-3) / 2)


class Sardine(ForeignWorld):
    """SARDINE's SingleItem-BoredInf-v0. Five clicks on one topic within five steps bore a user, who
    then wants nothing for five steps; each click moves the taste.

    `N_ITEMS` of its 1,000 items are candidates. State: the package's own `IdealState`."""

    package, vectors = "sardine-rec", ("embedding",)

    def __init__(self) -> None:
        foreign("sardine")
        self.env = foreign("gymnasium").make("sardine/SingleItem-BoredInf-v0").unwrapped
        self.numbers = np.random.default_rng(0).permutation(self.env.num_items)[:N_ITEMS]
        self.item_ids = pl.Series("item", [f"s{number}" for number in self.numbers])
        self.item_features = self.env.item_embedd[self.numbers].astype(np.float32)
        self.topics = self.env.item_comp[self.numbers]
        self.table = pl.DataFrame({"item": self.item_ids, "embedding": self.item_features})
        self.state_dim = 3 * self.env.num_topics

    def user(self, key: int) -> Any:
        user = copy.copy(self.env)
        user.ideal_state = user.reset(seed=key)[1]["user_state"]
        return user

    def choose(self, user: Any, slate: list[int], key: int) -> int:
        user.np_random = np.random.default_rng(key)
        _, clicks, _, _, info = user.step(self.numbers[slate])
        user.ideal_state = info["user_state"]
        return 0 if clicks else -1

    def state(self, user: Any) -> npt.NDArray[np.floating]:
        return np.asarray(user.ideal_state)

    def log_odds(self, states: FloatArray) -> npt.NDArray[np.floating]:
        scores = states[:, : self.env.num_topics] @ self.item_features.T / self.env.max_score
        # up to 65, which a learner reads: more than 8 is as good as certain
        return np.asarray(np.clip(self.env.slope * (scores - self.env.offset), -8, 8))


class CountedTopics(Policy):
    """Items of the topics whose share of choices is highest for a user, (choices + .5) / (displays
    + 3): what a site can do that knows topics, reads no mind and learns from no log."""

    name = "counted topics"
    deterministic = True

    def __init__(self, topics: IntArray) -> None:
        self.topics = topics

    def start(self, n: int, past: Iterable[Past] = ()) -> None:
        self.chosen, self.shown = np.zeros((2, n, self.topics.max() + 1))

    def act(self, observation: Observation, k: int) -> IntArray:
        share = ((self.chosen + 0.5) / (self.shown + 3))[:, self.topics]
        ties = draw_uniforms(observation.keys, len(self.topics))
        return top_places((share + 1e-3 * ties).astype(np.float32), k)

    def observe(self, transition: Transition) -> None:
        users, items = np.arange(len(transition.slates))[:, None], transition.response.items
        np.add.at(self.shown, (users, self.topics[transition.slates]), 1)
        clicked = np.flatnonzero(items >= 0)
        self.chosen[clicked, self.topics[items[clicked]]] += 1


@dataclass(frozen=True)
class Case:
    """What is logged and played among users of a package."""

    what: str
    package: str
    """of `PACKAGES`"""
    setting: Setting
    sessions: int
    """of the log"""

    @property
    def world(self) -> ForeignWorld:
        return PACKAGES[self.package]()


PACKAGES: dict[str, Callable[[], ForeignWorld]] = {
    "recsim": cache(RecSim),
    "sardine": cache(Sardine),
}
WHOLE = Setting(3, 150, reward="click", leaving=lambda response, steps, states: states[:, -1] <= 0)
CASES = (
    Case("RecSim, 20 slates of 3", "recsim", Setting(3, 20, reward="click"), 500),
    Case("RecSim, slates of 3 until no time is left", "recsim", WHOLE, 150),
    Case("SARDINE, 50 slates of 1", "sardine", Setting(1, 50, reward="click"), 200),
)


def drawn_log(case: Case, seed: int) -> SessionLog:
    """Sessions of the package's users under random slates, split by user."""
    frames = trajectories(case.world, RandomPolicy(), case.setting, case.sessions, seed)
    frame = pl.concat(frames).select("session", "event", "item", "chosen")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "items.parquet"
        case.world.table.write_parquet(table)
        vectors = case.world.vectors
        log = read_log(frame, item_table=table, item_vectors=vectors, name=case.what)
    return replace(log, split=shuffled_split(log.n_sessions, seed, FITTED))


def figures_of(case: Case, seed: int, users: int) -> Figures:
    """One seed, judged by so many users."""
    truth, log = case.world, drawn_log(case, seed)
    episodes = max(1, SLATES // TRAINING.users // case.setting.horizon)
    learner = Learner(LEARNER, TRAINING.replace(seed=seed, episodes=episodes), users)
    model = UserModel(Config.from_preset("fastgaum", **{**MODEL, "folds": 0}, seed=seed))
    model.fit(log)
    own = LearnedWorld(model, log=log)
    mine, theirs = shared_pool(case.setting.pool, own, truth)
    met = replace(case.setting, pool=theirs)
    # all that the log says of leaving
    leaving = None if met.leaving is None else session_leaving(log)
    home = replace(met, pool=mine, leaving=leaving)
    popular, trained = Popular.of_log(own, log), learner.trained(own, home)
    found: Figures = {}
    for one in (RandomPolicy(), popular, Greedy(), trained):
        promised = float(learner.returns(one, own, home).mean())
        paid = float(learner.returns(TransferPolicy(one, own, truth), truth, met).mean())
        figures = {"promised": promised, "paid": paid, "optimism": promised / paid - 1}
        found[one.name, LEARNED] = figures
    best = learner.trained(truth, case.setting)
    by_hand = CountedTopics(truth.topics)
    for one, where in ((by_hand, "by hand"), (Greedy(), TRUTH), (best, TRUTH)):
        paid = float(learner.returns(one, truth, case.setting).mean())
        found[one.name, where] = {"paid": paid}
    return found


def case_object(case: Case, by_seed: Sequence[Figures]) -> Json:
    """A case's part of the result."""

    def of(made: tuple[str, str], figure: str) -> npt.NDArray[np.float64]:
        return np.array([one[made][figure] for one in by_seed])

    chance, best = of(("random", LEARNED), "paid"), of((LEARNER, TRUTH), "paid")
    closed = {made: gap_closed(of(made, "paid"), chance, best) for made in by_seed[0]}
    rows: list[Json] = []
    for made, figures in by_seed[0].items():
        rows.append({"made": ", ".join(made), **seeds_figure("gap_closed", closed[made])})
        for figure in figures:
            rows[-1] |= seeds_figure(figure, of(made, figure))
    lead = closed[LEARNER, LEARNED] - closed["greedy", LEARNED]
    package = f"{case.world.package} {metadata.version(case.world.package)}"
    facts = {"what": case.what, "sessions": case.sessions, "package": package}
    return {**facts, "rows": rows, **seeds_figure("lead_over_greedy", lead)}


LEAD = TableColumn("", "lead_over_greedy", 0, 100, signed=True, ends="half")


def foreign_blocks(result: Json) -> list[Block]:
    """A table for each case, a row per policy."""
    over = (
        f"clicks of a session, mean of {result['seeds']} seeds of {result['users']} users; ±: half "
        "of the 95 % interval, Student's over seeds"
    )
    blocks = []
    for one in result["cases"]:
        log = f"{one['sessions']} sessions of random slates"
        lead = f"{LEARNER} closes {LEAD.text(one)} points more of the gap than greedy slates"
        title, rows = f"{one['what']} ({one['package']}); {log}", one["rows"]
        figures = (figure for figure in FIGURES if any(figure.key in row for row in rows))
        columns = (TableColumn("policy, made in", "made"), *figures)
        blocks.append(table_of(title, columns, rows, (over, lead)))
    return blocks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*", default=[*PACKAGES], help=" or ".join(PACKAGES))
    for name, default in (("seeds", 5), ("seed", 101), ("users", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if unknown := {*asked.packages} - {*PACKAGES}:
        parser.error(f"no package '{min(unknown)}'; there are {', '.join(PACKAGES)}")
    result: Json = {"machine": machine_facts(asked.seed), "users": asked.users, "model": MODEL}
    chosen = [case for case in CASES if case.package in asked.packages]
    found: Mapping[Case, list[Figures]] = {case: [] for case in chosen}
    # written after each seed: all take an hour
    for result["seeds"] in range(1, asked.seeds + 1):
        seed = asked.seed + result["seeds"] - 1
        for case, figures in found.items():
            print(f"seed {seed}: {case.what}", file=sys.stderr, flush=True)
            try:
                with one_thread():
                    figures.append(figures_of(case, seed, asked.users))
            except ConfigError as error:
                parser.error(str(error))
        cases = [case_object(*one) for one in found.items()]
        result |= {"config": TRAINING.to_mapping(), "cases": cases}
        write_object(asked.json, finite(result))
    print(blocks_to_markdown(foreign_blocks(finite(result))))


if __name__ == "__main__":
    main()
