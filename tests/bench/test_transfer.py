"""Promised and paid at toy size: who trains where, what is compared, and what the tables say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.arrays import FloatArray
from fastgaum.bench.experiments import promises as module
from fastgaum.bench.experiments import transfer as script
from fastgaum.bench.experiments.known_worlds import KNOWN_WORLDS, true_users
from fastgaum.bench.experiments.promises import ONE_WORLD, Learner, rank_agreement
from fastgaum.bench.experiments.transfer import (
    HORIZON,
    TRUTH,
    K,
    Task,
    TransferPlan,
    drawn_log,
    transfer,
)
from fastgaum.bench.experiments.transfer_table import (
    bound_held,
    row_in,
    transfer_blocks,
    transfer_summary,
)
from fastgaum.policies.config import PolicyConfig
from fastgaum.policies.evaluation import Estimate
from fastgaum.policies.rollout import Setting
from fastgaum.reports.table import finite
from fastgaum.untrusted import parse_json

SET = "set of 2"
TOY = PolicyConfig(episodes=1, users=16, warm_up=16, batch=16, updates=1, evaluations=1)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    plan = TransferPlan(
        [KNOWN_WORLDS["items-10"]], ("random",), (400,), 2, 60, TOY, 2, "cascade-dqn"
    )
    seen: list[tuple[int, int, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        quick = {"epochs": 1, "warm_start": 1, "search": ()}
        patch.setattr(module, "MODEL", {**module.MODEL, **quick})
        found: dict[str, Any] = finite(transfer(plan, progress=lambda *call: seen.append(call)))
    assert [call[:2] for call in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[0][2] == "items-10, 400 events, random, seed 0"
    assert seen[1][2] == "items-10, the truth, seed 0"
    assert seen[-1][2] == "items-10, the truth, seed 1"
    return found


def test_figures_follow_from_those_of_the_seeds(result: dict[str, Any]) -> None:
    (setting,) = result["settings"]
    ceiling, chance = (
        np.array(row_in(setting, name, TRUTH)["paid_by_seed"]) for name in ("cascade-dqn", "random")
    )
    # of two seeds the interval is wide: the toy may have learned nothing
    way = Estimate.of(ceiling - chance)
    for world in (ONE_WORLD, SET):
        learned = [row for row in setting["rows"] if row["world"] == world]
        assert len(learned) == len({row["policy"] for row in learned}) == 10
    for row in setting["rows"]:
        paid = np.array(row["paid_by_seed"])
        assert row["paid"] == pytest.approx(paid.mean())
        assert row["paid_ci"][0] <= row["paid"] <= row["paid_ci"][1]
        assert row["of_truth"] == pytest.approx((paid / ceiling).mean())
        share = ((paid - chance) / (ceiling - chance)).mean() if way.low > 0 else None
        assert row["gap_closed"] == (share and pytest.approx(share))
        # 60 users a seed: chance may lift a policy above the best by so much
        assert row["of_optimum"] == pytest.approx(paid.mean() / setting["optimum"])
        assert 0.5 < row["of_optimum"] < 1.1
        assert ("bound" in row) == (row["world"] == SET)
        if row["world"] != TRUTH:
            promised = np.array(row["promised_by_seed"])
            assert row["optimism"] == pytest.approx(((promised - paid) / paid).mean())
        if row["world"] == SET:
            bound = np.array(row["bound_by_seed"])
            assert (bound < promised).all()
            assert row["bound_optimism"] == pytest.approx(((bound - paid) / paid).mean())
    figures, of_set = setting["learned"]
    assert (figures["world"], of_set["world"]) == (ONE_WORLD, SET)
    trained, greedy = (
        np.array(row_in(setting, name, ONE_WORLD)["paid_by_seed"])
        for name in ("cascade-dqn", "greedy")
    )
    assert figures["regret"] == pytest.approx((ceiling - trained).mean())
    assert figures["lead_over_greedy"] == pytest.approx((trained - greedy).mean())
    assert -1 <= figures["kendall"] <= 1
    assert "recommended" not in figures
    for seed, name in enumerate(of_set["recommended"]):
        lead = of_set["lead_over_greedy_by_seed"][seed]
        assert name == ("cascade-dqn" if of_set["lead_bound_by_seed"][seed] > 0 else "greedy")
        promised = of_set["promised_lead_by_seed"][seed]
        own = [
            row_in(setting, one, SET)["promised_by_seed"][seed] for one in ("cascade-dqn", "greedy")
        ]
        # members weigh the same, however many users they have
        assert promised == pytest.approx(own[0] - own[1], abs=0.5)
        other = -lead if name == "greedy" else lead
        assert of_set["recommended_lead_by_seed"][seed] == pytest.approx(other)
    notes = "\n".join(block_notes(result, setting))
    assert "set of 2: recommends " in notes
    assert " of 1 settings" in transfer_summary(result)


def test_seeds_draw_logs_that_differ_and_have_no_test_split() -> None:
    known = KNOWN_WORLDS["items-200"]
    truth, setting = true_users(known.name), Setting(K, HORIZON, known.pool, "click")
    logs = [
        drawn_log(
            truth,
            setting,
            Task(known.name, logging, 400, 1, Learner("slateq", TOY.replace(seed=seed), 1)),
        )
        for logging, seed in (("random", 0), ("random", 1), ("greedy", 0))
    ]
    for log in logs:
        assert (log.n_events, len(log.split)) == (400, 20)
        assert np.bincount(log.split).tolist() == [15, 5]
        assert set(np.diff(log.display_offsets)) == {K}
        assert (log.choices < 0).any()
    assert not np.array_equal(logs[0].items, logs[1].items)
    # greed shows what is chosen, and random slates are half of its log
    rates = [(log.choices >= 0).mean() for log in logs]
    assert rates[2] > rates[0] + 0.05


def test_a_shorter_horizon_of_the_plan_leaves_the_ceiling_as_it_is() -> None:
    """`--set gamma=0.6` is of what is trained in the learned world."""
    plans = [
        TransferPlan([KNOWN_WORLDS["items-10"]], seeds=1, config=TOY.replace(gamma=gamma))
        for gamma in (0.0, 0.6)
    ]
    (plain, _), (short, ceiling) = (
        sorted(plan.tasks(), key=lambda one: one.logging) for plan in plans
    )
    assert (plain.learner.config.gamma, short.learner.config.gamma) == (0.0, 0.6)
    assert ceiling == plain.of_truth()


def returns_of(*means: float) -> list[FloatArray]:
    noise = np.random.default_rng(0).normal(0, 0.1, 500).astype(np.float32)
    return [np.float32(mean) + np.roll(noise, i) for i, mean in enumerate(means)]


def test_agreement_is_kendall_s_over_pairs_that_the_truth_tells_apart() -> None:
    paid = returns_of(1.0, 2.0, 3.0)
    assert rank_agreement([10.0, 20.0, 30.0], paid) == 1
    assert rank_agreement([30.0, 20.0, 10.0], paid) == -1
    assert rank_agreement([10.0, 30.0, 20.0], paid) == pytest.approx(1 / 3)
    # the last two are one to the truth
    assert rank_agreement([10.0, 30.0, 20.0], returns_of(1.0, 2.0, 2.0)) == 1
    assert np.isnan(rank_agreement([1.0, 2.0], returns_of(1.0, 1.0)))
    assert np.isnan(rank_agreement([1.0, 2.0], [one[:1] for one in returns_of(1.0, 2.0)]))


def test_pages_count_how_often_a_lower_bound_held() -> None:
    """The bound of the trained policy holds less often than its "95 of 100", and the page says
    so."""
    root = Path(__file__).resolve().parents[2] / "docs"
    page = (root / "guide" / "transfer.md").read_text(encoding="utf-8")
    counts = {}
    for name, of in (("", "random"), ("-logging", "greedy"), ("-wrong", "wrong")):
        found = parse_json((root / "tables" / f"transfer{name}.json").read_text(encoding="utf-8"))
        held = []
        for setting in found["settings"]:
            world = setting["learned"][-1]["world"]
            trained = bound_held(setting, world, found["policy"])
            held.append([*bound_held(setting, world), *trained])
            note = f"paid in {held[-1][0]} of {held[-1][1]} cases, a policy and a seed each"
            assert note in "\n".join(block_notes(found, setting))
        counts[of] = np.sum(held, axis=0)
    right = [0, 0, 0]
    for name in ("", "-logging", "-wrong", "-settings"):
        found = parse_json((root / "tables" / f"transfer{name}.json").read_text(encoding="utf-8"))
        (note,) = re.findall(
            r"in (\d+) of (\d+) settings by the mean over seeds; in (\d+) ", transfer_summary(found)
        )
        right = [one + int(more) for one, more in zip(right, note, strict=True)]
    by_mean, times, by_interval = right
    for said in ("guide/transfer.md", "guide/environment.md"):
        text = (root / said).read_text(encoding="utf-8")
        assert f"paid at least as much in {by_mean} of {times} settings" in text
        assert f"in {by_interval} the 95 % interval of its lead did not lie below 0" in text
    counts["all"] = sum(counts.values())
    # the shares of pairs that README says of the first table's sets
    settings = parse_json((root / "tables" / "transfer.json").read_text(encoding="utf-8"))
    taus = [one["learned"][-1]["rank_agreement"] for one in settings["settings"]]
    ten, middle, many = (round(50 * (1 + tau)) for tau in taus)
    readme = (root.parent / "README.md").read_text(encoding="utf-8")
    assert f"in {ten}, {middle} and {many} % of the pairs of ten policies" in readme
    for held, times, of_trained, trainings in counts.values():
        assert f"| {held} of {times} | {of_trained} of {trainings} |" in page
    said = (root / "concepts" / "simulated-users.md").read_text(encoding="utf-8")
    assert f"held in {held} of the {times} cases" in said
    assert f"held in only {of_trained} cases" in said


def block_notes(found: Any, setting: Any) -> list[str]:
    return [*transfer_blocks(found)[found["settings"].index(setting)].notes]


def test_the_script_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.json"
    toy = "items-10 --events 400 --users 30 --seeds 1 --members 1 --policy cascade-dqn --jobs 1"
    sets = "--set=episodes=1 --set=updates=1 --set=users=16 --set=warm_up=16"
    script.main([*toy.split(), *sets.split(), f"--json={file}"])
    shown = capsys.readouterr()
    assert "items-10: 10 items; 400 events of random slates" in shown.out
    assert "[2/2] items-10, the truth, seed 0" in shown.err
    assert parse_json(file.read_text())["config"]["episodes"] == 1
    with pytest.raises(SystemExit):
        script.main(["items-20"])
    assert "no known world 'items-20'; there are items-10, " in capsys.readouterr().err
