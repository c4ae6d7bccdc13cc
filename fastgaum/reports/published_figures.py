"""Other people's figures: those of `data/published`, and the rows of a file that `--add` reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec
import polars as pl
from msgspec import Meta

from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.errors import ConfigError
from fastgaum.reports.table import Json
from fastgaum.untrusted import parse_json, read_text

FOLDER = Path(__file__).parents[1] / "data" / "published"
NOT_RELEASED = ("ant-financial",)
"""data sets of the published table without a released file"""
PRESET_ROWS = {
    ("paper-lstm", "reward"): "GAN-LSTM",
    ("paper-pw", "reward"): "GAN-PW",
}
"""the published row of a preset's head"""


@cache
def _published(file: str = "published.csv") -> list[Json]:
    types = {"k": pl.String, "mean": pl.Float64, "sd": pl.Float64, "nll": pl.Float64}
    return pl.read_csv(FOLDER / file, schema_overrides=types).to_dicts()


def published_row(model: str, head: str) -> str | None:
    """The row of the published table that a model's head repeats."""
    if model in BASELINES:
        return baseline_class(model).published_name
    return PRESET_ROWS.get((model, head))


def published_mean(dataset: str, row: str | None, k: int) -> float | None:
    """The published prec@k, percent, of a row of the published table; None if it has none."""
    wanted = (dataset, row, str(k))
    found = (r["mean"] for r in _published() if (r["dataset"], r["model"], r["k"]) == wanted)
    return next(found, None)


def published_table() -> Json:
    """The paper's whole table: {not_released, rows: {model: {dataset: {"1": {mean, sd}, "2":
    …}}}}, in its order."""
    rows: Json = {}
    for row in (row for row in _published() if row["nll"] is None):
        by_k = rows.setdefault(row["model"], {}).setdefault(row["dataset"], {})
        by_k[row["k"]] = {"mean": row["mean"], "sd": row["sd"]}
    return {"not_released": list(NOT_RELEASED), "rows": rows}


def best_published(dataset: str) -> Json:
    """The best published model by k: {"1": {model, mean, sd}}; empty if there are no published
    figures."""
    own = [row for row in reversed(_published()) if row["dataset"] == dataset]
    own.sort(key=lambda row: (row["k"], row["mean"]))
    return {row["k"]: {name: row[name] for name in ("model", "mean", "sd")} for row in own}


def published_models(dataset: str) -> list[Json]:
    """Choice models that others fitted to a log: model, mean (prec@1, percent), nll in nats, and
    source."""
    kept = ("model", "mean", "nll", "source")
    found = (row for row in _published() if row["dataset"] == dataset and row["nll"] is not None)
    return [{name: row[name] for name in kept} for row in found]


def authors_code(dataset: str) -> Json:
    """Figures of the paper authors' own code on the released file, run by us: {model: {"1": prec@1,
    "2": prec@2}}."""
    rows: Json = {}
    for row in _published("authors_code.csv"):
        if row["dataset"] == dataset:
            rows.setdefault(row["model"], {})[row["k"]] = row["mean"]
    return rows


def facts_of_others(dataset: str) -> Json:
    """All that others measured on a log of this name, for its facts."""
    return {
        "published_best": best_published(dataset),
        "published_models": published_models(dataset),
        "authors_code": authors_code(dataset),
    }


def rows_of_others(facts: Json) -> Iterator[Json]:
    """Rows of a table of a log that are no run's: each has label, kind (floor or published), prec
    ({mean, sd, ci} by k) and nll ({mean} or None)."""
    best, models = facts.get("published_best") or {}, facts.get("published_models") or []

    def row(label: str, kind: str, prec: Json, nll: float | None = None, **sd: float) -> Json:
        by_k = {k: {"mean": prec.get(k), "sd": sd.get(k), "ci": None} for k in ("1", "2")}
        return {
            "label": label,
            "kind": kind,
            "prec": by_k,
            "nll": None if nll is None else {"mean": nll},
        }

    for floor, by_k in facts["floors"].items():
        yield row(f"floor: {floor.replace('_', ' ')}", "floor", by_k)
    for one in models:
        yield row(f"published: {one['model']}", "published", {"1": one["mean"]}, one["nll"])
    if best and not models:
        names = " / ".join(dict.fromkeys(one["model"] for one in best.values()))
        means, sds = ({k: one[name] for k, one in best.items()} for name in ("mean", "sd"))
        yield row(f"best published: {names}", "published", means, **sds)
    for model, by_k in (facts.get("authors_code") or {}).items():
        yield row(f"authors' code: {model}", "published", by_k)
    for one in facts.get("others", ()):
        precs = {"1": one["prec1"], "2": one["prec2"]}
        yield row(f"others: {one['model']}", "published", precs, one["nll"])


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
