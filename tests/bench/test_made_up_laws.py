"""Made-up laws: the log holds what the law drew, and the right form finds the law."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.bench.made_up_laws import (
    ITEMS,
    LAWS,
    SHOWN,
    TEST_EVENTS,
    LawName,
    compare,
    fit_right_form,
    make_law,
    to_markdown,
)


@pytest.mark.parametrize("law", LAWS)
def test_a_log_is_what_its_law_drew(law: LawName) -> None:
    made = make_law(law, 400, 1)
    log = made.log
    assert [log.count("events", part) for part in ("train", "validation", "test")] == [
        *(400, 200, TEST_EVENTS)
    ]
    assert log.ordered == (law == "places")
    assert log.has_no_click == (law == "no_click")
    np.testing.assert_allclose(np.exp(made.log_probs).sum(1), 1)
    # a log without an order keeps none: displays are compared as sets
    shown = made.form[:, :SHOWN, :ITEMS].argmax(2)
    items = log.items.reshape(-1, SHOWN)
    assert [log.item_ids[item] for item in range(ITEMS)] == [f"i{n:02d}" for n in range(ITEMS)]
    np.testing.assert_array_equal(np.sort(items), np.sort(shown))
    assert all(len(set(one)) == SHOWN for one in shown.tolist())
    clicked = np.flatnonzero(made.choices < SHOWN)
    np.testing.assert_array_equal(np.flatnonzero(log.choices >= 0), clicked)
    np.testing.assert_array_equal(
        items[clicked, log.choices[clicked]], shown[clicked, made.choices[clicked]]
    )


@pytest.mark.parametrize("law", LAWS)
def test_the_right_form_comes_near_the_law(law: LawName) -> None:
    """Its test loss is above the law's by what its numbers cost: half of them per event."""
    made = make_law(law, 8000, 4)
    above = made.loss(fit_right_form(made)) - made.loss(made.log_probs)
    assert -0.001 < above < 5 * (ITEMS + 2) / (2 * 12_000)


def test_a_table_has_a_row_per_law_and_size_and_a_column_per_model() -> None:
    rows = compare(["main"], [800], 2, ["random"])
    assert [row["model"] for row in rows] == ["the law itself", "random"]
    law, random = rows
    assert max(law["less_right_form"]) < 0 < random["mean"]
    assert random["mean"] == pytest.approx(np.mean(random["less_right_form"]))
    table = to_markdown(rows).splitlines()
    assert table[0] == "| law | training events | the law itself | random |"
    assert table[2] == f"| main | 800 | {law['mean']:+.3f} | {random['mean']:+.3f} |"
