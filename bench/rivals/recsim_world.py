"""RecSim's interest-evolution users with random slates, in a virtual environment of their own;
prints one line of JSON.

    python bench/rivals/recsim_world.py --venv DIR [--install] [--steps N] [--slate K]

`--install` makes the environment (about 200 MB) and installs from PyPI RecSim without its
TensorFlow agents, which an environment does not need, and with a numpy that it still works with.
RecSim simulates one user at a time, with a choice model that was written by hand; candidates are as
many as two slates and stay the same, its quickest setting. The rate is the best of five runs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
PINS = ("recsim-no-tf==0.2.3", "numpy<2", "six")
"""`six` is imported by RecSim and not named among what it needs"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="User-steps per second of RecSim's interest evolution."
    )
    parser.add_argument(
        "--venv", type=Path, help="virtual environment that holds RecSim, or is to hold it"
    )
    parser.add_argument(
        "--install", action="store_true", help="make the environment and install RecSim from PyPI"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--slate", type=int, default=10)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        print(json.dumps(simulate(options)))
        return 0
    if options.venv is None:
        parser.error("--venv names the environment that holds RecSim")
    python = options.venv / "bin" / "python"
    if options.install:
        install(options.venv)
    if not python.exists():
        parser.error(f"no environment at {options.venv}: add --install to make it")
    sizes = ["--steps", str(options.steps), "--slate", str(options.slate)]
    done = subprocess.run(
        [str(python), str(HERE), "--inside", *sizes], capture_output=True, text=True
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return 1
    print(done.stdout.strip().splitlines()[-1])
    return 0


def install(venv: Path) -> None:
    """Make the environment, where it is missing, and install RecSim. Raises CalledProcessError."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", *PINS], check=True
    )


def simulate(options: Any) -> dict[str, Any]:
    """Runs inside the environment: show random slates and time."""
    warnings.simplefilter("ignore")
    import numpy as np
    from recsim.environments import interest_evolution

    candidates = 2 * options.slate
    settings = {
        "num_candidates": candidates,
        "slate_size": options.slate,
        "resample_documents": False,
        "seed": 0,
    }
    env = interest_evolution.create_environment(settings)
    env.reset()
    draws = np.random.default_rng(0)
    slates = [draws.choice(candidates, options.slate, replace=False) for _ in range(options.steps)]
    rates, clicks = [], 0
    for _ in range(5):
        started = time.perf_counter()
        for slate in slates:
            observation, _, done, _ = env.step(slate)
            clicks += any(response["click"] for response in observation["response"] or ())
            if done:
                env.reset()
        rates.append(options.steps / (time.perf_counter() - started))
    return {
        "rival": "RecSim interest evolution",
        "slate": options.slate,
        "steps": options.steps,
        "clicks_per_step": clicks / (5 * options.steps),
        "user_steps_per_s": max(rates),
        "rates": rates,
    }


if __name__ == "__main__":
    raise SystemExit(main())
