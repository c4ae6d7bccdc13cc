"""Every kernel owes a property test: a pytest plugin for runs in which kernels are plain Python and
their calls can be seen.

    NUMBA_DISABLE_JIT=1 python -m pytest -p tests.kernel_calls tests/kernels tests/…

Property tests alone are run: others, as those of a million draws, would take minutes so. The run
fails, and names them, if kernels were called by no test of hypothesis: a test whose shapes are
drawn. Each draws half of its shapes: plain Python takes a hundred times as long, and compiled
kernels see them all."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import numba
import pytest
from hypothesis import settings

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
DECORATORS = {"jit", "jit_fast", "jit_part", "jit_leaf"}
# What plain Python warns of and a compiled kernel does without a word, and is meant to: keys are
# products modulo 2⁶⁴, and a NaN passes through the bits of an exponent.
SILENT = ("overflow encountered in scalar", "invalid value encountered in cast")

called: set[CodeType] = set()
"""the code of each function that a property test called"""


def kernels() -> set[tuple[str, str]]:
    """File and name of each kernel that other files may call."""
    return {
        (f"kernels/{file.name}", node.name)
        for file in KERNELS.glob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and DECORATORS & {ast.unparse(decorator) for decorator in node.decorator_list}
    }


def pytest_configure(config: pytest.Config) -> None:
    if not numba.config.DISABLE_JIT:
        raise pytest.UsageError("compiled kernels cannot be seen: set NUMBA_DISABLE_JIT=1")
    for text in SILENT:
        config.addinivalue_line("filterwarnings", f"ignore:{text}:RuntimeWarning")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    away = [item for item in items if not is_property_test(item)]
    config.hook.pytest_deselected(items=away)
    items[:] = [item for item in items if item not in away]
    for test in {item.obj for item in items}:  # type: ignore[attr-defined]
        asked = test._hypothesis_internal_use_settings
        fewer = settings(asked, max_examples=max(asked.max_examples // 2, 2))
        test._hypothesis_internal_use_settings = fewer


def is_property_test(item: pytest.Item) -> bool:
    return getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    if not is_property_test(pyfuncitem):
        return (yield)
    sys.setprofile(_note)
    try:
        return (yield)
    finally:
        sys.setprofile(None)


def _note(frame: FrameType, event: str, _: object) -> None:
    if event == "call":
        # of every call of the tests: names are made once, at the end
        called.add(frame.f_code)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    names = {("/".join(code.co_filename.rsplit("/", 2)[1:]), code.co_name) for code in called}
    forgotten = kernels() - names
    if exitstatus == 0 and forgotten:
        print(
            "\nno property test (hypothesis) calls",
            *sorted(f"{file}: {name}" for file, name in forgotten),
            sep="\n  ",
        )
        session.exitstatus = 1
