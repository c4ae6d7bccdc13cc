"""The house rules that a machine can check: which way imports point, and what each room may use."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    {"arrays", "errors", "panics", "presets", "untrusted"},
    {
        "config",
        "files",
        "forks",
        "interrupts",
        "kernels",
        "locks",
        "threads",
        "row_files",
    },
    {"checkpoint", "machine"},
    {"logs"},
    {"features"},
    {"metrics"},
    {"nets"},
    {"game"},
    {"engine"},
    {"models"},
    {"baselines"},
    {"worlds"},
    {"policies"},
    {"reports"},
    {"ope"},
    {"serve"},
    {"bench"},
    {"cli"},
    {"__init__", "__main__"},
)
"""a room imports, at the top of its modules, only rooms to its left"""
KERNELS_MAY_USE = {"__future__", "collections", "math", "typing", "numba", "numpy"}
KERNEL_CACHE_USES = {
    "contextlib",
    "filelock",
    "functools",
    "hashlib",
    "llvmlite",
    "os",
    "pathlib",
    "sys",
    "types",
    "warnings",
}
"""`_jit` and `_cache` hold no kernel: they keep compiled ones in files, and make the prefetch that
numba lacks"""
WITHOUT_TORCH = ("kernels", "logs", "features", "metrics")
TERMINAL = {"rich", "cyclopts"}
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One imported module."""

    file: Path
    room: str
    module: str
    """absolute name; a relative import starts with a dot"""
    eager: bool
    """runs when the file is imported: neither in a function nor for type checkers only"""


def sources() -> list[Path]:
    """Every module of fastgaum, kernels/ and bench/, in the one name under which it is imported."""
    linked = {"kernels", "bench"}
    package = [path for path in (ROOT / "fastgaum").rglob("*.py") if not linked & set(path.parts)]
    return sorted([*package, *(path for name in linked for path in (ROOT / name).rglob("*.py"))])


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    if parts[0] in ("kernels", "bench"):
        return parts[0]
    return parts[1] if len(parts) > 2 else file.stem


def imports_of(file: Path) -> Iterator[Import]:
    room = room_of(file)

    def walk(node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(file, room, alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield Import(file, room, "." * child.level + (child.module or ""), eager)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, False)
            else:
                yield from walk(
                    child, eager and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                )

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), True)


IMPORTS = [one for file in sources() for one in imports_of(file)]


def top_of(module: str) -> str:
    return module.split(".")[0]


def test_the_rules_see_the_code() -> None:
    """An empty list of imports would satisfy every rule below."""
    assert len(IMPORTS) > 300
    rooms = {one.room for one in IMPORTS}
    assert {"kernels", "logs", "nets", "models", "game", "cli"} <= rooms
    assert rooms <= set().union(*LAYERS), "a new room needs its place in LAYERS"


def test_imports_only_point_left() -> None:
    rank = {room: i for i, layer in enumerate(LAYERS) for room in layer}
    wrong = []
    for one in IMPORTS:
        if top_of(one.module) != "fastgaum" or one.room == "__init__":
            continue
        target = [*one.module.split("."), "__init__"][1]
        if target in (one.room, "__init__"):
            continue
        if rank[target] >= rank[one.room]:
            wrong.append(f"{one.file.relative_to(ROOT)} imports {one.module}")
    assert wrong == []


def test_kernels_are_loops_over_numpy_and_numba_only() -> None:
    kernels = [one for one in IMPORTS if one.room == "kernels"]
    assert {one.module for one in kernels if one.module.startswith(".")} <= {
        f".{file.stem}" for file in sources()
    }
    for one in kernels:
        allowed = KERNELS_MAY_USE | (
            KERNEL_CACHE_USES if one.file.name in ("_jit.py", "_cache.py") else set()
        )
        assert one.module.startswith(".") or top_of(one.module) in allowed, one


@pytest.mark.parametrize(
    ("what", "rooms"),
    [
        ({"torch"}, WITHOUT_TORCH),
        (TERMINAL, tuple(set().union(*LAYERS) - {"cli"})),
        (FORBIDDEN, tuple(set().union(*LAYERS))),
    ],
)
def test_a_room_does_not_use(what: set[str], rooms: tuple[str, ...]) -> None:
    wrong = [
        f"{one.file.relative_to(ROOT)} imports {one.module}"
        for one in IMPORTS
        if one.room in rooms and top_of(one.module) in what
    ]
    assert wrong == []


def test_neither_the_package_nor_the_help_imports_what_is_heavy() -> None:
    check = """
import sys
import fastgaum
assert not {"torch", "numba", "numpy", "polars"} & set(sys.modules), sorted(sys.modules)
from fastgaum.cli.app import main
assert main(["--help"]) == 0
assert not {"torch", "numba", "polars"} & set(sys.modules)
from fastgaum import load, read_log, audit, synthesise
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "train" in done.stdout


def test_public_names_exist_and_are_documented() -> None:
    import fastgaum

    for name in fastgaum.__all__:
        assert getattr(fastgaum, name).__doc__, name
    assert set(fastgaum.__all__) <= set(dir(fastgaum))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fastgaum.Nothing


def test_the_makefile_names_what_exists() -> None:
    """pytest runs nothing at all where one of its paths is missing."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])tests/[\w/]*[a-z](?:\.py)?(?![\w%])", text))
    assert len(named) > 5
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
