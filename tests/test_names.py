"""What keeps the code small enough to be picked up, as far as a machine can count it.

Each list of exceptions gives its reasons. A test fails as well when an exception is no longer
needed: the lists only shrink.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_house import ROOT, sources

SHORTEST = 80
"""a file below so many lines has two importers, or is a part of the one that has it"""

SHARED_NAMES: dict[str, str] = {}
"""no exception today: public names that two modules define, with the reason"""

SHORT_FILES: dict[str, str] = {
    "fastgaum.policies.cascade_dqn": "one policy, one file",
}
"""modules below eighty lines with one importer, with the reason"""

MANNERED = re.compile(
    r"\b(whoever|nobody|who is through|looks on|but for\b|in the place of|stands? in for"
    r"|gives? way to|lies in)",
    re.IGNORECASE,
)
"""turns that a reader whose fourth language is English reads twice"""

PACKAGE = [file for file in sources() if file.relative_to(ROOT).parts[0] != "bench"]
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE}


def module_of(file: Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "kernels":
        parts = ["fastgaum", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in PACKAGE}


def imported_by(file: Path) -> Iterator[str]:
    """Modules of the package that a file imports when it runs, at its top or in a function."""
    me = module_of(file)

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    stem = me.split(".")[: -child.level]
                    base = ".".join([*stem, *([child.module] if child.module else [])])
                yield base
                yield from (f"{base}.{alias.name}" for alias in child.names)
            yield from walk(child)

    return (name for name in walk(TREES[file]) if name in MODULES and name != me)


IMPORTS = {module: set(imported_by(file)) for module, file in MODULES.items()}


def test_the_counts_see_the_code() -> None:
    """Empty lists would satisfy every rule below."""
    assert len(MODULES) > 100
    assert sum(map(len, IMPORTS.values())) > 300


def test_a_public_name_means_one_thing() -> None:
    """A kernel and its one wrapper outside kernels/ may share a name."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].append(module_of(file))
    twice = {
        name: where
        for name, where in homes.items()
        if len(where) > 1
        and not (len(where) == 2 and sum(".kernels." in one for one in where) == 1)
    }
    assert {name: where for name, where in twice.items() if name not in SHARED_NAMES} == {}
    assert sorted(set(SHARED_NAMES) - set(twice)) == [], "no longer needed"


def test_no_module_is_needed_by_what_it_needs() -> None:
    """No circle of imports, those inside functions included."""
    done: set[str] = set()
    circles: list[list[str]] = []

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            circles.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(IMPORTS[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(IMPORTS):
        visit(module, [])
    assert circles == []


def test_small_files_have_more_than_one_reader() -> None:
    """The commands and the baselines, one file each, are left out."""
    readers: dict[str, set[str]] = defaultdict(set)
    for module, others in IMPORTS.items():
        for other in others:
            readers[other].add(module)
    lonely = {
        module
        for module, file in MODULES.items()
        if file.name not in ("__init__.py", "__main__.py")
        and len(readers[module]) < 2
        and len(file.read_text(encoding="utf-8").splitlines()) < SHORTEST
        and not {"cli", "baselines"} & set(module.split("."))
    }
    assert sorted(lonely - set(SHORT_FILES)) == []
    assert sorted(set(SHORT_FILES) - lonely) == [], "no longer needed"


PROSE = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in (ROOT / "docs").rglob("*.md") if page.name != "design-log.md"),
    *PACKAGE,
]


@pytest.mark.parametrize("file", PROSE, ids=lambda file: str(file.relative_to(ROOT)))
def test_words_are_plain(file: Path) -> None:
    found = [match[0] for match in MANNERED.finditer(file.read_text(encoding="utf-8"))]
    assert found == [], "say it as subject, verb, object"


def test_the_formatter_has_the_last_word() -> None:
    kept = [str(file.relative_to(ROOT)) for file in PACKAGE if "# fmt: " in file.read_text()]
    assert kept == []
