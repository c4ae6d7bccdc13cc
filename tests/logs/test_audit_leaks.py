from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.logs.audit import Fact, audit
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_frame

N, SHOWN = 120, 4


def visits(seed: int = 0) -> pl.DataFrame:
    """One display a session, chosen from by chance; a price of each candidate."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(30)[:SHOWN] for _ in range(N)])
    chosen = np.zeros((N, SHOWN), np.int8)
    chosen[np.arange(N), rng.integers(0, SHOWN, N)] = 1
    frame = pl.DataFrame(
        {
            "session": np.repeat(np.arange(N), SHOWN),
            "event": 0,
            "item": items.reshape(-1),
            "chosen": chosen.reshape(-1),
            "price": rng.random(N * SHOWN),
        }
    )
    part = pl.when(pl.col("session") < N // 2).then(pl.lit("train")).otherwise(pl.lit("test"))
    choice = pl.col("item").filter(pl.col("chosen") == 1).first().over("session")
    return frame.with_columns(
        split=part,
        page=pl.format("p{}", pl.col("session") % 7),
        said=pl.format("i{}", choice),
        number=choice * 10,
        half=choice.cast(pl.Float64) / 2,
    )


def fact_of(log: SessionLog, name: str) -> Fact:
    return next(one for one in audit(log).facts if one.name == name)


def read(frame: pl.DataFrame, **options: object) -> SessionLog:
    return read_frame(frame, candidate_fields=["price"], **options)  # type: ignore[arg-type]


def test_users_on_both_sides_are_flagged() -> None:
    name = "test users who have training sessions too"
    alone = fact_of(read(visits()), name)
    assert (alone.percent, alone.n, alone.action) == (0, N // 2, "-")
    both = fact_of(read(visits().with_columns(user=pl.col("session") % 40)), name)
    assert (both.percent, both.n) == (100, 40)
    assert both.action.startswith("FLAG: ")


def test_copied_sessions_are_flagged() -> None:
    name = "test sessions that equal a training session"
    assert fact_of(read(visits()), name).percent == 0
    copies = visits().filter(split="train").with_columns(session=pl.col("session") + 1000)
    frame = pl.concat([visits(), copies.with_columns(split=pl.lit("test")).reverse()])
    found = fact_of(read(frame), name)
    assert found.percent == pytest.approx(50)
    assert found.action.startswith("FLAG: ")
    # another price is another session
    other = frame.with_columns(price=pl.col("price") + pl.col("session").cast(pl.Float64))
    assert fact_of(read(other), name).percent == 0


def test_sessions_that_are_alike_by_nature_are_no_copies() -> None:
    """One display of two items: all logs of such sessions repeat."""
    rng = np.random.default_rng(0)
    chosen = np.stack([one := rng.integers(0, 2, 200), 1 - one], 1).reshape(-1)
    frame = pl.DataFrame(
        {
            "session": np.repeat(np.arange(200), 2),
            "event": 0,
            "item": ["a", "b"] * 200,
            "chosen": chosen,
        }
    )
    fact = fact_of(read_frame(frame), "test sessions that equal a training session")
    assert fact.percent == 100
    assert fact.action == "-"


@pytest.mark.parametrize(
    ("field", "flagged"), [("said", True), ("number", True), ("half", True), ("page", False)]
)
def test_a_field_that_tells_the_choice_is_flagged(field, flagged) -> None:
    log = read(visits(), context_fields=[field])
    fact = fact_of(log, f"choices of the item that is usual under their {field}")
    assert fact.action.startswith("FLAG: ") == flagged
    assert (fact.percent == 100) == flagged
