"""Compiles every kernel of a card for an A100 and an H100, without one: `python tests/compile_card.py`.

Triton asks its driver which card there is; here one answers that has none."""

from __future__ import annotations

import itertools
import os
from typing import Any

import torch

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
CARDS = {80: (20,), 90: (20, 128)}
"""widths of tables and hidden units, by the capability of a card"""


class NoCard:
    """A driver of a card that is not there."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, _: Any = None) -> int:
        return 0


def compile_all(widths: tuple[int, ...]) -> set[str]:
    """The names of the kernels that were compiled."""
    from fastgaum.engine import card_kernels as kernels
    from fastgaum.engine import card_lstm
    from fastgaum.engine.card_tables import BLOCK, held_columns

    f, i, d = (torch.zeros(64, dtype=kind) for kind in (torch.float32, torch.int32, torch.float64))
    named, shown = kernels.SortedEntries(i, i, i), kernels.ShownCandidates(i, i, i, 100)
    sequences, lstm = card_lstm.TokenSequences(i, i, 100), card_lstm.CardLstmPass(f, f, f, f)
    tile = card_lstm.TILE, card_lstm.BLOCK, card_lstm.BLOCK
    calls: list[tuple[Any, ...]] = [(kernels.choice_gradients, f, i, i, f, f, BLOCK)]
    calls += [(kernels.softmax_events, f, i, f, f, outside, BLOCK) for outside in (False, True)]
    for width, n in itertools.product(widths, (0, 100)):
        columns = held_columns(width)
        factors, rows = kernels.BagFactors(i, f, f, n), kernels.CardRows(f, f, f, d)
        calls += [
            (kernels.bag_sums, f, kernels.BagEntries(i, i), f, 100, width, 16, columns),
            *[
                (
                    kernels.row_sums,
                    named,
                    factors,
                    f,
                    kernels.RowGradients(f, d),
                    width,
                    BLOCK,
                    columns,
                )
            ],
            *[(kernels.step_rows, i, f, rows, d, width, adam, columns) for adam in (False, True)],
            (kernels.dot_candidates, kernels.DotFactors(f, f), shown, f, width, 3, BLOCK, columns),
            (
                kernels.dot_users_gradient,
                f,
                kernels.DotFactors(f, f),
                shown,
                width,
                3,
                BLOCK,
                columns,
            ),
            (card_lstm.lstm_forward, f, sequences, lstm, width, *tile),
            (
                card_lstm.lstm_backward,
                card_lstm.CardLstmGrads(f, f, f),
                sequences,
                lstm,
                width,
                *tile,
            ),
        ]
    for kernel, *arguments in calls:
        kernel.warmup(*arguments, grid=(1,))
    return {kernel.__name__ for kernel, *_ in calls}


if __name__ == "__main__":
    # pytest looks for doctests here too, where Triton may be missing
    import triton

    names: set[str] = set()
    for capability, widths in CARDS.items():
        triton.runtime.driver.set_active(NoCard(capability))
        names = compile_all(widths)
    print(*sorted(names))
