"""The kernels of a fit that take longest to compile, compiled by a second process while the first
reads the log: numba has one lock for all that a process compiles."""

from __future__ import annotations

import atexit
import subprocess
import sys
from functools import cache
from typing import Any

import numba
import numpy as np

from .bag_linear import BagArrays, BagMap, bag_linear_backward
from .choice import Loss
from .draws import DropoutRule
from .lstm import LstmGrads, LstmPass, lstm_tiles_backward
from .optimiser import AdamRates, adam_rows, add_rows
from .packing import Sequences
from .scorer import ScorerInputs, ScorerOutputs, ScorerWeights, scorer_pass


def examples() -> list[tuple[Any, tuple[Any, ...]]]:
    """Kernels, the longest first, each with arguments of the types that a fit calls it with."""
    f1, f2, f3 = (np.zeros([1] * n, np.float32) for n in (1, 2, 3))
    i1, i2, places = np.zeros(1, np.int32), np.zeros((1, 1), np.int32), np.zeros(1, np.int64)
    whole, real = np.uint32(0), np.float32(0)
    tokens = LstmPass(f2, i1, f2, f2, f2, f2, f2)
    of_map = BagMap(f2, f2, f2, f1)
    scored = (
        ScorerInputs(i1, i2, f2, f2, i2),
        ScorerWeights(f2, f2, f1, places, places, 0),
        DropoutRule(whole, whole, real),
        Loss(0, real, True, i1, f1, f1),
        ScorerOutputs(f1, f1, f1, f1, f2, f2, f2),
    )
    rates = AdamRates(real, real, 0.0, *[real] * 5)
    back = (Sequences(i1, i1), f3, 0, 0, tokens, LstmGrads(f2, f2, f2, f3, f1))
    return [
        (scorer_pass, (0, 0, *scored)),
        (lstm_tiles_backward, (i1, *back)),
        (bag_linear_backward, (f2, BagArrays(i1, i1, f2), of_map, of_map)),
        (add_rows, (f2, i1, i1, 0, 0, f2)),
        (adam_rows, (f2, f2, f2, f1.astype(np.float64), i1, f2, rates)),
    ]


def compile_all() -> None:
    """Compile the kernels, or wait for the process that does."""
    for kernel, arguments in examples():
        kernel.compile(tuple(numba.typeof(argument) for argument in arguments))


@cache
def start() -> None:
    """Let a second process compile, until it is done or this one ends, unless the first of the
    kernels has been kept."""
    kept: Any = getattr(scorer_pass, "_cache", None)
    if not hasattr(kept, "is_empty") or not kept.is_empty():
        return
    # what this process has imported is what the second one imports
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import compile_all"
    silent: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    helper = subprocess.Popen([sys.executable, "-c", f"{program}; compile_all()"], **silent)

    def end() -> None:
        helper.kill()
        helper.wait()

    atexit.register(end)
