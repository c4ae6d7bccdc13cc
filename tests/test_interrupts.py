"""Signals end the work where they hit, one sent twice counts once, and handlers are put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fastgaum import interrupts
from fastgaum.interrupts import Interrupted, stop_on_signals

BOTH = pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@BOTH
def test_a_signal_ends_the_work_at_once(signum: int, code: int) -> None:
    former = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, stop_on_signals():
        os.kill(os.getpid(), signum)
    assert caught.value.exit_code == code
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(signum) is former


def test_a_second_signal_ends_what_the_first_left_but_one_sent_twice_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after: list[str] = []

    def work() -> None:
        with stop_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                after.append("the same signal, sent to the process and to its group")
                monkeypatch.setattr(interrupts, "DOUBLED_SECONDS", -1.0)
                os.kill(os.getpid(), signal.SIGINT)
                after.append("unreached")

    monkeypatch.setattr(interrupts, "DOUBLED_SECONDS", 60.0)
    with pytest.raises(Interrupted) as caught:
        work()
    assert len(after) == 1
    assert caught.value.exit_code == 130


def test_ignored_signals_stay_ignored_and_other_threads_handle_none() -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
    seen: list[object] = []

    def elsewhere() -> None:
        with stop_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [former]
