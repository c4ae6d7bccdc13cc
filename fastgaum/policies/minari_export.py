"""Episodes of a policy in a world as a data set of Minari, which libraries of offline reinforcement
learning read: `minari.MinariDataset("episodes.minari")`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from gymnasium import spaces

from fastgaum.errors import ConfigError, OutputError
from fastgaum.policies.base import Policy
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.policies.trajectories import WRITTEN_AT_ONCE
from fastgaum.worlds.world import World

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer


def write_minari(
    world: World,
    policy: Policy,
    setting: Setting,
    n_episodes: int,
    out: Path,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Play episodes, those of `trajectories` with this seed, and write them as a folder, whole or
    not at all; return the number of steps.

    Observations are users' states (state_dim,), before each step and after the last; actions the
    item numbers of slates (k,), rewards the setting's. A user who leaves ends the episode, the
    horizon truncates it. `infos["place"]` is the place of the choice in the slate, -1 for none, and
    `storage.metadata["item_ids"]` are the items' own ids.

    Raises:
        ConfigError: Minari is not installed, or slates and pools do not fit the world.
        OutputError: the folder cannot be written.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise ConfigError(
            "a .minari folder needs Minari, which is not installed: pip install 'fastgaum[minari]'"
        ) from error

    def episodes(first: int, n: int) -> Iterator[EpisodeBuffer]:
        steps = list(rollout(world, policy, setting, n, seed, first))
        for user in range(n):
            lived = [step for step in steps if step.active[user]]
            yield EpisodeBuffer(
                observations=np.stack(
                    [*(one.states[user] for one in lived), lived[-1].next_states[user]]
                ),
                actions=np.stack([one.slates[user].astype(np.int64) for one in lived]),
                rewards=np.array([one.rewards[user] for one in lived]),
                terminations=np.array([one.ended[user] for one in lived]),
                truncations=np.array([not one.ended[user] and one is steps[-1] for one in lived]),
                infos={"place": np.array([one.response.places[user] for one in lived])},
            )

    at_once = int(np.clip(WRITTEN_AT_ONCE // (setting.horizon * world.state_dim), 1, 4096))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
            made = MinariStorage.new(
                Path(beside) / "new",
                spaces.Box(-np.inf, np.inf, (world.state_dim,), np.float32),
                spaces.MultiDiscrete([world.n_items] * setting.k),
            )
            facts = {"dataset_id": "fastgaum/episodes-v0", "minari_version": minari.__version__}
            made.update_metadata({**facts, "item_ids": world.item_ids.cast(pl.String).to_list()})
            for first in range(0, n_episodes, at_once):
                n = min(at_once, n_episodes - first)
                made.update_episodes(episodes(first, n))
                if progress is not None:
                    progress((first + n) * setting.horizon, n_episodes * setting.horizon)
            if out.exists():
                os.rename(out, Path(beside) / "former")
            os.rename(made.data_path, out)
    except OSError as error:
        raise OutputError(f"cannot write '{out}': {error.strerror or error}") from error
    return int(made.metadata["total_steps"])
