"""What `make check` has a strict type checker say of code that users write. It is never run: right
uses pass, and each wrong one is an error of the kind that its comment expects, or the comment is one."""

from __future__ import annotations

from typing import Any, assert_type

import gymnasium
import numpy as np
import numpy.typing as npt
import polars as pl
from torch import Tensor

import fastgaum as fg
from fastgaum.nets.histories import HistoryEncoder
from fastgaum.nets.regularisers import ChoiceDistribution, Custom, Regulariser, Shannon
from fastgaum.policies.base import Observation, Policy, items_at


class Firmer:
    """A regulariser that satisfies the protocol without inheriting anything."""

    def best_response(self, scores: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        return Shannon().best_response(2 * scores, offsets, no_click)

    def link(self, logits: Tensor, offsets: Tensor, no_click: bool) -> ChoiceDistribution:
        return Shannon().link(logits, offsets, no_click)

    def omega(self, dist: ChoiceDistribution, offsets: Tensor) -> Tensor:
        return 0.5 * Shannon().omega(dist, offsets)


class First(Policy):
    """Shows the first places of the pool."""

    name = "first"

    def act(self, observation: Observation, k: int) -> npt.NDArray[np.int32]:
        places = np.tile(np.arange(k, dtype=np.int32), (len(observation.users.states), 1))
        return items_at(observation.pools, places)


def write_what_is_right() -> None:
    log: fg.SessionLog = fg.resplit(fg.load("sample"), seed=3)
    model = fg.UserModel.from_preset("fastgaum", epochs=3)
    assert_type(model.fit(log), fg.UserModel)
    assert_type(model.history_, pl.DataFrame)
    evaluation = model.evaluate(log, split="test")
    assert_type(evaluation.heads["reward"].precision[1].mean, float)
    assert_type(evaluation.lead(evaluation, k=2).low, float)
    assert_type(model.predict(log), pl.DataFrame)
    assert_type(model.sample(log, seed=1), pl.DataFrame)
    model.save("user.safetensors")
    assert_type(fg.UserModel.load("user.safetensors"), fg.UserModel)
    assert_type(fg.load("sample").items, npt.NDArray[np.int32])
    own: Regulariser = Firmer()
    fg.UserModel(fg.Config(eta=2.0), regulariser=own)
    envs = fg.UserVectorEnv(8, world=fg.LearnedWorld(model), slate_size=3, reward="click")
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    env: gymnasium.Env[Any, Any] = fg.UserEnv(run="runs/mine", slate_size=3)
    env.reset()


def write_what_is_wrong() -> None:
    log, model = fg.load("sample"), fg.UserModel.from_preset("fastgaum")
    fg.load(3)  # type: ignore[arg-type]
    model.evaluate("sample")  # type: ignore[arg-type]
    model.evaluate(log, split="tests")  # type: ignore[arg-type]
    table: pl.LazyFrame = model.fit(log).history_  # type: ignore[assignment]
    table.collect()
    print(model.evaluate(log).heads["reward"].precison)  # type: ignore[attr-defined]
    model.fti(log)  # type: ignore[attr-defined]
    fg.UserModel(fg.Config(eta="high"))  # type: ignore[arg-type]
    fg.UserModel(fg.Config(epoch=3))  # type: ignore[call-arg]
    fg.UserModel(regulariser="shannon")  # type: ignore[arg-type]
    fg.UserVectorEnv("many", run="runs/mine", slate_size=3)  # type: ignore[arg-type]

    def entropy(probs: Tensor) -> Tensor:
        return probs

    Custom(entropy)  # type: ignore[arg-type]


class Backwards(HistoryEncoder):
    """An encoder that takes tensors for bags."""

    def after_tokens(self, tokens: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        raise NotImplementedError
