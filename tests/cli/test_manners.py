"""What a person meets on the command line: examples that work, --quiet, --json -, names that are
nearly right."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
from cyclopts import App

from fastgaum.cli import progress as progress_module
from fastgaum.cli.app import COMMANDS, app, main
from fastgaum.cli.doctor import unnamed
from fastgaum.cli.manual import EXAMPLES
from fastgaum.cli.options import read_common
from fastgaum.kernels import choice
from tests.cli.good_files import QUICK


def commands(group: App = app, path: str = "") -> Iterator[str]:
    """Every command and group below one, by its words."""
    for name in group:
        if not name.startswith("-"):
            yield (inner := f"{path} {name}".strip())
            yield from commands(group[name], inner)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_of_the_help_is_a_command_line(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "fastgaum"
    app.parse_args(read_common(words[1:]), exit_on_error=False, print_error=False)
    read_common(())


@pytest.mark.parametrize("name", ["", *commands()])
def test_the_help_shows_examples_of_its_own_command(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(line.startswith(f"fastgaum {name}".strip()) for line in EXAMPLES[name])
    assert main([*name.split(), "--help"]) == 0
    # a long line is broken where the shell allows it
    shown = " ".join(capsys.readouterr().out.replace("\\\n", " ").split())
    for line in EXAMPLES[name]:
        assert line in shown
    assert "--quiet" in shown
    tables = ("reproduce", "compare", "fidelity", "ope", "bench", "rl evaluate")
    assert "markdown" not in shown or name in tables
    assert ("--json" in shown) == (name not in ("", "data", "rl", "completion"))


@pytest.mark.parametrize(
    "argv",
    [
        ["data", "list"],
        ["data", "info", "sample"],
        ["evaluate", "RUN", "LOG"],
        ["data", "audit", "LOG"],
    ],
)
def test_json_to_stdout_is_one_object_and_nothing_else(
    argv: list[str], trained: Path, log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"RUN": str(trained), "LOG": str(log_file)}.get(word, word) for word in argv]
    for stdout in (["--json", "-"], ["--json=-"]):
        assert main([*given, *stdout]) == 0
        out = capsys.readouterr().out
        assert isinstance(json.loads(out), dict)
    # and without it, text again
    assert main(given) == 0
    with pytest.raises(ValueError):
        json.loads(capsys.readouterr().out)


def test_quiet_leaves_results(
    trained: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(log_file), "-o", str(tmp_path / "run"), "--quiet", *QUICK]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["--quiet", "evaluate", str(trained), str(log_file)]) == 0
    out, err = capsys.readouterr()
    assert "prec@1" in out
    assert err == ""
    # the next command line speaks again
    assert main(["data", "convert", str(log_file), "-o", str(tmp_path / "log.csv")]) == 0
    assert "300 events" in capsys.readouterr().out


def test_the_doctor_names_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a name that no commit's hash can hold
    home = tmp_path / "wilma"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "wilma")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("FASTGAUM_DATA_DIR", "/mnt/wilma/logs")
    monkeypatch.setattr("fastgaum.cli.doctor.train_shortly", lambda: None)
    assert unnamed(f"{home}/.cache and {home}") == "~/.cache and ~"
    said = unnamed(f"{home}s/x, /mnt/wilma/logs, wilmas")
    assert said == f"{tmp_path}/wilmas/x, /mnt/USER/logs, wilmas"
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 0
    out, facts = capsys.readouterr().out, json.loads((tmp_path / "d.json").read_text())
    assert "wilma" not in out.replace(str(tmp_path), "")
    told = ("fastgaum", "torch", "threads", "cuda", "blas of kernels", "kernel cache")
    for what in (*told, "data folder", "sample", "processor"):
        assert facts[what]
        assert f"{what}:" in out
    assert "/mnt/USER/logs" in out


QUICK_TO_SAY = (["--help"], ["train", "--help"], ["rl", "train", "--help"], ["data", "list"])


def test_what_is_quick_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fastgaum.cli.app import main\n"
        f"for argv in {QUICK_TO_SAY}:\n"
        "    assert main(argv) == 0\n"
        "    print(argv[0], {'torch', 'polars', 'numpy', 'numba', 'markdown_it'} & set(sys.modules),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "".join(f"{argv[0]} set()\n" for argv in QUICK_TO_SAY)


def test_every_command_has_a_line_of_its_own() -> None:
    assert set(EXAMPLES) - {""} == set(COMMANDS) == {*commands()}


def test_it_is_said_when_a_kernel_is_compiled_and_not_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not hasattr(choice.choice_probs, "stats"):
        pytest.skip("kernels run as plain Python here")
    monkeypatch.setattr(progress_module, "kernel_cache", lambda: tmp_path)
    with progress_module.noting_compilation():
        assert capsys.readouterr().err == ""
        for number in (1, 1.0):
            numba.njit(lambda x: x + 1)(number)
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith("compiling kernels")
    numba.njit(lambda x: x + 1)(1)
    assert capsys.readouterr().err == ""
