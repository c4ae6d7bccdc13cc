"""SIGKILL at random moments of train and data convert, while a reader polls; `make kill-test` kills
each fifty times.

A job is started, killed at a random moment of its work, started again (and killed again, up to three
times), and then left to end. It must end with the result of an uninterrupted job; whatever the reader
finds at any moment must be whole."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum import load_log, save_log
from fastgaum.game.checkpoint import Checkpoint
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from tests.crash.zygote import Zygote
from tests.game.interrupted import essence


class Train:
    """`fastgaum train --resume`, again and again until it is done."""

    always_there = False
    """whether what a reader has seen once must never be gone"""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 0
        to_frame(synthesise(300, preset="sample")[0]).write_parquet(folder / "log.parquet")

    def begin(self) -> None:
        """Before a job: nothing of it is done."""
        self.n += 1
        self.run = self.folder / f"run{self.n}"

    def command(self) -> list[str]:
        sets = ["epochs=3", "warm_start=3", "batch_sessions=16", "catch_up=2", "patience=3"]
        sets += ["search=[]", "folds=2"]
        argv = ["train", str(self.folder / "log.parquet"), "-o", str(self.run), "--resume"]
        return [*argv, *(word for one in sets for word in ("--set", one))]

    def result(self) -> Any:
        return essence(self.run)

    def look(self) -> int:
        """Read whatever is there as a reader would; returns how much was read. Raises whatever is
        wrong."""
        run, read = self.run, 0
        if (run / "model.safetensors").exists():
            read += len(str(UserModel.load(run, device="cpu")))
        if (run / "resume.safetensors").exists():
            read += len(str(Checkpoint.load(run / "resume.safetensors").config))
        if (run / "metrics.parquet").exists():
            read += pl.read_parquet(io.BytesIO((run / "metrics.parquet").read_bytes())).height
        for name in ("metrics.jsonl", "machine.json", "reading.json"):
            text = (run / name).read_text() if (run / name).exists() else "{}\n"
            assert text.endswith("\n")
            for line in text.splitlines() if name == "metrics.jsonl" else [text]:
                read += len(json.loads(line))
        return read


class Convert:
    """`fastgaum data convert` into a folder that holds another log, and to a parquet file that
    does."""

    always_there = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out.parquet"
        log, _ = synthesise(15_000, preset="sample")
        save_log(log, folder / "new")
        save_log(slice_sessions(log, np.arange(log.n_sessions // 2)), folder / "old")
        self.logs = [load_log(folder / name) for name in ("new", "old")]

    def begin(self) -> None:
        if self.out.name == "out":
            self.out = self.folder / "out.parquet"
            to_frame(self.logs[1]).write_parquet(self.folder / "made.parquet")
            (self.folder / "made.parquet").replace(self.out)
        else:
            self.out = self.folder / "out"
            save_log(self.logs[1], self.out, overwrite=True)

    def command(self) -> list[str]:
        return ["data", "convert", str(self.folder / "new"), "-o", str(self.out), "--overwrite"]

    def result(self) -> Any:
        if self.out.name == "out":
            return load_log(self.out).fingerprint == self.logs[0].fingerprint
        return pl.read_parquet(self.out).equals(to_frame(self.logs[0]))

    def look(self) -> int:
        # once there, a replacement must not take them away even for an instant
        there = [name for name in ("out", "out.parquet") if (self.folder / name).exists()]
        if "out" in there:
            read = load_log(self.folder / "out").fingerprint
            assert read in {log.fingerprint for log in self.logs}
        if "out.parquet" in there:
            # through one handle: polars opens a path twice, and meets two files where it is
            # renamed over in between
            content = io.BytesIO((self.folder / "out.parquet").read_bytes())
            assert pl.read_parquet(content).height in {log.n_candidates for log in self.logs}
        return len(there)


def read_beside(job: Train | Convert, done: threading.Event, wrong: list[str]) -> None:
    reads = 0
    while not done.wait(0.02):
        try:
            reads += job.look()
        except Exception as error:
            # a run's next attempt may remove what it had not yet earned, between the look and the
            # read; the library names the file in an error of its own
            is_gone = isinstance(error.__cause__ or error, FileNotFoundError)
            if not is_gone or job.always_there:
                wrong.append(f"a reader found {type(error).__name__}: {error}")
    if not reads:
        wrong.append("the reader read nothing")


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [Train, Convert])
def test_killed_jobs_end_as_if_they_never_were(
    kind: type[Train] | type[Convert], kills: int, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    job, zygote, rng = kind(tmp_path / "work"), Zygote(tmp_path), random.Random(kills)
    job.begin()
    started = time.perf_counter()
    assert zygote.wait(zygote.start(*job.command())) == 0, zygote.said()
    seconds, expected = time.perf_counter() - started, job.result()
    done, wrong = threading.Event(), list[str]()
    reader = threading.Thread(target=read_beside, args=(job, done, wrong))
    reader.start()
    try:
        while kills > 0 and not wrong:
            job.begin()
            for _ in range(rng.randint(1, min(3, kills))):
                pid = zygote.start(*job.command())
                time.sleep(rng.uniform(0, 1.05 * seconds))
                code = zygote.kill(pid)
                # a kill that comes when the job is done does not count
                assert code in (0, -9), zygote.said()[-300:]
                kills -= code == -9
            assert zygote.wait(zygote.start(*job.command())) == 0, zygote.said()[-300:]
            assert job.result() == expected
    finally:
        done.set()
        reader.join()
    assert wrong == []
