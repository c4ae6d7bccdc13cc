from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.fold import split_by_time
from fastgaum.logs.log import resplit, resplit_by, split_by_half, split_by_user
from fastgaum.logs.read import read_frame, read_log
from fastgaum.logs.synthetic import synthesise


def test_users_stay_whole_and_shares_are_kept() -> None:
    users = np.repeat(np.arange(100, dtype=np.int32), 3)
    np.random.default_rng(0).shuffle(users)
    split = split_by_user(users, seed=0)
    parts = [split[users == user] for user in range(100)]
    assert all(len(set(part.tolist())) == 1 for part in parts)
    assert np.bincount([part[0] for part in parts]).tolist() == [50, 25, 25]
    assert split.dtype == np.int8


def test_a_seed_repeats_itself_and_others_differ() -> None:
    users = np.arange(200, dtype=np.int32)
    np.testing.assert_array_equal(split_by_user(users, 3), split_by_user(users, 3))
    assert (split_by_user(users, 3) != split_by_user(users, 4)).mean() > 0.3


def test_a_split_does_not_depend_on_how_users_are_numbered() -> None:
    users = np.array([0, 1, 2, 1, 0, 3], dtype=np.int32)
    np.testing.assert_array_equal(split_by_user(users, 1), split_by_user(users * 10 + 5, 1))


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [2, 0, 1]), (4, [2, 1, 1]), (8, [4, 2, 2])]
)
def test_small_logs(n, sizes) -> None:
    assert (
        np.bincount(split_by_user(np.arange(n, dtype=np.int32), 0), minlength=3).tolist() == sizes
    )


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.4, 0.2), (1.5, -0.25, -0.25)])
def test_fractions_must_be_shares(fractions) -> None:
    with pytest.raises(
        ConfigError, match="three shares of train, validation and test that sum to 1"
    ):
        split_by_user(np.arange(4, dtype=np.int32), 0, fractions)


def test_other_fractions() -> None:
    split = split_by_user(np.arange(10, dtype=np.int32), 0, (0.8, 0.0, 0.2))
    assert np.bincount(split, minlength=3).tolist() == [8, 0, 2]


def test_by_time_ties_keep_their_order() -> None:
    assert split_by_time(pl.Series([3, 1, 1, 2])).tolist() == [2, 0, 0, 1]
    assert split_by_time(pl.Series([7])).tolist() == [0]
    with pytest.raises(LogFormatError, match="every session starts at 4"):
        split_by_time(pl.Series([4, 4]))


def test_resplit_changes_nothing_but_the_split(shared_data) -> None:
    log = read_log(shared_data("yelp.txt"))
    other = resplit(log, seed=0)
    assert np.bincount(other.split).tolist() == [703, 352, 351]
    assert other.items is log.items
    assert (other.split != log.split).any()
    # Whatever the seed, sessions of a user go together.
    assert all(
        len(set(zip(log.users, resplit(log, s).split, strict=True))) == len(set(log.users))
        for s in range(3)
    )


def test_two_splits_of_one_session() -> None:
    frame = pl.DataFrame(
        {
            "session": ["u", "u"],
            "event": [0, 1],
            "item": ["a", "a"],
            "chosen": [1, 1],
            "split": [0, 2],
        }
    )
    with pytest.raises(LogFormatError, match="session 'u' has the splits 0 and 2, one is required"):
        read_frame(frame)
    assert len(read_frame(frame.drop("split")).split) == 1


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8, 40, 41])
def test_halves_share_no_user_and_test_each_other(n) -> None:
    users = np.repeat(np.arange(n, dtype=np.int32) * 7, 2)
    one, other = split_by_half(users, 3), split_by_half(users, 3, other=True)
    fitted = [set(users[split != 2].tolist()) for split in (one, other)]
    assert not fitted[0] & fitted[1]
    assert len(fitted[0]) == len(fitted[1]) == n // 2
    for split in (one, other):
        assert all(len(set(split[users == user].tolist())) == 1 for user in users)
    if n >= 40:
        assert np.bincount(one[::2], minlength=3).tolist()[:2] == [15, 5]
        assert (one != split_by_half(users, 4)).any()


def test_halves_of_a_log() -> None:
    frame = pl.DataFrame(
        {
            "session": [f"s{i // 2}" for i in range(40)],
            "event": [0] * 40,
            "item": ["a", "b"] * 20,
            "chosen": [1, 0] * 20,
            "split": ["train"] * 40,
        }
    )
    one, other = (read_frame(frame, split=rule, split_seed=2) for rule in ("half", "other-half"))
    assert set(one.sessions_in("test").tolist()) == {
        *other.sessions_in("train"),
        *other.sessions_in("validation"),
    }
    assert read_frame(frame).sessions_in("train").tolist() == list(range(20))


def test_a_rule_that_splits_no_users_is_refused() -> None:
    """It was taken for `half`."""
    log, _ = synthesise(50, seed=0)
    with pytest.raises(ConfigError, match="'halves', one of user, half, other-half"):
        resplit_by(log, "halves", 0)
    with pytest.raises(ConfigError):
        resplit_by("log", "half", 0)  # type: ignore[arg-type]
