"""Ctrl-C and SIGTERM end a command at once; a training goes on from what it saved last. Only the
command line installs handlers."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DOUBLED_SECONDS = 0.2
"""timeout(1) sends a signal to the process and again to its group"""


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work.

    Attributes:
        signum: the signal.
        cure: what was kept and how to go on; empty where nothing was.
    """

    def __init__(self, signum: int, cure: str = "") -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.cure = signum, cure

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Interrupted within on SIGINT and SIGTERM, unless these are ignored; then put the
    former handlers back. Only the main thread handles signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised_at = -DOUBLED_SECONDS

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal raised_at
        before, raised_at = raised_at, time.monotonic()
        if raised_at - before > DOUBLED_SECONDS:
            raise Interrupted(signum)

    former = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handled = {
        signum: handler
        for signum, handler in former.items()
        if handler not in (None, signal.SIG_IGN)
    }
    for signum in handled:
        signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in handled.items():
            signal.signal(signum, handler)
