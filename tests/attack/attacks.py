"""What an attack is, and how one is judged: a command line or a call in Python that is to be refused
with certain words, or a statement that has to be true."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from fastgaum.cli.app import main
from fastgaum.errors import FastgaumError
from tests.cli.bad_input import Make, Seeds

MOST_SECONDS = 5.0
"""of processor time"""
RIGHT, SILENT, TRACEBACK, HANG, WRONG = "right", "silent", "traceback", "hang", "wrong"
GOOD = {
    "session": ["u3", "u3", "u3", "u4"],
    "event": [17, 17, 18, 1],
    "item": ["a", "b", "a", "b"],
    "chosen": [1, 0, 0, 1],
}
"""a log of three displays, the second without a click"""
NESTED = {"session": ["u3", "u3"], "event": [17, 18], "items": [["a", "b"], ["c"]]}
Content = str | bytes | pl.DataFrame | Callable[[Path], object]
"""of a file: as it is, or what makes it at a path"""


@dataclass(frozen=True)
class Refused:
    """A command line that ends with exit code 2 and one line that holds `says`, and leaves all files
    as they are. {log}, {run} and {store} are good ones; `files` are put beside it first, a copy of
    the run among them if one lies below run/."""

    command: str
    says: str
    files: Mapping[str, Content] = field(default_factory=dict)


@dataclass(frozen=True)
class RefusedCall:
    """A call in Python that raises an error of FastGAUM that holds `says`, on one line."""

    call: Callable[[], object]
    says: str


@dataclass(frozen=True)
class IsTrue:
    """A statement about what came out, of a folder to work in."""

    holds: Callable[[Seeds], object]


Attack = Refused | RefusedCall | IsTrue


# -- ways to write a row in one line


def log(says: str, options: str = "", **columns: Any) -> Refused:
    """A csv log with columns changed, or left out (None), is not converted."""
    table = {name: values for name, values in {**GOOD, **columns}.items() if values is not None}
    command = f"data convert log.csv -o out {options}"
    return Refused(command, says, {"log.csv": pl.DataFrame(table, strict=False)})


def parquet(says: str, options: str = "", nested: bool = False, **columns: Any) -> Refused:
    """The same of a parquet log; of lists, if it is nested."""
    table = pl.DataFrame({**(NESTED if nested else GOOD), **columns}, strict=False)
    return Refused(f"data convert log.parquet -o out {options}", says, {"log.parquet": table})


def raw(name: str, content: Content, says: str, options: str = "") -> Refused:
    """A log that is a file of these bytes is not converted."""
    return Refused(f"data convert {name} -o out {options}", says, {name: content})


def of_run(file: str, content: Content, command: str, says: str) -> Refused:
    """A copy of the run, of which one file is another, is not read."""
    return Refused(command, says, {f"run/{file}": content})


def record(**changes: object) -> str:
    """A machine.json."""
    about = {"fingerprint": "0", "source": changes.pop("source", None)}
    return json.dumps({"log": about, **changes})


# -- what becomes of one


def judge(attack: Attack | tuple[Make, str], seeds: Seeds) -> tuple[str, str]:
    """The verdict on an attack in the empty folder of the seeds, and what was seen."""
    started = time.process_time()
    with chdir(seeds.folder):
        if isinstance(attack, RefusedCall):
            found = _judge_call(attack)
        elif isinstance(attack, IsTrue):
            found = (RIGHT, "") if attack.holds(seeds) else (SILENT, "it is not so")
        elif isinstance(attack, Refused):
            lay_out(attack.files, seeds)
            good = {"log": seeds.log, "run": seeds.run, "store": seeds.store}
            found = _judge_command(shlex.split(attack.command.format(**good)), attack.says)
        else:
            make, says = attack
            found = _judge_command(make(seeds), says)
    seconds = time.process_time() - started
    if seconds > MOST_SECONDS and found[0] == RIGHT:
        return HANG, f"{seconds:.1f} s of processor time"
    return found


def lay_out(files: Mapping[str, Content], seeds: Seeds) -> None:
    """Write files into the present folder."""
    if any(name.startswith("run/") for name in files):
        shutil.copytree(seeds.run, "run")
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content = _bytes_of(content, path.suffix)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def _bytes_of(table: pl.DataFrame, kind: str) -> bytes:
    out = io.BytesIO()
    table.write_csv(out) if kind == ".csv" else table.write_parquet(out)
    return out.getvalue()


def _judge_call(attack: RefusedCall) -> tuple[str, str]:
    try:
        found = attack.call()
    except FastgaumError as error:
        said = str(error)
        return (RIGHT if attack.says in said and "\n" not in said else WRONG), said
    except Exception as error:
        return TRACEBACK, f"{type(error).__name__}: {error}"
    return SILENT, repr(found)


def _judge_command(argv: list[str], says: str) -> tuple[str, str]:
    before = _listing()
    code, out, err = _run(argv)
    said = f"exit code {code}: {(out + err).strip()[-500:]}"
    if code is None or any(word in err for word in ("Traceback", "internal error", "panicked at")):
        return TRACEBACK, said
    if code == 0:
        return SILENT, said
    one_line = (
        err.startswith("fastgaum: error: ") and err.count("\n") == 1 and err[:-1].isprintable()
    )
    if code != 2 or not one_line or out or says not in err:
        return WRONG, said
    return (RIGHT, said) if _listing() == before else (WRONG, f"files were changed; {said}")


def _listing() -> dict[str, tuple[int, int]]:
    paths = [path for path in Path().rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def _run(argv: list[str]) -> tuple[int | None, str, str]:
    """Exit code of a command line, and what it wrote to the file descriptors, where libraries of
    other languages write too."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        held = os.dup(1), os.dup(2)
        streams = sys.stdout, sys.stderr
        for file, number in ((out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", encoding="utf-8") for n in (1, 2))
        code: int | None = None
        try:
            code = main(argv)
        except BaseException as error:
            print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.stdout.close()
            sys.stderr.close()
            sys.stdout, sys.stderr = streams
            for old, number in zip(held, (1, 2), strict=True):
                os.dup2(old, number)
                os.close(old)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return code, texts[0], texts[1]
