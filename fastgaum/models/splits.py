"""Splits of a log: what fits require of them, and their rows as the log names them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, NumericsError, require_whole
from fastgaum.features.sessions import EncodedSessions, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.game.scoring import ScoredSessions
from fastgaum.logs.clicks import CLICKS_SO_FAR, is_successive
from fastgaum.logs.columns import show
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.logs.read import RowsToPredict

OF_EVENTS = ("no_click_probability", "trained_on")
"""columns of predictions that have one value in an event"""


def require_validation(log: SessionLog) -> None:
    """Raise LogFormatError for a log without a validation session."""
    if log.count("sessions", "validation") == 0:
        raise LogFormatError(
            f"log '{log.name}' has no validation session to choose an epoch on, of "
            f"{log.count('sessions')} in all: split it by user"
            " (--split-by user, split='user'), which takes several users"
        )


def offers_no_click(log: SessionLog, rule: Literal["auto", "always", "never"] = "auto") -> bool:
    """Whether no click is a choice on this log: auto = when the log holds one.

    Raises:
        LogFormatError: the rule is never and the log has an event without a choice.
    """
    if rule == "never" and log.has_no_click:
        raise LogFormatError(
            f"log '{log.name}' has events without a choice: no_click = never does not fit, use auto"
        )
    return rule == "always" or (rule == "auto" and log.has_no_click)


def with_hidden_items(
    log: SessionLog, space: FeatureSpace, share: float, seed: int = 0
) -> tuple[SessionLog, int]:
    """The log with a share of the training items, from 0 to below 1, under ids that training never
    saw, and how many these are. Fields, vectors and places stay. Each item is drawn by a hash of
    the seed and its id. Raises ConfigError for another share or seed."""
    require_whole("seed", seed)
    if isinstance(share, bool) or not (isinstance(share, int | float) and 0 <= share < 1):
        raise ConfigError(f"hide_items is {share!r}, a share from 0 to below 1 is required: try .1")
    known = space.categorical[0].values

    def is_drawn(item: str) -> bool:
        digest = hashlib.blake2b(f"{seed}:{item}".encode(), digest_size=6).digest()
        return int.from_bytes(digest) < share * 2**48

    hidden = log.item_ids.filter(log.item_ids.is_in(list(filter(is_drawn, known))))
    mark = "hidden "
    while log.item_ids.str.starts_with(mark).any() or known.str.starts_with(mark).any():
        mark = f"_{mark}"

    def renamed(texts: pl.Series) -> pl.Series:
        return texts.replace(hidden, mark + hidden)

    columns = dict(log.columns)
    for name in space.fields_of_items:
        columns[name] = replace(columns[name], texts=renamed(columns[name].categories))
    return replace(log, item_ids=renamed(log.item_ids), columns=columns), len(hidden)


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
