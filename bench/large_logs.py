"""What a log in parts takes, by its size: a row a size, of what `fastgaum` does as commands.

    python bench/large_logs.py 1e5 1e6 1e7 1e8 --folder /data/made-up

A made-up log of displays of ten of a million items, half of it training, is written in files of at
most a million events, which share the items and the users' law and no user; then `data convert`, and
`train` of one exact epoch. Of more than 20 million events the first 20 million are written, and their
parts stand in the log several times, each time with other users: events are then read from the same
files, and `data convert` is measured on what was written. A peak is of the resident memory of a
command's own process."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from fastgaum.logs.fold import to_frame
from fastgaum.logs.store import ABOUT, About, StoredPart, StoredTable
from fastgaum.logs.synthetic import SyntheticWorld
from fastgaum.reports.table import rows_to_markdown

AT_ONCE = 1_000_000
"""events of a file"""
MOST_WRITTEN = 20_000_000
"""events of all files"""
OF_PART = 100_000
"""events of a part, about"""
FEWEST_PARTS = 8
COLUMNS = ("events", "parts", "`data convert`", "`train`", "events per second", "NLL on validation")


@dataclass(frozen=True)
class Piece(SyntheticWorld):
    """Users of a world whose items are those of all pieces."""

    number: int = 0

    def _stream(self, *numbers: int) -> np.random.Generator:
        of_items = numbers == (0,)
        return super()._stream(*numbers, *(() if of_items else (self.number,)))


def write_log(folder: Path, n_events: int, n_items: int) -> None:
    """Write the files of a log."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shape: dict[str, Any] = {"mean_length": 10.0, "max_length": 30}
    shape |= {"mean_display": 10.0, "max_display": 10, "dim": 4, "seed": 1}
    for number, first in enumerate(range(0, n_events, AT_ONCE)):
        log, _ = Piece(n_items, number=number, **shape).draw(min(AT_ONCE, n_events - first))
        named = (pl.format(f"{number}-{{}}", name) for name in ("session", "user"))
        to_frame(log).with_columns(*named).write_parquet(folder / f"{number:03}.parquet")


def repeat_parts(folder: Path, times: int) -> None:
    """Let a log have each of its parts several times, each time with other users."""
    about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    parts = list(about.parts)
    most_users = sum(sum(part.counts.sessions) for part in parts)
    for time_over in range(1, times):
        for part in about.parts:
            sessions = pl.read_parquet(folder / part.sessions.file)
            named = (pl.format(f"{time_over}-{{}}", name) for name in ("session_ids", "user_ids"))
            users = pl.col("users") + time_over * most_users
            path = folder / f"{time_over}-{part.sessions.file}"
            sessions.with_columns(*named, users).write_parquet(path, compression="zstd")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            parts.append(
                StoredPart(StoredTable(path.name, digest), part.events, part.counts, digest)
            )
    whole = msgspec.structs.replace(about, parts=parts)
    (folder / ABOUT).write_bytes(msgspec.json.encode(whole))


def run(*arguments: str) -> str:
    """Seconds and peak of a command of this package."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "fastgaum", *arguments])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"fastgaum {' '.join(arguments)} has failed")
    return f"{time.perf_counter() - started:,.0f} s, {used.ru_maxrss * 1024 / 1e9:.2f} GB"


def row_of(folder: Path, n_events: int, n_items: int, settings: list[str]) -> list[str]:
    """The row of a size."""
    clicks, parts, fitted = (folder / name for name in ("clicks", "parts", "run"))
    times = -(-n_events // MOST_WRITTEN)
    n_parts = max(FEWEST_PARTS, round(n_events / times / OF_PART))
    write_log(clicks, n_events // times, n_items)
    wanted = [option for one in settings for option in ("--set", one)]
    converted = run("data", "convert", str(clicks), "-o", str(parts), "--parts", str(n_parts))
    shutil.rmtree(clicks)
    repeat_parts(parts, times)
    trained = run("train", str(parts), "-o", str(fitted), *wanted)
    epoch = pl.read_parquet(fitted / "metrics.parquet").row(-1, named=True)
    shutil.rmtree(parts)
    shutil.rmtree(fitted)
    figures = f"{epoch['events_per_second']:,.0f}", f"{epoch['val_loss']:.3f}"
    return [f"{n_events:,}", str(times * n_parts), converted, trained, *figures]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", nargs="+", type=float)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--set", nargs="*", default=["players=exact", "epochs=1"])
    args = parser.parse_args()
    rows = [list(COLUMNS)]
    for n_events in args.events:
        rows.append(row_of(args.folder, int(n_events), args.items, args.set))
        print(rows_to_markdown(rows, ()), flush=True)


if __name__ == "__main__":
    main()
