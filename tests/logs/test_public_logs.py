"""Public logs are recognised by their columns: what is read of each, what a given option changes,
and what a file is told that is nearly one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import LogFormatError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.public_formats import PUBLIC_LOGS
from fastgaum.logs.read import raw_rows, read_log
from fastgaum.logs.tables import open_table
from tests.logs.public_files import FILES, STEPS, USERS, Shown, displays

SharedData = Callable[[str], Path]
LAYOUTS = {layout.name: layout for layout in PUBLIC_LOGS}
named = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every made-up file, by its log's name."""
    return {name: write(tmp_path_factory.mktemp("log")) for name, write in FILES.items()}


def test_every_layout_has_a_file() -> None:
    assert sorted(FILES) == sorted(set(LAYOUTS) - {"MovieLens", "LastFM-1K"})


def events_of(log: SessionLog) -> list[tuple[str, frozenset[str], str | None]]:
    """Session, displayed items and chosen item of each event, by session and then in order."""
    found = []
    items = log.item_ids.gather(log.items).to_list()
    for event in range(log.n_events):
        start, stop = log.display_offsets[event : event + 2].tolist()
        choice = int(log.choices[event])
        chosen = None if choice < 0 else items[start + choice]
        session = str(log.session_ids[int(log.session_of_event[event])])
        found.append((session, frozenset(items[start:stop]), chosen))
    return sorted(found, key=lambda one: one[0])


def expected(name: str) -> list[tuple[str, frozenset[str], str | None]]:
    """The same by hand, from the displays that the files were made of."""
    rows: list[tuple[str, frozenset[str], str | None]] = []
    for number, shown in enumerate(displays()):
        items, clicks = shown.items, shown.clicks
        always = (clicks or items)[0]
        maybe = clicks[0] if clicks else None
        user = str(shown.user)
        if name == "MIND":
            # its second row has two clicks, of which the first that is listed stays
            clicked = {always, items[1]} if number == 1 else {always}
            first = next(item for item in items if item in clicked)
            rows.append((f"U{user}", frozenset(f"N{i}" for i in items), f"N{first}"))
        elif name == "trivago RecSys Challenge 2019":
            rows += [(f"s{user}", texts(items), pick) for pick in click_outs(shown)]
        elif name == "KuaiRand":
            rows += [(user, texts([i]), str(i) if i in clicks else None) for i in items[:2]]
        elif name == "Open Bandit":
            fraction = ".000125" if shown.user % 2 else ""
            rows += [
                (f"{shown.time}{fraction}+00:00/{k}", texts([i]), str(i) if i in clicks else None)
                for k, i in enumerate(items[:3], start=1)
            ]
        else:
            chosen = maybe if name == "CLARA2" else always
            if name == "LPMC":
                user = str(number)
            rows.append((user, texts(items), None if chosen is None else str(chosen)))
    return sorted(rows, key=lambda one: one[0])


def texts(items: list[int]) -> frozenset[str]:
    return frozenset(map(str, items))


def click_outs(shown: Shown) -> list[str]:
    """The clicked hotel of a click-out that is read: one outside its list is not, nor one that is
    withheld."""
    left_out = {(0, 1), (1, 2)}
    if (shown.user % 6, shown.step) in left_out:
        return []
    first = shown.step == 0 and shown.clicks
    return [str(shown.clicks[0] if first else shown.items[0])]


@named
def test_what_is_read_of_a_file_is_what_it_was_made_of(name: str, files: dict[str, Path]) -> None:
    log = read_log(files[name])
    if name == "Open Bandit":  # two users have times alike, which makes their rows one session
        assert sorted(events_of(log), key=str) == sorted(expected(name), key=str)
    else:
        assert events_of(log) == expected(name)
    layout = LAYOUTS[name]
    assert log.ordered == layout.options.ordered
    assert sorted(log.columns_of("event")) == sorted(layout.options.context_fields)
    assert sorted(log.columns_of("candidate")) == sorted(layout.options.candidate_fields)


def test_histories_come_before_the_first_impression(files: dict[str, Path]) -> None:
    """MIND's without an option, and not with an empty name; EB-NeRD's in a file of their own."""
    mind, ebnerd = files["MIND"], files["EB-NeRD"]
    log = read_log(mind)
    assert log.actions is not None
    sizes = np.diff(log.actions.offsets)[log.session_offsets[:-1]]
    assert dict(zip(log.session_ids, sizes.tolist(), strict=True)) == {
        f"U{user}": user % 3 for user in range(USERS)
    }
    assert log.n_actions == sizes.sum()
    assert read_log(mind, past="").actions is None
    read = read_log(ebnerd, actions=ebnerd.parent / "history.parquet")
    assert read.actions is not None
    before = read.item_ids.gather(read.actions.items).to_list()
    assert before == [str(50 + int(user)) for user in read.session_ids]


@named
def test_a_folder_and_a_frame_give_the_same_log(name: str, files: dict[str, Path]) -> None:
    path, layout = files[name], LAYOUTS[name]
    log = read_log(path)
    if (path.parent / layout.files[0]).exists():
        assert read_log(path.parent).fingerprint == log.fingerprint
    raw = raw_rows(path)
    assert raw is not None
    assert raw.n_rows == log.n_candidates
    if path.suffix == ".parquet":
        assert read_log(pl.read_parquet(path)).fingerprint == log.fingerprint
    if path.suffix == ".csv":
        # a csv whose numbers were typed on the way
        typed = pl.read_csv(path, infer_schema_length=None)
        assert events_of(read_log(typed)) == events_of(log)


def test_ebnerd_without_its_impression_ids_is_no_log_of_visits(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """By ordinary names its sessions would be browser visits: what orders impressions is asked
    for."""
    path = tmp_path / "behaviors.parquet"
    pl.read_parquet(files["EB-NeRD"]).drop("impression_id").write_parquet(path)
    says = r"no column 'impression_id' \(named for the event_label\).* is read as EB-NeRD: --column"
    with pytest.raises(LogFormatError, match=says):
        read_log(path)
    with pytest.raises(LogFormatError, match="no column 'impression_id'"):
        read_log(pl.read_parquet(path))
    read = read_log(path, columns={"event_label": "impression_time"})
    assert events_of(read) == events_of(read_log(files["EB-NeRD"]))


def test_given_options_come_before_a_layout_s(files: dict[str, Path]) -> None:
    with pytest.raises(LogFormatError, match="has 2 clicks, one is required"):
        read_log(files["MIND"], clicks="error")
    bare = read_log(files["CLARA2"], ordered=False, context_fields=())
    assert (bare.ordered, bare.columns_of("event")) == (False, {})
    assert set(read_log(files["Wikispeedia"], context_fields=["target"]).columns_of("event")) == {
        "target"
    }
    persons = read_log(files["LPMC"], columns={"session": "person"})
    assert (persons.n_sessions, len(np.unique(persons.users))) == (USERS, USERS // 6)
    visits = read_log(files["EB-NeRD"], columns={"session": "session_id"})
    assert (visits.n_sessions, len(np.unique(visits.users))) == (USERS * STEPS, USERS)
    # rows of one display each become displays of several items where the reader says so
    long = {"item": "video_id", "chosen": "is_click"}
    assert read_log(files["KuaiRand"], columns=long, clicks="first").n_events == USERS * STEPS
    device = read_log(files["EB-NeRD"], context_fields=["device_type"])
    assert set(device.columns_of("event")) == {"device_type"}


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (
            "KuaiRand",
            ",1,0,0,0,0,0,1,",
            ",2,0,0,0,0,0,1,",
            "row 9 has 'is_click' = 2, 0 (displayed) or 1 (clicked)",
        ),
        (
            "KuaiRand",
            ",1,0,0,0,0,0,1,",
            ",,0,0,0,0,0,1,",
            "= nothing, 0 (displayed) or 1 (clicked)",
        ),
        ("MIND", " N8-0\n", " N8-2\n", "= … N8-2 …, -0 (displayed) or -1 (clicked) is required"),
        ("KuaiRand", "0,5,20210304,2158,", "0,5,20210304,2158,soon", "column 'time_ms' is empty"),
        ("Open Bandit", ",1.0,", ",high,", "no value in column 'affinity'"),
        ("Open Bandit", "2021-03-04 21:58:09", "4 March", "column 'timestamp' is empty there"),
        ("trivago RecSys Challenge 2019", "45|", "cheap|", "no value in column 'price'"),
        ("trivago RecSys Challenge 2019", "|40\n", "\n", "values in 'price' for"),
        ("MIND", "3/4/2021 ", "13/44/2021 ", "column 'time' is empty there"),
        ("MIND", "\tN", "\tX N", "= … X …, -0 (displayed) or -1 (clicked) is required"),
    ],
)
def test_a_damaged_value_is_named(
    name: str, old: str, new: str, says: str, files: dict[str, Path], tmp_path: Path
) -> None:
    text = files[name].read_text()
    assert old in text
    copy = tmp_path / files[name].name
    copy.write_text(text.replace(old, new))
    # what a file does not say is no click on what was not displayed
    for rule in (None, "none", "append", "drop") if "clicked)" in says else (None,):
        with pytest.raises(LogFormatError) as error:
            read_log(copy, options=ReadOptions.of(**({} if rule is None else {"outside": rule})))
        assert says in str(error.value)


def test_mind_s_long_lines_and_its_part_without_clicks(tmp_path: Path) -> None:
    history = " ".join(f"N{i}" for i in range(12_000))
    path = tmp_path / "any.txt"
    line = f"\tU1\t12/1/2019 12:00:01 AM\t{history}\tN1-0 N2-1\r\n"
    path.write_text(f"7{line}8{line}")
    log = read_log(path)
    assert events_of(log) == [("U1", frozenset({"N1", "N2"}), "N2")] * 2
    path.write_text("7\tU1\t12/1/2019 12:00:01 AM\t\tN1 N2\n")
    with pytest.raises(LogFormatError, match="MIND's test part has none"):
        read_log(path)


def test_mind_s_impressions_without_clicks_are_refused_in_any_row(tmp_path: Path) -> None:
    """They are what was to be predicted, and no displays without a click."""
    lines = [f"{i}\tU{i}\t12/1/2019 12:00:01 AM\t\t{i} N2-1\n" for i in ("N1-0", "N3", "N4-0-1")]
    (tmp_path / "behaviors.tsv").write_text("".join(lines))
    frame = open_table(tmp_path / "behaviors.tsv").read(LAYOUTS["MIND"].columns)
    for source in (tmp_path, frame):
        for outside in ("error", "drop"):
            with pytest.raises(LogFormatError, match="row 2 has 'impressions' = … N3 …, -0"):
                read_log(source, outside=outside)
    (tmp_path / "behaviors.tsv").write_text(lines[0] + lines[2])
    assert [one[1:] for one in events_of(read_log(tmp_path))] == [
        (frozenset({"N1", "N2"}), "N2"),
        (frozenset({"N4-0", "N2"}), "N4-0"),
    ]


def test_files_without_column_names_are_read_compressed(tmp_path: Path) -> None:
    """A folder too finds them, and an item table may be one."""
    path = FILES["MIND"](tmp_path)
    whole = read_log(path)
    for file in list(tmp_path.iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    packed = tmp_path / "behaviors.tsv.gz"
    assert read_log(packed).fingerprint == read_log(tmp_path).fingerprint == whole.fingerprint
    assert "category" in read_log(tmp_path, item_table=tmp_path / "news.tsv.gz").columns_of("item")
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(LogFormatError, match=f"'{packed.name}' is no readable"):
        read_log(packed)
