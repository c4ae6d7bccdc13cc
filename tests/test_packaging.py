"""What a user installs: the sdist and the wheel hold what they should, and a wheel works in an
environment that has no checkout: its commands, the job on the sample and tests of it. `make dist`
does the same with packages from an index, and runs all tests.

The sdist is built from a copy of the checkout and the wheel from the sdist, as an index would,
through the build backend itself: nothing is downloaded, nothing is left in the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_SOURCE = (".*", "build", "dist", "site", "runs", "*.egg-info", "__pycache__")

# Imports every module that a folder holds, not only those that pkgutil finds: kernels/ and bench/
# have no __init__.py.
IMPORT_ALL = """
import importlib, importlib.util, pathlib, sys
import fastgaum
# Triton is an extra of its own, which tests do without
absent = () if importlib.util.find_spec("triton") else ("cuda_ops.py",)
root = pathlib.Path(fastgaum.__file__).resolve().parent
for path in sorted(root.rglob("*.py")):
    if path.name in absent:
        continue
    parts = path.relative_to(root.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert pathlib.Path(module.__file__).resolve() == path, (module.__file__, path)
    print(module.__name__)
"""
USE = """
import sys
import fastgaum as fg
heavy = {"torch", "numba", "numpy", "polars"}
assert not heavy & set(sys.modules), "import fastgaum is meant to cost nothing"
from fastgaum import audit, load, read_log, synthesise
assert "torch" not in sys.modules
log = load("sample")
assert log.n_events == 2000, log.n_events
print(fg.__version__)
"""
SHORT = "--set epochs=1 --set warm_start=1 --set search=[] --set folds=0"
ALONE = "tests/logs/test_round_trip.py"
"""kernels are used by the job on the sample"""


@dataclass(frozen=True)
class Built:
    """What the two files of a release hold, and an environment with the wheel."""

    sdist: set[str]
    """paths below the sdist's one folder"""
    wheel: set[str]
    interpreter: Path
    """of the environment; the packages that the wheel needs are those of this interpreter"""
    package: Path
    """what `import fastgaum` finds there"""
    metadata: bytes
    """the wheel's METADATA, which an index shows"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip(
        "setuptools", minversion="77", reason="the build backend: install fastgaum[test]"
    )
    pytest.importorskip("pip", reason="what installs a wheel for a user")
    folder = tmp_path_factory.mktemp("built")
    ignored = shutil.ignore_patterns(*NOT_SOURCE)
    shutil.copytree(ROOT, folder / "checkout", symlinks=True, ignore=ignored)
    with tarfile.open(build("sdist", folder / "checkout", folder)) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    sdist = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    wheel = build("wheel", source, folder)
    interpreter = install(folder / "env", str(wheel), cwd=folder)
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        (metadata,) = (archive.read(name) for name in held if name.endswith(".dist-info/METADATA"))
    where = "import fastgaum; print(fastgaum.__path__[0])"
    package = Path(python("-c", where, cwd=folder, by=interpreter).strip())
    assert package.is_relative_to(folder / "env")
    return Built(sdist, held, interpreter, package, metadata)


def install(env: Path, *what: str, cwd: Path) -> Path:
    """Make an environment that has the packages of this interpreter, but not the checkout, and
    install into it from `cwd`; return its interpreter."""
    python("-m", "venv", "--without-pip", str(env), cwd=cwd)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(env)}))
    # a line of a .pth adds a folder, and not what that folder's own .pth files would add
    (site / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    interpreter = env / "bin" / "python"
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    python("-m", "pip", "--python", str(interpreter), "install", *options, *what, cwd=cwd)
    return interpreter


def build(kind: str, source: Path, out: Path) -> Path:
    call = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / python("-c", call, cwd=source).splitlines()[-1]


def python(*argv: str, cwd: Path, path: Path | None = None, by: Path | None = None) -> str:
    """Run this interpreter, or `by`, in `cwd`, with `path` before everything installed; return what
    it prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [by or sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


def test_sdist_and_wheel_hold_all_that_is_ours_and_nothing_else(built: Built) -> None:
    suffixes = (".py", ".toml", ".md", ".csv", ".parquet")
    beside = {
        str(path.relative_to(ROOT))
        for name in ("kernels", "data", "bench")
        for path in (ROOT / name).rglob("*.*")
        if path.is_file() and path.suffix in suffixes
    }
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "fastgaum").rglob("*.py")}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "fastgaum").rglob("templates/*")}
    assert {Path(name).name for name in templates} >= {"page.html", "style.css", "sort.js"}
    linked = ("fastgaum/kernels/", "fastgaum/data/", "fastgaum/bench/")
    package = {name for name in package if not name.startswith(linked)} | templates
    others = {"pyproject.toml", "README.md", "LICENSE", "fastgaum/py.typed"}
    assert beside | package | others <= built.sdist
    assert not [name for name in built.sdist if name.startswith(linked)]
    # a package forgotten in pyproject.toml fails here
    wanted = {f"fastgaum/{name}" for name in beside} | package | {"fastgaum/py.typed"}
    assert wanted <= built.wheel
    top = {name.partition("/")[0] for name in built.wheel}
    assert top == {"fastgaum", next(name for name in top if name.endswith(".dist-info"))}
    assert not [name for name in (*built.sdist, *built.wheel) if is_stray(name)]
    assert not [name for name in built.wheel if "/test_" in name or "/tests/" in name]


def is_stray(name: str) -> bool:
    """Whether a file has no business in a release: what a run, a tool or a browser left, and logs
    that are not ours."""
    parts = Path(name).parts
    left = {"artefacts", "runs", "site", "build", "dist", "shared", "__pycache__", ".venv"}
    # the only rows that we may pass on are those that our own world drew
    rows = name.endswith((".parquet", ".txt", ".tsv", ".arrow")) and "sample" not in parts
    made = any(part.endswith((".egg-info", ".dist-info")) for part in parts)
    return bool(left & set(parts)) or name.endswith((".nbi", ".nbc")) or (rows and not made)


def test_every_module_of_the_wheel_imports_alone(built: Built, tmp_path: Path) -> None:
    imported = python("-c", IMPORT_ALL, cwd=tmp_path, by=built.interpreter).split()
    absent = () if find_spec("triton") else ("fastgaum/nets/cuda_ops.py",)
    expected = [
        name
        for name in built.wheel
        if name.startswith("fastgaum/") and name.endswith(".py") and name not in absent
    ]
    assert len(imported) == len(set(imported)) == len(expected)
    assert {"fastgaum.kernels.lstm", "fastgaum.cli.app", "fastgaum.game.loop"} <= set(imported)


def test_the_wheel_s_library_and_command_work(built: Built, tmp_path: Path) -> None:
    version = python("-c", USE, cwd=tmp_path, by=built.interpreter).strip()
    assert version == PROJECT["version"]
    command = str(built.interpreter.with_name("fastgaum"))
    for argv, says in (
        (["--version"], version),
        # the main job, with fits cut short
        (f"reproduce --datasets sample --seeds 1 --jobs 1 {SHORT}".split(), "fastgaum, generator"),
    ):
        assert says in python(command, *argv, cwd=tmp_path, by=built.interpreter)
    assert version in python("-m", "fastgaum", "--version", cwd=tmp_path, by=built.interpreter)
    for name in ("kernels", "data", "bench"):
        assert not (built.package.parent / name).exists()
        assert not (built.package / name).is_symlink()


def test_the_wheel_passes_tests_without_the_checkout(built: Built, tmp_path: Path) -> None:
    """Some of them: `make dist` runs all."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    says = f"""
import fastgaum, pytest, sys
assert pytest.main({["-p", "no:cacheprovider", ALONE]!r}) == 0
files = [getattr(one, "__file__", None) or "" for one in sys.modules.values()]
# packages may lie in an environment within the checkout
rooms = tuple("{ROOT}/" + room + "/" for room in ("fastgaum", "kernels", "bench", "tests"))
assert not [file for file in files if file.startswith(rooms)]
print(fastgaum.__file__)
"""
    said = python("-c", says, cwd=tmp_path, by=built.interpreter)
    assert Path(said.split()[-1]) == built.package / "__init__.py"
    assert "passed" in said


def test_metadata_is_what_an_index_takes(built: Built) -> None:
    packaging = pytest.importorskip("packaging.metadata", reason="comes with pytest")
    raw, unknown = packaging.parse_email(built.metadata)
    assert not unknown
    metadata: Any = packaging.Metadata.from_raw(raw, validate=True)
    assert (metadata.name, str(metadata.version)) == ("fastgaum", PROJECT["version"])
    assert len(metadata.summary) <= 512
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert (metadata.license_expression, metadata.license_files) == ("MIT", ["LICENSE"])
    assert set(metadata.provides_extra) == set(PROJECT["optional-dependencies"])
    # a licence expression and a licence classifier exclude each other
    assert not [one for one in metadata.classifiers if one.startswith("License ::")]
    # the project's own address, once it has one
    assert dict(metadata.project_urls or {}) == PROJECT.get("urls", {})
    assert not metadata.home_page


def test_the_version_stands_in_one_place() -> None:
    """pyproject.toml has it; what cannot read that file says the same."""
    import fastgaum

    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert fastgaum.__version__ in (version, "0+unknown")
    headings = re.findall(
        r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings[0] in (version, "Unreleased")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "fastgaum").rglob("*.py")]
    assert not [text for text in texts if f'"{version}"' in text]


def test_the_address_stands_in_one_place() -> None:
    """pyproject.toml has it, once there is one; what cannot read that file says the same."""
    address = PROJECT.get("urls", {}).get("Repository")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^repository-code: (.+)$", citation, re.M) == [address] * bool(address)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^git clone (\S+)", readme, re.M) == [address or "ADDRESS"]


def test_the_wheel_registers_its_environment(built: Built, tmp_path: Path) -> None:
    """By its name alone, with no import of fastgaum."""
    by_name = """
import sys, gymnasium
try:
    gymnasium.make("fastgaum.worlds:fastgaum/User-v0")
except Exception as error:
    print(type(error).__module__, type(error).__name__, sys.modules["fastgaum"].__file__)
"""
    module, name, file = python("-c", by_name, cwd=tmp_path, by=built.interpreter).split()
    assert (module, name) == ("fastgaum.errors", "ConfigError"), (
        "it is found, and says that it needs a run"
    )
    assert Path(file).is_relative_to(built.package)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a clone named fastgaum, which is installed in its .venv by `pip install
    --editable .`; the packages that it needs are those of this interpreter."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend")
    folder = tmp_path_factory.mktemp("beside")
    clone, env = folder / "fastgaum", folder / "fastgaum" / ".venv"
    ignored = shutil.ignore_patterns(*NOT_SOURCE)
    shutil.copytree(ROOT, clone, symlinks=True, ignore=ignored)
    install(env, "--editable", ".", cwd=clone)
    return folder


@pytest.mark.parametrize("place", [".", "fastgaum"])
def test_a_first_line_works_beside_the_clone_and_in_it(installed: Path, place: str) -> None:
    """A folder that is named like the package, and is none, comes first in the path of a script
    beside it."""
    block = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    first = [*block[0].splitlines()[:3], "print(fg.__file__, log.n_events)"]
    folder = installed / place
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text("\n".join(first), encoding="utf-8")
    interpreter = installed / "fastgaum" / ".venv" / "bin" / "python"
    file, n_events = python("script.py", cwd=folder, by=interpreter).split()
    assert Path(file) == installed / "fastgaum" / "fastgaum" / "__init__.py"
    assert n_events == "2000"


def test_make_reproduce_installs_what_a_user_needs_and_make_setup_all_else() -> None:
    """Extras of what a target installs, as make itself says them."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")

    def extras(target: str) -> set[str]:
        command = ["make", "--always-make", "--dry-run", target]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        (found,) = re.findall(r'--editable "\.\[(.*)\]"', said)
        return set(found.split(","))

    used, draws, setup = map(extras, ("reproduce", "report", "setup"))
    assert used == {"baselines", "rl"}
    assert draws == used | {"plots"}
    assert draws | {"test", "check", "docs"} < setup <= set(PROJECT["optional-dependencies"])
    # 470 MB for a card
    names = {re.split(r"[\[>]", one)[0] for one in PROJECT["optional-dependencies"]["baselines"]}
    assert names == {"xgboost-cpu", "xgboost"}
    (whole,) = (
        one for one in PROJECT["optional-dependencies"]["baselines"] if one.startswith("xgboost>")
    )
    assert whole.endswith("; sys_platform == 'darwin'")


def test_a_bare_checkout_imports(tmp_path: Path) -> None:
    """Nothing is installed from it: the relative symlinks alone make `fastgaum.kernels`, `.data`
    and `.bench`."""
    for name in ("kernels", "data", "bench"):
        link = ROOT / "fastgaum" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"
    finds = (
        "from importlib.util import find_spec; import fastgaum.data as d; "
        "print(find_spec('fastgaum.kernels.choice').origin, *d.__path__, sep='\\n')"
    )
    module, data = python("-c", finds, cwd=tmp_path, path=ROOT).splitlines()
    assert Path(module).resolve() == ROOT / "kernels" / "choice.py"
    assert Path(data).resolve() == ROOT / "data"


def test_the_makefile_names_what_exists() -> None:
    """pytest runs nothing at all where one of its paths is missing."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])tests/[\w/]*[a-z](?:\.py)?(?![\w%])", text))
    assert len(named) > 5
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_badges_say_what_the_project_says() -> None:
    """They are drawings of ours, which no service keeps true."""
    said = {
        path.stem: re.findall(r"<text [^>]*>([^<]+)</text>", path.read_text("utf-8"))[1]
        for path in (ROOT / "docs" / "badges").glob("*.svg")
    }
    assert set(said) == {"paper", "python", "licence", "status"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/badges/{name}.svg)" in readme for name in said)
    python_versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert said["python"] == f"{python_versions[0]} to {python_versions[-1]}"
    assert PROJECT["requires-python"] == f">={python_versions[0]}"
    assert said["licence"] == PROJECT["license"]
    assert f":: {said['status']}".lower() in str(PROJECT["classifiers"]).lower().replace("4 - ", "")
    assert "Typing :: Typed" in PROJECT["classifiers"]
