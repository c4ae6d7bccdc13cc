"""Fits on bootstraps of users: what is drawn, what a copy may not tell, and a run folder that holds
them all and goes on after a stop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.checkpoint import State, load_state, save_state
from fastgaum.config import MOST_SEED
from fastgaum.errors import CheckpointError, LogFormatError
from fastgaum.game.loop import Trainer
from fastgaum.game.observers import Observer
from fastgaum.interrupts import Interrupted
from fastgaum.logs.log import SessionLog
from fastgaum.models import model_file
from fastgaum.models.prepared import PreparedLog
from fastgaum.models.run_folder import run_checkpoint, train_run
from fastgaum.models.user_model import UserModel, member_config
from tests.builders import random_log
from tests.game.interrupted import check_same, config_of, resume, run

CONFIG = config_of("fastgaum", members=3, epochs=2, search=[], folds=0)


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Of users who have two sessions each."""
    drawn = random_log(4, n_sessions=80, no_click=0.2)
    return dataclasses.replace(drawn, users=drawn.users // 2)


@pytest.fixture(scope="module")
def whole(log: SessionLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(CONFIG, log, folder)
    return folder


def same(one: UserModel, other: UserModel) -> bool:
    assert one.networks is not None
    assert other.networks is not None
    first, second = one.networks.state_dict(), other.networks.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def test_a_refused_log_leaves_the_model_as_it_was(whole: Path, log: SessionLog) -> None:
    """The card of the run has the figures of all members."""
    model = UserModel.load(whole, device="cpu")
    figures = model.evaluate(log, "validation").heads
    for name, head in figures.items():
        said = f"| validation: prec@1 of the {name}, % | {head.precision[1].mean:.4g} |"
        assert said in (whole / "README.md").read_text(encoding="utf-8")
    with pytest.raises(LogFormatError, match="validation"):
        model.fit(log.with_split(np.zeros(log.n_sessions, np.int8)))
    assert len(model.bootstraps) == 2


def test_a_bootstrap_draws_users_with_all_their_sessions(log: SessionLog) -> None:
    prepared = PreparedLog(log)(CONFIG)
    of_session = prepared.data.train.users
    users, sizes = np.unique(of_session, return_counts=True)
    counts = np.zeros(len(users))
    for number in range(1, 201):
        part = prepared.bootstrap(7, number)
        assert part.space is prepared.space
        assert part.data.train is prepared.data.train
        drawn = np.unique(of_session[part.data.drawn], return_counts=True)
        times = np.zeros(len(users))
        times[np.searchsorted(users, drawn[0])] = drawn[1]
        times /= sizes
        assert (times == times.astype(int)).all()
        assert times.sum() == len(users)
        counts += times
    # 200 draws of each user expected: Poisson, seven standard deviations
    assert np.abs(counts - 200).max() < 7 * np.sqrt(200)
    again, other = prepared.bootstrap(7, 1), prepared.bootstrap(8, 1)
    np.testing.assert_array_equal(again.data.drawn, prepared.bootstrap(7, 1).data.drawn)
    assert not np.array_equal(np.sort(again.data.drawn), np.sort(other.data.drawn))


def test_probabilities_are_the_mean_over_the_members(log: SessionLog, whole: Path) -> None:
    model = UserModel.load(whole)
    alone = UserModel.load(whole)
    alone.bootstraps = ()
    each = [one.predict(log, "test") for one in (alone, *model.bootstraps)]
    found = model.predict(log, "test")
    for name in ("probability", "no_click_probability", "generator_probability", "utility"):
        wanted = np.mean([one[name].to_numpy() for one in each], 0)
        np.testing.assert_allclose(found[name].to_numpy(), wanted, atol=1e-6)
    spread = np.std([one["probability"].to_numpy() for one in each], 0)
    np.testing.assert_allclose(found["probability_sd"].to_numpy(), spread, atol=1e-6)
    batch = next(model.tensors(log, "test"))
    probs = model.choice_distribution(batch).probs.numpy()
    np.testing.assert_allclose(probs, found["probability"].to_numpy()[: len(probs)], atol=1e-5)
    # an online user has what predict gives the first display of a session
    (first,) = found.filter(session=found["session"][0]).partition_by("event", maintain_order=True)[
        :1
    ]
    probs = model.user().probabilities(first["item"].to_list())
    np.testing.assert_allclose(probs[:-1], first["probability"].to_numpy(), atol=1e-5)
    nll = model.evaluate(log, "test").heads["reward"].nll.mean
    # Jensen: the mean is never worse than the members are in the mean
    assert nll < np.mean(
        [one.evaluate(log, "test").heads["reward"].nll.mean for one in (alone, *model.bootstraps)]
    )


def test_the_model_itself_is_that_of_all_users(
    log: SessionLog, whole: Path, tmp_path: Path
) -> None:
    alone = UserModel(CONFIG.replace(members=1))
    alone.fit(log)
    loaded = UserModel.load(whole)
    assert same(alone, loaded)
    assert len(loaded.bootstraps) == 2
    kinds = [alone, *loaded.bootstraps]
    assert not any(same(kinds[i], kinds[j]) for i in range(3) for j in range(i))
    for one in loaded.bootstraps:
        assert one.config == loaded.config.replace(members=1, seed=one.config.seed)
        assert one.outside == loaded.outside
        assert one.evaluate(log, "validation").heads["reward"].nll.mean > 0
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()


def test_runs_of_neighbouring_seeds_share_no_seed_of_a_fit(whole: Path) -> None:
    runs, members = range(20), range(1, 100)
    drawn = [
        member_config(CONFIG.replace(seed=run), number).seed for run in runs for number in members
    ]
    assert len({*runs, *drawn}) == len(runs) * 100
    assert 0 <= min(drawn) <= max(drawn) < MOST_SEED
    fitted = [one.config.seed for one in UserModel.load(whole).bootstraps]
    assert fitted == [member_config(CONFIG, number).seed for number in (1, 2)]


class Told(Observer):
    """Notes which bootstraps began."""

    def __init__(self) -> None:
        self.bootstraps: list[tuple[int, int]] = []

    def on_bootstrap(self, number: int, n_bootstraps: int) -> None:
        self.bootstraps.append((number, n_bootstraps))


@pytest.mark.parametrize("n_done", [1, 2])
def test_a_run_stopped_in_any_of_its_fits_goes_on(
    log: SessionLog, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_done: int
) -> None:
    """In the first bootstrap, in the second, and in the fit of all users."""
    told, folder, epoch = Told(), tmp_path / "run", Trainer._epoch
    fits: list[Trainer] = []

    def stopped(trainer: Trainer, step: Any) -> tuple[float, float]:
        if trainer not in fits:
            fits.append(trainer)
        elif len(fits) == n_done + 1:
            raise Interrupted(2)
        return epoch(trainer, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", stopped)
        with pytest.raises(Interrupted):
            train_run(UserModel(CONFIG), log, folder, observers=[told])
    assert told.bootstraps == [(1, 2), (2, 2)][: n_done + 1]
    checkpoint = run_checkpoint(folder)
    assert checkpoint is not None
    assert len(checkpoint.bootstraps) == n_done
    resume(CONFIG, log, folder)
    check_same(whole, folder)


def test_a_file_that_lost_a_bootstrap_is_damaged(whole: Path, tmp_path: Path) -> None:
    state = load_state(whole / "model.safetensors", model_file.MODEL_FORMAT, "", State)
    file = tmp_path / "model.safetensors"
    save_state(file, model_file.MODEL_FORMAT, {**state, "bootstraps": state["bootstraps"][:1]})
    with pytest.raises(CheckpointError, match=r"1 fits on bootstraps, .* members = 3"):
        UserModel.load(file)
    save_state(file, model_file.MODEL_FORMAT, {**state, "bootstraps": [{}, {}]})
    with pytest.raises(CheckpointError, match="damaged"):
        UserModel.load(file)
