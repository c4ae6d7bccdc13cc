"""Episodes as a data set of Minari, for libraries of offline reinforcement learning:
`minari.MinariDataset("episodes.minari")`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from gymnasium import spaces

from fastgaum.errors import ConfigError, OutputError
from fastgaum.policies.base import Policy, Transition
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.policies.trajectories import require_episodes
from fastgaum.worlds.world import World

PLAYED_AT_ONCE = 1024
"""episodes whose steps are in memory"""


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

    Observations are states (state_dim,), before each step and after the last, actions the item
    numbers of slates (k,), rewards the setting's. Leaving terminates, the horizon truncates.
    `infos["place"]` is the choice's place in the slate, -1 for none, and the metadata has
    `item_ids`.

    Raises:
        ConfigError: Minari is not installed, or as `trajectories`.
        OutputError: the folder cannot be written.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise ConfigError(
            "a .minari folder needs Minari, which is not installed: pip install '.[minari]' in the "
            "clone"
        ) from error
    require_episodes(n_episodes, seed)
    observed = spaces.Box(-np.inf, np.inf, (world.state_dim,), np.float32)
    facts = {"dataset_id": "fastgaum/episodes-v0", "minari_version": minari.__version__}
    facts["item_ids"] = world.item_ids.cast(pl.String).to_list()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
            shown = spaces.MultiDiscrete([world.n_items] * setting.k)
            made = MinariStorage.new(Path(beside) / "new", observed, shown)
            made.update_metadata(facts)
            for first in range(0, n_episodes, PLAYED_AT_ONCE):
                n = min(PLAYED_AT_ONCE, n_episodes - first)
                steps = list(rollout(world, policy, setting, n, seed, first))
                made.update_episodes(EpisodeBuffer(**one) for one in _episodes(steps, n))
                if progress is not None:
                    progress((first + n) * setting.horizon, n_episodes * setting.horizon)
            n_steps = int(made.metadata["total_steps"])
            if out.exists():
                os.rename(out, Path(beside) / "former")
            os.rename(made.data_path, out)
    except OSError as error:
        raise OutputError(f"cannot write '{out}': {error.strerror or error}") from error
    return n_steps


def _episodes(steps: Sequence[Transition], n: int) -> Iterator[dict[str, Any]]:
    """Fields of an `EpisodeBuffer` of each of n users."""
    for user in range(n):
        there = [step for step in steps if step.active[user]]
        last = np.arange(1, len(there) + 1) == len(there)
        left = there[-1].ended[user]
        states = [one.states[user] for one in there]
        yield {
            "observations": np.array([*states, there[-1].next_states[user]]),
            "actions": np.array([one.slates[user] for one in there], np.int64),
            "rewards": np.array([one.rewards[user] for one in there]),
            "terminations": last & left,
            "truncations": last & ~left,
            "infos": {"place": np.array([one.response.places[user] for one in there])},
        }
