"""Relations: counts of item pairs against a slow twin, in the order in which training is read, and
what a file may hold."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.baselines.registry import make_model
from fastgaum.features import relations
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.relations import Relations, left_out, mean_display
from fastgaum.kernels.candidate_formulas import RELATION_NUMBERS
from fastgaum.logs.log import SessionLog
from fastgaum.models.space_state import saved_space, space_of
from fastgaum.models.user_model import UserModel
from fastgaum.presets import LARGE_DISPLAYS
from tests.builders import factor_of_counts, log_of, random_log, sessions_that_speak


def naive_numbers(
    log: SessionLog, window: int = relations.WINDOW, most: int = 1000, limit: int = 1000
) -> dict[str, np.ndarray]:
    """Every number of every candidate of the log, by dictionaries over the training sessions that
    come before.

    A candidate has at most so many rivals, and pairs of items of the first `limit` ranks alone are
    known."""
    events = [
        range(a, b) for a, b in zip(log.session_offsets[:-1], log.session_offsets[1:], strict=True)
    ]

    def shown(event: int) -> list[int]:
        return log.items[log.display_offsets[event] : log.display_offsets[event + 1]].tolist()

    def chosen(event: int) -> int | None:
        return None if log.choices[event] < 0 else shown(event)[log.choices[event]]

    def last_choices(session: range, event: int) -> list[int]:
        made = [chosen(before) for before in session if before < event]
        return [one for one in made if one is not None][-window:]

    displays = Counter(
        a for row, s in enumerate(events) if log.split[row] == 0 for e in s for a in shown(e)
    )
    ranked = sorted(displays, key=lambda item: (-displays[item], item))

    def rivals_of(a: int, event: int) -> list[int]:
        others = [b for b in shown(event) if b != a]
        if len(others) <= most:
            return others
        return [b for b in ranked if b in others][:most]

    def counts(rows: list[int]) -> tuple[Counter, Counter, Counter, Counter, Counter]:
        met, won, lost, follows, taken = (Counter() for _ in range(5))
        for session in (events[row] for row in rows):
            for event in session:
                for a in shown(event):
                    for b in rivals_of(a, event):
                        if {a, b} <= kept:
                            met[a, b] += 1
                            won[a, b] += a == chosen(event)
                            lost[a, b] += b == chosen(event)
                    for h in last_choices(session, event):
                        if {a, h} <= kept:
                            follows[h, a] += 1
                            taken[h, a] += a == chosen(event)
        return met, won, lost, follows, taken

    def scaled(counts: Counter, factor: float) -> Counter:
        return Counter({pair: round(n * factor) for pair, n in counts.items()})

    known, kept = set(displays), set(ranked[:limit])
    columns: dict[str, list[float]] = {name: [] for name in RELATION_NUMBERS}
    for row, session in enumerate(events):
        met, won, lost, follows, taken = (
            scaled(table, factor_of_counts(log, row))
            for table in counts(sessions_that_speak(log, row))
        )
        for event in session:
            for a in shown(event):
                rivals = [b for b in rivals_of(a, event) if a in known and b in known]
                wins, losses = sum(won[a, b] for b in rivals), sum(lost[a, b] for b in rivals)
                before = last_choices(session, event)
                columns["rivals_met"].append(math.log1p(sum(met[a, b] for b in rivals)))
                columns["rivals_known"].append(
                    sum(met[a, b] > 0 for b in rivals) / max(min(len(shown(event)) - 1, most), 1)
                )
                columns["rivals_won"].append(math.log((wins + 0.5) / (losses + 0.5)))
                odds = [math.log((won[a, b] + 0.5) / (lost[a, b] + 0.5)) for b in rivals]
                columns["rivals_odds"].append(sum(odds))
                columns["follows_shown"].append(math.log1p(sum(follows[h, a] for h in before)))
                columns["follows_chosen"].append(math.log1p(sum(taken[h, a] for h in before)))
    return {name: np.array(values) for name, values in columns.items()}


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_items=st.integers(2, 9),
    no_click=st.sampled_from([0.0, 0.3]),
    window=st.sampled_from([1, 2, relations.WINDOW]),
    most=st.sampled_from([1, 2, 1000]),
    pairs=st.sampled_from([4, 10, 1000]),
)
def test_numbers_equal_a_slow_twin(
    seed: int, n_items: int, no_click: float, window: int, most: int, pairs: int
) -> None:
    log = random_log(
        seed, n_sessions=16, n_items=n_items, no_click=no_click, shared_users=seed % 2 == 0
    )
    sizes = np.diff(log.display_offsets[log.session_offsets])
    with pytest.MonkeyPatch.context() as patch:
        # sessions are short: only a short window forgets a choice
        patch.setattr(relations, "WINDOW", window)
        patch.setattr(relations, "FIRST_SLOTS", 8)
        patch.setattr(relations, "MOST_PAIRS", pairs)
        n_train = int(sizes[log.sessions_in("train")].sum())
        patch.setattr(relations, "MOST_COMPARISONS", most * n_train)
        space = fit_space(log, "identity", relative_numbers=False, relations=True)
        encoded = Encoder(space, log).encode(log.sessions_in("all"))
    found = space.relations
    assert found is not None
    assert found.rule.most == most
    raw = encoded.numbers * space.code.scale + space.code.start
    # which pairs are kept for a training session depends on what came before it
    checked = np.repeat((log.split != 0) | (pairs == 1000), sizes)
    for table, names in (
        (found.rivals, RELATION_NUMBERS[:4]),
        (found.follows, RELATION_NUMBERS[4:]),
    ):
        assert len(table.keys) <= pairs
        assert pairs < 1000 or table.limit == len(space.item_counts.displays)
        expected = naive_numbers(log, window, most, table.limit)
        for name in names:
            ours = raw[checked, RELATION_NUMBERS.index(name)]
            np.testing.assert_allclose(ours, expected[name][checked], atol=1e-4, err_msg=name)


def test_tables_that_do_not_fit_their_items_are_refused() -> None:
    space = fit_space(random_log(3, n_sessions=40), relations=True)
    found = space_of(saved_space(space)).relations
    assert found is not None
    assert space.relations is not None
    np.testing.assert_array_equal(found.rivals.counts, space.relations.rivals.counts)
    starts = found.rivals.starts.copy()
    starts[-1] += 1_000_000
    crafted = found._replace(rivals=found.rivals._replace(starts=starts))
    with pytest.raises(ValueError, match="item pairs"):
        space_of(saved_space(dataclasses.replace(space, relations=Relations(*crafted))))


def large_log(size: int, n_sessions: int = 12) -> SessionLog:
    """Two displays a session of so many items each."""
    rng = np.random.default_rng(0)
    sessions = [
        [(rng.permutation(size + 9)[:size].tolist(), int(rng.integers(size))) for _ in range(2)]
        for _ in range(n_sessions)
    ]
    return log_of(sessions, split=([0, 0, 1, 2] * n_sessions)[:n_sessions])


def test_large_displays_have_no_relations_and_a_fit_says_so() -> None:
    """One display of 1,000 beside fourteen of 10 counts as it costs."""
    at, above = large_log(LARGE_DISPLAYS, 4), large_log(LARGE_DISPLAYS + 1, 4)
    assert (left_out(at), mean_display(above)) == ("", LARGE_DISPLAYS + 1)
    short = {"epochs": 1, "warm_start": 1, "hidden": [4], "device": "cpu"}
    for log, left in ((at, ""), (above, " (displays of 301: no relations)")):
        model = UserModel.from_preset("fastgaum-exact", **short)
        settings = model.settings_for(log)
        assert any(one.relations for one in settings.values()) == (not left)
        assert all(name.endswith(left) for name in settings)
    model.fit(above)
    assert [one.name for one in model.trials] == list(settings)
    assert not model.config.relations
    # with penalties that are not compared: each comparison reads the large displays again
    logit = make_model("logit", {"penalty": 10.0, "number_penalty": 10.0})
    for log, reads in ((at, True), (above, False)):
        logit.fit(log)
        assert logit.space is not None
        assert (logit.space.relations is not None, logit.settings.relations) == (reads, reads)
    few = large_log(10, 8)
    mixed = log_of(
        [[(list(range(1000)), 3)], *([(list(range(10)), 1)] for _ in range(20))],
        split=[0] * 15 + [1] * 3 + [2] * 3,
    )
    assert left_out(few) == ""
    assert "among 878 in the mean" in left_out(mixed)


def test_which_pairs_are_kept_does_not_depend_on_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "MOST_PAIRS", 12)
    log = random_log(3, n_sessions=40, n_items=9)
    other = dataclasses.replace(log, choices=np.zeros_like(log.choices))
    kept = []
    for one in (log, other):
        space = fit_space(one, "identity", relative_numbers=False, relations=True)
        assert space.relations is not None
        kept.append(space.relations.rivals)
    assert 0 < len(kept[0].keys) <= 12
    np.testing.assert_array_equal(kept[0].keys, kept[1].keys)
    assert (kept[0].counts != kept[1].counts).any()
