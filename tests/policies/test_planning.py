"""Users for planning: a plan, advice with three answers, and who judges it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastgaum as fg
from fastgaum.errors import ConfigError, OutputError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.policies.advice import Advice
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.policies.planning import LearnedUsers
from fastgaum.policies.registry import load_policy
from fastgaum.policies.rollout import Setting, play
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.world import World
from fastgaum.worlds.world_set import WorldSet
from tests.policies.small_world import TiringWorld

SHORT = {"epochs": 2, "hidden": [8], "folds": 2, "progress": False}
QUICK = {"episodes": 2, "users": 32, "warm_up": 32, "batch": 32, "evaluations": 1}


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return fg.synthesise(120, preset="sample", seed=3)[0]


@pytest.fixture(scope="module")
def users(log: SessionLog) -> LearnedUsers:
    return fg.users(log, **SHORT)


def test_an_interval_by_hand() -> None:
    """Mean 3, standard deviation 1.58114; √(1/5 + 1/4) = .67082, together 1.06066; with 3 % of 10
    the root of 1.06066² + .3² is 1.10227; t(.975, 4) = 2.77645 from a printed table."""
    advice = Advice("plan", (1.0, 2.0, 3.0, 4.0, 5.0), 10.0, 1000)
    half = 2.77645 * 1.10227
    assert advice.lead == 3
    assert advice.interval == pytest.approx((3 - half, 3 + 2.77645 * 1.06066), abs=1e-4)
    assert advice.decision == "cannot tell"
    assert Advice("plan", (3.0, 4.0, 5.0, 4.0, 4.0), 10.0, 1000).decision == "deploy"
    unsure = Advice("plan", (0.0, 1.0, 2.0, 3.0, 4.0), 10.0, 1000)
    assert unsure.decision == "cannot tell"
    needed = round(1000 * (half / 2) ** 2)
    assert unsure.events_needed == pytest.approx(needed, abs=2)
    assert f"about {unsure.events_needed:,} events like these 1,000 would tell" in str(unsure)
    assert Advice("plan", (-3.0, -3.1, -3.2, -3.0), 10.0).decision == "keep greedy"
    assert Advice.of(unsure.to_dict()) == unsure


def test_the_program_of_seven_statements(log: SessionLog, tmp_path: Path) -> None:
    home, away = fg.halves(log, seed=0)
    users = fg.users(home, **SHORT)
    plan = users.train("slateq", k=3, horizon=4, **QUICK)
    assert str(plan.advice(200)) == str(plan.advice(200))
    assert len(plan.advice(200).leads) == 2
    judged = fg.judge([plan, "greedy", "random"], among=fg.users(away, **SHORT), n_users=50)
    frame = judged.to_frame()
    assert frame["policy"].to_list() == ["slateq", "greedy", "random"]
    assert frame.columns[1] == users.reward == "surplus"
    np.testing.assert_allclose(
        frame["lead"][0], frame["surplus"][0] - frame["surplus"][1], rtol=1e-5
    )
    assert frame["low"][2] < frame["lead"][2] < frame["high"][2]
    assert str(judged).splitlines()[0].split() == frame.columns
    assert "greedy" in judged._repr_html_()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot write"):
        plan.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    plan.save(tmp_path / "plan")
    world = WorldSet.of(fg.UserModel.load(tmp_path / "plan" / "model.safetensors"))
    saved = load_policy(tmp_path / "plan", world)
    shown = [
        play(one, policy, plan.setting, 20, 1).slates[0]
        for one, policy in ((users.world, plan.policy), (world, saved.policy))
    ]
    np.testing.assert_array_equal(*shown)


def test_halves_share_no_user(log: SessionLog) -> None:
    home, away = fg.halves(log, seed=1)
    assert not {*home.user_hashes.tolist()} & {*away.user_hashes.tolist()}
    assert home.n_sessions + away.n_sessions == log.n_sessions
    assert home.fingerprint == fg.halves(log, seed=1)[0].fingerprint
    assert home.fingerprint != fg.halves(log, seed=2)[0].fingerprint
    with pytest.raises(ConfigError, match="1 users, too few for two halves"):
        fg.halves(slice_sessions(log, [0]))


def test_greedy_slates_are_kept_where_random_ones_are_the_plan(users: LearnedUsers) -> None:
    plan = users.train(lambda world, setting: RandomPolicy(), 3, horizon=4)
    advice = plan.advice(400)
    assert advice.lead < 0
    assert advice.decision != "deploy"
    with pytest.raises(ConfigError, match="1 users do not live in each of 2 worlds: take more"):
        plan.advice(1)
    with pytest.raises(ConfigError, match="a policy of your own: save it yourself"):
        plan.save("never")
    assert not Path("never").exists()


def test_what_a_plan_is_paid_by_its_own_world_is_what_the_world_pays(users: LearnedUsers) -> None:
    setting = Setting(3, 4, reward="surplus")
    judged = fg.judge([RandomPolicy(), "greedy"], among=users.world, n_users=40, setting=setting)
    played = play(users.world, RandomPolicy(), setting, 40, 1 << 41)
    assert judged.rows[0].returns[0] == pytest.approx(played.returns.mean(), rel=1e-5)


def test_a_plan_of_other_terms_is_named(users: LearnedUsers) -> None:
    def random(world: World, setting: Setting) -> RandomPolicy:
        return RandomPolicy()

    of_clicks = users.train(random, k=3, horizon=4, reward="click")
    others = [users.train(random, k=3, horizon=4, reward=one) for one in ("click", "utility")]
    judged = fg.judge([of_clicks, *others], among=users, n_users=40)
    assert judged.trained_otherwise == ("random 3 was trained for utility an episode of 4 steps",)
    assert "random 3 was trained for utility" in str(judged)


def test_without_a_plan_the_learned_users_give_the_terms(users: LearnedUsers) -> None:
    """What a step pays is their reward, and policies read the world that they were made in."""
    twice = fg.judge([RandomPolicy(), RandomPolicy(), "greedy"], among=users, n_users=40)
    assert [row.policy for row in twice.rows] == ["random", "random 2", "greedy"]
    assert "95 % interval over users of these worlds" in str(twice)
    assert "interval" not in str(fg.judge([RandomPolicy()], among=users, n_users=40))
    judged = fg.judge([RandomPolicy(), "greedy"], among=users, n_users=40)
    assert users.reward in str(judged)
    terms = users.setting()
    by_hand = fg.judge([RandomPolicy(), "greedy"], among=users.world, n_users=40, setting=terms)
    elsewhere = fg.judge(["greedy"], among=users.world, own=users, n_users=40)
    for one, other in zip(judged.rows, by_hand.rows, strict=True):
        np.testing.assert_array_equal(one.returns, other.returns)
    np.testing.assert_array_equal(elsewhere.rows[0].returns, judged.rows[1].returns)


def test_pools_are_named_by_ids(users: LearnedUsers) -> None:
    ids = users.world.item_ids.to_list()[4:10]
    setting = users.setting(3, pool=ids)
    assert [users.world.item_ids[at] for at in setting.pool.items] == ids
    env = users.env(4, slate_size=3, pool=Pool(items=setting.pool.items))
    _, rewards, *_ = (env.reset(seed=0), env.step(np.tile(np.arange(3), (4, 1))))[1]
    assert rewards.shape == (4,)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda users: users.setting(pool=["nothing"]), "it names nothing: they are "),
        (lambda users: users.setting(pool=[]), "it names none"),
        (lambda users: users.setting(0), "k, the items of a slate"),
        (lambda users: users.train("slateg"), "policy 'slateg' is not trained"),
        (lambda users: users.train("slateq", wide=3), "no policy setting 'wide'|wide"),
        (lambda users: users.train(3), "policy is 3: slateq"),
        (lambda users: users.train(lambda w, s: RandomPolicy(), episodes=3), "episodes"),
        (lambda users: fg.judge([], among=users), "at least one, got"),
        (lambda users: fg.judge("greedy", among=users), "at least one, got 'greedy'"),
        (lambda users: fg.judge(["greedy"], among=3), "among"),
        (lambda users: fg.judge(["greedy"], among=users, own=3), "own"),
        (lambda users: fg.judge([object()], among=users), r"Sb3Policy\(agent\)"),
        (lambda users: fg.judge(["best"], among=users), "no policy 'best'"),
        (lambda users: fg.judge(["greedy"], among=TiringWorld(), setting=Setting(13)), "13"),
        (lambda users: fg.users("log.csv"), "log"),
        (lambda users: fg.users(users.log, folds=1), "folds"),
        (lambda users: fg.users(users.log, widht=1), "widht"),
    ],
)
def test_what_does_not_fit_is_refused(users: LearnedUsers, call: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        call(users)  # type: ignore[operator]


def test_context_is_refused() -> None:
    columns = {
        "session": [1, 1, 2, 2],
        "event": [0, 0, 0, 0],
        "item": ["a", "b", "a", "b"],
        "chosen": [1, 0, 0, 1],
        "hour": [3, 3, 4, 4],
    }
    log = fg.read_log(pl.DataFrame(columns), context_fields=["hour"])
    with pytest.raises(ConfigError, match="context fields hour, which users of another world"):
        fg.users(log)
