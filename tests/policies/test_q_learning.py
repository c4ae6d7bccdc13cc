"""Policies that learn: contract, losses written out, what they earn where greed is short-sighted,
and their files."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.errors import CheckpointError, ConfigError, NumericsError
from fastgaum.policies.cascade_dqn import CascadeDqn
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import Estimate, difference, judge_seeds
from fastgaum.policies.heuristics import Greedy, RandomPolicy
from fastgaum.policies.q_learning import Steps, explore
from fastgaum.policies.registry import LEARNERS, POLICY_FORMAT, load_policy, save_policy, untrained
from fastgaum.policies.rollout import Setting, play, rollout
from fastgaum.policies.slateq import SlateQ, SlateSteps, best_paid_slates, best_slates
from fastgaum.policies.training import train_policy
from fastgaum.state_file import State, load_state, save_state
from fastgaum.worlds.pools import Pool, draw_distinct
from tests.policies.contract import check_policy
from tests.policies.small_world import TiringWorld, keys_of

TINY = PolicyConfig(width=8, towers=(8,), episodes=2, users=32, warm_up=64, batch=32, evaluations=2)


@pytest.mark.parametrize("name", LEARNERS)
def test_contract(name: str) -> None:
    check_policy(lambda world, k: untrained(name, world, k, Pool(), TINY))


@pytest.mark.parametrize("name", LEARNERS)
def test_training_is_repeatable_and_a_file_keeps_it(name: str, tmp_path: Path) -> None:
    world, setting = TiringWorld(), Setting(2, 5, Pool("per_step", 6))
    tables, earned = [], []
    for _ in range(2):
        policy = untrained(name, world, 2, setting.pool, TINY)
        tables.append(train_policy(policy, world, setting))
        earned.append(judge_seeds([policy], world, setting, 100).returns)
    assert tables[0].equals(tables[1], null_equal=True)
    assert earned[0] == earned[1]
    save_policy(policy, tmp_path / "policy.safetensors", setting)
    saved = load_policy(tmp_path, world)
    assert (saved.setting, saved.unknown, saved.policy.config) == (setting, (), TINY)
    assert judge_seeds([saved.policy], world, setting, 100).returns == earned[0]
    # the second cannot even show the pool
    for n_items in (10, 5):
        with pytest.raises(CheckpointError, match="another world"):
            load_policy(tmp_path, TiringWorld(n_items))
    # the same items, and states that mean something else
    other = TiringWorld(12)
    other.fingerprint = "another"
    with pytest.raises(CheckpointError, match="another world"):
        load_policy(tmp_path, other)


def steps(n: int = 5, k: int = 3) -> Steps:
    rng = np.random.default_rng(4)
    slates = np.array([rng.permutation(12)[:k] for _ in range(n)], np.int32)
    places = np.array([0, 2, -1, 1, -1], np.int32)[:n]
    states, later = rng.standard_normal((2, n, 2)).astype(np.float32)
    ended = np.array([0, 0, 0, 1, 0], np.float32)[:n]
    return Steps(
        states, slates, places, np.arange(n, dtype=np.float32), later, ended, np.zeros(n, np.uint64)
    )


def slate_steps() -> SlateSteps:
    rng = np.random.default_rng(5)
    utilities, later = rng.standard_normal((2, 5, 3)).astype(np.float32)
    next_slates = np.array([rng.permutation(12)[:3] for _ in range(5)], np.int32)
    return SlateSteps(
        **vars(steps()),
        utilities=utilities,
        next_slates=next_slates,
        next_utilities=later,
        paid=np.zeros(5, np.float32),
        next_zero=np.zeros(5, np.float32),
    )


def networks_value(
    policy: CascadeDqn, network: torch.nn.Module, state: np.ndarray, slate: list[int]
) -> float:
    features = torch.from_numpy(policy.item_features[slate])[None]
    with torch.no_grad():
        return float(network(torch.from_numpy(state)[None], features[:, :-1], features[:, -1]))


def test_the_cascade_s_loss_is_the_paper_s() -> None:
    """Σ_j (r + γ Q^k(s', a'*) − Q^j(s, a_1 … a_j))², a'* place by place by the target networks, row
    by row; they are the places that `best_slates` gives."""
    world = TiringWorld()
    policy = CascadeDqn(world, 3, Pool(), TINY)
    with torch.no_grad():
        for parameter in policy.target.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    data, total = steps(), 0.0
    best, _ = policy.best_slates(data.next_states, np.arange(12, dtype=np.int32), policy.target)
    for row in range(5):
        slate: list[int] = []
        for network in policy.target:
            values = {
                a: networks_value(policy, network, data.next_states[row], [*slate, a])
                for a in range(12)
                if a not in slate
            }
            slate.append(max(values, key=lambda a: values[a]))
        assert best[row].tolist() == slate
        y = data.rewards[row] + policy.gamma * (1 - data.ended[row]) * values[slate[-1]]
        shown = data.slates[row].tolist()
        for j, network in enumerate(policy.networks):
            total += (
                y - networks_value(policy, network, data.states[row], shown[: j + 1])
            ) ** 2 / 5
    assert float(policy.update_loss(data).detach()) == pytest.approx(total, rel=1e-4)


@given(st.integers(1, 6), st.integers(0, 5), st.booleans(), st.integers(0, 999))
def test_slateq_s_slate_is_the_best_of_all(k: int, more: int, no_click: bool, seed: int) -> None:
    """Against every slate, its value by the decomposition written out; some weights are far
    apart."""
    rng = np.random.default_rng(seed)
    n, m = 4, k + more
    weights = np.exp(3 * rng.standard_normal((n, m))).astype(np.float32)
    values = rng.standard_normal((n, m)).astype(np.float32)
    none = rng.standard_normal(n).astype(np.float32)

    def worth(row: int, places: list[int]) -> float:
        w = weights[row, places].astype(float)
        return float((w @ values[row, places] + no_click * none[row]) / (w.sum() + no_click))

    places, best = best_slates(weights, values, none, float(no_click), k)
    for row in range(n):
        assert len(set(places[row].tolist())) == k
        assert best[row] == pytest.approx(worth(row, places[row].tolist()), abs=1e-4)
        every = max(worth(row, list(slate)) for slate in combinations(range(m), k))
        assert best[row] == pytest.approx(every, abs=1e-4)


@given(st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(0, 999))
def test_slates_that_are_paid_their_surplus(k: int, more: int, no_click: bool, seed: int) -> None:
    """Their value written out: no slate with one other item is better, and without later values
    none at all."""
    rng = np.random.default_rng(seed)
    n, m = 4, k + more
    utilities, values = rng.standard_normal((2, n, m)).astype(np.float32)
    none, gains = rng.standard_normal(n).astype(np.float32), np.exp(utilities)

    def worth(row: int, places: list[int], scale: float) -> float:
        w = gains[row, places].astype(float)
        total = w.sum() + no_click
        later = (w @ values[row, places] + no_click * none[row]) / total
        return float(np.log(total) + scale * later)

    for scale in (0.0, 0.3):
        of_items = gains, scale * values, scale * none, float(no_click)
        places = best_paid_slates(*of_items, gains, k)
        for row in range(n):
            slate = places[row].tolist()
            assert len(set(slate)) == k
            found = worth(row, slate, scale)
            near = combinations(range(m), k)
            if scale:
                near = (one for one in near if len({*one} & {*slate}) >= k - 1)  # type: ignore[assignment]
            assert found >= max(worth(row, list(one), scale) for one in near) - 1e-4


def test_slateq_s_targets_are_the_decomposition_s() -> None:
    """(r + γ Q(s', A') − Q̄(s, choice))² and the choices' likelihood, row by row."""
    policy, data, total = SlateQ(TiringWorld(), 3, Pool(), TINY), slate_steps(), 0.0
    scales = policy.networks[2]
    assert isinstance(scales, torch.nn.ParameterList)
    with torch.no_grad():
        scales[0].fill_(0.7)
        scales[1].fill_(0.3)
        policy.target.load_state_dict(policy.networks.state_dict())
        policy.target[1][0].bias += 1.0  # type: ignore[index, operator]

    def choices(utilities: np.ndarray) -> np.ndarray:
        weights = np.append(np.exp(0.7 * utilities), 1.0)
        return weights / weights.sum()

    def worths(
        networks: torch.nn.ModuleList, state: np.ndarray, slate: np.ndarray, utilities: np.ndarray
    ) -> np.ndarray:
        row = torch.from_numpy(state)[None]
        with torch.no_grad():
            items = [
                float(networks[0](row, nothing, torch.from_numpy(policy.item_features[[item]])))
                for item in slate
            ]
            return np.append(items + 0.3 * utilities, float(networks[1](row)))

    nothing = torch.empty((1, 0, policy.item_features.shape[1]))
    for row in range(5):
        later = data.next_utilities[row]
        after = worths(policy.target, data.next_states[row], data.next_slates[row], later)
        future = (1 - data.ended[row]) * (choices(later) @ after)
        y = data.rewards[row] + policy.gamma * future
        own = worths(policy.networks, data.states[row], data.slates[row], data.utilities[row])
        place = data.places[row]
        total += (y - own[place]) ** 2 / 5 - np.log(choices(data.utilities[row])[place]) / 5
    assert float(policy.update_loss(data).detach()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("pool", [Pool("per_step", 6), Pool("per_user", 7), Pool()])
def test_slateq_remembers_what_users_thought(pool: Pool) -> None:
    """Utilities of what was shown, and of a slate of the next pool, as the users have them then."""
    world, setting = TiringWorld(), Setting(3, 4, pool)
    policy = SlateQ(world, 3, pool, TINY.replace(warm_up=10**5))
    policy.learning = True
    users = rollout(world, policy, setting, 20, seed=1)
    for at, step in enumerate(users):
        assert policy.replay is not None
        held = policy.replay.held
        assert isinstance(held, SlateSteps)
        rows = slice(20 * at, 20 * at + 20)
        for slates, utilities, states in (
            (step.slates, held.utilities, step.states),
            (held.next_slates[rows], held.next_utilities, step.next_states),
        ):
            expected = world.appeal[slates] + world.weight * states
            np.testing.assert_allclose(utilities[rows], expected, atol=1e-6)
        pools = np.broadcast_to(pool.draw(step.next_pools, 12), (20, pool.size or 12))
        for slate, own in zip(held.next_slates[rows].tolist(), pools.tolist(), strict=True):
            assert len(set(slate)) == 3
            assert set(slate) <= set(own)


def test_a_life_without_end_is_discounted() -> None:
    with pytest.raises(ConfigError, match="gamma below 1"):
        PolicyConfig(time=False, gamma=1.0)
    world = TiringWorld()
    for name in LEARNERS:
        for asked, time, own in ((0, True, 1.0), (0, False, 0.97), (0.5, True, 0.5)):
            config = TINY.replace(gamma=asked, time=time)
            found = untrained(name, world, 3, Pool(), config)
            assert found.gamma == (own if name == "slateq" else asked or 0.97)


@pytest.mark.parametrize("time", [True, False])
def test_replay_holds_the_steps_of_users_who_were_there(time: bool) -> None:
    """Row by row what a rollout gives: nothing after a user left, no future where it left, or at
    the end if Q reads the time."""
    world, setting = TiringWorld(), Setting(3, 5, Pool("per_step", 6), leaving=0.3)
    policy = CascadeDqn(world, 3, setting.pool, TINY.replace(warm_up=10**5, time=time))
    policy.learning = True
    expected = []
    for step in rollout(world, policy, setting, 20, seed=1):
        for user in np.flatnonzero(step.active):
            over = step.ended[user] or (time and step.next_left == 0)
            expected.append(
                (step.states[user, 0], step.rewards[user], step.next_states[user, 0], over)
            )
    replay = policy.replay
    assert replay is not None
    assert replay.size == len(expected) < 20 * 5
    held = replay.held
    got = np.column_stack([held.states[:, 0], held.rewards, held.next_states[:, 0], held.ended])[
        : replay.size
    ]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))
    assert 0 < held.ended[: replay.size].sum() < replay.size


@pytest.mark.parametrize("name", LEARNERS)
def test_a_policy_that_saw_too_little_is_not_trained(name: str) -> None:
    """Two episodes of 32 users who take 5 steps: 320 reach `warm_up`, or do not."""
    world, setting = TiringWorld(), Setting(2, 5)
    train_policy(untrained(name, world, 2, Pool(), TINY.replace(warm_up=320)), world, setting)
    policy = untrained(name, world, 2, Pool(), TINY.replace(warm_up=321))
    with pytest.raises(ConfigError, match="users took 320 steps"):
        train_policy(policy, world, setting)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    world = TiringWorld()
    policy = CascadeDqn(world, 3, Pool(), TINY)
    # finite, and its square is not
    setting = Setting(
        3, 4, reward=lambda response, slates, states: np.full(len(response.items), 3e38)
    )
    with pytest.raises(NumericsError, match="not finite"):
        train_policy(policy, world, setting)


def test_a_slate_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="slates of 3 items and is asked for 2"):
        play(TiringWorld(), CascadeDqn(TiringWorld(), 3, Pool(), TINY), Setting(2, 3), 4, 0)


def test_intervals_of_seeds() -> None:
    estimate = Estimate.of([1.0, 2.0, 4.0])
    # t(0.975, 2) = 4.3027, sd = 1.5275
    assert estimate.high - estimate.mean == pytest.approx(4.3027 * 1.5275 / 3**0.5, rel=1e-3)
    assert Estimate.of(np.array([[0.0, 2.0], [1.0, 3.0], [6.0, 2.0]])) == estimate
    assert np.isnan(Estimate.of([1.0]).low)
    world, setting = TiringWorld(), Setting(3, 5)
    with pytest.raises(ConfigError, match="3 seeds of 10 users and random by 2 of 10"):
        difference(
            judge_seeds([RandomPolicy()] * 3, world, setting, 10),
            judge_seeds([RandomPolicy()] * 2, world, setting, 10),
        )


def test_users_of_one_seed_have_an_interval() -> None:
    """Of a difference: over users' own differences."""
    world, setting, n = TiringWorld(), Setting(3, 5), 50
    greedy, chance = (judge_seeds([one], world, setting, n) for one in (Greedy(), RandomPolicy()))
    apart = greedy.by_user[0].astype(float) - chance.by_user[0]
    lead = difference(greedy, chance)
    assert lead.mean == pytest.approx(greedy.returns[0] - chance.returns[0], abs=1e-5)
    # t(0.975, 49) = 2.0096
    half = 2.0096 * apart.std(ddof=1) / np.sqrt(n)
    assert (lead.low, lead.high) == pytest.approx((lead.mean - half, lead.mean + half), rel=1e-3)
    assert np.isfinite(greedy.to_dict()["return_ci"]).all()


@given(st.integers(1, 6), st.integers(0, 6), st.floats(0, 1), st.integers(0, 999))
def test_exploration_keeps_slates_distinct(k: int, more: int, epsilon: float, seed: int) -> None:
    n_pool = k + more
    rng = np.random.default_rng(seed)
    places = np.array([rng.permutation(n_pool)[:k] for _ in range(20)], np.int32)
    keys = keys_of(seed, 20)
    drawn = draw_distinct(keys, n_pool, min(2 * k, n_pool))
    result = explore(places, drawn, keys, epsilon)
    assert all(len(set(row)) == k for row in result.tolist())
    assert result.min() >= 0
    assert result.max() < n_pool
    if epsilon == 0:
        assert (result == places).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_from_its_own_pool_alone(name: str) -> None:
    world, one = TiringWorld(), Pool(items=(0, 1, 2))
    policy = untrained(name, world, 2, one, TINY)
    for met in (Pool(), Pool(items=(3, 4, 5)), Pool("per_step", 2, (0, 1, 2))):
        setting = Setting(2, 5, met)
        with pytest.raises(ConfigError, match="was made for pool fixed of all of 3 items"):
            train_policy(policy, world, setting)


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
    assert saved.notes(other) == [
        "the policy was trained with horizon 5 and meets horizon 20",
        "the policy was trained with pool per_user of 6 and meets pool fixed of all",
    ]
    assert saved.notes(dataclasses.replace(setting, pool=Pool("per_user", 7)))
    own = Setting(
        *(2, 5, setting.pool),
        reward=lambda response, slates, states: slates[:, 0],
        leaving=lambda response, steps, states: steps > 3,
    )
    save_policy(policy, file, own)
    assert load_policy(file, world).unknown == ("reward", "leaving")
    assert load_policy(file, world).notes(Setting(2, 5, setting.pool)) == [
        "the policy's file does not say the leaving that it was trained with: it meets leaving None"
    ]
    for another in (Setting(3, 5, setting.pool), Setting(2, 5)):
        with pytest.raises(ConfigError, match="save it with the setting of its training"):
            save_policy(policy, file, another)
    state = load_state(file, POLICY_FORMAT, "", State)
    for wrong in ({"horizon": 2.5}, {"reward": "likes"}, {"leaving": [2.0]}, {"horizon": 0}):
        save_state(file, POLICY_FORMAT, state | {"setting": wrong})
        with pytest.raises(CheckpointError, match="damaged"):
            load_policy(file, world)
