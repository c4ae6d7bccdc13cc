"""Speed of other libraries, in one virtual environment of their own.

    python bench/rivals/peers.py DIR --install        # makes the environment, about 1.5 GB, from PyPI
    python bench/rivals/peers.py DIR recsim           # or another: prints one line of JSON

The races run the peers where $FASTGAUM_PEERS names such an environment.

- `recsim`: RecSim's interest-evolution users with random slates of ten. It simulates one user at a
  time, with a choice model written by hand. Candidates are as many as two slates and stay the same,
  its quickest setting. User-steps per second, the best of five runs.
- `recbole`: RecBole's GRU4Rec on the sessions of `zipf_sessions`. It trains one sample per target,
  each padded to 50 items (its default), embedding and hidden size 64, one layer, no dropout, Adam,
  BPR with one uniform negative. Targets per second of the fastest epoch of training alone.
- `torch-choice`: its conditional logit on the numbers that candidates have under `bags`, display
  sets padded, by L-BFGS over all training events. Seconds of the fit, and its validation NLL.
- `gru4rec`: the official GRU4Rec, whose code `--install` clones beside the environment. One layer of
  64, the table shared by input and output, cross-entropy on the own items of a batch of 512.
  Targets per second, of its fastest epoch."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog

PEERS = "FASTGAUM_PEERS"
GRU4REC = "https://github.com/hidasib/GRU4Rec_PyTorch_Official"
PINS = (
    "recsim-no-tf==0.2.3",
    "numpy<2",
    "scipy<1.14",
    "pandas<2.3",
    "scikit-learn<1.6",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "torch",
    *("tqdm", "pyyaml", "tensorboard", "tabulate", "texttable", "psutil", "plotly", "thop", "six"),
    "pytorch-lightning<3",
)
"""what the peers import, in releases that they still work with; `ray`, which RecBole names too, is
read by its tuner alone"""
ALONE = ("recbole==1.2.1", "torch-choice==1.0.7")
"""installed without what they name: they name more than they import"""
Rates = list[float]


def rate(peer: str, threads: int, n_sessions: int = 400) -> float | None:
    """What a peer does in a second on so many threads; None where $FASTGAUM_PEERS names no
    environment. Sessions are for those that train on them."""
    home = os.environ.get(PEERS)
    return None if home is None else max(_rates(Path(home), peer, threads, n_sessions))


def conditional_logit(log: SessionLog, threads: int) -> tuple[float, float] | None:
    """Seconds of torch-choice's fit on a log whose events all have a choice, and its validation
    NLL; None as in `rate`."""
    home = os.environ.get(PEERS)
    if home is None:
        return None
    seconds, nll = _inside(Path(home), "torch-choice", threads, partial(_write_displays, log))
    return seconds, nll


def _rates(home: Path, peer: str, threads: int, n_sessions: int) -> Rates:
    def write(folder: Path) -> None:
        if peer == "torch-choice":
            from fastgaum.logs.read import load

            _write_displays(load("yoochoose"), folder)
        elif peer != "recsim":
            _write_sessions(folder / "sessions.npz", n_sessions)

    return _inside(home, peer, threads, write)


def _inside(home: Path, peer: str, threads: int, write: Callable[[Path], None]) -> Rates:
    """What a peer prints that runs in the environment, in a folder that `write` has filled."""
    python = home / "bin" / "python"
    if not python.exists():
        raise SystemExit(
            f"no environment at {home}: `python bench/rivals/peers.py {home} --install`"
        )
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        inside = [str(python), str(Path(__file__).resolve()), str(home.resolve()), peer]
        command = [*inside, "--inside", f"--threads={threads}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    rates: Rates = json.loads(done.stdout.strip().splitlines()[-1])
    return rates


def _write_sessions(file: Path, n_sessions: int) -> None:
    import numpy as np

    from fastgaum.bench.rivals.sessions_gru4rec import zipf_sessions

    sessions = zipf_sessions(n_sessions)
    np.savez(file, items=sessions.items, offsets=sessions.offsets)


def _write_displays(log: SessionLog, folder: Path) -> None:
    import numpy as np

    from fastgaum.features.space import FeatureSpace

    space = FeatureSpace.fit(log, "bags")
    arrays = {}
    for split in ("train", "validation"):
        encoded = space.encode(log, log.sessions_in(split))
        arrays[f"{split}_numbers"] = encoded.numbers
        arrays[f"{split}_offsets"] = encoded.display_offsets
        arrays[f"{split}_choices"] = encoded.choices
    np.savez(folder / "displays.npz", **arrays)


def install(home: Path) -> None:
    """Make the environment. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "pip"), "install", "--quiet", "--no-cache-dir", "--prefer-binary"]
    subprocess.run([*pip, *PINS], check=True)
    subprocess.run([*pip, "--no-deps", *ALONE], check=True)
    subprocess.run(["git", "clone", "-q", "--depth=1", GRU4REC, str(home / "gru4rec")], check=True)


def recsim(home: Path, threads: int) -> Rates:
    """Runs inside the environment: show random slates."""
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


def recbole(home: Path, threads: int) -> Rates:
    """Runs inside the environment: write the sessions as RecBole reads them, one user per session,
    and train."""
    import numpy as np
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import GRU4Rec
    from recbole.trainer import Trainer

    torch.set_num_threads(threads)
    found = np.load("sessions.npz", allow_pickle=False)
    session = np.repeat(np.arange(len(found["offsets"]) - 1), np.diff(found["offsets"]))
    Path("zipf").mkdir()
    rows = np.column_stack([session, found["items"], np.arange(len(session))])
    head = "user_id:token\titem_id:token\ttimestamp:float"
    np.savetxt("zipf/zipf.inter", rows, "%d", "\t", header=head, comments="")
    settings = {
        "data_path": ".",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": 50,
        "embedding_size": 64,
        "hidden_size": 64,
        "num_layers": 1,
        "dropout_prob": 0.0,
        "loss_type": "BPR",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "use_gpu": False,
        "train_batch_size": 2048,
        "show_progress": False,
        "state": "ERROR",
        # nearly all in training: RecBole holds out the last events of each session
        "eval_args": {
            "split": {"RS": [0.98, 0.01, 0.01]},
            "order": "TO",
            "group_by": None,
            "mode": "full",
        },
        "checkpoint_dir": ".",
        "seed": 0,
        "reproducibility": False,
    }
    config = Config(model="GRU4Rec", dataset="zipf", config_dict=settings)
    batches, _, _ = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, GRU4Rec(config, batches.dataset))
    rates = []
    for epoch in range(2):
        started = time.perf_counter()
        trainer._train_epoch(batches, epoch, show_progress=False)
        rates.append(len(batches.dataset) / (time.perf_counter() - started))
    return rates


def torch_choice(home: Path, threads: int) -> Rates:
    """Runs inside the environment: fit the conditional logit."""
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


def gru4rec(home: Path, threads: int) -> Rates:
    """Runs inside the environment: train with the official code, which prints its own rate."""
    sys.path.insert(0, str(home / "gru4rec"))
    import numpy as np
    import pandas as pd
    import torch
    from gru4rec_pytorch import GRU4Rec

    torch.set_num_threads(threads)
    found = np.load("sessions.npz", allow_pickle=False)
    session = np.repeat(np.arange(len(found["offsets"]) - 1), np.diff(found["offsets"]))
    columns = {"SessionId": session, "ItemId": found["items"].astype("int64")}
    data = pd.DataFrame(columns | {"Time": np.arange(len(session))})
    model = GRU4Rec(
        layers=[64],
        loss="cross-entropy",
        batch_size=512,
        n_sample=0,
        embedding=0,
        constrained_embedding=True,
        n_epochs=3,
        learning_rate=0.05,
        device=torch.device("cpu"),
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        model.fit(data, compatibility_mode=False)
    return rates_of(printed.getvalue())


def rates_of(printed: str) -> Rates:
    """Events per second of each epoch, as the official code prints them.

    >>> rates_of("Epoch1 --> loss: 3.7 \\t(1.59s) \\t[571.05 mb/s | 28469 e/s]")
    [28469.0]
    """
    return [float(rate) for rate in re.findall(r"\| (\d+) e/s\]", printed)]


RUNS: dict[str, Callable[[Path, int], Any]] = {
    "recsim": recsim,
    "recbole": recbole,
    "torch-choice": torch_choice,
    "gru4rec": gru4rec,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path, help="the environment")
    parser.add_argument("peer", nargs="?", choices=RUNS)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.install:
        install(asked.home)
    if asked.peer and asked.inside:
        warnings.simplefilter("ignore")
        print(json.dumps(RUNS[asked.peer](asked.home, asked.threads)))
    elif asked.peer:
        found = _rates(asked.home, asked.peer, asked.threads, asked.sessions)
        print(json.dumps({"peer": asked.peer, "found": found}))
