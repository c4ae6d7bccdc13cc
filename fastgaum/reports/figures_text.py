"""Figures as text, one form for every table."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from fastgaum.untrusted import plain

_MARKUP = re.compile(r"[\\`|*]|(?<=\])(?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""what would start code, a cell, emphasis, a link's address, a tag or an entity"""


def num(value: float | None, digits: int = 1) -> str:
    """A figure with so many digits after the point; - where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """A difference with its sign.

    >>> signed(0.04), signed(-1.25), signed(-0.04)
    ('+0.0', '-1.2', '-0.0')
    """
    return "-" if value is None or math.isnan(value) else f"{value:+.1f}"


def spread(mean: float | None, sd: float | None) -> str:
    """Mean ± standard deviation; a single seed has none to show."""
    return f"{num(mean)} ±{num(sd)}" if sd else num(mean)


def ranges(numbers: Sequence[int]) -> str:
    """Whole numbers, neighbours joined.

    >>> ranges([1, 2, 3, 7, 9, 10])
    '1..3, 7, 9..10'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in parts)


def escaped(text: str) -> str:
    r"""Text as markdown shows it letter by letter: names of logs, items and fields mark nothing up.

    >>> escaped("a|b `c` <script> [d](e)"), escaped("p < 0.05 [1, 2] search_clicks")
    ('a\\|b \\`c\\` &lt;script> [d]\\(e)', 'p < 0.05 [1, 2] search_clicks')
    """
    return _MARKUP.sub(
        lambda found: {"<": "&lt;", "&": "&amp;"}.get(found[0], "\\" + found[0]), plain(text)
    )
