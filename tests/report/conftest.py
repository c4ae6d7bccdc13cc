"""Two runs on one log with clicks, no clicks and hostile names: made once for all tests of the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="charts: install fastgaum[plots]")

from fastgaum.models.user_model import UserModel
from fastgaum.report.facts import report_facts
from fastgaum.report.run import open_run
from fastgaum.sessions.packed import SessionLog
from fastgaum.sessions.synthetic import synthesise
from fastgaum.training.runs import train_run

SCRIPT = "<script>document.title='owned'</script>"
HOSTILE = (SCRIPT, "\"><img src=x onerror=alert(1)>", "</style></title>&amp;", "$\\frac{1}{", "a" * 90, "{{ 7 * 7 }}")
"""names that would break a page, a stylesheet, a formula, a layout or a template"""
QUICK: Mapping[str, Any] = {"epochs": 2, "warm_start": 3, "catch_up": 2, "batch_sessions": 128, "search": [], "device": "cpu"}


@dataclass(frozen=True)
class Workshop:
    """A log and two runs on it."""

    log: SessionLog
    runs: tuple[Path, Path]
    facts: dict[str, Any]
    """of the first run alone"""


def hostile(log: SessionLog) -> SessionLog:
    """The same log under names that nobody wishes for."""
    items, sessions = log.item_ids.to_list(), log.session_ids.to_list()
    items[: len(HOSTILE)] = HOSTILE
    sessions = [f"{SCRIPT}{i}" for i in range(len(sessions))]
    renamed = {"item_ids": type(log.item_ids)(items), "session_ids": type(log.item_ids)(sessions)}
    return dataclasses.replace(log, name="<b>log</b>", **renamed)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("report")
    log = hostile(synthesise(600, preset="sample", n_items=12, no_click=0.3, seed=2)[0])
    assert log.has_no_click
    runs = (folder / "<i>first", folder / "second")
    for run, changes in zip(runs, ({}, {"players": "exact", "protocol": "identity"}), strict=True):
        train_run(UserModel.from_preset("fastgaum", **{**QUICK, **changes}), log, run)
    return Workshop(log, runs, report_facts([open_run(runs[0])], [log]))
