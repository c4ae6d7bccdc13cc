"""A training that was cut off: it ends in the bytes of one that was not, and its file is refused
where it does not belong."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.policies import training as module
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.q_learning import QLearner
from fastgaum.policies.registry import LEARNERS, TRAINED, save_policy, untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import (
    PolicyProgress,
    TrainingFile,
    TrainingTerms,
    train_policy,
)
from fastgaum.worlds.pools import Pool
from tests.policies.small_world import TiringWorld

CONFIG = PolicyConfig(
    width=8, towers=(8,), episodes=6, users=32, warm_up=64, batch=32, evaluations=3, replay=250
)
SETTING = Setting(2, 5, Pool("per_step", 6), leaving=[0.1, 0.3])
WORLD = TiringWorld()


class CutOffError(Exception):
    """What a kill is here."""


def trained(
    name: str,
    folder: Path,
    cut_at: int | None = None,
    resume: bool = False,
    config: PolicyConfig = CONFIG,
) -> bytes:
    """The bytes of a training's policy and curve; cut off after some episodes, or going on."""
    policy = untrained(name, WORLD, 2, SETTING.pool, config)
    file = TrainingFile(folder / "resume.safetensors", policy, SETTING)

    def observer(done: int, total: int, row: dict[str, object]) -> None:
        if done == cut_at:
            raise CutOffError

    table = train_policy(policy, WORLD, SETTING, observer, file, file.load() if resume else None)
    save_policy(policy, folder / "policy.safetensors", SETTING)
    return (folder / "policy.safetensors").read_bytes() + table.serialize()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every episode, however long that takes."""
    monkeypatch.setattr(module, "SHARE", np.inf)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_cut_off_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    whole = trained(name, tmp_path / "whole")
    with pytest.raises(CutOffError):
        trained(name, tmp_path / "cut", cut_at=2)
    with pytest.raises(CutOffError):
        trained(name, tmp_path / "cut", cut_at=5, resume=True)
    file = TrainingFile(
        tmp_path / "cut" / "resume.safetensors",
        untrained(name, WORLD, 2, SETTING.pool, CONFIG),
        SETTING,
    )
    assert file.load().episodes == 4
    assert trained(name, tmp_path / "cut", resume=True) == whole
    # the seed is seen in the bytes: the comparison can fail
    assert trained(name, tmp_path / "other", config=CONFIG.replace(seed=1)) != whole


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", LEARNERS)
def test_all_of_a_learner_is_saved(name: str, tmp_path: Path) -> None:
    """Networks, their average, moments, replay, stream, schedule: each to the bit, and none of them
    at its start."""
    with pytest.raises(CutOffError):
        trained(name, tmp_path, cut_at=4)
    policy = untrained(name, WORLD, 2, SETTING.pool, CONFIG)
    assert isinstance(policy, QLearner)
    fresh = copy.deepcopy(policy.state())
    progress = TrainingFile(tmp_path / "resume.safetensors", policy, SETTING).load()
    state = policy.state()
    assert (progress.episodes, len(progress.rows)) == (3, 1)
    assert state["rng"] != fresh["rng"]
    assert 0.4 < policy.progress <= 0.5
    assert CONFIG.last_epsilon < policy.epsilon < CONFIG.epsilon
    assert policy.n_updates > 0
    assert policy.replay is not None
    # the ring has gone round
    assert policy.replay.size == 250 > policy.replay.at > 0
    assert state["moments"]
    assert not fresh["moments"]
    assert any((state["target"][key] != value).any() for key, value in fresh["target"].items())


def test_saving_takes_its_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that a writing moves by 1 s: at a share of 5 % the next one is due 20 s later."""
    now = [100.0]
    policy = untrained("linucb", WORLD, 2, SETTING.pool, CONFIG)
    file = TrainingFile(tmp_path / "resume.safetensors", policy, SETTING)
    written: list[float] = []
    save = module.save_state

    def slow(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        written.append(now[0])
        now[0] += 1

    monkeypatch.setattr(module, "save_state", slow)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(50):
        file.save(PolicyProgress())
        now[0] += 1
    assert np.diff(written).tolist() == [21.0, 21.0]


@pytest.mark.usefixtures("often")
def test_a_file_is_refused_where_it_does_not_belong(tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        trained("slateq", tmp_path, cut_at=2)
    path = tmp_path / "resume.safetensors"
    assert TrainingTerms.load(path) == TrainingTerms("slateq", SETTING, CONFIG)
    for name, world, setting, config in (
        ("dqn", WORLD, SETTING, CONFIG),
        ("slateq", WORLD, Setting(2, 6, SETTING.pool), CONFIG),
        ("slateq", WORLD, SETTING, CONFIG.replace(lr=0.1)),
    ):
        with pytest.raises(CheckpointError, match="other settings"):
            TrainingFile(path, untrained(name, world, 2, setting.pool, config), setting).load()
    other = TiringWorld()
    other.item_features = other.item_features + 1
    with pytest.raises(CheckpointError, match="another world"):
        TrainingFile(path, untrained("slateq", other, 2, SETTING.pool, CONFIG), SETTING).load()
    policy = untrained("slateq", WORLD, 2, SETTING.pool, CONFIG)
    for sources, found in (({}, "d" * 12), ({"log": "abc"}, "none"), ({"log": "abc"}, "d" * 12)):
        given = {} if found == "none" else {"log": found + "…"}
        with_log = TrainingFile(tmp_path / "with log", policy, SETTING, sources=sources)
        with_log.save(PolicyProgress())
        with pytest.raises(CheckpointError, match=f"its log has the fingerprint .* {found}: give"):
            TrainingFile(tmp_path / "with log", policy, SETTING, sources=given).load()
    assert with_log.load() == PolicyProgress()
    with pytest.raises(CheckpointError, match="no training to resume"):
        TrainingTerms.load(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        TrainingTerms.load(path)


def test_a_rule_of_one_s_own_is_in_no_file(tmp_path: Path) -> None:
    policy = untrained("linucb", WORLD, 2, Pool(), CONFIG)
    setting = Setting(
        2, 5, reward=lambda response, slates, states: np.ones(len(response.places), np.float32)
    )
    with pytest.raises(ConfigError, match="reward is a function"):
        TrainingFile(tmp_path / "resume.safetensors", policy, setting)
    assert isinstance(train_policy(policy, WORLD, setting), pl.DataFrame)
