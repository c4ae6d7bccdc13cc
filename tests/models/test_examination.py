"""Place and taste apart: utilities that know no place, and what each place adds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.baselines.registry import make_model
from fastgaum.errors import CheckpointError, ConfigError, FeatureMismatchError
from fastgaum.features.fitting import fit_space
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Networks
from fastgaum.ops.optimiser import LazyAdamW
from tests.builders import change_state, log_of, permuted_within_sets, put, random_log

SMALL: dict[str, Any] = {
    **{"epochs": 2, "warm_start": 2, "hidden": [8, 8], "history_dim": 5},
    **{"batch_sessions": 16, "search": [], "folds": 0, "lr": 0.03, "generator_lr": 0.03},
}


def ordered_log() -> SessionLog:
    log = random_log(2, n_sessions=80, no_click=0.2)
    rng = np.random.default_rng(0)
    return put(
        log,
        candidate={"price": rng.random(log.n_candidates, np.float32)},
        event={"hour": rng.random(log.n_events, np.float32)},
        ordered=True,
    )


def fitted(log: SessionLog, **changes: Any) -> UserModel:
    model = UserModel.from_preset(**{**SMALL, **changes}, device="cpu")
    model.fit(log)
    return model


@pytest.fixture(scope="module")
def model() -> UserModel:
    return fitted(ordered_log())


@pytest.mark.parametrize(
    "changes",
    [
        {"relations": True},
        {"relations": False, "tower_dim": 6, "eta": 2.0},
        {"protocol": "identity", "relations": False, "relative_numbers": False, "players": "exact"},
    ],
    ids=str,
)
def test_utilities_know_no_place_and_places_add_their_own(changes: dict[str, Any]) -> None:
    log = ordered_log()
    model = fitted(log, **changes)
    by_place = model.examination()
    assert by_place is not None
    assert by_place[0] == 1
    assert np.abs(np.log(by_place[1:])).min() > 1e-3, "nothing was learned of the places"
    frames = {at: model.predict(log, "test", at_place=at) for at in ("own", None, 1, 3)}  # type: ignore[arg-type]
    free, own = (frames[at]["utility"].to_numpy() for at in (None, "own"))
    # with the places that they have, candidates in another order are another display; free of
    # place they are the same
    permuted, order = permuted_within_sets(log)
    _, events = pick_rows(log.session_offsets, log.sessions_in("test"))
    offsets, candidates = pick_rows(log.display_offsets, events)
    row_of = np.full(log.n_candidates, -1)
    row_of[candidates] = np.arange(len(candidates))
    moved = model.predict(permuted, "test", at_place=None)["utility"]
    np.testing.assert_allclose(moved, free[row_of[order[candidates]]], atol=2e-5)
    place = np.arange(len(candidates)) - np.repeat(offsets[:-1], np.diff(offsets))
    # by_place multiplies the odds of a choice, in which a utility counts eta times
    of_places = np.log(by_place) / model.config.eta
    added = of_places[np.minimum(place, len(by_place) - 1)]
    np.testing.assert_allclose(own - free, added, atol=2e-5)
    assert frames[None].equals(frames[1]), "the first place adds nothing"
    np.testing.assert_allclose(frames[3]["utility"], free + of_places[2], atol=2e-5)
    for at, frame in frames.items():
        sums = np.add.reduceat(frame["probability"].to_numpy(), offsets[:-1])
        none = frame["no_click_probability"].to_numpy()[offsets[:-1]]
        np.testing.assert_allclose(sums + none, 1, atol=1e-5)
        if model.config.players == "adversarial":
            generated = frame["generator_probability"].to_numpy()
            assert (generated == frames["own"]["generator_probability"].to_numpy()).all() == (
                at == "own"
            )


def test_the_generator_starts_with_the_reward_s_places_times_eta() -> None:
    networks = fitted(ordered_log(), eta=2.0, epochs=1).networks
    assert networks is not None
    networks.start_generator(2.0)
    of_places = networks.state_dict()
    later = of_places["player.reward.examination.later"]
    assert later.abs().min() > 0
    assert torch.equal(of_places["generator.examination.later"], 2 * later)


def test_places_have_no_weight_decay_in_either_optimiser() -> None:
    space = fit_space(ordered_log(), "identity", examination=True)
    config = UserModel.from_preset(**SMALL).config
    networks = Networks(config, space.n_ids, space.n_numbers, places=(0.0, -0.5, -1.0))
    scorer = networks.player.reward
    part = scorer.examination
    assert part is not None
    with torch.no_grad():
        part.later.fill_(-1.0)
    weight, places = scorer.from_state.weight, part.later  # type: ignore[union-attr]
    before = weight.detach().clone()
    for by_kernels in (True, False):
        ours = LazyAdamW([weight], [], 0.1, 0.5, 5.0, undecayed=[places])
        ours.by_kernels = by_kernels
        ours.step()
    torch.testing.assert_close(weight, before * 0.95**2)
    assert (places == -1).all()


def test_a_saved_model_keeps_its_places(model: UserModel, tmp_path: Path) -> None:
    log = ordered_log()
    model.save(tmp_path / "m.safetensors")
    again = UserModel.load(tmp_path / "m.safetensors")
    assert again.predict(log, at_place=2).equals(model.predict(log, at_place=2))
    assert np.array_equal(again.examination("generator"), model.examination("generator"))

    def other(_: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays["space/base/place_rates"][1] = -1

    change_state(tmp_path / "m.safetensors", other)
    with pytest.raises(CheckpointError):
        UserModel.load(tmp_path / "m.safetensors")


def test_without_examination_the_place_is_in_the_bags(tmp_path: Path) -> None:
    log = ordered_log()
    model = fitted(log, examination=False)
    assert model.examination() is None
    assert model.space is not None
    assert [part.name for part in model.space.categorical] == ["item", "position"]
    model.save(tmp_path / "m.safetensors")
    assert UserModel.load(tmp_path / "m.safetensors").predict(log).equals(model.predict(log))


def test_what_has_no_places_is_named(model: UserModel) -> None:
    log = ordered_log()
    with pytest.raises(ConfigError, match=r"at_place is 0, the displays .* places 1 to 6"):
        model.predict_parts(log, at_place=0)
    with pytest.raises(FeatureMismatchError, match="read it with --ordered"):
        model.predict_parts(dataclasses.replace(log, ordered=False), at_place=1)
    plain = fitted(dataclasses.replace(log, ordered=False))
    logit = make_model("logit", {"protocol": "bags"})
    logit.fit(log)
    # one place is no order: there is nothing to keep apart
    single = log_of([[([i % 3], 0), ([i % 2], -1)] for i in range(12)], [0, 0, 1] * 4, ordered=True)
    for other, of in ((plain, log), (logit, log), (fitted(single), single)):
        with pytest.raises(ConfigError, match="does not keep places apart"):
            other.predict_parts(of, at_place=None)
