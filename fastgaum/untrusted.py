"""Files that somebody else wrote: read within bounds, and shown without what a terminal or a page
would obey."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

MOST_TEXT = 1 << 20
"""bytes of a configuration, a manifest or a record of options; ours have a few hundred"""
_SHOWN = 2_000
"""characters of a message that are shown"""


def read_text(path: str | os.PathLike[str], most: int = MOST_TEXT) -> str:
    """Read a small UTF-8 text. Raises OSError, or ValueError if it is longer than `most` bytes or
    not UTF-8."""
    with Path(path).open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is longer than the {most} bytes that such a file may have")
    return data.decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """Read a JSON text. Raises ValueError for anything wrong with it, deep nesting included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Read a TOML text. Raises ValueError for anything wrong with it, deep nesting included."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    # A table that is then used as an array, and the like: tomllib is not strict about what it
    # raises.
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is no TOML ({type(error).__name__})") from None


def plain(text: str, keep: str = "") -> str:
    r"""Return a text with every character that is not printable spelt out, but those of `keep`.

    >>> plain("a\x1b[31mb\u202ec\n")
    'a\\x1b[31mb\\u202ec\\n'
    """
    # escape sequences, and bidirectional controls, which make a text read as another
    return "".join(one if one.isprintable() or one in keep else repr(one)[1:-1] for one in text)


def shown(text: str) -> str:
    """Return a message as one line of bounded length, safe in a terminal."""
    line = plain(" ".join(part.strip() for part in text.splitlines() if part.strip()))
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN // 2]} … {line[-_SHOWN // 2 :]}"


_MARKUP = re.compile(r"[\\`|*]|(?<=\])(?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""what would start code, a cell, emphasis, a link's address, a tag or an entity"""


def escaped(text: str) -> str:
    r"""Text as markdown shows it letter by letter.

    >>> escaped("a|b `c` <script> [d](e)"), escaped("p < 0.05 [1, 2] search_clicks")
    ('a\\|b \\`c\\` &lt;script> [d]\\(e)', 'p < 0.05 [1, 2] search_clicks')
    """
    return _MARKUP.sub(
        lambda found: {"<": "&lt;", "&": "&amp;"}.get(found[0], "\\" + found[0]), plain(text)
    )
