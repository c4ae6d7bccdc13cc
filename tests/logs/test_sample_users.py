"""A sample of users: by the hash of the id alone, the same from every source, before rows are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.features.training_order import folds_of
from fastgaum.logs.hashes import hash_texts, sampling_numbers
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.splits import split_users
from fastgaum.logs.store import save_log

N_USERS = 120


def visits(ids: pl.Series, n_sessions: int = 2) -> pl.DataFrame:
    """Two events of two items in each session of each user, in turns."""
    users = ids.to_frame("user").with_row_index("n")
    sessions = pl.DataFrame({"at": range(n_sessions)})
    events = pl.DataFrame({"event": [0, 1]})
    items = pl.DataFrame({"item": ["a", "b"], "chosen": [1, 0], "price": [1.5, 2.5]})
    frame = sessions.join(events, how="cross").join(users, how="cross").join(items, how="cross")
    return frame.with_columns(session=pl.format("s{}.{}", "n", "at")).drop("n", "at")


def numbered() -> pl.DataFrame:
    return visits(pl.Series(range(N_USERS)))


def users_of(log: SessionLog) -> set[str]:
    assert log.user_ids is not None
    return set(log.user_ids)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_sample_is_part_of_a_larger_one(one: float, other: float) -> None:
    numbers = sampling_numbers(np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64))
    low, high = sorted([one, other])
    assert not ((numbers < low) & ~(numbers < high)).any()
    assert ((numbers >= 0) & (numbers < 1)).all()


def test_a_user_has_the_same_number_everywhere() -> None:
    """Parts of a log that are read on several machines, or in another year, are of the same
    users."""
    numbers = sampling_numbers(hash_texts(pl.Series(["7", "ö", "u1"])))
    assert numbers.tolist() == [0.22375269461562874, 0.8560004091474933, 0.8245499366482367]


def test_samples_are_free_of_splits_and_folds() -> None:
    hashes = np.random.default_rng(1).integers(0, 2**64, 200_000, np.uint64)
    taken = sampling_numbers(hashes) < 0.1
    assert taken.mean() == pytest.approx(0.1, abs=0.003)
    for part in (split_users(hashes, 0), split_users(hashes, 0, "half"), folds_of(hashes, 5)):
        own = np.bincount(part[taken]) / taken.sum()
        assert own == pytest.approx(np.bincount(part) / len(part), abs=0.01)


def test_every_source_has_the_same_sample(tmp_path: Path) -> None:
    frame = numbered()
    whole = read_log(frame)
    wanted = read_log(frame, sample_users=0.25)
    assert 10 < len(users_of(wanted)) < 60
    frame.write_csv(tmp_path / "log.csv")
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=50)
    frame.write_ipc(tmp_path / "log.arrow")
    frame.write_ndjson(tmp_path / "log.ndjson")
    (tmp_path / "shards").mkdir()
    for n in range(3):
        frame[n * 300 : n * 300 + 300].write_parquet(tmp_path / "shards" / f"{n}.parquet")
    text = frame.with_columns(pl.col("user").cast(pl.String))
    decimal = frame.with_columns(pl.col("user").cast(pl.Float64))
    category = text.with_columns(pl.col("user").cast(pl.Categorical))
    files = (tmp_path / name for name in ("log.csv", "log.parquet", "log.arrow", "log.ndjson"))
    for source in (*files, text, decimal, category, text.to_pandas()):
        found = read_log(source, sample_users=0.25, name="log")
        assert found.fingerprint == wanted.fingerprint, source
    shards = read_log(tmp_path / "shards", sample_users=0.25)
    assert users_of(shards) == users_of(read_log(frame[:900], sample_users=0.25))
    assert users_of(read_log(frame.reverse(), sample_users=0.25)) == users_of(wanted)
    saved = read_log(save_log(whole, tmp_path / "saved"), sample_users=0.25)
    assert saved.session_ids.to_list() == wanted.session_ids.to_list()
    assert saved.split.tolist() == wanted.split.tolist()
    assert users_of(read_log(frame, sample_users=0.1)) < users_of(wanted)
    # a user stays in its part of the split, with all sessions
    part_of = dict(zip(whole.session_ids, whole.split.tolist(), strict=True))
    assert [part_of[one] for one in wanted.session_ids] == wanted.split.tolist()
    assert wanted.n_sessions == 2 * len(users_of(wanted))


def test_without_users_sessions_are_drawn() -> None:
    frame = numbered().drop("user")
    log = read_log(frame, sample_users=0.25)
    ids = frame["session"].unique()
    assert set(log.session_ids) == set(ids.filter(sampling_numbers(hash_texts(ids)) < 0.25))


def test_rows_of_other_users_are_not_read(tmp_path: Path) -> None:
    frame = numbered()
    own = read_log(frame, sample_users=0.25)
    is_own = pl.col("user").cast(pl.String).is_in(list(users_of(own)))
    broken = frame.with_columns(
        price=pl.when(is_own).then("price").otherwise(float("nan")),
        chosen=pl.when(is_own).then("chosen").otherwise(7),
    )
    broken.write_parquet(tmp_path / "log.parquet")
    read = read_log(tmp_path / "log.parquet", sample_users=0.25, candidate_fields=["price"])
    assert users_of(read) == users_of(own)


@pytest.mark.parametrize(
    ("change", "share", "says"),
    [
        ({}, 1e-9, r"sample_users is 1e-09, and none of the log's users.*take a larger share"),
        ({"user": None}, 0.5, r"row 1 has no user id.*rows are counted among those of the sample"),
        ({"chosen": 7}, 0.5, r"row 1 has 'chosen' = 7.*rows are counted among"),
        ({"user": [[1]]}, 0.5, "the user column 'user' holds List"),
    ],
)
def test_what_is_refused(change, share, says, tmp_path: Path) -> None:
    columns = {name: pl.lit(values) for name, values in change.items()}
    frame = numbered().with_columns(**columns)
    with pytest.raises(LogFormatError, match=says):
        read_log(frame, sample_users=share)
    saved = save_log(read_log(numbered()), tmp_path / "saved")
    with pytest.raises(LogFormatError, match="none of the log's users"):
        read_log(saved, sample_users=1e-9)


def test_an_empty_log_is_refused_as_ever() -> None:
    with pytest.raises(LogFormatError, match="the log is empty"):
        read_log(numbered().clear(), sample_users=0.5)
