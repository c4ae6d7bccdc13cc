"""The good files that attacks spoil, and one line on what came of all attacks."""

from __future__ import annotations

import pytest

from tests.cli.conftest import frame, log_file, saved, seeds, trained
from tests.cli.good_files import MOST_SECONDS

__all__ = ["frame", "log_file", "saved", "seeds", "trained"]

SIGNS = {
    "silent": ("DID NOT RAISE", "assert (0,"),
    "segmentation faults": ("crashed while running",),
    f"hangs over {MOST_SECONDS:g} s": ("< MOST_SECONDS",),
    "tracebacks": ("Traceback",),
}
"""words in the report of a failed attack, by what they say of it"""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the attacks by what came of them."""
    counts, attacks, other = dict.fromkeys(SIGNS, 0), 0, 0
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if "test_attack" not in report.nodeid or report.when == "teardown":
                continue
            attacks += 1
            if outcome == "failed":
                said = report.longreprtext
                kinds = [kind for kind, signs in SIGNS.items() if any(s in said for s in signs)]
                other += not kinds
                counts |= {kind: counts[kind] + 1 for kind in kinds[:1]}
    if attacks > 1:
        found = "; ".join(f"{kind} {count}" for kind, count in counts.items())
        terminalreporter.write_line(f"{attacks} attacks; {found}; other words or files {other}")
