"""`fastgaum what-if`: shares after a change, elasticities and willingness to pay."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from fastgaum.cli.options import DataDir, Device, JsonFile, Repeated, RunPath, ScoredSplit
from fastgaum.cli.output import check_outputs, note, show_block, write_json
from fastgaum.cli.progress import Bar
from fastgaum.cli.reading import Log, log_of_run
from fastgaum.errors import ConfigError
from fastgaum.reports.table import TableColumn, finite, table_of

if TYPE_CHECKING:
    from polars import DataFrame


def what_if_command(
    run: RunPath,
    source: Log,
    /,
    *,
    scale: Repeated = (),
    items: str | None = None,
    drop: Repeated = (),
    elasticity: Repeated = (),
    worth: Repeated = (),
    split: ScoredSplit = "test",
    json: JsonFile = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Ask a trained model about displays that were never shown: shares after a change,
    elasticities, willingness to pay.

    Each display changes on its own. The history before it stays as it was logged.

    Args:
        scale: multiply the numbers of a field: cost=.9 (repeatable)
        items: change these items only, separated by commas: a,b
        drop: remove an item from all displays (repeatable)
        elasticity: print own and cross elasticities by a field (repeatable)
        worth: print what a unit of a field is worth in units of a price: time=cost (repeatable)
    """
    check_outputs(json)
    scales = {name: _number(name, text) for name, text in map(_pair, scale)}
    if len(scales) < len(scale):
        raise ConfigError(f"--scale names each field once, got {', '.join(scale)}")
    pairs = [_pair(text) for text in worth]
    if not (scales or drop or elasticity or pairs):
        raise ConfigError("nothing is asked: give --scale, --drop, --elasticity or --worth")
    import numpy as np
    import polars as pl

    from fastgaum.baselines.registry import load_model
    from fastgaum.models.user_model import members_of
    from fastgaum.reports.changed_displays import expected_columns
    from fastgaum.reports.what_if import (
        elasticities,
        is_own_logit,
        what_if,
        willingness_to_pay,
    )

    model = load_model(run, device=device)
    log = log_of_run(run, source, data_dir, split)
    refits = members_of(model)
    named = items.split(",") if items else []
    found: dict[str, DataFrame] = {}
    own = warnings.catch_warnings(record=True, action="always", category=UserWarning)
    with Bar("scoring") as progress, own as doubts:
        asked: dict[str, Any] = {"items": named, "progress": progress}
        if scales or drop:
            fields = {name: partial(np.multiply, by) for name, by in scales.items()}
            asks = partial(what_if, model, log, split, fields=fields, drop=drop, **asked)
            found["shares"] = asks()
            if expected_columns(model):
                found["outcomes"] = asks(outcomes=True)
        for name in elasticity:
            found[f"elasticity {name}"] = elasticities(model, log, name, split, **asked)
        for name, price in pairs:
            frame = willingness_to_pay(model, log, name, price, split, **asked)
            found[f"worth {name}={price}"] = frame
    for one in doubts:
        note(str(one.message))
    if json is not None:
        facts: dict[str, object] = {"run": str(run), "split": split, "refits": len(refits)}
        facts["log"] = {"name": log.name, "fingerprint": log.fingerprint}
        facts |= {"scale": scales, "items": named, "drop": drop}
        write_json(json, facts | {name: frame.to_dicts() for name, frame in found.items()})
    ends = "95 % intervals, bootstrap over users of the split"
    ends += (
        f", and {len(refits)} fits on folds of users"
        if refits
        else "; how far other training users would move the model is not in them"
    )
    if refits:
        ends_of_worth = ends
    elif is_own_logit(model, log):
        ends_of_worth = (
            "figures of the fit without penalty, 95 % intervals by the delta method from its "
            "covariance, clustered by training user"
        )
    else:
        ends_of_worth = (
            "no intervals: nothing says how sure these figures are (train with folds=5, or use "
            "logit)"
        )
    if "shares" in found:
        # items that were asked about come first
        first = pl.col("item").is_in([*named, *drop])
        relative = pl.col("difference") / pl.col("before")
        shares = found["shares"].with_columns(relative=relative.fill_nan(None))
        found["shares"] = shares.sort(first, descending=True, maintain_order=True)
    for name, frame in found.items():
        rows = [
            row
            | {
                f"{key}_ci": finite([row[f"{key}_low"], row[f"{key}_high"]])
                for key in row.keys() & FIGURES
            }
            | {"item": row.get("item") or ("all" if name.startswith("worth") else "no click")}
            for row in frame.iter_rows(named=True)
        ]
        known = OUTCOME_COLUMNS if name == "outcomes" else COLUMNS
        columns = [one for one in known if one.key in frame.columns]
        notes = [ends_of_worth if name.startswith("worth") else ends]
        show_block(table_of(f"{log.name}, {split} split: {name}", columns, rows, notes))


ENDS: dict[str, Any] = {"ends": "brackets", "no_ends": " (-)"}
COLUMNS = (
    TableColumn("field of", "changed"),
    TableColumn("item", "item"),
    TableColumn("before, %", "before", 2, 100, **ENDS),
    TableColumn("after, %", "after", 2, 100, **ENDS),
    TableColumn("difference, points", "difference", 2, 100, signed=True, **ENDS),
    TableColumn("of its share, %", "relative", 1, 100, signed=True, none="-"),
    TableColumn("elasticity", "elasticity", 3, signed=True, **ENDS),
    TableColumn("worth", "worth", 3, **ENDS, none="-"),
    TableColumn("marginal utility of the field", "by_field", 4, **ENDS, none="-"),
    TableColumn("of the price", "by_price", 4, **ENDS, none="-"),
)
OUTCOME_COLUMNS = (
    TableColumn("outcome, each display", "outcome"),
    TableColumn("before", "before", 3, **ENDS),
    TableColumn("after", "after", 3, **ENDS),
    TableColumn("difference", "difference", 3, signed=True, **ENDS),
)
FIGURES = {column.key for column in COLUMNS if column.ends == "brackets"}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"'{text}' is not FIELD=VALUE: write cost=.9, or time=cost for --worth")
    return name, value


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--scale {name}={text}: a number is required, as {name}=.9") from None
