"""Rows of other people's models for a table of ours: the JSON file that `--add` reads.

docs/rows.schema.json is its JSON schema."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fastgaum.errors import ConfigError
from fastgaum.untrusted import parse_json, read_text

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class OtherRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Figures of a model on the test events of a log, measured by others."""

    dataset: Annotated[Name, Meta(description="name of the log, as titles of tables have it")]
    model: Name
    source: Annotated[Name, Meta(description="who measured it, and how")]
    prec1: Annotated[Percent, Meta(description="prec@1 in percent, ties by their expectation")]
    prec2: Percent | None = None
    nll: (
        Annotated[float, Meta(ge=0, le=1e6, description="in nats per event, no click included")]
        | None
    ) = None
    fingerprint: (
        Annotated[str, Meta(min_length=12, description="of the log and its split (machine.json)")]
        | None
    ) = None


class OtherRows(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Rows of other people's models."""

    rows: Annotated[list[OtherRow], Meta(min_length=1)]


def rows_schema() -> dict[str, Any]:
    """The JSON schema of such a file."""
    return msgspec.json.schema(OtherRows)


def read_rows(path: Path, datasets: Collection[str]) -> list[OtherRow]:
    """The rows of the logs of a table. Raises ConfigError for a file that cannot be read or breaks
    the schema, or that has no row of these logs."""
    try:
        rows = msgspec.convert(parse_json(read_text(path)), OtherRows).rows
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--add cannot take '{path}' ({error}): write it as docs/rows.schema.json says, "
            '{"rows": [{"dataset": …, "model": …, "source": …, "prec1": …}]}'
        ) from error
    own = [row for row in rows if row.dataset in datasets]
    if not own:
        raise ConfigError(
            f"'{path}' has rows of {', '.join(sorted({row.dataset for row in rows}))}, and the "
            f"table is of {', '.join(datasets)}: name the log in `dataset` as the table does"
        )
    return own
