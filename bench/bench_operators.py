"""Races: every operator of the table `operators`, beside its twin in torch on the same data and
weights, forward and back."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from fastgaum import ops
from fastgaum.bench.operators import OPERATORS, Contender, Sizes, agree
from fastgaum.bench.races import Group, Race

ROWS = {f"operator-{row.name}": row for row in OPERATORS}
SIZES = Sizes([[10] * 6] * 256, fields=3, numbers=4, dim=64, n_ids=10_000)
SMALL = Sizes([[3, 1], [], [2]])


def one(race: Race) -> None:
    row, sizes = ROWS[race.group], SIZES if race.full else SMALL
    with ops.plain() if race.contender == "torch" else nullcontext():
        contender = Contender(row, sizes, 0, torch.float32)
        exact = Contender(row, sizes, 0, torch.float64)
        agree(contender.results(), exact.results(), row.tolerance)

        def step() -> None:
            contender()

        amount = sum(map(len, sizes.sessions))
        race.time(step, None, unit="events", amount=amount)


GROUPS = {name: Group(one, ("ours", "torch")) for name in ROWS}
