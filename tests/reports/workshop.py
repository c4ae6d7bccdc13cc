"""Two runs on one log with clicks, no clicks and hostile names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgaum.logs.log import SessionLog

SCRIPT = "<script>document.title='owned'</script>"
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "</style></title>&amp;",
    "$\\frac{1}{",
    "a" * 90,
    "{{ 7 * 7 }}",
)
"""names that would break a page, a stylesheet, a formula, a layout or a template"""
QUICK: Mapping[str, Any] = {
    "epochs": 2,
    "warm_start": 3,
    "catch_up": 2,
    "batch_sessions": 128,
    "search": [],
    "folds": 0,
    "device": "cpu",
}


@dataclass(frozen=True)
class Workshop:
    """A log and two runs on it."""

    log: SessionLog
    runs: tuple[Path, Path]
    facts: dict[str, Any]
    """of the first run alone"""


def hostile(log: SessionLog) -> SessionLog:
    """The same log under names that nobody wishes for."""
    items, sessions = log.item_ids.to_list(), log.session_ids.to_list()
    items[: len(HOSTILE)] = HOSTILE
    sessions = [f"{SCRIPT}{i}" for i in range(len(sessions))]
    renamed = {"item_ids": type(log.item_ids)(items), "session_ids": type(log.item_ids)(sessions)}
    return dataclasses.replace(log, name="<b>log</b>", **renamed)
