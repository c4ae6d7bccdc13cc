"""From a packed log back to rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.logs.vocabulary import Vocabulary


def to_frame(log: SessionLog) -> pl.DataFrame:
    """Return the log in the long layout, one row per candidate; `read_log` reads it back into the
    same log.

    Columns: session, event (0, 1, … within the session), event_label (only if it tells a session's
    events apart), item, chosen (0/1), user (its code), split (its name), views (if logged), and the
    candidate fields under their names. In the long layout an event without a click is one whose
    rows all have chosen = 0."""
    event_of_candidate = log.event_of_candidate()
    session_of_event = log.session_of_event
    session_of_candidate = session_of_event[event_of_candidate]
    starts = log.session_offsets[:-1][session_of_event]
    positions = np.arange(log.n_events, dtype=np.int32) - starts
    chosen = np.zeros(log.n_candidates, dtype=np.int8)
    clicked = log.choices >= 0
    chosen[log.display_offsets[:-1][clicked] + log.choices[clicked]] = 1
    columns: dict[str, Any] = {
        "session": log.session_ids.gather(session_of_candidate),
        "event": positions[event_of_candidate],
        "item": log.item_ids.gather(log.items),
        "chosen": chosen,
        "user": log.users[session_of_candidate],
        "split": pl.Series(SPLITS).gather(log.split[session_of_candidate]),
    }
    labelled = pl.DataFrame([pl.Series("session", session_of_event), log.event_ids.alias("label")])
    if log.n_events == labelled.n_unique():
        columns["event_label"] = log.event_ids.gather(event_of_candidate)
    if log.views is not None:
        columns["views"] = log.views
    for name, values in log.candidate_fields.items():
        columns[name] = _decoded(values, log.categories.get(name))
    return pl.DataFrame(columns)


def _decoded(values: npt.NDArray[Any], categories: pl.Series | None) -> pl.Series:
    """Field values as they were read: numbers, or the text of each code (null for -1)."""
    if categories is None:
        return pl.Series(values)
    return Vocabulary(categories).decode(values)
