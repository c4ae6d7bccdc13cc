"""Fixtures that tests of every package share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, headless, through Playwright."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="drives the browser: install fastgaum[browser]"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # chromium refuses its sandbox to root
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()
