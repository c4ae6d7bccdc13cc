"""A log as a data set of Minari: its episodes are what users who follow the log one by one live."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastgaum as fg
from fastgaum.errors import ConfigError, FastgaumError, LogFormatError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.replay import world_of
from fastgaum.worlds.single_env import UserEnv
from fastgaum.worlds.world_set import WorldSet
from tests.live_users.online_users import fitted
from tests.models.test_outcomes import OUTCOMES, made_frame


@pytest.fixture
def minari(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that keeps what it is given, so that nothing depends on an installed Minari."""

    def create_dataset_from_buffers(name: str, buffers: list[Any], **options: Any) -> Any:
        return SimpleNamespace(name=name, episodes=buffers, **options)

    made = SimpleNamespace(
        data_collector=SimpleNamespace(EpisodeBuffer=SimpleNamespace),
        create_dataset_from_buffers=create_dataset_from_buffers,
    )
    monkeypatch.setitem(sys.modules, "minari", made)


@pytest.fixture(scope="module")
def outcome_log() -> SessionLog:
    return fg.read_log(made_frame(n_sessions=40), outcomes=OUTCOMES)


@pytest.fixture(scope="module")
def outcome_world(outcome_log: SessionLog) -> LearnedWorld:
    return LearnedWorld(fitted(outcome_log))


def first_sessions(log: SessionLog, n: int = 12) -> SessionLog:
    return slice_sessions(log, np.arange(n))


@pytest.mark.usefixtures("minari")
def test_episodes_are_what_one_user_lives_after_another(
    small_log: SessionLog, small_model: UserModel
) -> None:
    log, world = first_sessions(small_log), world_of(small_model, small_log)
    chances = np.linspace(0.1, 1, log.n_events)
    made = fg.to_minari(log, world, "shop/clicks-v0", propensities=chances, author="we")
    k = int(np.diff(log.display_offsets).max())
    env = UserEnv(world=world, slate_size=k)
    assert made.name == "shop/clicks-v0"
    assert made.author == "we"
    assert made.action_space == env.action_space
    assert made.observation_space == env.observation_space
    assert len(made.episodes) == log.n_sessions
    numbers = {item: at for at, item in enumerate(world.item_ids.to_list())}
    for session, episode in enumerate(made.episodes):
        events = range(*log.session_offsets[session : session + 2].tolist())
        users, states = world.population(1), []
        for event, action in zip(events, episode.actions, strict=True):
            states.append(users.states[0].copy())
            shown = log.items[slice(*log.display_offsets[event : event + 2].tolist())]
            slate = [numbers[log.item_ids[int(item)]] for item in shown]
            np.testing.assert_array_equal(action, slate + slate[:1] * (k - len(slate)))
            assert env.action_space.contains(action)
            users.follow(np.array([slate], np.int32), log.choices[event : event + 1])
        states.append(users.states[0].copy())
        np.testing.assert_allclose(episode.observations, states, atol=1e-5)
        assert env.observation_space.contains(episode.observations[0])
        choices = log.choices[events.start : events.stop]
        assert episode.rewards == (choices >= 0).astype(float).tolist()
        assert episode.truncations == [False] * (len(events) - 1) + [True]
        assert not any(episode.terminations)
        assert episode.infos["event"].tolist() == [-1, *events]
        np.testing.assert_array_equal(episode.infos["propensity"][1:], chances[list(events)])


@pytest.mark.usefixtures("minari")
def test_a_displayed_choice_is_paid_as_in_an_environment(
    small_log: SessionLog, small_model: UserModel
) -> None:
    log, world = first_sessions(small_log), world_of(small_model, small_log)
    made = fg.to_minari(log, world, "a-v0", reward="utility", end="termination")
    for session, episode in enumerate(made.episodes):
        users = world.population(1)
        for event, paid in zip(
            range(*log.session_offsets[session : session + 2].tolist()),
            episode.rewards,
            strict=True,
        ):
            shown = log.items[slice(*log.display_offsets[event : event + 2].tolist())]
            slate = np.array([world.item_ids.to_list().index(log.item_ids[int(i)]) for i in shown])
            slates, place = slate[None].astype(np.int32), int(log.choices[event])
            expected = users.utilities(slates)[0, place] if place >= 0 else 0
            assert paid == pytest.approx(expected, abs=1e-5)
            users.follow(slates, log.choices[event : event + 1])
        assert episode.terminations[-1]
        assert not any(episode.truncations)


@pytest.mark.usefixtures("minari")
def test_users_of_a_set_of_worlds_can_follow(small_log: SessionLog, set_model: UserModel) -> None:
    log = first_sessions(small_log)
    made = fg.to_minari(log, WorldSet.of(set_model), "set-v0", reward="surplus")
    assert np.isfinite(np.concatenate([one.rewards for one in made.episodes])).all()


@pytest.mark.usefixtures("minari")
def test_logged_outcomes_are_paid(outcome_log: SessionLog, outcome_world: LearnedWorld) -> None:
    made = fg.to_minari(outcome_log, outcome_world, "a-v0", reward="outcome:minutes")
    paid = np.concatenate([one.rewards for one in made.episodes])
    logged = outcome_log.outcomes["minutes"].values
    np.testing.assert_allclose(paid, np.nan_to_num(logged), rtol=1e-6)
    unknown = np.where(np.arange(len(logged)) == np.nanargmax(logged), np.nan, logged)
    columns = dict(outcome_log.columns)
    columns["minutes"] = replace(columns["minutes"], values=unknown.astype(np.float32))
    with pytest.raises(LogFormatError, match="what followed 1 of its choices"):
        fg.to_minari(
            replace(outcome_log, columns=columns),
            outcome_world,
            "a-v0",
            reward="outcome:minutes",
        )


@pytest.mark.usefixtures("minari")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"end": "never"}, "end is 'never'"),
        ({"reward": "money"}, "reward is 'money'"),
        ({"propensities": [0.5]}, "a probability above 0 for each"),
        ({"propensities": "chance"}, "a probability above 0 for each"),
        ({"reward": "outcome:minutes"}, "no outcome of this world"),
    ],
)
def test_wrong_arguments_are_refused(
    given: dict[str, Any], says: str, small_log: SessionLog, small_model: UserModel
) -> None:
    with pytest.raises(ConfigError, match=says):
        fg.to_minari(small_log, world_of(small_model, small_log), "a-v0", **given)


def test_without_minari_the_cure_is_named(
    small_log: SessionLog, small_model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(FastgaumError, match=r"pip install 'minari\[hdf5\]'"):
        fg.to_minari(small_log, world_of(small_model, small_log), "a-v0")


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_minari_reads_what_was_written(
    small_log: SessionLog, small_model: UserModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason="needs pip install 'minari[hdf5]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    log = first_sessions(small_log)
    fg.to_minari(log, world_of(small_model, small_log), "shop/clicks-v0", description="a test")
    read = minari.load_dataset("shop/clicks-v0")
    assert (len(read), read.total_steps) == (log.n_sessions, log.n_events)
    paid = np.concatenate([one.rewards for one in read.iterate_episodes()])
    np.testing.assert_array_equal(paid, log.choices >= 0)
    with pytest.raises(ConfigError, match="does not write the data set 'shop/clicks-v0'"):
        fg.to_minari(log, world_of(small_model, small_log), "shop/clicks-v0")
