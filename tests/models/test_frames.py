"""Frames in place of logs, and scikit-learn's habits, for every model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fastgaum as fg
from fastgaum.baselines.registry import load_model, make_model
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.logs.fold import to_frame
from fastgaum.models.choice_model import ChoiceModel

QUICK = {"epochs": 1, "warm_start": 1, "search": [], "folds": 0, "seed": 3}
NAMES = {"item": "sku", "chosen": "clicked"}
MADE = ["known", "utility", "probability", "no_click_probability"]


def made(name: str) -> ChoiceModel:
    return make_model(name, QUICK if name == "fastgaum" else {"seed": 3})


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """Rows in any order, ids of several types, an item of each tenth event in two rows."""
    log = fg.synthesise(150, preset="sample")[0]
    rows = to_frame(log).drop("split", "event_label")
    rows = rows.with_columns(
        pl.col("session").str.strip_chars("s").cast(pl.Int64),
        price=np.random.default_rng(0).random(len(rows)),
    ).rename(NAMES)
    return pl.concat([rows, rows.filter(pl.col("event") == 0)]).sample(
        fraction=1, shuffle=True, seed=1
    )


@pytest.fixture(scope="module", params=["click-rate", "logit", "fastgaum"])
def model(request: pytest.FixtureRequest, frame: pl.DataFrame) -> ChoiceModel:
    fitted = made(request.param)
    fitted.fit(fg.read_log(frame, columns=NAMES, candidate_fields=["price"]))
    return fitted


def text(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("session").cast(pl.String))


def test_predictions_stand_beside_the_rows_of_a_frame(
    model: ChoiceModel, frame: pl.DataFrame, tmp_path: Path
) -> None:
    """As a join of the log's would put them; of a loaded model, and of frames of other libraries."""
    asked = frame.drop("clicked").head(300)
    log = fg.read_log(asked, columns={"item": "sku", "chosen": ""}, candidate_fields=["price"])
    found = model.predict(asked)
    assert found.select(asked.columns).equals(asked)
    joined = text(asked).join(
        model.predict(log),
        left_on=["session", "event", "sku"],
        right_on=["session", "event", "item"],
        how="left",
        maintain_order="left",
    )
    made = found.columns[len(asked.columns) :]
    assert made[:4] == MADE
    assert found.select(made).equals(joined.select(made))
    model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.reading.values == {"columns": NAMES, "candidate_fields": ("price",)}
    for same in (asked.lazy(), asked.to_arrow()):
        assert loaded.predict(same).equals(found)
    # pandas in, pandas out
    pandas = asked.to_pandas()
    again = loaded.predict(pandas)
    assert type(again) is type(pandas)
    assert pl.from_pandas(again).equals(found)


def test_a_nested_frame_gets_lists(frame: pl.DataFrame) -> None:
    once = frame.unique(["session", "event", "sku"], keep="first", maintain_order=True)
    clicked = pl.col("sku").filter(pl.col("clicked") == 1).first()
    nested = once.group_by("session", "event", maintain_order=True).agg("sku", chosen=clicked)
    nested = nested.rename({"sku": "items"})
    model = made("click-rate")
    model.fit(nested)
    found = model.predict(nested)
    assert found.select(nested.columns).equals(nested)
    assert found["no_click_probability"].dtype == pl.Float32
    rows = found.drop("chosen").explode("items", "known", "utility", "probability")
    of_log = model.predict(fg.read_log(nested))
    keys = ["session", "event", "item"]
    rows = text(rows).rename({"items": "item"}).sort(keys)
    assert rows.select(of_log.columns).equals(of_log.sort(keys))


def test_a_frame_is_evaluated_as_its_log(model: ChoiceModel, frame: pl.DataFrame) -> None:
    log = fg.read_log(frame, columns=NAMES, candidate_fields=["price"])
    nll = model.evaluate(frame).heads["reward"].nll.mean
    assert nll == model.evaluate(log).heads["reward"].nll.mean
    assert model.score(frame.to_pandas()) == model.score(log) == -nll
    assert model.score(log, "validation") != -nll


def test_what_is_ambiguous_is_refused(frame: pl.DataFrame) -> None:
    model = made("click-rate")
    with pytest.raises(ConfigError, match="has not been trained"):
        model.predict(frame)
    plain = frame.rename({"sku": "item", "clicked": "chosen"})
    with pytest.raises(LogFormatError, match=r"columns without a role, price, .*: drop them, or"):
        model.fit(plain)
    model.fit(plain.drop("price"))
    assert model.score(plain) == model.score(plain.drop("price"))
    with pytest.raises(ConfigError, match="split is 'test', of a frame every row is predicted"):
        model.predict(plain, "test")
    with pytest.raises(LogFormatError, match=r"has a column 'known'.*rename or drop it"):
        model.predict(plain.with_columns(known=True))
    with pytest.raises(ConfigError, match=r"a log is required, got 'log.csv'"):
        model.predict("log.csv")  # type: ignore[arg-type]
    several = {"session": [1, 1], "event": [1, 1], "item": ["a", "b"], "chosen": [1, 1]}
    model.fit(fg.read_log(plain.drop("price"), clicks="each"))
    with pytest.raises(
        LogFormatError, match="2 displayed candidates of the frame are 3 of the log"
    ):
        model.predict(pl.DataFrame(several))
    model.fit(fg.synthesise(150, preset="sample")[0])
    with pytest.raises(ConfigError, match="how the model's training log was read is not known"):
        model.predict(plain)


def cloned(model: ChoiceModel) -> ChoiceModel:
    """As `sklearn.base.clone` makes one, with its check."""
    given: dict[str, Any] = {k: copy.deepcopy(v) for k, v in model.get_params(deep=False).items()}
    other = type(model)(**given)
    held = other.get_params(deep=False)
    assert all(held[name] is one for name, one in given.items())
    return other


@pytest.mark.parametrize(
    "twin", [cloned, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_twin_fits_to_the_same_model(
    model: ChoiceModel, frame: pl.DataFrame, twin: Callable[[ChoiceModel], ChoiceModel]
) -> None:
    log = fg.read_log(frame, columns=NAMES, candidate_fields=["price"])
    other = twin(model)
    assert (other.space is None) == (twin is cloned)
    if twin is cloned:
        other.fit(log)
    assert other.predict(log).equals(model.predict(log))
    assert repr(other) == repr(model)
    assert "\n" not in repr(model)
    assert model._repr_html_().startswith("<p><code>")


def test_parameters_are_those_of_the_constructor() -> None:
    model = fg.UserModel.from_preset("fastgaum", dropout=0.1, device="cpu")
    assert model.get_params()["dropout"] == 0.1
    assert set(model.get_params(deep=False)) == {"config", "regulariser", "history", "device"}
    assert model.set_params(relations=True, history="lstm") is model
    wanted = fg.Config.from_preset("fastgaum", dropout=0.1, relations=True, history="lstm")
    assert model.asked == model.config == wanted
    model.set_params(preset="paper-pw", seed=4)
    assert model.asked == fg.Config.from_preset("paper-pw", seed=4)
    floor = make_model("logit").set_params(seed=5)
    assert floor.settings.seed == floor.get_params()["seed"] == 5
    for one in (model, floor):
        with pytest.raises(ConfigError, match=r"'sed'.* did you mean 'seed'"):
            one.set_params(sed=1)
        with pytest.raises(ConfigError):
            one.set_params(seed=-1)
    assert model.asked.seed == 4


def test_rows_that_were_not_available_get_no_prediction(frame: pl.DataFrame) -> None:
    offered = frame.with_columns(offered=1)
    model = make_model("click-rate")
    model.fit(fg.read_log(offered, columns=NAMES, available="offered"))
    assert model.predict(offered.head(6)).height == 6
    ignored = offered.filter(pl.col("clicked") == 0).with_columns(offered=0).head(1)
    chosen = offered.filter(pl.col("session") == ignored["session"][0], pl.col("clicked") == 1)
    with pytest.raises(LogFormatError, match="leave out rows that were not available"):
        model.predict(pl.concat([ignored, chosen]))
