"""Nothing in the package runs what a file says: no code from data, no pickle, no shell, no
guessable temporary files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in ("fastgaum", "kernels", "bench")
    for path in (ROOT / folder).rglob("*.py")
    if folder != "fastgaum"
    or not {"kernels", "bench", "data"} & set(path.relative_to(ROOT / "fastgaum").parts[:1])
)

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "input",
    "breakpoint",
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "os.system",
    "os.popen",
    "os.execv",
    "os.spawnv",
    "tempfile.mktemp",
    "yaml.load",
    "np.fromregex",
    "pd.read_pickle",
    "pl.read_database",
    "pl.Expr.deserialize",
    "pl.LazyFrame.deserialize",
    "pl.DataFrame.deserialize",
    "urllib.request.urlopen",
    "shutil.unpack_archive",
    "os.path.expandvars",
    "marshal.loads",
    "ctypes.CDLL",
    "json.load",
    "tomllib.load",
    "torch.hub.load",
}
FORBIDDEN_IMPORTS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "zipfile",
    "tarfile",
    "telnetlib",
    "ftplib",
    "xmlrpc",
    "code",
    "codeop",
    "pty",
}
"""archives are never unpacked: a file is read as it is"""
UNTRUSTED_TEXT = {"json.loads", "tomllib.loads"}
"""a stranger's text goes through fastgaum.untrusted, which knows nesting without end"""
OWN_OUTPUT = {
    "fastgaum/untrusted.py",
    "bench/bench_footprint.py",
    "bench/coldstart.py",
    "bench/rivals/peers.py",
    "bench/processes.py",
    "bench/readme.py",
    "bench/run.py",
}
"""files that read what they have just written themselves, or what lies in the repository"""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File, dotted name and node of every call."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(ROOT)), ast.unparse(node.func), node


CALLS = list(calls())


def test_the_rules_see_the_code() -> None:
    assert len(CALLS) > 5000
    names = {name for _, name, _ in CALLS}
    assert {"pl.read_parquet", "safe_open", "subprocess.run", "parse_json", "json.loads"} <= names


def test_nothing_runs_code_from_data() -> None:
    assert [(file, name) for file, name, _ in CALLS if name in FORBIDDEN_CALLS] == []


def test_nothing_imports_what_unpacks_objects_or_archives() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [
                (str(path.relative_to(ROOT)), name)
                for name in names
                if name.split(".")[0] in FORBIDDEN_IMPORTS
            ]
    assert found == []


def test_no_shell() -> None:
    for file, name, node in CALLS:
        if name.startswith("subprocess."):
            assert "shell" not in {keyword.arg for keyword in node.keywords}, (file, name)
            assert isinstance(node.args[0], ast.List | ast.Name), (file, ast.unparse(node))


def test_arrays_are_loaded_without_objects() -> None:
    for file, name, node in CALLS:
        if name in ("np.load", "numpy.load", "np.fromfile"):
            assert "allow_pickle=False" in ast.unparse(node), file


def test_texts_of_strangers_go_through_one_door() -> None:
    assert {file for file, name, _ in CALLS if name in UNTRUSTED_TEXT} <= OWN_OUTPUT
