"""Numbers with a sign: utilities of all users move in the stated direction alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import fastgaum as fg
from fastgaum.errors import ConfigError
from fastgaum.features.fitting import fit_training
from fastgaum.logs.fold import to_frame
from fastgaum.models.user_model import UserModel, members_of

K, N_ITEMS = 3, 9
SMALL: dict[str, Any] = {
    "folds": 0,
    "search": [],
    "epochs": 2,
    "warm_start": 2,
    "catch_up": 1,
    "lr": 0.03,
    "batch_sessions": 32,
}
COLUMNS: dict[str, list[str]] = {
    "candidate_fields": ["price", "size", "kind"],
    "context_fields": ["income", "segment"],
}


def made_frame(
    n: int = 120, seed: int = 0, confounded: float = 0.0, n_events: int = 2
) -> pl.DataFrame:
    """Choices by quality, size and price, which follows the quality that no column has."""
    draws = np.random.default_rng(seed)
    rows: list[tuple[object, ...]] = []
    for session in range(n):
        income, segment = draws.uniform(0.5, 2), str(draws.integers(3))
        for event in range(n_events):
            items = draws.choice(N_ITEMS, K, replace=False)
            quality = draws.normal(size=K)
            price = confounded * quality + draws.normal(size=K)
            size = draws.normal(size=K)
            utility = 2 * quality - 0.5 * price + 0.3 * size + draws.gumbel(size=K)
            for place, item in enumerate(items):
                chosen = int(place == utility.argmax())
                kind = "ab"[item % 2]
                numbers = (price[place], size[place])
                rows.append(
                    (f"s{session}", event, f"i{item}", chosen, *numbers, kind, income, segment)
                )
    names = ["session", "event", "item", "chosen", "price", "size", "kind", "income", "segment"]
    return pl.DataFrame(rows, names, orient="row")


def read(frame: pl.DataFrame) -> fg.SessionLog:
    return fg.read_log(frame, **COLUMNS)


@pytest.fixture(scope="module")
def log() -> fg.SessionLog:
    return read(made_frame())


def fitted(log: fg.SessionLog, **changes: Any) -> UserModel:
    return UserModel.from_preset("fastgaum", **{**SMALL, **changes}).fit(log, progress=False)


def randomised(model: UserModel, seed: int) -> UserModel:
    """The model with weights that no training has seen."""
    torch.manual_seed(seed)
    assert model.networks is not None
    with torch.no_grad():
        for parameter in model.networks.parameters():
            # scores of a size whose rounding is far below what is asserted
            parameter.normal_(0, 0.3)
    return model


def probabilities(model: UserModel, frame: pl.DataFrame, of: str, grid: np.ndarray) -> np.ndarray:
    """Of the first candidate of each session's last event by each player, where its number is each
    of the grid, (n_sessions, n_players, n_grid)."""
    last = pl.col("event") == pl.col("event").max().over("session")
    asked = last & (pl.int_range(pl.len()).over("session", "event") == 0)
    keys = frame.filter(asked).select("session", "event", "item")
    found = []
    for value in grid:
        changed = frame.with_columns(pl.when(asked).then(float(value)).otherwise(of).alias(of))
        predicted = model.predict(read(changed), "all")
        rows = keys.cast(pl.String).join(
            predicted.with_columns(pl.col("session", "event", "item").cast(pl.String)),
            ["session", "event", "item"],
            maintain_order="left",
        )
        heads = [one for one in ("probability", "generator_probability") if one in rows.columns]
        found.append(rows.select(heads).to_numpy())
    assert len(found[0]) == frame["session"].n_unique()
    return np.stack(found, 2)


CASES: dict[str, dict[str, Any]] = {
    "": {},
    "towers, no pieces": {"tower_dim": 4, "pieces": 0, "relative_numbers": False},
    "sparse, scaled, no tastes, no counts": {
        **{"tastes": 0, "counts": False, "relations": False, "wide": False},
        **{"regulariser": "tsallis", "eta": 2.0, "select": "calibrated loss"},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_utilities_move_in_the_stated_direction_for_all_users(
    case: str, log: fg.SessionLog
) -> None:
    frame, grid = made_frame(12, seed=7), np.linspace(-6, 6, 9)
    model = fitted(log, signs={"price": "-", "size": "+"}, **CASES[case])
    for seed in range(2):
        randomised(model, seed)
        for name, direction in (("price", -1), ("size", 1)):
            moves = direction * np.diff(probabilities(model, frame, name, grid))
            assert moves.min() > -2e-6
            assert moves.max() > 1e-3


def test_unsigned_numbers_move_utilities_both_ways(log: fg.SessionLog) -> None:
    """What the test above finds is not true of any network."""
    frame, grid = made_frame(12, seed=7), np.linspace(-6, 6, 9)
    model = fitted(log)
    assert model.networks is not None
    assert not any("signed" in name for name in model.networks.state_dict())
    moves = np.diff(probabilities(randomised(model, 0), frame, "price", grid))
    assert moves.min() < -1e-3
    assert moves.max() > 1e-3


def test_a_sign_of_a_product_turns_with_the_context(log: fg.SessionLog) -> None:
    model = randomised(fitted(log, signs={"income*price": "-"}), 0)
    assert model.space is not None
    assert model.space.number_names[-1] == "income*price"
    # the price itself is not read
    assert model.space.number_names.index("price") not in model.space.code.columns
    grid = np.linspace(-3, 3, 4)
    for income, direction in ((1.5, -1), (0.0, 0), (-1.5, 1)):
        frame = made_frame(12, seed=7).with_columns(income=pl.lit(income))
        moves = np.diff(probabilities(model, frame, "price", grid))
        if not direction:
            assert np.abs(moves).max() == 0
            continue
        assert (direction * moves).min() > -2e-6
        assert (direction * moves).max() > 1e-3


def test_scorers_read_a_number_with_a_sign_in_no_other_way(log: fg.SessionLog) -> None:
    space, _ = fit_training(log, pieces=4, robust=True, signs={"price": "-"})
    at = space.number_names.index("price")
    of_price = np.flatnonzero(space.code.columns == at)
    ((direction, width),) = space.signed
    assert (direction, width) == (-1, 5)
    assert of_price.tolist() == list(range(space.n_numbers - width, space.n_numbers))
    # nor as what is relative to the display: the other number is
    varying = space.n_raw - len(space.number_names)
    plain, _ = fit_training(log, pieces=4, robust=True)
    assert plain.n_raw - len(plain.number_names) == varying + 1
    model = fitted(log, signs={"price": "-"})
    assert model.networks is not None
    for scorer in (model.networks.player.reward, model.networks.generator):
        assert scorer is not None
        assert scorer.signed is not None
        assert scorer.first.numbers is not None
        assert scorer.first.numbers.in_features == model.space.n_numbers - 7  # type: ignore[union-attr]
        assert len(scorer.tower.own) == 1


def test_habits_are_not_of_a_number_with_a_sign() -> None:
    frame = made_frame(40).with_columns(minutes=pl.when(pl.col("chosen") == 1).then(3.0))
    log = fg.read_log(frame, outcomes=["minutes"], **COLUMNS)
    names = [fit_training(log, signs=signs)[0].number_names for signs in ({}, {"price": "-"})]
    assert "habit_price" in names[0]
    assert {*names[0]} - {*names[1]} == {"habit_price"}


def test_confounded_prices_have_the_right_sign() -> None:
    """The good are dear, and no column says which are good: choices rise with the price."""
    log = read(made_frame(300, confounded=1.5))
    ends, frame = np.array([-3.0, 3.0]), made_frame(30, seed=5)
    changes = {"epochs": 8, "warm_start": 8, "relations": False}
    free, signed = (fitted(log, signs=signs, **changes) for signs in ({}, {"price": "-"}))
    rises = [np.diff(probabilities(one, frame, "price", ends))[..., 0] for one in (free, signed)]
    assert (rises[0] > 0).all()
    assert (rises[1] <= 1e-6).all()


def test_questions_have_the_right_sign() -> None:
    # an elasticity is by a share of the price, which is above 0 here
    log = read(made_frame(200).with_columns(pl.col("price") + 9))
    model = fitted(log, signs={"price": "-", "size": "+"}, epochs=6, warm_start=6)
    own = fg.elasticities(model, log, "price", "test", items=["i1", "i2"])
    own = own.filter(pl.col("changed") == pl.col("item"))
    assert own.height == 2
    assert (own["elasticity"] < 0).all()
    worth = fg.willingness_to_pay(model, log, "size", "price", "test")
    assert (worth["by_field"] > 0).all()
    assert (worth["by_price"] < 0).all()
    assert (worth["worth"] < 0).all()
    curve = fg.response_curve(model, log, "price", 7, "test")["log_odds"].to_numpy()
    assert (np.diff(curve) < 0).all()
    cheaper = fg.what_if(model, log, fields={"price": lambda p: p - 1}, items=["i1"], split="test")
    assert cheaper.filter(pl.col("item") == "i1")["difference"][0] > 0


def test_members_of_folds_and_files_have_the_sign(log: fg.SessionLog, tmp_path: Path) -> None:
    model = fitted(log, folds=2, signs={"price": "-"}, players="exact")
    assert len(members_of(model)) == 2
    assert all(one.config.signs == {"price": "-"} for one in model.members)
    frame, grid = made_frame(12, seed=7), np.linspace(-4, 4, 5)
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = UserModel.load(path)
    new = read(frame)
    assert again.predict(new, "all").equals(model.predict(new, "all"))
    for one in (again, *again.members):
        moves = np.diff(probabilities(one, frame, "price", grid))
        assert moves.max() <= 1e-6
        assert moves.min() < -1e-4


def test_a_number_of_items_has_a_sign(tmp_path: Path) -> None:
    """Its item's row in the networks stays, and says how good the item is otherwise."""
    costs = pl.DataFrame(
        {"item": [f"i{i}" for i in range(N_ITEMS)], "cost": [i % 4 + 0.5 for i in range(N_ITEMS)]}
    )
    costs.write_csv(tmp_path / "items.csv")
    of_items = fg.read_log(made_frame(120), item_table=tmp_path / "items.csv", **COLUMNS)
    assert of_items.columns["cost"].of == "item"
    model = randomised(fitted(of_items, signs={"cost": "+"}), 1)
    found = [
        model.user().probabilities(
            ["i0", "i1"],
            {"income": 1.0, "segment": "1"},
            {"cost": [x, 1.0], "price": [0, 0], "size": [0, 0], "kind": ["a", "b"]},
        )[0]
        for x in (-3.0, 0.0, 0.5, 2.0, 9.0)
    ]
    assert (np.diff(found) >= -1e-6).all()
    assert found[-1] > found[0] + 1e-3


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ({"prise": "-"}, "'prise', which is unknown: .*price, size; did you mean 'price'"),
        ({"kind": "-"}, "'kind', which is a category"),
        ({"income": "-"}, r"a field of the context, the same for all .*income\*NUMBER"),
        ({"segment*price": "-"}, r"no product of .*\(of the context there are income\)"),
        ({"income*kind": "-"}, "no product of a number"),
        ({"flat": "+"}, "'flat', which is 2 in all of training"),
    ],
)
def test_a_sign_of_what_is_no_varying_number_is_refused(
    signs: dict[str, str], words: str, log: fg.SessionLog
) -> None:
    if "flat" in signs:
        frame = to_frame(log).with_columns(flat=pl.lit(2.0))
        fields = [*COLUMNS["candidate_fields"], "flat"]
        log = fg.read_log(frame, candidate_fields=fields, context_fields=COLUMNS["context_fields"])
    with pytest.raises(ConfigError, match=words):
        fitted(log, signs=signs)


@pytest.mark.parametrize("signs", [{"price": "down"}, {"price": -1}, ["price"], {"": "-"}])
def test_a_sign_is_plus_or_minus(signs: Any) -> None:
    with pytest.raises(ConfigError, match=r"signs must be a table of names, .*\+, -"):
        UserModel.from_preset("fastgaum", signs=signs)


def test_a_scale_is_of_all_that_signs_add(log: fg.SessionLog) -> None:
    model = randomised(fitted(log, signs={"price": "-"}), 2)
    assert model.networks is not None
    signed = model.networks.player.reward.signed
    assert signed is not None
    before = signed.heights().detach().clone()
    signed.scale(2.5)
    torch.testing.assert_close(signed.heights(), 2.5 * before, rtol=1e-4, atol=1e-7)
    signed.scale(0.0)
    assert (
        0 < float(signed.heights().detach().min()) <= float(signed.heights().detach().max()) < 1e-19
    )
