"""A strict type checker accepts what users write: the programs of docs/examples and one more; and
it finds their mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = (
    "quickstart",
    "own_log",
    "no_click",
    "compare_models",
    "train_policy",
    "custom_regulariser",
    "custom_encoder",
)

RIGHT = """
from typing import Any

import gymnasium
import numpy as np
import polars as pl
from torch import Tensor

import fastgaum as fg
from fastgaum.nets.regularisers import ChoiceDistribution, Regulariser, Shannon
from fastgaum.policies.base import Observation, Policy, items_at

log: fg.SessionLog = fg.resplit(fg.load("sample"), seed=3)
model = fg.UserModel.from_preset("fastgaum", epochs=3)
table: pl.DataFrame = model.fit(log)
evaluation = model.evaluate(log, split="test")
prec1: float = evaluation.heads["reward"].precision[1].mean
lead: float = evaluation.lead(evaluation, k=2, other_head="generator").low
predicted: pl.DataFrame = model.predict(log)
drawn: pl.DataFrame = model.sample(log, seed=1)
model.save("user.safetensors")
reveal_type(fg.UserModel.load("user.safetensors"))
reveal_type(fg.load("sample").items)


class Firmer:
    \"\"\"A regulariser that satisfies the protocol without inheriting anything.\"\"\"

    def best_response(self, scores: Tensor, offsets: Tensor, outside: bool) -> ChoiceDistribution:
        return Shannon().best_response(2 * scores, offsets, outside)

    def link(self, logits: Tensor, offsets: Tensor, outside: bool) -> ChoiceDistribution:
        return Shannon().link(logits, offsets, outside)

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        return 0.5 * Shannon().omega(dist, offsets)


own: Regulariser = Firmer()
firm = fg.UserModel(fg.Config(eta=2.0), regulariser=own)


class First(Policy):
    \"\"\"Shows the first places of the pool.\"\"\"

    name = "first"

    def act(self, observation: Observation, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        places = np.tile(np.arange(k, dtype=np.int32), (len(observation.users.states), 1))
        return items_at(observation.pools, places)


envs = fg.UserVectorEnv(8, world=fg.LearnedWorld(model), slate_size=3, reward="click")
observations, info = envs.reset(seed=0)
observations, rewards, terminated, truncated, info = envs.step(envs.action_space.sample())
one = fg.UserEnv(run="runs/mine", slate_size=3)
env: gymnasium.Env[Any, Any] = one
"""

# every statement that ends in "# code" must be refused with that code, and nothing else
WRONG = """
import polars as pl
from torch import Tensor

import fastgaum as fg
from fastgaum.nets.histories import HistoryEncoder
from fastgaum.nets.regularisers import Custom

log = fg.load("sample")
model = fg.UserModel.from_preset("fastgaum")
fg.load(3)  # arg-type
model.evaluate("sample")  # arg-type
model.evaluate(log, split="tests")  # arg-type
table: pl.LazyFrame = model.fit(log)  # assignment
model.evaluate(log).heads["reward"].precison  # attr-defined
model.fti(log)  # attr-defined
fg.UserModel(fg.Config(eta="high"))  # arg-type
fg.UserModel(fg.Config(epoch=3))  # call-arg
fg.UserModel(regulariser="shannon")  # arg-type
fg.UserVectorEnv("many", run="runs/mine", slate_size=3)  # arg-type
fg.UserVectorEnv(8, run="runs/mine", slate_size="three")  # arg-type


def entropy(probs: Tensor) -> Tensor:
    return probs


Custom(entropy)  # arg-type


class Backwards(HistoryEncoder):
    def after_tokens(self, tokens: Tensor, offsets: Tensor) -> Tensor:  # override
        raise NotImplementedError
"""


def expected(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        code = re.search(r"# ([a-z-]+)$", line)
        if code:
            yield number, code[1]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says of all programs, in one go."""
    pytest.importorskip("mypy", reason="the type checker: install fastgaum[check]")
    folder = tmp_path_factory.mktemp("typed")
    for name in EXAMPLES:
        (folder / f"{name}.py").write_text(
            (ROOT / "docs" / "examples" / f"{name}.py").read_text(encoding="utf-8")
        )
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    # as `make check` calls it, whose cache holds what libraries' stubs say: reading those anew
    # takes a minute
    options = [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    files = [f"{name}.py" for name in (*EXAMPLES, "right", "wrong")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *files],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
    )
    assert not done.stderr, done.stderr
    return done.stdout


def errors_of(checked: str, name: str) -> list[tuple[int, str]]:
    found = re.findall(rf"^{name}\.py:(\d+): error: .*\[([a-z-]+)\]$", checked, re.MULTILINE)
    return [(int(line), code) for line, code in found]


@pytest.mark.parametrize("name", [*EXAMPLES, "right"])
def test_a_right_program_is_accepted(checked: str, name: str) -> None:
    assert errors_of(checked, name) == [], checked


def test_the_checker_knows_what_names_are(checked: str) -> None:
    """`Any` would be accepted everywhere, and reveal nothing."""
    revealed = re.findall(r'^right\.py:\d+: note: Revealed type is "(.*)"$', checked, re.MULTILINE)
    assert revealed[0].endswith("UserModel")
    assert "int32" in revealed[1] or "signedinteger" in revealed[1]


def test_a_wrong_program_is_refused_where_it_is_wrong(checked: str) -> None:
    assert len(list(expected(WRONG))) >= 12
    assert errors_of(checked, "wrong") == list(expected(WRONG)), checked
