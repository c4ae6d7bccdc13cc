"""The documentation runs: README and docs, file by file, each code block in order.

```python blocks of a file share one namespace, ```bash lines that begin with `fastgaum ` go through the command line's
main, both in one empty folder that holds `clicks.csv`, a log in the long layout. A comment `<!-- no-run: reason -->` on
the line above a block exempts it. Long training is cut short; everything else runs as printed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SHORT = ["--set", "epochs=2", "--set", "warm_start=2", "--set", "catch_up=2"]

FENCE = re.compile(r"^(?P<before>[^\n]*)\n```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    """One code block that is to be run."""

    language: str
    code: str
    line: int
    """line of its first statement in the file"""


def blocks_of(file: Path) -> list[Block]:
    text = "\n" + file.read_text(encoding="utf-8")
    return [
        Block(fence["language"], fence["code"], text.count("\n", 0, fence.start("code")))
        for fence in FENCE.finditer(text)
        if fence["language"] in ("python", "bash") and "<!-- no-run:" not in fence["before"]
    ]


def commands_of(code: str) -> list[list[str]]:
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("fastgaum ")]


def shortened(argv: list[str]) -> list[str]:
    """The same command with two epochs; `reproduce` with one seed and in this process."""
    if argv[0] == "train":
        return [*argv, *SHORT]
    if argv[0] == "reproduce":
        seeds = argv.index("--seeds") if "--seeds" in argv else None
        rest = argv if seeds is None else argv[:seeds] + argv[seeds + 2 :]
        return [*rest, *SHORT, "--seeds", "1", "--jobs", "1"]
    return argv


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a log and without any data set at hand."""
    from fastgaum.sessions.synthetic import synthesise
    from fastgaum.sessions.unpack import to_frame

    columns = ("session", "event", "item", "chosen")
    to_frame(synthesise(400, preset="sample", seed=3)[0]).select(columns).write_csv(tmp_path / "clicks.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAUM_DATA_DIR", str(tmp_path / "nothing"))
    return tmp_path


RUNNABLE = [file for file in FILES if blocks_of(file)]


@pytest.mark.parametrize("file", RUNNABLE, ids=lambda file: str(file.relative_to(ROOT)))
def test_code_blocks_run(file: Path, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in blocks_of(file):
        if block.language == "python":
            # Blank lines before the code: a traceback then names the line of the file.
            exec(compile("\n" * block.line + block.code, str(file), "exec", dont_inherit=True), namespace)
            continue
        for argv in commands_of(block.code):
            assert main(shortened(argv)) == 0, f"{file.name}, below line {block.line}: {capsys.readouterr().err}"


def test_the_documents_have_what_the_test_above_needs() -> None:
    """A regular expression that finds nothing would let everything pass."""
    names = {str(file.relative_to(ROOT)) for file in RUNNABLE}
    assert {"README.md", "docs/guide/first-table.md", "docs/guide/your-own-log.md"} <= names
    blocks = [block for file in RUNNABLE for block in blocks_of(file)]
    commands = {argv[0] for block in blocks if block.language == "bash" for argv in commands_of(block.code)}
    assert {"train", "evaluate", "predict", "reproduce", "data"} <= commands <= set(COMMANDS)
    assert sum(block.language == "python" for block in blocks) >= 8


def test_the_readme_s_sample_of_a_log_is_one(workshop: Path) -> None:
    from fastgaum import read_log

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"```text\n(session,.*?)```", text, re.DOTALL)
    (workshop / "sample.csv").write_text(sample)
    log = read_log(workshop / "sample.csv")
    assert (log.n_sessions, log.n_events, log.n_candidates) == (1, 2, 4)
    header = pl.read_csv(workshop / "clicks.csv").columns
    assert header == sample.splitlines()[0].split(",")


@pytest.mark.parametrize("file", [*FILES, ROOT / "CONTRIBUTING.md"], ids=lambda file: str(file.relative_to(ROOT)))
def test_relative_links_lead_somewhere(file: Path) -> None:
    for link in LINK.finditer(file.read_text(encoding="utf-8")):
        assert (file.parent / link["target"]).exists(), f"{file.name} links to {link['target']}"


def test_every_preset_role_and_run_file_is_documented() -> None:
    from fastgaum.config import PRESETS
    from fastgaum.sessions.schema import ROLE_NAMES
    from fastgaum.training.runs import RUN_FILES

    text = {
        name: (ROOT / name).read_text(encoding="utf-8")
        for name in (
            "README.md",
            "docs/guide/your-own-log.md",
            "docs/concepts/game.md",
            "docs/guide/interrupted-runs.md",
        )
    }
    of_runs = text["README.md"] + text["docs/guide/interrupted-runs.md"]
    assert [name for name in RUN_FILES if f"`{name}`" not in of_runs] == []
    assert [name for name in PRESETS if f"| `{name}` |" not in text["docs/concepts/game.md"]] == []
    rows = [line.split("|") for line in text["docs/guide/your-own-log.md"].splitlines() if line.startswith("| ")]
    documented = {row[1].strip(): row[3].strip() for row in rows if len(row) == 6}
    assert {role: ", ".join(names) for role, names in ROLE_NAMES.items()}.items() <= documented.items()
