"""Which columns of a log may be fields: of its candidates, or of its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastgaum.errors import LogFormatError, did_you_mean

if TYPE_CHECKING:
    import polars as pl


def require_column(column: str, dtypes: Iterable[str], what: str, cure: str = "") -> None:
    """Raise LogFormatError unless `column` is among a log's columns; `what` says who named it,
    `cure` what else to do."""
    if column not in dtypes:
        known = list(dtypes)
        raise LogFormatError(
            f"no column '{column}' (named for {what}); the columns are "
            f"{', '.join(known)}{did_you_mean(column, known)}{cure}"
        )


def is_list(dtype: pl.DataType) -> bool:
    """Whether a column holds lists (of fixed or varying length)."""
    import polars as pl  # help, which is made of the options, reads no table

    return isinstance(dtype, pl.List | pl.Array)


def check_fields(
    of_candidates: Iterable[str],
    of_events: Iterable[str],
    choice: Iterable[str | None],
    alike: Iterable[str],
    dtypes: Mapping[str, pl.DataType],
) -> None:
    """Raise LogFormatError for a field that is no column, or says what was chosen; and for a field
    of the events that is one of the candidates too, or holds lists.

    choice: the columns of the choice; alike: those that have such a name and play no role.
    """
    for column in of_candidates:
        require_column(column, dtypes, "a candidate field")
        if column in choice:
            raise LogFormatError(
                f"column '{column}' is the choice itself, it cannot be a candidate field: leave it "
                "out"
            )
    for column in of_events:
        require_column(column, dtypes, "a context field")
        if column in choice or column in alike:
            raise LogFormatError(
                f"column '{column}' says what was chosen, it cannot be a context field: leave it "
                "out, or rename it if it means something else"
            )
        if column in of_candidates:
            raise LogFormatError(
                f"column '{column}' is named as a candidate field and as a context field, one is "
                "required: context if an event has one value, candidate if its candidates have "
                "their own"
            )
        if is_list(dtypes[column]):
            raise LogFormatError(
                f"column '{column}' holds lists, a context field has one value per event: name a "
                "plain column, or pass it as a candidate field if it has one value per candidate"
            )


def check_past(column: str, dtypes: Mapping[str, pl.DataType]) -> None:
    """Raise LogFormatError unless a column may hold the items of a user's past."""
    require_column(column, dtypes, "the past")
    if not is_list(dtypes[column]):
        raise LogFormatError(
            f"column '{column}' holds {dtypes[column]}, the past of a user is a list of items: "
            "save it as lists in parquet or arrow, or give a table of actions (--actions FILE), "
            "a row for each"
        )
