"""A log for the tests of several files."""

from __future__ import annotations

import pytest

from fastgaum.logs.log import SessionLog
from tests.builders import random_log


@pytest.fixture(scope="session")
def log() -> SessionLog:
    """A log of chance, on which runs are interrupted."""
    return random_log(4, n_sessions=80, no_click=0.2)
