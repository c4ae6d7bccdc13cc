"""The completion scripts, run by the shells themselves."""

from __future__ import annotations

import io
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from fastgaum.cli.app import app, main
from fastgaum.cli.completion import NAMED, places

# what is typed, the last word being completed → what must be offered, and what must not
CASES: list[tuple[list[str], set[str], set[str]]] = [
    ([""], {"train", "data", "completion"}, {"list", "clicks.csv"}),
    (["tr"], {"train"}, {"data", "report"}),
    (["data", ""], {"list", "synth"}, {"train"}),
    (["data", "info", "ye"], {"yelp"}, {"taobao", "clicks.csv"}),
    (["train", "cl"], {"clicks.csv"}, {"yelp"}),
    (["train", "sa"], {"sample"}, {"clicks.csv"}),
    (["train", "x", "--preset", "pa"], {"paper-lstm", "paper-pw"}, {"fastgaum", "clicks.csv"}),
    (
        ["train", "x", "--overwrite", "--protocol", ""],
        {"bags", "identity", "views"},
        {"clicks.csv"},
    ),
    (["train", "x", "--set", "epo"], {"epochs="}, {"eta="}),
    (["rl", "train", "x", "--set", "wi"], {"width="}, {"window=", "epochs="}),
    (["rl", "train", "--policy", ""], {"slateq", "cascade-dqn"}, {"random"}),
    (["simulate", "x", "--policy", "gr"], {"greedy", "greedy-click"}, {"slateq"}),
    (
        ["reproduce", "--models", "fastgaum,pa"],
        {"fastgaum,paper-pw"},
        {"paper-pw", "fastgaum,large"},
    ),
    (["train", "x", "--so", "y", "--pro"], {"--protocol"}, {"--preset"}),
    (["evaluate", "x", "y", "--split", "te"], {"test"}, {"train"}),
    (["report", "one", "two", "cl"], {"clicks.csv"}, {"yelp"}),
    (["completion", ""], {"bash", "zsh", "fish"}, {"clicks.csv"}),
    (["--v"], {"--version"}, {"--help", "--json"}),
    (["train", "--q"], {"--quiet"}, {"--debug"}),
]

BASH = """
source ./script
COMP_WORDS=(fastgaum "$@")
COMP_CWORD=$#
_fastgaum
printf '%s\\n' "${COMPREPLY[@]}"
"""
# zsh's own functions complete inside its line editor only: stand-ins collect what they are given
ZSH = """
compdef() { : }
compset() { [[ "$cur" == *"${2#\\*}"* ]] && head="${cur%"${2#\\*}"*}${2#\\*}" }
compadd() { local name="${@[-1]}"; offered+=(${(P)name}) }
_files() { offered+=(*(N)) }
source ./script
offered=(); head=
words=(fastgaum "$@"); CURRENT=$#words
_fastgaum
for word in $offered; do
  if [[ "$head$word" == "$words[-1]"* ]]; then print -r -- "$head$word"; fi
done
"""
FISH = """
source ./script
set -l line (string join ' ' -- fastgaum $argv)
complete -C $line | string replace -r '\\t.*' ''
exit 0
"""
PROGRAMS = {
    "bash": ["bash", "--norc", "-c", BASH, "bash"],
    "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
    "fish": ["fish", "--no-config", "-c", FISH, "--"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, in which something is typed."""
    folder = tmp_path_factory.mktemp("completing")
    (folder / "clicks.csv").write_text("")
    return folder


@pytest.fixture(scope="module", params=list(PROGRAMS))
def shell(request: pytest.FixtureRequest, folder: Path) -> str:
    """A shell that is installed; its script lies in the folder."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    with redirect_stdout(io.StringIO()) as text:
        assert main(["completion", name]) == 0
    (folder / "script").write_text(text.getvalue())
    return name


def offered(shell: str, folder: Path, typed: list[str]) -> set[str]:
    done = subprocess.run(
        [*PROGRAMS[shell], *typed], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {line.rstrip() for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize(
    ("typed", "there", "absent"),
    CASES,
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_what_is_offered(
    shell: str, folder: Path, typed: list[str], there: set[str], absent: set[str]
) -> None:
    found = offered(shell, folder, typed)
    assert there <= found
    assert not absent & found
    assert all(word.startswith(typed[-1]) for word in found)


@pytest.mark.parametrize(
    ("typed", "there"),
    [
        # bash hands words over cut at "="
        (["train", "x", "--preset", "=", "pa"], {"paper-lstm", "paper-pw"}),
        (
            ["train", "x", "--preset", "="],
            {"fastgaum", "large", "paper-lstm", "paper-pw", "report"},
        ),
        (["train", "x", "--set", "epochs", "=", "3"], set()),
        (["train", "x", "--set", "epochs", "=", "3", "--over"], {"--overwrite"}),
    ],
)
def test_equals_signs(shell: str, folder: Path, typed: list[str], there: set[str]) -> None:
    if shell != "bash":
        pytest.skip("other shells leave such words whole")
    assert offered(shell, folder, typed) == there


def test_every_name_in_the_table_is_one_of_the_command_line() -> None:
    """An argument that was renamed would be completed by nothing."""
    found = dict(places(app, "fastgaum"))
    options = {place.rpartition(" ")[2] for place in found}
    for name in NAMED:
        if name.startswith("--"):
            assert name in options
        elif " " in name:
            assert f"fastgaum {name}" in found
    assert found["fastgaum train 1"].kind == "f"
    assert "yelp" in found["fastgaum train 1"].words
    assert "fastgaum train --overwrite" not in found


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err
