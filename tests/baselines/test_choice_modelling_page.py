"""docs/guide/choice-modelling.md prints what its code prints, and what the likelihood of biogeme's
form has, maximised by scipy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from tests.test_docs import ROOT, blocks_of

PAGE = ROOT / "docs" / "guide" / "choice-modelling.md"
NUMBER = re.compile(r"-?\d[\d,]*\.\d+|-?\d[\d,]*")


def test_the_table_of_the_page_is_the_likeliest_model_of_biogeme_s_form() -> None:
    made: dict[str, Any] = {}
    for language, code, _ in blocks_of(PAGE)[:2]:
        assert language == "python"
        exec(code, made)
    model, table = made["model"], made["swissmetro"]
    (printed,) = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    said = str(model)
    assert NUMBER.sub("", said).split() == NUMBER.sub("", printed).split()
    found, expected = (
        [float(one.replace(",", "")) for one in NUMBER.findall(text)] for text in (said, printed)
    )
    # another processor may round the last digit otherwise
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1.1e-4)
    time, cost, available = (
        table.select(f"{mode}_{field}" for mode in ("TRAIN", "SM", "CAR")).to_numpy()
        for field in ("TT", "CO", "AV")
    )
    choice = table["CHOICE"].to_numpy() - 1

    def nll(beta: np.ndarray) -> float:
        asc_car, asc_train, b_time, b_cost = beta
        v = np.array([asc_train, 0, asc_car]) + (b_time * time + b_cost * cost) / 100
        v = np.where(available == 1, v, -np.inf)
        return float((logsumexp(v, axis=1) - v[np.arange(len(v)), choice]).sum())

    best = minimize(nll, np.zeros(4), method="BFGS", options={"gtol": 1e-4})
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line}
    names = ["constant[CAR]", "constant[TRAIN]", "TT", "CO"]
    estimates = [float(lines[name][1]) for name in names]
    np.testing.assert_allclose(estimates, best.x, atol=6e-6)
    assert model.log_likelihood == pytest.approx(-best.fun, abs=1e-6)
    assert float(lines["log-likelihood"][1].replace(",", "")) == pytest.approx(-best.fun, abs=6e-4)


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text(encoding="utf-8").split()) <= 1500
