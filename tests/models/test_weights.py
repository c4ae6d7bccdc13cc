"""Weights of events: a session of one event and of weight 2 is that session twice, in losses,
figures, and what models learn; histories would differ where sessions have several events."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.baselines.base import nll_of_link
from fastgaum.baselines.floors import ClickCountFloor, floor_table
from fastgaum.baselines.logit import ConditionalLogit
from fastgaum.baselines.neighbours import ItemKnn
from fastgaum.baselines.wide_deep import WideDeepCcf
from fastgaum.baselines.xgboost_trees import XgboostRank, XgboostSoftmax
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.sessions import EncodedSessions
from fastgaum.game.game import Game
from fastgaum.game.scoring import figures, score_batches
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.log import SessionLog
from fastgaum.metrics.evaluation import HeadScores, evaluate_heads, figures_of
from fastgaum.nets.batches import Batch, assemble
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Shannon, regulariser_of
from fastgaum.nets.segments import segment_log_softmax
from fastgaum.ope import Target, off_policy_values
from fastgaum.policies.heuristics import RandomPolicy
from fastgaum.reports.comparison import compare
from fastgaum.reports.facts import SplitScores, learned_facts
from fastgaum.reports.what_if import what_if
from tests.builders import NARROW, PlainGame, put, random_log
from tests.policies.small_world import TiringWorld


def both(seed: int, no_click: float = 0.2, price: bool = True) -> tuple[SessionLog, SessionLog]:
    """A log whose events have weights 1, 2 or 3, and the log whose sessions come so many times."""
    log = random_log(seed, 60, max_length=1, no_click=no_click)
    drawn = np.random.default_rng(seed).normal(size=log.n_candidates).astype(np.float32)
    log = put(log, candidate={"price": drawn} if price else {})
    # in each part of the split too, the mean is 2
    times = np.empty(60, np.int64)
    for part in range(3):
        rows = np.flatnonzero(log.split == part)
        times[rows] = np.resize([1, 3, 2], len(rows))
    weights = (0.7 * times).astype(np.float32)
    again = slice_sessions(log, np.repeat(np.arange(60), times))
    return dataclasses.replace(log, weights=weights), again


def narrow(**changes: Any) -> Config:
    own = {name: value for name, value in NARROW.items() if name != "preset"}
    return Config.from_preset(NARROW["preset"], **own, id_dropout=0.0, **changes)


def encoded_of(log: SessionLog, space: Any, split: Any = "train") -> EncodedSessions:
    return Encoder(space, log).encode(log.sessions_in(split))


def whole(encoded: EncodedSessions) -> Batch:
    return assemble(encoded)


@pytest.mark.parametrize("kind", ["exact_step", "round"])
@pytest.mark.parametrize("of", [PlainGame, Game])
def test_a_step_on_weighted_events_is_one_on_repeated_ones(of: Any, kind: str) -> None:
    weighted, repeated = both(1)
    space = fit_space(weighted, "identity")
    config = narrow(weight_decay=0.0)
    torch.manual_seed(0)
    networks = Networks(config, space.n_ids, space.n_numbers)
    losses, outputs = [], []
    for log in (weighted, repeated):
        unknown, rule = torch.from_numpy(space.unknown_of_id), regulariser_of(config)
        game = of(copy.deepcopy(networks), config, rule, unknown, True)
        torch.manual_seed(1)
        losses.append(getattr(game, kind)(whole(encoded_of(log, space))))
        game.release()
        scored = score_batches(game.outputs, [whole(encoded_of(weighted, space))], rule, 1.0, True)
        outputs.append([head.log_probs for head in scored.heads.values()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-7)
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_groups_of_the_report_are_those_of_the_repeated_log() -> None:
    weighted, repeated = both(3)
    model = ConditionalLogit(protocol="identity", penalty=1.0, number_penalty=1.0)
    model.fit(weighted)
    counts, names = weighted.training_counts(), ("utility", "chosen", "predicted")
    ours, theirs = (
        learned_facts(SplitScores.of(model, log, "all"), counts) for log in (weighted, repeated)
    )
    pairs = zip(ours["in_training"], theirs["in_training"], strict=True)
    found = [[[row[name] or 0.0 for name in names] for row in pair] for pair in pairs]
    np.testing.assert_allclose(*np.swapaxes(found, 0, 1), atol=1e-6)
    assert ours["largest"][0]["utility"] == pytest.approx(theirs["largest"][0]["utility"])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**20), st.booleans())
def test_figures_are_those_of_the_repeated_log(seed: int, no_click: bool) -> None:
    weighted, repeated = both(seed, 0.2 * no_click)
    space = fit_space(weighted, "identity")
    rng, found = np.random.default_rng(seed), []
    scores = np.round(rng.normal(size=weighted.n_candidates), 1)
    gap = rng.random(weighted.n_events)
    times = np.rint(weighted.weight_of_event / 0.7).astype(int)
    events = np.repeat(np.arange(60), times)
    starts = weighted.display_offsets
    rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in events])
    for log, at, of in (
        (weighted, np.arange(len(scores)), np.arange(60)),
        (repeated, rows, events),
    ):
        encoded, values = encoded_of(log, space, "all"), torch.from_numpy(scores[at])
        parts = segment_log_softmax(values, torch.from_numpy(encoded.display_offsets), no_click)
        head = HeadScores(scores[at], *(part.numpy() for part in parts))
        found.append(evaluate_heads({"reward": head}, encoded, no_click, gap[of]))
    ours, theirs = found
    assert ours.to_dict()["weighted"]
    assert ours.gap == pytest.approx(theirs.gap)
    assert ours.random == pytest.approx(theirs.random)
    # bins of calibration are cut between cases of the repeated log, within those of the weighted
    for figure in figures_of():
        one, other = (part.heads["reward"].to_dict() for part in found)
        for key in figure.path:
            one, other = (one and one[key], other and other[key])
        if figure.path[-1] == "n_events" or one is None or other is None:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            one, other = [one["mean"], *one["ci"]], [other["mean"], *other["ci"]]
        rough = figure.path[0] == "ece" or figure.path[-1] == "worst_decile"
        assert one == pytest.approx(other, abs=0.03 if rough else 1e-5, nan_ok=True), figure.path
    assert ours.lead(ours).mean == 0


def test_validation_figures_are_those_of_the_repeated_log() -> None:
    weighted, repeated = both(3)
    space = fit_space(weighted, "identity")
    config = narrow()
    networks = Networks(config, space.n_ids, space.n_numbers).eval()
    networks.start_generator(1.0)
    found = [
        dataclasses.astuple(
            figures(networks.outputs, [batch], Shannon(), 1.0, True, calibrated=True)
        )
        for batch in (whole(encoded_of(log, space, "validation")) for log in (weighted, repeated))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


def test_logit_learns_as_from_the_repeated_log() -> None:
    weighted, repeated = both(4)
    models = [ConditionalLogit(protocol="identity") for _ in range(2)]
    summaries, problems = [], []
    for model, log in zip(models, (weighted, repeated), strict=True):
        model.fit(log)
        train = encoded_of(log, models[0].space)
        sessions = np.arange(train.n_sessions, dtype=np.int32)
        problems.append((model._problem(train, sessions), train.n_events))
        with pytest.warns(UserWarning, match="(choices are few for|without a finite value)"):
            summaries.append(model.summary(log).drop("name").to_numpy())
    rng = np.random.default_rng(0)
    weights = rng.normal(size=len(models[0].weights))
    (ours, n), (theirs, m) = problems
    for one, other in zip(
        (*ours.penalised_nll(weights, 0 * weights), *ours.curvature(weights)),
        (*theirs.penalised_nll(weights, 0 * weights), *theirs.curvature(weights)),
        strict=True,
    ):
        np.testing.assert_allclose(np.asarray(one) / n, np.asarray(other) / m, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(*summaries, rtol=1e-3)


def test_floors_count_as_in_the_repeated_log() -> None:
    """Counts are those of weights of mean 1."""
    weighted, repeated = both(5, price=False)
    scores = []
    for log in (weighted, repeated):
        model = ClickCountFloor()
        model.fit(log)
        scores.append(model._all_scores(encoded_of(weighted, model.space, "test")))
    np.testing.assert_allclose(2 * scores[0], scores[1], rtol=1e-5, atol=1e-9)
    tables = [floor_table(log) for log in (weighted, repeated)]
    for floor in ("random", "train click count", "fewest train displays"):
        assert tables[0][floor] == pytest.approx(tables[1][floor], abs=1e-4), floor


def test_trees_and_networks_weigh_events() -> None:
    weighted, repeated = both(6)
    for kind in (XgboostSoftmax, XgboostRank, WideDeepCcf):
        plain = dataclasses.replace(weighted, weights=None)
        shorter: Any = {"rounds": 5} if kind is not WideDeepCcf else {"epochs": 2}
        tables = [kind(**shorter).fit(log).history_ for log in (weighted, plain)]
        assert not tables[0]["val_loss"].equals(tables[1]["val_loss"]), kind
    trees = XgboostSoftmax(rounds=2)
    trees.fit(weighted)
    slopes = []
    for log in (weighted, dataclasses.replace(weighted, weights=None)):
        train = encoded_of(log, trees.space)
        objective = trees._objective(train)[1]
        assert objective is not None
        label = np.zeros(len(train.ids))
        label[train.chosen_candidates] = 1

        class Data:
            get_label = staticmethod(lambda label=label: label)

        slopes.append(objective(np.zeros(len(label)), Data()))  # type: ignore[arg-type]
    of_events = encoded_of(weighted, trees.space).weight_of_event
    of_candidates = np.repeat(of_events, np.diff(train.display_offsets))
    np.testing.assert_allclose(slopes[0], np.array(slopes[1]) * of_candidates)
    # one NLL for all links
    links = [
        nll_of_link(np.round(log.items % 5.0, 3), encoded_of(log, trees.space, "all"), True)
        for log in (weighted, repeated)
    ]
    ours, theirs = (nll(trees.link) for nll in links)
    assert 2 * ours == pytest.approx(theirs, rel=1e-5)


def test_shares_are_those_of_the_repeated_log() -> None:
    weighted, repeated = both(7)
    model = ConditionalLogit(penalty=1.0, number_penalty=1.0)
    model.fit(weighted)
    shares = [
        what_if(model, log, fields={"price": lambda p: p + 1}) for log in (weighted, repeated)
    ]
    ours, theirs = (one.drop("item").to_numpy() for one in shares)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_cannot_weigh_events_refuses_them() -> None:
    weighted, _ = both(9)
    for ask in (lambda: ItemKnn().fit(weighted), lambda: compare(weighted, ["logit", "iknn"])):
        with pytest.raises(ConfigError, match="'iknn' counts every event once, and log 'log' has"):
            ask()
    with pytest.raises(ConfigError, match="log 'log' has weights of events: read it with"):
        off_policy_values(weighted, Target(RandomPolicy()), TiringWorld(weighted.n_items))


def test_the_log_says_that_it_has_weights() -> None:
    assert "event weights" in repr(both(0)[0])
    assert pl.Series(both(0)[0].weight_of_event).min() == pytest.approx(0.7)
