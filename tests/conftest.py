"""Fixtures that tests of every package share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# small tensors gain nothing from threads, and lose a hundredfold when other processes hold the
# cores
torch.set_num_threads(1)
# a first call compiles, and other processes hold the cores: time says nothing about an example
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# a shell gives what it starts in the background a SIGINT that is ignored, which Python and the
# product leave so
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A test file that cannot be imported is an error. Pytest would skip it without a word for
    `--doctest-ignore-import-errors`, which is meant for modules of the package without their extra."""
    report = yield
    if report.outcome == "skipped" and "unable to import module" in str(report.longrepr):
        report.outcome = "failed"
    return report


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a real log by its name in the data folder; skips the test, reason printed, where it
    is absent."""

    def path_of(name: str) -> Path:
        folder = Path(os.environ.get("FASTGAUM_DATA_DIR") or SHARED)
        if not (folder / name).exists():
            pytest.skip(
                f"real log {name} is not in {folder} (set FASTGAUM_DATA_DIR to the folder that "
                "holds it)"
            )
        return folder / name

    return path_of
