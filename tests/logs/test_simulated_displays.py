"""Simulated display sets: what each rule may display, that a seed repeats them, and that order
tells nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastgaum.errors import ConfigError, DatasetError, FastgaumError, LogFormatError
from fastgaum.logs import simulated_displays as displays
from fastgaum.logs.audit import AuditReport, audit
from fastgaum.logs.display_rules import RULES, DisplayRule, RuleName
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import SessionLog
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import load, read_log
from fastgaum.logs.registry import card
from fastgaum.logs.simulated_displays import as_rows, build_log, build_named, shown_rows
from fastgaum.logs.store import load_log, save_log

SharedData = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MovieLens 100K of 12 users, 60 films released over 1997, and 500 choices at few times of
    1997 and 1998."""
    path = tmp_path_factory.mktemp("small") / "ml-tiny"
    path.mkdir()
    rng = np.random.default_rng(0)
    pairs = rng.permutation(12 * 60)[:500]
    times = 870_000_000 + rng.integers(0, 60, 500) * 400_000
    rows = [f"{p // 60 + 1}\t{p % 60 + 1}\t3\t{t}\n" for p, t in zip(pairs, times, strict=True)]
    (path / "u.data").write_text("".join(rows))
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    films = [
        f"{i + 1}|Film {i + 1} (1997)|{i % 28 + 1:02d}-{months[i // 5]}-1997||u\n"
        for i in range(60)
    ]
    (path / "u.item").write_text("".join(films), encoding="latin-1")
    return path


def events_of(log: SessionLog) -> list[tuple[str, int, str, list[str]]]:
    """user, time, chosen item, the other candidates; user by user in time order."""
    events = []
    for event in range(log.n_events):
        start, stop = log.display_offsets[event : event + 2]
        shown = [log.item_ids[int(item)] for item in log.items[start:stop]]
        chosen = shown.pop(int(log.choices[event]))
        events.append(
            (
                log.session_ids[int(log.session_of_event[event])],
                int(log.event_ids[event]),
                chosen,
                shown,
            )
        )
    return events


def choices_in(folder: Path) -> list[tuple[str, int, str]]:
    rows = [line.split("\t") for line in (folder / "u.data").read_text().splitlines()]
    return [(row[0], int(row[3]), row[1]) for row in rows]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("displayed", [2, 10, 100])
def test_every_choice_is_an_event_and_stands_once_in_its_display(
    folder: Path, rule: RuleName, displayed: int
) -> None:
    log = build_log(folder, DisplayRule(rule, displayed)).log
    events = events_of(log)
    assert Counter((user, when, chosen) for user, when, chosen, _ in events) == Counter(
        choices_in(folder)
    )
    assert log.n_sessions == 12
    assert log.session_ids.to_list() == [str(i + 1) for i in range(12)]
    for _, _, chosen, others in events:
        assert len({chosen, *others}) == 1 + len(others) <= displayed
    for session in range(log.n_sessions):
        whens = log.event_ids[
            int(log.session_offsets[session]) : int(log.session_offsets[session + 1])
        ]
        assert whens.is_sorted()
    assert log.name == "ml-tiny"


@pytest.mark.parametrize("rule", ["nearest", "nearest-unseen"])
@pytest.mark.parametrize("displayed", [4, 10, 100])
def test_neighbours_are_the_nearest_of_others(folder: Path, rule: RuleName, displayed: int) -> None:
    by_item: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for user, when, item in choices_in(folder):
        by_item[item].append((user, when))
    chosen_before: dict[str, set[str]] = defaultdict(set)
    for user, when, chosen, others in events_of(
        build_log(folder, DisplayRule(rule, displayed)).log
    ):
        banned = {chosen} | (chosen_before[user] if rule == "nearest-unseen" else set())
        distance = {
            item: min(abs(t - when) for u, t in rows if u != user)
            for item, rows in by_item.items()
            if item not in banned and any(u != user for u, _ in rows)
        }
        assert set(others) <= set(distance)
        assert len(others) == min(displayed - 1, len(distance))
        assert sorted(distance[item] for item in others) == sorted(distance.values())[: len(others)]
        chosen_before[user].add(chosen)


def test_released_before_displays_the_month_before_and_the_chosen_film(folder: Path) -> None:
    built = build_log(folder, DisplayRule("released-before", 5))
    log = built.log
    month = 12 * 1997 + np.arange(60) // 5
    of_item = {str(i + 1): int(month[i]) for i in range(60)}
    sizes = Counter()
    for _, when, chosen, others in events_of(log):
        at = np.datetime64(when, "s").astype("datetime64[M]").astype(int) + 1970 * 12
        assert {of_item[item] for item in others} <= {at - 1}
        free = sum(of_item[item] == at - 1 for item in of_item if item != chosen)
        assert len(others) == min(4, free)
        sizes[len(others)] += 1
    assert set(sizes) == {0, 4}
    released = log.candidate_fields["release_time"]
    assert released.dtype == np.float32
    np.testing.assert_allclose(
        released, [of_item[log.item_ids[int(i)]] / 12 for i in log.items], rtol=1e-6
    )
    assert any("have fewer than 5 candidates" in line for line in built.notes)
    assert any("'oldest release first' finds the choice in" in line for line in built.notes)


def test_samples_of_releases_are_fair(folder: Path) -> None:
    counts: Counter[str] = Counter()
    n = 0
    for seed in range(40):
        for _, when, _, others in events_of(
            build_log(folder, DisplayRule("released-before", 3, seed)).log
        ):
            at = np.datetime64(when, "s").astype("datetime64[M]").astype(int) + 1970 * 12
            if at == 12 * 1997 + 9:
                counts.update(others)
                n += 1
    # September's five films, two of them in each display of October.
    assert set(counts) == {str(i) for i in range(41, 46)}
    assert all(abs(count - 0.4 * n) < 5 * np.sqrt(n) for count in counts.values())


@pytest.mark.parametrize("rule", RULES)
def test_a_seed_repeats_and_the_file_s_order_does_not_count(
    folder: Path, rule: RuleName, tmp_path: Path
) -> None:
    log = build_log(folder, DisplayRule(rule, seed=3)).log
    assert build_log(folder, DisplayRule(rule, seed=3)).log.fingerprint == log.fingerprint
    assert build_log(folder, DisplayRule(rule, seed=4)).log.fingerprint != log.fingerprint
    lines = (folder / "u.data").read_text().splitlines(keepends=True)
    (tmp_path / "u.data").write_text("".join(np.random.default_rng(0).permutation(lines)))
    (tmp_path / "u.item").write_bytes((folder / "u.item").read_bytes())
    assert build_log(tmp_path, DisplayRule(rule, seed=3)).log.fingerprint == log.fingerprint


def test_a_tie_in_time_is_broken_by_the_seed_alone(tmp_path: Path) -> None:
    # One user's choice, six others' at one other time: each of their items is as near.
    rows = ["1\t100\t3\t1000\n", *(f"{user}\t{user}\t3\t2000\n" for user in range(2, 8))]
    (tmp_path / "u.data").write_text("".join(rows))
    found = Counter(
        events_of(build_log(tmp_path, DisplayRule(displayed=2, seed=seed)).log)[0][3][0]
        for seed in range(300)
    )
    assert set(found) == {str(user) for user in range(2, 8)}
    assert max(found.values()) < 2 * min(found.values())


def test_bursts_of_one_time_do_not_come_in_the_order_of_ids(tmp_path: Path) -> None:
    rows = [
        f"{user}\t{item}\t3\t{1000 + user}\n" for user in range(1, 41) for item in range(10, 30)
    ]
    (tmp_path / "u.data").write_text("".join(rows))
    chosen = np.array(
        [int(chosen) for _, _, chosen, _ in events_of(build_log(tmp_path).log)]
    ).reshape(40, 20)
    rises = (np.diff(chosen, axis=1) > 0).mean()
    assert 0.4 < rises < 0.6


@pytest.mark.parametrize("rule", RULES)
def test_a_place_says_nothing_of_the_choice(folder: Path, rule: RuleName) -> None:
    log = build_log(folder, DisplayRule(rule, 5)).log
    starts = np.repeat(log.display_offsets[:-1], np.diff(log.display_offsets))
    inside = np.arange(log.n_candidates) != starts
    assert (np.diff(log.items, prepend=-1)[inside] > 0).all()
    places = Counter()
    for seed in range(20):
        written = as_rows(log, seed)
        assert (
            sorted(written.items[: log.display_offsets[1]])
            == log.items[: log.display_offsets[1]].tolist()
        )
        full = np.diff(log.display_offsets) == 5
        places.update(written.choices[full].tolist())
    share = np.array([places[place] for place in range(5)]) / places.total()
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.16 / places.total())


@pytest.mark.parametrize("rule", RULES)
def test_written_and_read_back_it_is_the_same_log(
    folder: Path, rule: RuleName, tmp_path: Path
) -> None:
    log = build_log(folder, DisplayRule(rule)).log
    fields = list(log.candidate_fields)
    to_frame(as_rows(log, 5)).write_parquet(tmp_path / "log.parquet")
    back = read_log(tmp_path / "log.parquet", candidate_fields=fields)
    assert back.views is not None
    assert set(back.views.tolist()) == {1}
    assert dataclasses.replace(back, views=None).fingerprint == log.fingerprint
    assert load_log(save_log(log, tmp_path / "log")).fingerprint == log.fingerprint


def test_a_large_log_stands_in_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = build_log(folder).log
    monkeypatch.setattr(displays, "IN_MEMORY", 10)
    mapped = build_log(folder).log
    assert isinstance(mapped.items.base, np.memmap) or isinstance(mapped.items, np.memmap)
    assert mapped.fingerprint == log.fingerprint
    assert load_log(save_log(mapped, tmp_path / "log")).fingerprint == log.fingerprint


def test_splits_are_of_users(folder: Path) -> None:
    log = build_log(folder).log
    assert set(log.split.tolist()) == {0, 1, 2}
    assert build_log(folder, split_seed=1).log.split.tolist() != log.split.tolist()
    by_time = build_log(folder, split="time").log
    first = by_time.event_ids.gather(by_time.session_offsets[:-1]).to_numpy()
    assert first[by_time.split == 0].max() <= first[by_time.split == 2].min()


def test_the_release_is_a_field_only_where_it_is_the_rule_or_asked_for(folder: Path) -> None:
    assert build_log(folder).log.candidate_fields == {}
    log = build_log(folder, candidate_fields=["release_time"]).log
    assert list(log.candidate_fields) == ["release_time"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"name": "neares"}, ConfigError, "did you mean 'nearest'"),
        ({"displayed": 1}, ConfigError, "displayed is 1, at least 2"),
        ({"displayed": 2**30}, LogFormatError, "display fewer"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"split": "file"}, ConfigError, "use 'user' or 'time'"),
        ({"candidate_fields": ["price"]}, LogFormatError, "no column 'price'"),
    ],
)
def test_impossible_options(
    folder: Path, options: dict[str, object], error: type[FastgaumError], says: str
) -> None:
    def build(name="nearest", displayed=10, seed=0, **given) -> None:
        build_log(folder, DisplayRule(name, displayed, seed), **given)

    with pytest.raises(error) as found:
        build(**options)
    assert says in str(found.value)


def test_choices_are_no_log(folder: Path, tmp_path: Path) -> None:
    for path in (folder, folder / "u.data"):
        with pytest.raises(DatasetError, match="fastgaum data build"):
            load(path)
    with pytest.raises(DatasetError, match="display sets of its own"):
        build_named("yelp")
    assert build_named(folder).log.n_events == 500


# The real ratings.


@pytest.fixture(scope="module")
def real(shared_data: SharedData) -> Path:
    return shared_data("ml-latest-small/movies.csv").parents[1]


def flagged(report: AuditReport) -> dict[str, float]:
    return {finding.rule: finding.prec_at_1 for finding in report.flagged}


@pytest.mark.parametrize(
    ("rule", "fewest"), [("nearest", 93.0), ("nearest-unseen", 92.0), ("released-before", 60.2)]
)
def test_the_audit_names_what_a_rule_gives_away(real: Path, rule: RuleName, fewest: float) -> None:
    log = build_named("movielens-small", data_dir=real, changes={"name": rule}).log
    report = audit(log, shown_rows(log, 0))
    traps = flagged(report)
    assert traps["fewest displays earlier in the session"] == pytest.approx(fewest, abs=0.5)
    assert not {"first position", "last position", "most rows", "fewest rows"} & set(traps)
    assert ("field release_time, smallest" in traps) == (rule == "released-before")
    assert f"| `{rule}` | {fewest} | {traps['smallest item id']:.1f} |" in card("movielens-small")
    if rule == "released-before":
        assert traps["field release_time, smallest"] == pytest.approx(86.7, abs=0.1)
        assert log.n_events == 100_001


def test_options_of_a_registered_log(real: Path, tmp_path: Path) -> None:
    options = ReadOptions.of(item_table=real / "ml-latest-small" / "movies.csv")
    changes = {"displayed": 3}
    log = build_named("movielens-small", changes=changes, data_dir=real, options=options).log
    assert log.n_candidates == 3 * 100_004
    assert sorted(log.item_fields) == ["genres", "title"]
    for option in ({"ordered": True}, {"clicks": "first"}, {"columns": {"item": "movieId"}}):
        with pytest.raises(ConfigError, match="has no recorded display sets"):
            load("movielens-small", data_dir=real, **option)
    (tmp_path / "ml-latest-small").mkdir()
    (tmp_path / "ml-latest-small" / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,2,3,4\n"
    )
    with pytest.raises(DatasetError, match="sha256"):
        load("movielens-small", data_dir=tmp_path)
