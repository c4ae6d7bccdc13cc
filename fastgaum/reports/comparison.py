"""A comparison of models on one log, or on several: what is fitted, and the table as an object.

`reproduce`, `compare` and `fastgaum.compare` are three ways to ask for the same."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from fastgaum.config import Protocol
from fastgaum.errors import ConfigError, LogFormatError, as_given, did_you_mean, require_type
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.logs.registry import dataset, names
from fastgaum.reports.grid import GridRun, Outcome, grid_runs
from fastgaum.reports.reproduce import run_grid
from fastgaum.reports.reproduce_table import reproduce_blocks
from fastgaum.reports.table import Block, Json, blocks_to_markdown

PROTOCOLS: tuple[str, ...] = typing.get_args(Protocol)
_NESTED = ("ci", "nll_ci", "vs_best_other", "nll_vs_best_other", "by_split")
"""what a cell holds beside plain values"""


@dataclass(frozen=True)
class GridPlan:
    """What is fitted on each log: models × splits × seeds."""

    models: Sequence[str]
    """names of baselines and presets"""
    seeds: int = 5
    """runs of each model on each split"""
    protocol: str = "bags"
    """what a candidate's bag holds"""
    resplits: Sequence[int] = ()
    """seeds of splits of whole users, which are pooled; none: the log's own split"""
    settings: Mapping[str, object] = field(default_factory=dict)
    """settings, each for the models that have it"""

    def runs(self, logs: Sequence[str]) -> list[GridRun]:
        """The fits on logs of these names, in the order of the table.

        Raises:
            ConfigError: an unknown model, setting or protocol, an impossible value, or no seed.
        """
        if not self.models:
            raise ConfigError("models is an empty list, at least one name is required")
        if self.protocol not in PROTOCOLS:
            raise ConfigError(
                f"protocol is '{self.protocol}', one of {', '.join(PROTOCOLS)} is "
                f"required{did_you_mean(self.protocol, PROTOCOLS)}"
            )
        for seed in (self.seeds, *self.resplits):
            if type(seed) is not int or seed < 0:
                raise ConfigError(
                    f"seeds and resplits are whole numbers of at least 0, got {seed!r}"
                )
        splits = tuple(self.resplits) or (None,)
        models = list(dict.fromkeys(self.models))
        return grid_runs(logs, models, self.seeds, self.protocol, self.settings, splits)


@dataclass(frozen=True, repr=False)
class Comparison:
    """The table of a comparison.

    Attributes:
        result: the JSON object that `fastgaum compare --json` writes; prec@k in percent, NLL in
            nats.
    """

    result: Json

    def read_with(self, reading: Mapping[str, object]) -> Comparison:
        """The same table, which also says by which options its one log was read."""
        head = {key: self.result[key] for key in ("machine", "protocol", "seeds", "resplit")}
        return Comparison({**head, "reading": dict(reading), **self.result})

    @property
    def cells(self) -> list[Json]:
        """One object per log, model, head and k."""
        return list(self.result["cells"])

    @property
    def failed(self) -> list[Json]:
        """The runs that gave nothing, each with its reason; their models have no cell."""
        return list(self.result["failed"])

    @property
    def blocks(self) -> list[Block]:
        """The table as text, a block per log."""
        return reproduce_blocks(self.result)

    def to_frame(self) -> pl.DataFrame:
        """The cells as a frame, a row per log, model, head and k; an interval is two columns, a
        paired difference to the best other model is four."""
        rows = [{**_plain(cell), **_flat(cell)} for cell in self.cells]
        return pl.DataFrame(rows, infer_schema_length=None)

    def to_markdown(self) -> str:
        """The table as markdown."""
        return blocks_to_markdown(self.blocks)

    def __repr__(self) -> str:
        parts = []
        for name, summary in self.result["comparison"].items():
            n_models = len({cell["model"] for cell in self.cells if cell["dataset"] == name})
            said = f"{n_models} models on '{name}'"
            if "nll" in summary:
                lowest, best = summary["nll"], summary["1"]["best"]
                said += (
                    f", lowest NLL {lowest['mean']:.3f} ({lowest['model']}), highest prec@1 "
                    f"{best['mean']:.1f} ({best['model']})"
                )
            parts.append(said)
        failed = f", {len(self.failed)} runs failed" if self.failed else ""
        return f"Comparison({'; '.join(parts)}{failed})"


def _plain(cell: Json) -> Json:
    return {key: value for key, value in cell.items() if key not in _NESTED}


def _flat(cell: Json) -> Json:
    """The intervals and differences of a cell as plain values."""
    flat: Json = {"low": cell["ci"][0], "high": cell["ci"][1]}
    flat |= {"nll_low": cell["nll_ci"][0], "nll_high": cell["nll_ci"][1]}
    for key in ("vs_best_other", "nll_vs_best_other"):
        versus = cell.get(key)
        low, high = (None, None) if versus is None else versus["ci"]
        flat |= {
            key: None if versus is None else versus["diff"],
            f"{key}_low": low,
            f"{key}_high": high,
            f"{key}_model": None if versus is None else versus["model"],
        }
    return flat


def compare_logs(
    logs: Mapping[str, SessionLog],
    plan: GridPlan,
    *,
    oracles: Mapping[str, Mapping[str, float]] | None = None,
    jobs: int = 1,
    device: str = "auto",
    on_start: Callable[[GridRun], None] = lambda run: None,
    on_done: Callable[[GridRun, Outcome, int], None] = lambda run, outcome, done: None,
) -> Comparison:
    """Fit what the plan says on every log, and put the figures together.

    `logs` have their own splits. `oracles` and the others are as in `run_grid`.

    Raises:
        ConfigError: as `GridPlan.runs`.
        LogFormatError: a log has an empty split, or does not suit a model.
    """
    runs = plan.runs(list(logs))
    for log in () if plan.resplits else logs.values():
        _require_splits(log)
    result = run_grid(
        logs,
        runs,
        oracles=oracles,
        jobs=jobs,
        device=device,
        on_start=on_start,
        on_done=on_done,
    )
    header = {
        "machine": result.pop("machine"),
        "protocol": plan.protocol,
        "seeds": plan.seeds,
        "resplit": list(plan.resplits) or None,
    }
    return Comparison({**header, **result})


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
    """Fit models on one log and compare them on its test split: floors, intervals over users,
    paired differences.

    Args:
        log: a log in memory, with its own split.
        models: names of baselines and presets (`fastgaum.baselines.registry.MODELS`).
        seeds: fits of each model on each split; the first seed is `settings["seed"]`, or 0.
        protocol: what a candidate's bag holds: identity, bags or views.
        resplits: seeds of other splits of whole users, whose test events are pooled, each split
            once.
        settings: settings of the models, each for those that have it.
        jobs: fits side by side, each in a process of its own, with one thread. More than one wants
            the caller's program below `if __name__ == "__main__":`, as `multiprocessing` does.

    Returns:
        The table: `print(fg.compare(log).to_markdown())`, or `to_frame()`.

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
    if not several or not all(isinstance(model, str) for model in models):
        raise ConfigError(f"models is {as_given(models)}, a list of names is required")
    if type(jobs) is not int or jobs < 1:
        raise ConfigError(f"jobs must be a whole number of at least 1, got {as_given(jobs)}")
    if not isinstance(resplits, Iterable):
        raise ConfigError(f"resplits is {as_given(resplits)}, a list of seeds is required")
    require_type("settings", {} if settings is None else settings, Mapping)
    # a split that is pooled twice would make intervals too narrow
    splits = tuple(dict.fromkeys(resplits))
    plan = GridPlan(tuple(models), seeds, protocol, splits, settings or {})
    return compare_logs({title_of(log): log}, plan, jobs=jobs).read_with({})


def _require_splits(log: SessionLog) -> None:
    """Raise LogFormatError, before anything is fitted, where a split has no session."""
    empty = [name for i, name in enumerate(SPLITS) if not (log.split == i).any()]
    if empty:
        raise LogFormatError(
            f"log '{log.name}' has no session in split '{empty[0]}', and a comparison trains, "
            "chooses epochs and scores on the three splits: draw a split of its users, with "
            "--split-by user or --resplit 1..5 (in Python read_log(split='user') or "
            "resplits=range(1, 6))"
        )


def title_of(log: SessionLog) -> str:
    """What a comparison calls a log: its name. A log of one's own that has the name of a data set
    of the registry is called otherwise: published figures are not of it."""
    if log.name not in names():
        return log.name
    found = {
        "sessions": log.n_sessions,
        "events": log.n_events,
        "candidates": log.n_candidates,
        "items": log.n_items,
    }
    known = dataset(log.name).counts
    same = all(found.get(what) == n for what, n in known.items())
    return log.name if same else f"{log.name} (another log)"
