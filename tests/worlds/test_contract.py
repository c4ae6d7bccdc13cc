"""The environment's contract: spaces, actions, rewards, ends, info; Gymnasium's own checker and its
SyncVectorEnv as twin."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fastgaum.errors import ActionError, ConfigError, NumericsError
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.worlds.env_options import session_leaving
from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.vector_env import UserVectorEnv
from fastgaum.worlds.world import World
from tests.builders import log_of
from tests.worlds.small_world import SmallWorld

WORLD = SmallWorld()
KINDS: list[dict[str, Any]] = [
    {},
    {"observation": "dict"},
    {"features": True},
    {"pool": "fixed", "pool_size": 5, "observation": "dict", "features": True},
    {"pool": "per_user", "pool_size": 7},
    {"pool": "per_step", "pool_size": 6, "observation": "dict"},
    {"pool": "per_step", "pool_size": 4, "features": False, "leaving": 0.3, "horizon": None},
    {"pool": [7, 2, 9], "leaving": [0.0, 0.5], "horizon": 4, "reward": "click"},
]


CASES = [*product(KINDS, [False]), *product([KINDS[1], KINDS[6], KINDS[7]], [True])]
"""options, and whether an agent picks place by place"""


def drawn_actions(env: UserVectorEnv, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(env.pools.size, size=(env.num_envs, env.slate_size))


@pytest.mark.parametrize("options", [KINDS[0], KINDS[3], KINDS[7]], ids=str)
def test_gymnasium_s_checker_passes(options: dict[str, Any]) -> None:
    env = gymnasium.make("fastgaum.worlds:fastgaum/User-v0", world=WORLD, slate_size=3, **options)
    with warnings.catch_warnings():
        # a state has no bounds
        warnings.filterwarnings(
            "ignore", message=".*Box observation space (minimum|maximum) value is"
        )
        check_env(env.unwrapped)


class OneCascade(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The cascade of one user: the vector's twin."""

    def __init__(self, env: UserEnv) -> None:
        super().__init__(env)
        self.k, self.m, base = env.slate_size, len(env.pool), env.observation_space
        more = {
            n: spaces.Box(0, 1, (s,), np.float32) for n, s in (("place", self.k), ("taken", self.m))
        }
        self.observation_space = (
            spaces.Dict({**base.spaces, **more})
            if isinstance(base, spaces.Dict)
            else (
                spaces.Box(
                    *(
                        np.append(ends, np.full(self.k + self.m, end, np.float32))
                        for ends, end in ((base.low, 0), (base.high, 1))
                    )
                )  # type: ignore[attr-defined]
            )
        )
        self.action_space = spaces.Discrete(self.m)

    def seen(self, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        place, taken = np.zeros(self.k, np.float32), np.zeros(self.m, np.float32)
        place[len(self.slate)] = taken[self.slate] = 1
        observation = (
            {**self.base, "place": place, "taken": taken}
            if isinstance(self.base, dict)
            else np.concatenate([self.base, place, taken])
        )
        return observation, info | {"action_mask": taken == 0}

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.base, info = self.env.reset(**options)
        self.slate: list[int] = []
        return self.seen(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.slate.append(int(action))
        reward, terminated, truncated, info = 0.0, False, False, {}
        if len(self.slate) == self.k:
            self.base, reward, terminated, truncated, info = self.env.step(np.array(self.slate))
            self.slate = []
        observation, info = self.seen(info)
        return observation, reward, terminated, truncated, info


def assert_same(ours: Any, stock: Any, rows: np.ndarray) -> None:
    """Equal where the mask says that there is something; stock arrays may have a wider dtype."""
    if isinstance(stock, dict):
        for name in stock:
            if not name.startswith("_"):
                mask = stock[f"_{name}"]
                np.testing.assert_array_equal(ours[f"_{name}"], mask, err_msg=name)
                assert_same(ours[name], stock[name], np.flatnonzero(mask))
    elif stock.dtype == object:
        for row in rows:
            assert_observations_equal(ours[row], stock[row])
    else:
        np.testing.assert_allclose(ours[rows], stock[rows], rtol=1e-5, atol=1e-6)


def assert_observations_equal(ours: Any, stock: Any) -> None:
    if isinstance(stock, dict):
        for name, part in stock.items():
            assert_observations_equal(ours[name], part)
    else:
        np.testing.assert_allclose(ours, stock, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "wrap", "mode"),
    [
        *((*case, AutoresetMode.SAME_STEP) for case in CASES),
        # users who leave at steps of their own
        *product(KINDS[6:], [False, True], [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]),
    ],
    ids=str,
)
def test_the_vector_equals_gymnasium_s_own_over_single_environments(
    options: dict[str, Any], wrap: bool, mode: AutoresetMode
) -> None:
    check_against_stock(WORLD, mode, wrap, options, 45)


def check_against_stock(
    world: World, mode: AutoresetMode, wrap: bool, options: dict[str, Any], steps: int
) -> None:
    """The native vector and SyncVectorEnv over `UserEnv`s with the same seeds: the same arrays,
    step by step, all of them in their spaces and of their types."""
    seeds = [11, 3, 8, 11]

    def single() -> gymnasium.Env[Any, Any]:
        env = UserEnv(world=world, slate_size=3, **options)
        return OneCascade(env) if wrap else env

    native: Any = UserVectorEnv(4, world=world, slate_size=3, autoreset_mode=mode, **options)
    native = VectorCascadeWrapper(native) if wrap else native
    stock = SyncVectorEnv([single] * 4, autoreset_mode=mode)
    assert native.action_space == stock.action_space
    assert native.observation_space == stock.observation_space
    (ours, info), (theirs, stock_info) = native.reset(seed=seeds), stock.reset(seed=seeds)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        assert ours in native.observation_space
        assert_observations_equal(ours, theirs)
        assert_same(info, stock_info, np.arange(4))
        actions = rng.integers(
            native.action_space.nvec if wrap else native.pools.size, size=native.action_space.shape
        )
        ours, rewards, terminated, truncated, info = native.step(actions)
        kinds = [array.dtype for array in (rewards, terminated, truncated)]
        assert kinds == [np.float32, np.bool_, np.bool_]
        masks = {name for name in info if name.startswith("_")}
        assert {f"_{name}" for name in info if name not in masks} == masks
        theirs, stock_rewards, stock_terminated, stock_truncated, stock_info = stock.step(actions)
        np.testing.assert_allclose(rewards, stock_rewards, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(terminated, stock_terminated)
        np.testing.assert_array_equal(truncated, stock_truncated)
        if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
            (ours, info) = native.reset(options={"reset_mask": terminated | truncated})
            (theirs, stock_info) = stock.reset(options={"reset_mask": terminated | truncated})


def test_in_every_world_the_vector_equals_gymnasium_s_own(any_world: World) -> None:
    options = {"pool": "per_user", "pool_size": 6, "leaving": 0.1, "horizon": 6}
    check_against_stock(any_world, AutoresetMode.SAME_STEP, False, options, 25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({(2, 1): 12}, "user 2 has 12 in place 1, a place of the pool from 0 to 11 is required"),
        ({(0, 2): -1}, "user 0 has -1 in place 2, a place of the pool"),
        (
            {(1, 2): 0, (1, 0): 0},
            "user 1 has 0 in place 2, which stands in place 0 already: pass strict=False",
        ),
    ],
)
def test_an_action_that_is_not_allowed_is_named(
    change: dict[tuple[int, int], int], message: str
) -> None:
    env = UserVectorEnv(3, world=WORLD, slate_size=3, strict=True)
    env.reset(seed=0)
    actions = np.tile(np.arange(3), (3, 1))
    env.step(actions)
    for place, value in change.items():
        actions[place] = value
    with pytest.raises(ActionError, match=message):
        env.step(actions)


@pytest.mark.parametrize(
    "actions", [np.zeros((3, 4), int), np.zeros(9, int), np.zeros((3, 3)), np.zeros((3, 3), bool)]
)
def test_actions_of_another_shape_or_type_are_refused(actions: np.ndarray) -> None:
    env = UserVectorEnv(3, world=WORLD, slate_size=3)
    with pytest.raises(ActionError, match="call reset"):
        env.step(np.zeros((3, 3), int))
    env.reset()
    with pytest.raises(ActionError, match=r"whole numbers of shape \(3, 3\) are required"):
        env.step(actions)


def test_a_repeated_item_is_displayed_once() -> None:
    """The same users, shown [4, 4, 4] and [4]: the same choices."""
    many, one = (UserVectorEnv(64, world=WORLD, slate_size=k) for k in (3, 1))
    many.reset(seed=2)
    one.reset(seed=2)
    _, rewards, _, _, info = many.step(np.full((64, 3), 4))
    _, alone, _, _, other = one.step(np.full((64, 1), 4))
    np.testing.assert_array_equal(info["item"], other["item"])
    np.testing.assert_allclose(rewards, alone, rtol=1e-5)
    assert set(info["place"].tolist()) == {-1, 0}


def test_a_render_says_what_was_shown_thought_and_chosen() -> None:
    env = UserVectorEnv(30, world=WORLD, slate_size=3, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == ("nothing was shown yet",) * 30
    utilities = env.users.utilities(np.tile([4, 2], (30, 1)))
    _, _, _, _, info = env.step(np.tile([4, 2, 4], (30, 1)))
    texts = env.render()
    assert texts is not None
    assert set(info["place"].tolist()) == {-1, 0, 1}
    for user, place in enumerate(info["place"].tolist()):
        marks = [">" if place == at else " " for at in range(2)]
        lines = [f"{marks[at]} i{[4, 2][at]}  {utilities[user, at]:6.3f}" for at in range(2)]
        assert texts[user].splitlines() == lines + ["> nothing"] * (place < 0)
    assert UserVectorEnv(2, world=WORLD, slate_size=3).render() is None
    one = gymnasium.make("fastgaum.worlds:fastgaum/User-v0", world=WORLD, render_mode="ansi")
    one.reset(seed=0)
    one.step(np.arange(10))
    assert str(one.render()).count("i") == 10


def test_a_render_keeps_what_a_user_was_shown_while_others_go_on() -> None:
    """User 0 leaves at its first step and spends the next one on its restart."""
    leaving = np.array([1.0, 0.0])
    env = UserVectorEnv(
        2, world=WORLD, slate_size=2, render_mode="ansi", leaving=lambda *_: leaving
    )
    env.reset(seed=0)
    env.step_where(np.array([[0, 1], [2, 3]]), np.array([True, False]))
    first = env.render()
    assert first is not None
    assert first[1] == "nothing was shown yet"
    env.step(np.array([[4, 5], [6, 7]]))
    later = env.render()
    assert later is not None
    assert later[0] == first[0]
    assert [f"i{item}" in later[1] for item in (2, 3, 6, 7)] == [False, False, True, True]


def test_a_single_user_s_seed_is_the_one_in_use() -> None:
    env, again = (UserEnv(world=WORLD, slate_size=3, pool="per_user", pool_size=6) for _ in "ab")
    for given in (None, 7):
        env.reset(seed=given)
        again.reset(seed=env.np_random_seed)
        items = [[one.step(np.arange(3))[4]["item"] for _ in range(8)] for one in (env, again)]
        assert items[0] == items[1]
        np.testing.assert_array_equal(env.pool, again.pool)
    assert env.np_random_seed == 7
    with pytest.raises(ActionError, match="a reset has no option 'foo'"):
        env.reset(options={"foo": 3})


def test_a_picture_is_refused_as_sb3_expects() -> None:
    for make in (UserVectorEnv, UserEnv):
        with pytest.raises(ConfigError, match="render_mode is 'human', None or 'ansi'") as refused:
            make(world=WORLD, render_mode="human")
        assert isinstance(refused.value, TypeError)


@pytest.mark.parametrize("what", ["reward", "leaving"])
def test_a_function_of_other_parameters_is_refused_when_it_is_given(what: str) -> None:
    def mine(response: Any) -> np.ndarray:
        return response.utilities

    message = (
        rf"a {what} function is called with \(response, s\w+, states\), and mine takes "
        rf"\(response.*\).*: write def mine\(response, s\w+, states\)"
    )
    with pytest.raises(ConfigError, match=message):
        UserVectorEnv(4, world=WORLD, slate_size=2, **{what: mine})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        Setting(**{what: mine})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pool", "reward"),
    [
        *product([Pool(), Pool("per_user", 5), Pool("per_step", 5)], ["contrast"]),
        (Pool("per_step", 5), "surplus"),
        (Pool(), "click"),
        (Pool("per_user", 5), "own"),
    ],
)
def test_an_environment_pays_what_an_evaluation_counts(pool: Pool, reward: Any) -> None:
    """Users of one seed, shown the same: in both they leave at the same steps, and each reward is
    the same, an own function's too."""

    def own(response: Any, slates: np.ndarray, states: np.ndarray) -> np.ndarray:
        return response.utilities + slates[:, 0] + states[:, 1]

    reward = own if reward == "own" else reward
    env = UserVectorEnv(
        20,
        world=WORLD,
        slate_size=2,
        pool=pool,
        reward=reward,
        horizon=6,
        leaving=0.2,
        autoreset_mode="DISABLED",
    )
    env.reset(seed=3)
    setting, there = Setting(2, 6, pool, reward, leaving=0.2), np.ones(20, np.bool_)
    for step in rollout(WORLD, RandomPolicy(), setting, 20, seed=3):
        pools = np.broadcast_to(env.pools.items, (20, env.pools.size))
        places = (step.slates[:, :, None] == pools[:, None]).argmax(axis=2)
        np.testing.assert_array_equal(step.active, there)
        _, rewards, terminated, _, _ = env.step_where(places, there)
        np.testing.assert_allclose(rewards, step.rewards, atol=1e-6)
        np.testing.assert_array_equal(step.ended, terminated)
        assert len(np.unique(rewards)) > 1
        there &= ~terminated
    assert not there.all()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            lambda response, slates, states: np.zeros(3),
            r"returned shape \(3,\), one number per user, \(4,\)",
        ),
        (lambda response, slates, states: np.array([0, 0, np.nan, 0]), "returned nan for user 2"),
    ],
)
def test_a_reward_function_that_does_not_give_a_number_per_user_is_refused(
    own: Any, message: str
) -> None:
    env = UserVectorEnv(4, world=WORLD, slate_size=2, reward=own)
    env.reset()
    with pytest.raises(NumericsError, match=message):
        env.step(np.tile([0, 1], (4, 1)))


def test_a_leaving_function_sees_steps_and_states() -> None:
    def bored(response: Any, steps: np.ndarray, states: np.ndarray) -> np.ndarray:
        assert states.shape == (6, WORLD.state_dim)
        return (steps == 3) & (response.places >= -1)

    env = UserVectorEnv(6, world=WORLD, slate_size=1, leaving=bored)
    env.reset(seed=0)
    ends = [env.step(np.zeros((6, 1), int))[2].all() for _ in range(8)]
    assert ends == [False, False, True, False, False, False, True, False]


@pytest.mark.parametrize("chance", [5.0, -5.0, np.nan])
def test_a_leaving_function_gives_probabilities(chance: float) -> None:
    env = UserVectorEnv(2, world=WORLD, slate_size=1, leaving=lambda *_: np.full(2, chance))
    env.reset(seed=0)
    with pytest.raises(NumericsError, match=r"for user 0, a probability in \[0, 1\]"):
        env.step(np.zeros((2, 1), int))


def test_leaving_is_learned_from_a_log_s_sessions() -> None:
    event = ([0, 1], 0)
    log = log_of([[event], [event] * 2, [event] * 2, [event] * 7], [0, 0, 0, 1])
    np.testing.assert_allclose(session_leaving(log), [1 / 3, 1])
    np.testing.assert_allclose(session_leaving(log, "all"), [1 / 4, 2 / 3, 0, 0, 0, 0, 1])
    with pytest.raises(ConfigError, match="no test session"):
        session_leaving(log, "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world": WORLD, "run": "x"}, "one of them"),
        ({"world": WORLD, "horizon": None}, "would never end"),
        ({"world": WORLD, "pool": "per_users"}, "did you mean 'per_user'"),
        ({"world": WORLD, "pool_size": 13}, "larger than the 12"),
        ({"world": WORLD, "pool": Pool("per_user"), "pool_size": 4}, "give the size to the Pool"),
        ({"world": WORLD, "pool": [0, 12]}, "distinct and 0 to 11"),
        ({"world": WORLD, "pool": [3, 1, 3]}, "distinct and 0 to 11"),
        ({"world": WORLD, "reward": "clicks"}, "did you mean 'click'"),
        ({"world": WORLD, "leaving": 1.5}, r"a probability in \[0, 1\]"),
        ({"world": WORLD, "observation": "dictionary"}, "one of flat, dict"),
        ({"world": WORLD, "autoreset_mode": "SAMESTEP"}, "did you mean 'SAME_STEP'"),
        ({"world": WORLD, "slatesize": 3}, "no option 'slatesize'"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UserVectorEnv(2, **options)


def test_a_spec_makes_the_same_environment_without_copying_the_world(any_world: World) -> None:
    made = gymnasium.make("fastgaum.worlds:fastgaum/User-v0", world=any_world, slate_size=3)
    assert made.spec is not None
    again = made.spec.make()
    assert again.unwrapped.world is any_world  # type: ignore[attr-defined]
    for env in (made, again):
        env.reset(seed=4)
    np.testing.assert_array_equal(made.step(np.arange(3))[0], again.step(np.arange(3))[0])
    many = gymnasium.make_vec(
        "fastgaum.worlds:fastgaum/User-v0", num_envs=3, world=any_world, slate_size=3
    )
    assert gymnasium.make_vec(many.spec).num_envs == 3  # type: ignore[arg-type]
