"""What compiling leaves behind: the collector as it was, also where a kernel does not compile."""

from __future__ import annotations

import gc

import numba
import pytest

from fastgaum.kernels._jit import jit

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="compiles: NUMBA_DISABLE_JIT is set"
)


def test_collection_stands_still_while_a_kernel_compiles_and_goes_on_after() -> None:
    during = []

    class Look(numba.core.event.Listener):
        def on_start(self, event: object) -> None:
            during.append(gc.isenabled())

        def on_end(self, event: object) -> None:
            during.append(gc.isenabled())

    @jit
    def twice(x: int) -> int:
        return 2 * x

    @jit
    def wrong(x: int) -> int:
        return x.no_such_name  # type: ignore[attr-defined,no-any-return]

    assert gc.isenabled()
    with numba.core.event.install_listener("numba:run_pass", Look()):
        assert twice(3) == 6
    assert during
    assert not any(during)
    assert gc.isenabled()
    with pytest.raises(numba.TypingError):
        wrong(1)
    assert gc.isenabled()


def test_a_process_that_does_not_collect_is_left_so() -> None:
    @jit
    def half(x: float) -> float:
        return x / 2

    gc.disable()
    try:
        assert half(3.0) == 1.5
        assert not gc.isenabled()
    finally:
        gc.enable()
