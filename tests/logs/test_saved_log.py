from __future__ import annotations

import dataclasses
import os
import stat
from contextlib import contextmanager, nullcontext

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError, OutputError
from fastgaum.logs import store
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import read_log
from fastgaum.logs.store import is_saved_log, load_log, save_log
from tests.builders import put, random_log, with_fields


@pytest.fixture
def log() -> SessionLog:
    frame = pl.DataFrame(
        {
            "session": ["u3", "u3", "u1", "u1"],
            "event": [1, 1, 0, 0],
            "item": ["b", "a", "c", "a"],
            "chosen": [0, 1, 0, 0],
            "price/€": [2.0, 1.5, 3.0, 4.0],
            "brand": ["x", None, "y", "x"],
        }
    )
    packed = read_log(frame, candidate_fields=["price/€", "brand"], ordered=True, name="tiny")
    return put(packed, item={"year": np.array([1, 2, 3], dtype=np.float32)})


def assert_same(left: SessionLog, right: SessionLog) -> None:
    for field in dataclasses.fields(SessionLog):
        if field.name == "reading":
            continue
        # a log whose users are known by their codes is saved with these as their ids
        name = "user_hashes" if field.name == "user_ids" else field.name
        a, b = getattr(left, name), getattr(right, name)
        if field.name == "columns":
            assert a.keys() == b.keys()
            parts = ("of", "values", "texts")
            pairs = [(getattr(a[key], part), getattr(b[key], part)) for key in a for part in parts]
        else:
            pairs = [(a, b)]
        for one, other in pairs:
            if isinstance(one, pl.Series):
                assert one.dtype == other.dtype
                assert one.to_list() == other.to_list()
            elif isinstance(one, np.ndarray):
                assert one.dtype == other.dtype, field.name
                np.testing.assert_array_equal(one, other)
            else:
                assert one == other


def test_saved_and_loaded_is_the_same(tmp_path, log) -> None:
    loaded = load_log(save_log(log, tmp_path / "deep" / "log"))
    assert_same(loaded, log)
    assert loaded.fingerprint == dataclasses.replace(loaded).fingerprint == log.fingerprint
    empty = dataclasses.replace(slice_sessions(log, np.array([], dtype=np.int32)), views=None)
    for name, other in (("rich", rich_log()), ("empty", empty)):
        assert_same(load_log(save_log(other, tmp_path / name)), other)


def rich_log(seed: int = 0, n_sessions: int = 80) -> SessionLog:
    """A log with shared users, views, fields of every kind, and events without a click."""
    log = random_log(seed, n_sessions=n_sessions, shared_users=True, no_click=0.2)
    rng = np.random.default_rng(seed)
    return put(
        with_fields(log, seed),
        event={
            "hour": rng.normal(size=log.n_events).astype(np.float32),
            "query": rng.integers(-1, 2, log.n_events).astype(np.int32),
        },
        user={
            "age": rng.normal(size=log.n_sessions).astype(np.float32)[log.users],
            "land": rng.integers(-1, 2, log.n_sessions).astype(np.int32)[log.users],
        },
        categories={"query": pl.Series(["how", "why"]), "land": pl.Series(["be", "nl"])},
    )


def test_read_log_takes_a_saved_log(tmp_path, log) -> None:
    folder = save_log(log, tmp_path / "saved")
    assert_same(read_log(folder), log)
    assert read_log(folder, name="other").name == "other"
    assert read_log(folder, candidate_fields=["brand"]).fingerprint == log.fingerprint
    assert sorted(read_log(folder, split="user", split_seed=1).split.tolist()) == [0, 1]
    halves = [read_log(folder, split=rule).split for rule in ("half", "other-half")]
    assert ((halves[0] == 2) != (halves[1] == 2)).all()
    pl.DataFrame({"item": ["a"], "kind": ["k"]}).write_parquet(tmp_path / "items.parquet")
    kinds = read_log(folder, item_table=tmp_path / "items.parquet").columns["kind"]
    assert kinds.values.tolist() == [0, -1, -1]
    with pytest.raises(LogFormatError, match=r"no column 'brnd'.*did you mean 'brand'"):
        read_log(folder, candidate_fields=["brnd"])
    with pytest.raises(
        LogFormatError,
        match="a saved log was read before, it has no columns to name: read the original, or leave",
    ):
        read_log(folder, columns={"item": "sku"})
    with pytest.raises(LogFormatError, match="keeps no times"):
        read_log(folder, split="time")
    unordered = save_log(dataclasses.replace(log, ordered=False), tmp_path / "unordered")
    with pytest.raises(LogFormatError, match="saved without its display order"):
        read_log(unordered, ordered=True)
    with pytest.raises(LogFormatError, match="it has its display order: read the original"):
        read_log(folder, ordered=False)


def test_saving_replaces_a_log_and_leaves_nothing_beside(tmp_path, log) -> None:
    folder = save_log(log, tmp_path / "log")
    save_log(slice_sessions(log, np.array([1])), folder, overwrite=True)
    assert load_log(folder).n_sessions == 1
    assert os.listdir(tmp_path) == ["log"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_a_log_is_whole_at_every_moment_of_its_replacement(tmp_path, log, monkeypatch) -> None:
    """Before each file is written and each name changes, a reader finds the former log; after the
    last, the new one."""
    folder = save_log(log, tmp_path / "log")
    new = slice_sessions(log, np.array([1]))
    seen = []

    def look() -> None:
        loaded = load_log(folder)
        seen.append(loaded.fingerprint)

    for module, name in (
        (pl.DataFrame, "write_parquet"),
        (os, "replace"),
        (os, "unlink"),
        (os, "fsync"),
    ):
        act = getattr(module, name)

        def watched(*args, act=act, **options):
            look()
            result = act(*args, **options)
            look()
            return result

        monkeypatch.setattr(module, name, watched)
    save_log(new, folder, overwrite=True)
    look()
    change = seen.index(new.fingerprint)
    assert len(seen) > 15
    assert change > 10
    assert set(seen[:change]) == {log.fingerprint}
    assert set(seen[change:]) == {new.fingerprint}
    monkeypatch.undo()
    n_files = len(os.listdir(folder))
    save_log(new, folder, overwrite=True)
    assert len(os.listdir(folder)) == n_files


def test_a_reader_in_the_midst_of_a_replacement_reads_the_new_log(
    tmp_path, log, monkeypatch
) -> None:
    folder = save_log(log, tmp_path / "log")
    new, read, done = slice_sessions(log, np.array([1])), pl.read_parquet, []

    def late(file, **options):
        if not done:
            done.append(save_log(new, folder, overwrite=True))
        return read(file, **options)

    monkeypatch.setattr(pl, "read_parquet", late)
    assert load_log(folder).fingerprint == new.fingerprint


def test_saving_over_something_else_is_refused(tmp_path, log) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for target in ("mine", "file"):
        with pytest.raises(OutputError, match="exists and is no saved log"):
            save_log(log, tmp_path / target, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(OutputError, match="cannot write the log"):
        save_log(log, tmp_path / "file" / "log")


def test_a_saved_log_is_replaced_only_when_told(tmp_path, log) -> None:
    """An empty folder is free."""
    folder, other = tmp_path / "log", slice_sessions(log, np.array([1]))
    folder.mkdir()
    save_log(log, folder)
    with pytest.raises(OutputError, match=r"holds a saved log already.*overwrite=True"):
        save_log(other, folder)
    assert load_log(folder).fingerprint == log.fingerprint
    save_log(other, folder, overwrite=True)
    assert load_log(folder).fingerprint == other.fingerprint


def test_a_save_that_was_killed_leaves_room_for_the_next(tmp_path, log) -> None:
    folder = save_log(log, tmp_path / "log")
    (folder / "log.json").rename(folder / ".log.json.0a1b2c3d.part")
    save_log(log, folder)
    assert len(os.listdir(folder)) == 4
    assert_same(load_log(folder), log)


def test_of_two_that_save_at_once_the_second_is_told(tmp_path, log, monkeypatch) -> None:
    """The first ends while the second waits for its turn."""
    lock = store.name_lock

    @contextmanager
    def late(target):
        with lock(target):
            if not is_saved_log(target):
                monkeypatch.setattr(store, "name_lock", lambda _: nullcontext())
                save_log(log, target)
            yield

    monkeypatch.setattr(store, "name_lock", late)
    with pytest.raises(OutputError, match="holds a saved log already"):
        save_log(slice_sessions(log, np.array([1])), tmp_path / "log")
    assert load_log(tmp_path / "log").fingerprint == log.fingerprint


def test_a_failed_save_leaves_the_former_log(tmp_path, log, monkeypatch) -> None:
    folder = save_log(log, tmp_path / "log")

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_log(slice_sessions(log, np.array([1])), folder, overwrite=True)
    assert_same(load_log(folder), log)
    assert os.listdir(tmp_path) == ["log"]
