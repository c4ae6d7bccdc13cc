"""A page on a model that keeps place and taste apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.reports.facts import SplitScores
from fastgaum.reports.trained_run import open_run
from tests.reports.workshop import QUICK


def test_utilities_on_the_page_are_free_of_place(tmp_path: Path) -> None:
    log, _ = synthesise(400, n_items=12, order="random", examination=1.0, no_click=0.3)
    log = dataclasses.replace(log, name="ranked")
    train_run(UserModel.from_preset("fastgaum", eta=2.0, **QUICK), log, tmp_path / "run")
    model = open_run(tmp_path / "run").model
    scored = SplitScores.of(model, log, "validation")
    taste = model.predict(log, "validation", at_place=None)["utility"].to_numpy()
    means = np.add.reduceat(taste, scored.part.display_offsets[:-1]) / scored.sizes
    np.testing.assert_allclose(
        scored.advantage(), taste - np.repeat(means, scored.sizes), atol=1e-5
    )
