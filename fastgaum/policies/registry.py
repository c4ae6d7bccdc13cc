"""Policies by name, and a trained policy on disk: one safetensors file with its weights, name,
configuration, share of decoys, and the slates, pool, reward, horizon and leaving of its training.
No pickle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from fastgaum.arrays import FloatArray
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean
from fastgaum.policies.base import Policy
from fastgaum.policies.cascade_dqn import CascadeDqn
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.heuristics import Greedy, Popular, RandomPolicy
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.rollout import Setting
from fastgaum.policies.slateq import SlateQ
from fastgaum.state_file import State, damage_named, load_state, save_state
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet

LEARNERS: dict[str, type[QLearner]] = {policy.name: policy for policy in (SlateQ, CascadeDqn)}
"""policies that `train_policy` trains and a file keeps"""
RULE_NAMES = (RandomPolicy.name, Popular.name, Greedy.name)
"""policies that need no training"""
POLICIES = (*RULE_NAMES, *LEARNERS)
"""all names, in the order of the table"""
POLICY_FORMAT = "fastgaum-policy-8"
POLICY_FILE = "policy.safetensors"
TERMS = ("reward", "horizon", "leaving")
"""what a policy's file holds of its training's `Setting` beside slates and pools"""


def popularity_in(world: World) -> FloatArray | None:
    """How often the training of a learned world chose each item, shape (n_items,); None of another
    world."""
    if not isinstance(world, LearnedWorld | WorldSet):
        return None
    popularity = np.zeros(world.n_items, np.float32)
    counts = world.catalogue.space.item_counts.choices
    # further items come last, and training chose none of them
    popularity[: len(counts)] = counts
    return popularity


def chosen_names(asked: Iterable[str]) -> list[str]:
    """The policies asked for, or every one for `all`, in the order of the table. Raises ConfigError
    for an unknown name."""
    names = list(asked)
    for name in names:
        if name not in (*POLICIES, "all"):
            raise ConfigError(
                f"no policy '{name}'{did_you_mean(name, POLICIES)}; policies are "
                f"{', '.join(POLICIES)}, or all"
            )
    return [name for name in POLICIES if name in names or "all" in names]


def untrained(
    name: str,
    world: World,
    k: int,
    pool: Pool,
    config: PolicyConfig,
    weights: Mapping[str, Tensor] | None = None,
) -> QLearner:
    """A policy that `train_policy` can train, or that has the weights of a file. Raises ConfigError
    for a name that is none, ValueError for weights that the configuration does not ask for."""
    require_trained(name)
    return LEARNERS[name](world, k, pool, config, weights)


def find_policy(path: Path) -> Path:
    """The file of a policy, given it or its folder. Raises CheckpointError where there is none."""
    file = path / POLICY_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"no policy at '{path}': give a folder written by `fastgaum rl train`, or its "
            f"{POLICY_FILE}{did_you_mean(str(path), RULE_NAMES)}"
        )
    return file


def require_trained(name: str) -> None:
    """Raise ConfigError unless a policy of that name is one that is trained."""
    if name not in LEARNERS:
        raise ConfigError(
            f"policy '{name}' is not trained in a world{did_you_mean(name, LEARNERS)}; "
            f"{', '.join(LEARNERS)} are"
        )


def make_policy(name: str, popularity: FloatArray | None = None) -> Policy:
    """A policy that needs no training; `popularity` of each item, shape (n_items,), for `popular`.
    Raises ConfigError for another name, or without the popularity."""
    if name in (RandomPolicy.name, Greedy.name):
        return RandomPolicy() if name == RandomPolicy.name else Greedy()
    if name == Popular.name:
        if popularity is None:
            raise ConfigError("popular needs a popularity per item, and this world has none")
        return Popular(popularity)
    chosen_names([name])
    raise ConfigError(
        f"policy '{name}' is trained: use untrained() and train_policy(), or a file that holds it"
    )


@dataclass(frozen=True)
class SavedPolicy:
    """A policy that was read from a file."""

    policy: QLearner
    setting: Setting
    """of its training, without pessimism; parts that the file does not hold have their defaults"""
    unknown: tuple[str, ...]
    """reward or leaving, where it was a function"""

    def notes(self, met: Setting) -> list[str]:
        """A sentence for each of horizon, leaving and pool that differs from its training's, or is
        unknown; and why it is not recommended, if its decoys say so."""
        notes = []
        if self.policy.not_recommended:
            notes.append(f"{self.policy.name} is not recommended: {self.policy.not_recommended}")
        for name in ("horizon", "leaving", "pool"):
            before, now = getattr(self.setting, name), getattr(met, name)
            same = now.draws_as(before) if name == "pool" else str(before) == str(now)
            if name in self.unknown:
                notes.append(
                    f"the policy's file does not say the {name} that it was trained with: it meets "
                    f"{name} {now}"
                )
            elif not same:
                notes.append(f"the policy was trained with {name} {before} and meets {name} {now}")
        return notes


def save_policy(policy: QLearner, path: Path, setting: Setting) -> None:
    """Write a trained policy and its training's setting, atomically; a reward or leaving that is a
    function is left out. Raises ConfigError for slates or a pool that are not the policy's,
    OutputError."""
    if setting.k != policy.k or not setting.pool.draws_as(policy.pool):
        raise ConfigError(
            f"{policy.name} was made for slates of {policy.k} from a pool {policy.pool}, and the "
            f"setting has slates of {setting.k} from {setting.pool}: save it with the setting "
            "of its training"
        )
    leaving = setting.leaving
    if leaving is not None and not callable(leaving):
        leaving = np.asarray(leaving, np.float64).tolist()
    terms = {"reward": setting.reward, "horizon": setting.horizon, "leaving": leaving}
    state = {
        "policy": policy.name,
        "k": setting.k,
        "pool": dataclasses.asdict(setting.pool),
        "setting": {name: value for name, value in terms.items() if not callable(value)},
        "config": policy.config.to_mapping(),
        "item_features": policy.item_features,
        "made_in": policy.made_in,
        "decoys": policy.decoys,
        # the running average is what acts
        "weights": dict(policy.target.state_dict()),
    }
    save_state(path, POLICY_FORMAT, state)


def load_policy(path: str | Path, world: World) -> SavedPolicy:
    """Read a policy for the world that it was trained in. Raises CheckpointError for a file that is
    missing, damaged, of another format, or trained in another world."""
    file = find_policy(Path(path))
    state = load_state(file, POLICY_FORMAT, "train again", State, "policy")
    with damage_named(file, "policy"):
        for name in ("pool", "config", "weights", "setting"):
            if not isinstance(state[name], dict):
                raise ValueError(
                    f"its {name} is a {type(state[name]).__name__}, not values by name"
                )
        config = PolicyConfig.from_mapping(state["config"])
        # before the pool, which another world may not be able to show
        features, own = state["item_features"], np.asarray(world.item_features, np.float32)
        if (
            not isinstance(features, np.ndarray)
            or features.dtype != own.dtype
            or features.shape != own.shape
            or not np.allclose(own, features, atol=1e-5)
            or state["made_in"] != world.fingerprint
        ):
            raise CheckpointError(
                f"'{file}' was trained in another world, whose items or states are not those of "
                "this run: load the run it was trained in"
            )
        setting = _setting(state, world)
        policy = untrained(
            state["policy"], world, setting.k, setting.pool, config, state["weights"]
        )
        # files of earlier versions have none
        decoys = state.get("decoys")
        if decoys is not None and not (isinstance(decoys, float) and 0 <= decoys <= 1):
            raise ValueError(f"its share of decoys is {decoys}, a number from 0 to 1 is required")
        policy.decoys, policy.pays_surplus = decoys, setting.pays.is_surplus
    return SavedPolicy(
        policy, setting, tuple(name for name in TERMS if name not in state["setting"])
    )


def _setting(state: State, world: World) -> Setting:
    """The setting of its training. Raises KeyError, TypeError, ValueError or ConfigError unless it
    is possible in the world."""
    values, k = state["pool"], state["k"]
    terms = {name: state["setting"][name] for name in TERMS if name in state["setting"]}
    horizon = terms.get("horizon", 1)
    if not all(type(number) is int for number in (k, horizon, values["size"], *values["items"])):
        raise ValueError("sizes, items and horizon must be whole numbers")
    pool = Pool(**{**values, "items": tuple(values["items"])})
    pool.check(world.n_items, k)
    return Setting(k, pool=pool, **terms)
