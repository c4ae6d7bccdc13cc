"""Resume: a policy's training on disk, so that one that was cut off goes on to the very bytes of
one that was not.

Between two episodes a training is its networks and their average, the optimiser, the replay, the
learner's own random stream and the curve so far. Users are new in every episode, and what happens
to them is counted from seed, number and step: nothing of them is kept. One file, replaced as a
whole: arrays in safetensors, the rest as JSON in its metadata."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.interrupts import Stop
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.learner import Learner
from fastgaum.policies.linucb import LinUcb
from fastgaum.policies.pool import Pool
from fastgaum.policies.replay_buffer import Replay, Steps
from fastgaum.policies.rollout import Setting
from fastgaum.tensor_file import damage_named, read_tensors, require_format
from fastgaum.tensor_writer import write_tensors
from fastgaum.untrusted import parse_json

FORMAT = "fastgaum-policy-training-1"
RESUME_FILE = "resume.safetensors"
SHARE = 0.05
"""of the time that keeping may take"""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Terms:
    """What a training was begun with."""

    policy: str
    setting: Setting
    config: PolicyConfig

    def to_json(self) -> str:
        """As text. Raises ConfigError for a reward or leaving that is a function, which no file
        keeps."""
        values = {part.name: getattr(self.setting, part.name) for part in fields(Setting)}
        for name in ("reward", "leaving"):
            if callable(values[name]):
                raise ConfigError(
                    f"a training whose {name} is a function of your own cannot be resumed: name a "
                    "rule"
                )
        values |= {"pool": dataclasses.asdict(self.setting.pool)}
        if values["leaving"] is not None:
            values["leaving"] = np.asarray(values["leaving"], np.float64).tolist()
        return json.dumps(
            {"policy": self.policy, "setting": values, "config": self.config.to_mapping()}
        )

    @classmethod
    def from_json(cls, text: str) -> Terms:
        """The way back. Raises ConfigError, KeyError, TypeError or ValueError for a text that is
        none."""
        values = parse_json(text)
        pool = values["setting"].pop("pool")
        setting = Setting(pool=Pool(**{**pool, "items": tuple(pool["items"])}), **values["setting"])
        return cls(values["policy"], setting, PolicyConfig.from_mapping(values["config"]))


@dataclass
class Position:
    """How far a training is."""

    episodes: int = 0
    """episodes done"""
    steps: int = 0
    """slates shown in them"""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """the curve so far"""


class Keeper:
    """Keeps a training in a file, at its start and then so often that it takes at most `SHARE` of
    the time.

    Attributes:
        path: the file.
        position: the one in the file.
    """

    def __init__(
        self, path: Path, policy: Learner | LinUcb, setting: Setting, stop: Stop | None = None
    ) -> None:
        """Nothing is written before `keep`, which also ends the training when `stop` asks it to.

        Raises:
            ConfigError: the training is one that no file can keep.
        """
        self.path, self.policy, self.stop = path, policy, stop or Stop()
        self.terms = Terms(policy.name, setting, policy.config).to_json()
        self.position = Position()
        self._due = 0.0

    def keep(self, position: Position) -> None:
        """Write the training as it stands between two episodes, if it is due, or is to stop.

        Raises:
            Interrupted: it is to stop; what was written is where it goes on.
            OutputError: the file cannot be written; the former one stays.
        """
        started = time.monotonic()
        if started < self._due and not self.stop.asked:
            return
        arrays, rest = _state(self.policy)
        metadata = {
            "format": FORMAT,
            "terms": self.terms,
            "position": json.dumps(dataclasses.asdict(position)),
            "state": json.dumps(rest),
        }
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()
        }
        write_tensors(self.path, tensors, metadata)
        ended = time.monotonic()
        self._due = ended + (ended - started) / SHARE
        self.position = Position(position.episodes, position.steps, list(position.rows))
        self.stop.check()

    def resume(self) -> Position:
        """Put the policy where the file left it, and say how far that is.

        Raises:
            CheckpointError: missing, damaged, or of a training with other terms or in another
                world.
        """
        terms, arrays, metadata = _read(self.path)
        if terms.to_json() != self.terms:
            raise CheckpointError(
                f"'{self.path}' is of a training with other settings: go on with those it was "
                "begun with"
            )
        own, _ = _state(self.policy)
        if not np.array_equal(own["features"], arrays["features"]):
            raise CheckpointError(
                f"'{self.path}' is of a training in another world: give the run it was begun in"
            )
        with damage_named(self.path, "policy's training"):
            _put_back(self.policy, arrays, parse_json(metadata["state"]))
            self.position = Position(**parse_json(metadata["position"]))
        return Position(self.position.episodes, self.position.steps, list(self.position.rows))


def terms_of(path: Path) -> Terms:
    """What the training in a file was begun with.

    Raises:
        CheckpointError: missing, damaged, or of another version.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Terms, Arrays, dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"no training to resume at '{path}': begin it without --resume")
    with damage_named(path, "policy's training"):
        metadata, tensors = read_tensors(path)
        require_format(path, metadata.get("format"), FORMAT, "train again with --overwrite")
        return (
            Terms.from_json(metadata["terms"]),
            {name: value.numpy() for name, value in tensors.items()},
            metadata,
        )


def _state(policy: Learner | LinUcb) -> tuple[Arrays, dict[str, Any]]:
    """All that a training is between two episodes: arrays, and what JSON keeps exactly."""
    arrays: Arrays = {"features": policy.features}
    if isinstance(policy, LinUcb):
        return arrays | {"gram": policy.gram, "response": policy.response}, {}
    for name, networks in (("net", policy.networks), ("target", policy.target)):
        arrays |= {f"{name}.{key}": value.numpy() for key, value in networks.state_dict().items()}
    for number, moments in policy.optimiser.state_dict()["state"].items():
        arrays |= {f"optimiser.{number}.{key}": value.numpy() for key, value in moments.items()}
    rest = {
        "rng": policy.rng.bit_generator.state,
        "progress": policy.progress,
        "loss": policy.loss,
        "n_updates": policy.n_updates,
        "replay_at": None,
    }
    if policy.replay is not None:
        rest["replay_at"] = policy.replay.at
        held = policy.replay.held
        arrays |= {
            f"replay.{part.name}": getattr(held, part.name)[: policy.replay.size]
            for part in fields(Steps)
        }
    return arrays, rest


def _put_back(policy: Learner | LinUcb, arrays: Arrays, rest: dict[str, Any]) -> None:
    if isinstance(policy, LinUcb):
        policy.restore(arrays["gram"].copy(), arrays["response"].copy())
        return
    for name, networks in (("net", policy.networks), ("target", policy.target)):
        networks.load_state_dict(
            {key: torch.from_numpy(value) for key, value in _below(arrays, name).items()}
        )
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in _below(arrays, "optimiser").items():
        number, _, what = key.partition(".")
        moments.setdefault(int(number), {})[what] = torch.from_numpy(value)
    policy.optimiser.load_state_dict({**policy.optimiser.state_dict(), "state": moments})
    policy.rng.bit_generator.state = rest["rng"]
    policy.progress, policy.loss, policy.n_updates = (
        rest["progress"],
        rest["loss"],
        rest["n_updates"],
    )
    if rest["replay_at"] is not None:
        policy.replay = replay = Replay(policy.config.replay, policy.n_read, policy.k)
        held = _below(arrays, "replay")
        replay.at, replay.size = rest["replay_at"], len(held["rewards"])
        for key, values in held.items():
            getattr(replay.held, key)[: replay.size] = values
    policy.loaded()


def _below(arrays: Arrays, name: str) -> Arrays:
    return {
        key.removeprefix(f"{name}."): value
        for key, value in arrays.items()
        if key.startswith(f"{name}.")
    }
