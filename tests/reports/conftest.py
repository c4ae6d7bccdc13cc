"""What the tests of the report share: trained once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.reports.facts import report_facts
from fastgaum.reports.page import to_html
from fastgaum.reports.plots import Chart
from fastgaum.reports.trained_run import open_run
from tests.reports.workshop import QUICK, Workshop, hostile


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("report")
    log = hostile(synthesise(600, preset="sample", n_items=12, no_click=0.3, seed=2)[0])
    assert log.has_no_click
    runs = (folder / "<i>first", folder / "second")
    for run, changes in zip(runs, ({}, {"players": "exact", "protocol": "identity"}), strict=True):
        train_run(UserModel.from_preset("fastgaum", **{**QUICK, **changes}), log, run)
    return Workshop(log, runs, report_facts([open_run(runs[0])], [log]))


@pytest.fixture(scope="session")
def html(workshop: Workshop) -> str:
    """The first run's page."""
    return to_html(workshop.facts)


@pytest.fixture(scope="session")
def compared(workshop: Workshop) -> str:
    """The page of both, side by side."""
    return to_html(
        report_facts([open_run(run) for run in workshop.runs], [workshop.log], compare=True)
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn, which is most of a page's time: for tests that read its text."""

    def blank(chart: Chart, others: Sequence[Chart] = ()) -> dict[str, str]:
        return {"address": "data:,", "label": chart.label}

    monkeypatch.setattr("fastgaum.reports.charts.picture_of", blank)
