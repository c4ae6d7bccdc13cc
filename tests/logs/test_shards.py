"""A log in shards: it is the log, its order can be resumed, and a wrong file is named before
anything starts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.batches import batches
from fastgaum.features.space import FeatureSpace
from fastgaum.features.windows import StreamedSessions, in_memory
from fastgaum.logs import shards as shards_module
from fastgaum.logs.audit import audit
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import open_log, read_log
from fastgaum.logs.shard_writer import shard_log, synthesise_shards
from fastgaum.logs.shards import ShardedLog, open_shards
from tests.builders import random_log
from tests.logs.test_saved_log import assert_same


def rich_log(seed: int = 0, n_sessions: int = 80) -> SessionLog:
    """A log with shared users, views, fields of every kind, and events without a click."""
    log = random_log(seed, n_sessions=n_sessions, shared_users=True, no_click=0.2)
    rng = np.random.default_rng(seed)
    return dataclasses.replace(
        log,
        views=rng.integers(1, 5, log.n_candidates).astype(np.uint16),
        candidate_fields={
            "price": rng.normal(size=log.n_candidates).astype(np.float32),
            "brand": rng.integers(-1, 3, log.n_candidates).astype(np.int32),
        },
        item_fields={
            "year": rng.normal(size=log.n_items).astype(np.float32),
            "kind": rng.integers(-1, 2, log.n_items).astype(np.int32),
        },
        event_fields={
            "hour": rng.normal(size=log.n_events).astype(np.float32),
            "query": rng.integers(-1, 2, log.n_events).astype(np.int32),
        },
        user_fields={
            "age": rng.normal(size=log.n_sessions).astype(np.float32)[log.users],
            "land": rng.integers(-1, 2, log.n_sessions).astype(np.int32)[log.users],
        },
        categories={
            "brand": pl.Series(["x", "y", "z"]),
            "kind": pl.Series(["p", "q"]),
            "query": pl.Series(["how", "why"]),
            "land": pl.Series(["be", "nl"]),
        },
        ordered=True,
    )


@pytest.mark.parametrize("n_shards", [1, 3, 40, 200])
def test_to_shards_and_back(tmp_path, n_shards) -> None:
    log = rich_log()
    shards = shard_log(log, tmp_path / "out", n_shards)
    assert len(shards.shards) == min(n_shards, 40)
    assert_same(shards.load(), log)
    assert_same(read_log(tmp_path / "out"), log)
    assert shards.fingerprint == log.fingerprint
    assert shards.counts() == log.counts()
    assert shards.has_no_click
    assert shards.session_name(57) == log.session_ids[57]
    for name in ("displays", "choices", "expected"):
        np.testing.assert_allclose(
            getattr(shards.training_counts(), name), getattr(log.training_counts(), name)
        )


def test_options_of_a_log_in_shards(tmp_path) -> None:
    shard_log(rich_log(), tmp_path / "out", 3)
    pl.DataFrame({"item": ["i1", "i2"], "size": [1.0, 2.0]}).write_parquet(
        tmp_path / "items.parquet"
    )
    log = open_log(
        tmp_path / "out",
        name="other",
        candidate_fields=["price"],
        context_fields=["query"],
        item_table=tmp_path / "items.parquet",
    )
    assert isinstance(log, ShardedLog)
    assert log.name == "other"
    assert set(log.item_fields) == {"year", "kind", "size"}
    assert_same(
        log.load(), read_log(tmp_path / "out", name="other", item_table=tmp_path / "items.parquet")
    )
    with pytest.raises(LogFormatError, match="no columns to name"):
        open_log(tmp_path / "out", columns={"item": "x"})
    with pytest.raises(LogFormatError, match="no column 'weight'"):
        open_log(tmp_path / "out", candidate_fields=["weight"])
    with pytest.raises(LogFormatError, match=r"no column 'hours'.*did you mean 'hour'"):
        open_log(tmp_path / "out", context_fields=["hours"])
    with pytest.raises(LogFormatError, match="keeps no times"):
        open_log(tmp_path / "out", split="time")
    with pytest.raises(ConfigError, match="split is 'thirds'"):
        open_log(tmp_path / "out", split="thirds")


def edit_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    about = json.loads((folder / "shards.json").read_text())
    change(about)
    (folder / "shards.json").write_text(json.dumps(about))


def cut_short(folder: Path) -> None:
    data = (folder / "shard-00001.parquet").read_bytes()
    (folder / "shard-00001.parquet").write_bytes(data[: len(data) // 2])


def swap(folder: Path) -> None:
    (folder / "shard-00001.parquet").rename(folder / "x")
    (folder / "shard-00002.parquet").rename(folder / "shard-00001.parquet")
    (folder / "x").rename(folder / "shard-00002.parquet")


def flip(folder: Path) -> None:
    data = bytearray((folder / "shard-00001.parquet").read_bytes())
    data[100] ^= 1
    (folder / "shard-00001.parquet").write_bytes(data)


def foreign(folder: Path) -> None:
    other = shard_log(rich_log(1), folder.parent / "other", 3)
    shutil.copy(other.folder / "shard-00001.parquet", folder / "shard-00001.parquet")
    size = (folder / "shard-00001.parquet").stat().st_size
    edit_manifest(folder, lambda about: about["shards"][1].update(bytes=size))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (cut_short, r"shard-00001\.parquet' has \d+ bytes"),
    "missing": (
        lambda f: (f / "shard-00001.parquet").unlink(),
        r"shard-00001\.parquet' is missing",
    ),
    "swapped": (swap, r"shard-0000[12]\.parquet' has (\d+ bytes|the sha256)"),
    "copied over another": (
        lambda f: shutil.copy(f / "shard-00001.parquet", f / "shard-00002.parquet"),
        r"shard-00002\.parquet' has (\d+ bytes|the sha256)",
    ),
    "of another log": (foreign, r"shard-00001\.parquet' has the sha256"),
    "one bit": (flip, r"shard-00001\.parquet' has the sha256"),
    "no items": (lambda f: (f / "items.parquet").unlink(), r"items\.parquet' is missing"),
    "no json": (
        lambda f: (f / "shards.json").write_text("{"),
        r"shards\.json' is damaged",
    ),
    "other json": (
        lambda f: (f / "shards.json").write_text("[]"),
        r"shards\.json' is damaged",
    ),
    "other version": (
        lambda f: edit_manifest(f, lambda a: a.update(version=9)),
        "format version 9",
    ),
    "no name": (lambda f: edit_manifest(f, lambda a: a.pop("name")), r"shards\.json' is damaged"),
    "a way out": (
        lambda f: edit_manifest(f, lambda a: a["shards"][0].update(file="../shard-00000.parquet")),
        "a plain name is required",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_file_is_named_at_once(tmp_path, damage) -> None:
    shard_log(rich_log(), tmp_path / "out", 3)
    change, message = DAMAGES[damage]
    change(tmp_path / "out")
    with pytest.raises(LogFormatError, match=message):
        open_log(tmp_path / "out")


def test_changed_content_of_a_large_log_is_found_when_it_is_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shards_module, "HASHED_AT_ONCE", 0)
    shard_log(rich_log(), tmp_path / "out", 3)
    flip(tmp_path / "out")
    log = open_shards(tmp_path / "out")
    log.read(0)
    with pytest.raises(LogFormatError, match=r"shard-00001\.parquet' has the sha256"):
        log.read(1)
    with pytest.raises(LogFormatError, match="sha256"):
        open_shards(tmp_path / "out", verify=True)


def test_counts_that_are_not_the_shard_s_are_refused(tmp_path) -> None:
    shard_log(rich_log(), tmp_path / "out", 3)
    edit_manifest(tmp_path / "out", lambda about: about["shards"][1].update(sessions=[1, 1, 1]))
    with pytest.raises(LogFormatError, match=r"does not hold what shards\.json says of it"):
        open_shards(tmp_path / "out").read(1)


def streamed(log: ShardedLog, window: int = 2) -> StreamedSessions:
    space = FeatureSpace.fit(log, "identity", set_context=False)
    return StreamedSessions(space.encoder(log), log, "train", window)


def rows_of_batches(sessions: StreamedSessions, seed: int, skip: int = 0) -> list[list[int]]:
    return [
        batch.rows.tolist() for batch in batches(sessions, 7, np.random.default_rng(seed), skip)
    ]


def test_the_order_is_drawn_by_shards_and_windows_and_begins_anywhere(tmp_path) -> None:
    log = rich_log(n_sessions=200)
    shards = shard_log(log, tmp_path / "out", 6)
    whole = rows_of_batches(streamed(shards), 0)
    assert sorted(row for batch in whole for row in batch) == log.sessions_in("train").tolist()
    assert rows_of_batches(streamed(shards), 0) == whole != rows_of_batches(streamed(shards), 1)
    for skip in range(len(whole) + 2):
        assert rows_of_batches(streamed(shards), 0, skip) == whole[skip:]
    # a window is two of the six shards: its sessions come together, mixed
    shards_of = [
        set(np.searchsorted(shards.first_sessions(), batch, side="right").tolist())
        for batch in whole
    ]
    windows = {frozenset(one) for one in shards_of if len(one) == 2}
    assert len(windows) == 3
    assert set.union(*map(set, windows)) == {1, 2, 3, 4, 5, 6}
    assert all(any(one <= window for window in windows) for one in shards_of)


def test_windows_that_are_skipped_are_not_read(tmp_path, monkeypatch) -> None:
    sessions = streamed(shard_log(rich_log(n_sessions=200), tmp_path / "out", 6))
    whole = rows_of_batches(sessions, 0)
    read: list[int] = []
    inner = ShardedLog.read
    monkeypatch.setattr(
        ShardedLog,
        "read",
        lambda self, number, ids=True: (read.append(number), inner(self, number, ids))[1],
    )
    assert rows_of_batches(sessions, 0, len(whole) - 1) == whole[-1:]
    assert len(read) == 2
    # batches that are cut by their candidates cannot be counted unread
    read.clear()
    for module in ("batches", "in_memory", "sessions"):
        monkeypatch.setattr(f"fastgaum.features.{module}.BATCH_CANDIDATES", 20)
    cut = rows_of_batches(sessions, 0)
    assert len(cut) > len(whole)
    for skip in (1, len(cut) // 2, len(cut) - 1):
        assert rows_of_batches(sessions, 0, skip) == cut[skip:]


def test_batches_hold_the_sessions_they_name(tmp_path) -> None:
    log = rich_log(n_sessions=60)
    sessions = streamed(shard_log(log, tmp_path / "out", 5))
    space = sessions.encoder.space
    for batch in batches(sessions, 4, np.random.default_rng(0)):
        alone = space.encode(log, batch.rows.astype(np.int32))
        np.testing.assert_array_equal(batch.ids, alone.ids)
        np.testing.assert_array_equal(batch.choices, alone.choices)
        present, rows = in_memory(sessions)
        assert set(batch.rows) <= set(rows.tolist())
        assert present.n_sessions == len(rows)


@pytest.mark.parametrize("protocol", ["identity", "bags", "views"])
def test_the_space_is_that_of_the_log_in_memory(tmp_path, protocol) -> None:
    log = rich_log(n_sessions=120)
    whole = FeatureSpace.fit(log, protocol, relations=True)
    for n_shards in (1, 7):
        shards = shard_log(log, tmp_path / f"{n_shards}", n_shards)
        space = FeatureSpace.fit(shards, protocol, relations=True)
        tolerance = 0 if n_shards == 1 else 1e-5
        # each shard numbers its users from 0: in several training is read in another order
        of_numbers = ("mean", "scale") if n_shards == 1 else ()
        for owners, fields in (
            ((space, whole), of_numbers),
            ((space.item_counts, whole.item_counts), ("displays", "choices", "expected")),
        ):
            for field in fields:
                ours, theirs = (getattr(owner, field) for owner in owners)
                np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        assert [part.values.to_list() for part in space.categorical] == [
            part.values.to_list() for part in whole.categorical
        ]
        assert space.relations is not None
        assert whole.relations is not None
        for table in ("rivals", "follows"):
            for field in ("starts", "keys", "counts"):
                np.testing.assert_array_equal(
                    getattr(getattr(space.relations, table), field),
                    getattr(getattr(whole.relations, table), field),
                )
        encoder, first = space.encoder(shards), 0
        for part in shards.parts():
            rows = np.flatnonzero((part.split != 0) | (n_shards == 1)).astype(np.int32)
            mine = encoder.on(part).encode(rows)
            theirs = whole.encode(log, rows + np.int32(first))
            np.testing.assert_array_equal(mine.ids, theirs.ids)
            raw = mine.numbers * space.scale + space.mean
            np.testing.assert_allclose(raw, theirs.numbers * whole.scale + whole.mean, atol=1e-4)
            first += part.n_sessions


def test_the_audit_of_shards_is_the_audit_of_the_log(tmp_path) -> None:
    log = rich_log(n_sessions=300)
    whole = audit(log).to_dict()
    parts = audit(shard_log(log, tmp_path / "out", 7)).to_dict()
    assert [f["rule"] for f in parts["findings"]] == [f["rule"] for f in whole["findings"]]
    assert any("missing" in f["rule"] for f in whole["findings"])
    assert {k: parts[k] for k in ("n_sessions", "n_users", "n_events", "n_rule_events")} == (
        {k: whole[k] for k in ("n_sessions", "n_users", "n_events", "n_rule_events")}
    )
    for mine, theirs in zip(parts["findings"], whole["findings"], strict=True):
        assert mine["p"] == pytest.approx(theirs["p"], rel=1e-6)
        assert mine["prec_at_1"] == pytest.approx(theirs["prec_at_1"])
        assert mine["interval"] == pytest.approx(theirs["interval"])
        assert mine["test_prec_at_1"] == pytest.approx(theirs["test_prec_at_1"])
    for mine, theirs in zip(parts["facts"], whole["facts"], strict=True):
        assert mine == theirs | {"percent": pytest.approx(theirs["percent"])}


def test_a_world_is_drawn_into_shards(tmp_path) -> None:
    log = synthesise_shards(3_000, tmp_path / "out", 5, n_items=40, seed=3)
    assert log.n_events == 3_000
    assert len(log.shards) == 5
    whole = log.load()
    assert len(set(whole.session_ids)) == whole.n_sessions
    assert set(np.unique(whole.split)) == {0, 1, 2}
    assert (
        log.fingerprint
        == synthesise_shards(3_000, tmp_path / "again", 5, n_items=40, seed=3).fingerprint
    )
    assert (
        log.fingerprint
        != synthesise_shards(3_000, tmp_path / "other", 5, n_items=40, seed=4).fingerprint
    )
