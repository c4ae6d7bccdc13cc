"""The official GRU4Rec (github.com/hidasib/GRU4Rec_PyTorch_Official) on the same sessions; prints
one line of JSON.

    python bench/rivals/official_gru4rec.py [--source DIR] [--python PATH] [--block N] [--sessions
    N] [--threads N]

Its code is not part of this project: it is cloned into a temporary folder, or read from `--source`,
a clone made before. Without network and without a source it says so and exits with 2;
`sessions_gru4rec.Lanes` is then the stand-in. `--python` names an interpreter that has torch and
pandas (RecBole's environment does). Settings: one layer of 64, the table shared by input and
output, cross-entropy on the batch's own items, no drawn negatives, no dropout. The rate is the
official code's own (e/s), of its fastest epoch."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

URL = "https://github.com/hidasib/GRU4Rec_PyTorch_Official"
HERE = Path(__file__).resolve()
CODE = "gru4rec_pytorch.py"

TRAIN = """
import sys
import numpy, pandas, torch
source, file, block, threads, epochs = sys.argv[1:]
sys.path.insert(0, source)
from gru4rec_pytorch import GRU4Rec
torch.set_num_threads(int(threads))
found = numpy.load(file)
sizes = numpy.diff(found["offsets"])
data = pandas.DataFrame({
    "SessionId": numpy.repeat(numpy.arange(len(sizes)), sizes),
    "ItemId": found["items"].astype("int64"),
    "Time": numpy.arange(len(found["items"])),
})
GRU4Rec(
    layers=[64], loss="cross-entropy", batch_size=int(block), n_sample=0, embedding=0, constrained_embedding=True,
    n_epochs=int(epochs), learning_rate=0.05, device=torch.device("cpu"),
).fit(data, compatibility_mode=False)
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Throughput of the official GRU4Rec on sessions of Zipf length."
    )
    parser.add_argument("--source", type=Path, help=f"folder that holds {CODE}")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter with torch and pandas"
    )
    parser.add_argument("--block", type=int, default=50, help="sessions in parallel")
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = options.source or clone(folder / "clone")
        if source is None or not (source / CODE).exists():
            print(
                f"the official GRU4Rec is not to be had: no {CODE} in --source, and {URL} is not "
                "reached",
                file=sys.stderr,
            )
            return 2
        write_sessions(folder / "sessions.npz", options.sessions, options.items)
        settings = [
            str(source),
            str(folder / "sessions.npz"),
            *map(str, (options.block, options.threads, options.epochs)),
        ]
        done = subprocess.run(
            [options.python, "-c", TRAIN, *settings], capture_output=True, text=True
        )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return 1
    rates = rates_of(done.stdout)
    print(
        json.dumps(
            {
                "rival": "official GRU4Rec",
                "block": options.block,
                "items": options.items,
                "threads": options.threads,
                "targets_per_s": max(rates),
                "rates": rates,
            }
        )
    )
    return 0


def clone(folder: Path) -> Path | None:
    """Clone the official repository; None where git or the network is missing."""
    command = ["git", "clone", "--quiet", "--depth", "1", URL, str(folder)]
    try:
        return (
            folder
            if subprocess.run(command, capture_output=True, timeout=120).returncode == 0
            else None
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def write_sessions(file: Path, n_sessions: int, n_items: int) -> None:
    """Write the sessions that all contenders train on."""
    # run as a script, this file sees its own folder and not the repository
    sys.path.insert(0, str(HERE.parents[2]))
    import numpy as np

    from fastgaum.bench.rivals.session_data import zipf_sessions

    sessions = zipf_sessions(n_sessions, n_items)
    np.savez(file, items=sessions.items, offsets=sessions.offsets)


def rates_of(printed: str) -> list[float]:
    """Events per second of each epoch, as the official code prints them.

    >>> rates_of("Epoch1 --> loss: 3.7 \\t(1.59s) \\t[571.05 mb/s | 28469 e/s]")
    [28469.0]
    """
    return [float(rate) for rate in re.findall(r"\| (\d+) e/s\]", printed)]


if __name__ == "__main__":
    raise SystemExit(main())
