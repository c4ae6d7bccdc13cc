"""Home and away at toy size: who is fitted on whom, what is recommended, and what the tables say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastgaum.bench import away as module
from fastgaum.bench.away import AwayPlan, away, away_blocks
from fastgaum.bench.experiments import promises
from fastgaum.bench.experiments.promises import ONE_WORLD
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.user_model import UserModel
from fastgaum.policies.config import PolicyConfig
from fastgaum.reports.table import finite

SET = "set of 2"
QUICK: dict[str, object] = {"epochs": 1, "warm_start": 1}
PLAN = AwayPlan(
    2, 2, 60, 3, 3, 6, PolicyConfig(episodes=1, users=16, warm_up=16, batch=16, evaluations=1)
)


@pytest.fixture(scope="module")
def fitted() -> list[set[int]]:
    """Users whom each fit of the first seed trained and validated on, in order."""
    return []


@pytest.fixture(scope="module")
def result(fitted: list[set[int]]) -> dict[str, Any]:
    log = synthesise(200, preset="sample", seed=1, n_items=15)[0]
    seen: list[str] = []
    fit = UserModel.fit

    def seen_fit(model: UserModel, log: SessionLog) -> object:
        fitted.append(set(log.users[log.split < 2].tolist()))
        return fit(model, log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promises, "MODEL", {**promises.MODEL, **QUICK})
        patch.setattr(
            module, "JUDGES", {n: (p, {**c, **QUICK}) for n, (p, c) in module.JUDGES.items()}
        )
        patch.setattr(UserModel, "fit", seen_fit)
        found: dict[str, Any] = finite(away({"toy": log}, PLAN, observer=seen.append))
    assert seen == [f"[{i + 1}/2] {log.name}, seed {i}" for i in range(2)]
    return found


def test_home_and_away_share_no_user(result: dict[str, Any], fitted: list[set[int]]) -> None:
    assert result["pairs"] == 2
    assert len(fitted) == 6
    for seed in range(2):
        same_kind, another_kind, home = fitted[3 * seed : 3 * seed + 3]
        assert same_kind == another_kind
        assert not home & same_kind
    assert fitted[0] != fitted[3]


def test_figures_follow_from_those_of_the_seeds(result: dict[str, Any]) -> None:
    (log,) = result["logs"]
    assert [(row["home"], row["judge"]) for row in log["rows"]] == [
        (home, judge) for home in (ONE_WORLD, SET) for judge in module.JUDGES
    ]
    paid = []
    for row in log["rows"]:
        by_name = {one["policy"]: one for one in row["policies"]}
        assert len(by_name) == len(row["policies"]) == 10
        assert ("bound" in by_name["greedy"]) == (row["home"] == SET)
        for seed, name in enumerate(row["recommended"]):
            assert name in (("greedy", "slateq") if row["home"] == SET else ("greedy",))
            for rival in module.RIVALS:
                lead = row[f"lead_over_{rival}_by_seed"][seed]
                earned = by_name[name]["paid_by_seed"][seed]
                assert lead == pytest.approx(earned - by_name[rival]["paid_by_seed"][seed])
        for seed in range(2):
            promised, earned = (
                [one[f"{side}_by_seed"][seed] for one in by_name.values()]
                for side in ("promised", "paid")
            )
            pairs = np.subtract.outer(promised, promised) * np.subtract.outer(earned, earned)
            assert (pairs == 0).sum() == 10, "a policy ties with itself alone"
            assert row["kendall_by_seed"][seed] == pytest.approx(np.sign(pairs).sum() / 90)
        paid.append([by_name[n]["paid_by_seed"] for n in ("greedy", "popular", "random")])
    # one judge pays popular and random slates the same, wherever they were made; another does not
    one, other, of_set, _ = paid
    assert one[1:] == of_set[1:]
    assert one != other

    below = sum(
        any(row[f"lead_over_{rival}_ci"][1] < 0 for rival in module.RIVALS) for row in log["rows"]
    )
    assert f"by more than chance, in {below} of 4 rows" in away_blocks(result)[0].notes[-1]
