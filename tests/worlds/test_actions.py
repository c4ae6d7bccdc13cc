"""Simulated users who are told what they did between slates are the model's on the same log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.nets.batches import assemble
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.replay import replay, tell_logged, world_of
from fastgaum.worlds.world import NO_ITEM, Population
from fastgaum.worlds.world_set import WorldSet
from tests.builders import put, random_log, with_drawn_actions, with_fields, with_vectors
from tests.live_users.online_users import IDENTITY, fitted


def of_test(log: SessionLog) -> SessionLog:
    """Its test sessions, the longest last: users stop one after the other."""
    rows = log.sessions_in("test")
    return slice_sessions(log, rows[np.argsort(np.diff(log.session_offsets)[rows], kind="stable")])


def states_of(model: UserModel, log: SessionLog) -> np.ndarray:
    """The model's state before each event."""
    assert model.space is not None
    assert model.networks is not None
    encoded = Encoder(model.space, log).encode(log.sessions_in("all"))
    batch = assemble(encoded, np.arange(log.n_sessions, dtype=np.int32))
    with torch.no_grad():
        return model.networks.eval().utility(batch)[1].numpy()


def check_followed(users: Population, codes: np.ndarray, log: SessionLog, states: Any) -> None:
    """Let users do what a log's did, and compare their states before each event."""
    first, lengths = log.session_offsets[:-1], np.diff(log.session_offsets)
    users.reset(np.arange(log.n_sessions, dtype=np.uint64))
    for t in range(int(lengths.max())):
        active = lengths > t
        events = np.where(active, first + t, -1)
        tell_logged(users, log, codes, events)
        np.testing.assert_allclose(users.states[active], states[events[active]], atol=1e-5)
        slates = np.full((log.n_sessions, 6), NO_ITEM, np.int32)
        for user in np.flatnonzero(active):
            items = log.items[slice(*log.display_offsets[events[user] : events[user] + 2])]
            slates[user, : len(items)] = codes[items]
        users.follow(slates, np.where(active, log.choices[events], -1), active)


CASES = [
    {"history_layers": 2, "tower_dim": 4},
    {"history": "lstm", "tower_dim": 4, "vectors": True},
    {"history": "pw", "history_window": 3},
    {"protocol": "bags", "fields": True},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_users_told_what_a_log_s_users_did_have_their_states(changes: dict[str, Any]) -> None:
    changes = {**IDENTITY, **changes}
    log = with_drawn_actions(random_log(4, n_sessions=60, no_click=0.3), 4)
    log = with_vectors(log) if changes.pop("vectors", False) else log
    log = with_fields(log, ordered=False) if changes.pop("fields", False) else log
    # what differs from display to display is no world's
    log = put(log, candidate={})
    model = fitted(log, **changes)
    part = of_test(log)
    world = world_of(model, part)
    codes = np.array([world.item_ids.to_list().index(item) for item in log.item_ids], np.int32)
    check_followed(world.population(part.n_sessions), codes, part, states_of(model, part))
    if changes == {**IDENTITY, "history_layers": 2, "tower_dim": 4}:
        of_set = WorldSet([world, world])
        check_followed(of_set.population(part.n_sessions), codes, part, states_of(model, part))
        assert replay(of_set, part).shape == replay(world, part).shape == (1, part.n_events)


def test_what_cannot_be_told_is_said() -> None:
    log = random_log(4, n_sessions=60)
    users = LearnedWorld(fitted(with_drawn_actions(log), **IDENTITY)).population(2)
    with pytest.raises(ConfigError, match="no action 'veiw', training had cart, past, view; did"):
        users.acted(np.array([1, 2]), "veiw")
    with pytest.raises(ConfigError, match="holds item 99"):
        users.acted(np.array([1, 99]), "view")
    before = users.states.copy()
    users.acted(np.array([NO_ITEM, 2]), "view")
    assert (users.states[0] == before[0]).all()
    assert (users.states[1] != before[1]).any()
    with pytest.raises(ConfigError, match="know no actions: train its model on a log"):
        LearnedWorld(fitted(log, **IDENTITY)).population(1).acted(np.array([0]), "view")
