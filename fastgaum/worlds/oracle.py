"""The truth of the synthetic world: its scores, its file, and the bundled sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.errors import DatasetError, LogFormatError
from fastgaum.files import atomic
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog, SplitName
from fastgaum.logs.synthetic import Truth, synthesise
from fastgaum.metrics.calibration import choice_nll
from fastgaum.metrics.precision import micro_mean, precision_at_k
from fastgaum.row_files import read_small_parquet

CANDIDATE_KEYS = ("session", "event", "item")
"""these tell the rows of a truth apart"""


@dataclass(frozen=True)
class OracleScores:
    """Scores of ranking by true utility (of an ordered log: by true probability, which knows the
    places) and predicting by true probability: no model can be expected to do better."""

    precision: dict[int, float]
    """share of choices among the k best, ties by exact expectation, by k"""
    nll: float
    """mean −log of the true probability of the outcome, no click included, in nats"""
    n_choices: int
    """denominator of precision: events with a choice"""
    n_events: int
    """denominator of nll: events"""


def oracle_scores(
    log: SessionLog, truth: Truth, split: SplitName = "test", ks: tuple[int, ...] = (1, 2)
) -> OracleScores:
    """Score the truth on one split of its log; NaN where the denominator is 0."""
    events = np.isin(log.session_of_event, log.sessions_in(split))
    by = truth.probability if log.ordered else truth.utility
    hits = {k: precision_at_k(by, log.display_offsets, log.choices, k)[events] for k in ks}
    with np.errstate(divide="ignore"):
        logs = np.log(truth.probability), np.log(truth.no_click_probability)
    nll = choice_nll(*logs, log.display_offsets, log.choices)[events]
    return OracleScores(
        precision={k: micro_mean(of_k) for k, of_k in hits.items()},
        nll=micro_mean(nll),
        n_choices=int((log.choices[events] >= 0).sum()),
        n_events=len(nll),
    )


def truth_frame(log: SessionLog, truth: Truth) -> pl.DataFrame:
    """Return the truth, a row per candidate: `truth_keys`, utility, probability."""
    return truth_keys(log).with_columns(
        pl.Series("utility", truth.utility), pl.Series("probability", truth.probability)
    )


def truth_keys(log: SessionLog) -> pl.DataFrame:
    """Session, event (its position in the session) and item of each candidate."""
    event_of_candidate = log.event_of_candidate()
    return pl.DataFrame(
        {
            "session": log.session_ids.gather(log.session_of_event[event_of_candidate]),
            "event": log.event_number[event_of_candidate],
            "item": log.item_ids.gather(log.items),
        }
    )


def write_truth(log: SessionLog, truth: Truth, path: str | Path) -> None:
    """Write `truth_frame` as parquet, atomically. Raises OutputError."""
    frame = truth_frame(log, truth)
    with atomic(path) as beside:
        frame.write_parquet(beside)


def read_truth(path: str | Path, log: SessionLog) -> Truth:
    """Read a truth for a log, which may hold its sessions in another order, or only some of them.
    No click gets what the candidates leave. Raises DatasetError if the file cannot be read, lacks a
    column, or does not know a candidate of the log."""
    wanted = [*CANDIDATE_KEYS, "utility", "probability"]
    try:
        frame = read_small_parquet(Path(path)).select(wanted)
    except (LogFormatError, pl.exceptions.PolarsError) as error:
        raise DatasetError(
            f"'{path}' is no truth of a log: {str(error).splitlines()[0]}; columns "
            f"{', '.join(wanted)} are required"
        ) from None
    keys = truth_keys(log)
    if not frame.select(CANDIDATE_KEYS).equals(keys):
        try:
            frame = keys.join(
                frame, on=list(CANDIDATE_KEYS), how="left", maintain_order="left", validate="m:1"
            )
        except pl.exceptions.PolarsError as error:
            raise DatasetError(
                f"'{path}' does not fit the log '{log.name}': {str(error).splitlines()[0]}"
            ) from None
        missing = frame["utility"].null_count()
        if missing:
            raise DatasetError(
                f"'{path}' knows {frame.height - missing} of the {frame.height} candidates of "
                f"'{log.name}', all are required: pass the truth that was written with this log"
            )
    probability = frame["probability"].cast(pl.Float32).to_numpy()
    left = 1.0 - np.add.reduceat(probability.astype(np.float64), log.display_offsets[:-1])
    # What float32 rounding leaves of a sum of 1 is no chance of no click.
    no_click = np.where(left < 1e-6, 0.0, left).astype(np.float32)
    return Truth(frame["utility"].cast(pl.Float32).to_numpy(), probability, no_click)


def truth_path(path: str | Path) -> Path:
    """LOG/truth.parquet of a folder, NAME.truth.parquet beside a file.

    >>> truth_path("logs/world.parquet").as_posix()
    'logs/world.truth.parquet'"""
    path = Path(path)
    return path / "truth.parquet" if path.is_dir() else path.with_name(f"{path.stem}.truth.parquet")


def truth_beside(path: str | Path) -> Path | None:
    """The truth file beside a log: `truth_path`, or truth.parquet next to sample.parquet; None
    without."""
    path = Path(path)
    named = truth_path(path)
    if named.is_file():
        return named
    sample = path.with_name("truth.parquet")
    return sample if path.name == "sample.parquet" and sample.is_file() else None


def sample_frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The bundled sample and its truth, both one row per candidate."""
    log, truth = synthesise(2_000, preset="sample")
    frame = to_frame(log).select("session", "event", "item", "chosen", "split")
    return frame, truth_frame(log, truth)


if __name__ == "__main__":
    for name, frame in zip(("sample", "truth"), sample_frames(), strict=True):
        with atomic(Path(__file__).parents[2] / "data" / "sample" / f"{name}.parquet") as path:
            frame.write_parquet(path, compression="zstd", compression_level=19)
