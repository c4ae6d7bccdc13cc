"""A fit with the weights of another model: those of ids by their names, validated first, and what is
refused."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fastgaum.cli.app import main
from fastgaum.errors import ConfigError, FeatureMismatchError
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.fold import to_frame
from fastgaum.logs.log import Column, SessionLog
from fastgaum.models.start import take_weights
from fastgaum.models.user_model import UserModel
from fastgaum.nets.networks import Networks, context_sizes, log_rates
from tests.builders import put, random_log
from tests.logs.test_context import navigation

TINY: dict[str, Any] = {
    **{"epochs": 2, "warm_start": 2, "hidden": [4], "history_dim": 3, "search": [], "folds": 0},
    **{"batch_sessions": 16, "device": "cpu"},
}
STILL = {"lr": 1e-30, "generator_lr": 1e-30}
"""rates too small to move a weight"""


def own_codes(log: SessionLog, seed: int) -> SessionLog:
    """The log with codes of its own: of items that it displays alone, in another order."""
    rng = np.random.default_rng(seed)

    def shuffled(codes: np.ndarray, names: pl.Series) -> tuple[np.ndarray, pl.Series]:
        kept = rng.permutation(np.unique(codes))
        code = np.full(len(names), -1, np.int32)
        code[kept] = np.arange(len(kept))
        return code[codes], names.gather(kept)

    items, item_ids = shuffled(log.items, log.item_ids)
    columns = {}
    for name, column in log.columns.items():
        columns[name] = column
        if column.texts is not None:
            columns[name] = Column(column.of, *shuffled(column.values, column.texts))
    return dataclasses.replace(log, items=items, item_ids=item_ids, columns=columns)


def in_two(log: SessionLog, n: int) -> tuple[SessionLog, SessionLog]:
    """The first n sessions and the rest, each as a log of its own."""
    rows = np.arange(log.n_sessions)
    return own_codes(slice_sessions(log, rows[:n]), 0), own_codes(slice_sessions(log, rows[n:]), 1)


@pytest.fixture(scope="module")
def logs() -> tuple[SessionLog, SessionLog]:
    """Two logs, of which either has items that the other lacks."""
    return in_two(random_log(4, n_sessions=120, n_items=90, no_click=0.2), 40)


@pytest.fixture(scope="module")
def start(logs: tuple[SessionLog, SessionLog]) -> UserModel:
    model = UserModel.from_preset(**TINY)
    model.fit(logs[0])
    return model


def after(start: UserModel, **changes: Any) -> UserModel:
    """A model of the same configuration, with changes."""
    return UserModel(start.config.replace(**changes), history=start.history, device="cpu")


def nll(model: UserModel, log: SessionLog) -> float:
    return model.evaluate(log, "validation").heads["reward"].nll.mean


@pytest.mark.parametrize(
    ("changes", "log"),
    [
        ({"history": "lstm"}, random_log(1, 120, 30)),
        ({"history": "pw", "protocol": "identity", "relations": False}, random_log(1, 120, 30)),
        ({"tower_dim": 4, "history_layers": 2}, navigation(120, n_items=60, seed=1)),
    ],
    ids=["lstm", "pw", "towers, context"],
)
def test_the_first_weights_say_what_start_says(changes: dict[str, Any], log: SessionLog) -> None:
    """Of the same log, whose ids stand in another order."""
    other = own_codes(log, 7)
    start = UserModel.from_preset(**{**TINY, **changes})
    start.fit(log)
    model = after(start, **STILL)
    row = model.fit(other, start=start).history_.row(0, named=True)
    assert row["phase"] == "start"
    assert row["best"]
    assert start.space is not None
    assert model.space is not None
    assert not model.space.categorical[0].values.equals(start.space.categorical[0].values)
    np.testing.assert_allclose(nll(model, other), nll(start, log), rtol=1e-5)


@pytest.mark.parametrize("history", ["lstm", "pw"])
def test_known_ids_take_rows_and_new_ones_keep_fresh_ones(
    logs: tuple[SessionLog, SessionLog], history: str
) -> None:
    config = UserModel.from_preset(**TINY, pieces=0).config
    start, model = (UserModel(config.replace(history=history), device="cpu") for _ in "ab")
    start.fit(logs[0])
    model.fit(logs[1])
    before, space = start.space, model.space
    assert before is not None
    assert space is not None
    sizes = (model.config, space.n_ids, space.n_numbers, model.history, context_sizes(space))
    networks = Networks(*sizes, log_rates(space))
    fresh = {name: weight.clone() for name, weight in networks.state_dict().items()}
    take_weights(networks, space, start)
    assert start.networks is not None
    weights, now, n_known, n_new = start.networks.state_dict(), networks.state_dict(), 0, 0
    for name, was in weights.items():
        if not name.endswith("table"):
            assert torch.equal(now[name], was)
            continue
        rows, old = now[name].view(space.n_ids, -1), was.view(before.n_ids, -1)
        new = fresh[name].view(space.n_ids, -1)
        assert torch.equal(rows[0], old[0])
        for field, other in zip(space.fields, before.fields, strict=True):
            assert torch.equal(rows[field.start], old[other.start])
            places = {text: at for at, text in enumerate(other.values, other.start + 1)}
            for at, text in enumerate(field.values, field.start + 1):
                known = text in places
                assert torch.equal(rows[at], old[places[text]] if known else new[at])
                n_known, n_new = n_known + known, n_new + (not known)
    assert min(n_known, n_new) > 5


def test_weights_stay_where_no_epoch_is_better(
    start: UserModel, logs: tuple[SessionLog, SessionLog]
) -> None:
    model = after(start, lr=100.0, generator_lr=100.0, weight_decay=0.0)
    assert model.fit(logs[1], start=start).history_.filter("best")["phase"].to_list() == ["start"]
    assert model.networks is not None
    assert start.networks is not None
    now = model.networks.player.reward.rest.state_dict()
    for name, was in start.networks.player.reward.rest.state_dict().items():
        assert torch.equal(was, now[name])


def test_a_model_may_start_with_its_own_weights(
    start: UserModel, logs: tuple[SessionLog, SessionLog]
) -> None:
    model = copy.deepcopy(start)
    found = model.fit(logs[1], start=model).history_["val_loss"].to_list()
    assert found == after(start).fit(logs[1], start=start).history_["val_loss"].to_list()


def test_counts_are_those_of_the_new_log_alone(
    start: UserModel, logs: tuple[SessionLog, SessionLog]
) -> None:
    """Scales of numbers are those of the weights, users those of both logs."""
    model, plain = after(start, epochs=1), after(start, epochs=1)
    model.fit(logs[1], start=start)
    plain.fit(logs[1])
    assert model.space is not None
    assert plain.space is not None
    assert start.space is not None
    for name, count in vars(plain.space.item_counts).items():
        np.testing.assert_array_equal(getattr(model.space.item_counts, name), count)
    np.testing.assert_array_equal(model.space.code.scale, start.space.code.scale)
    for log in logs:
        assert model.seen_users(log, "train").n_seen == model.seen_users(log, "train").n_users
    # training sessions are read with the counts of others, as after any fit
    assert model.predict(logs[1], "train").height


def test_the_first_fit_of_folds_is_the_start(logs: tuple[SessionLog, SessionLog]) -> None:
    folds = UserModel.from_preset(**{**TINY, "folds": 2, "epochs": 1, "warm_start": 1})
    folds.fit(logs[0])
    model = after(folds, folds=0, **STILL)
    assert model.fit(logs[1], start=folds).history_["phase"][0] == "start"
    assert model.members == ()
    assert folds.networks is not None
    assert model.networks is not None
    now = model.networks.player.reward.rest.state_dict()
    for name, was in folds.networks.player.reward.rest.state_dict().items():
        torch.testing.assert_close(was, now[name])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"hidden": [8]},
            r"has hidden = \[4\], not \[8\]: make the model with UserModel\(start.conf",
        ),
        ({"protocol": "identity"}, "has protocol = bags, not identity"),
        ({"folds": 5}, "has folds = 0, not 5"),
        ({"search": ["relations"]}, r"has search = \[\], not \['relations'\]"),
    ],
)
def test_another_configuration_is_refused(
    start: UserModel, logs: tuple[SessionLog, SessionLog], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        after(start, **changes).fit(logs[1], start=start)


def test_what_has_no_weights_for_the_log_is_refused(
    start: UserModel, logs: tuple[SessionLog, SessionLog]
) -> None:
    with pytest.raises(ConfigError, match="start has not been trained"):
        after(start).fit(logs[1], start=UserModel(start.config))
    priced = put(logs[1], candidate={"price": np.ones(logs[1].n_candidates, np.float32)})
    with pytest.raises(FeatureMismatchError, match="differ in price: fit without start"):
        after(start).fit(priced, start=start)


def test_the_command_takes_over_what_the_run_says(
    logs: tuple[SessionLog, SessionLog], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, log in zip(("first", "second"), logs, strict=True):
        to_frame(log).rename({"item": "sku"}).write_parquet(tmp_path / f"{name}.parquet")
    names = ("first.parquet", "second.parquet", "run", "further", "logit", "no")
    first, second, run, further, logit, no = (str(tmp_path / name) for name in names)
    short = [f"--set={key}" for key in ("epochs=1", "warm_start=1", "hidden=[4]", "folds=2")]
    short = [*short, "--set=search=[]"]
    assert main(["train", first, "-o", run, "--column", "item=sku", "--quiet", *short]) == 0
    onwards = ["train", second, "-o", further, "--from", run, "--seed", "5", "--resume"]
    for said in ("this one begins", "finished before"):
        capsys.readouterr()
        assert main(onwards) == 0
        assert said in "".join(capsys.readouterr())
    table = pl.read_parquet(tmp_path / "further" / "metrics.parquet")
    assert table["phase"][0] == "start"
    model = UserModel.load(further, device="cpu")
    assert (model.config.hidden, model.config.seed, model.members) == ((4,), 5, ())
    assert main(["evaluate", further, second, "--quiet"]) == 0
    assert main(["train", first, "-o", logit, "--column=item=sku", "--preset", "logit"]) == 0
    for text, start, options in (
        ("is asked for: leave one of them out", run, ["--preset", "paper-lstm"]),
        ("not [8]", run, ["--set", "hidden=[8]"]),
        ("the model 'logit' is fitted in one go, --from has no use", logit, []),
        ("is no run folder", f"{run}/model.safetensors", []),
    ):
        capsys.readouterr()
        assert main(["train", second, "-o", no, "--from", start, *options]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
