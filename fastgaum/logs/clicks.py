"""How a log's several clicks on one display, and clicks on items not displayed, are read."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fastgaum.errors import ConfigError

ClickRule = Literal["error", "first", "each"]
OutsideRule = Literal["error", "none", "append", "drop"]
CLICKS_SO_FAR = "clicks_so_far"
"""context field of successive choices: earlier clicks on the display"""


@dataclass(frozen=True)
class ClickFacts:
    """How a log's several clicks and clicks outside a display were read, counted over the log."""

    clicks: ClickRule = "error"
    outside: OutsideRule = "error"
    displays: int = 0
    """displays that were read, dropped ones included; 0: unknown"""
    several: int = 0
    ignored: int = 0
    """clicks after a display's first that do not count"""
    outside_displays: int = 0
    """displays with a click on an item not displayed"""
    outside_clicks: int = 0


def total_of(parts: Sequence[ClickFacts]) -> ClickFacts:
    """The facts of a log in parts that were read by one rule."""
    counts = ("displays", "several", "ignored", "outside_displays", "outside_clicks")
    totals = {name: sum(getattr(part, name) for part in parts) for name in counts}
    return replace(parts[0], **totals)


def without_order(event: str, column: str) -> str:
    """Text of the error for a display of several clicks that are not all in order."""
    return (
        f"{event} has several clicks, and one of them has no value in '{column}', the order of "
        "clicks: fill it in, or rename the column, and clicks count in the order of the rows or "
        "of the list"
    )


def is_successive(fields: Container[str]) -> bool:
    """Whether a log with these context fields has several choices of one display."""
    return CLICKS_SO_FAR in fields


def refuse_successive(fields: Container[str], what: str) -> None:
    """Raise ConfigError for a log or a model of successive choices; `what`: a subject and its
    verb."""
    if is_successive(fields):
        raise ConfigError(
            f"{what} one choice of each display, and the log was read with --clicks each, by which "
            "a display is left with fewer items after each click: read the log and train with "
            "--clicks first"
        )
