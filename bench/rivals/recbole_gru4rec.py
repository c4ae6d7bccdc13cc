"""RecBole's GRU4Rec on the same sessions, in a virtual environment of its own; prints one line of
JSON.

    python bench/rivals/recbole_gru4rec.py --venv DIR [--install] [--loss CE|BPR] [--sessions N]
    [--threads N]

`--install` makes the environment (about 1.3 GB with a CPU torch) and installs RecBole from PyPI
with releases of numpy, scipy and pandas that it still works with; without it the environment must
exist. RecBole trains one sample per target, each padded to `--history` items (its default is 50),
embedding and hidden size 64, one layer, no dropout, Adam. Loss CE is its default, a softmax over
the whole catalogue; BPR draws one uniform negative. The rate is that of the fastest epoch of
training alone, batches included, validation and loading excluded."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
PINS = (
    "numpy<2",
    "scipy<1.14",
    "pandas<2.3",
    "scikit-learn<1.6",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "torch",
    "tqdm",
    "pyyaml",
    "tensorboard",
    "tabulate",
    "texttable",
    "psutil",
    "plotly",
    "thop",
)
"""what RecBole 1.2.1 imports for training; `ray`, which it names too, is left out: only its tuner
reads it"""
RECBOLE = "recbole==1.2.1"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Throughput of RecBole's GRU4Rec on sessions of Zipf length."
    )
    parser.add_argument(
        "--venv", type=Path, help="virtual environment that holds RecBole, or is to hold it"
    )
    parser.add_argument(
        "--install", action="store_true", help="make the environment and install RecBole from PyPI"
    )
    parser.add_argument("--loss", choices=("CE", "BPR"), default="BPR")
    parser.add_argument("--sessions", type=int, default=400)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=50, help="items that a padded sample holds")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside is not None:
        print(json.dumps(train(options)))
        return 0
    if options.venv is None:
        parser.error("--venv names the environment that holds RecBole")
    python = options.venv / "bin" / "python"
    if options.install:
        install(options.venv)
    if not python.exists():
        parser.error(f"no environment at {options.venv}: add --install to make it")
    with tempfile.TemporaryDirectory() as folder:
        write_sessions(Path(folder) / "zipf", options.sessions, options.items)
        forwarded = [
            part
            for name in ("loss", "sessions", "items", "history", "batch", "epochs", "threads")
            for part in (f"--{name}", str(getattr(options, name)))
        ]
        command = [str(python), str(HERE), "--inside", folder, *forwarded]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return 1
    print(done.stdout.strip().splitlines()[-1])
    return 0


def install(venv: Path) -> None:
    """Make the environment, where it is missing, and install RecBole. Raises CalledProcessError."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--prefer-binary"]
    subprocess.run([*pip, *PINS], check=True)
    subprocess.run([*pip, "--no-deps", RECBOLE], check=True)


def write_sessions(folder: Path, n_sessions: int, n_items: int) -> None:
    """Write the sessions as RecBole's atomic file: one user per session, one row per event."""
    # run as a script, this file sees its own folder and not the repository
    sys.path.insert(0, str(HERE.parents[2]))
    from fastgaum.bench.rivals.session_data import zipf_sessions

    sessions = zipf_sessions(n_sessions, n_items)
    folder.mkdir()
    with open(folder / "zipf.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for session, start in enumerate(sessions.offsets[:-1]):
            for event in range(start, sessions.offsets[session + 1]):
                file.write(f"{session}\t{sessions.items[event]}\t{event}\n")


def train(options: Any) -> dict[str, Any]:
    """Runs inside the environment: train and time."""
    import recbole
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import GRU4Rec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    torch.set_num_threads(options.threads)
    negatives = None if options.loss == "CE" else {"distribution": "uniform", "sample_num": 1}
    # a split that leaves nearly all in training: RecBole holds out the last events of each session
    settings = {
        "data_path": str(options.inside),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": options.history,
        "embedding_size": 64,
        "hidden_size": 64,
        "num_layers": 1,
        "dropout_prob": 0.0,
        "loss_type": options.loss,
        "train_neg_sample_args": negatives,
        "use_gpu": False,
        "train_batch_size": options.batch,
        "epochs": options.epochs,
        "show_progress": False,
        "state": "ERROR",
        "eval_args": {
            "split": {"RS": [0.98, 0.01, 0.01]},
            "order": "TO",
            "group_by": None,
            "mode": "full",
        },
        "checkpoint_dir": str(options.inside),
        "seed": 0,
        "reproducibility": False,
    }
    config = Config(model="GRU4Rec", dataset="zipf", config_dict=settings)
    init_seed(0, False)
    dataset = create_dataset(config)
    batches, _, _ = data_preparation(config, dataset)
    model = GRU4Rec(config, batches.dataset)
    trainer = Trainer(config, model)
    targets, rates, losses = len(batches.dataset), [], []
    for epoch in range(options.epochs):
        start = time.perf_counter()
        losses.append(float(trainer._train_epoch(batches, epoch, show_progress=False)))
        rates.append(targets / (time.perf_counter() - start))
    return {
        "rival": "RecBole GRU4Rec",
        "version": recbole.__version__,
        "torch": torch.__version__,
        "loss": options.loss,
        "targets": targets,
        "items": options.items,
        "history": options.history,
        "batch": options.batch,
        "threads": options.threads,
        "targets_per_s": max(rates),
        "rates": rates,
        "losses": losses,
    }


if __name__ == "__main__":
    raise SystemExit(main())
