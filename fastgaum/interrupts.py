"""Ctrl-C and SIGTERM: they end a command at once, or after the present batch where its work can be
saved first.

Only the command line installs handlers, and puts the former ones back. In a program of one's own,
Ctrl-C is Python's own KeyboardInterrupt, which leaves whatever was last saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DOUBLED_SECONDS = 0.2
"""a second signal within so many seconds is the first one: timeout(1) sends it to the process and
again to its group"""
_WAITING = b"fastgaum: stops after this batch, saved; a second signal stops at once\n"


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work.

    Attributes:
        signum: the signal.
        cure: how to go on, for the user; empty where nothing was kept.
    """

    def __init__(self, signum: int, cure: str = "") -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.cure = signum, cure

    @property
    def exit_code(self) -> int:
        """What shells expect: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum


class Stop:
    """Whether a signal has asked the work to end. Without `stop_on_signals` none ever does.

    A signal raises Interrupted where it hits, but within `deferred` the first one is only noted:
    the work looks at `asked` where it can be saved, saves it, and calls `check`."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._is_deferred = False
        self._noted_at = 0.0

    @property
    def asked(self) -> bool:
        """Whether a signal has been noted."""
        return self.signum is not None

    def check(self) -> None:
        """Raise Interrupted if a signal has been noted."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first signal within instead of raising; one that was not looked at is raised at
        the end."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self._is_deferred and self.signum is None:
            self.signum, self._noted_at = signum, now
            # a handler may run within a print to stderr, whose buffer must not be entered twice
            os.write(2, _WAITING)
        elif signum != self.signum or now - self._noted_at > DOUBLED_SECONDS:
            raise Interrupted(signum)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM within, by the Stop that is yielded; afterwards the former handlers
    are back.

    Outside the main thread, where Python allows no handlers, no signal is handled. An ignored
    signal stays ignored."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handled = {
        signum: handler
        for signum, handler in former.items()
        if handler not in (None, signal.SIG_IGN)
    }
    for signum in handled:
        signal.signal(signum, stop.handle)
    try:
        yield stop
    finally:
        for signum, handler in handled.items():
            signal.signal(signum, handler)
