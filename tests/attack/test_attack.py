"""Every attack of the table, in this process."""

from __future__ import annotations

import pytest

from tests.attack.attacks import (
    HANG,
    RIGHT,
    SILENT,
    TRACEBACK,
    WRONG,
    IsTrue,
    Refused,
    RefusedCall,
    judge,
)
from tests.attack.table import TABLES
from tests.cli.bad_input import Seeds

ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]


@pytest.mark.parametrize(("table", "name"), ROWS, ids=[name for _, name in ROWS])
def test_attack(table: str, name: str, seeds: Seeds) -> None:
    verdict, seen = judge(TABLES[table][name], seeds)
    # how long it takes on a machine that does other things is for `make attack` to say
    assert verdict in (RIGHT, HANG), seen


@pytest.mark.parametrize(
    ("attack", "verdict"),
    [
        (Refused("data audit {log}", "no such words"), SILENT),
        (Refused("data audit none.csv", "no such words"), WRONG),
        (RefusedCall(lambda: 1 / 0, "division"), TRACEBACK),
        (RefusedCall(lambda: None, "none"), SILENT),
        (IsTrue(lambda _: 1 == 2), SILENT),
    ],
)
def test_what_goes_wrong_is_seen(attack: Refused, verdict: str, seeds: Seeds) -> None:
    assert judge(attack, seeds)[0] == verdict
