"""The agents of docs/examples against the real libraries, at a small size: they learn, and earn
more than chance.

`tests/test_examples.py` runs the other examples.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.worlds.small_world import true_world

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "examples"
SIZES: dict[str, dict[str, Any]] = {
    "sb3_dqn": {"steps": 3_000},
    "sb3_ppo": {"steps": 2_560},
    "cleanrl_ppo": {"updates": 8},
    "policy_gradient": {"updates": 30, "n": 512},
}
OTHERS = {"ray_train", "sb3_table", "minari_episodes"}
"""tested elsewhere: tests/parallel/test_ray.py, and below"""


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", list(SIZES))
def test_an_example_s_agent_earns_more_than_chance(name: str) -> None:
    """Users whose truth is known: 512 new ones pay some -1 to random slates and at most some 17 to
    any."""
    if name.startswith("sb3"):
        pytest.importorskip("stable_baselines3", reason="the agents: install fastgaum[rl]")
    world = true_world()
    random, learned = module_of(name).main(world=world, **SIZES[name])
    assert -2 < random < 1
    assert learned > random + 8


def test_agents_stand_in_the_table_of_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """They learn from as many slates as slateq, and more than chance."""
    pytest.importorskip("sb3_contrib", reason="the agents: install fastgaum[rl]")
    world, module = true_world(), module_of("sb3_table")
    # users whose truth is known have no popular items
    monkeypatch.setattr(module, "NAMES", ("random", "slateq"))
    result = module.main(world, world, 1, 200, episodes=6, users=64, warm_up=64)
    earned = {row["policy"]: row["return"] for row in result["rows"]}
    assert list(earned) == ["random", "slateq", "ppo", "maskableppo"]
    assert min(earned[name] for name in ("ppo", "maskableppo")) > earned["random"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minari_reads_the_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari", reason="pip install 'minari[create,hdf5]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = module_of("minari_episodes").main(episodes=3, world=true_world())
    assert (data.total_episodes, data.total_steps) == (3, 30)
    assert [float(episode.rewards.sum()) != 0 for episode in data] == [True] * 3
