"""Made-up laws: the log holds what the law drew, and the right form finds the law."""

from __future__ import annotations

import numpy as np
import pytest

from fastgaum.bench.made_up_laws import (
    ITEMS,
    LAWS,
    LawName,
    compare,
    fit_right_form,
    make_law,
    to_markdown,
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
