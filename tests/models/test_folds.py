"""Fits on folds of users: who is left out of which fit, what no user reads, whose mean results are,
and a run folder that holds all fits and goes on after a stop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.config import MOST_SEED
from fastgaum.errors import CheckpointError, ConfigError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space, fit_training
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.training_counts import scale_counts
from fastgaum.features.training_order import folds_of, number_of_folds, with_fold
from fastgaum.game.loop import Trainer
from fastgaum.game.observers import Observer
from fastgaum.interrupts import Interrupted
from fastgaum.kernels.candidate_formulas import TRAINING_NUMBERS
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.hashes import hash_texts
from fastgaum.logs.log import TEST, TRAIN, VALIDATION, SessionLog
from fastgaum.logs.splits import resplit
from fastgaum.models import choice_model, model_file
from fastgaum.models.fit_data import PreparedLog
from fastgaum.models.folds import member_config
from fastgaum.models.run_folder import run_checkpoint, train_run
from fastgaum.models.user_model import UserModel, members_of
from fastgaum.nets.regularisers import ChoiceDistribution, sample_candidates
from fastgaum.state_file import State, load_state, save_state
from tests.builders import log_of, put, random_log, with_fields
from tests.game.interrupted import check_same, config_of, resume, run

N_FOLDS = 3
OF_TRAINING = (*TRAINING_NUMBERS, "rivals_met", "rivals_known", "rivals_won", "rivals_odds")
CONFIG = config_of("fastgaum", epochs=2, search=[], folds=N_FOLDS)


@pytest.fixture(scope="module")
def log() -> SessionLog:
    """Of users who have two sessions each, in one part of the split, and read a price."""
    drawn = random_log(4, n_sessions=80, no_click=0.2)
    rng = np.random.default_rng(0)
    users = np.arange(80, dtype=np.int32) // 2
    price = rng.random(drawn.n_candidates, np.float32)
    split = np.array([TRAIN, VALIDATION, TEST, TRAIN], np.int8)[users % 4]
    return put(drawn, candidate={"price": price}, users=users, split=split)


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


def nll_of(log: SessionLog, frame: pl.DataFrame, sessions: np.ndarray) -> float:
    """Mean NLL of the events of some sessions of a log in its predictions."""
    first, of_choice = log.display_offsets[:-1], np.maximum(log.choices, 0)
    none, probs = (frame[f"{name}probability"].to_numpy() for name in ("no_click_", ""))
    chosen = np.where(log.choices < 0, none[first], probs[first + of_choice])
    return float(-np.log(chosen[np.isin(log.session_of_event, sessions)]).mean())


def sessions_of(log: SessionLog, fold: int, n_folds: int = N_FOLDS) -> np.ndarray:
    """The sessions of training and validation of a fold's users."""
    ours = (folds_of(log.user_hashes, n_folds) == fold) & (log.split != TEST)
    return np.flatnonzero(ours).astype(np.int32)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=5), min_size=1, max_size=20, unique=True), st.integers(2, 100))
def test_a_fold_is_a_function_of_the_users_id_alone(ids: list[str], n_folds: int) -> None:
    together = folds_of(hash_texts(pl.Series(ids, dtype=pl.String)), n_folds)
    assert ((together >= 0) & (together < n_folds)).all()
    for one, fold in zip(ids, together, strict=True):
        assert folds_of(hash_texts(pl.Series([one])), n_folds) == [fold]


def test_folds_are_of_one_size_and_free_of_the_split() -> None:
    """Splits by chance are by hashes of users too: 10,000 users, 5 folds, three parts; all cells
    within five standard deviations."""
    log = resplit(log_of([[([0, 1], 0)]] * 10_000), 0)
    folds = folds_of(log.user_hashes, 5)
    for part in (TRAIN, VALIDATION, TEST):
        n = int((log.split == part).sum())
        counts = np.bincount(folds[log.split == part], minlength=5)
        assert np.abs(counts - n / 5).max() < 5 * np.sqrt(n / 5)


@pytest.mark.parametrize("order", [None, 0])
def test_every_user_is_left_out_by_one_fit(log: SessionLog, order: int | None) -> None:
    """Whatever the order of the log's sessions; test users are in no fit."""
    if order is not None:
        rows = np.random.default_rng(order).permutation(log.n_sessions)
        log = slice_sessions(log, rows.astype(np.int32))
    prepared = PreparedLog(log, folds=N_FOLDS)(CONFIG)
    ids, left_out = np.array(log.session_ids), dict[str, int]()
    taken = set(ids[log.split != TEST])
    for fold in range(N_FOLDS):
        data = prepared.data(fold)
        assert data.drawn is not None
        validated = ids[data.validation.rows].tolist()
        assert len(set(validated)) == len(validated)
        trained = set(ids[data.train.rows[data.drawn]])
        # a few sessions are counted and not read
        assert trained <= taken - set(validated)
        assert len(trained) > 0.9 * len(taken - set(validated))
        users = set(log.users[data.train.rows[data.drawn]].tolist())
        assert not users & set(log.users[data.validation.rows].tolist())
        left_out |= dict.fromkeys(validated, fold)
    assert set(left_out) == taken
    of_session = dict(zip(ids.tolist(), folds_of(log.user_hashes, N_FOLDS), strict=True))
    assert left_out == {one: of_session[one] for one in left_out}


@given(st.sets(st.integers(0, 400), min_size=1, max_size=12), st.integers(2, 9))
def test_few_users_fill_fewer_folds_or_none(users: set[int], most: int) -> None:
    """No fold is empty, and no greater number of folds would do."""
    n = len(users)
    log = log_of([[([0, 1], 0)]] * (n + 1), [0] * n + [2], users=[*sorted(users), 999])
    hashes = log.user_hashes[:-1]

    def filled(n_folds: int) -> bool:
        return len(set(folds_of(hashes, n_folds).tolist())) == n_folds

    found = number_of_folds(log, most)
    assert found == max((n for n in range(2, most + 1) if filled(n)), default=0)


def test_a_fit_on_few_users_has_fewer_folds_or_the_logs_own_split() -> None:
    """Six users, and two."""
    config = CONFIG.replace(folds=5)
    log = random_log(1, n_sessions=6)
    log = log.with_split(np.array([0, 0, 0, 0, 1, 1], np.int8))
    model = UserModel(config)
    model.fit(log)
    assert model.space is not None
    assert 2 <= model.space.folds == len(model.members) + 1 < 5
    assert model.space.folds == model.folds_for(log) == number_of_folds(log, 5)
    alone = slice_sessions(log, np.array([0, 0, 4], np.int32))
    alone = dataclasses.replace(alone, users=np.zeros(3, np.int32))
    model.fit(alone)
    assert (model.space.folds, model.members) == (0, ())


def test_the_numbers_of_a_user_are_counted_without_its_fold() -> None:
    """A twin: a space of the log without the fold, of which the fold validates, its counts made as
    large as those of all."""
    for ordered in (False, True):
        log = with_fields(random_log(2, n_sessions=90, no_click=0.3), ordered=ordered)
        rng = np.random.default_rng(1)
        page = rng.integers(0, 3, log.n_events).astype(np.int32)
        log = put(log, event={"page": page}, categories={"page": pl.Series(list("abc"))})
        options = (True, True, ordered)
        space, _ = fit_training(log, "bags", *options, folds=N_FOLDS)
        assert {"log_choices", "rivals_won", "odds_given_page"} <= set(space.number_names)
        ours = Encoder(space, log)
        for fold in range(N_FOLDS):
            rows = sessions_of(log, fold)
            without = with_fold(log, fold, N_FOLDS)
            twin = fit_space(without, "bags", *options)
            counted = int(twin.item_counts.displays.sum())
            n_whole = int(space.item_counts.displays.sum())
            assert 0 < counted < n_whole
            scaled = scale_counts(twin, n_whole / counted)
            theirs = Encoder(scaled, without).encode(rows)
            found = ours.encode(rows)
            assert scaled.number_names == space.number_names
            np.testing.assert_allclose(found.base, theirs.base, rtol=1e-5, atol=1e-6)
            # as the fit of the fold validates it
            held = PreparedLog(log, folds=N_FOLDS)(CONFIG.replace(examination=ordered))
            np.testing.assert_array_equal(held.data(fold).validation.base, found.base)


def with_other_choices(log: SessionLog, fold: int) -> SessionLog:
    """The log whose users of a fold choose the next candidate, or the first instead of none."""
    ours = np.isin(log.session_of_event, sessions_of(log, fold))
    sizes = np.diff(log.display_offsets)
    choices = np.where(ours, (log.choices + 1) % sizes, log.choices).astype(np.int32)
    assert (choices != log.choices).sum() > 10
    return dataclasses.replace(log, choices=choices)


def test_no_user_reads_its_own_choices(log: SessionLog) -> None:
    """Not in its numbers, to the bit, nor in the networks of the fit that left it out, but for the
    epoch that it chooses: here there is one."""
    log, fold = dataclasses.replace(log, ordered=True), 1
    changed = with_other_choices(log, fold)
    numbers = list[EncodedSessions]()
    config = CONFIG.replace(players="exact", epochs=1, warm_start=1)
    for one in (log, changed):
        prepared = PreparedLog(one, folds=N_FOLDS)(config)
        numbers.append(prepared.data(fold).validation)
        other = prepared.data((fold + 1) % N_FOLDS).validation
        numbers.append(other)
    # other numbers are of what its session has chosen earlier
    columns = [prepared.space.number_names.index(name) for name in OF_TRAINING]
    before, others_before, after, others_after = (part.base[:, columns] for part in numbers)
    np.testing.assert_array_equal(before, after)
    assert (others_before != others_after).any()
    blind = config.replace(counts=False, relations=False, examination=False)
    fitted = []
    for one in (log, changed):
        model = UserModel(blind, device="cpu")
        model.fit(one)
        fitted.append(members_of(model))
    for left_out, pair in enumerate(zip(*fitted, strict=True)):
        assert same(*pair) == (left_out == fold)  # type: ignore[arg-type]


def test_probabilities_are_the_mean_over_the_members(log: SessionLog, whole: Path) -> None:
    model = UserModel.load(whole)
    alone = members_of(model)
    assert alone[1:] == model.members
    each = [one.predict(log, "test") for one in alone]
    found = model.predict(log, "test")
    for name in ("probability", "no_click_probability", "generator_probability", "utility"):
        wanted = np.mean([one[name].to_numpy() for one in each], 0)
        np.testing.assert_allclose(found[name].to_numpy(), wanted, atol=1e-6)
    spread = np.std([one["probability"].to_numpy() for one in each], 0)
    assert spread.max() > 0.01
    np.testing.assert_allclose(found["probability_sd"].to_numpy(), spread, atol=1e-6)
    batch = next(model.tensors(log, "test"))
    probs = model.choice_distribution(batch).probs.numpy()
    np.testing.assert_allclose(probs, found["probability"].to_numpy()[: len(probs)], atol=1e-5)
    nll = model.evaluate(log, "test").heads["reward"].nll.mean
    # Jensen: the mean is never worse than the members are in the mean
    assert nll < np.mean([one.evaluate(log, "test").heads["reward"].nll.mean for one in alone])


def test_an_online_user_has_what_predict_gives(log: SessionLog, whole: Path) -> None:
    """Of the model, and of each member alone, in whichever order they are asked."""
    model = UserModel.load(whole)
    for one in (model, *members_of(model), model):
        found = one.predict(log, "test")
        first = found.filter(
            pl.struct("session", "event") == found.select("session", "event").row(0, named=True)
        )
        rows = [int(at) for at in np.flatnonzero(log.split[log.session_of_event] == TEST)[:1]]
        prices = log.columns["price"].values[log.display_offsets[rows[0]] :][: len(first)]
        probs = one.user().probabilities(first["item"].to_list(), fields={"price": prices.tolist()})
        np.testing.assert_allclose(probs[:-1], first["probability"].to_numpy(), atol=1e-5)


def test_who_trained_is_scored_by_the_fit_that_left_it_out(log: SessionLog, whole: Path) -> None:
    """Of the log, of its sessions in another order, and of a loaded file; the figures of training
    and validation are of these scores."""
    model = UserModel.load(whole)
    rows = np.random.default_rng(0).permutation(log.n_sessions).astype(np.int32)
    names = ("probability", "no_click_probability", "generator_probability", "utility")
    keys = ["session", "event", "item"]
    for one in (log, slice_sessions(log, rows)):
        found = model.predict(one)
        each = [member.predict(one) for member in members_of(model)]
        of_session = dict(
            zip(one.session_ids, folds_of(one.user_hashes, N_FOLDS).tolist(), strict=True)
        )
        fold = np.array([of_session[session] for session in found["session"]])
        trained = found["trained_on"].to_numpy()
        assert set(found.filter(trained)["session"]) == set(
            np.array(one.session_ids)[one.split != TEST]
        )
        assert np.isnan(found["probability_sd"].to_numpy()[trained]).all()
        assert np.isfinite(found["probability_sd"].to_numpy()[~trained]).all()
        for name in names:
            scores = np.stack([member[name].to_numpy() for member in each])
            own = scores[fold, np.arange(len(fold))]
            np.testing.assert_allclose(found[name].to_numpy()[trained], own[trained], atol=1e-6)
            assert np.abs(scores - own).max() > 0.01
    again = found.sort(keys)
    as_logged = model.predict(log).sort(keys)
    np.testing.assert_allclose(
        again["probability"].to_numpy(), as_logged["probability"].to_numpy(), atol=1e-6
    )
    for split in ("train", "validation"):
        said = model.evaluate(log, split).heads["reward"].nll.mean  # type: ignore[arg-type]
        wanted = nll_of(log, model.predict(log), log.sessions_in(split))  # type: ignore[arg-type]
        assert said == pytest.approx(wanted, abs=1e-6)


def test_every_verb_scores_who_trained_out_of_fold(
    log: SessionLog, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batches of `tensors`, and what `sample` draws from, as `predict`."""
    model, drawn = UserModel.load(whole), []
    found = model.predict(log, "all")
    batches = list(model.tensors(log, "all"))
    for name, values in (
        ("utility", [model.utility(one) for one in batches]),
        ("probability", [model.choice_distribution(one).probs for one in batches]),
        ("probability", [model.choice_log_probs(one)[0].exp() for one in batches]),
        (
            "generator_probability",
            [model.choice_distribution(one, "generator").probs for one in batches],
        ),
    ):
        np.testing.assert_allclose(torch.cat(values), found[name].to_numpy(), atol=1e-5)
    none = torch.cat([model.choice_distribution(one).no_click_prob for one in batches])
    first = np.cumsum([0, *np.concatenate([one.display_offsets.diff() for one in batches])])
    of_events = found["no_click_probability"].to_numpy()[first[:-1]]
    np.testing.assert_allclose(none, of_events, atol=1e-5)

    def noted(dist: ChoiceDistribution, *given: Any) -> torch.Tensor:
        drawn.append(dist.probs)
        return sample_candidates(dist, *given)

    monkeypatch.setattr(choice_model, "sample_candidates", noted)
    model.sample(log, "all", head="reward")
    np.testing.assert_allclose(torch.cat(drawn), found["probability"].to_numpy(), atol=1e-5)
    # one fit alone has other figures of them
    alone = members_of(model)[0].predict(log, "all")["probability"].to_numpy()
    assert np.abs(alone - found["probability"].to_numpy()).max() > 0.01


def test_hidden_items_are_of_test_sessions_alone(log: SessionLog, whole: Path) -> None:
    """With other ids the log is another one, whose validation users would read their own counts."""
    model = UserModel.load(whole)
    assert model.evaluate(log, "test", hide_items=0.5).hidden > 0
    for split in ("train", "validation", "all"):
        with pytest.raises(ConfigError, match="hide_items is for sessions that did not train"):
            model.evaluate(log, split, hide_items=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"history": "pw", "tower_dim": 4, "relations": False, "relative_numbers": False},
    ],
)
def test_an_id_that_a_fit_never_met_is_an_unknown_one(changes: dict[str, Any]) -> None:
    """In its weights, and where its own fold chooses its epoch: that loss is the one of its
    scores."""
    log = random_log(3, n_sessions=40, n_items=150, no_click=0.1)
    rng = np.random.default_rng(0)
    page = rng.integers(0, 60, log.n_events).astype(np.int32)
    pages = pl.Series([f"p{i}" for i in range(60)])
    log = put(log, event={"page": page}, categories={"page": pages})
    model = UserModel(CONFIG.replace(players="exact", **changes), device="cpu")
    table = model.fit(log).history_
    space = model.space
    assert space is not None
    prepared = PreparedLog(log, folds=N_FOLDS)(model.config)
    unknown = space.unknown_of_id
    for fold, one in enumerate(members_of(model)):
        met = np.zeros(space.n_ids, bool)
        encoded = Encoder(space, log).encode(
            np.concatenate([sessions_of(log, k) for k in range(N_FOLDS) if k != fold])
        )
        met[encoded.ids] = met[encoded.context_ids] = True
        # hidden items, and sessions that no order reads, are met less
        assert not (prepared.known_ids(fold) & ~met & (unknown != np.arange(len(met)))).any()
        new = ~prepared.known_ids(fold)
        assert 5 < new.sum() < len(new)
        assert isinstance(one, UserModel)
        assert one.networks is not None
        tables = 0
        for name, weights in one.networks.state_dict().items():
            if name.endswith("table"):
                rows = weights.view(space.n_ids, -1).numpy()
                np.testing.assert_array_equal(rows[new], rows[unknown[new]])
                assert (rows[~new] != rows[unknown[~new]]).any()
                tables += 1
        assert tables >= 1
    said = nll_of(log, model.predict(log), sessions_of(log, 0))
    assert table["val_loss"].min() == pytest.approx(said, abs=1e-5)


def test_each_member_is_a_fit_of_its_own_and_the_file_holds_them_all(
    log: SessionLog, whole: Path, tmp_path: Path
) -> None:
    fitted = UserModel(CONFIG, device="cpu")
    fitted.fit(log)
    loaded = UserModel.load(whole, device="cpu")
    members = [one for one in members_of(loaded) if isinstance(one, UserModel)]
    assert len(members) == N_FOLDS
    assert all(map(same, members, (fitted, *fitted.members)))
    assert not any(same(members[i], members[j]) for i in range(N_FOLDS) for j in range(i))
    for one in loaded.members:
        assert one.config == loaded.config.replace(seed=one.config.seed)
        assert (one.no_click, one.space) == (loaded.no_click, loaded.space)
        assert one.evaluate(log, "validation").heads["reward"].nll.mean > 0
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    # a model without folds is one fit
    assert members_of(members[0]) == members_of(UserModel(CONFIG)) == ()


def test_runs_of_neighbouring_seeds_share_no_seed_of_a_fit(whole: Path) -> None:
    runs, folds = range(6), range(1, 30)
    drawn = [member_config(CONFIG.replace(seed=run), fold).seed for run in runs for fold in folds]
    assert len({*runs, *drawn}) == len(runs) * 30
    assert 0 <= min(drawn) <= max(drawn) < MOST_SEED
    fitted = [one.config.seed for one in UserModel.load(whole).members]
    assert fitted == [member_config(CONFIG, fold).seed for fold in range(1, N_FOLDS)]


def test_a_refused_log_leaves_the_model_as_it_was(whole: Path, log: SessionLog) -> None:
    """The card of the run has the figures of all members, out of fold."""
    model = UserModel.load(whole, device="cpu")
    figures = model.evaluate(log, "validation").heads
    for name, head in figures.items():
        said = f"| validation: prec@1 of the {name}, % | {head.precision[1].mean:.4g} |"
        assert said in (whole / "README.md").read_text(encoding="utf-8")
    assert f"- Each of {N_FOLDS} fits chose its epoch" in (whole / "README.md").read_text("utf-8")
    with pytest.raises(LogFormatError, match="validation"):
        model.fit(log.with_split(np.zeros(log.n_sessions, np.int8)))
    assert len(model.members) == N_FOLDS - 1


class Told(Observer):
    """Notes which fits began."""

    def __init__(self) -> None:
        self.folds: list[tuple[int, int]] = []

    def on_fold_begin(self, fold: int, n_folds: int) -> None:
        self.folds.append((fold, n_folds))


def test_a_run_stopped_between_its_fits_goes_on(
    log: SessionLog, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fold 1 is done, fold 2 begins anew, and fold 0 comes last."""
    told, folder, epoch = Told(), tmp_path / "run", Trainer._epoch
    fits: list[Trainer] = []

    def stopped(trainer: Trainer, step: Any) -> tuple[float, float]:
        if trainer not in fits:
            fits.append(trainer)
        elif len(fits) == 2:
            raise Interrupted(2)
        return epoch(trainer, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", stopped)
        with pytest.raises(Interrupted):
            train_run(UserModel(CONFIG), log, folder, observers=[told])
    assert told.folds == [(1, N_FOLDS), (2, N_FOLDS)]
    checkpoint = run_checkpoint(folder)
    assert checkpoint is not None
    assert len(checkpoint.members) == 1
    resume(CONFIG, log, folder)
    check_same(whole, folder)


def test_a_file_that_lost_a_fold_is_damaged(whole: Path, tmp_path: Path) -> None:
    state = load_state(whole / "model.safetensors", model_file.MODEL_FORMAT, "", State)
    file = tmp_path / "model.safetensors"

    def refuses(match: str, **changes: Any) -> None:
        save_state(file, model_file.MODEL_FORMAT, {**state, **changes})
        with pytest.raises(CheckpointError, match=match):
            UserModel.load(file)

    refuses("it holds 2 fits, and its space has 3 folds", members=state["members"][:1])
    refuses("it holds 4 fits, and its space has 3 folds", members=[*state["members"], {}])
    refuses("damaged", members=[{}, {}])
    base = state["space"]["base"]
    for folds in (-2, 1, 101):
        space = {**state["space"], "base": {**base, "folds": folds}}
        refuses(rf"space\.folds is {folds}, 0 or 2 to 100", space=space, members=[])
