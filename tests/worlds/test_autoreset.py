"""What happens when an episode ends, in each of Gymnasium's three modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from fastgaum.errors import ActionError
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.worlds.small_world import SmallWorld

WORLD = SmallWorld()
SLATES = np.tile([0, 1], (3, 1))


def made(mode: AutoresetMode | str, **options: Any) -> UserVectorEnv:
    return UserVectorEnv(3, world=WORLD, slate_size=2, horizon=4, autoreset_mode=mode, **options)


def test_the_final_observation_is_a_copy() -> None:
    env = made("SAME_STEP", observation="dict")
    env.reset(seed=1)
    infos = [env.step(SLATES)[4] for _ in range(4)]
    final = infos[-1]["final_obs"]
    kept = [one["state"].copy() for one in final]
    for _ in range(6):
        env.step(SLATES)
    for one, before in zip(final, kept, strict=True):
        np.testing.assert_array_equal(one["state"], before)
        one["state"][:] = 7
    assert not (env.users.states == 7).any()


def test_disabled_leaves_the_reset_to_the_caller() -> None:
    env = made("DISABLED")
    env.reset(seed=1)
    for _ in range(4):
        env.step(SLATES)
    with pytest.raises(
        ActionError, match="the episode of user 0 is over and autoreset is disabled"
    ):
        env.step(SLATES)
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ActionError, match="the episode of user 1 is over"):
        env.step(SLATES)
    env.reset(options={"reset_mask": np.array([False, True, False])})
    assert not env.step(SLATES)[3].any()


def test_a_pick_that_is_refused_is_not_kept() -> None:
    """Of no user, where one's episode is over or none has begun."""
    env = made("DISABLED", leaving=lambda response, steps, states: np.array([1.0, 0.0, 0.0]))
    cascade = VectorCascadeWrapper(env)
    with pytest.raises(ActionError, match="no episode has begun"):
        cascade.step(np.array([4, 4, 4]))
    assert not cascade.picks.places.any()
    cascade.reset(seed=1)
    for _ in range(2):
        cascade.step(np.array([0, 1, 2]))
    with pytest.raises(ActionError, match="the episode of user 0 is over"):
        cascade.step(np.array([5, 6, 7]))
    assert not cascade.picks.places.any()
    assert cascade.action_masks().all()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("wrap", [False, True], ids=["slates", "cascade"])
def test_a_mask_resets_some_and_leaves_the_others(mode: AutoresetMode, wrap: bool) -> None:
    env: Any = made(mode)
    env = VectorCascadeWrapper(env) if wrap else env
    actions = np.zeros(3, int) if wrap else SLATES
    env.reset(seed=1)
    before = env.step(actions)[0]
    options = {"reset_mask": np.array([False, True, False])}
    after, _ = env.reset(options=options)
    assert "reset_mask" in options, "the caller's options are the caller's"
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[1], before[1])
    ends = []
    for _ in range(8 if wrap else 4):
        ends.append(env.step(actions)[3])
        if mode is AutoresetMode.DISABLED and ends[-1].any():
            env.reset(options={"reset_mask": ends[-1]})
    if wrap:
        # the first user has one pick and then three slates to go, the second four whole slates
        np.testing.assert_array_equal(np.argmax(ends, axis=0), [6, 7, 6])
    else:
        np.testing.assert_array_equal(np.argmax(ends, axis=0), [2, 3, 2])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(3, bool), "holds no True"),
        (np.ones(2, bool), r"a bool array of shape \(3,\)"),
        (np.ones(3, int), "a bool array"),
        ([True, True, True], "a bool array"),
    ],
)
def test_a_mask_that_is_none_is_refused(mask: Any, message: str) -> None:
    env = made("DISABLED")
    with pytest.raises(ActionError, match="starts everyone"):
        env.reset(options={"reset_mask": np.array([True, False, True])})
    env.reset()
    with pytest.raises(ActionError, match=message):
        env.reset(options={"reset_mask": mask})
    with pytest.raises(ActionError, match="no option 'mask': it takes reset_mask"):
        env.reset(options={"mask": np.array([True, False, True])})
    with pytest.raises(ActionError, match="options are a list"):
        env.reset(options=[1])


@pytest.mark.parametrize("wrap", [False, True], ids=["slates", "cascade"])
def test_a_user_that_starts_anew_is_paid_nothing_and_its_action_not_read(wrap: bool) -> None:
    """Whatever a reward function says of it; the others go on."""
    env: Any = made("NEXT_STEP", leaving=0.5, reward=lambda response, slates, states: np.ones(3))
    env = VectorCascadeWrapper(env) if wrap else env
    env.reset(seed=0)
    ended, starts = np.zeros(3, bool), 0
    for _ in range(40):
        actions = np.where(ended, 99, 1) if wrap else np.where(ended[:, None], 99, SLATES)
        _, rewards, terminated, truncated, info = env.step(actions)
        stepped = info.get("_item", np.zeros(3, bool))
        assert not (stepped & ended).any()
        np.testing.assert_array_equal(rewards, stepped)
        starts += int(ended.sum())
        ended = terminated | truncated
    assert starts > 10
