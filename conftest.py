"""What imports an extra that is not installed is not collected: doctests are looked for in every
module."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["fastgaum/engine/card_*.py"]
