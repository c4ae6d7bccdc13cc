"""Training of a policy in a world: rollouts in which it learns, evaluations between them, a row for
each, and a file from which a training that was cut off goes on to the same bytes.

Between two episodes a training is the policy's state and the rows so far. Users are new in every
episode, and what happens to them is counted from seed, number and step: nothing of them is
saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.checkpoint import State, damage_named, load_state, save_state
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.interrupts import Stop
from fastgaum.policies.base import LearningPolicy
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.rollout import Outcome, Setting, play, rollout
from fastgaum.threads import for_small_networks
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import World

EVALUATION_SEED = 1 << 40
"""seeds of evaluations begin here, apart from those of training"""
EVALUATED_USERS = 500
FORMAT = "fastgaum-policy-training-6"
TRAINING_FILE = "resume.safetensors"
NO_SOURCES: Mapping[str, str] = {}
SHARE = 0.05
"""of the time that saving may take"""

EpisodeProgress = Callable[[int, int, dict[str, object]], None]
"""called with episodes done, episodes in all, and the last evaluation's row"""


@dataclass(frozen=True)
class TrainingTerms:
    """What a training is begun with."""

    policy: str
    setting: Setting
    config: PolicyConfig

    def to_mapping(self) -> dict[str, object]:
        """Plain values. Raises ConfigError for a reward or leaving that is a function, which no
        file holds."""
        values = {part.name: getattr(self.setting, part.name) for part in fields(Setting)}
        for name in ("reward", "leaving"):
            if callable(values[name]):
                raise ConfigError(
                    f"a training whose {name} is a function of your own cannot be resumed: name a "
                    "rule"
                )
        pool = dataclasses.asdict(self.setting.pool)
        values["pool"] = {**pool, "items": list(self.setting.pool.items)}
        if values["leaving"] is not None:
            values["leaving"] = np.asarray(values["leaving"], np.float64).tolist()
        return {"policy": self.policy, "setting": values, "config": self.config.to_mapping()}

    @classmethod
    def from_mapping(cls, values: State) -> TrainingTerms:
        """The way back. Raises ConfigError, KeyError, TypeError or ValueError for other values."""
        setting = dict(values["setting"])
        pool = setting.pop("pool")
        pool = Pool(**{**pool, "items": tuple(pool["items"])})
        config = PolicyConfig.from_mapping(dict(values["config"]))
        return cls(values["policy"], Setting(pool=pool, **setting), config)

    @classmethod
    def load(cls, path: Path) -> TrainingTerms:
        """What the training in a file was begun with.

        Raises:
            CheckpointError: missing, damaged, or of another version.
        """
        return _read(path)[0]


@dataclass
class PolicyProgress:
    """How far a training is."""

    episodes: int = 0
    """episodes done"""
    steps: int = 0
    """slates shown in them"""
    rows: list[dict[str, object]] = field(default_factory=list)
    """the evaluations so far"""


class TrainingFile:
    """The file of a training, written at its start and then so often that it takes at most `SHARE`
    of the time.

    Attributes:
        path: the file.
        saved: the progress in the file.
    """

    def __init__(
        self,
        path: Path,
        policy: LearningPolicy,
        setting: Setting,
        stop: Stop | None = None,
        sources: Mapping[str, str] = NO_SOURCES,
    ) -> None:
        """Nothing is written before `save`.

        Args:
            path: the file.
            policy: what is trained.
            setting: what it meets users with.
            stop: asks `save` to end the training.
            sources: fingerprint of all that the world was made of, by what it is called; a training
                goes on with the same alone.

        Raises:
            ConfigError: the training is one that no file can hold.
        """
        self.path, self.policy, self.stop = path, policy, stop or Stop()
        self.sources = dict(sources)
        self.terms = TrainingTerms(policy.name, setting, policy.config).to_mapping()
        self.saved = PolicyProgress()
        self._due = 0.0

    def save(self, progress: PolicyProgress) -> None:
        """Write the training as it is between two episodes, if that is due or it is to stop.

        Raises:
            Interrupted: it is to stop; it can go on from what was written.
            OutputError: the file cannot be written; the former one stays.
        """
        started = time.monotonic()
        if started < self._due and not self.stop.asked:
            return
        state = {
            "terms": self.terms,
            "sources": self.sources,
            "progress": dataclasses.asdict(progress),
            "item_features": self.policy.item_features,
            "policy": self.policy.state(),
        }
        save_state(self.path, FORMAT, state)
        ended = time.monotonic()
        self._due = ended + (ended - started) / SHARE
        self.saved = _copy(progress)
        self.stop.check()

    def load(self) -> PolicyProgress:
        """Put the policy where the file left it, and say how far that is.

        Raises:
            CheckpointError: missing, damaged, or of a training with other terms or in another
                world.
        """
        terms, state = _read(self.path)
        if terms.to_mapping() != self.terms:
            raise CheckpointError(
                f"'{self.path}' is of a training with other settings: go on with those it was "
                "begun with"
            )
        with damage_named(self.path, "policy's training"):
            sources = {str(name): str(value) for name, value in state["sources"].items()}
        for name in sorted({*sources, *self.sources}):
            before, now = sources.get(name), self.sources.get(name)
            if before != now:
                raise CheckpointError(
                    f"'{self.path}' is of a training in another world: its {name} has the "
                    f"fingerprint {_short(before)}, the one given {_short(now)}: give the {name} "
                    "that it was begun with"
                )
        if not np.array_equal(self.policy.item_features, state["item_features"]):
            raise CheckpointError(
                f"'{self.path}' is of a training in another world: give the run it was begun in"
            )
        with damage_named(self.path, "policy's training"):
            self.policy.load_state(state["policy"])
            self.saved = PolicyProgress(**state["progress"])
        return _copy(self.saved)


def _short(fingerprint: str | None) -> str:
    return "none" if fingerprint is None else fingerprint[:12]


def _copy(progress: PolicyProgress) -> PolicyProgress:
    return dataclasses.replace(progress, rows=list(progress.rows))


def _read(path: Path) -> tuple[TrainingTerms, State]:
    if not path.is_file():
        raise CheckpointError(f"no training to resume at '{path}': begin it without --resume")
    state = load_state(path, FORMAT, "train again with --overwrite", "policy's training")
    with damage_named(path, "policy's training"):
        return TrainingTerms.from_mapping(state["terms"]), state


@for_small_networks()
def train_policy(
    policy: LearningPolicy,
    world: World,
    setting: Setting,
    progress: EpisodeProgress | None = None,
    file: TrainingFile | None = None,
    start: PolicyProgress | None = None,
) -> pl.DataFrame:
    """Train a policy; returns a row per evaluation: steps, return, click rate, loss, epsilon.

    `return` is the mean cumulative reward of new users under the policy as it is then, without
    exploration; steps are steps of single users. The same seed on the same machine gives the same
    policy. It takes one thread, unless `fastgaum.threads.set_threads` has said how many.

    Args:
        policy: the policy, which learns.
        world: whose users it meets.
        setting: what it meets them with.
        progress: sees how far the training is, episode by episode.
        file: where the training is saved, so that one that is cut off can go on:
            `train_policy(…, file=file, start=file.load())` ends where one that was not cut off
            ends, to the byte.
        start: where it goes on; None: at its beginning.

    Raises:
        ConfigError: slates or pools do not fit the world.
        NumericsError: training diverged.
        OutputError: the file cannot be written.
        Interrupted: it was asked to stop, and the file holds what was done.
    """
    config = policy.config
    policy.learning = False
    every = max(1, config.episodes // config.evaluations)
    at = start or PolicyProgress()
    for episode in range(at.episodes, config.episodes):
        if file is not None:
            file.save(at)
        shown, losses = _learn(policy, world, setting, episode)
        at.episodes, at.steps = episode + 1, at.steps + shown
        if (episode + 1) % every == 0 or episode + 1 == config.episodes:
            outcome = evaluated(policy, world, setting)
            at.rows.append(
                {
                    "steps": at.steps,
                    "return": float(outcome.returns.mean()),
                    "click_rate": outcome.click_rate,
                    "loss": float(np.mean(losses)) if losses else float("nan"),
                    "epsilon": policy.epsilon,
                }
            )
        if progress is not None:
            progress(episode + 1, config.episodes, at.rows[-1] if at.rows else {})
    if file is not None:
        file.save(at)
    return pl.DataFrame(at.rows)


def _learn(
    policy: LearningPolicy, world: World, setting: Setting, episode: int
) -> tuple[int, list[float]]:
    """One episode of new users with learning on; returns the slates shown and the losses."""
    config = policy.config
    policy.learning = True
    shown, losses = 0, []
    try:
        users = rollout(world, policy, setting, config.users, config.seed, episode * config.users)
        for step, transition in enumerate(users):
            shown += int(transition.active.sum())
            policy.progress = (episode + (step + 1) / setting.horizon) / config.episodes
            losses += [policy.loss] if np.isfinite(policy.loss) else []
    finally:
        policy.learning = False
    return shown, losses


def evaluated(policy: LearningPolicy, world: World, setting: Setting) -> Outcome:
    """An episode of users that training does not meet, without pessimism: what they earn."""
    setting = dataclasses.replace(setting, pessimism=0.0)
    return play(world, policy, setting, EVALUATED_USERS, EVALUATION_SEED + policy.config.seed)
