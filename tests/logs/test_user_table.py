"""A table of users: context that is stored once per session, and read as any other context."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.baselines.floors import floor_table
from fastgaum.errors import FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.logs.audit import audit
from fastgaum.logs.context import context_of
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from fastgaum.logs.store import load_log, save_log
from tests.builders import put, values_of
from tests.logs.test_context import navigation
from tests.logs.test_saved_log import assert_same

LOG = pl.DataFrame(
    {
        "session": ["a", "a", "a", "b", "c", "c"],
        "event": [1, 1, 2, 1, 1, 1],
        "user": ["u9", "u9", "u9", "u2", "u9", "u9"],
        "item": ["x", "y", "x", "y", "x", "y"],
        "chosen": [1, 0, 1, 0, 0, 1],
    }
)
USERS = pl.DataFrame(
    {
        "user": ["u2", "u5", "u9"],
        "age": [31, 40, None],
        "land": ["nl", "fr", "be"],
        "spent": [2.5, 4.5, None],
        "member": [True, False, True],
    }
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    USERS.write_parquet(tmp_path / "users.parquet")
    return tmp_path / "users.parquet"


def test_a_value_per_session_of_its_kind(table: Path) -> None:
    """Whole numbers and text are categories; a missing number is the mean of the log's other users.
    u5, who is not the log's, has no category and no part in a mean."""
    log = read_log(LOG, user_table=table)
    assert log.session_ids.to_list() == ["a", "b", "c"]
    assert {name: values.tolist() for name, values in values_of(log, "user").items()} == {
        "age": [-1, 0, -1],
        "land": [0, 1, 0],
        "spent": [2.5, 2.5, 2.5],
        "member": [0, 0, 0],
    }
    assert log.columns["age"].categories.to_list() == ["31"]
    assert log.columns["land"].categories.to_list() == ["be", "nl"]
    assert (log.columns_of("event"), log.columns_of("candidate")) == ({}, {})
    assert log.values_at("spent").tolist() == [2.5, 2.5, 2.5, 2.5]
    assert log.values_at("land", np.array([2, 0], np.int32)).tolist() == [1, 0]
    spoilt = {"user": ["u1"], "age": [9], "land": ["xx"], "spent": [1e9], "member": [None]}
    more = pl.concat([pl.DataFrame(spoilt, schema=USERS.schema), USERS])
    more.write_parquet(table)
    assert read_log(LOG, user_table=table).fingerprint == log.fingerprint


def test_a_log_of_few_users_has_the_columns_of_a_log_of_all(tmp_path: Path) -> None:
    """Whole decimals, or no number, of one user: the table tells the kind, and a number."""
    users = pl.DataFrame(
        {"user": ["u2", "u5", "u9"], "income": ["2.5", "4.5", "3"], "age": ["1.5", "2", None]}
    )
    users.write_csv(tmp_path / "users.csv")
    for kept in (["u2", "u9"], ["u2"], ["u9"]):
        frame = LOG.filter(pl.col("user").is_in(kept))
        log = read_log(frame, user_table=tmp_path / "users.csv")
        assert {name: one.holds for name, one in log.columns.items()} == {
            "income": "number",
            "age": "number",
        }
    # of u9 alone the log has no age: the mean of the table's
    assert log.columns["age"].values.tolist() == [1.75, 1.75]


def test_the_form_of_the_table_says_nothing(table: Path, tmp_path: Path) -> None:
    """Its order, its format, and how the log calls its users."""
    log = read_log(LOG, user_table=table)
    USERS[::-1].rename({"user": "visitor"}).write_csv(tmp_path / "users.csv.gz", compression="gzip")
    renamed = LOG.rename({"user": "visitor"})
    options = {"columns": {"user": "visitor"}, "user_table": tmp_path / "users.csv.gz"}
    again = read_log(renamed, **options)
    # a csv has no type of its own for flags: they are text
    assert again.columns["member"].categories.to_list() == ["true"]
    others = [
        dataclasses.replace(one, columns={k: v for k, v in one.columns.items() if k != "member"})
        for one in (log, again)
    ]
    assert others[0].fingerprint == others[1].fingerprint


@pytest.mark.parametrize("key", ["session", "user"])
def test_sessions_are_the_users_of_a_log_without(tmp_path: Path, key: str) -> None:
    pl.DataFrame({key: ["c", "a", "b"], "land": ["x", "y", "z"]}).write_csv(tmp_path / "users.csv")
    log = read_log(LOG.drop("user"), user_table=tmp_path / "users.csv")
    land = log.columns["land"]
    assert land.categories.gather(land.values).to_list() == ["y", "z", "x"]


def test_the_log_is_the_same_saved_and_from_the_long_layout(table: Path, tmp_path: Path) -> None:
    LOG.write_parquet(tmp_path / "log.parquet")
    log = read_log(tmp_path / "log.parquet", user_table=table)
    assert_same(load_log(save_log(log, tmp_path / "one")), log)
    picked = slice_sessions(log, [2, 0])
    assert picked.columns["spent"].values.tolist() == [2.5, 2.5]
    back = read_log(to_frame(log), context_fields=["land", "spent"])
    assert back.values_at("spent").tolist() == log.values_at("spent").tolist()


def test_every_reader_of_context_reads_it(tmp_path: Path) -> None:
    """A log with fields of users is, to spaces, encoders and floors, the log that repeats them in
    each event."""
    log = navigation(60, n_items=120)
    first = log.session_offsets[:-1]
    of_users = {name: values[first] for name, values in values_of(log, "event").items()}
    repeated = {name: values[log.session_of_event] for name, values in of_users.items()}
    one = put(log, event={}, user=of_users)
    other = put(log, event=repeated)
    saved = load_log(save_log(one, tmp_path / "one"))
    assert {part.of_user for part in context_of(one)} == {True}
    rows = np.arange(log.n_sessions, dtype=np.int32)
    for protocol in ("bags", "identity"):
        spaces = [fit_space(each, protocol) for each in (one, other, saved)]
        assert set(spaces[0].context_holds.values()) == {"numbers", "categories", "items"}
        mine, theirs = (
            Encoder(s, each).encode(rows) for s, each in zip(spaces, (one, other), strict=False)
        )
        for space in spaces[1:]:
            assert space.context_holds == spaces[0].context_holds
            np.testing.assert_array_equal(space.context_code.start, spaces[0].context_code.start)
        for name in ("context_ids", "context_numbers", "ids", "numbers"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    floors = [floor_table(each) for each in (one, other, saved)]
    assert any("target" in name for name in floors[0])
    assert floors[0] == floors[1] == floors[2]
    with pytest.raises(FeatureMismatchError, match="declare the same context fields"):
        Encoder(spaces[0], put(one, user={}))
    says = [str(part) for part in audit(one).context]
    assert says[0] == "hour of the user (numbers)"
    assert says[3].startswith("target of the user (items: ")


BAD: dict[str, tuple[Any, str]] = {
    "unknown user": (
        USERS[:2],
        r"user 'u9' of the log has no row \(1 of its 2 users have none; the table has 'u2' …\)",
    ),
    "no name": (USERS.with_columns(user=pl.Series(["u2", None, "u9"])), "row 2 has no user"),
    "no users": (USERS.rename({"user": "usr"}), "a user table needs a user column.*mean 'usr'"),
    "no columns": (USERS.select("user"), "at least one static column beside it"),
    "role": (USERS.rename({"land": "split"}), "'split' plays a role in logs"),
    "reserved": (USERS.rename({"land": "clicks_so_far"}), "'clicks_so_far' plays a role in logs"),
    "field": (USERS.rename({"land": "price"}), "'price' is already a field of the log"),
    "list": (USERS.with_columns(spent=pl.concat_list("spent")), "'spent' holds List"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(case: str, tmp_path: Path) -> None:
    users, says = BAD[case]
    users.write_parquet(tmp_path / "users.parquet")
    frame = LOG.with_columns(price=1.5)
    with pytest.raises(LogFormatError, match=rf"user table users\.parquet: .*{says}"):
        read_log(frame, candidate_fields=["price"], user_table=tmp_path / "users.parquet")


def test_a_saved_log_takes_no_table(table: Path, tmp_path: Path) -> None:
    saved = save_log(read_log(LOG), tmp_path / "saved")
    with pytest.raises(LogFormatError, match="the columns of its users, and not their names"):
        read_log(saved, user_table=table)
    with pytest.raises(LogFormatError, match="no such file or folder"):
        read_log(LOG, user_table=tmp_path / "absent.csv")
