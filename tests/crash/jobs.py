"""Commands that are killed and started again, what each leaves and what a reader may find meanwhile."""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastgaum import load_log, save_log
from fastgaum.game.checkpoint import Checkpoint
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from tests.crash.slow_server import SlowServer
from tests.crash.zygote import Zygote


@dataclass
class Report:
    """What the kill test has seen."""

    kills: int = 0
    late: int = 0
    """kills that came when the job was done already; they do not count"""
    ends: int = 0
    """jobs that were left to end, each compared with the uninterrupted one"""
    reads: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.ends} ends compared, {self.reads} reads beside "
            f"({self.late} kills came too late),"
            f" {len(self.wrong)} wrong"
        )


class Job:
    """One command, repeated in a folder; subclasses say what it is, what it leaves and what a
    reader may find."""

    name: str
    always_there = False
    """whether what a reader has seen once must never be gone"""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.zygote, self.folder = zygote, folder
        folder.mkdir()
        self.prepare()

    def prepare(self) -> None:
        """Make inputs, and the hash of an uninterrupted job."""
        raise NotImplementedError

    def begin(self) -> None:
        """Before a job: nothing of it is done."""

    def start(self) -> int:
        """Start it, or start it again; returns the process id."""
        raise NotImplementedError

    def result(self) -> Any:
        """What the ended job left."""
        raise NotImplementedError

    def look(self) -> int:
        """Read whatever is there as a reader would; returns how many files were read. Raises
        whatever is wrong."""
        raise NotImplementedError

    def reference(self) -> None:
        """Run the job uninterrupted: its time and its result."""
        self.begin()
        started = time.perf_counter()
        code = self.zygote.wait(self.start())
        self.seconds = time.perf_counter() - started
        assert code == 0, self.zygote.said()
        self.expected = self.result()

    def chain(self, rng: random.Random, kills: int, report: Report) -> None:
        """A job that is killed up to so many times, then left to end."""
        self.begin()
        for _ in range(kills):
            pid = self.start()
            time.sleep(rng.uniform(0, 1.05 * self.seconds))
            code = self.zygote.kill(pid)
            if code == -9:
                report.kills += 1
            elif code == 0:
                report.late += 1
            else:
                report.wrong.append(
                    f"{self.name}: exit code {code} after a kill: {self.zygote.said()[-300:]}"
                )
        code = self.zygote.wait(self.start())
        report.ends += 1
        if code != 0:
            report.wrong.append(
                f"{self.name}: exit code {code} at the end: {self.zygote.said()[-300:]}"
            )
        elif self.result() != self.expected:
            report.wrong.append(f"{self.name}: another result")


class Train(Job):
    """`fastgaum train --resume`, again and again until it is done."""

    name = "train"

    def prepare(self) -> None:
        log, _ = synthesise(600, preset="sample")
        to_frame(log).write_parquet(self.folder / "log.parquet")
        self.n = 0
        self.reference()

    def begin(self) -> None:
        self.n += 1
        self.run = self.folder / f"run{self.n}"

    def start(self) -> int:
        sets = ["epochs=12", "warm_start=12", "batch_sessions=16", "catch_up=4", "patience=3"]
        options = [part for one in sets for part in ("--set", one)]
        return self.zygote.start(
            "train", str(self.folder / "log.parquet"), "-o", str(self.run), "--resume", *options
        )

    def result(self) -> Any:
        lines = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        table = pl.read_parquet(self.run / "metrics.parquet").drop("events_per_second")
        return (
            sorted(path.name for path in self.run.iterdir()),
            _sha((self.run / "model.safetensors").read_bytes()),
            [{**line, "events_per_second": 0} for line in lines],
            table.write_json(),
        )

    def look(self) -> int:
        run, read = self.run, 0
        if (run / "model.safetensors").exists():
            UserModel.load(run, device="cpu")
            read += 1
        if (run / "resume.safetensors").exists():
            Checkpoint.load(run / "resume.safetensors")
            read += 1
        for name in ("metrics.jsonl", "machine.json", "reading.json"):
            text = _text(run / name)
            if text is not None:
                assert text.endswith("\n")
                for line in text.splitlines() if name == "metrics.jsonl" else [text]:
                    json.loads(line)
                read += 1
        if (run / "metrics.parquet").exists():
            pl.read_parquet(io.BytesIO((run / "metrics.parquet").read_bytes()))
            read += 1
        return read


class Get(Job):
    """`fastgaum data get` from a slow server on this machine."""

    name = "data get"

    def prepare(self) -> None:
        self.content = random.Random(0).randbytes(1 << 20)
        self.server = SlowServer(self.content, seconds=0.6)
        self.registry = f"""
[slow]
title = "t"
origin = "o"
terms = "t"
card = "sample.md"
files = [{{ path = "slow/log.bin", sha256 = "{_sha(self.content)}", bytes = {len(self.content)}, url = "{self.server.url}" }}]
"""
        self.n = 0
        self.reference()
        assert self.expected == self.content

    def begin(self) -> None:
        self.n += 1
        self.file = self.folder / f"data{self.n}" / "slow" / "log.bin"

    def start(self) -> int:
        data_dir = self.file.parents[1]
        return self.zygote.start(
            "data", "get", "slow", "--data-dir", str(data_dir), registry=self.registry
        )

    def result(self) -> Any:
        return self.file.read_bytes()

    def look(self) -> int:
        if not self.file.exists():
            return 0
        assert self.file.read_bytes() == self.content
        return 1


class Convert(Job):
    """`fastgaum data convert` into a folder that holds another log, and to a parquet file that
    does."""

    name = "data convert"
    always_there = True

    def prepare(self) -> None:
        log, _ = synthesise(40_000, preset="sample")
        save_log(log, self.folder / "new")
        save_log(slice_sessions(log, np.arange(log.n_sessions // 2)), self.folder / "old")
        self.prints = {load_log(self.folder / name).fingerprint for name in ("new", "old")}
        self.heights = {to_frame(load_log(self.folder / name)).height for name in ("new", "old")}
        self.to_file = False
        self.there: set[str] = set()
        self.uninterrupted: dict[bool, tuple[Any, float]] = {}
        for _ in range(2):
            self.reference()
            self.uninterrupted[self.to_file] = self.expected, self.seconds

    def begin(self) -> None:
        self.to_file = not self.to_file
        self.out = self.folder / ("out.parquet" if self.to_file else "out")
        if self.to_file in self.uninterrupted:
            self.expected, self.seconds = self.uninterrupted[self.to_file]
        old = load_log(self.folder / "old")
        if self.to_file:
            to_frame(old).write_parquet(self.folder / "made.parquet")
            (self.folder / "made.parquet").replace(self.out)
        else:
            save_log(old, self.out, overwrite=True)

    def start(self) -> int:
        return self.zygote.start(
            "data", "convert", str(self.folder / "new"), "-o", str(self.out), "--overwrite"
        )

    def result(self) -> Any:
        return _sha(self.out.read_bytes()) if self.to_file else load_log(self.out).fingerprint

    def look(self) -> int:
        # both are there from their first moment on: a replacement must not take them away even for
        # an instant
        self.there |= {name for name in ("out", "out.parquet") if (self.folder / name).exists()}
        if "out" in self.there:
            assert load_log(self.folder / "out").fingerprint in self.prints
        if "out.parquet" in self.there:
            # read through one handle: polars opens a path twice, and meets two files where it is
            # renamed over in between
            content = io.BytesIO((self.folder / "out.parquet").read_bytes())
            assert pl.read_parquet(content).height in self.heights
        return len(self.there)


class Reproduce(Job):
    """`fastgaum reproduce`, which restarts wholly; two runs side by side in processes of their own
    if told so."""

    name = "reproduce"
    side_by_side = "1"

    def prepare(self) -> None:
        log, _ = synthesise(300, preset="sample")
        to_frame(log).write_parquet(self.folder / "log.parquet")
        self.reference()

    def begin(self) -> None:
        for suffix in ("json", "md"):
            (self.folder / f"table.{suffix}").unlink(missing_ok=True)

    def start(self) -> int:
        outputs = [("--json", "json"), ("--markdown", "md")]
        given = [
            part
            for option, suffix in outputs
            for part in (option, str(self.folder / f"table.{suffix}"))
        ]
        return self.zygote.start(
            "reproduce",
            "--datasets",
            str(self.folder / "log.parquet"),
            "--models",
            "click-rate,paper-pw",
            "--seeds",
            "2",
            "--jobs",
            self.side_by_side,
            "--set",
            "epochs=3",
            "--overwrite",
            *given,
        )

    def result(self) -> Any:
        return _sha(
            json.dumps(
                _timeless(json.loads((self.folder / "table.json").read_text())), sort_keys=True
            ).encode()
        )

    def look(self) -> int:
        text, read = _text(self.folder / "table.json"), 0
        if text is not None:
            assert json.loads(text)["cells"]
            read += 1
        text = _text(self.folder / "table.md")
        if text is not None:
            assert text.endswith("\n")
            read += 1
        return read


JOBS: tuple[type[Job], ...] = (Train, Get, Convert, Reproduce)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _timeless(value: Any) -> Any:
    """Without what a clock or the machine says."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "machine" and "seconds" not in k}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
