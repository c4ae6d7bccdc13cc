"""The second process of a first fit: it compiles what the fit then calls, and nothing else."""

from __future__ import annotations

import subprocess
from typing import Any

import numba
import pytest

from fastgaum.kernels import ahead
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel

compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="compiles: NUMBA_DISABLE_JIT is set"
)


@compiled
def test_a_fit_calls_what_is_compiled_ahead() -> None:
    changes = {"players": "adversarial", "warm_start": 1, "catch_up": 0, "epochs": 1}
    log, _ = synthesise(300, preset="scale", n_items=20)
    UserModel.from_preset("fastgaum", search=[], folds=0, **changes).fit(log)
    held = [set(kernel.overloads) for kernel, _ in ahead.examples()]
    ahead.compile_all()
    assert [set(kernel.overloads) for kernel, _ in ahead.examples()] == held


@compiled
@pytest.mark.parametrize("empty", [True, False])
def test_a_second_process_compiles_where_none_has(
    monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    begun: list[str] = []
    at_exit: list[Any] = []

    class Process:
        def __init__(self, command: list[str], **pipes: int) -> None:
            begun.append(command[-1])

        def kill(self) -> None:
            begun.append("killed")

        def wait(self) -> None:
            begun.append("waited for")

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(ahead.atexit, "register", at_exit.append)
    monkeypatch.setattr(ahead.scorer_pass._cache, "is_empty", lambda: empty)
    ahead.start.__wrapped__()
    for end in at_exit:
        end()
    if empty:
        (program, *ended) = begun
        assert program.endswith("import compile_all; compile_all()")
        assert ended == ["killed", "waited for"]
    else:
        assert begun == []
