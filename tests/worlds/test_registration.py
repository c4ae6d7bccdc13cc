"""`fastgaum/User-v0` is found by its name, and `import fastgaum` does not import gymnasium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MADE = """
import sys
import fastgaum
assert 'gymnasium' not in sys.modules
import gymnasium
single = gymnasium.make("fastgaum.worlds:fastgaum/User-v0", run="{run}", horizon=3)
many = gymnasium.make_vec("fastgaum/User-v0", num_envs=5, run="{run}", horizon=3)
assert many.spec.id == "fastgaum/User-v0" and many.num_envs == 5, many
observation, info = many.reset(seed=0)
assert observation.shape == (5, single.observation_space.shape[0])
import importlib
importlib.reload(fastgaum.worlds)
spec = gymnasium.spec("fastgaum/User-v0")
assert spec.vector_entry_point and spec.entry_point
"""


def test_a_run_becomes_an_environment(small_run: Path, tmp_path: Path) -> None:
    """From another folder; where nothing of fastgaum is imported: tests/test_packaging.py."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MADE.format(run=small_run)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
