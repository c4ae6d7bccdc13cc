from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs.audit import AuditReport, Fact, Finding, audit
from fastgaum.logs.audit_displays import display_dependence
from fastgaum.logs.audit_rules import (
    excess_test,
    fold_events,
    holm,
    net_wins,
    rules_of_log,
    rules_of_rows,
    tail_probability,
)
from fastgaum.logs.clicks import CLICKS_SO_FAR
from fastgaum.logs.datasets import resolve
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import TRAIN, SessionLog
from fastgaum.logs.made_up_displays import make_displays
from fastgaum.logs.read import raw_rows, read_log, read_with_rows
from fastgaum.logs.store import save_log
from fastgaum.logs.synthetic import synthesise
from fastgaum.metrics.precision import micro_mean, precision_at_k
from tests.builders import log_of, put
from tests.logs.test_raw_events import raw_frame

FIELDS = ("price", "colour")
VIEWED = pl.lit(0, pl.Int64).alias("chosen")


def shuffled_frame(seed: int, n_users: int = 60, n_items: int = 40) -> pl.DataFrame:
    """A long log without any trap: uniform choices, shuffled display order, random ids, fields of
    pure noise."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), rng.integers(1, 6, n_users))
    sizes = rng.integers(1, 9, len(user))
    ids = rng.permutation(10 * n_items)[:n_items]
    chosen = np.concatenate([np.arange(n) == rng.integers(n) for n in sizes]).astype(np.int64)
    row = np.repeat(np.arange(len(user)), sizes)
    return pl.DataFrame(
        {
            "session": user[row],
            "event": row,
            "item": np.concatenate([ids[rng.permutation(n_items)[:n]] for n in sizes]),
            "chosen": chosen,
            "price": rng.normal(size=len(row)).round(1),
            "colour": rng.choice(["blue", "green", "red"], len(row)),
        }
    )


def audit_frame(
    frame: pl.DataFrame, fields: tuple[str, ...] = (), **options: object
) -> AuditReport:
    log = read_log(frame, candidate_fields=fields, **options)
    return audit(log, raw_frame(frame))


def finding(report: AuditReport, rule: str) -> Finding:
    return next(f for f in report.findings if f.rule == rule)


def share(report: AuditReport, name: str) -> float | None:
    return next(fact.percent for fact in report.facts if fact.name == name)


def test_of_40_shuffled_logs_at_most_one_in_twenty_has_any_rule_flagged() -> None:
    flagged = sum(bool(audit_frame(shuffled_frame(seed), FIELDS).flagged) for seed in range(40))
    assert flagged <= 2
    # A test that could never flag would pass too: the planted traps below show that it can.


@pytest.mark.parametrize(
    ("rule", "plant"),
    [
        ("last position", lambda f: f.sort("event", "chosen", maintain_order=True)),
        ("first position", lambda f: f.sort("event", pl.col("chosen") == 0, maintain_order=True)),
        (
            "largest item id",
            lambda f: f.with_columns(item=pl.col("item") + 10_000 * pl.col("chosen")),
        ),
        (
            "smallest item id",
            lambda f: f.with_columns(item=pl.col("item") + 10_000 * (1 - pl.col("chosen"))),
        ),
        (
            "most rows",
            lambda f: pl.concat([f, f.filter(pl.col("chosen") == 1).with_columns(VIEWED)]),
        ),
        ("fewest rows", lambda f: pl.concat([f, f.filter(pl.col("chosen") == 0)])),
        ("zero view rows", lambda f: pl.concat([f, f.filter(pl.col("chosen") == 0)])),
        # each candidate has two rows, and the click marks one of them
        ("fewest views", lambda f: pl.concat([f, f.with_columns(VIEWED)])),
        (
            "last row, repeats kept",
            lambda f: pl.concat([f.with_columns(VIEWED), f.filter(pl.col("chosen") == 1)]),
        ),
        (
            "field price, largest",
            lambda f: f.with_columns(price=pl.col("price") + 0.8 * pl.col("chosen")),
        ),
        (
            "field price, smallest",
            lambda f: f.with_columns(price=pl.col("price") - 0.8 * pl.col("chosen")),
        ),
        ("field colour, last in alphabet", lambda f: f.with_columns(colour=repainted("violet"))),
        ("field colour, first in alphabet", lambda f: f.with_columns(colour=repainted("azure"))),
        ("field colour, missing", lambda f: f.with_columns(colour=repainted(None))),
        # every click is on an item never seen before: only the order of appearance tells
        (
            "largest item number in order of appearance",
            lambda f: f.with_columns(
                item=pl.when(chosen=1).then(9999 - pl.int_range(pl.len())).otherwise("item")
            ),
        ),
    ],
)
def test_a_planted_trap_is_named(rule: str, plant: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    report = audit_frame(plant(shuffled_frame(1000, n_users=80)), FIELDS)
    found = finding(report, rule)
    assert found.flagged
    assert found.prec_at_1 > found.floor + 5
    assert found.interval[0] > found.floor
    assert found.action
    assert report.findings[0].flagged


def repainted(colour: str | None) -> pl.Expr:
    """Two chosen candidates in three take another colour."""
    return (
        pl.when((pl.col("chosen") == 1) & (pl.col("event") % 3 > 0))
        .then(pl.lit(colour))
        .otherwise(pl.col("colour"))
    )


def test_a_display_that_repeats_itself_around_the_choice_is_named() -> None:
    # What nearest neighbours in time make of a burst: the same others throughout, a new item chosen
    # each time.
    frame = (
        shuffled_frame(9)
        .filter(pl.col("chosen") == 1)
        .with_columns(item=pl.int_range(pl.len()) + 1000)
    )
    others = [
        frame.with_columns(item=pl.lit(i, pl.Int64), chosen=pl.lit(0, pl.Int64)) for i in range(3)
    ]
    report = audit_frame(pl.concat([frame, *others], how="vertical_relaxed"))
    found = finding(report, "fewest displays earlier in the session")
    n_first = frame["session"].n_unique()
    assert found.flagged
    assert found.prec_at_1 == pytest.approx(100 * (frame.height - n_first * 3 / 4) / frame.height)
    frame = frame.with_columns(item=pl.lit(0, pl.Int64))
    again = audit_frame(pl.concat([frame, *others[1:]], how="vertical_relaxed"))
    assert not finding(again, "fewest displays earlier in the session").flagged


def test_wins_less_losses_are_those_of_the_training_choices_one_by_one() -> None:
    log = read_log(shuffled_frame(12))
    events = [slice(*log.display_offsets[event : event + 2]) for event in range(log.n_events)]
    train = log.split[log.session_of_event] == TRAIN
    won: Counter[tuple[int, int]] = Counter()
    for event in np.flatnonzero(train):
        items = log.items[events[event]]
        won.update((items[log.choices[event]], item) for item in items)
    net = net_wins(log, ~train)
    for event in np.flatnonzero(~train):
        items = log.items[events[event]]
        expected = [sum(won[one, other] - won[other, one] for other in items) for one in items]
        assert net[events[event]].tolist() == expected
    assert net.any()
    assert not net[train[log.event_of_candidate()]].any()


def test_displays_made_up_from_chance_are_named() -> None:
    """An item that is chosen elsewhere was a distractor there, and lost."""
    rng = np.random.default_rng(0)
    ratings = {"user": np.repeat(np.arange(80), 20), "item": rng.integers(0, 300, 1600)}
    frame = make_displays(pl.DataFrame({**ratings, "time": rng.permutation(1600)}), displayed=5)
    found = finding(audit(read_log(frame)), "fewest wins less losses against these rivals")
    assert found.flagged
    assert found.floor == pytest.approx(20)
    assert found.prec_at_1 > 30


def test_a_rule_scores_its_exact_precision_against_the_exact_floor() -> None:
    frame = shuffled_frame(11)
    log = read_log(frame, candidate_fields=FIELDS)
    report = audit(log, raw_frame(frame))
    several = (np.diff(log.display_offsets) > 1) & (log.choices >= 0)
    folded = fold_events(raw_frame(frame), log)
    rules = [*rules_of_log(log), *rules_of_rows(*folded, ordered=False)]
    assert {rule.name for rule in rules} == {f.rule for f in report.findings}
    for rule in rules:
        # precision_at_k refuses -inf, which stands for a missing value; there is none here.
        scores = rule.scores()
        values = precision_at_k(scores, rule.sets.offsets, rule.sets.choices, 1)
        kept = (np.diff(rule.sets.offsets) > 1) & (rule.sets.choices >= 0)
        assert finding(report, rule.name).prec_at_1 == pytest.approx(100 * values[kept].mean())
        assert finding(report, rule.name).test_prec_at_1 == pytest.approx(
            100 * micro_mean(values[rule.sets.is_test])
        )
    chance = 1 / np.diff(log.display_offsets)[several & (log.choices >= 0)]
    assert report.findings[0].floor == pytest.approx(100 * chance.mean())
    assert report.n_rule_events == (several & (log.choices >= 0)).sum()


def test_tail_probabilities_are_those_of_a_simulation_or_larger() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, 60)
    for ties in (np.ones(60, dtype=np.int64), rng.integers(1, sizes + 1)):
        sums = ((rng.random((200_000, 60)) < ties / sizes) / ties).sum(axis=1)
        for excess in (3.0, 6.0, 9.0):
            exact = (sums >= excess + (1 / sizes).sum() - 1e-9).mean()
            p = tail_probability(ties, sizes, excess)
            assert 0.93 * exact < p < 2 * exact + 1e-4


def test_tail_probability_of_the_largest_possible_sum_is_exact() -> None:
    sizes, ties = np.array([2, 4, 3]), np.array([1, 1, 3])
    assert tail_probability(ties, sizes, 0.5 + 0.75) == pytest.approx(1 / 8)
    assert tail_probability(np.ones(5, int), np.full(5, 2), 2.5) == pytest.approx(1 / 32)
    assert 0.4 < tail_probability(np.ones(50, int), np.full(50, 2), 1e-9) <= 0.6


def test_users_whose_events_agree_count_less() -> None:
    # 40 events of 2 candidates, 30 hits: by 40 users, or by 10 users whose four events all agree.
    hits = np.repeat([1.0, 0.0], [30, 10])
    ones, twos = np.ones(40, dtype=np.int64), np.full(40, 2)
    alone, together = np.arange(40), np.arange(40) // 4
    (low, high), p = excess_test(hits, ones, twos, alone)
    (low_together, high_together), p_together = excess_test(hits, ones, twos, together)
    assert p < 0.005
    assert p_together > 0.03
    assert low_together < low < 0.75 < high < high_together
    assert excess_test(hits, ones, twos, np.zeros(40, dtype=np.int64))[0] == (0.0, 1.0)


def test_a_declared_order_is_kept_and_one_row_per_candidate_says_nothing_of_views() -> None:
    # Its only row is the click's own: "zero view rows" would mark every choice by construction.
    report = audit_frame(shuffled_frame(3))
    assert "zero view rows" not in {f.rule for f in report.findings}
    assert finding(report, "most rows").p == 1.0
    frame = shuffled_frame(5).sort("event", pl.col("chosen") == 0, maintain_order=True)
    assert "dropped" in finding(audit_frame(frame), "first position").action
    assert "kept" in finding(audit_frame(frame, ordered=True), "first position").action


def flags_of(report: AuditReport) -> list[str]:
    """All that the report marks, but declared fields."""
    lines = report.to_text().splitlines()
    return [line for line in lines if "FLAG" in line]


def test_a_synthetic_log_has_nothing_to_mend(tmp_path: Path) -> None:
    """Popular items have small ids, come first in the file and are chosen more often: rules that
    beat chance by it find less than the items' click rates."""
    log, _ = synthesise(5000, no_click=0.3)
    path = tmp_path / "world.parquet"
    to_frame(log).write_parquet(path)
    report = audit(read_log(path), raw_rows(path))
    first = finding(report, "first position")
    assert first.p < 0.001
    assert first.prec_at_1 < report.expected
    assert not report.flagged
    assert flags_of(report) == []
    assert first.mark == "  no more than is expected"
    assert report.verdict == "nothing to mend"
    assert report.to_text().endswith("\nverdict: nothing to mend")
    assert report.to_dict()["verdict"] == "nothing to mend"


def survey(seed: int = 0) -> pl.DataFrame:
    """One choice of a person, always among the same alternatives in the same order, of which the
    last is liked and a lower price helps."""
    rng, n = np.random.default_rng(seed), 600
    price = rng.random((n, 3)).round(2)
    utility = np.array([0.0, 0.3, 1.0]) - 1.5 * price + rng.gumbel(size=(n, 3))
    chosen = (utility == utility.max(1, keepdims=True)).astype(np.int8)
    return pl.DataFrame(
        {
            "session": np.repeat(np.arange(n), 3),
            "event": 0,
            "item": ["bus", "train", "car"] * n,
            "chosen": chosen.reshape(-1),
            "price": price.reshape(-1),
        }
    )


def test_a_clean_survey_has_nothing_to_mend() -> None:
    """Its sessions are alike by nature, and its alternatives stand in one order."""
    plain = audit_frame(survey().drop("price"))
    name = "test sessions that equal a training session"
    alike = next(fact for fact in plain.facts if fact.name == name)
    assert alike.percent == 100
    assert alike.action == "alike by nature: as many training sessions equal one another"
    assert finding(plain, "last position").p < 0.001
    assert flags_of(plain) == []
    assert plain.verdict == "nothing to mend"
    priced = audit_frame(survey(), ("price",))
    assert flags_of(priced) == []
    assert priced.verdict == "nothing to mend"
    # a price that matters more than which item it is: nobody but the reader knows when it is known
    dear = survey().with_columns(price=pl.col("price") - 0.4 * pl.col("chosen"))
    found = audit_frame(dear, ("price",))
    assert flags_of(found) == []
    assert found.verdict == "nothing to mend, if these fields are known before the choice: price"
    assert finding(found, "field price, smallest").mark.startswith("  KNOWN BEFORE?: ")


def test_a_published_log_of_results_in_a_real_order_has_no_other_flag(
    shared_data: Callable[[str], Path],
) -> None:
    log, rows = read_with_rows(resolve("clara2", shared_data("clara2").parent))
    report = audit(log, rows)
    assert [one.rule for one in report.flagged] == ["first position"]
    says = "look at these: first position (56.4); displays that depend on clicks"
    assert report.verdict == says


def test_a_few_copied_rows_say_nothing_of_views() -> None:
    """The click marks a row and adds none: no chosen item has a row without a click."""
    frame = shuffled_frame(7, n_users=200)
    copied = pl.concat([frame, frame.filter(pl.col("event") % 28 == 0)])
    report = audit_frame(copied)
    repeated = share(report, "events in which an item has several rows")
    assert repeated == pytest.approx(100 / 28, abs=0.2)
    assert "zero view rows" not in {one.rule for one in report.findings}
    assert "clicked items without a view row" not in {fact.name for fact in report.facts}
    assert report.verdict == "nothing to mend"
    # the same few, if they are of what was clicked
    viewed = frame.filter((pl.col("event") % 28 == 0) & (pl.col("chosen") == 1))
    told = audit_frame(pl.concat([frame, viewed.with_columns(VIEWED)]))
    assert finding(told, "zero view rows").flagged


def test_weights_that_differ_are_said_in_events() -> None:
    frame = shuffled_frame(1)
    weight = pl.when(pl.col("event") == 3).then(1e12).otherwise(1.0)
    for weights, n in ((weight, 1.0), (pl.lit(2.0), None)):
        report = audit(read_log(frame.with_columns(weight=weights), weight="weight"))
        assert report.effective_events == (None if n is None else pytest.approx(n, abs=1e-6))
        said = f"{report.n_events} events are worth 1.0 events of one weight" in report.to_text()
        assert said == (n is not None)


def test_events_without_a_click_are_left_out_of_rules() -> None:
    frame = shuffled_frame(5)
    full = audit_frame(frame)
    silent = frame.with_columns(
        chosen=pl.when(pl.col("event") < 30).then(0).otherwise(pl.col("chosen"))
    )
    report = audit_frame(silent)
    assert report.n_rule_events < full.n_rule_events
    assert share(report, "events without a click") == pytest.approx(100 * 30 / report.n_events)
    nothing = audit_frame(frame.with_columns(chosen=0))
    assert nothing.n_rule_events == 0
    assert not nothing.flagged
    plain = json.loads(json.dumps(nothing.to_dict(), allow_nan=False))
    assert plain["findings"][0]["prec_at_1"] is None


def test_facts_are_shares_counted_by_hand() -> None:
    frame = pl.DataFrame(
        {
            "session": ["a", "a", "a", "b", "b", "b", "b", "c"],
            "event": [0, 0, 1, 0, 0, 0, 1, 0],
            "item": [1, 2, 1, 1, 9, 9, 2, 1],
            "chosen": [1, 0, 1, 0, 0, 1, 1, 1],
            "split": [0, 0, 0, 2, 2, 2, 2, 2],
        }
    )
    report = audit_frame(frame)
    assert share(report, "test events that display one item") == pytest.approx(200 / 3)
    assert share(report, "test events whose user has no earlier event") == pytest.approx(200 / 3)
    assert share(report, "clicked test items never displayed in training") == pytest.approx(100 / 3)
    assert share(report, "events in which an item has several rows") == pytest.approx(100 / 5)
    assert share(report, "clicked items without a view row") == pytest.approx(400 / 5)
    untested = audit_frame(frame.with_columns(split=pl.lit(0)))
    assert share(untested, "test events that display one item") is None
    assert untested.findings[0].test_prec_at_1 is None


def test_a_saved_log_is_audited_without_its_rows(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    save_log(read_log(shuffled_frame(2), candidate_fields=FIELDS), folder)
    assert raw_rows(folder) is None
    report = audit(read_log(folder), raw_rows(folder))
    assert not report.has_rows
    rules = {f.rule.split(",")[0] for f in report.findings}
    assert rules == {
        *("largest item id", "smallest item id", "fewest displays earlier in the session"),
        *("field price", "field colour"),
    }
    assert "audit the original" in report.to_text()


def test_the_rows_of_another_log_are_refused() -> None:
    with pytest.raises(LogFormatError, match="pass the rows that the log was read from"):
        audit(read_log(shuffled_frame(1)), raw_frame(shuffled_frame(2)))


def test_the_report_is_json_and_text() -> None:
    report = audit_frame(
        shuffled_frame(1000).sort("event", "chosen", maintain_order=True), FIELDS, name="planted"
    )
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    best = content["findings"][0]
    assert (best["rule"], best["prec_at_1"], best["flagged"]) == ("last position", 100.0, True)
    lines = report.to_text().splitlines()
    assert lines[0].startswith("planted: 60 sessions of 60 users")
    assert next(line for line in lines if line.startswith("last position")).endswith(
        "FLAG: " + report.findings[0].action
    )
    assert lines[-1].startswith("verdict: look at these: last position (100.0)")
    assert content["verdict"] == lines[-1].removeprefix("verdict: ")
    assert len(lines) == 11 + len(report.findings) + len(report.facts)


# protocol.md's first table: file, then its rows in percent.
TRAPS = {
    "yelp.txt": (99, 83, 40, 98, 16, 81, 15),
    "rsc.txt": (38, 52, 78, 8, 26, 55, 30),
    "tb.txt": (79, 34, 38, 79, 10, 66, 39),
}


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_of_the_released_files_is_named(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data(name)
    last, number, rows, zero, single, no_history, unseen = TRAPS[name]
    report = audit(read_log(path), raw_rows(path))

    assert round(finding(report, "last position").prec_at_1) == last
    largest = finding(report, "largest item number in order of appearance")
    assert largest.test_prec_at_1 == pytest.approx(number, abs=0.5)
    assert finding(report, "most rows").test_prec_at_1 == pytest.approx(rows, abs=0.5)
    assert share(report, "clicked items without a view row") == pytest.approx(zero, abs=0.5)
    assert share(report, "test events that display one item") == pytest.approx(single, abs=0.5)
    assert share(report, "test events whose user has no earlier event") == pytest.approx(
        no_history, abs=0.5
    )
    assert share(report, "clicked test items never displayed in training") == pytest.approx(
        unseen, abs=0.5
    )
    named = {f.rule for f in report.flagged}
    assert named == {
        "last row, repeats kept",
        "last position",
        "largest item number in order of appearance",
        "most rows",
        "zero view rows",
        "fewest displays earlier in the session",
    }


ITEMS = 12


def drawn_log(seed: int, n_users: int = 60, again: float = 0.0) -> SessionLog:
    """Sessions of displays of 2 to 4 items, popular ones more often; with probability `again` the
    first one is the item clicked last."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, ITEMS + 1) / np.arange(1, ITEMS + 1).sum()
    sessions = []
    for _ in range(n_users):
        events: list[tuple[list[int], int]] = []
        last = -1
        for _ in range(int(rng.integers(1, 7))):
            items = rng.choice(ITEMS, int(rng.integers(2, 5)), replace=False, p=shares).tolist()
            if last >= 0 and last not in items and rng.random() < again:
                items[0] = last
            choice = int(rng.integers(-1, len(items)))
            last = items[choice] if choice >= 0 else last
            events.append((items, choice))
        sessions.append(events)
    return log_of(sessions)


def test_of_100_logs_drawn_at_random_at_most_three_are_flagged() -> None:
    tests = [display_dependence(drawn_log(seed)) for seed in range(100)]
    assert sum(one is not None and one.found for one in tests) <= 3
    assert abs(np.mean([one.z for one in tests if one is not None])) < 0.3


def test_a_recommender_that_repeats_clicks_is_found() -> None:
    for seed in range(10):
        found = display_dependence(drawn_log(seed, n_users=200, again=0.3))
        assert found is not None
        assert found.found
        assert found.shown > found.expected
    report = audit(drawn_log(0, n_users=200, again=0.3))
    assert "FLAG: displays depend on clicks: the item clicked last is displayed again in" in (
        report.to_text()
    )
    assert "off-policy values need logged propensities" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["dependence"]["p"] < 0.01
    assert "FLAG: displays" not in audit(drawn_log(0, n_users=200)).to_text()


def test_the_figures_are_counted() -> None:
    """Users 0 and 1 have clicked 0, and are shown two displays of two; user 2 clicks nothing."""
    after = [([0, 2], -1), ([1, 2], -1)]
    log = log_of([[([0, 1], 0), *after], [([0, 1], 0), *after], [([0, 3], -1), ([2, 3], 0)]])
    found = display_dependence(log)
    # of the ten places of all others three are item 0's: 2 places × .3, in each of the events
    assert found is not None
    assert (found.n_events, found.shown, found.expected) == (4, 0.5, pytest.approx(0.6))
    by_users = 2 * (1 - 1.2) ** 2
    assert found.z == pytest.approx((2 - 2.4) / max(by_users, 4 * 0.6 * 0.4) ** 0.5)
    one = log_of([[([0, 1], 0), *after], [([0, 3], -1), ([2, 3], 0)]])
    assert display_dependence(one) is None, "one user"


def test_where_nothing_can_be_said_there_is_no_test() -> None:
    assert display_dependence(log_of([[([0, 1], -1)], [([0, 1], 0)]])) is None
    log = drawn_log(0)
    fields = {CLICKS_SO_FAR: np.zeros(log.n_events, np.float32)}
    assert display_dependence(put(log, event=fields)) is None


N, SHOWN = 120, 4


def visits(seed: int = 0) -> pl.DataFrame:
    """One display a session, chosen from by chance; a price of each candidate."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(30)[:SHOWN] for _ in range(N)])
    chosen = np.zeros((N, SHOWN), np.int8)
    chosen[np.arange(N), rng.integers(0, SHOWN, N)] = 1
    frame = pl.DataFrame(
        {
            "session": np.repeat(np.arange(N), SHOWN),
            "event": 0,
            "item": items.reshape(-1),
            "chosen": chosen.reshape(-1),
            "price": rng.random(N * SHOWN),
        }
    )
    part = pl.when(pl.col("session") < N // 2).then(pl.lit("train")).otherwise(pl.lit("test"))
    choice = pl.col("item").filter(pl.col("chosen") == 1).first().over("session")
    return frame.with_columns(
        split=part,
        page=pl.format("p{}", pl.col("session") % 7),
        said=pl.format("i{}", choice),
        number=choice * 10,
        half=choice.cast(pl.Float64) / 2,
    )


def fact_of(log: SessionLog, name: str) -> Fact:
    return next(one for one in audit(log).facts if one.name == name)


def read(frame: pl.DataFrame, **options: object) -> SessionLog:
    return read_log(frame, candidate_fields=["price"], **options)  # type: ignore[arg-type]


def test_users_on_both_sides_are_flagged() -> None:
    name = "test users who have training sessions too"
    alone = fact_of(read(visits()), name)
    assert (alone.percent, alone.n, alone.action) == (0, N // 2, "-")
    both = fact_of(read(visits().with_columns(user=pl.col("session") % 40)), name)
    assert (both.percent, both.n) == (100, 40)
    assert both.action.startswith("FLAG: ")


def test_the_first_event_of_a_user_is_that_of_times_not_of_the_file() -> None:
    name = "test events whose user has no earlier event"
    frame = visits().with_columns(user=pl.col("session") % 40, event=pl.col("session"))
    for one, of_file in ((frame, 0), (frame.reverse(), 40 / 60 * 100)):
        log = read(one)
        assert share(audit(log, raw_rows(one, candidate_fields=["price"])), name) == 0
        assert fact_of(log, f"{name} in the file").percent == pytest.approx(of_file)


def test_an_empty_session_is_no_copy_of_its_neighbour() -> None:
    log = log_of([[([0, 1], 0)], [], [([0, 1], 0)], []], split=[1, 2, 0, 1])
    assert fact_of(log, "test sessions that equal a training session").percent == 0


def test_copied_sessions_are_flagged() -> None:
    name = "test sessions that equal a training session"
    assert fact_of(read(visits()), name).percent == 0
    copies = visits().filter(split="train").with_columns(session=pl.col("session") + 1000)
    frame = pl.concat([visits(), copies.with_columns(split=pl.lit("test")).reverse()])
    found = fact_of(read(frame), name)
    assert found.percent == pytest.approx(50)
    assert found.action.startswith("FLAG: ")
    # another price is another session
    other = frame.with_columns(price=pl.col("price") + pl.col("session").cast(pl.Float64))
    assert fact_of(read(other), name).percent == 0


@pytest.mark.parametrize(
    ("field", "flagged"), [("said", True), ("number", True), ("half", True), ("page", False)]
)
def test_a_field_that_tells_the_choice_is_flagged(field, flagged) -> None:
    log = read(visits(), context_fields=[field])
    fact = fact_of(log, f"choices of the item that is usual under their {field}")
    assert fact.action.startswith("FLAG: ") == flagged
    assert (fact.percent == 100) == flagged


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_against_its_definition(values: list[float]) -> None:
    adjusted = holm(values)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for rank, i in enumerate(order):
        steps = [min(1.0, (len(values) - j) * values[order[j]]) for j in range(rank + 1)]
        assert adjusted[i] == pytest.approx(max(steps))
