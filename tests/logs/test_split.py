from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.hashes import hash_texts, mix_hashes
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.splits import resplit_by, shuffled_split, split_in_order, split_users
from fastgaum.logs.store import save_log
from fastgaum.logs.synthetic import synthesise


def hashes_of(n: int) -> np.ndarray:
    return hash_texts(pl.Series([f"u{i}" for i in range(n)], dtype=pl.String))


def part_of_users(log: SessionLog) -> dict[str, str]:
    assert log.user_ids is not None
    return dict(zip(log.user_ids, (SPLITS[part] for part in log.split), strict=True))


def visits(n_users: int) -> pl.DataFrame:
    """Two sessions of each user, one event each; users are whole numbers."""
    n = 2 * n_users
    return pl.DataFrame(
        {
            "session": [f"s{i}" for i in range(n) for _ in range(2)],
            "user": [i // 2 for i in range(n) for _ in range(2)],
            "event": [i % 9 for i in range(n) for _ in range(2)],
            "item": ["a", "b"] * n,
            "chosen": [1, 0] * n,
        }
    )


@pytest.mark.parametrize("rule", ["user", "half", "other-half"])
def test_a_split_is_free_of_order_and_a_grown_log_keeps_it(rule, tmp_path) -> None:
    frame = visits(200)
    parts = part_of_users(read_log(frame, split=rule))
    reverse = read_log(frame.reverse(), split=rule)
    assert part_of_users(reverse) == parts
    grown = part_of_users(read_log(visits(230).reverse(), split=rule))
    assert {user: grown[user] for user in parts} == parts
    frame.write_csv(tmp_path / "log.csv")
    assert part_of_users(read_log(tmp_path / "log.csv", split=rule)) == parts
    frame.write_parquet(tmp_path / "log.parquet")
    saved = save_log(read_log(tmp_path / "log.parquet", split=rule), tmp_path / "saved")
    assert part_of_users(read_log(saved)) == parts
    assert part_of_users(read_log(saved, split="user", split_seed=4)) == part_of_users(
        read_log(frame, split="user", split_seed=4)
    )


def test_sessions_are_users_where_a_log_names_none() -> None:
    frame = visits(60).drop("user")
    parts = part_of_users(read_log(frame))
    assert set(parts) == set(frame["session"])
    assert part_of_users(read_log(frame.reverse())) == parts


def test_hashes_are_the_same_everywhere() -> None:
    """A model file that holds other ones would know nobody."""
    assert hash_texts(pl.Series(["", "7", "ö", "7"])).tolist() == [
        13020603013274838756,
        9407870976149377255,
        1878671361576370148,
        9407870976149377255,
    ]
    mixed = mix_hashes(np.array([1, 2], np.uint64), np.array([3, 3], np.uint64))
    assert mixed.tolist() == [13592992832856903821, 2554043094958247610]
    assert split_users(hashes_of(12), 5).tolist() == [2, 1, 0, 2, 2, 0, 1, 0, 2, 1, 0, 1]


def test_a_split_of_a_million_users_is_even() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 1_000_000, np.uint64)
    one, other = split_users(hashes, 0), split_users(hashes, 1)
    assert one.dtype == np.int8
    # users stay whole
    np.testing.assert_array_equal(split_users(np.repeat(hashes[:400], 3), 0), one[:400].repeat(3))
    shares = np.histogram2d(one, other, bins=3)[0] / 1_000_000
    np.testing.assert_allclose(shares, np.outer([0.5, 0.25, 0.25], [0.5, 0.25, 0.25]), atol=0.002)


@pytest.mark.parametrize("n", range(9))
def test_small_logs_have_every_part(n) -> None:
    """Three users are enough, in whatever order they come."""
    users = hashes_of(n)
    for seed in range(20):
        split = split_users(users, seed)
        sizes = np.bincount(split, minlength=3)
        assert (sizes > 0).tolist() == [n > 0, n > 1, n > 2]
        np.testing.assert_array_equal(split_users(users[::-1], seed), split[::-1])


def test_a_log_that_is_made_has_exact_shares() -> None:
    assert np.bincount(shuffled_split(10, 0, (0.8, 0.0, 0.2)), minlength=3).tolist() == [8, 0, 2]
    assert split_in_order(5).tolist() == [0, 0, 0, 1, 2]


def test_by_time_ties_do_not_follow_the_order_of_the_log() -> None:
    frame = visits(30)
    log, other = read_log(frame, split="time"), read_log(frame.reverse(), split="time")
    assert np.bincount(log.split).tolist() == [30, 15, 15]
    assert dict(zip(log.session_ids, log.split, strict=True)) == dict(
        zip(other.session_ids, other.split, strict=True)
    )
    with pytest.raises(LogFormatError, match="every session starts at 4"):
        read_log(frame.with_columns(event=4), split="time")


def test_a_seed_that_splits_nothing_is_refused(tmp_path) -> None:
    frame = visits(30)
    own = frame.with_columns(split=0)
    saved = save_log(read_log(frame), tmp_path / "saved")
    seed, rule = {"split_seed": 7}, {"split": "user"}
    record = ReadOptions.from_json(ReadOptions.of(**seed).to_json())  # type: ignore[arg-type]
    for source, more in ((own, {}), (saved, {}), (frame, {"split": "time"})):
        with pytest.raises(ConfigError, match=r"split_seed is 7, .*--split-by user"):
            read_log(source, **seed, **more)  # type: ignore[arg-type]
        # but a run remembers the seed of another log
        assert (
            read_log(source, options=record, **more).split == read_log(source, **more).split
        ).all()  # type: ignore[arg-type]
        drawn = read_log(source, options=record, **rule).split  # type: ignore[arg-type]
        assert (drawn == read_log(frame, **seed).split).all()  # type: ignore[arg-type]


def test_two_splits_of_one_session() -> None:
    columns = {"session": "u", "event": [0, 1], "item": "a", "chosen": 1, "split": [0, 2]}
    frame = pl.DataFrame(columns)
    with pytest.raises(LogFormatError, match="session 'u' has the splits 0 and 2, one is required"):
        read_log(frame)
    assert len(read_log(frame.drop("split")).split) == 1


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8, 40, 400])
def test_halves_share_no_user_and_test_each_other(n) -> None:
    users = np.repeat(hashes_of(n), 2)
    one, other = (split_users(users, 3, rule) for rule in ("half", "other-half"))
    assert ((one == 2) != (other == 2)).all()
    for split in (one, other):
        assert all(len(set(split[users == user].tolist())) == 1 for user in users)
        fitted = np.unique(users[split != 2])
        assert len(fitted) < 2 or {0, 1} <= set(split.tolist())
    if n == 400:
        np.testing.assert_allclose(np.bincount(one) / 800, [0.375, 0.125, 0.5], atol=0.06)
        assert (one != split_users(users, 4, "half")).any()


def test_a_rule_that_splits_no_users_is_refused() -> None:
    """It was taken for `half`."""
    log, _ = synthesise(50, seed=0)
    with pytest.raises(ConfigError, match="'halves', one of user, half, other-half"):
        resplit_by(log, "halves", 0)
    with pytest.raises(ConfigError):
        resplit_by("log", "half", 0)  # type: ignore[arg-type]
