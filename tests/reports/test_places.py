"""A page on a model that keeps place and taste apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.reports.facts import SplitScores, report_facts
from fastgaum.reports.page import to_html
from fastgaum.reports.trained_run import open_run
from tests.reports.workshop import QUICK, Workshop


def test_the_page_shows_how_much_users_look_at_each_place(
    tmp_path: Path, workshop: Workshop
) -> None:
    log, _ = synthesise(400, n_items=12, order="random", examination=1.0, no_click=0.3)
    log = dataclasses.replace(log, name="ranked")
    train_run(UserModel.from_preset("fastgaum", eta=2.0, **QUICK), log, tmp_path / "run")
    run = open_run(tmp_path / "run")
    facts = report_facts([run], [log])
    places = facts["runs"][0]["places"]
    by_place = run.model.examination()
    assert by_place is not None
    # the odds of a choice, as the model itself gives them at place 2 and at place 1
    events = run.model.predict(log, "validation", at_place=2).with_columns(
        first=run.model.predict(log, "validation", at_place=1)["probability"],
        no_click_first=run.model.predict(log, "validation", at_place=1)["no_click_probability"],
    )
    odds = events["probability"] / events["no_click_probability"]
    odds /= events["first"] / events["no_click_first"]
    np.testing.assert_allclose(odds.to_numpy(), by_place[1], rtol=1e-3)
    assert [one["place"] for one in places] == list(range(1, len(by_place) + 1))
    assert [one["examination"]["reward"] for one in places] == pytest.approx(by_place.tolist())
    # shown and chosen, counted once more
    events = np.flatnonzero(np.isin(log.session_of_event, log.sessions_in("validation")))
    sizes = np.diff(log.display_offsets)[events]
    for one in places:
        displays, place = int((sizes >= one["place"]).sum()), one["place"] - 1
        assert one["displays"] == displays
        chosen = int((log.choices[events] == place).sum())
        assert one["chosen"] == pytest.approx(chosen / max(displays, 1))
    # utilities on the page are those by taste
    scored = SplitScores.of(run.model, log, "validation")
    taste = run.model.predict(log, "validation", at_place=None)["utility"].to_numpy()
    means = np.add.reduceat(taste, scored.part.display_offsets[:-1]) / scored.sizes
    np.testing.assert_allclose(
        scored.advantage(), taste - np.repeat(means, scored.sizes), atol=1e-5
    )
    assert "examination, generator" in to_html(facts)
    assert all(one["places"] == [] for one in workshop.facts["runs"])
    assert "examination, generator" not in to_html(workshop.facts)
