"""Choices without display sets: which files are read, how, and what is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import ConfigError, FastgaumError, LogFormatError
from fastgaum.logs.audit import audit
from fastgaum.logs.datasets import card, resolve
from fastgaum.logs.made_up_displays import make_displays
from fastgaum.logs.read import load, read_log, read_with_rows

SharedData = Callable[[str], Path]
LASTFM = "userid-timestamp-artid-artname-traid-traname.tsv"
FILES = {
    "ratings.dat": "10::1193::5::978300760\n9::661::3::978302109\n10::661::4::978301968\n",
    "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t267\t2\t881250950\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n2,31,2.5,1260759144\n10,1029,3.0,1260759179\n"
    "2,1029,1.0,1260759100\n",
    LASTFM: 'user_000002\t2009-05-04T23:08:57Z\tf1b1\tDeep "Dish\t\tFuck Me Im Famous\n'
    "user_000001\t2009-05-04T13:54:10Z\t\tDeep Dish\t\tComposure (Live)\n"
    "user_000001\t2009-05-04T13:52:04Z\ta7f7\t坂本龍一\tt1\tBibo No Aozora\n",
}
CHOICES = {
    "ratings.dat": [("9", 978302109, "661"), ("10", 978300760, "1193"), ("10", 978301968, "661")],
    "u.data": [("186", 891717742, "302"), ("196", 881250949, "242"), ("196", 881250950, "267")],
    "ratings.csv": [("2", 1260759100, "1029"), ("2", 1260759144, "31"), ("10", 1260759179, "1029")],
    LASTFM: [
        ("user_000001", 1241445124, "a7f7"),
        ("user_000001", 1241445250, "Deep Dish"),
        ("user_000002", 1241478537, "f1b1"),
    ],
}
named = pytest.mark.parametrize("name", FILES)


@named
def test_users_by_number_and_choices_in_time_order(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    whole = make_displays(tmp_path)
    assert whole.select("session", "event", "chosen").rows() == CHOICES[name]
    # whatever the file is called; blank lines and Windows' line ends are nothing
    text = FILES[name].replace("\n", "\r\n").encode() + b"\r\n"
    other = tmp_path / f"mine{Path(name).suffix.replace('dat', 'tsv').replace('.tsva', '.tsv')}"
    other.write_bytes(text)
    assert make_displays(other).equals(whole)
    damaged = text.splitlines(keepends=True)
    other.write_bytes(b"".join(damaged[:2]) + b"\xff\xfe" + damaged[2])
    with pytest.raises(LogFormatError, match="is not UTF-8: line 3"):
        make_displays(other)
    with pytest.raises(LogFormatError, match="`fastgaum data build`"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("ratings.dat", "7::8::5\n", "row 4 has no time: column 'timestamp' is empty"),
        ("ratings.dat", "7::8::5::later\n", "row 4 has 'timestamp' = 'later', and orders"),
        ("ratings.dat", "::8::5::978300760\n", "row 4 has no user"),
        ("u.data", "7\t\t3\t881250949\n", "row 4 has no item"),
        ("ratings.csv", "7,31,3.0\n", "row 4 has no time"),
        (LASTFM, "user_000009\t4 May 2009\tx\ty\tz\tw\n", "row 4 has 'timestamp' = '4 May"),
    ],
)
def test_a_damaged_row_is_named(name: str, line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name] + line)
    with pytest.raises(LogFormatError) as error:
        make_displays(tmp_path / name)
    assert says in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def choices() -> pl.DataFrame:
    """500 choices of 12 users among 60 items, at few times."""
    rng = np.random.default_rng(0)
    user, item = np.divmod(rng.permutation(12 * 60)[:500], 60)
    time = 870_000_000 + rng.integers(0, 60, 500) * 400_000
    return pl.DataFrame({"user": user, "item": item, "time": time})


def test_a_seed_repeats_and_the_order_of_rows_does_not_count(choices: pl.DataFrame) -> None:
    found = make_displays(choices, seed=3)
    assert make_displays(choices.sample(fraction=1, shuffle=True, seed=1), seed=3).equals(found)
    assert not make_displays(choices, seed=4).equals(found)
    dates = choices.with_columns(pl.from_epoch("time").dt.replace_time_zone("UTC"))
    assert make_displays(dates, seed=3).equals(found)


def test_ties_in_time_are_broken_by_the_seed_alone() -> None:
    # one user's choice, six others' at one other time: each of their items is as near
    tied = pl.DataFrame({"user": range(7), "item": range(7), "time": [1000] + [2000] * 6})
    others: Counter[str] = Counter()
    for seed in range(300):
        others.update(make_displays(tied, displayed=2, seed=seed)["items"][0])
    del others["0"]
    assert set(others) == {str(item) for item in range(1, 7)}
    assert max(others.values()) < 2 * min(others.values())
    # bursts of one time do not come in the order of ids
    user, item = np.divmod(np.arange(40 * 20), 20)
    burst = make_displays(pl.DataFrame({"user": user, "item": item, "time": user}))
    chosen = burst["chosen"].cast(pl.Int64).to_numpy().reshape(40, 20)
    assert 0.4 < (np.diff(chosen, axis=1) > 0).mean() < 0.6


def test_a_place_says_nothing_of_the_choice(choices: pl.DataFrame) -> None:
    places = np.zeros(5)
    for seed in range(20):
        found = make_displays(choices, displayed=5, seed=seed)
        shown = found["items"].list.to_array(5).to_numpy()
        places += (shown == found["chosen"].to_numpy()[:, None]).sum(axis=0)
    share = places / places.sum()
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.16 / places.sum())


def test_what_is_made_is_a_log(choices: pl.DataFrame, tmp_path: Path) -> None:
    log = read_log(make_displays(choices))
    assert (log.n_sessions, log.n_events, log.n_candidates) == (12, 500, 5000)
    assert log.session_ids.to_list() == [str(i) for i in range(12)]
    assert set(log.split.tolist()) == {0, 1, 2}
    by_time = read_log(make_displays(choices), split="time")
    first = by_time.event_ids.gather(by_time.session_offsets[:-1]).to_numpy()
    assert first[by_time.split == 0].max() <= first[by_time.split == 2].min()


@pytest.mark.parametrize(
    ("changes", "options", "error", "says"),
    [
        ({}, {"displayed": 1}, ConfigError, "displayed is 1, at least 2"),
        ({}, {"displayed": 2**30}, LogFormatError, "fit 32-bit offsets"),
        ({}, {"seed": -1}, ConfigError, "seed is -1"),
        ({"user": [1]}, {}, LogFormatError, "of 1 user, at least two"),
        ({"time": ["then"]}, {}, LogFormatError, "column 'time' holds no times"),
        ({"time": [None]}, {}, LogFormatError, "row 1 has no time"),
        *(
            ({"time": [time]}, {}, LogFormatError, f"row 1 has 'time' = {time}")
            for time in (0.5, 2**63)
        ),
        ({"time": [float("inf")]}, {}, LogFormatError, "row 1 has no time"),
        ({"chosen": [1]}, {}, LogFormatError, "display sets of their own"),
    ],
)
def test_impossible_choices(
    choices: pl.DataFrame,
    changes: dict[str, list[object]],
    options: dict[str, int],
    error: type[FastgaumError],
    says: str,
) -> None:
    frame = choices.with_columns(**{name: pl.lit(value[0]) for name, value in changes.items()})
    with pytest.raises(error) as found:
        make_displays(frame, **options)
    assert says in str(found.value)
    with pytest.raises(LogFormatError, match="empty"):
        make_displays(choices[:0])
    for column, role in (("user", "user"), ("time", "event"), ("item", "item")):
        with pytest.raises(LogFormatError, match=f"no {role} column in choices"):
            make_displays(choices.drop(column))


# The real ratings.


def test_the_registered_log_of_ratings(shared_data: SharedData) -> None:
    real = shared_data("ml-latest-small/movies.csv").parents[1]
    found = resolve("movielens-small", real)
    log, rows = read_with_rows(found)
    traps = {finding.rule: finding.prec_at_1 for finding in audit(log, rows).flagged}
    assert traps["fewest displays earlier in the session"] == pytest.approx(93.0, abs=0.5)
    assert not {"first position", "last position", "most rows", "fewest rows"} & set(traps)
    assert f"| 93.0 | {traps['smallest item id']:.1f} |" in card("movielens-small")
    movies = real / "ml-latest-small" / "movies.csv"
    log = load("movielens-small", data_dir=real, item_table=movies)
    assert sorted(log.columns_of("item")) == ["genres", "title"]
    for option in ({"ordered": True}, {"columns": {"item": "movieId"}}):
        with pytest.raises(ConfigError, match="has no recorded display sets"):
            load("movielens-small", data_dir=real, **option)
