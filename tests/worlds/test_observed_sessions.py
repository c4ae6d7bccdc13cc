"""What an observation holds of a session: enough for the utilities of the pool, and the time
left."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from fastgaum.errors import ConfigError
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.observations import row_of
from fastgaum.worlds.pools import START
from fastgaum.worlds.true_world import TrueWorld
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World
from tests.worlds.small_world import SmallWorld

N = 3000


def bytes_of(observation: Any, user: int) -> bytes:
    parts: Any = row_of(observation, user)
    return b"".join(part.tobytes() for part in parts.values())


@pytest.mark.parametrize("world", ["learned", "logged starts", "true, repeat", "true, bait"])
def test_equal_observations_have_equal_utilities(
    request: pytest.FixtureRequest, world: str
) -> None:
    """Users whose dicts are the same to the bit think the same of the pool, though they were shown
    the same in another order; users whose states alone are the same do not."""
    users_of: World
    if world.startswith("true"):
        repeat = 1.5 if world.endswith("repeat") else 0.0
        users_of = TrueWorld(SyntheticWorld(n_items=20, no_click=0.3, repeat=repeat))
    else:
        log = request.getfixturevalue("small_log")
        starts: Any = {"starts": "logged", "log": log} if world == "logged starts" else {}
        users_of = LearnedWorld(request.getfixturevalue("small_model"), **starts)
    env = UserVectorEnv(N, world=users_of, slate_size=2, pool=[4, 0, 7], observation="dict")
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(3):
        observation = env.step(rng.permuted(np.tile(np.arange(3), (N, 1)), axis=1)[:, :2])[0]
    utilities = env.users.utilities(np.array([4, 0, 7], np.int32), 2)
    by_dict: dict[bytes, list[int]] = {}
    by_state: dict[bytes, list[int]] = {}
    assert isinstance(observation, dict)
    for user in range(N):
        by_dict.setdefault(bytes_of(observation, user), []).append(user)
        by_state.setdefault(observation["state"][user].tobytes(), []).append(user)

    def apart(groups: dict[bytes, list[int]]) -> float:
        return max(float(np.ptp(utilities[rows], axis=0).max()) for rows in groups.values())

    assert sum(len(rows) - 1 for rows in by_dict.values()) > 100
    assert apart(by_dict) < 1e-5
    if world == "learned":
        assert apart(by_state) > 0.01


@pytest.mark.parametrize("pool", ["fixed", "per_user", "per_step"])
def test_a_dict_counts_what_was_shown_and_chosen(pool: Any) -> None:
    """Against a reading of each episode; a repeated item is displayed once, and a new episode
    begins with nothing."""
    env = UserVectorEnv(
        30,
        world=SmallWorld(),
        slate_size=3,
        pool=pool,
        pool_size=5,
        horizon=4,
        observation="dict",
        autoreset_mode="SAME_STEP",
        leaving=0.1,
    )
    observation: Any = env.reset(seed=0)[0]
    rng = np.random.default_rng(0)
    shown, chosen = [Counter[int]() for _ in range(30)], [list[int]() for _ in range(30)]
    events, ends = np.zeros(30, int), 0
    for _ in range(9):
        pools = np.broadcast_to(env.pools.items, (30, 5)).copy()
        places = rng.integers(5, size=(30, 3))
        observation, _, terminated, truncated, info = env.step(places)
        done = terminated | truncated
        items = info["item"]
        if done.any():
            items = np.where(done, info["final_info"]["item"], items)
        events += 1
        for user in range(30):
            shown[user].update({int(pools[user, place]) for place in places[user]})
            chosen[user] += [int(items[user])] if items[user] >= 0 else []
            seen: Any = row_of(observation, user)
            if done[user]:
                check(info["final_obs"][user], shown[user], chosen[user], int(events[user]))
                shown[user], chosen[user], events[user], ends = Counter(), [], 0, ends + 1
            check(seen, shown[user], chosen[user], int(events[user]))
    assert ends > 40


def check(seen: Any, shown: Counter[int], chosen: list[int], events: int) -> None:
    pool = seen["pool"].tolist()
    assert seen["shown"].tolist() == [shown[item] for item in pool]
    assert seen["chosen"].tolist() == [chosen.count(item) for item in pool]
    assert seen["events"].tolist() == [events]
    assert seen["left"].item() == pytest.approx(1 - events / 4)
    assert seen["latest"].tolist() == [*reversed(chosen), *[-1] * (20 - len(chosen))]


def test_a_session_that_began_in_a_log_is_counted_from_its_start(
    small_model: Any, small_log: Any
) -> None:
    world = LearnedWorld(small_model, starts="logged", log=small_log)
    env = UserVectorEnv(40, world=world, slate_size=2, observation="dict")
    observation: Any = env.reset(seed=3)[0]
    past = list(world.past(env._keys.of(START).copy()))
    for user in range(40):
        mine = [event for event in past if event.active[user]]
        shown = Counter(item for event in mine for item in set(event.slates[user].tolist()))
        assert observation["events"][user] == len(mine)
        assert observation["shown"][user].tolist() == [shown[item] for item in range(20)]
        choices = [
            event.slates[user, event.places[user]] for event in mine if event.places[user] >= 0
        ]
        assert observation["latest"][user, : len(choices)].tolist() == choices[::-1][:20]
    assert observation["events"].max() > 1


@pytest.mark.parametrize("features", [False, True])
def test_an_end_may_be_a_termination_and_then_the_time_is_seen(features: bool) -> None:
    options: Any = {"world": SmallWorld(), "slate_size": 2, "horizon": 4, "features": features}
    cut = UserVectorEnv(5, **options)
    over = UserVectorEnv(5, **options, end="termination", autoreset_mode="SAME_STEP")
    first, timed = cut.reset(seed=2)[0], over.reset(seed=2)[0]
    assert timed.shape[1] == first.shape[1] + 1
    for step in range(4):
        np.testing.assert_array_equal(np.delete(timed, 3, axis=1), first)
        assert timed[:, 3].tolist() == pytest.approx([1 - step / 4] * 5)
        assert over.single_observation_space.contains(timed[0])
        first, _, terminated, truncated, _ = cut.step(np.tile([0, 1], (5, 1)))
        timed, _, ended, shortened, info = over.step(np.tile([0, 1], (5, 1)))
        assert not terminated.any()
        assert not shortened.any()
        np.testing.assert_array_equal(ended, truncated)
    assert ended.all()
    assert info["final_obs"][0][3] == 0
    assert (timed[:, 3] == 1).all()
    with pytest.raises(ConfigError, match="end is termination and horizon is None"):
        UserVectorEnv(5, world=SmallWorld(), end="termination", horizon=None, leaving=0.1)
    with pytest.raises(ConfigError, match="end is 'cut', one of truncation, termination"):
        UserVectorEnv(5, world=SmallWorld(), end="cut")  # type: ignore[arg-type]
