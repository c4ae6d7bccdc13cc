"""The documentation runs: README and docs, file by file, each code block in order.

```python blocks of a file share one namespace, ```bash lines that begin with `fastgaum ` go through the command line's
main, both in one empty folder that holds `clicks.csv`, a log in the long layout. A comment `<!--
no-run: reason -->` on the line above a block exempts it. Long training is cut short; everything
else runs as printed."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fastgaum.cli.app import COMMANDS, main
from fastgaum.presets import PRESETS
from fastgaum.reports.plots import Chart
from fastgaum.threads import one_thread

ROOT = Path(__file__).resolve().parents[1]
# docs/index.md is the README (tests/test_tables.py)
FILES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "index.md"})
SHORT = {"epochs": 1, "warm_start": 1, "catch_up": 1, "search": (), "folds": 0}
"""of every preset"""

FENCE = re.compile(
    r"^(?P<before>[^\n]*)\n```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?P<target>[^)#:\s]*)(?:#(?P<anchor>[^)]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def blocks_of(file: Path) -> list[tuple[str, str, int]]:
    """Language, code and first line of each code block that is to be run."""
    text = "\n" + file.read_text(encoding="utf-8")
    return [
        (fence["language"], fence["code"], text.count("\n", 0, fence.start("code")))
        for fence in FENCE.finditer(text)
        if fence["language"] in ("python", "bash") and "<!-- no-run:" not in fence["before"]
    ]


def commands_of(code: str) -> list[list[str]]:
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("fastgaum ")]


def shortened(argv: list[str]) -> list[str]:
    """`reproduce` and `compare` with one seed, one fit and in this process; policies are trained for
    an episode or two of few users, judged once in it, and by few users after it."""
    if argv[0] in ("reproduce", "compare"):
        return [*_without(argv, "--seeds"), *["--seeds", "1", "--jobs", "1", "--set", "folds=0"]]
    if argv[0] != "rl":
        return argv
    few = {"episodes": 1, "users": 16, "warm_up": 16}
    argv = [re.sub(r"^(\w+)=\d+$", lambda one: _at_most(one, few), word) for word in argv]
    if argv[1] == "evaluate":
        argv = [*_without(argv, "--users"), "--users", "30"]
    return [*argv, "--set", "evaluations=1"]


def _at_most(setting: re.Match[str], few: dict[str, int]) -> str:
    name = setting[1]
    return f"{name}={few[name]}" if name in few else setting[0]


def undrawn(chart: Chart, others: Sequence[Chart] = ()) -> dict[str, str]:
    """A picture of a page that nobody draws: tests/reports draws them all."""
    return {"address": "data:,", "label": chart.label}


def _without(argv: list[str], option: str) -> list[str]:
    at = argv.index(option) if option in argv else len(argv)
    return argv[:at] + argv[at + 2 :]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a log and without any data set at hand."""
    from fastgaum.logs.fold import to_frame
    from fastgaum.logs.synthetic import synthesise

    columns = ("session", "event", "item", "chosen")
    to_frame(synthesise(400, preset="sample", seed=3)[0]).select(columns).write_csv(
        tmp_path / "clicks.csv"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAUM_DATA_DIR", str(tmp_path / "nothing"))
    return tmp_path


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
RUNNABLE = [file for file in FILES if blocks_of(file)]


@pytest.mark.parametrize("file", RUNNABLE, ids=lambda file: str(file.relative_to(ROOT)))
def test_code_blocks_run(
    file: Path,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in PRESETS:
        monkeypatch.setitem(PRESETS, name, {**PRESETS[name], **SHORT})
    monkeypatch.setattr("fastgaum.config.FOLDS", 2)
    monkeypatch.setattr("fastgaum.policies.training.EVALUATED_USERS", 20)
    monkeypatch.setattr("fastgaum.reports.charts.picture_of", undrawn)
    namespace: dict[str, object] = {"__name__": "documentation"}
    for language, code, line in blocks_of(file):
        if language == "python":
            # Blank lines before the code: a traceback then names the line of the file.
            compiled = compile("\n" * line + code, str(file), "exec", dont_inherit=True)
            with one_thread():  # others wait for each other where the cores are busy
                exec(compiled, namespace)
            continue
        for argv in commands_of(code):
            assert main(shortened(argv)) == 0, (
                f"{file.name}, below line {line}: {capsys.readouterr().err}"
            )


def notebook_files() -> Any:
    """docs/notebook_files.py, which is no package's module."""
    path = ROOT / "docs" / "notebook_files.py"
    spec = importlib.util.spec_from_file_location("notebook_files", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_its_page_has_all_of_it(file: Path, workshop: Path) -> None:
    """Its text claims figures, which its cells assert: so it is not cut short."""
    matplotlib = pytest.importorskip(
        "matplotlib", reason="draws a notebook's figures: install fastgaum[plots]"
    )
    matplotlib.use("agg")
    made, kept = notebook_files(), json.loads(file.read_text(encoding="utf-8"))
    with one_thread():
        again = made.run(kept, {"__name__": "notebook"})
    for was, now in zip(kept["cells"], again["cells"], strict=True):
        kinds = [[one["output_type"] for one in cell.get("outputs", ())] for cell in (was, now)]
        assert kinds[0] == kinds[1], "run python docs/notebook_files.py"
    page, figures = made.to_page(kept, file.stem)
    assert all(f"```python\n{code}\n```" in page for code in code_of(file))
    assert len(code_of(file)) > 5
    assert figures
    assert all(f"]({name})" in page and "<svg" in drawn for name, drawn in figures.items())
    assert made.on_page_markdown("[a](own-log.ipynb)") == "[a](own-log.md)"
    assert "](own-log.ipynb)" in made.on_page_markdown(made.to_page(kept, "own-log")[0])


def test_the_pattern_finds_blocks() -> None:
    blocks = [block for file in RUNNABLE for block in blocks_of(file)]
    argvs = [
        argv for language, code, _ in blocks if language == "bash" for argv in commands_of(code)
    ]
    commands = {argv[0] for argv in argvs}
    assert {"train", "evaluate", "predict", "reproduce", "data"} <= commands <= set(COMMANDS)
    assert sum(language == "python" for language, *_ in blocks) >= 8


def test_the_readme_s_sample_of_a_log_is_one(workshop: Path) -> None:
    from fastgaum import read_log

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"```text\n(session,.*?)```", text, re.DOTALL)
    (workshop / "sample.csv").write_text(sample)
    log = read_log(workshop / "sample.csv", candidate_fields=["price"])
    assert (log.n_sessions, log.n_events, log.n_candidates) == (1, 2, 4)
    header = pl.read_csv(workshop / "clicks.csv").columns
    assert {*sample.splitlines()[0].split(",")} == {*header, "user", "price"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_relative_links_lead_somewhere(name: str) -> None:
    """Of the site's pages its strict build says so: tests/test_site.py."""
    for link in LINK.finditer(FENCED.sub("", (ROOT / name).read_text(encoding="utf-8"))):
        target = ROOT / (link["target"] or name)
        assert target.exists(), link["target"]
        # as GitHub makes anchors of headings
        headings = (
            HEADING.findall(FENCED.sub("", target.read_text("utf-8"))) if link["anchor"] else []
        )
        anchors = [
            re.sub(r"[^\w\s-]", "", one).strip().lower().replace(" ", "-") for one in headings
        ]
        assert (link["anchor"] or None) in (None, *anchors), link["target"]


def test_every_preset_role_run_file_and_command_is_documented() -> None:
    from fastgaum.logs.column_roles import ROLE_NAMES
    from fastgaum.models.run_folder import RUN_FILES

    text = {
        name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("guide/which-model", "concepts/game", "commands")
    }
    assert [one for one in RUN_FILES if f"`{one}`" not in text["commands"]] == []
    groups = [one for one in COMMANDS if " " not in one]
    assert [one for one in groups if f"`{one}`" not in text["commands"]] == []
    assert [one for one in PRESETS if f"`{one}`" not in text["guide/which-model"]] == []
    assert [one for one in PRESETS if f"| `{one}` |" not in text["concepts/game"]] == []
    page = (ROOT / "docs/guide/your-own-log.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    documented = {(row[1].strip(), row[3].strip()) for row in rows if len(row) == 6}
    assert {(role, ", ".join(names)) for role, names in ROLE_NAMES.items()} <= documented


IN_API = re.compile(r"^::: (fastgaum[\w.]*)$", re.MULTILINE)


def test_the_api_pages_have_every_public_name_and_every_name_that_a_page_imports() -> None:
    """Public is what `import fastgaum` gives, and what the documentation tells a user to import."""
    import fastgaum

    pages = sorted((ROOT / "docs").glob("api*.md"))
    shown = {name for page in pages for name in IN_API.findall(page.read_text(encoding="utf-8"))}
    assert len(shown) > 50
    for path in shown:
        try:
            import_module(path)
        except ModuleNotFoundError:
            home, _, name = path.rpartition(".")
            assert hasattr(import_module(home), name), path
    public = set(fastgaum._HOME.items()) | {("errors", "fastgaum")}
    assert {name for name, _ in public} == set(fastgaum.__all__) - {"__version__"}
    names = {f"{home}.{name}" for name, home in public}
    codes = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/examples").glob("*.py")]
    codes += [code for file in FILES for kind, code, _ in blocks_of(file) if kind == "python"]
    codes += [code for file in NOTEBOOKS for code in code_of(file)]
    for node in (node for code in codes for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastgaum."):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert len(names) > 40
    missing = [one for one in names if one not in shown and one.rpartition(".")[0] not in shown]
    assert missing == []


def test_the_page_on_citing_says_what_the_citation_file_says() -> None:
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    said = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version, title = (
        re.search(rf"^{key}: (.+)$", said, re.MULTILINE) for key in ("version", "title")
    )
    assert version is not None
    assert title is not None
    assert f"version = {{{version[1]}}}" in page
    assert title[1].strip('"').replace("FastGAUM", "{FastGAUM}") in page
    for name in re.findall(r"family-names: (\S+)\n +given-names: (\S+)", said):
        assert ", ".join(name) in page
