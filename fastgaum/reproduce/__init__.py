"""The grid behind `fastgaum reproduce`: data sets × models × splits × seeds → floors, cells and comparisons."""

from __future__ import annotations

from fastgaum.reproduce.grid import reproduce
from fastgaum.reproduce.plan import Run, parse_resplits, plan

__all__ = ["Run", "parse_resplits", "plan", "reproduce"]
