"""How far one model leads another on the same events."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastgaum.baselines.registry import make_model
from fastgaum.errors import ConfigError
from fastgaum.logs.read import load
from fastgaum.metrics.intervals import paired_difference


def test_a_lead_is_the_paired_difference_over_users() -> None:
    log = load("sample")
    figures = []
    for name in ("click-rate", "random"):
        model = make_model(name, {"protocol": "bags", "seed": 0})
        model.fit(log)
        figures.append(model.evaluate(log, split="test"))
    ours, theirs = figures
    lead = ours.lead(theirs, k=2)
    values = [one.heads["reward"].precision_per_event[2] for one in figures]
    events = np.diff(log.session_offsets)[log.sessions_in("test")]
    users = np.repeat(log.users[log.sessions_in("test")], events)
    assert lead == paired_difference(*values, users)
    assert lead.mean == pytest.approx(
        ours.heads["reward"].precision[2].mean - theirs.heads["reward"].precision[2].mean
    )
    assert theirs.lead(ours, k=2).mean == pytest.approx(-lead.mean)
    with pytest.raises(ConfigError, match="no prec@5 of both models: they have k = 1, 2"):
        ours.lead(theirs, k=5)
    with pytest.raises(ConfigError, match="other events"):
        ours.lead(model.evaluate(log, split="train"))
    with pytest.raises(ConfigError, match="other is None, a Evaluation"):
        ours.lead(None)  # type: ignore[arg-type]
    # another log, whose users have the same numbers
    first = dataclasses.replace(log, choices=np.minimum(log.choices, 0))
    with pytest.raises(ConfigError, match="other events"):
        ours.lead(model.evaluate(first, split="test", allow_seen_users=True))
