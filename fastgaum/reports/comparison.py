"""A comparison of models on one log, or on several.

A row is one model's head, its seeds averaged and the test events of its splits pooled; the
bootstrap draws seeds, and users with their events from all splits. The other row of a comparison is
always another model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from fastgaum.arrays import Float64Array
from fastgaum.baselines.registry import BASELINES, baseline_class
from fastgaum.errors import ConfigError, LogFormatError, as_given, require_type, require_whole
from fastgaum.html_view import html_view
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.machine import machine_facts
from fastgaum.metrics.evaluation import HeadFigures
from fastgaum.metrics.intervals import bootstrap_mean, paired_difference
from fastgaum.metrics.precision import KS, micro_mean, user_mean
from fastgaum.reports.grid import GridPlan, GridRun, RunFigures, RunOutcome, run_all
from fastgaum.reports.log_facts import PooledEvents, dataset_facts, title_of
from fastgaum.reports.published_figures import (
    OtherRow,
    published_mean,
    published_row,
    published_table,
    rows_of_others,
)
from fastgaum.reports.reproduce_table import (
    FLOOR_MODELS,
    likeliest,
    reproduce_blocks,
    rows_by_model,
)
from fastgaum.reports.table import Block, Json, blocks_to_markdown

_VERSUS = ("vs_best_other", "nll_vs_best_other", "vs_logit", "nll_vs_logit")
"""paired differences of a cell"""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The table of a comparison.

    Attributes:
        result: the JSON object that `fastgaum compare --json` writes; prec@k in percent, NLL in
            nats.
    """

    result: Json

    @property
    def cells(self) -> list[Json]:
        """One object per log, model, head and k."""
        return list(self.result["cells"])

    @property
    def failed(self) -> list[Json]:
        """The runs that gave nothing, each with its reason."""
        return list(self.result["failed"])

    @property
    def blocks(self) -> list[Block]:
        """The table as text, a block per log."""
        return reproduce_blocks(self.result)

    def to_frame(self) -> pl.DataFrame:
        """A row per log, model, head and k; intervals are two columns, paired differences four."""
        rows = []
        for cell in self.cells:
            row: Json = {}
            for key, value in cell.items():
                if key.endswith("ci"):
                    low, high = value or (None, None)
                    row |= {f"{key[:-2]}low": low, f"{key[:-2]}high": high}
                elif key not in (*_VERSUS, "by_split"):
                    row[key] = value
            for key in _VERSUS:
                versus = cell.get(key) or {"diff": None, "ci": (None, None), "model": None}
                names = (key, f"{key}_low", f"{key}_high", f"{key}_model")
                row |= zip(names, (versus["diff"], *versus["ci"], versus["model"]), strict=True)
            rows.append(row)
        return pl.DataFrame(rows, infer_schema_length=None)

    def to_markdown(self) -> str:
        """The table as markdown."""
        return blocks_to_markdown(self.blocks)

    def _repr_html_(self) -> str:
        """Text of a notebook: a row per log, model and head."""

        def text(cell: Json, mean: str, ci: str, digits: int) -> str:
            if cell[mean] is None:
                return ""
            ends = " to ".join(f"{end:.{digits}f}" for end in cell[ci])
            return f"{cell[mean]:.{digits}f} ({ends})"

        rows = [
            [
                f"{cell['model']}, {cell['head']}, {cell['dataset']}",
                text(cell, "mean", "ci", 1),
                text(cell, "nll", "nll_ci", 3),
            ]
            for cell in self.cells
            if cell["k"] == 1
        ]
        failed = [f"{one['model']} failed: {one['reason']}" for one in self.failed]
        return html_view("Comparison", ["model", "prec@1, %", "NLL, nats"], rows, failed)

    def __repr__(self) -> str:
        parts = []
        for name in self.result["datasets"]:
            cells = [by_k["1"] for by_k in rows_by_model(self.cells, name).values()]
            said = f"{len({cell['model'] for cell in cells})} models on '{name}'"
            if cells:
                best, lowest = cells[0], likeliest(cells)
                said += (
                    f", lowest NLL {lowest['nll']:.3f} ({lowest['model']}), highest prec@1 "
                    f"{best['mean']:.1f} ({best['model']})"
                )
            parts.append(said)
        failed = f", {len(self.failed)} runs failed" if self.failed else ""
        return f"Comparison({'; '.join(parts)}{failed})"


def compare(
    log: SessionLog,
    models: Sequence[str] = ("fastgaum", "logit", "click-rate"),
    *,
    seeds: int = 5,
    protocol: str = "bags",
    resplits: Sequence[int] = (),
    settings: Mapping[str, object] | None = None,
    jobs: int = 1,
) -> Comparison:
    """Fit models on one log and compare them on its test split.

    Args:
        log: a log in memory, with its own split.
        models: names of baselines and presets (`fastgaum.baselines.registry.MODELS`).
        seeds: fits of each model on each split; the first seed is `settings["seed"]`, or 0.
        protocol: what a candidate's bag holds: identity, bags or views.
        resplits: seeds of other splits of whole users, whose test events are pooled.
        settings: settings of the models, each for those that have it.
        jobs: fits side by side, each in a process. More than one wants the caller's program below
            `if __name__ == "__main__":`.

    Raises:
        ConfigError: an unknown model, setting or protocol, an impossible value, or no seed.
        LogFormatError: a split of the log is empty.
    """
    if not isinstance(log, SessionLog):
        raise ConfigError(
            f"compare needs a log in memory, got {type(log).__name__}: read one with "
            "fastgaum.load or fastgaum.read_log"
        )
    several = isinstance(models, Iterable) and not isinstance(models, str | pl.DataFrame)
    named = tuple(models) if several else ()
    if not several or not all(isinstance(model, str) for model in named):
        raise ConfigError(f"models is {as_given(models)}, a list of names is required")
    require_whole("jobs", jobs, 1)
    if not isinstance(resplits, Iterable):
        raise ConfigError(f"resplits is {as_given(resplits)}, a list of seeds is required")
    require_type("settings", {} if settings is None else settings, Mapping)
    seeds_of_splits = tuple(resplits)
    for seed in seeds_of_splits:
        require_whole("a seed of resplits", seed)
    # a split that is pooled twice would make intervals too narrow
    splits = tuple(dict.fromkeys(seeds_of_splits))
    plan = GridPlan(named, seeds, protocol, splits, settings or {})
    return compare_logs({title_of(log): log}, plan, jobs=jobs, reading={})


def compare_logs(
    logs: Mapping[str, SessionLog],
    plan: GridPlan,
    *,
    oracles: Mapping[str, Mapping[str, float]] | None = None,
    jobs: int = 1,
    device: str = "auto",
    reading: Mapping[str, object] | None = None,
    others: Sequence[OtherRow] = (),
    on_done: Callable[[GridRun, RunOutcome, int], None] = lambda run, outcome, done: None,
) -> Comparison:
    """Fit what the plan says on every log, and put the figures together.

    `oracles` holds {"1": prec@1, "2": prec@2, "nll": NLL} of logs whose law is known, pooled over
    splits; `reading` the options of the one log; `others` rows that were measured elsewhere. A
    model one of whose runs failed has no cell.

    Raises:
        ConfigError: as `GridPlan.runs`, or a row of `others` is of another log or split.
        LogFormatError: a log has an empty split, or does not suit a model.
    """
    runs = plan.runs(list(logs))
    # before anything is fitted
    for name in (name for name in plan.models if name in BASELINES):
        for log in logs.values():
            baseline_class(name).check_weights(log)
    for one in others:
        wanted = logs[one.dataset].fingerprint
        if one.fingerprint is not None and not wanted.startswith(one.fingerprint):
            raise ConfigError(
                f"the row '{one.model}' was measured on a log with the fingerprint "
                f"{one.fingerprint[:12]}, '{one.dataset}' has {wanted[:12]}: read and split the "
                "log as that row's, or leave the row out"
            )
    for log in () if plan.resplits else logs.values():
        empty = [name for i, name in enumerate(SPLITS) if not (log.split == i).any()]
        if empty:
            raise LogFormatError(
                f"log '{log.name}' has no session in split '{empty[0]}', and a comparison trains, "
                "chooses epochs and scores on the three splits: draw a split of its users, with "
                "--split-by user or --resplit 1..5 (in Python read_log(split='user') or "
                "resplits=range(1, 6))"
            )
    outcomes: list[RunOutcome] = [""] * len(runs)
    with closing(run_all(logs, runs, jobs, device)) as results:
        for done, (i, outcome) in enumerate(results, 1):
            outcomes[i] = outcome
            on_done(runs[i], outcome, done)
    result: Json = {
        "machine": machine_facts(),
        "protocol": plan.protocol,
        "seeds": plan.seeds,
        "resplit": list(plan.resplits) or None,
        **({} if reading is None else {"reading": dict(reading)}),
        "datasets": {},
        "cells": [],
        "failed": [
            {name: getattr(run, name) for name in ("dataset", "model", "resplit", "seed")}
            | {"reason": outcome}
            for run, outcome in zip(runs, outcomes, strict=True)
            if isinstance(outcome, str)
        ],
    }
    for name, log in logs.items():
        rows: list[Row] = []
        for model in dict.fromkeys(plan.models):
            found = [
                outcome
                for run, outcome in zip(runs, outcomes, strict=True)
                if (run.dataset, run.model) == (name, model)
            ]
            done_runs = [one for one in found if isinstance(one, RunFigures)]
            # none if one of its runs failed: figures of those that went well would flatter it
            if len(done_runs) == len(found):
                heads = done_runs[0].test.heads
                rows += [Row.of(model, head, done_runs, plan.seeds) for head in heads]
        events, oracle = PooledEvents.of(log, plan.splits), (oracles or {}).get(name)
        facts = dataset_facts(name, log, plan.splits, events, oracle)
        facts["others"] = [msgspec.to_builtins(one) for one in others if one.dataset == name]
        result["datasets"][name] = facts
        for row, versus in zip(rows, compare_rows(rows, events, facts), strict=True):
            result["cells"] += cells_of(row, name, plan, events, facts, versus)
    table = published_table()
    if any(name in row for row in table["rows"].values() for name in logs):
        result["published_table"] = table
    return Comparison(result)


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    model: str
    head: str
    runs: Sequence[Sequence[RunFigures]]
    """by split, then by seed"""
    by_seed: Mapping[str, Float64Array]
    """figures of each event by name, (n_seeds, n_events) each, splits one after the other"""

    @classmethod
    def of(cls, model: str, head: str, runs: Sequence[RunFigures], seeds: int) -> Row:
        """The row of a model's head, of `seeds` runs of each split, split after split."""
        by_split = [runs[start : start + seeds] for start in range(0, len(runs), seeds)]
        figures = [[_per_event(run.test.heads[head]) for run in split] for split in by_split]
        known = set.intersection(*(set(one) for split in figures for one in split))
        by_seed = {
            name: np.concatenate([[one[name] for one in split] for split in figures], axis=1)
            for name in known
        }
        return cls(model, head, by_split, by_seed)

    def pooled(self, figure: str) -> Float64Array:
        """A figure of each event, averaged over seeds, shape (n_events,)."""
        return np.asarray(self.by_seed[figure].mean(axis=0), np.float64)


def _per_event(head: HeadFigures) -> dict[str, Float64Array]:
    found = {f"prec{k}": head.precision_per_event[k] for k in KS}
    found["nll"] = head.nll_per_event
    return found | head.displays.per_event


def compare_rows(rows: Sequence[Row], events: PooledEvents, facts: Json) -> list[Json]:
    """Compare the rows of one data set, of these facts, by prec@1, prec@2 and NLL.

    Returns:
        Of each row {vs_best_other, vs_logit, bold} by figure (prec1, prec2, nll): its paired
        difference to the best row of another model and to the linear one, where it is another row,
        and whether it is the best by more than chance, and no row of others is above it: no floor
        and no published figure.
    """
    parts: list[Json] = [{} for _ in rows]
    linear = next((row for row in rows if row.model == "logit"), None)
    for figure in ("prec1", "prec2", "nll") if rows else ():
        sign = 1 if figure == "nll" else -1
        means = [micro_mean(row.pooled(figure), events.weights) for row in rows]
        order = sorted(
            range(len(rows)), key=lambda i: math.inf if math.isnan(means[i]) else sign * means[i]
        )
        found = () if figure == "nll" else rows_of_others(facts)
        rivals = [one["prec"][figure[-1]]["mean"] for one in found]
        for i, row in enumerate(rows):
            # a preset and the same with exact players are one model
            own = row.model.removesuffix("-exact")
            others = [rows[j] for j in order if rows[j].model.removesuffix("-exact") != own]
            versus = _difference(row, others[0], figure, events) if others else None
            may_be_bold = versus and i == order[0] and figure != "nll"
            # the interval to every other row lies above 0, not only to the runner-up's: a row that
            # goes wrong on other events than the best one has a wide interval, and being third it
            # may still be level with the best when the runner-up is not. A floor is never bold
            bold = may_be_bold and row.model not in FLOOR_MODELS.values()
            bold = bold and all(_difference(row, o, figure, events)["ci"][0] > 0 for o in others)
            bold = bold and not any(one > means[i] for one in rivals if one is not None)
            parts[i][figure] = {"vs_best_other": versus, "bold": bool(bold)}
            if linear is not None and row is not linear:
                parts[i][figure]["vs_logit"] = _difference(row, linear, figure, events)
    return parts


def _difference(row: Row, other: Row, figure: str, events: PooledEvents) -> Json:
    both = row.by_seed[figure], other.by_seed[figure]
    found = paired_difference(*both, events.users, events.weights)
    ends = [found.low, found.high]
    return {"model": other.model, "head": other.head, "diff": found.mean, "ci": ends}


def cells_of(
    row: Row, dataset: str, plan: GridPlan, events: PooledEvents, facts: Json, versus: Json
) -> Iterator[Json]:
    """One cell per k, ready for JSON."""
    runs = [run for split in row.runs for run in split]
    heads = [[run.test.heads[row.head] for run in split] for split in row.runs]
    gaps = [run.train_gap for run in runs if run.train_gap is not None]
    ece, brier = (
        np.average([[getattr(one, name) for one in split] for split in heads], 0, events.totals)
        for name in ("ece", "brier")
    )
    shared = {
        "protocol": runs[0].protocol,
        "selection": runs[0].select,
        "calibrated": runs[0].select == "calibrated loss",
        "settings_tried": runs[0].settings_tried,
        "folds": runs[0].folds,
        "seeds": plan.seeds,
        "splits": len(row.runs),
        **_interval(row, "nll", "nll", events),
        "nll_sd": _sd([micro_mean(seed, events.weights) for seed in row.by_seed["nll"]]),
        "ece": float(ece.mean()),
        "brier": float(brier.mean()),
        "gap": float(np.mean(gaps)) if gaps else None,
        "seconds": float(np.mean([run.seconds for run in runs])),
        **_interval(row, "mrr", "mrr", events),
        **_interval(row, "ndcg", "ndcg", events),
        **_interval(row, "auc", "auc", events),
    }
    for k in KS:
        values = row.pooled(f"prec{k}")
        interval = bootstrap_mean(row.by_seed[f"prec{k}"], events.users, events.weights)
        way = None
        if "oracle" in facts:
            floor, oracle = facts["floors"]["random"][str(k)], facts["oracle"][str(k)]
            # nothing is to be gained where no display is larger than k
            if not math.isclose(oracle, floor):
                way = (interval.mean - floor) / (oracle - floor)
        means = [float(np.mean([one.precision[k].mean for one in split])) for split in heads]
        yield {
            "dataset": dataset,
            "model": row.model,
            "head": row.head,
            "k": k,
            "mean": interval.mean,
            "sd": _sd([micro_mean(seed, events.weights) for seed in row.by_seed[f"prec{k}"]]),
            "ci": [interval.low, interval.high],
            "published": published_mean(dataset, published_row(row.model, row.head), k),
            "n_events": interval.n_events,
            "prec_nontrivial": micro_mean(
                np.where(events.sizes > k, values, np.nan), events.weights
            ),
            "prec_per_user": user_mean(values, events.users, events.weights),
            "way_to_oracle": way,
            "by_split": dict(zip(map(str, plan.resplits), means, strict=True))
            if plan.resplits
            else None,
            **_interval(row, f"recall{k}", "recall", events),
            **shared,
            **versus[f"prec{k}"],
            "nll_vs_best_other": versus["nll"]["vs_best_other"],
            "nll_vs_logit": versus["nll"].get("vs_logit"),
        }


def _interval(row: Row, figure: str, name: str, events: PooledEvents) -> Json:
    if figure not in row.by_seed:
        return {name: None, f"{name}_ci": None}
    found = bootstrap_mean(row.by_seed[figure], events.users, events.weights)
    return {name: found.mean, f"{name}_ci": [found.low, found.high]}


def _sd(values: Sequence[float] | Float64Array) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
