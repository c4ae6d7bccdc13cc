"""NLL on validation against the number of training sessions: `python
bench/experiments/learning_curve.py [yelp clara2 lpmc] --json docs/tables/learning-curve.json`.

A seed draws an order of the training users, of whom a part is the first 1/16, 1/4 or all. Sessions
of the others count as test sessions, and no test session is read. Every fit is written as it ends;
a later call with the same file fits what is not there yet."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.baselines.registry import make_model
from fastgaum.bench.report import write_object
from fastgaum.logs.log import TEST, SessionLog
from fastgaum.logs.read import load
from fastgaum.machine import machine_facts
from fastgaum.reports.plots import colour, panels_in_file
from fastgaum.reports.table import Json, rows_to_markdown, spread

LOGS = ("yelp", "clara2", "lpmc")
MODELS = {"fastgaum": "reward", "logit": "floor", "wd-ccf": "published", "xgboost": "generator"}
"""the models, and the role whose colour their lines have"""
PARTS = (16, 4, 1)
"""one in so many training users"""
FIT = ("log", "model", "part", "seed")


def part_of(log: SessionLog, part: int, seed: int) -> SessionLog:
    """The log with one in `part` of its training users, others being test users; parts of a seed
    are nested."""
    train = log.split == 0
    users = np.random.default_rng(seed).permutation(np.unique(log.users[train]))
    kept = np.isin(log.users, users[: -(-len(users) // part)])
    return log.with_split(np.where(train & ~kept, TEST, log.split).astype(np.int8))


def fit_parts(
    logs: Mapping[str, SessionLog], models: Sequence[str], seeds: int, path: Path | None = None
) -> Json:
    """Fit what the object at `path` lacks, one seed after the other. A fit that fails is named in
    `failed`, and the others go on."""
    rows = json.loads(path.read_text("utf-8"))["rows"] if path and path.is_file() else []
    facts: Json = {"machine": machine_facts(), "rows": rows, "failed": []}
    fits = [(n, m, p, s) for s in range(seeds) for n in logs for p in PARTS for m in models]
    for number, fit in enumerate(fits, 1):
        if any(fit == tuple(row[key] for key in FIT) for row in rows):
            continue
        name, model, part, seed = fit
        log, row = part_of(logs[name], part, seed), dict(zip(FIT, fit, strict=True))
        what = f"{name}, {model}, 1/{part} of the users, seed {seed}"
        print(f"[{number}/{len(fits)}] {what}", end=": ", flush=True)
        started = time.perf_counter()
        try:
            # as in a comparison: the default of baselines is the identity alone
            fitted = make_model(model, {"seed": seed, "protocol": "bags"})
            fitted.fit(log)
            nll = fitted.evaluate(log, "validation").heads["reward"].nll.mean
        except Exception as error:
            facts["failed"].append(row | {"reason": f"{type(error).__name__}: {error}"})
            print(f"failed, {error}", flush=True)
        else:
            seconds, sessions = time.perf_counter() - started, log.count("sessions", "train")
            rows.append(row | {"sessions": sessions, "nll": nll, "seconds": seconds})
            print(f"NLL {nll:.4f}, {seconds:.0f} s", flush=True)
        write_object(path, facts)
    return facts


def curves(result: Json) -> pl.DataFrame:
    """A row per log, part and model: sessions, mean NLL over seeds, its sd, and how many seeds."""
    nll = pl.col("nll")
    keys, figures = FIT[:3], (pl.col("sessions").mean(), nll.mean(), nll.std().alias("sd"))
    found = pl.DataFrame(result["rows"]).group_by(keys, maintain_order=True)
    return found.agg(*figures, nll.len().alias("seeds")).sort("sessions", maintain_order=True)


def curves_to_markdown(result: Json) -> str:
    """The figure, and NLL by log and part, a column per model."""
    found = curves(result)
    models = [model for model in MODELS if model in found["model"]]
    lines = [("log", "training sessions", *(f"`{model}`" for model in models))]
    for name in dict.fromkeys(row["log"] for row in result["rows"]):
        for _, rows in found.filter(log=name).group_by("part", maintain_order=True):
            cells = {row["model"]: spread(row["nll"], row["sd"], 3) for row in rows.to_dicts()}
            sessions = f"{rows['sessions'].to_numpy().mean():,.0f}"
            lines.append((name, sessions, *(cells.get(model, "-") for model in models)))
    figure = "![NLL on validation by number of training sessions](../learning-curve.svg)"
    n = max(found["seeds"].to_list())
    spreads = f"± standard deviation over {n} seeds" if n > 1 else "one seed"
    note = f"- NLL on the validation split; {spreads}; a seed also draws the users"
    return f"{figure}\n\n{rows_to_markdown(lines)}\n\n{note}"


def draw_curves(result: Json, path: Path) -> None:
    """Draw NLL against training sessions, a panel per log. Raises OutputError for another ending
    than .svg or .png, ConfigError without matplotlib."""
    found = curves(result)
    logs = list(dict.fromkeys(row["log"] for row in result["rows"]))
    with panels_in_file(path, (2.7 * len(logs), 2.9), len(logs), font=8) as panels:
        for panel, name in zip(panels, logs, strict=True):
            for model, role in MODELS.items():
                rows = found.filter(log=name, model=model).to_dict(as_series=False)
                hue = colour(role)
                if rows["nll"]:
                    bars = [sd or 0.0 for sd in rows["sd"]]
                    line = panel.errorbar(
                        rows["sessions"], rows["nll"], bars, color=hue, marker="o"
                    )
                    line.set_label(model)
            panel.set_xscale("log")
            panel.minorticks_off()
            ticks = found.filter(log=name)["sessions"].unique().to_list()
            panel.set_xticks(ticks, [f"{sessions:,.0f}" for sessions in ticks])
            panel.set(title=name, xlabel="training sessions", ylabel="NLL, validation")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="*", default=LOGS)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logs = {name: load(name) for name in asked.logs}
    result = fit_parts(logs, asked.models.split(","), asked.seeds, asked.json)
    print(curves_to_markdown(result) if result["rows"] else "no fit went well")


if __name__ == "__main__":
    main()
