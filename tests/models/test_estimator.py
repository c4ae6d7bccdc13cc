"""`Estimator` in scikit-learn's tools: what each of them gives is what the log says by hand."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest

import fastgaum as fg
from fastgaum.errors import ConfigError

sklearn = pytest.importorskip("sklearn", reason="scikit-learn: install fastgaum[test]")
pytest.importorskip("pandas", reason="pandas: install fastgaum[frames]")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402

READING = {"candidate_fields": ["price"]}
QUICK: dict[str, Any] = {
    "search": [],
    "folds": 0,
    "epochs": 2,
    "warm_start": 2,
    "catch_up": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def rows() -> Any:
    """Displays of 60 users, as pandas has them, in a shuffled order with an index of its own."""
    rng, made = np.random.default_rng(0), []
    for session in range(120):
        for event in range(2):
            items, prices = rng.permutation(8)[:4], rng.uniform(1, 9, 4).round(2)
            odds = np.exp(-prices - items / 4)
            chosen = rng.choice(4, p=odds / odds.sum())
            made += [
                {
                    "session": f"s{session}",
                    "user": f"u{session % 60}",
                    "event": event,
                    "item": f"i{item}",
                    "price": float(price),
                    "chosen": int(place == chosen),
                }
                for place, (item, price) in enumerate(zip(items, prices, strict=True))
            ]
    frame = pl.DataFrame(made).sample(fraction=1, shuffle=True, seed=1).to_pandas()
    return frame.set_index(np.arange(1000, 1000 + len(frame)))


def estimator(**changes: Any) -> fg.Estimator:
    return fg.Estimator(fg.UserModel.from_preset(**QUICK | changes), READING)


def test_a_pipeline_fits_predicts_and_scores(rows: Any) -> None:
    """A step before it makes a column; choices come as y, and predictions in the rows' order."""
    reading = {"candidate_fields": ["price", "log_price"]}
    add = FunctionTransformer(lambda frame: frame.assign(log_price=np.log(frame["price"])))
    model = fg.UserModel.from_preset(**QUICK)
    pipe = make_pipeline(add, fg.Estimator(model, reading))
    x, y = rows.drop(columns="chosen"), rows["chosen"]
    pipe.fit(x, y)
    found = pipe.predict(x)
    assert found.index.equals(rows.index)
    assert found["item"].tolist() == rows["item"].tolist()
    total = found.groupby([rows["session"], rows["event"]])["probability"].sum()
    np.testing.assert_allclose(total, 1, atol=1e-5)
    # a cheap item is chosen more often: the rows are not exchanged
    assert np.corrcoef(found["probability"], rows["chosen"])[0, 1] > 0.4
    # with what was chosen before in the session, as a score has it
    told = pipe.predict(rows)
    chosen = told["probability"][rows["chosen"] == 1]
    assert pipe.score(x, y) == pytest.approx(np.log(chosen).mean(), abs=1e-4)
    assert not hasattr(model, "history_")


def test_users_are_held_out_by_folds(rows: Any) -> None:
    """Each fold's score is that of a fit to the other users by hand, none of whom is left out."""
    cut = GroupKFold(3)
    scores = cross_val_score(
        estimator(), rows, rows["chosen"], groups=rows["user"], cv=cut, error_score="raise"
    )
    for score, (train, test) in zip(scores, cut.split(rows, groups=rows["user"]), strict=True):
        fitted = estimator().fit(rows.iloc[train])
        assert fitted.model_.space is not None
        assert score == pytest.approx(fitted.score(rows.iloc[test]), abs=1e-6)
        log = fg.read_log(rows.iloc[test], **READING)
        assert score == pytest.approx(fitted.model_.score(log, "all"), abs=1e-6)
    assert (scores > -np.log(4)).all()


def test_parameters_are_searched_and_copied(rows: Any) -> None:
    given = estimator()
    found = GridSearchCV(
        given, {"model__epochs": [1, 2]}, cv=GroupKFold(2), error_score="raise"
    ).fit(rows, rows["chosen"], groups=rows["user"])
    assert set(found.cv_results_["param_model__epochs"]) == {1, 2}
    assert given.get_params()["model__epochs"] == 2
    other = clone(given).set_params(model__epochs=1)
    assert (other.model.get_params()["epochs"], given.model.get_params()["epochs"]) == (1, 2)
    best = found.best_estimator_
    copied = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(
        copied.predict(rows)["probability"], best.predict(rows)["probability"]
    )


def test_what_does_not_fit_is_refused(rows: Any) -> None:
    made = estimator()
    with pytest.raises(ConfigError, match="call fit first"):
        made.predict(rows)
    with pytest.raises(ConfigError, match="one value for each of 960 rows"):
        made.fit(rows, rows["chosen"][:-1])
    with pytest.raises(ConfigError, match="is not the frame's column 'chosen'"):
        made.fit(rows, 1 - rows["chosen"])
    with pytest.raises(ConfigError, match=r"no parameter 'epochs'.*model__"):
        made.set_params(epochs=2)
    with pytest.raises(ConfigError, match="model is"):
        fg.Estimator("fastgaum")  # type: ignore[arg-type]
    with pytest.raises(fg.errors.LogFormatError, match="chosen"):
        made.fit(rows.drop(columns="chosen"))
