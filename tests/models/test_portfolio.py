"""Settings that a fit compares: which of them a log and a configuration leave open, how the
comparison goes on, and that the better one is taken."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum import presets
from fastgaum.config import Config
from fastgaum.errors import NumericsError
from fastgaum.features.relations import mean_display
from fastgaum.game.checkpoint import (
    Checkpointer,
    TriedSetting,
    places_cost,
    trials_as_facts,
)
from fastgaum.game.observers import EpochRow
from fastgaum.game.processes import Processes
from fastgaum.logs.log import SessionLog
from fastgaum.models import portfolio
from fastgaum.models.fit_data import PreparedLog
from fastgaum.models.folds import member_config
from fastgaum.models.portfolio import Halving, budget_of, settings_of, short_epochs
from fastgaum.models.user_model import IN_MEMORY_BYTES, UserModel
from fastgaum.presets import FOLDS_BELOW, LARGE_DISPLAYS, MANY_CANDIDATES, PORTFOLIO, LogSetting
from tests.builders import log_of, put, random_log
from tests.models.test_folds import nll_of, sessions_of

Call = tuple[str, int, int | None]


@dataclass
class Losses:
    """The loss of each setting, by name, less a bit on each further fold."""

    of: dict[str, float]
    calls: list[Call] = field(default_factory=list)

    def __call__(self, name: str, fold: int, epochs: int | None) -> float:
        self.calls.append((name, fold, epochs))
        return self.of[name] - fold / 1000


def compared(losses: Losses, folds: int) -> dict[str, TriedSetting]:
    """What a comparison finds, by name; without folds short fits have 4 epochs."""
    found = Halving(tuple(losses.of), folds, 4).run(losses)
    assert [one.name for one in found] == list(losses.of)
    return {one.name: one for one in found}


def best(found: dict[str, TriedSetting]) -> str:
    return min(found.values(), key=TriedSetting.rank).name


FIVE = {"a": 0.5, "b": 0.3, "c": 0.4, "d": 0.1, "e": 0.2}


def test_the_best_third_goes_on_to_the_next_fold() -> None:
    """Down to two settings, which three folds judge."""
    losses = Losses(FIVE)
    found = compared(losses, 5)
    rungs = [[name for name, fold, _ in losses.calls if fold == rung] for rung in range(5)]
    assert rungs == [list("abcde"), list("de"), list("de"), [], []]
    assert all(epochs is None for _, _, epochs in losses.calls)
    assert [one.rung for one in found.values()] == [0, 0, 0, 2, 2]
    assert best(found) == "d"
    # the mean over its folds
    assert found["d"].val_loss == pytest.approx(0.1 - np.mean(range(3)) / 1000)
    assert found["b"].val_loss == pytest.approx(0.3)
    assert found["d"].seconds >= 0
    # one that came further is better, whatever the loss of another on fewer folds
    assert TriedSetting("x", 0.9, rung=4).rank() < TriedSetting("y", 0.1, rung=3).rank()


def test_without_folds_each_has_one_short_fit() -> None:
    losses = Losses(FIVE)
    found = compared(losses, 0)
    assert losses.calls == [(name, 0, 4) for name in "abcde"]
    assert {name: one.val_loss for name, one in found.items()} == FIVE
    assert best(found) == "d"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_settings_see_all_folds(n: int) -> None:
    losses = Losses(dict.fromkeys("abc"[:n], 0.5))
    found = compared(losses, 3)
    counts = [sum(name == one for one, _, _ in losses.calls) for name in losses.of]
    assert counts == [[1], [3, 3], [3, 3, 1]][n - 1]
    assert best(found) == "a"


@pytest.mark.parametrize("folds", [0, 2, 5])
def test_the_first_of_equals_is_taken(folds: int) -> None:
    found = compared(Losses(dict.fromkeys("abcdefg", 0.5)), folds)
    assert best(found) == "a"
    assert [name for name, one in found.items() if one.rung] == list("abc" if folds else "")


@pytest.mark.parametrize("folds", [0, 2, 5])
def test_a_setting_that_diverged_is_last_and_has_no_loss(folds: int) -> None:
    """On the first fold, or on a later one."""
    worst = sys.float_info.max
    found = compared(Losses({"a": worst, "b": 0.5, "c": 0.4}), folds)
    assert best(found) == "c"
    assert found["a"].val_loss == worst

    def later(name: str, fold: int, epochs: int | None) -> float:
        return worst if name == "a" and fold == max(min(folds, 3) - 1, 0) else 0.5

    ends = Halving(("a", "b"), folds, 4).run(later)
    facts = trials_as_facts(ends)
    assert [one["val_loss"] for one in facts] == [None, 0.5]
    assert [one["chosen"] for one in facts] == [False, True]
    # where all have diverged the training proper says why
    none = compared(Losses(dict.fromkeys("abc", worst)), folds)
    assert best(none) == "a"


@pytest.mark.parametrize("folds", [2, 5])
def test_a_budget_says_how_many_settings_are_compared(folds: int) -> None:
    """In fits of all folds; a comparison takes as many as it reckons with, the first ones."""
    names = tuple("abcdefghijkl")
    for n in range(1, len(names) + 1):
        losses = Losses(dict.fromkeys(names[:n], 0.5))
        halving = Halving(names[:n], folds, 4)
        halving.run(losses)
        assert halving.cost() == pytest.approx(len(losses.calls) / folds if n > 1 else 0)
        assert Halving(names, folds, 4).within(halving.cost() + 1e-9).names == names[:n]
    assert Halving(names, folds, 4).within(1e-9).names == ("a",)


def test_a_budget_without_folds_counts_epochs() -> None:
    """A short fit of 10 epochs, of the 20 of a whole one."""
    halving = Halving(tuple("abcd"), 0, 10)
    assert halving.cost() == pytest.approx(2)
    assert halving.within(1.9).names == tuple("abc")
    assert halving.within(0.1).names == ("a",)


def test_a_budget_is_of_the_log_s_size_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_with()
    assert budget_of(Config(), log) == portfolio.FEW_BUDGET
    assert budget_of(Config(budget=1.5), log) == 1.5
    monkeypatch.setattr(portfolio, "FOLDS_BELOW", log.count("events", "train"))
    assert budget_of(Config(), log) == portfolio.MANY_BUDGET


def apart(name: str, losses: list[float], examination: bool, rung: int) -> TriedSetting:
    mean = float(np.mean(losses))
    return TriedSetting(name, mean, 1.0, rung, losses, {"examination": examination})


def test_what_places_cost_is_on_the_folds_that_both_were_fitted_for() -> None:
    read = apart("read", [0.5, 0.7, 0.9], False, 2)
    kept = apart("kept", [0.6, 0.9], True, 1)
    worse = apart("worse", [0.2], True, 0)
    # the better one came further, whatever its loss on fewer folds
    for order in itertools.permutations([read, kept, worse]):
        assert places_cost(order) == pytest.approx(0.75 - 0.6)
    assert places_cost([read]) is None
    assert places_cost([]) is None
    assert places_cost([read, apart("diverged", [sys.float_info.max], True, 0)]) is None


def test_a_short_fit_has_few_epochs_on_many_candidates() -> None:
    assert [short_epochs(n) for n in (10**5, 10**6, 10**7, 0)] == [10, 6, 6, 20]


KEYS = ("examination", "tastes", "counts", "relations", "dropout", "tower_dim", "batch_sessions")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, LogSetting]:
    """A portfolio of the test's own, of KEYS."""
    monkeypatch.setattr("fastgaum.config.CHOSEN_KEYS", (*presets.CHOSEN_KEYS, *KEYS))
    settings: dict[str, LogSetting] = {
        "first": LogSetting({"dropout": 0.1}),
        "place read": LogSetting({"dropout": 0.1, "examination": False}),
        "no tastes": LogSetting({"dropout": 0.1, "tastes": 0}),
        "no counts": LogSetting({"dropout": 0.1, "counts": False}),
        "no relations": LogSetting({"dropout": 0.1, "relations": False}),
        "dropout": LogSetting({"dropout": 0.7}),
    }
    monkeypatch.setattr(portfolio, "PORTFOLIO", settings)
    return settings


def log_with(
    ordered: bool = False, price: bool = True, of: str = "candidate", size: int = 0
) -> SessionLog:
    """A log that has, or lacks, an order and a number; size: of its displays."""
    log = random_log(1, n_sessions=40)
    if size:
        shown = list(range(size))
        log = log_of([[(shown, 0)]] * 4, split=[0, 0, 1, 2])
    n = log.n_candidates if of == "candidate" else log.n_items
    values = np.linspace(0, 1, n).astype(np.float32)
    return put(log, ordered=ordered, **({of: {"price": values}} if price else {}))


def chosen(**changes: Any) -> Config:
    return Config(search=KEYS, **changes)


@pytest.mark.parametrize("of", ["candidate", "item"])
def test_a_log_with_all_roles_leaves_all_settings_open(own: dict[str, LogSetting], of: str) -> None:
    config = chosen(seed=3)
    found = settings_of(config, log_with(ordered=True, of=of))
    assert list(found) == list(own)
    for name, one in found.items():
        batch = one.batch_sessions
        assert one == config.replace(**own[name].values, search=(), batch_sessions=batch)


def test_settings_that_a_log_cannot_tell_apart_are_compared_once(
    own: dict[str, LogSetting],
) -> None:
    """By their first name."""
    every, config = list(own), chosen()

    def without(*names: str) -> list[str]:
        return [name for name in every if name not in names]

    ordered = log_with(ordered=True)
    assert list(settings_of(config, log_with())) == without("place read")
    assert list(settings_of(config, log_with(True, price=False))) == without("no tastes")
    brands = {"brand": np.zeros(ordered.n_candidates, np.int32)}
    texts = put(log_with(), candidate=brands, categories={"brand": pl.Series(["a"])})
    assert list(settings_of(config, texts)) == without("place read", "no tastes")
    identity = settings_of(chosen(protocol="identity"), ordered)
    assert list(identity) == without("no counts")
    assert all(one.counts for one in identity.values())
    assert all(one.examination for one in settings_of(config, log_with()).values())
    assert all(one.tastes for one in settings_of(config, texts).values())


@pytest.mark.parametrize("key", KEYS[:5])
def test_a_key_that_is_set_is_not_chosen(own: dict[str, LogSetting], key: str) -> None:
    """Whatever it is set to; settings that differ in it alone are one."""
    for value in (Config().to_mapping()[key], {"dropout": 0.3, "tastes": 8}.get(key, False)):
        config = chosen().with_keys(**{key: value})
        found = settings_of(config, log_with(ordered=True))
        assert all(getattr(one, key) == value for one in found.values())
        others = [name for name, one in own.items() if set(one.values) - {"dropout", key}]
        assert list(found) == ["first", *others, *(("dropout",) if key != "dropout" else ())]


def test_nothing_is_compared_where_nothing_is_open(own: dict[str, LogSetting]) -> None:
    log, config = log_with(ordered=True), Config(search=(), eta=2.0)
    assert settings_of(config, log) == {"as it is": config}
    model = UserModel(config.replace(epochs=1, warm_start=1, folds=0))
    model.fit(log)
    assert (model.trials, model.settings_tried) == ((), 1)
    # no setting suits the log
    own.clear()
    own["many"] = LogSetting({"dropout": 0.7}, least_events=10**6)
    assert settings_of(chosen(), log) == {"as it is": chosen().replace(search=())}


def test_large_displays_have_no_relations_and_the_names_say_so(own: dict[str, LogSetting]) -> None:
    """Unless they are asked for."""
    own["relations"] = LogSetting({"relations": True, "dropout": 0.4})
    at, above = log_with(size=LARGE_DISPLAYS), log_with(size=LARGE_DISPLAYS + 1)
    assert mean_display(above) == LARGE_DISPLAYS + 1
    assert "no relations" in settings_of(chosen(), at)
    found = settings_of(chosen(), above)
    assert not any(one.relations for one in found.values())
    assert [name.partition(" (")[0] for name in found] == [
        *("first", "no tastes", "no counts", "dropout")
    ]
    assert all(name.endswith(" (displays of 301: no relations)") for name in found)
    asked = settings_of(chosen().with_keys(relations=True), above)
    assert all(one.relations for one in asked.values())
    assert not any("displays of" in name for name in asked)


def test_a_setting_has_batches_by_events(
    own: dict[str, LogSetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as it says, more where the log has many, up to 256; a session has two."""
    own.clear()
    own |= {"network": LogSetting({"dropout": 0.1}, 128), "few": LogSetting({"dropout": 0.2}, 32)}
    own["towers"] = LogSetting({"tower_dim": 8}, 1000)
    log = log_of([[([0, 1], 0), ([1, 2], 1)]] * 80, split=[0, 0, 1, 2] * 20)
    few = settings_of(chosen(), log)
    assert [one.batch_sessions for one in few.values()] == [64, 16, 500]
    monkeypatch.setattr(portfolio, "STEPS", 2)
    more = settings_of(chosen(), log)
    assert [one.batch_sessions for one in more.values()] == [64, 20, 500]
    monkeypatch.setattr(portfolio, "STEPS", 1 / 1000)
    many = settings_of(chosen(), log)
    assert [one.batch_sessions for one in many.values()] == [128, 128, 500]
    asked = settings_of(chosen().with_keys(batch_sessions=7), log)
    assert [one.batch_sessions for one in asked.values()] == [7, 7, 7]


def test_the_portfolio_is_one_of_configurations_that_differ() -> None:
    """Whatever it holds: each key has a value of its own somewhere, each size of log a setting."""
    assert PORTFOLIO
    made = [(Config().replace(**one.values), one.batch_events) for one in PORTFOLIO.values()]
    assert all(made[i] != made[j] for i in range(len(made)) for j in range(i))
    for key in presets.CHOSEN_KEYS:
        assert key in Config().to_mapping()
        assert key == "batch_sessions" or any(key in one.values for one in PORTFOLIO.values())
    for n_events in (1, 1000, FOLDS_BELOW, 10**5, 10**7):
        for n_candidates in (n_events, 10 * n_events, MANY_CANDIDATES, 10**9):
            assert any(one.suits(n_events, n_candidates) for one in PORTFOLIO.values())
    # of so many candidates nothing is compared
    assert sum(one.suits(10**6, MANY_CANDIDATES) for one in PORTFOLIO.values()) == 1


SHORT: dict[str, Any] = {
    **{"warm_start": 6, "epochs": 2, "players": "exact", "relations": False, "device": "cpu"},
    **{"hidden": [8, 8], "history_dim": 4, "protocol": "identity", "no_click": "never"},
}


def dear_log() -> SessionLog:
    """The one candidate of price 1, of four, is chosen nine times in ten: a network without dropout
    learns it, one of dropout .99 hardly does."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(160):
        items = rng.choice(20, 4, replace=False).tolist()
        sessions.append([(items, 0 if rng.random() < 0.9 else int(rng.integers(4)))])
    log = log_of(sessions, split=[0, 0, 1, 2] * 40)
    dear = np.arange(log.n_candidates) % 4 == 0
    return put(log, candidate={"price": dear.astype(np.float32)})


@pytest.mark.parametrize(("names", "folds"), [(("blind", "seeing"), 3), (("seeing", "blind"), 0)])
def test_a_fit_takes_the_better_of_two_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, str], folds: int
) -> None:
    """In either order. A file keeps what was compared, and which was taken."""
    both = {
        "blind": LogSetting({"dropout": 0.99, "tastes": 0}),
        "seeing": LogSetting({"dropout": 0.0}),
    }
    monkeypatch.setattr("fastgaum.config.CHOSEN_KEYS", (*presets.CHOSEN_KEYS, *KEYS))
    monkeypatch.setattr(portfolio, "PORTFOLIO", {name: both[name] for name in names})
    monkeypatch.setattr(portfolio, "FEWEST_EPOCHS", 4)
    monkeypatch.setattr(portfolio, "SHORT_VISITS", 0)
    log = dear_log()
    model = UserModel.from_preset(**SHORT, wide=False, search=["dropout", "tastes"], folds=folds)
    model.fit(log)
    assert model.settings_tried == 2
    assert model.config.dropout == 0.0
    assert model.config.search == ()
    losses = {one.name: one.val_loss for one in model.trials}
    assert losses["seeing"] < losses["blind"] - 0.2
    assert [one.rung for one in model.trials] == [max(folds - 1, 0)] * 2
    # the training proper is the same as without a comparison
    keys = {"dropout": 0.0, "batch_sessions": model.config.batch_sessions}
    alone = UserModel.from_preset(**SHORT, wide=False, **keys, search=[], folds=folds)
    alone.fit(log)
    assert alone.predict(log).equals(model.predict(log))
    model.save(tmp_path / "model.safetensors")
    again = UserModel.load(tmp_path / "model.safetensors")
    facts = [trials_as_facts(one.trials) for one in (model, again)]
    said = [[(one["name"], one["rung"], one["chosen"]) for one in each] for each in facts]
    assert said[0] == said[1]
    assert [one["name"] for one in facts[1] if one["chosen"]] == ["seeing"]
    # a second fit compares anew, to the same end
    before = model.predict(log, "test")
    model.fit(log)
    assert model.predict(log, "test").equals(before)


def test_fits_that_are_not_kept_are_made_again_to_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the comparison kept the winner's fits, as it does where they are small, or not."""
    two = {"few": LogSetting({"dropout": 0.1}), "more": LogSetting({"dropout": 0.5})}
    monkeypatch.setattr(portfolio, "PORTFOLIO", two)
    log, train, found, calls = random_log(7, n_sessions=60), UserModel.train_on, [], list[int]()

    def counted(model: UserModel, *given: Any, **named: Any) -> list[EpochRow]:
        calls.append(1)
        return train(model, *given, **named)

    monkeypatch.setattr(UserModel, "train_on", counted)
    for most in (IN_MEMORY_BYTES, 0):
        monkeypatch.setattr("fastgaum.models.user_model.IN_MEMORY_BYTES", most)
        model = UserModel.from_preset(
            **SHORT | {"players": "adversarial"}, folds=2, search=["dropout"]
        )
        model.fit(log)
        found.append((model.predict(log), len(calls)))
        calls.clear()
    assert found[0][0].equals(found[1][0])
    # two settings on two folds, then the folds' own; the winner's two anew where none was kept
    assert [n for _, n in found] == [6, 8]


def test_the_loss_of_a_setting_is_that_of_the_users_that_were_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mean over the folds, with exact players; by hand one fit each, which scores its fold."""
    two = {"few": LogSetting({"dropout": 0.1}), "more": LogSetting({"dropout": 0.5})}
    monkeypatch.setattr(portfolio, "PORTFOLIO", two)
    log = random_log(7, n_sessions=120)
    own = SHORT | {"players": "adversarial", "protocol": "bags", "search": ["dropout"]}
    model = UserModel.from_preset(**own, folds=2)
    model.fit(log)
    losses = {}
    for name, config in model.settings_for(log).items():
        config = config.replace(players="exact", epochs=SHORT["warm_start"])
        nll = []
        for fold in range(2):
            one = UserModel(member_config(config, fold), device="cpu")
            prepared = PreparedLog(log, folds=2)(config)
            one.train_on(prepared, None, Checkpointer(), Processes(), fold)
            nll.append(nll_of(log, one.predict(log), sessions_of(log, fold, 2)))
        losses[name] = float(np.mean(nll))
    assert {one.name: one.val_loss for one in model.trials} == pytest.approx(losses, abs=1e-5)
    assert model.config.dropout == two[min(losses, key=losses.__getitem__)].values["dropout"]


def test_a_setting_whose_fit_diverges_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    two = {"wild": LogSetting({"dropout": 0.1}), "tame": LogSetting({"dropout": 0.3})}
    monkeypatch.setattr(portfolio, "PORTFOLIO", two)
    train = UserModel.train_on

    def diverges(model: UserModel, *given: Any, **named: Any) -> list[EpochRow]:
        if model.config.dropout == 0.1:
            raise NumericsError("the loss is not finite")
        return train(model, *given, **named)

    monkeypatch.setattr(UserModel, "train_on", diverges)
    log = random_log(7, n_sessions=60)
    model = UserModel.from_preset(**SHORT, search=["dropout"], folds=2)
    model.fit(log)
    assert model.config.dropout == 0.3
    assert model.trials[0].val_loss == sys.float_info.max
    assert trials_as_facts(model.trials)[0]["val_loss"] is None
