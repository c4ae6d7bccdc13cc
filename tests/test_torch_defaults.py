"""Another default dtype or device of torch, which users set for work of their own: a fit, its file,
its users and what plays among them are the same to the last byte, and the default stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastgaum.baselines.registry import load_model, make_model
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.models.user_model import UserModel
from fastgaum.nets.histories import HistoryEncoder
from fastgaum.nets.tensors import Bags
from fastgaum.policies.registry import LEARNERS, untrained
from fastgaum.policies.rollout import Setting
from fastgaum.policies.training import train_policy
from fastgaum.state_file import split_state
from fastgaum.worlds.learned_world import LearnedWorld
from fastgaum.worlds.pools import Pool
from fastgaum.worlds.vector_env import UserVectorEnv
from tests.builders import put, random_log
from tests.models.test_user_model import SMALL
from tests.policies.test_q_learning import TINY


@contextmanager
def other_defaults() -> Iterator[None]:
    """Another dtype and another device as torch's defaults within, which must be as they were at the
    end. What takes either alone makes other bytes or none."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        yield
        made = torch.empty(0)
        assert (made.device.type, made.dtype) == ("meta", torch.float64)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


class OwnEncoder(HistoryEncoder):
    """Modules as torch makes them."""

    def __init__(self, config: Config, n_ids: int, n_numbers: int) -> None:
        super().__init__()
        self.state_dim = 3
        self.embedding, self.out = nn.Embedding(n_ids, 4), nn.Linear(4, 3)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        states: Tensor = self.out(self.embedding(tokens.ids[tokens.offsets[:-1].long()].long()))
        return states


def small(preset: str = "fastgaum", **changes: Any) -> Callable[[], ChoiceModel]:
    return lambda: UserModel.from_preset(preset, device="cpu", **{**SMALL, **changes})


MODELS: dict[str, Callable[[], ChoiceModel]] = {
    "fastgaum": small(),
    "folds": small(search=["relations", "counts"], folds=2),
    "towers": small(tower_dim=4, relations=False, relative_numbers=False),
    "paper-lstm": small("paper-lstm"),
    "paper-pw": small("paper-pw", epochs=1),
    "by autograd": small(regulariser="tsallis", history="pw"),
    "own encoder": small(history=OwnEncoder),
    **{
        name: lambda name=name: make_model(name, {"epochs": 2}, "cpu")  # type: ignore[misc]
        for name in ("wd-ccf", "dfm", "s-rnn")
    },
    "logit": lambda: make_model("logit", {}, "cpu"),
}


@cache
def log() -> SessionLog:
    made, rng = random_log(4, no_click=0.3), np.random.default_rng(0)
    return put(
        made,
        candidate={"price": rng.random(made.n_candidates, np.float32)},
        event={"warmth": rng.random(made.n_events, np.float32)},
        ordered=True,
    )


def bytes_of(name: str) -> list[bytes]:
    """What a model is and says, before and after a round by its file."""
    model = MODELS[name]()
    model.fit(log())
    found = [array.tobytes() for _, array in sorted(split_state(model.state())[1].items())]
    frame = model.predict(log())
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        model.save(file)
        own = name == "own encoder"
        again = UserModel.load(file, history=OwnEncoder) if own else load_model(file, device="cpu")
    assert again.predict(log()).equals(frame)
    found.append(frame.write_csv().encode())
    if not isinstance(model, UserModel):
        return found
    user = model.user()
    items, fields = log().item_ids.to_list()[:4], {"price": [0.1, 0.2, 0.3, 0.4]}
    for _ in range(2):
        found.append(user.probabilities(items, {"warmth": 0.5}, fields).tobytes())
        user.chose(items[0])
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_and_its_file_are_the_same_bytes(name: str) -> None:
    usual = bytes_of(name)
    with other_defaults():
        assert bytes_of(name) == usual


def lived(learned: LearnedWorld) -> list[bytes]:
    """Ten steps of two users, and what learners do among them."""
    env = UserVectorEnv(2, world=learned, slate_size=2, observation="dict")
    rows = [env.reset(seed=1)[0]["state"].tobytes()]
    for step in range(10):
        observed, rewards, *_ = env.step(np.array([[0, 1 + step % 3]] * 2, np.int64))
        rows += [observed["state"].tobytes(), rewards.tobytes()]
    for name in LEARNERS:
        setting = Setting(2, 5, Pool("per_step", 6))
        policy = untrained(name, learned, 2, setting.pool, TINY)
        rows.append(train_policy(policy, learned, setting).write_csv().encode())
        rows += [value.numpy().tobytes() for value in policy.networks.state_dict().values()]
    return rows


def test_environments_and_policies_are_the_same_bytes() -> None:
    model = small("fastgaum-exact")()
    assert isinstance(model, UserModel)
    model.fit(random_log(4, no_click=0.3))
    usual = lived(LearnedWorld(model))
    with other_defaults():
        assert lived(LearnedWorld(model)) == usual


def test_a_fit_that_ends_in_an_error_leaves_the_default() -> None:
    with other_defaults(), pytest.raises(ConfigError, match="take"):
        UserModel.from_preset(hidden=[1 << 16] * 100, device="cpu").fit(log())


def test_another_thread_has_the_users_default_while_networks_are_made() -> None:
    """What a fit sets is its thread's alone."""
    there, leave, seen = threading.Event(), threading.Event(), []

    class Waits(OwnEncoder):
        def __init__(self, config: Config, n_ids: int, n_numbers: int) -> None:
            super().__init__(config, n_ids, n_numbers)
            there.set()
            leave.wait(60)

    model = UserModel.from_preset(device="cpu", history=Waits, **SMALL)
    with other_defaults():
        fit = threading.Thread(target=model.fit, args=(log(),))
        fit.start()
        assert there.wait(60)
        seen.append(torch.empty(0).dtype)
        leave.set()
        fit.join()
    assert seen == [torch.float64]
    assert model.networks is not None
    assert {one.dtype for one in model.networks.parameters()} == {torch.float32}
