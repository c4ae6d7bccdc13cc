"""Which way imports point, and what the package offers by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fastgaum

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    {"arrays", "errors", "html_view", "panics", "presets", "untrusted"},
    {"config", "files", "forks", "interrupts", "kernels", "locks", "threads", "row_files"},
    {"machine", "state_file"},
    {"logs"},
    {"features"},
    {"metrics"},
    {"ops"},
    {"nets"},
    {"game"},
    {"live_users"},
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
"""a room imports only rooms to its left"""


@dataclass(frozen=True)
class Import:
    """One imported module."""

    file: Path
    room: str
    module: str
    """absolute name"""
    names: tuple[str, ...]
    """what is imported from it"""
    eager: bool
    """runs when the file is imported: neither in a function nor for type checkers only"""
    runs: bool
    """not for type checkers only"""


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


def module_of(file: Path) -> str:
    parts = ["fastgaum", *file.relative_to(ROOT).with_suffix("").parts]
    parts = parts[parts[1] == "fastgaum" :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[Import]:
    room, package = room_of(file), module_of(file).split(".")
    if file.stem != "__init__":
        package.pop()

    def walk(node: ast.AST, eager: bool, runs: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(file, room, alias.name, (), eager, runs)
            elif isinstance(child, ast.ImportFrom):
                stem = package[: len(package) + 1 - child.level] if child.level else []
                module = ".".join([*stem, *([child.module] if child.module else [])])
                names = tuple(alias.name for alias in child.names)
                yield Import(file, room, module, names, eager, runs)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, False, False)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, eager and not inside, runs)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), True, True)


IMPORTS = [one for file in sources() for one in imports_of(file)]


def top_of(module: str) -> str:
    return module.split(".")[0]


def test_imports_only_point_left() -> None:
    rank = {room: i for i, layer in enumerate(LAYERS) for room in layer}
    ours = [one for one in IMPORTS if top_of(one.module) == "fastgaum" and one.room != "__init__"]
    assert len(ours) > 300
    wrong = []
    for one in ours:
        target = [*one.module.split("."), "__init__"][1]
        if target not in (one.room, "__init__") and rank[target] >= rank[one.room]:
            wrong.append(f"{one.file.relative_to(ROOT)} imports {one.module}")
    assert wrong == []


def test_no_module_is_needed_by_what_it_needs() -> None:
    """No circle of imports, those inside functions included."""
    needs: dict[str, set[str]] = {module_of(file): set() for file in sources()}
    for one in (one for one in IMPORTS if one.runs):
        found = {one.module, *(f"{one.module}.{name}" for name in one.names)}
        needs[module_of(one.file)] |= (found & needs.keys()) - {module_of(one.file)}
    assert sum(map(len, needs.values())) > 300
    done: set[str] = set()
    circles: list[list[str]] = []

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            circles.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(needs[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(needs):
        visit(module, [])
    assert circles == []


def test_public_names_exist_and_are_documented() -> None:
    for name in fastgaum.__all__:
        assert getattr(fastgaum, name).__doc__, name
    assert set(fastgaum.__all__) <= set(dir(fastgaum))
    assert not hasattr(fastgaum, "Nothing")
