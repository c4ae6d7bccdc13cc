"""A history encoder and a regulariser of one's own: the contract, files, simulated users, and the
kernels that stand back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from fastgaum.cli.app import main
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.logs.fold import to_frame
from fastgaum.models.user_model import UserModel
from fastgaum.nets.bags import BagLinear, BagSizes
from fastgaum.nets.histories import HistoryEncoder, Recurrent
from fastgaum.nets.regularisers import L2, Custom, Shannon, best_value
from fastgaum.nets.segments import segment_sum
from fastgaum.nets.tensors import Bags
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.builders import change_state, random_log
from tests.contracts import check_user_model
from tests.models.test_user_model import SMALL


class SumOfAll(HistoryEncoder):
    """The sum of all choices so far; all but `after_tokens` is the base's."""

    def __init__(self, config: Config, n_ids: int, n_numbers: int) -> None:
        super().__init__()
        self.state_dim = 4
        self.embedding = BagLinear(n_ids, n_numbers, 4, 0.3)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        sums = torch.cat([embedded.new_zeros(1, 4), embedded.cumsum(0)])
        begins = torch.repeat_interleave(offsets[:-1].long(), offsets.diff().long())
        starts = (
            begins
            if self.window is None
            else torch.maximum(begins, torch.arange(1, len(sums)) - self.window)
        )
        return torch.tanh(sums[1:] - sums[starts])


class SumOfThree(SumOfAll):
    window = 3


class Louder(Recurrent):
    """An LSTM of one's own: what is known by its type must not be taken for the one it comes
    from."""

    def __init__(self, config: Config, n_ids: int, n_numbers: int) -> None:
        super().__init__(BagSizes(n_ids, n_numbers), 4)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        return 3 * super().after_tokens(tokens, offsets)

    def state_of(self, carry: tuple[Tensor, ...]) -> Tensor:
        return 3 * super().state_of(carry)


def square(probs: Tensor, no_click: Tensor, offsets: Tensor) -> Tensor:
    return 0.5 * (segment_sum(probs.square(), offsets) + no_click.square())


def other(probs: Tensor, no_click: Tensor, offsets: Tensor) -> Tensor:
    return square(probs, no_click, offsets)


@pytest.mark.parametrize("encoder", [SumOfAll, SumOfThree, Louder])
def test_an_encoder_of_ones_own_keeps_the_contract(encoder: Any) -> None:
    model = UserModel.from_preset(**SMALL, history=encoder)
    check_user_model(model)
    assert model.networks is not None
    assert type(model.networks.player.history) is encoder


@pytest.mark.parametrize("encoder", [SumOfThree, Louder])
def test_simulated_users_remember_what_the_encoder_does(encoder: Any) -> None:
    """A user of a world has a state of its own choices."""
    model = UserModel.from_preset(**SMALL, history=encoder)
    model.fit(random_log(3, n_sessions=60))
    envs = UserVectorEnv(32, world=LearnedWorld(model), slate_size=2, horizon=6)
    seen, _ = envs.reset(seed=0)
    assert not seen.any()
    for _ in range(4):
        seen, *_ = envs.step(envs.action_space.sample())
    assert np.isfinite(seen).all()
    assert len(np.unique(seen.round(5), axis=0)) > 8


def test_a_file_names_the_code_that_it_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = random_log(2, n_sessions=60)
    own = Custom(square, steps=3)
    short = {**SMALL, "epochs": 1, "warm_start": 1, "catch_up": 1}
    model = UserModel.from_preset(**short, history=SumOfAll, regulariser=own)
    model.fit(log)
    path = tmp_path / "own.safetensors"
    model.save(path)
    again = UserModel.load(path, history=SumOfAll, regulariser=own)
    assert again.predict(log).equals(model.predict(log))
    encoder_is = r"has a history encoder of its own \('SumOfAll'\)"
    rule_is = r"has a regulariser of its own \('Custom\(square\)'\).*regulariser=Custom\(square\)"
    for history, regulariser, says in (
        (SumOfAll, None, rule_is),
        (None, own, encoder_is),
        (Louder, own, "history=SumOfAll, not Louder"),
        (SumOfAll, Custom(other), r"Custom\(square\), not Custom\(other\)"),
    ):
        with pytest.raises(CheckpointError, match=says):
            UserModel.load(path, history=history, regulariser=regulariser)
    # the command line has no code to give: one line, no traceback
    to_frame(log).write_parquet(tmp_path / "log.parquet")
    assert main(["evaluate", str(path), str(tmp_path / "log.parquet")]) == 2
    err = capsys.readouterr().err
    assert "load it in Python with UserModel.load(" in err
    assert err.count("\n") == 1


def test_a_model_without_own_code_takes_none(tmp_path: Path) -> None:
    model = UserModel.from_preset(**SMALL)
    model.fit(random_log(2, n_sessions=60))
    model.save(tmp_path / "plain.safetensors")
    with pytest.raises(
        CheckpointError, match="has no history encoder of its own: load it without history=SumOfAll"
    ):
        UserModel.load(tmp_path / "plain.safetensors", history=SumOfAll)
    for own in ([], 3, {"history": 3}, {"history": "a;b"}, {"code": "x"}, None):

        def change(about: dict[str, Any], _: Any, own: Any = own) -> None:
            about["state"]["own"] = own

        change_state(tmp_path / "plain.safetensors", change)
        with pytest.raises(CheckpointError, match="damaged"):
            UserModel.load(tmp_path / "plain.safetensors")
    # a built-in one that is not the configured one is code of one's own, too: the file does not say
    # its name otherwise
    other_rule = UserModel.from_preset(**SMALL, regulariser=L2())
    other_rule.fit(random_log(2, n_sessions=60))
    other_rule.save(tmp_path / "l2.safetensors")
    with pytest.raises(CheckpointError, match=r"regulariser=L2\(\)"):
        UserModel.load(tmp_path / "l2.safetensors")
    assert UserModel.load(tmp_path / "l2.safetensors", regulariser=L2()).regulariser == L2()


class HalfOfSquares:
    """The rule L2, as a user's own."""

    best_response = L2.best_response
    link = L2.link
    omega = L2.omega


class HalfOfSquaresOfShannon(Shannon):
    """The same, of a built-in rule's class."""

    best_response = L2.best_response  # type: ignore[assignment]
    link = L2.link  # type: ignore[assignment]
    omega = L2.omega  # type: ignore[assignment]


@pytest.mark.parametrize("rule", [HalfOfSquares, HalfOfSquaresOfShannon])
def test_own_rules_train_as_the_built_in_one_of_their_law(rule: Any) -> None:
    values, offsets = torch.tensor([0.3, -0.2, 0.9, 0.1]), torch.tensor([0, 3, 4])
    for no_click in (False, True):
        expected = best_value(L2(), values, offsets, no_click)
        torch.testing.assert_close(best_value(rule(), values, offsets, no_click), expected)


@pytest.mark.parametrize("rule", [HalfOfSquares, HalfOfSquaresOfShannon])
def test_a_generator_plays_by_the_rule_that_it_learned_by(rule: Any) -> None:
    log = random_log(3, n_sessions=60)
    model = UserModel.from_preset(**SMALL, regulariser=rule())
    model.fit(log)
    user = model.user(head="generator")
    first = log.sessions_in("test")[0]
    items = log.items[slice(*log.display_offsets[log.session_offsets[first] :][:2])]
    expected = model.predict(log, split="test")["generator_probability"]
    found = user.probabilities(log.item_ids.gather(pl.Series(items)).to_list())
    np.testing.assert_allclose(found[: len(items)], expected[: len(items)], atol=1e-5)


def entropy_in_all(probs: Tensor, no_click_prob: Tensor, offsets: Tensor) -> Tensor:
    """One number, where one per event is required."""
    return (probs * probs.log()).sum()


@pytest.mark.parametrize(
    ("regulariser", "says"),
    [(entropy_in_all, r"give Custom\(entropy_in_all\)"), (L2, r"L2\(\)"), (3, "an object with")],
)
def test_what_is_no_regulariser_is_refused(regulariser: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"regulariser is .*{says}"):
        UserModel.from_preset("paper-lstm", regulariser=regulariser)
    scores, offsets = torch.zeros(5), torch.tensor([0, 2, 5], dtype=torch.int32)
    own = Custom(entropy_in_all)
    with pytest.raises(ConfigError, match=r"returns \[\] for 2 events, .* shape \[2\]"):
        own.best_response(scores, offsets, False)
    with pytest.raises(ConfigError, match=r"returns \[\] for 2 events"):
        own.omega(Shannon().best_response(scores, offsets, False), offsets)
