"""Signals end the work at once, or where it can be saved; a second one always at once; handlers are
put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fastgaum import interrupts
from fastgaum.interrupts import Interrupted, Stop, stop_on_signals

BOTH = pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@BOTH
def test_at_once_outside_deferred_work(signum: int, code: int) -> None:
    former = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, stop_on_signals():
        os.kill(os.getpid(), signum)
    assert caught.value.exit_code == code
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(signum) is former


@BOTH
def test_noted_within_deferred_work_and_raised_where_it_looks(
    signum: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = []

    def work() -> None:
        with stop_on_signals() as stop, stop.deferred():
            for batch in range(5):
                if batch == 2:
                    os.kill(os.getpid(), signum)
                batches.append((batch, stop.asked))
                stop.check()

    with pytest.raises(Interrupted) as caught:
        work()
    assert batches == [(0, False), (1, False), (2, True)]
    assert caught.value.exit_code == code
    assert "a second signal stops at once" in capfd.readouterr().err


def test_a_signal_that_nobody_looked_at_is_raised_at_the_end() -> None:
    done = []

    def work() -> None:
        with stop_on_signals() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    with pytest.raises(Interrupted):
        work()
    assert done


def test_a_second_signal_stops_at_once_but_one_sent_twice_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after: list[str] = []

    def work() -> None:
        with stop_on_signals() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            after.append("the same signal, sent to the process and to its group")
            monkeypatch.setattr(interrupts, "DOUBLED_SECONDS", -1.0)
            os.kill(os.getpid(), signal.SIGTERM)
            after.append("unreached")

    with pytest.raises(Interrupted) as caught:
        work()
    assert len(after) == 1
    assert caught.value.exit_code == 143


def test_another_signal_is_a_second_one() -> None:
    def work() -> None:
        with stop_on_signals() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.exit_code == 130


def test_ignored_signals_stay_ignored_and_other_threads_handle_none() -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGTERM, former)
    seen: list[Stop] = []

    def elsewhere() -> None:
        with stop_on_signals() as stop, stop.deferred():
            seen.append(stop)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [stop.asked for stop in seen] == [False]
