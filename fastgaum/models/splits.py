"""Splits of a log as models take them: required, encoded and worked on chunk by chunk, and named as
the log names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import call
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.features.sessions import EncodedSessions, chunks
from fastgaum.game.scoring import SCORING_SESSIONS
from fastgaum.logs.clicks import CLICKS_SO_FAR, is_successive
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import IntArray, SessionLog, SplitName
from fastgaum.logs.shards import AnyLog
from fastgaum.threads import one_thread_each

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""called with events done and events in all, now and then"""


class SessionEncoder(Protocol):
    """What makes a model's input of a log's sessions."""

    def on(self, part: SessionLog) -> SessionEncoder:
        """The encoder of a part of the log."""

    def encode(self, rows: IntArray) -> EncodedSessions:
        """The sessions `rows` as bags."""


def worked_parts(
    encoder: SessionEncoder,
    log: AnyLog,
    split: SplitName,
    work: Callable[[SessionLog, EncodedSessions], T],
    progress: Progress | None,
    on_threads: bool,
) -> Iterator[T]:
    """What `work` makes of each chunk, in their order, and of the log that a chunk's rows are of;
    users are numbered over all parts of the log.

    Chunks are cut where batches are: every batch is the one it would be in the whole, or in the
    whole shard.

    Args:
        encoder: that of the log.
        log: the log, of which `split` is worked on.
        progress: is told after each chunk.
        on_threads: encode and work on several chunks at once, each on a thread of its own.
    """
    n_events = 0 if progress is None else log.count("events", split)

    def parts() -> Iterator[Callable[[], tuple[int, T]]]:
        n_users = 0
        for part in log.parts():
            of_part, rows = encoder.on(part), part.sessions_in(split)
            for chunk in chunks(part, rows, SCORING_SESSIONS) if len(rows) else ():
                yield partial(worked_on, part, of_part, chunk, np.int32(n_users))
            n_users += int(part.users.max(initial=-1)) + 1

    def worked_on(
        part: SessionLog, of_part: SessionEncoder, chunk: IntArray, n_users: np.int32
    ) -> tuple[int, T]:
        encoded = of_part.encode(chunk)
        return encoded.n_events, work(part, replace(encoded, users=encoded.users + n_users))

    done = 0
    for n, result in (one_thread_each if on_threads else map)(call, parts()):
        done += n
        if progress is not None:
            progress(done, n_events)
        yield result


def require_validation(log: AnyLog) -> None:
    """Raise LogFormatError unless the log has a session to choose an epoch or a setting on."""
    if log.count("sessions", "validation") == 0:
        raise LogFormatError(
            f"log '{log.name}' has no validation session to choose an epoch on, of "
            f"{log.count('sessions')} in all: split it by user"
            " (--split-by user, split='user'), which takes several users"
        )


def offers_no_click(log: AnyLog, rule: Literal["auto", "always", "never"] = "auto") -> bool:
    """Whether no click is a choice on this log: auto = when the log holds one.

    Raises:
        LogFormatError: the rule is never and the log has an event without a choice.
    """
    if rule == "never" and log.has_no_click:
        raise LogFormatError(
            f"log '{log.name}' has events without a choice: no_click = never does not fit, use auto"
        )
    return rule == "always" or (rule == "auto" and log.has_no_click)


def candidate_frame(log: SessionLog, encoded: EncodedSessions) -> pl.DataFrame:
    """session, event, item of each encoded candidate, as the log names them, and of successive
    choices clicks_so_far, which tells the events of one display apart."""
    _, events = pick_rows(log.session_offsets, encoded.rows)
    _, candidates = pick_rows(log.display_offsets, events)
    size = np.diff(encoded.display_offsets)
    sessions = np.repeat(encoded.rows, np.diff(encoded.display_offsets[encoded.session_offsets]))
    columns: dict[str, Any] = {
        "session": log.session_ids.gather(sessions),
        "event": log.event_ids.gather(np.repeat(events, size)),
        "item": log.item_ids.gather(np.asarray(log.items)[candidates]),
    }
    if is_successive(log.event_fields):
        so_far = np.asarray(log.event_fields[CLICKS_SO_FAR])[events]
        columns[CLICKS_SO_FAR] = np.repeat(so_far.astype(np.int32), size)
    return pl.DataFrame(columns)
