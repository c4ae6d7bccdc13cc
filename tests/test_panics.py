"""Polars' panics leave no text on stderr, and all other output gets there."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import FastgaumError
from fastgaum.logs.read import read_log

PROGRAM = """
import os, subprocess, sys, threading
from decimal import Decimal
from pathlib import Path
import polars as pl
import fastgaum as fg
from fastgaum.panics import without_panics

def read(path):
    try:
        fg.read_log(path, candidate_fields=["p"])
    except fg.errors.FastgaumError as error:
        print(error)

threads = [threading.Thread(target=read, args=(sys.argv[1],)) for _ in range(4)]
for one in threads:
    one.start()
for one in threads:
    one.join()
kept = sys.stderr
with without_panics():
    assert sys.stderr.isatty() == kept.isatty()
    print("of python", file=sys.stderr)
    print("held", file=kept, flush=True)
    os.write(2, b"of C\\n\\nhalf")
    child = "import sys, time; text = input(); time.sleep(.2); print(text, file=sys.stderr)"
    late = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    with without_panics():
        os.write(2, b" a line\\n")
    swapped = sys.stderr
assert sys.stderr is kept
print("after", file=swapped, flush=True)
# and this process ends before it
late.stdin.write(b"of a child\\n")
late.stdin.close()
"""


def damaged_arrow(path: Path) -> None:
    """A schema in which polars meets a type that it does not know: it panics."""
    pyarrow = pytest.importorskip("pyarrow")
    rows = pl.DataFrame({"session": [1], "event": [1], "item": ["a"], "chosen": [1]}).to_arrow()
    numbers = pyarrow.array([1], pyarrow.decimal256(60, 2))
    with pyarrow.OSFile(str(path), "wb") as file:
        table = rows.append_column("p", numbers)
        with pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


def test_a_panic_is_one_line_and_other_output_is_kept(tmp_path: Path) -> None:
    damaged_arrow(tmp_path / "log.arrow")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "log.arrow")],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.count("polars fails on its contents") == 4, done.stdout
    lines = sorted(filter(None, done.stderr.splitlines()))
    assert lines == ["after", "half a line", "held", "of C", "of a child", "of python"]


@pytest.mark.parametrize(("kind", "seed"), [("parquet", 2), ("arrow", 1)])
def test_no_damage_of_a_file_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, seed: int
) -> None:
    # polars 2.1 panics several times in each
    n, path = 200, tmp_path / f"log.{kind}"
    rows = pl.DataFrame(
        {"session": ["u"] * n, "event": range(n), "item": [f"i{i % 7}" for i in range(n)]}
    ).with_columns(chosen=pl.lit(1), p=np.arange(n) * 0.5, lists=pl.lit([1, 2]))
    rows.write_parquet(path) if kind == "parquet" else rows.write_ipc(path)
    good, rng = path.read_bytes(), np.random.default_rng(seed)
    for trial in range(120):
        data, n_flips = bytearray(good), int(rng.integers(1, 4))
        start = 0 if trial % 2 else max(0, len(data) - 600)
        for _ in range(n_flips):
            data[int(rng.integers(start, len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with suppress(FastgaumError):
            read_log(path, candidate_fields=["p", "lists"])
    assert capfd.readouterr() == ("", "")
