"""What an attack is: a command line or a call in Python that is to be refused with certain words, or
a statement that has to be true."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tests.cli.good_files import Seeds

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
    as they are. {log} and {run} are good ones; `files` are put beside it first, a copy of the run
    among them if one lies below run/, and of a saved log if one lies below store/."""

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


def lay_out(files: Mapping[str, Content], seeds: Seeds) -> None:
    """Write files into the present folder."""
    for name, good in (("run", seeds.run), ("store", seeds.store)):
        if any(file.startswith(f"{name}/") for file in files):
            shutil.copytree(good, name)
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
