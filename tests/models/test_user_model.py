"""Every preset-like combination of the user model keeps the contract; models survive the disk;
numerics are guarded."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fastgaum.config import PRESETS, Config
from fastgaum.errors import CheckpointError, ConfigError, LogFormatError, NumericsError
from fastgaum.models.user_model import UserModel
from fastgaum.nets.regularisers import Custom
from tests.builders import change_state, log_of, random_log
from tests.contracts import check_user_model

SMALL: dict[str, Any] = {
    "epochs": 2,
    "warm_start": 2,
    "catch_up": 2,
    "hidden": [8, 8],
    "history_dim": 5,
    "batch_sessions": 16,
}


@pytest.mark.parametrize("history", ["lstm", "pw", "bilstm"])
@pytest.mark.parametrize("players", ["exact", "adversarial"])
def test_contract_of_every_history(history: str, players: str) -> None:
    check_user_model(UserModel.from_preset(history=history, players=players, **SMALL))


@pytest.mark.parametrize(
    "changes",
    [
        {"regulariser": "l2"},
        {"regulariser": "tsallis", "tsallis_alpha": 1.7},
        {"states": "generated", "history": "pw"},
        {"states": "generated", "history": "bilstm"},
        {"history_layers": 2},
        {"item_dim": 3},
        {"warm_start": 0},
        {"protocol": "identity"},
        {"eta": 2.0},
        {"select": "calibrated loss"},
    ],
    ids=str,
)
def test_contract_of_every_variant(changes: dict[str, Any]) -> None:
    check_user_model(UserModel.from_preset(**{**SMALL, **changes}))


def test_contract_without_clicks() -> None:
    check_user_model(UserModel.from_preset(**SMALL), random_log(4, n_sessions=80, no_click=0.4))


def test_contract_with_fields_and_order() -> None:
    log = random_log(2, n_sessions=80)
    rng = np.random.default_rng(0)
    log = dataclasses.replace(
        log,
        candidate_fields={"price": rng.random(log.n_candidates, np.float32)},
        item_fields={"brand": rng.integers(-1, 3, log.n_items).astype(np.int32)},
        categories={"brand": pl.Series(["a", "b", "c"])},
    )
    check_user_model(UserModel.from_preset(**SMALL), log)
    check_user_model(UserModel.from_preset(**SMALL), dataclasses.replace(log, ordered=True))


def test_a_users_own_regulariser() -> None:
    """A quadratic Ω written by hand gives what the built-in L2 gives, and trains."""
    from fastgaum.nets.segments import segment_sum

    def half_square(
        probs: torch.Tensor, outside: torch.Tensor, offsets: torch.Tensor
    ) -> torch.Tensor:
        return 0.5 * (segment_sum(probs.square(), offsets) + outside.square())

    model = UserModel(
        Config.from_preset("fastgaum", **SMALL), regulariser=Custom(half_square, steps=20)
    )
    check_user_model(model)


def test_the_same_seed_gives_the_same_model_and_leaves_the_callers_random_state() -> None:
    log = random_log(1)
    state = torch.get_rng_state()
    weights = []
    for _ in range(2):
        model = UserModel.from_preset(**SMALL)
        model.fit(log)
        assert model.networks is not None
        weights.append(torch.cat([p.detach().flatten() for p in model.networks.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_saved_and_loaded_models_predict_the_same(tmp_path: Path) -> None:
    log = random_log(1, no_click=0.2)
    model = UserModel.from_preset(**SMALL)
    model.fit(log)
    model.save(tmp_path / "user.safetensors")
    loaded = UserModel.load(tmp_path / "user.safetensors")
    assert loaded.predict(log).equals(model.predict(log))
    assert loaded.config == model.config
    assert [path.name for path in tmp_path.iterdir()] == ["user.safetensors"]


def test_prediction_and_sampling_tables() -> None:
    log = random_log(1, no_click=0.3)
    model = UserModel.from_preset(**SMALL)
    model.fit(log)
    frame = model.predict(log)
    assert frame.columns == [
        "session",
        "event",
        "item",
        "known",
        "utility",
        "probability",
        "no_click_probability",
        "generator_probability",
    ]
    sums = frame.group_by("session", "event").agg(
        pl.col("probability").sum() + pl.col("no_click_probability").first()
    )
    np.testing.assert_allclose(sums["probability"].to_numpy(), 1, atol=1e-4)
    test_ids = log.session_ids.gather(log.sessions_in("test"))
    draws = [model.sample(log, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].equals(draws[1])
    assert not draws[0].equals(draws[2])
    assert (
        draws[0].height
        == frame.filter(pl.col("session").is_in(test_ids.implode()))
        .select("session", "event")
        .unique()
        .height
    )
    joined = draws[0].drop_nulls().join(frame, on=["session", "event", "item"], how="anti")
    assert joined.height == 0, "a drawn item was not displayed"
    assert draws[0]["item"].null_count() > 0


@pytest.mark.parametrize("damage", ["truncated", "format", "config", "missing"])
def test_damaged_models_are_refused(tmp_path: Path, damage: str) -> None:
    log = random_log(1)
    model = UserModel.from_preset(**SMALL)
    model.fit(log)
    path = tmp_path / "user.safetensors"
    model.save(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        path.unlink()
    elif damage == "format":
        change_state(path, lambda about, _: about.update(format="x"))
    else:
        change_state(path, lambda about, _: about["state"].update(config={"etaa": 1}))
    with pytest.raises(CheckpointError):
        UserModel.load(path)


def test_nan_stops_training_names_the_place_and_keeps_the_last_good_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastgaum.engine.game import EngineGame

    log = random_log(1)
    model = UserModel.from_preset(players="exact", search=[], **SMALL)
    step, calls = EngineGame.exact_step, []

    def poisoned(game: EngineGame, batch: Any) -> float:
        calls.append(1)
        loss = step(game, batch)
        if len(calls) == 6:
            for parameter in game.networks.parameters():
                parameter.data.fill_(float("nan"))
            return float("nan")
        return loss

    monkeypatch.setattr(EngineGame, "exact_step", poisoned)
    with pytest.raises(
        NumericsError, match=r"the weights 'player\.\S*' are not finite in epoch 2, batch 2"
    ):
        model.fit(log)
    assert np.isfinite(model.predict(log)["utility"].to_numpy()).all()


def test_fit_needs_a_validation_split_and_no_click_options_must_fit() -> None:
    with pytest.raises(LogFormatError, match="no validation session"):
        UserModel.from_preset(**SMALL).fit(log_of([[([0, 1], 0)]]))
    with pytest.raises(LogFormatError, match="no_click = never"):
        UserModel.from_preset(no_click="never", **SMALL).fit(random_log(1, no_click=0.5))
    with pytest.raises(ConfigError, match="not been trained"):
        UserModel().predict(random_log(1))


def test_no_click_always_is_offered_without_any_in_the_log() -> None:
    log = random_log(1)
    model = UserModel.from_preset(no_click="always", **SMALL)
    model.fit(log)
    assert (model.predict(log)["no_click_probability"].to_numpy() > 0).all()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_valid(name: str) -> None:
    assert Config.from_preset(name).preset == name


def test_search_keeps_the_switches_that_validate_best() -> None:
    log = random_log(7, n_sessions=120)
    model = UserModel.from_preset(**SMALL, search=["relations", "set_context"])
    model.fit(log)
    assert model.settings_tried == 4
    assert model.config.search == ()
    losses = {}
    for relations in (True, False):
        for set_context in (True, False):
            exact = {
                **SMALL,
                "players": "exact",
                "relations": relations,
                "set_context": set_context,
            }
            table = UserModel.from_preset(**exact).fit(log)
            losses[relations, set_context] = table["val_loss"].min()
    assert (model.config.relations, model.config.set_context) == min(losses, key=losses.__getitem__)
    again = model.predict(log, "test")
    model.fit(log)
    assert model.predict(log, "test").equals(again)


def test_what_is_set_is_not_searched() -> None:
    assert Config.from_preset("fastgaum").search == ("relations", "counts")
    assert Config.from_preset("fastgaum", relations=True).search == ("counts",)
    assert Config.from_preset("fastgaum", relations=True, counts=True).search == ()
    with pytest.raises(ConfigError, match="did you mean 'relations'"):
        Config.from_preset("fastgaum", search=["relation"])


def test_measuring_networks_does_not_import_torch_s_compiler() -> None:
    """A second of every first training went into that."""
    program = (
        "import sys\n"
        "from fastgaum.config import PRESETS, Config\n"
        "from fastgaum.nets.networks import require_room\n"
        "for name in PRESETS:\n"
        "    require_room(Config.from_preset(name), 50, 3)\n"
        "    require_room(Config.from_preset(name, history='pw'), 50, 3)\n"
        "print(len(PRESETS), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    n, imported = done.stdout.split()
    assert int(n) >= 4
    assert imported == "False"
