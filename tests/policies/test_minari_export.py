"""Episodes for Minari: those of trajectories with the same seed, and what its readers find."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError
from fastgaum.policies.heuristics import Greedy
from fastgaum.policies.minari_export import write_minari
from fastgaum.policies.rollout import Setting, play
from fastgaum.policies.trajectories import trajectories
from tests.worlds.small_world import SmallWorld

WORLD, MISSING = SmallWorld(), "install fastgaum[minari]"


def test_minari_reads_the_episodes_of_trajectories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari", reason=MISSING)
    # two parts: episodes are the same however many are played at once
    monkeypatch.setattr("fastgaum.policies.minari_export.PLAYED_AT_ONCE", 20)
    setting, out = (
        Setting(k=3, horizon=5, reward="click", leaving=0.2),
        tmp_path / "new" / "e.minari",
    )
    n_steps = write_minari(WORLD, Greedy(), setting, 30, out, seed=4)
    data = minari.MinariDataset(out)
    frame = pl.concat(trajectories(WORLD, "greedy", setting, 30, 4))
    played = play(WORLD, Greedy(), setting, 30, 4)
    ids = data.storage.metadata["item_ids"]
    assert (data.total_episodes, data.total_steps) == (30, n_steps)
    assert n_steps == played.shown.sum() == frame.height / 3 < 30 * 5
    ends = []
    for number, episode in enumerate(data.iterate_episodes()):
        rows = frame.filter(pl.col("session") == number)
        n = len(episode.rewards)
        assert [ids[item] for item in episode.actions.ravel()] == rows["item"].to_list()
        chosen = rows["chosen"].to_numpy().reshape(n, 3)
        places = np.where(chosen.any(axis=1), chosen.argmax(axis=1), -1)
        assert episode.infos["place"].tolist() == places.tolist()
        np.testing.assert_array_equal(episode.rewards, played.rewards[number, :n])
        assert data.spec.observation_space.contains(episode.observations[0])
        assert all(map(data.spec.action_space.contains, episode.actions))
        assert episode.observations.shape == (n + 1, WORLD.state_dim)
        # no click leaves a user of this world as it was, and a click does not
        moved = (np.diff(episode.observations, axis=0) != 0).any(axis=1)
        np.testing.assert_array_equal(moved, places >= 0)
        assert not (episode.terminations | episode.truncations)[:-1].any()
        assert episode.terminations[-1] != episode.truncations[-1]
        assert episode.truncations[-1] <= (n == 5)
        ends.append(episode.truncations[-1])
    assert 0 < sum(ends) < 30


def test_without_minari_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[minari\]'"):
        write_minari(WORLD, Greedy(), Setting(k=3, horizon=5), 3, tmp_path / "e.minari")
    assert not any(tmp_path.iterdir())
