"""The file of a trained policy: it says what the policy was trained with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fastgaum.checkpoint import State, load_state, save_state
from fastgaum.errors import CheckpointError
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.registry import POLICY_FORMAT, load_policy, save_policy, untrained
from fastgaum.policies.rollout import Setting
from fastgaum.worlds.pools import Pool
from tests.policies.small_world import TiringWorld


def test_a_file_says_what_the_policy_was_trained_with(tmp_path: Path) -> None:
    """Where it meets users with something else, that is said; functions of one's own are not
    known."""
    world, file = TiringWorld(), tmp_path / "policy.safetensors"
    setting = Setting(2, 5, Pool("per_user", 6), "contrast", [0.1, 0.3])
    policy = untrained("slateq", world, 2, setting.pool, PolicyConfig())
    save_policy(policy, file, setting)
    saved = load_policy(file, world)
    assert saved.setting == setting
    assert saved.notes(setting) == []
    other = dataclasses.replace(setting, horizon=20, reward="utility", pool=Pool())
    assert saved.notes(other, ("horizon", "reward", "leaving", "pool")) == [
        "the policy was trained with horizon 5 and meets horizon 20",
        "the policy was trained with reward contrast and meets reward utility",
        "the policy was trained with pool per_user and meets pool fixed",
    ]
    save_policy(policy, file, Setting(2, 5, reward=lambda response, slates, states: slates[:, 0]))
    assert load_policy(file, world).unknown == ("reward",)
    assert load_policy(file, world).notes(Setting(2, 5)) == [
        "the policy's file does not say the reward that it was trained with: it meets reward "
        "utility"
    ]
    state = load_state(file, POLICY_FORMAT, "", State)
    for wrong in ({"horizon": 2.5}, {"reward": "likes"}, {"leaving": [2.0]}, {"horizon": 0}):
        save_state(file, POLICY_FORMAT, state | {"setting": wrong})
        with pytest.raises(CheckpointError, match="damaged"):
            load_policy(file, world)
