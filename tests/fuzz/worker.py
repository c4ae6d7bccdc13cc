"""One process that runs fuzz inputs, each a command line in a folder of its own, and says what
broke.

It reads the number of an input per line, and answers each with a line of JSON. What it cannot
survive (a crash, a hang, too much memory) its parent sees."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from polars.exceptions import PanicException

from fastgaum.cli.app import main
from tests.fuzz.mutate import BY_FORM
from tests.fuzz.targets import TARGETS, Target, pick

MOST_SECONDS = 5.0
MOST_GROWTH = 500 << 20
SUBPROCESS_SPACE = 16 << 30
"""address space of a process of its own: torch and numba alone map several GB"""
PANIC = b"panicked at"
"""what Rust writes straight to the terminal"""


def prepare(seed: str, index: int, seeds: Path, folder: Path) -> tuple[Target, list[str]]:
    """Lay out input `index` of a run: the seeds, one of them mutated, an empty out/; return the
    target and its command."""
    rng = random.Random(f"{seed}:{index}")
    target, argv = pick(rng)
    if not folder.exists():
        shutil.copytree(seeds, folder)
    data = (folder / target.file).read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        try:
            data = rng.choice(BY_FORM[target.form])(data, rng)
        # a second mutator may not understand what the first has left: the first one's work is an
        # input all the same
        except (Exception, PanicException):
            break
    (folder / target.file).write_bytes(data)
    for name in ("out", "tmp"):
        (folder / name).mkdir()
    return target, argv


def restore(target: Target, seeds: Path, folder: Path, broken: bool) -> None:
    """Make the folder what it was before an input; if the input broke something, all of it is
    thrown away."""
    if broken:
        shutil.rmtree(folder)
        return
    shutil.copyfile(seeds / target.file, folder / target.file)
    for name in ("out", "tmp"):
        shutil.rmtree(folder / name)


def judge(
    code: int | None,
    out: str,
    err: str,
    raw: bytes,
    seconds: float,
    growth: int,
    before: Any,
    folder: Path,
) -> list[str]:
    """What is wrong with how a command ended; empty if nothing is."""
    wrong = []
    if code not in (0, 2):
        wrong.append(f"exit code {code}")
    if "Traceback" in err or "internal error" in err or PANIC in raw:
        wrong.append("traceback")
    text = out + err
    odd = sorted({one for one in text if not one.isprintable() and one != "\n"})
    if odd:
        wrong.append(f"prints {odd!r}")
    if code == 2 and not err.splitlines()[-1].startswith("fastgaum: error: "):
        wrong.append("no error line")
    if code == 2 and any((folder / "out").iterdir()):
        wrong.append("an error, and something written")
    if listing(folder) != before:
        wrong.append("files outside out/")
    if seconds > MOST_SECONDS:
        wrong.append(f"{seconds:.1f} s")
    if growth > MOST_GROWTH:
        wrong.append(f"{growth >> 20} MB")
    return wrong


def listing(folder: Path) -> dict[str, int]:
    """Every file of a folder with its size, but those below out/."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "out"
    }


def run_here(argv: list[str]) -> tuple[int | None, str, str, bytes, float, int]:
    """Run a command in this process; what it prints is taken from the file descriptors, where Rust
    and C++ print too."""
    before = _memory("VmRSS")
    _forget_peak()
    started = time.process_time()
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        held = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code: int | None
        try:
            code = main(argv)
        except BaseException as error:
            code = None
            print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for old, new in zip(held, (1, 2), strict=True):
                os.dup2(old, new)
                os.close(old)
        seconds, growth = time.process_time() - started, _memory("VmHWM") - before
        texts = [_content(out), _content(err)]
    return (
        code,
        texts[0].decode(errors="replace"),
        texts[1].decode(errors="replace"),
        texts[0] + texts[1],
        seconds,
        growth,
    )


def run_apart(argv: list[str]) -> tuple[int | None, str, str, bytes, float, int]:
    """Run a command in a process of its own, its address space limited; seconds are not counted, it
    imports first."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (SUBPROCESS_SPACE, SUBPROCESS_SPACE))

    done = subprocess.run(
        [sys.executable, "-m", "fastgaum", *argv],
        capture_output=True,
        timeout=300,
        preexec_fn=limit,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return done.returncode, out, err, done.stdout + done.stderr, 0.0, 0


def _content(file: Any) -> bytes:
    file.seek(0)
    return bytes(file.read())


def _memory(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0


def _forget_peak() -> None:
    # where that is not allowed the peak is that of all inputs so far, which only makes the test
    # stricter
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _warm_up(seeds: Path, folder: Path) -> None:
    """Run every command on what was not changed: kernels are compiled and modules imported before
    anything is timed."""
    for command in sorted({command for target in TARGETS for command in target.commands}):
        os.chdir(folder.parent)
        shutil.rmtree(folder)
        shutil.copytree(seeds, folder)
        (folder / "tmp").mkdir()
        os.chdir(folder)
        code, *_ = run_here(command.split())
        assert code in (0, 2), command
    os.chdir(folder.parent)
    shutil.rmtree(folder)


def serve(seed: str, seeds: Path, folder: Path, apart_every: int) -> None:
    """Answer each number on stdin with what broke, until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.environ["TMPDIR"] = str(folder / "tmp")
    tempfile.tempdir = None
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    _warm_up(seeds, folder)
    for line in sys.stdin:
        index = int(line)
        target, argv = prepare(seed, index, seeds, folder)
        os.chdir(folder)
        before = listing(folder)
        apart = bool(apart_every) and index % apart_every == apart_every - 1
        try:
            result = (run_apart if apart else run_here)(argv)
            wrong = judge(*result, before, folder)
        except subprocess.TimeoutExpired:
            result, wrong = (None, "", "", b"", 0.0, 0), ["hang"]
        os.chdir(folder.parent)
        restore(target, seeds, folder, bool(wrong))
        answer = {
            "index": index,
            "file": target.file,
            "argv": argv,
            "code": result[0],
            "err": result[2][-600:],
            "wrong": wrong,
        }
        answer |= {"seconds": round(result[4], 3), "growth": result[5], "apart": apart}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
