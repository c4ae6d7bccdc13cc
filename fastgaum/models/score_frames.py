"""Frames of what a model scores, with the names that the log has for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from fastgaum.errors import LogFormatError, NumericsError, type_name
from fastgaum.features.sessions import EncodedSessions, select_sessions
from fastgaum.game.scoring import ScoredSessions
from fastgaum.logs.clicks import CLICKS_SO_FAR, is_successive
from fastgaum.logs.column_roles import is_list
from fastgaum.logs.columns import show
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.logs.read import RowsToPredict

OF_EVENTS = ("no_click_probability", "trained_on")
"""columns of predictions that have one value in an event"""


def candidate_frame(log: SessionLog, encoded: EncodedSessions) -> pl.DataFrame:
    """session, event, item of each encoded candidate, as the log names them, and clicks_so_far of
    successive choices."""
    part = select_sessions(log, encoded.rows)
    of_candidates = part.events[part.event_of_candidate()]
    columns: dict[str, Any] = {
        "session": log.session_ids.gather(log.session_of_event[of_candidates]),
        "event": log.event_ids.gather(of_candidates),
        "item": log.item_ids.gather(log.items[part.candidates]),
    }
    if is_successive(log.context):
        columns[CLICKS_SO_FAR] = log.values_at(CLICKS_SO_FAR, of_candidates).astype(np.int32)
    return pl.DataFrame(columns)


def beside_rows(rows: RowsToPredict, made: pl.DataFrame, split: SplitName) -> pl.DataFrame:
    """The rows of a split beside the predictions of its candidates, in the log's order; where a row
    is an event, with lists."""
    assert rows.candidate is not None
    log, frame, made = rows.log, rows.frame, made.drop("session", "event", "item")
    both = [name for name in made.columns if name in frame.columns]
    if both:
        raise LogFormatError(
            f"the table has a column '{both[0]}', as predictions have: rename or drop it"
        )
    sessions = np.zeros(log.n_sessions, np.bool_)
    sessions[log.sessions_in(split)] = True
    scored = sessions[log.session_of_event][log.event_of_candidate()]
    kept = scored[rows.candidate]
    made = made[(np.cumsum(scored) - 1)[rows.candidate[kept]]]
    if rows.row is None:
        return frame.filter(kept).hstack(made)
    lists = made.group_by(pl.Series("row", rows.row[kept]), maintain_order=True).agg(pl.all())
    alike = pl.col(*OF_EVENTS).list.first()
    return frame[lists["row"]].hstack(lists.drop("row").with_columns(alike))


def as_it_came(source: object, read: pl.DataFrame, made: pl.DataFrame) -> Any:
    """Predictions of a frame as a frame of the library that it came from, if that is pandas: its
    own rows, in their order and with their index, and the columns that are not in `read`."""
    if type_name(source) != "pandas.DataFrame" or made.height != read.height:
        return made
    frame: Any = source
    return frame.assign(
        **{
            name: values.to_list() if is_list(values.dtype) else values.to_numpy()
            for name, values in zip(made.columns, made.iter_columns(), strict=True)
            if name not in read.columns
        }
    )


def checked_scores(
    scored: ScoredSessions, log: SessionLog, encoded: EncodedSessions
) -> ScoredSessions:
    """Raise NumericsError, with a candidate's names, unless all scores are finite."""
    for name, head in scored.heads.items():
        finite = np.isfinite(head.scores)
        if not finite.all():
            candidate = int(np.argmin(finite))
            place = candidate_frame(log, encoded).row(candidate, named=True)
            raise NumericsError(
                f"event {show(place['event'])} of session {show(place['session'])}: the {name} "
                f"gives item {show(place['item'])} {head.scores[candidate]}, "
                f"{np.count_nonzero(~finite)} of {finite.size} scores are not finite: correct "
                "the event's numbers where they are far from the training log's, or train "
                "again where every event is like that (the model has diverged)"
            )
    return scored
