"""How a command line wants to be spoken to: --quiet, --debug, and `--json -`.

With --quiet only errors and what was asked for are printed; with `--json -` stdout has the JSON
object and nothing else. Apart from `console`, so that the help need not wait for what prints
tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

EVERYWHERE = {
    "--quiet": "errors and what was asked for: no progress, no notes",
    "--debug": "the traceback of an error",
}
"""options that stand anywhere on the command line"""
FOR_MACHINES = ("--json", "--markdown", "--csv")
"""options whose file may be stdout"""


@dataclass
class Manners:
    """How a command line wants to be spoken to."""

    quiet: bool = False
    """neither progress nor notes nor closing lines"""
    text: bool = True
    """results as text on stdout; off where it has the JSON object"""
    debug: bool = False
    """the traceback of an error"""


MANNERS = Manners()


@contextmanager
def manners(asked: Manners) -> Iterator[None]:
    """Set the manners of one command line; tests run several in a process."""
    before = replace(MANNERS)
    MANNERS.__dict__.update(asked.__dict__)
    try:
        yield
    finally:
        MANNERS.__dict__.update(before.__dict__)


def without_manners(tokens: Sequence[str]) -> tuple[list[str], Manners]:
    """A command line without the options that every command has, and what they ask for.

    >>> without_manners(["data", "list", "--quiet", "--json", "-"])
    (['data', 'list', '--json=-'], Manners(quiet=True, text=False, debug=False))
    """
    rest: list[str] = []
    for token in tokens:
        if token == "-" and rest and rest[-1] in FOR_MACHINES:
            # the parser takes a lone hyphen for no value
            rest[-1] += "=-"
        elif token not in EVERYWHERE:
            rest.append(token)
    to_stdout = any(token in rest for token in (f"{option}=-" for option in FOR_MACHINES))
    return rest, Manners("--quiet" in tokens, not to_stdout, "--debug" in tokens)
