"""A part of a log as a log of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from fastgaum.sessions.packed import SessionLog
from fastgaum.sessions.ragged import pick_rows


def slice_sessions(log: SessionLog, rows: npt.ArrayLike) -> SessionLog:
    """Return the log of the given sessions, in the given order; items, users and categories keep their codes.

    `rows` are rows of `log`, shape (n_rows,). Raises IndexError for a row that is not in the log.
    """
    picked = np.asarray(rows)
    if len(picked) and picked.dtype.kind not in "iu":
        raise IndexError(f"rows are {picked.dtype}, session numbers are required: np.flatnonzero makes them of a mask")
    if len(picked) and (picked.min() < 0 or picked.max() >= log.n_sessions):
        raise IndexError(
            f"rows go from {picked.min()} to {picked.max()}, the log has sessions 0 to {log.n_sessions - 1}"
        )
    picked = picked.astype(np.int32)
    session_offsets, events = pick_rows(log.session_offsets, picked)
    display_offsets, candidates = pick_rows(log.display_offsets, events)
    return dataclasses.replace(
        log,
        session_offsets=session_offsets,
        display_offsets=display_offsets,
        items=log.items[candidates],
        choices=log.choices[events],
        split=log.split[picked],
        users=log.users[picked],
        session_ids=log.session_ids.gather(picked),
        event_ids=log.event_ids.gather(events),
        views=None if log.views is None else log.views[candidates],
        candidate_fields={name: values[candidates] for name, values in log.candidate_fields.items()},
    )
