"""Items that training never displayed are known by their vectors: the bar of cold items, and models
that go on, are saved, and find other vectors than theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastgaum.errors import FeatureMismatchError
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.precision import precision_at_k
from fastgaum.models.user_model import UserModel
from tests.builders import columns_of, put

N_ITEMS, N_OLD, N_SHOWN, DIM = 400, 300, 5, 8
TOWERS = {
    "tower_dim": 8,
    "hidden": [8],
    "history_dim": 4,
    "relative_numbers": False,
    "dropout": 0.0,
}
COLD = {
    **{"players": "exact", "epochs": 10, "search": [], "folds": 0, "relations": False},
    **{"id_dropout": 0.3, "weight_decay": 0.01},
}


def cold_log(n_sessions: int = 800, draws: int = 1) -> tuple[SessionLog, np.ndarray]:
    """Three events a session, chosen by the softmax of a linear function of hidden vectors; the test
    split displays items that the others do not. The log, and the utility of each item."""
    rng = np.random.default_rng(0)
    vectors = 3 + 2 * rng.standard_normal((N_ITEMS, DIM)).astype(np.float32)
    weights = rng.standard_normal(DIM)
    utility = (vectors - 3) @ (weights / np.linalg.norm(weights))
    rng = np.random.default_rng(draws)
    split = np.resize(np.array([0, 0, 0, 1, 2], np.int8), n_sessions)
    items, choices = [], []
    for of in np.repeat(split, 3):
        pool = np.arange(N_OLD, N_ITEMS) if of == 2 else np.arange(N_OLD)
        items.append(rng.choice(pool, N_SHOWN, replace=False))
        choices.append(np.argmax(utility[items[-1]] + rng.gumbel(size=N_SHOWN)))
    n_events = 3 * n_sessions
    log = SessionLog(
        session_offsets=np.arange(0, n_events + 1, 3, dtype=np.int32),
        display_offsets=np.arange(0, n_events * N_SHOWN + 1, N_SHOWN, dtype=np.int32),
        items=np.concatenate(items).astype(np.int32),
        choices=np.array(choices, np.int32),
        split=split,
        users=np.arange(n_sessions, dtype=np.int32),
        session_ids=pl.Series([str(i) for i in range(n_sessions)]),
        event_ids=pl.Series([str(i) for i in range(n_events)]),
        item_ids=pl.Series([f"i{i}" for i in range(N_ITEMS)]),
        columns=columns_of(vector={"text": vectors}),
    )
    return log, utility


@pytest.fixture(scope="module")
def cold() -> tuple[SessionLog, np.ndarray]:
    return cold_log()


@pytest.fixture(scope="module")
def model(cold: tuple[SessionLog, np.ndarray]) -> UserModel:
    found = UserModel.from_preset("fastgaum", **{**COLD, **TOWERS})
    found.fit(cold[0])
    return found


def test_utilities_of_new_items_are_recovered(
    cold: tuple[SessionLog, np.ndarray], model: UserModel
) -> None:
    """Floor: a random order, prec@1 20 and NLL log 5. Oracle: the utilities that choices were drawn
    by. Of the way from floor to oracle, at least nine tenths of prec@1 and three quarters of the
    NLL; the utilities correlate by .97 with the truth. Without vectors: nothing."""
    log, utility = cold
    test = log.split[log.session_of_event] == 2
    shown = log.items.reshape(-1, N_SHOWN)[test]
    choices = log.choices[test]
    logits = utility[shown] - np.log(np.exp(utility[shown]).sum(1, keepdims=True))
    oracle_nll = -np.mean(logits[np.arange(len(choices)), choices])
    offsets = np.arange(0, shown.size + 1, N_SHOWN)
    oracle = precision_at_k(utility[shown].reshape(-1), offsets, choices, 1).mean()

    def share(found: UserModel, read: SessionLog) -> tuple[float, float]:
        predicted = found.predict(read, "test")
        prec1 = precision_at_k(predicted["utility"].to_numpy(), offsets, choices, 1).mean()
        probs = predicted["probability"].to_numpy().reshape(-1, N_SHOWN)
        nll = -np.log(probs[np.arange(len(choices)), choices]).mean()
        floor = np.log(N_SHOWN)
        return (prec1 - 1 / N_SHOWN) / (oracle - 1 / N_SHOWN), (floor - nll) / (floor - oracle_nll)

    of_precision, of_nll = share(model, log)
    assert of_precision > 0.9
    assert of_nll > 0.75
    predicted = model.predict(log, "test")
    new = predicted.group_by("item").agg(pl.col("utility").mean()).sort("item")
    rows = new["item"].str.slice(1).cast(pl.Int64).to_numpy()
    assert len(rows) == N_ITEMS - N_OLD
    assert np.corrcoef(new["utility"].to_numpy(), utility[rows])[0, 1] > 0.97
    blind = UserModel.from_preset("fastgaum", **{**COLD, **TOWERS, "epochs": 3})
    without = put(log, vector={})
    blind.fit(without)
    assert abs(share(blind, without)[0]) < 0.1


def test_a_saved_model_reads_vectors_of_the_log(
    cold: tuple[SessionLog, np.ndarray], model: UserModel, tmp_path: Path
) -> None:
    log = cold[0]
    model.save(tmp_path / "user.safetensors")
    again = UserModel.load(tmp_path / "user.safetensors")
    assert again.predict(log, "test").equals(model.predict(log, "test"))
    # the weights, not the vectors
    assert (tmp_path / "user.safetensors").stat().st_size < 200_000
    with pytest.raises(FeatureMismatchError, match=r"text of 8 numbers, .*has none: read it with"):
        again.evaluate(put(log, vector={}))


def test_a_fit_starts_with_the_projection(
    cold: tuple[SessionLog, np.ndarray], model: UserModel
) -> None:
    """On a further log of the same items."""
    further, _ = cold_log(100, draws=2)
    later = UserModel(model.config.replace(epochs=1, folds=0, search=()))
    table = later.fit(further, start=model)
    assert table["val_loss"].min() < 1.3 < np.log(N_SHOWN)
    assert later.networks is not None
    assert later.networks.player.items is not None
    assert later.networks.player.items.projection is not None
