"""Puts doctests in docstrings into code fences: bare, Markdown would read `[...]` in them as
links."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

# From a prompt to the next blank line or the end: prompts, continuations and what they print.
_DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class DoctestFences(Extension):
    """Rewrites each object's docstring as it is collected."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Fence the doctests of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(
                lambda found: f"```python\n{found[0]}\n```", obj.docstring.value
            )
