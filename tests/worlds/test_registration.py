"""`fastgaum/User-v0` is found whichever package is imported first, and `import fastgaum` does not
import gymnasium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SPEC = (
    "spec = gymnasium.spec('fastgaum/User-v0'); assert spec.vector_entry_point and spec.entry_point"
)
ORDERS = {
    "the package alone": "import fastgaum; import sys; assert 'gymnasium' not in sys.modules",
    "fastgaum first, and again": f"import fastgaum.worlds, importlib, gymnasium; importlib.reload(fastgaum.worlds); {SPEC}",
}


@pytest.mark.parametrize("order", list(ORDERS))
def test_order_of_imports_does_not_matter(order: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ORDERS[order]],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]


MADE = """
import gymnasium
single = gymnasium.make("fastgaum.worlds:fastgaum/User-v0", run="{run}", horizon=3)
many = gymnasium.make_vec("fastgaum/User-v0", num_envs=5, run="{run}", horizon=3)
assert many.spec.id == "fastgaum/User-v0" and many.num_envs == 5, many
observation, info = many.reset(seed=0)
assert observation.shape == (5, single.observation_space.shape[0])
"""


def test_a_run_becomes_an_environment(small_run: Path, tmp_path: Path) -> None:
    """From another folder, in a process that imports nothing of fastgaum itself."""
    script = MADE.format(run=small_run)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
