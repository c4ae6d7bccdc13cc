"""Speed of other libraries, in one virtual environment of their own, which $FASTGAUM_PEERS names.

    python bench/rivals/peers.py DIR --install        # makes the environment, about 1.5 GB

- `recsim`: RecSim's interest-evolution users with random slates of ten of twenty candidates that
  stay the same, its quickest setting. User-steps per second, the best of five runs.
- `torch-choice`: its conditional logit on the numbers that candidates have under `bags`, by L-BFGS
  over all training events. Seconds of the fit, and its validation NLL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog

PEERS = "FASTGAUM_PEERS"
PINS = (
    "recsim-no-tf==0.2.3",
    "numpy<2",
    "scipy<1.14",
    "pandas<2.3",
    "scikit-learn<1.6",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "torch",
    *("tqdm", "tensorboard", "tabulate"),
    "pytorch-lightning<3",
)
ALONE = ("torch-choice==1.0.7",)
"""installed without what it names: it names more than it imports"""


def recsim_rate(threads: int) -> float | None:
    """User-steps per second of RecSim; None where $FASTGAUM_PEERS names no environment."""
    home = os.environ.get(PEERS)
    return None if home is None else max(_inside(Path(home), "recsim", threads))


def conditional_logit(log: SessionLog, threads: int) -> tuple[float, float] | None:
    """Seconds of torch-choice's fit on a log whose events all have a choice, and its validation
    NLL; None as in `recsim_rate`."""
    home = os.environ.get(PEERS)
    if home is None:
        return None
    seconds, nll = _inside(Path(home), "torch-choice", threads, log)
    return seconds, nll


def _inside(home: Path, peer: str, threads: int, log: SessionLog | None = None) -> list[float]:
    """What a peer prints that runs in the environment, in a folder that holds the displays of a
    log."""
    python = home / "bin" / "python"
    if not python.exists():
        raise SystemExit(
            f"no environment at {home}: `python bench/rivals/peers.py {home} --install`"
        )
    with tempfile.TemporaryDirectory() as folder:
        if log is not None:
            _write_displays(log, Path(folder))
        command = [str(python), str(Path(__file__).resolve()), peer, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _write_displays(log: SessionLog, folder: Path) -> None:
    import numpy as np

    from fastgaum.features.encoder import Encoder
    from fastgaum.features.fitting import fit_space

    encoder, arrays = Encoder(fit_space(log, "bags"), log), {}
    for split in ("train", "validation"):
        one = encoder.encode(log.sessions_in(split))
        held = {"numbers": one.numbers, "offsets": one.display_offsets, "choices": one.choices}
        arrays |= {f"{split}_{name}": values for name, values in held.items()}
    np.savez(folder / "displays.npz", **arrays)


def install(home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "pip"), "install", "--quiet", "--no-cache-dir", "--prefer-binary"]
    subprocess.run([*pip, *PINS], check=True)
    subprocess.run([*pip, "--no-deps", *ALONE], check=True)


def recsim(threads: int) -> list[float]:
    import numpy as np
    from recsim.environments import interest_evolution

    slate, steps = 10, 1000
    settings = {
        "num_candidates": 2 * slate,
        "slate_size": slate,
        "resample_documents": False,
        "seed": 0,
    }
    env = interest_evolution.create_environment(settings)
    env.reset()
    draws = np.random.default_rng(0)
    slates = [draws.choice(2 * slate, slate, replace=False) for _ in range(steps)]
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for shown in slates:
            if env.step(shown)[2]:
                env.reset()
        rates.append(steps / (time.perf_counter() - started))
    return rates


def torch_choice(threads: int) -> list[float]:
    import numpy as np
    import torch
    from torch_choice.data import ChoiceDataset
    from torch_choice.model import ConditionalLogitModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    found = np.load("displays.npz", allow_pickle=False)
    splits = ("train", "validation")
    k = max(int(np.diff(found[f"{split}_offsets"]).max()) for split in splits)

    def padded(split: str) -> Any:
        numbers, offsets = found[f"{split}_numbers"], found[f"{split}_offsets"]
        sizes = np.diff(offsets)
        there = np.arange(k) < sizes[:, None]
        values = np.zeros((len(sizes), k, numbers.shape[1]), np.float32)
        values[there] = numbers
        return ChoiceDataset(
            item_index=torch.from_numpy(found[f"{split}_choices"]).long(),
            num_items=k,
            item_availability=torch.from_numpy(there),
            itemsession_numbers=torch.from_numpy(values),
        )

    def loss(data: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(data), data.item_index)

    train, validation = map(padded, splits)
    n_numbers = found["train_numbers"].shape[1]
    model = ConditionalLogitModel(
        coef_variation_dict={"itemsession_numbers": "constant"},
        num_param_dict={"itemsession_numbers": n_numbers},
        num_items=k,
    )
    started = time.perf_counter()
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(train)
        torch.autograd.backward(value)
        return value

    optimiser.step(closure)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        return [seconds, float(loss(validation))]


RUNS: dict[str, Callable[[int], list[float]]] = {
    "recsim": recsim,
    "torch-choice": torch_choice,
}

if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if rest == ["--install"]:
        install(Path(what))
    else:
        warnings.simplefilter("ignore")
        print(json.dumps(RUNS[what](int(rest[0]))))
