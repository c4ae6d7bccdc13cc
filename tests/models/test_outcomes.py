"""Outcomes: what followed a choice is read by later events alone, predicted, drawn and paid."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastgaum as fg
from fastgaum.cli.app import main
from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.store import load_log, save_log
from fastgaum.models.user_model import UserModel
from fastgaum.ope import Target, off_policy_values, replay_policy
from fastgaum.policies.heuristics import Popular, RandomPolicy
from fastgaum.policies.rollout import Setting, rollout
from fastgaum.policies.transfer import TransferPolicy
from fastgaum.worlds.env_options import StepReward
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.replay import world_of

N_ITEMS, K = 12, 4
MINUTES_OF = 5 + 3 * np.random.default_rng(5).normal(size=N_ITEMS)


def made_frame(seed: int = 0, n_sessions: int = 150, n_events: int = 8) -> pl.DataFrame:
    draws = np.random.default_rng(seed)
    worth, rows = np.random.default_rng(4).normal(size=N_ITEMS), []
    for session in range(n_sessions):
        for event in range(n_events):
            items = draws.choice(N_ITEMS, K, replace=False)
            odds = np.append(np.exp(worth[items]), 1.0)
            choice = draws.choice(K + 1, p=odds / odds.sum())
            for place, item in enumerate(items):
                followed: tuple[float | None, str | None] = (None, None)
                if place == choice:
                    bought = draws.random() < 1 / (1 + np.exp(-worth[item]))
                    minutes = float(MINUTES_OF[item] + draws.normal())
                    followed = (minutes, "yes" if bought else "no")
                row = (f"s{session}", event, f"i{item:02d}", int(place == choice), *followed)
                rows.append(row)
    names = ["session", "event", "item", "chosen", "minutes", "bought"]
    return pl.DataFrame(rows, schema=names, orient="row")


OUTCOMES = ["minutes", "bought"]


@pytest.fixture(scope="module")
def log() -> fg.SessionLog:
    return fg.read_log(made_frame(), outcomes=OUTCOMES)


@pytest.fixture(scope="module")
def model(log: fg.SessionLog) -> UserModel:
    changes = {"folds": 0, "search": [], "epochs": 3, "warm_start": 2}
    return UserModel.from_preset("fastgaum", seed=0, **changes).fit(log)


def test_outcomes_are_those_of_the_chosen_rows(log: fg.SessionLog, tmp_path) -> None:
    frame = made_frame()
    chosen = frame.filter(pl.col("chosen") == 1)
    found = log.outcomes["minutes"].values
    assert np.isnan(found).sum() == (log.choices < 0).sum() > 0
    np.testing.assert_allclose(
        np.sort(found[~np.isnan(found)]), np.sort(chosen["minutes"].to_numpy()), rtol=1e-6
    )
    again = fg.read_log(to_frame(log), outcomes=OUTCOMES)
    saved = load_log(save_log(log, tmp_path / "saved"))
    for other in (again, saved):
        for name, column in log.outcomes.items():
            np.testing.assert_array_equal(other.outcomes[name].values, column.values)
    assert saved.fingerprint == log.fingerprint


def test_lists_and_plain_columns_of_a_nested_log_have_outcomes() -> None:
    table = {
        "session": ["a", "a", "b"],
        "event": [0, 1, 0],
        "items": [["x", "y"], ["y", "z"], ["x", "z"]],
        "chosen_index": [1, None, 0],
        "rating": [4.5, None, 2.0],
        "minutes": [[None, 3.0], [None, None], [7.0, None]],
    }
    found = fg.read_log(pl.DataFrame(table), outcomes=["rating", "minutes"])
    np.testing.assert_array_equal(found.outcomes["rating"].values, [4.5, np.nan, 2.0])
    np.testing.assert_array_equal(found.outcomes["minutes"].values, [3.0, np.nan, 7.0])


def test_each_click_keeps_its_own_outcome() -> None:
    rows = {
        "session": ["a"] * 3,
        "event": [0] * 3,
        "item": ["x", "y", "z"],
        "chosen": [1, 0, 1],
        "minutes": [2.0, None, 9.0],
    }
    found = fg.read_log(pl.DataFrame(rows), outcomes=["minutes"], clicks="each")
    np.testing.assert_array_equal(found.outcomes["minutes"].values, [2.0, 9.0])


def test_an_outcome_of_what_was_not_chosen_is_refused_unless_all_have_some() -> None:
    full = made_frame().with_columns(pl.col("minutes").fill_null(0.0))
    with pytest.raises(LogFormatError, match="outcome_of_all"):
        fg.read_log(full, outcomes=["minutes"])
    read = fg.read_log(full, outcomes=["minutes"], outcome_of_all=True)
    kept = fg.read_log(made_frame(), outcomes=["minutes"])
    np.testing.assert_array_equal(read.outcomes["minutes"].values, kept.outcomes["minutes"].values)
    with pytest.raises(LogFormatError, match="named as a candidate field and as an outcome"):
        fg.read_log(full, outcomes=["minutes"], candidate_fields=["minutes"])


def test_an_outcome_reaches_later_events_alone(model: UserModel, log: fg.SessionLog) -> None:
    test = slice_sessions(log, log.sessions_in("test"))
    before = model.predict(test)
    frame = to_frame(test)
    at = (pl.col("event") == 3) & (pl.col("chosen") == 1)
    other = frame.with_columns(
        minutes=pl.when(at).then(pl.col("minutes") + 40).otherwise("minutes"),
    )
    changed = model.predict(fg.read_log(other, outcomes=OUTCOMES))
    apart = (before["probability"] - changed["probability"]).abs()
    events = before["event"]
    assert apart.filter(events <= 3).max() == 0
    assert apart.filter(events > 3).max() > 1e-4
    # what would follow a choice is said before the choice too
    expected = (before["expected_minutes"] - changed["expected_minutes"]).abs()
    assert expected.filter(events <= 3).max() == 0


def test_heads_say_what_follows_and_nothing_of_noise(model: UserModel, log: fg.SessionLog) -> None:
    found = model.evaluate(log, split="test")
    minutes, bought = found.outcomes["minutes"], found.outcomes["bought"]
    # the truth's error is 1
    assert minutes.error.mean < 1.35 < minutes.by_mean
    assert bought.error.mean < bought.by_mean
    # numbers of candidates, as a ridge reads them, say less than items
    assert minutes.error.mean < minutes.by_ridge < minutes.by_mean
    assert "ridge" in str(minutes)
    assert np.isnan(bought.by_ridge)
    assert found.to_dict()["outcomes"]["minutes"]["mse"]["mean"] == minutes.error.mean
    frame = made_frame()
    rows = frame.with_row_index("row").filter(pl.col("chosen") == 1)
    shuffled = rows.select("row", pl.col("minutes").shuffle(seed=3))
    noise = frame.with_row_index("row").drop("minutes").join(shuffled, on="row", how="left")
    of_noise = fg.read_log(noise.drop("row"), outcomes=["minutes"])
    changes = {"folds": 0, "search": [], "epochs": 3, "warm_start": 2}
    other = UserModel.from_preset("fastgaum", seed=0, **changes).fit(of_noise)
    figures = other.evaluate(of_noise, split="test").outcomes["minutes"]
    assert figures.error.mean > 0.97 * figures.by_mean


def test_online_and_a_loaded_model_are_predict(
    model: UserModel, log: fg.SessionLog, tmp_path
) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    test = slice_sessions(log, log.sessions_in("test")[:4])
    wanted = model.predict(test)
    assert UserModel.load(path).predict(test).equals(wanted)
    frame, at = to_frame(test), 0
    for session in range(test.n_sessions):
        user = model.user()
        for event in range(test.session_offsets[session], test.session_offsets[session + 1]):
            size = int(np.diff(test.display_offsets)[event])
            rows = frame[at : at + size]
            said = user.probabilities(rows["item"].to_list())
            np.testing.assert_allclose(
                said[:-1], wanted["probability"][at : at + size].to_numpy(), atol=1e-5
            )
            at += size
            chosen = rows.filter(pl.col("chosen") == 1)
            if not len(chosen):
                user.chose(None)
                continue
            followed = {name: chosen[name][0] for name in OUTCOMES}
            user.chose(chosen["item"][0], followed)
    user.probabilities(["i00", "i01"])
    with pytest.raises(ConfigError, match="those that the model reads are"):
        user.chose("i00", {"stars": 3})


def test_a_world_draws_pays_and_starts_with_outcomes(model: UserModel, log: fg.SessionLog) -> None:
    world = LearnedWorld(model, log=log, starts="logged")
    assert world.outcome_labels == ("bought=no", "bought=yes", "minutes")
    users = world.population(3000)
    keys = np.arange(3000, dtype=np.uint64)
    users.reset(keys)
    draws = np.random.default_rng(0)
    slates = np.stack([draws.choice(N_ITEMS, K, replace=False) for _ in range(3000)])
    slates = slates.astype(np.int32)
    response = users.step(slates, keys + np.uint64(9999))
    chose = response.items >= 0
    assert response.outcomes is not None
    assert np.isnan(response.outcomes[~chose]).all()
    minutes, number = response.outcomes[chose, 2], world.item_ids.str.slice(1).cast(pl.Int64)
    of_items = MINUTES_OF[number.gather(response.items[chose]).to_numpy()]
    assert np.corrcoef(minutes, of_items)[0, 1] > 0.8
    assert abs(minutes.mean() - of_items.mean()) < 0.3
    assert (response.outcomes[chose, :2].sum(1) == 1).all()
    reward = StepReward("outcome:minutes")
    reward.require_world(world)
    paid = reward.of(response, slates, users.states, 0.0)
    np.testing.assert_allclose(paid[chose], minutes)
    assert (paid[~chose] == 0).all()
    with pytest.raises(ConfigError, match="no outcome of this world is 'hours'"):
        StepReward("outcome:hours").require_world(world)


def test_a_world_is_an_encoder_event_by_event(model: UserModel, log: fg.SessionLog) -> None:
    """Numbers and tokens of users who are told a log are those of the log."""
    rows = log.sessions_in("validation")[:1]
    test = slice_sessions(log, rows)
    user = model.user()
    assert model.space is not None
    for event in range(test.n_events):
        start, stop = test.display_offsets[event : event + 2]
        items = test.item_ids.gather(test.items[start:stop]).to_list()
        user.probabilities(items)
        choice = int(test.choices[event])
        followed = {"minutes": float(test.outcomes["minutes"].values[event])}
        user.chose(items[choice] if choice >= 0 else None, followed if choice >= 0 else None)
    kept = user._users.counts.outcomes
    assert kept is not None
    n = test.n_events
    clicked = test.choices >= 0
    np.testing.assert_array_equal(
        kept.values[0, :n][clicked, -1], test.outcomes["minutes"].values[clicked]
    )


def test_a_log_without_outcomes_makes_no_numbers_of_them(log: fg.SessionLog) -> None:
    plain = fg.read_log(made_frame().drop("minutes", "bought"))
    space = fit_space(plain)
    assert not any(
        name.startswith(("given_", "habit_", "chosen_last")) for name in space.number_names
    )
    assert space.n_outcomes == 0
    with pytest.raises(FeatureMismatchError, match="trained on outcomes"):
        Encoder(fit_space(log), plain)


def test_what_if_answers_in_outcomes(model: UserModel, log: fg.SessionLog, tmp_path) -> None:
    longest = f"i{MINUTES_OF.argmax():02d}"
    found = fg.what_if(model, log, drop=[longest], outcomes=True)
    assert found["outcome"].to_list() == ["bought=no", "bought=yes", "minutes"]
    said = model.predict(log, "test")
    n = log.count("events", "test")
    for label, before in found.select("outcome", "before").iter_rows():
        by_hand = (said["probability"] * said[f"expected_{label}"]).sum() / n
        assert before == pytest.approx(by_hand, rel=1e-5)
    minutes = found.row(2, named=True)
    assert minutes["difference_high"] < 0
    assert minutes["after_low"] < minutes["after"] < minutes["after_high"]
    # whatever is chosen is bought or not
    shares = fg.what_if(model, log, drop=[longest])
    of_none = shares.filter(pl.col("item").is_null())["after"][0]
    bought = found.filter(pl.col("outcome").str.starts_with("bought"))["after"].sum()
    assert bought == pytest.approx(1 - of_none, rel=1e-5)
    plain = fg.read_log(made_frame().drop("minutes", "bought"))
    changes = {"folds": 0, "search": [], "epochs": 1, "warm_start": 1}
    other = UserModel.from_preset("fastgaum", seed=1, **changes).fit(plain)
    with pytest.raises(ConfigError, match="says nothing of what follows"):
        fg.what_if(other, plain, drop=[longest], outcomes=True)


MEAN_UTILITIES = np.random.default_rng(4).normal(size=N_ITEMS)


def test_off_policy_values_of_an_outcome_are_those_of_the_law(model: UserModel) -> None:
    log = fg.read_log(made_frame(9, n_sessions=400), outcomes=OUTCOMES)
    world = world_of(model, log, head="reward")
    shown = replay_policy(log, Target(RandomPolicy()), world)
    said = model.predict(log)["no_click_probability"].gather(log.display_offsets[:-1])
    # users who follow the log are told what followed, as `predict` reads it
    apart = np.abs(shown[4] - (1 - said.to_numpy()))
    # a rank among numbers that are equal but for rounding may be another one
    assert np.quantile(apart, 0.99) < 2e-5
    assert apart.max() < 1e-3
    number = world.item_ids.str.slice(1).cast(pl.Int64).to_numpy()
    target = Target(Popular(MINUTES_OF[number].astype(np.float32)), k=K)
    found = off_policy_values(log, target, world, reward="outcome:minutes")
    best = np.argsort(-MINUTES_OF)[:K]
    odds = np.exp(MEAN_UTILITIES[best])
    truth = float((odds * MINUTES_OF[best]).sum() / (1 + odds.sum()))
    rows = {row["estimator"]: row for row in found.to_dicts()}
    assert rows["dr-pi"]["low"] < truth < rows["dr-pi"]["high"] < 1.3 * truth
    assert rows["dm"]["value"] == pytest.approx(truth, rel=0.15)
    minutes = np.nan_to_num(log.outcomes["minutes"].values).mean()
    assert rows["logged"]["value"] == pytest.approx(minutes, rel=1e-6)
    assert rows["dr-pi"]["low"] > minutes
    with pytest.raises(ConfigError, match="no outcome of this world is 'hours'"):
        off_policy_values(log, target, world, reward="outcome:hours")
    with pytest.raises(ConfigError, match="a log says nothing of utilities"):
        off_policy_values(log, target, world, reward="utility")
    gap = dataclasses.replace(log.columns["minutes"], values=log.columns["minutes"].values.copy())
    gap.values[np.flatnonzero(log.choices >= 0)[0]] = np.nan
    lacking = dataclasses.replace(log, columns={**log.columns, "minutes": gap})
    with pytest.raises(ConfigError, match="1 choices whose outcome:minutes nobody knows"):
        off_policy_values(lacking, target, world, reward="outcome:minutes")


def test_a_policy_in_another_world_tells_its_users_what_followed(
    model: UserModel, log: fg.SessionLog
) -> None:
    world = LearnedWorld(model)
    users = [world.population(1) for _ in range(2)]
    slates, draws = np.arange(K, dtype=np.int32)[None], np.random.default_rng(0)
    for one, minutes in zip(users, (1.0, 30.0), strict=True):
        one.follow(slates, np.array([2]), outcomes=np.array([[0.0, 1.0, minutes]]))
    other = draws.permutation(slates, axis=1)
    assert not np.allclose(users[0].utilities(other), users[1].utilities(other))
    with pytest.raises(ConfigError, match=r"outcomes have the shape \(1, 2\)"):
        users[0].follow(slates, np.array([2]), outcomes=np.zeros((1, 2)))
    pool = Pool(items=tuple(range(N_ITEMS)))
    setting = Setting(k=K, horizon=4, pool=pool, reward="outcome:minutes")
    score = Popular(np.arange(world.n_items).astype(np.float32))
    apart = LearnedWorld(model, further=pl.Series(["new"]))
    moved = TransferPolicy(score, world, apart, setting.reward)
    here = Popular(np.append(score.popularity, -1).astype(np.float32))
    at_home, away = (list(rollout(apart, one, setting, 50, 0)) for one in (here, moved))
    np.testing.assert_allclose(moved.users.states, at_home[-1].next_states, atol=1e-5)
    np.testing.assert_allclose(at_home[-1].rewards, away[-1].rewards, rtol=1e-4, atol=1e-5)


def test_the_command_line_answers_in_outcomes(
    model: UserModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(run := tmp_path / "model.safetensors")
    made_frame().write_parquet(table := tmp_path / "log.parquet")
    facts = tmp_path / "facts.json"
    capsys.readouterr()
    asked = ["what-if", str(run), str(table), "--drop", "i03", "--json", str(facts)]
    assert main(asked) == 0
    assert "outcome, each display" in capsys.readouterr().out
    labels = [row["outcome"] for row in json.loads(facts.read_text())["outcomes"]]
    assert labels == ["bought=no", "bought=yes", "minutes"]
    asked = ["ope", str(table), "--policy", "random", "--run", str(run), "--json", str(facts)]
    assert main([*asked, "--reward", "outcome:minutes", "--overwrite"]) == 0
    found = json.loads(facts.read_text())
    assert found["reward"] == "outcome:minutes"
    logged = {row["estimator"]: row["value"] for row in found["estimates"]}["logged"]
    log = fg.read_log(made_frame(), outcomes=OUTCOMES)
    of_test = np.isin(log.session_of_event, log.sessions_in("test"))
    minutes = np.nan_to_num(log.outcomes["minutes"].values[of_test])
    assert logged == pytest.approx(minutes.mean(), rel=1e-5)
