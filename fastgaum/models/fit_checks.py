"""What fits require of a log, and items that a validation hides."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal

import polars as pl

from fastgaum.errors import ConfigError, LogFormatError, require_whole
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog
from fastgaum.logs.store import StoredLog


def require_validation(log: SessionLog | StoredLog) -> None:
    """Raise LogFormatError for a log without a validation session."""
    if log.count("sessions", "validation") == 0:
        raise LogFormatError(
            f"log '{log.name}' has no validation session to choose an epoch on, of "
            f"{log.count('sessions')} in all: split it by user"
            " (--split-by user, split='user'), which takes several users"
        )


def offers_no_click(
    log: SessionLog | StoredLog, rule: Literal["auto", "always", "never"] = "auto"
) -> bool:
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
