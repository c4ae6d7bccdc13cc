"""Kernels survive between processes: the same bits from the compiler and from the cache, and no
stale or shared entry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest

from fastgaum.bench.coldstart import held_signatures
from fastgaum.cli.app import main
from fastgaum.kernels import _cache
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.worlds.learned_world import LearnedWorld

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


PART = """
from ._jit import jit_part

@jit_part
def scaled(x):
    return FACTOR * x
"""
CALLER = """
from ._jit import jit
from .part import scaled

@jit
def total(values):
    result = values[0] - values[0]
    for x in values:
        result += scaled(x)
    return result
"""
CALL = """
import os, sys, time

def refuse(event, arguments):
    # a read-only file system, which holds for root too
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.utime", "os.rmdir")
    if changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        if str(arguments[0]).startswith(sys.argv[3]):
            raise PermissionError(13, "Permission denied", arguments[0])

if sys.argv[3:]:
    sys.addaudithook(refuse)
import numpy as np
from kernels.caller import total
from kernels import part
while sys.argv[2] and not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
for dtype in sys.argv[1].split():
    if dtype == "fork":
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        continue
    answer = total(np.ones(10, dtype=dtype))
    print(int(answer), end=" ", flush=True)
print("loaded" if hasattr(total, "stats") and not total.stats.cache_misses else "compiled")
"""


class Install:
    """A package of two small kernels and the project's decorators, and processes that call them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kernels = home / "install" / "kernels"
        self.cache = home / "cache"
        self.kernels.mkdir(parents=True)
        for name in ("_jit.py", "_cache.py"):
            shutil.copy(KERNELS / name, self.kernels)
        (self.kernels / "caller.py").write_text(CALLER)
        self.edit(2)

    def edit(self, factor: int) -> None:
        (self.kernels / "part.py").write_text(PART.replace("FACTOR", str(factor)))

    def start(
        self, dtype: str = "float32", wait: str = "", refused: str = "", **environment: str
    ) -> subprocess.Popen[str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")
        }
        places = {
            "PYTHONPATH": str(self.kernels.parent),
            "XDG_CACHE_HOME": str(self.cache),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-c", CALL, dtype, wait, *([refused] if refused else [])]
        return subprocess.Popen(
            command,
            cwd=self.home,
            env=inherited | places | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, dtype: str = "float32", refused: str = "", **environment: str) -> str:
        """What a process prints that calls the kernel; it must print no warning."""
        return finished(self.start(dtype, "", refused, **environment))

    def entries(self) -> list[Path]:
        return sorted(self.cache.rglob("*.nbc"))


def finished(process: subprocess.Popen[str], warnings: int = 0) -> str:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.count("Warning") == warnings, errors
    return output.strip()


@pytest.fixture
def install(tmp_path: Path) -> Install:
    return Install(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process has filled that could not write to the install."""
    home = tmp_path_factory.mktemp("compiled")
    install = Install(home)
    assert install.call(refused=str(install.kernels.parent)) == "20 compiled"
    return home


@pytest.fixture
def filled(compiled: Path, install: Install) -> Install:
    """An install whose cache has the kernel for float32."""
    shutil.copytree(compiled / "cache", install.cache)
    return install


def test_an_edit_of_a_part_reaches_the_kernels_that_inline_it(filled: Install) -> None:
    filled.edit(3)
    assert filled.call() == "30 compiled"
    assert len(filled.entries()) == 2, "the folder of the earlier sources is still there"


def test_another_version_processor_or_setting_has_another_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [_cache.key_of_sources(), _cache.key_of_sources()]
    versions = [(sys, "version"), *((one, "__version__") for one in (np, numba, llvmlite))]
    for owner, name in (*versions, (numba.config, "BOUNDSCHECK"), (numba.config, "CPU_NAME")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, "another")
            keys.append(_cache.key_of_sources())
    assert len(set(keys)) == len(keys) - 1 == 7


def test_a_filled_cache_may_be_read_only(filled: Install) -> None:
    home = str(filled.home)
    assert filled.call(refused=home) == "20 loaded"
    assert finished(filled.start("float64", refused=home), warnings=1) == "20 compiled"


def test_numba_s_own_settings_are_kept(install: Install) -> None:
    """$NUMBA_CACHE_DIR replaces the user's cache; where it cannot be written to, kernels are compiled
    in memory."""
    chosen, file = install.home / "chosen", install.home / "file"
    assert install.call(NUMBA_CACHE_DIR=str(chosen)) == "20 compiled"
    assert len(list(chosen.rglob("*.nbc"))) == 1
    file.touch()
    assert finished(install.start(NUMBA_CACHE_DIR=str(file / "a")), warnings=1) == "20 compiled"
    assert install.entries() == []


def test_processes_may_start_at_once_on_an_empty_cache(install: Install) -> None:
    go = install.home / "go"
    orders = "float32 float64", "float64 float32"
    started = [install.start(dtypes, str(go)) for dtypes in orders]
    time.sleep(1)
    go.touch()
    assert [finished(process).split()[:2] for process in started] == 2 * [["20", "20"]]
    assert len(install.entries()) == 2
    assert install.call("float32 float64") == "20 20 loaded"
    assert not list(install.cache.rglob("*.tmp.*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_compiles_too(install: Install) -> None:
    """Workers of a grid are forked, and so are those of torch's loaders and of Gymnasium."""
    assert install.call("fork float32") == "20 compiled"
    # of a parent that has used the lock
    assert install.call("float64 fork int64").split()[-2:] == ["20", "compiled"]
    assert len(install.entries()) == 3


def test_a_damaged_entry_is_compiled_anew(filled: Install) -> None:
    (entry,) = filled.entries()
    entry.write_bytes(entry.read_bytes()[:1000])
    assert filled.call() == "20 compiled"
    (index,) = filled.cache.rglob("*.nbi")
    index.write_bytes(b"")
    assert filled.call() == "20 compiled"


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="compiles: NUMBA_DISABLE_JIT is set")
@pytest.mark.parametrize("preset", ["fastgaum", "paper-lstm"])
def test_nothing_is_compiled_after_a_warmup(preset: str) -> None:
    log, _ = synthesise(700, preset="scale", n_items=40)
    assert main(["warmup", "--quiet"]) == 0
    held = held_signatures()
    changes = {
        "players": "adversarial",
        "warm_start": 1,
        "catch_up": 1,
        "epochs": 1,
        "search": [],
        "folds": 0,
    }
    model = UserModel.from_preset(preset, **changes)
    model.fit(log)
    model.evaluate(log)
    users, keys = LearnedWorld(model).population(2), np.arange(2, dtype=np.uint64)
    users.reset(keys)
    users.step(np.array([[0, 1, 2], [3, 4, 5]], np.int32), keys)
    model.user().probabilities(log.item_ids[:3].to_list())
    assert held_signatures() == held
