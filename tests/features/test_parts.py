"""A space counted in parts is that of the whole log; a training session reads the counts of other
groups of parts alone."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.features import parts as parts_of_log
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import SpaceChoices, fit_space
from fastgaum.features.parts import PartsOfLog, Windows
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_counts import add_counts
from fastgaum.game.processes import Processes
from fastgaum.logs.cut import join_sessions, slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.logs.parts import slices_by_user
from fastgaum.logs.store import StoredLog, save_parts
from tests.logs.test_saved_log import rich_log

CHOICES = SpaceChoices("bags", True, True, False, 4, True, True)


def stored_log(folder: Path, log: SessionLog, parts: int) -> StoredLog:
    return StoredLog(save_parts(slices_by_user(log, parts), folder))


@pytest.fixture
def log() -> SessionLog:
    return rich_log(n_sessions=200)


def assert_same_counts(one: FeatureSpace, other: FeatureSpace) -> None:
    for left, right in zip(
        vars(one.item_counts).values(), vars(other.item_counts).values(), strict=True
    ):
        np.testing.assert_allclose(left, right)
    assert one.relations is not None
    assert other.relations is not None
    for name in ("rivals", "follows"):
        left, right = getattr(one.relations, name), getattr(other.relations, name)
        # a pair that one group alone has stays in the table of the others, with counts of 0
        met = left.counts.any(axis=1)
        starts = np.concatenate(([0], np.cumsum(met)))[left.starts]
        np.testing.assert_array_equal(left.keys[met], right.keys)
        np.testing.assert_array_equal(left.counts[met], right.counts)
        np.testing.assert_array_equal(starts, right.starts)
    for left, right in zip(one.crossed, other.crossed, strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("examination", [False, True])
def test_parts_are_counted_as_the_whole_log(
    tmp_path: Path, log: SessionLog, examination: bool
) -> None:
    stored = stored_log(tmp_path / "log", log, 5)
    of_parts = PartsOfLog(stored, CHOICES, examination=examination, peers=Processes()).space
    whole = fit_space(log, "bags", True, relations=True, examination=examination)
    assert_same_counts(of_parts, whole)
    np.testing.assert_allclose(of_parts.place_rates, whole.place_rates)
    for name in ("field_names", "number_names", "context_number_names", "no_click", "grid"):
        assert getattr(of_parts, name) == getattr(whole, name)
    for one, other in zip(of_parts.fields, whole.fields, strict=True):
        assert (one.name, one.start, one.values.to_list()) == (
            other.name,
            other.start,
            other.values.to_list(),
        )
    np.testing.assert_array_equal(of_parts.trained.users, whole.trained.users)


@pytest.mark.parametrize("n_sessions", [24, 200])
def test_the_counts_without_a_group_are_those_of_the_others(
    tmp_path: Path, n_sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, of_groups = rich_log(n_sessions=n_sessions), list[FeatureSpace]()

    def noted(spaces: list[FeatureSpace]) -> FeatureSpace:
        of_groups.extend(spaces)
        return add_counts(spaces)

    monkeypatch.setattr(parts_of_log, "add_counts", noted)
    parts = PartsOfLog(
        stored_log(tmp_path / "log", log, 4), CHOICES, examination=False, peers=Processes()
    )
    encoder = Encoder(parts.space, log)
    for group in range(4):
        wanted = add_counts([one for number, one in enumerate(of_groups) if number != group])
        found = parts_of_log.subtract_counts(parts.space, parts._of_groups[group])
        assert_same_counts(found, wanted)
        assert found.relations is not None
        assert parts.space.relations is not None
        assert found.relations.rivals.keys is parts.space.relations.rivals.keys
        assert wanted.relations is not None
        if n_sessions == 24:
            # pairs that this group alone has
            assert len(found.relations.follows.keys) > len(wanted.relations.follows.keys)
        read = dataclasses.replace(found, relations=wanted.relations)
        numbers = [
            encoder.with_space(one, None).encode(log.sessions_in("train")).base
            for one in (found, read)
        ]
        np.testing.assert_array_equal(*numbers)


def test_no_training_session_reads_choices_of_its_own_group(
    tmp_path: Path, log: SessionLog
) -> None:
    """Other choices in a part leave what its own sessions read as it was."""
    slices = list(slices_by_user(log, 4))
    one = slices[1]
    sizes = np.diff(one.display_offsets)
    other = dataclasses.replace(one, choices=((one.choices + 1) % sizes).astype(np.int32))
    # what follows a choice in its session may read it, a first event may not
    changed = [slices[0], other, *slices[2:]]
    numbers = []
    for name, parts in (("one", slices), ("other", changed)):
        stored = StoredLog(save_parts(parts, tmp_path / name))
        read = PartsOfLog(stored, CHOICES, examination=False, peers=Processes())
        encoded = read.encode_training([1])
        first = encoded.event_number == 0
        numbers.append(encoded.base[np.repeat(first, np.diff(encoded.display_offsets))])
    # what is left of a sum less its own part is rounded
    np.testing.assert_allclose(*numbers, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_a_pass_of_windows_reads_each_part_once(
    tmp_path: Path, log: SessionLog, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stored_log(tmp_path / "log", log, 20)
    monkeypatch.setattr(parts_of_log, "WINDOW_CANDIDATES", stored.count("candidates", "train") / 10)
    parts = PartsOfLog(stored, CHOICES, examination=False, peers=Processes())
    orders = []
    for epoch in range(2):
        read = []
        for rank in range(size):
            windows = Windows(parts, 3, rank, size)
            for numbers in windows.numbers(epoch):
                assert len({number % parts_of_log.GROUPS for number in numbers}) == 1
                read += numbers
        assert sorted(read) == list(range(stored.n_parts))
        orders.append(read)
    assert orders[0] != orders[1]
    windows = Windows(parts, 3)
    assert windows.numbers(1) == Windows(parts, 3).numbers(1)
    n_read = [one.n_sessions for one in windows.read(0)]
    assert n_read == [windows.n_sessions(one) for one in windows.numbers(0)]
    assert sum(n_read) == log.count("sessions", "train")


def test_a_reader_that_is_left_can_be_closed_by_the_thread_that_decodes(
    tmp_path: Path, log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as the garbage collector does when it happens to run there
    stored = stored_log(tmp_path / "log", log, 20)
    monkeypatch.setattr(parts_of_log, "WINDOW_CANDIDATES", stored.count("candidates", "train") / 10)
    parts = PartsOfLog(stored, CHOICES, examination=False, peers=Processes())
    windows = Windows(parts, 3)
    left, closed, encode = Event(), Event(), parts.encode_training

    def encode_and_close(numbers: list[int]) -> object:
        if numbers == windows.numbers(0)[1]:
            assert left.wait(60)
            reader.close()
            closed.set()
        return encode(numbers)

    monkeypatch.setattr(parts, "encode_training", encode_and_close)
    reader = windows.read(0)
    next(reader)
    left.set()
    assert closed.wait(60)
    assert next(reader, None) is None


def test_a_long_log_has_epochs_of_some_windows(
    tmp_path: Path, log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stored_log(tmp_path / "log", log, 16)
    monkeypatch.setattr(parts_of_log, "WINDOW_CANDIDATES", 1)
    monkeypatch.setattr(parts_of_log, "EPOCH_EVENTS", stored.count("events", "train") / 4)
    windows = Windows(PartsOfLog(stored, CHOICES, examination=False, peers=Processes()), 0)
    assert windows.of_epoch == windows.of_pass // 4
    read = [number for epoch in range(4) for one in windows.numbers(epoch) for number in one]
    assert sorted(read) == list(range(stored.n_parts))


def test_joined_sessions_are_those_of_the_log(log: SessionLog) -> None:
    halves = [slice_sessions(log, np.arange(0, 90)), slice_sessions(log, np.arange(90, 200))]
    joined = join_sessions(halves)
    assert joined.fingerprint == log.fingerprint


def test_validation_is_drawn_by_users(
    tmp_path: Path, log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stored_log(tmp_path / "log", log, 4)
    whole = stored.read_split("validation")
    assert whole.count("events", "validation") == log.count("events", "validation")
    few = stored.read_split("validation", whole.n_events // 2)
    assert 0 < few.n_events < whole.n_events
    left = np.setdiff1d(whole.user_hashes, few.user_hashes)
    assert len(np.intersect1d(left, few.user_hashes)) == 0
    kept = np.isin(whole.user_hashes, few.user_hashes)
    assert kept.sum() == few.n_sessions


class Threads:
    """A process of two, which are threads."""

    def __init__(self, rank: int, meet: Barrier, values: list[Any]) -> None:
        self.rank, self.size, self.meet, self.values = rank, 2, meet, values

    def gather(self, value: Any) -> list[Any]:
        self.values[self.rank] = value
        self.meet.wait(60)
        found: list[Any] = pickle.loads(pickle.dumps(self.values))
        self.meet.wait(60)
        return found


def of_two(make: Callable[[Threads], Any]) -> list[Any]:
    meet, values = Barrier(2), [None, None]
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(make, Threads(rank, meet, values)) for rank in range(2)]
    return [one.exception() or one.result() for one in made]


def test_two_processes_count_half_of_the_parts_each(tmp_path: Path, log: SessionLog) -> None:
    stored_log(tmp_path / "log", log, 20)
    read: dict[int, list[int]] = {0: [], 1: []}

    def make(peers: Threads) -> FeatureSpace:
        stored = StoredLog(tmp_path / "log")
        whole = stored.read

        def noted(numbers: Any, *more: Any) -> SessionLog:
            read[peers.rank] += list(numbers)
            return whole(numbers, *more)

        stored.read = noted  # type: ignore[method-assign]
        return PartsOfLog(stored, CHOICES, examination=True, peers=peers).space

    one, other = of_two(make)
    whole = PartsOfLog(
        StoredLog(tmp_path / "log"), CHOICES, examination=True, peers=Processes()
    ).space
    for space in (one, other):
        assert_same_counts(space, whole)
        np.testing.assert_array_equal(space.place_rates, whole.place_rates)
        np.testing.assert_array_equal(space.trained.users, whole.trained.users)
        np.testing.assert_allclose(space.code.start, whole.code.start, rtol=1e-5)
    np.testing.assert_array_equal(one.code.start, other.code.start)
    for rank, numbers in read.items():
        own = [n for n in range(20) if n % parts_of_log.GROUPS % 2 == rank]
        # each twice, and the first part once more for its columns, and for the sample
        assert sorted(numbers) == sorted([*own, *own, 0, 0])


def test_a_damaged_part_is_named_in_all_processes(tmp_path: Path, log: SessionLog) -> None:
    stored_log(tmp_path / "log", log, 20)
    (damaged,) = (tmp_path / "log").glob("events-3.*")
    damaged.write_bytes(damaged.read_bytes()[:100])
    errors = of_two(lambda peers: PartsOfLog(StoredLog(tmp_path / "log"), CHOICES, True, peers))
    for error in errors:
        assert isinstance(error, LogFormatError)
        assert "events-3" in str(error)
