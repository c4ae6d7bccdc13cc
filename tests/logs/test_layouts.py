"""Files of choices without display sets: what is recognised, how it is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgaum.errors import DatasetError, FastgaumError, LogFormatError
from fastgaum.logs.display_rules import UNKNOWN_RELEASE, ChoiceTable, read_choices
from fastgaum.logs.layouts import ItemKind, find_choices, recognise

ML_1M = {
    "ratings.dat": "10::1193::5::978300760\n9::661::3::978302109\n10::661::4::978301968\n",
    "movies.dat": "661::James and the Giant Peach (1996)::Animation\n1193::Misérables, Les: A Tale (1995)::Drama\n",
}
ML_100K = {
    "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t267\t2\t881250950\n",
    "u.item": "242|Kolya (1996)|24-Jan-1997||http://x|0\n302|L.A. Confidential (1997)|01-Jan-1997||u|0\n267|unknown||||1\n",
}
ML_LATEST = {
    "ratings.csv": "userId,movieId,rating,timestamp\n2,31,2.5,1260759144\n10,1029,3.0,1260759179\n2,1029,1.0,1260759100\n",
    "movies.csv": (
        'movieId,title,genres\n31,"Dangerous Minds, (The) (1995)",Drama\n1029,Fawlty Towers (1975-1979),Comedy\n'
        "7,Nowhere,Comedy\n"
    ),
}
LASTFM_FILE = "userid-timestamp-artid-artname-traid-traname.tsv"
LASTFM = {
    LASTFM_FILE: (
        'user_000002\t2009-05-04T23:08:57Z\tf1b1\tDeep "Dish\t\tFuck Me Im Famous\n'
        "user_000001\t2009-05-04T13:54:10Z\t\tDeep Dish\t\tComposure (Live)\n"
        "user_000001\t2009-05-04T13:52:04Z\ta7f7\t坂本龍一\tt1\tBibo No Aozora\n"
    )
}
LAYOUTS = {"1m": ML_1M, "100k": ML_100K, "latest": ML_LATEST, "lastfm": LASTFM}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(
            text, encoding="latin-1" if name in ("movies.dat", "u.item") else "utf-8"
        )
    return folder


def rows(table: ChoiceTable) -> list[tuple[str, int, str]]:
    return [
        (table.user_ids[int(user)], int(time), table.item_ids[int(item)])
        for user, time, item in zip(table.users, table.times, table.items, strict=True)
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (ML_1M, [("10", 978300760, "1193"), ("10", 978301968, "661"), ("9", 978302109, "661")]),
        (
            ML_100K,
            [("196", 881250949, "242"), ("196", 881250950, "267"), ("186", 891717742, "302")],
        ),
        (
            ML_LATEST,
            [("2", 1260759100, "1029"), ("2", 1260759144, "31"), ("10", 1260759179, "1029")],
        ),
        (
            LASTFM,
            [
                ("user_000001", 1241445124, "a7f7"),
                ("user_000001", 1241445250, "Deep Dish"),
                ("user_000002", 1241478537, "f1b1"),
            ],
        ),
    ],
)
def test_choices_in_time_order(
    files: dict[str, str], expected: list[tuple[str, int, str]], tmp_path: Path
) -> None:
    write(tmp_path, files)
    by_folder = read_choices(find_choices(tmp_path))
    assert rows(by_folder) == expected
    # Whatever the file is called: its first line tells.
    renamed = (tmp_path / next(iter(files))).rename(tmp_path / "mine.txt")
    assert rows(read_choices(find_choices(renamed))) == expected
    assert find_choices(renamed).name == "mine"
    assert recognise(tmp_path) is None
    assert by_folder.item_ids.to_list() == sorted(by_folder.item_ids)


def test_users_are_sorted_by_number_items_as_text(tmp_path: Path) -> None:
    table = read_choices(find_choices(write(tmp_path, ML_1M)))
    assert table.user_ids.to_list() == ["9", "10"]
    assert table.item_ids.to_list() == ["1193", "661"]


def test_a_track_is_its_id_or_its_name_after_the_artist_s(tmp_path: Path) -> None:
    table = read_choices(find_choices(write(tmp_path, LASTFM)), item="track")
    assert [item for _, _, item in rows(table)] == [
        "t1",
        "Deep Dish / Composure (Live)",
        "f1b1 / Fuck Me Im Famous",
    ]


@pytest.mark.parametrize(
    ("files", "period", "released", "chosen_in"),
    [
        (ML_1M, "year", {"1193": 1995, "661": 1996}, [2000, 2000, 2000]),
        (
            ML_100K,
            "month",
            {"242": 12 * 1997, "302": 12 * 1997, "267": UNKNOWN_RELEASE},
            [12 * 1997 + 11, 12 * 1997 + 11, 12 * 1998 + 3],
        ),
        (ML_LATEST, "year", {"31": 1995, "1029": 1975}, [2009, 2009, 2009]),
    ],
)
def test_releases(
    files: dict[str, str],
    period: str,
    released: dict[str, int],
    chosen_in: list[int],
    tmp_path: Path,
) -> None:
    table = read_choices(find_choices(write(tmp_path, files)), releases=True)
    assert table.released is not None
    assert dict(zip(table.item_ids, table.released.tolist(), strict=True)) == released
    assert table.period == period
    assert table.periods().tolist() == chosen_in


def test_choices_without_a_release_are_left_out_whole(tmp_path: Path) -> None:
    write(tmp_path, ML_LATEST)
    (tmp_path / "ratings.csv").write_text(
        ML_LATEST["ratings.csv"] + "1,7,4.0,1260759000\n1,99,4.0,1260759001\n"
    )
    table = read_choices(find_choices(tmp_path), releases=True)
    assert table.n_choices == 5
    kept = table.with_known_release()
    assert rows(kept) == rows(table)[2:]
    assert kept.user_ids.to_list() == ["2", "10"]
    assert kept.released is not None
    assert kept.released.tolist() == [1975, 1995]


def test_blank_lines_and_windows_line_ends_are_nothing(tmp_path: Path) -> None:
    for folder, files in LAYOUTS.items():
        (tmp_path / folder).mkdir()
        name, text = next(iter(files.items()))
        (tmp_path / folder / name).write_bytes(text.replace("\n", "\r\n").encode() + b"\r\n")
        assert read_choices(find_choices(tmp_path / folder)).n_choices == 3


@pytest.mark.parametrize(
    ("files", "name", "line", "says"),
    [
        (
            ML_1M,
            "ratings.dat",
            "7::8::5\n",
            "row 4 (user '7') has no time, seconds from 1970 to 2038",
        ),
        (ML_1M, "ratings.dat", "7::8::5::later\n", "row 4 (user '7') has no time"),
        (
            ML_1M,
            "ratings.dat",
            "7::8::5::978300760000\n",
            "has the time 978300760000, seconds from 1970 to 2038",
        ),
        (ML_1M, "ratings.dat", "7::8::5::-1\n", "has the time -1"),
        (ML_1M, "ratings.dat", "::8::5::978300760\n", "row 4 has no user"),
        (ML_100K, "u.data", "7\t\t3\t881250949\n", "row 4 has no item"),
        (ML_LATEST, "ratings.csv", "7,31,3.0\n", "row 4 (user '7') has no time"),
        (
            LASTFM,
            LASTFM_FILE,
            "user_000009\t4 May 2009\tx\ty\tz\tw\n",
            "row 4 (user 'user_000009') has no time",
        ),
    ],
)
def test_a_damaged_row_is_named(
    files: dict[str, str], name: str, line: str, says: str, tmp_path: Path
) -> None:
    write(tmp_path, {name: files[name] + line})
    with pytest.raises(LogFormatError) as error:
        read_choices(find_choices(tmp_path))
    assert says in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    for folder, files in LAYOUTS.items():
        (tmp_path / folder).mkdir()
        name, text = next(iter(files.items()))
        damaged = text.encode().splitlines(keepends=True)
        (tmp_path / folder / name).write_bytes(b"".join(damaged[:-1]) + b"\xff\xfe" + damaged[-1])
        with pytest.raises(LogFormatError, match="is no well-formed"):
            read_choices(find_choices(tmp_path / folder))


def test_a_single_user_has_no_others(tmp_path: Path) -> None:
    write(tmp_path, {"u.data": "1\t2\t3\t881250949\n1\t3\t3\t881250949\n"})
    with pytest.raises(LogFormatError, match="choices of 1 user, at least two"):
        read_choices(find_choices(tmp_path))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"u.data": ML_100K["u.data"]}, "u.item, which is not beside"),
        ({**ML_100K, "u.item": "1|x\n242|y\n"}, "gives no item a release month"),
        (
            {**ML_LATEST, "movies.csv": "id,name\n1,x\n"},
            "'movies.csv' is not the movies.csv of MovieLens latest",
        ),
        (
            {**ML_LATEST, "movies.csv": ML_LATEST["movies.csv"] + "31,Other (1999),x\n"},
            "several release dates",
        ),
        ({**ML_1M, "movies.dat": ""}, "gives no item a release year"),
        (LASTFM, "LastFM-1K has no release dates"),
    ],
)
def test_releases_that_are_not_there(files: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(FastgaumError) as error:
        read_choices(find_choices(write(tmp_path, files)), releases=True)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="it holds nothing"):
        find_choices(tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_choices(tmp_path / "absent")
    (tmp_path / "log.csv").write_text("session,event,item,chosen\n")
    with pytest.raises(DatasetError, match="it begins with 'session,event,item,chosen'"):
        find_choices(tmp_path / "log.csv")
    write(tmp_path, ML_1M | ML_100K)
    with pytest.raises(
        DatasetError, match=r"holds ratings\.dat, u\.data, one file of choices is required"
    ):
        find_choices(tmp_path)


@pytest.mark.parametrize("item", ["artist", "track"])
def test_the_kind_of_item_is_lastfm_s_alone(item: ItemKind, tmp_path: Path) -> None:
    assert read_choices(find_choices(write(tmp_path, ML_1M)), item=item).item_ids.to_list() == [
        "1193",
        "661",
    ]
