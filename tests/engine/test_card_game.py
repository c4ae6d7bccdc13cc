"""The game over a card's layers against the reference: the same networks and batches, autograd there
and Triton's kernels here, in its interpreter where there is no card: `make cuda-test`."""

from __future__ import annotations

import copy
import dataclasses
import os
from contextlib import nullcontext
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

# read when Triton is imported, and when a kernel is defined
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed: pip install 'fastgaum[cuda]'")

from fastgaum.config import Config
from fastgaum.engine import card_batches, dispatch
from fastgaum.engine.card_batches import CardBatch, Sizes, bucket
from fastgaum.engine.card_game import CardGame
from fastgaum.engine.dispatch import game_for, outputs_for
from fastgaum.errors import ConfigError, StepRefusedError
from fastgaum.features.batches import batches
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import ReferenceGame
from fastgaum.logs.synthetic import synthesise
from fastgaum.nets.networks import ContextSizes, Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import Bags, BatchTensors, to_tensors
from fastgaum.processes import Processes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES: dict[str, dict[str, Any]] = {
    "plain": {"hidden": (6, 5), "weight_decay": 0.1},
    "wide, embedded, places": {"wide": True, "item_dim": 3, "activation": "tanh", "n_places": 3},
    "two layers, Adagrad": {
        **{"history_layers": 2, "table_optimiser": "adagrad", "weight_decay": 0.1},
        **{"clip": 0.1, "activation": "relu", "generator_steps": 2},
    },
    "towers": {"tower_dim": 4, "weight_decay": 0.1, "eta": 2.0},
    "towers, context": {"tower_dim": 3, "context": 2, "n_places": 4},
    "context, actions": {"context": 2, "hidden": (4,), "actions": True},
}


class Pair:
    """Both games in float64 over equal networks, and batches of some sessions each."""

    def __init__(
        self,
        no_click: float = 0.3,
        context: int = 0,
        n_places: int = 0,
        actions: bool = False,
        **changes: Any,
    ) -> None:
        log, _ = synthesise(30, preset="sample", no_click=no_click, n_items=10)
        space = FeatureSpace.fit(
            log, "bags" if changes.get("wide") else "identity", set_context=False
        )
        self.config = config = Config.from_preset(
            "paper-lstm",
            **{
                "players": "adversarial",
                "id_dropout": 0.0,
                "history_dim": 3,
                "hidden": (4,),
                **changes,
            },
        )
        torch.manual_seed(0)
        sizes, places = ContextSizes((True, False)[:context], context), range(n_places)
        self.networks = Networks(
            config,
            *(space.n_ids, space.n_numbers),
            context=sizes,
            places=tuple(-0.5 * place for place in places),
        ).to(DEVICE, torch.float64)
        self.space, self.unknown = space, torch.from_numpy(space.unknown_of_id).to(DEVICE)
        encoded = space.encode(log, log.sessions_in("train"))
        rng, shape = np.random.default_rng(0), (encoded.n_events, context)
        encoded = dataclasses.replace(
            encoded,
            context_ids=rng.integers(0, space.n_ids, shape).astype(np.int32),
            context_numbers=rng.standard_normal(shape).astype(np.float32),
        )
        self.batches = [double(to_tensors(batch, DEVICE)) for batch in batches(encoded, 2)]
        if actions:
            self.batches = [read_by_half(batch) for batch in self.batches]
        self.outside = log.has_no_click
        made = regulariser_of(config), self.unknown, self.outside
        self.card = CardGame(copy.deepcopy(self.networks), config, *made)
        self.reference = ReferenceGame(self.networks, config, *made)


def read_by_half(batch: BatchTensors) -> BatchTensors:
    """As if every other token were an action before another one, which no event reads."""
    read = torch.arange(1, batch.tokens.n_bags, 2, device=DEVICE)
    return dataclasses.replace(batch, read_tokens=read, later_events=batch.later_events[read])


def double(batch: BatchTensors) -> BatchTensors:
    def of(bags: Bags) -> Bags:
        return dataclasses.replace(bags, numbers=bags.numbers.double())

    return dataclasses.replace(
        batch,
        candidates=of(batch.candidates),
        tokens=of(batch.tokens),
        context=of(batch.context),
        context_numbers=batch.context_numbers.double(),
    )


def assert_same_weights(left: Networks, right: Networks, tolerance: float = 1e-7) -> None:
    own = left.state_dict()
    for name, value in right.state_dict().items():
        assert torch.allclose(own[name], value, rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("case", list(CASES))
def test_steps_are_those_of_the_reference(case: str) -> None:
    """Losses, and the weights of every step after them: so every gradient, clipping, and rows that a
    batch does not name. A whole training step: an exact one, a round, a generator's turn."""
    pair = Pair(**CASES[case])
    first, second = pair.batches[:2]
    for kind, batch in (("exact_step", first), ("round", second), ("exact_step", first)):
        losses = [getattr(game, kind)(batch) for game in (pair.reference, pair.card)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-9), kind
    pair.card.generator_turn(first, 1)
    pair.reference.generator_turn(first, 1)
    for game in (pair.reference, pair.card):
        game.settle()
    assert_same_weights(pair.card.networks, pair.reference.networks)
    expected, found = (game.outputs(second) for game in (pair.reference, pair.card))
    for left, right in zip(found, expected, strict=True):
        assert left is not None
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-7)


def test_padding_changes_nothing() -> None:
    pair = Pair(tower_dim=3, context=1, n_places=2)
    batch, results = pair.batches[0], []
    least = Sizes.of(batch)
    for sizes in (least, least.rounded(), Sizes(*(size + 3 for size in least))):
        networks = copy.deepcopy(pair.networks)
        game = CardGame(
            networks, pair.config, regulariser_of(pair.config), pair.unknown, pair.outside
        )
        rates = [game.optimisers()["generator"].rates(1), game.optimisers()["reward"].rates(1)]
        rates = torch.tensor(rates, dtype=torch.float64, device=DEVICE)
        padded = CardBatch.of(batch, sizes)
        assert padded.shapes == CardBatch.of(batch, sizes).shapes
        results.append((game._round(padded, rates), networks))
    for figures, networks in results[1:]:
        torch.testing.assert_close(figures, results[0][0], rtol=1e-12, atol=1e-12)
        assert_same_weights(networks, results[0][1], 1e-10)


@given(n=st.integers(0, 1 << 20))
def test_buckets_hold_and_are_few(n: int) -> None:
    held = bucket(n)
    assert n <= held <= max(1, 1.25 * n)
    assert bucket(held) == held
    assert bin(held).count("1") <= 3, "four to an octave"


@settings(max_examples=4)
@given(n_sessions=st.integers(1, 5), more=st.integers(0, 3))
def test_a_batch_in_longer_arrays(n_sessions: int, more: int) -> None:
    log, _ = synthesise(60, preset="sample", no_click=0.3, n_items=10)
    space = FeatureSpace.fit(log, "identity", set_context=False)
    encoded = space.encode(log, log.sessions_in("train"))
    batch = to_tensors(next(batches(encoded, n_sessions)))
    sizes = Sizes(*(size + more for size in Sizes.of(batch)))
    padded, n, n_tokens = CardBatch.of(batch, sizes), batch.candidates.n_bags, batch.tokens.n_bags
    events = np.repeat(np.arange(batch.n_events), np.diff(batch.source.display_offsets))
    np.testing.assert_array_equal(padded.events[:n], events)
    assert (padded.events[n:] == sizes.events - 1).all()
    assert (padded.ids[n:] == -1).all()
    np.testing.assert_array_equal(padded.choices[: batch.n_events], batch.source.choices)
    places = np.concatenate([np.arange(size) for size in np.diff(batch.source.display_offsets)])
    np.testing.assert_array_equal(padded.places[:n], places)
    lengths = padded.token_offsets.diff()
    assert lengths.sum() == n_tokens
    assert (lengths[padded.order.long()].diff() <= 0).all()
    starts = set(batch.source.token_offsets.tolist())
    expected = [-1 if token in starts else token - 1 for token in range(n_tokens)]
    assert padded.before[:n_tokens].tolist() == expected
    copy_of = padded.copied()
    other = CardBatch.of(batch, sizes).dropped(torch.zeros(space.n_ids, dtype=torch.int32), 1.0)
    assert (other.ids[:n] == 0).all()
    assert (other.ids[n:] == -1).all(), "padding is not dropped: it would name a row"
    copy_of.copy_from(other)
    assert torch.equal(copy_of.ids, other.ids)
    assert not torch.equal(padded.ids, other.ids)


def test_a_step_that_is_not_finite_moves_nothing() -> None:
    pair = Pair(tower_dim=3)
    batch, before = pair.batches[0], copy.deepcopy(pair.card.networks)
    with torch.no_grad():
        weight = pair.card.networks.player.reward.tower.hidden.weight
        kept = weight.clone()
        weight[0, 0] = torch.nan
    for kind in ("exact_step", "round"):
        with pytest.raises(StepRefusedError, match="the loss is nan"):
            getattr(pair.card, kind)(batch)
    weight.data.copy_(kept)
    assert_same_weights(pair.card.networks, before, 0)
    assert {optimiser.counters for optimiser in pair.card.optimisers().values()} == {(0.0, 0.0)}
    pair.card.freeze(True)
    pair.reference.freeze(True)
    assert pair.card.round(batch) == pytest.approx(pair.reference.round(batch), rel=1e-9)
    assert_same_weights(pair.card.networks, before, 0)


def test_dropout_repeats_and_drops_its_share() -> None:
    losses, kept = [], 0.0
    for _ in range(2):
        pair = Pair(dropout=0.4, id_dropout=0.3, tower_dim=3, hidden=(40,))
        torch.manual_seed(3)
        losses.append([pair.card.exact_step(pair.batches[0]), pair.card.round(pair.batches[1])])
        masks = [mask for _, mask, _ in pair.card.by_hand.reward.layer.deep.hidden]
        kept = float((masks[0] > 0).double().mean())
        assert masks[0].max() == pytest.approx(1 / 0.6)
    assert losses[0] == losses[1]
    assert kept == pytest.approx(0.6, abs=0.1)


def test_training_goes_on_where_it_stopped() -> None:
    """What a checkpoint holds of a game is all that the next step reads."""
    pair = Pair(tower_dim=3, weight_decay=0.1)
    pair.card.round(pair.batches[0])
    fresh = Pair(tower_dim=3, weight_decay=0.1).card
    fresh.networks.load_state_dict(pair.card.networks.state_dict())
    for name, optimiser in fresh.optimisers().items():
        former = pair.card.optimisers()[name]
        for key, value in optimiser.state().items():
            value.copy_(former.state()[key])
        optimiser.set_counters(*former.counters)
    losses = [game.round(pair.batches[1]) for game in (pair.card, fresh)]
    assert losses[0] == losses[1]
    for game in (pair.card, fresh):
        game.release()
    assert_same_weights(fresh.networks, pair.card.networks, 0)


class Recording:
    """A CUDA graph by decree, which runs its step again; what is recorded runs too, and moves
    nothing since its rates say so."""

    def __init__(self, game: CardGame) -> None:
        self.game = game

    def replay(self) -> None:
        for (name, *_), (graph, batch, rates, figures) in self.game.graphs.recorded.items():
            if graph is self:
                figures.copy_(getattr(self.game, str(name))(batch, rates))


def test_recorded_steps_are_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything about recording that needs no card: batches of other sizes have graphs of their
    own, a graph takes the batch and the rates that it is given, and to record moves nothing."""
    pair = Pair(weight_decay=0.1)
    recorded, plain = (
        pair.card,
        CardGame(
            copy.deepcopy(pair.card.networks),
            *(pair.config, regulariser_of(pair.config), pair.unknown, pair.outside),
        ),
    )
    if DEVICE == "cpu":
        monkeypatch.setattr(recorded.graphs, "device", torch.device("cuda"))
        nothing = {
            "Stream": MagicMock(),
            "current_stream": MagicMock(),
            "set_rng_state": MagicMock(),
        }
        nothing |= {"stream": nullcontext, "get_rng_state": MagicMock()}
        nothing |= {"graph": lambda graph, pool: nullcontext()}
        for name, value in {**nothing, "CUDAGraph": lambda: Recording(recorded)}.items():
            monkeypatch.setattr(torch.cuda, name, value)
    plan = [("exact_step", 0), ("exact_step", 1), ("round", 0), ("exact_step", 0)]
    for kind, at in plan:
        batch = pair.batches[at]
        losses = [getattr(game, kind)(batch) for game in (recorded, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    shapes = {CardBatch.of(batch, Sizes.of(batch).rounded()).shapes for batch in pair.batches[:2]}
    assert len(recorded.graphs.recorded) == len(shapes) + 1
    assert_same_weights(recorded.networks, plain.networks, 1e-12)
    monkeypatch.setattr(card_batches, "MOST_GRAPHS", len(recorded.graphs.recorded))
    assert recorded.exact_step(pair.batches[1]) == pytest.approx(plain.exact_step(pair.batches[1]))
    assert len(recorded.graphs.recorded) == len(shapes) + 1, "no more are kept"


def test_who_trains_and_scores_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is a card by decree: the kernels run in the interpreter."""
    pair = Pair(tower_dim=3)
    plain, config, regulariser = pair.networks.float(), pair.config, regulariser_of(pair.config)
    assert not isinstance(game_for(plain, config, regulariser, pair.unknown, True), CardGame)
    monkeypatch.setattr(dispatch, "is_card", lambda device: True)
    game = game_for(plain, config, regulariser, pair.unknown, True)
    assert isinstance(game, CardGame)
    batch = to_tensors(pair.batches[0].source, DEVICE)
    expected = plain.outputs(batch)
    for outputs in (game.outputs, outputs_for(plain, torch.device(DEVICE))):
        for left, right in zip(outputs(batch), expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    assert outputs_for(plain, torch.device(DEVICE)) != plain.outputs
    others = {"history": "gru"}, {"regulariser": "l2"}, {"states": "generated"}
    for change in others:
        other = config.replace(**change)
        networks, rule = (
            Networks(other, pair.space.n_ids, pair.space.n_numbers),
            regulariser_of(other),
        )
        found = game_for(networks.to(DEVICE), other, rule, pair.unknown, True)
        assert not isinstance(found, CardGame), change
    made = Networks(config, pair.space.n_ids, 0, context=ContextSizes(vector_dim=2)).to(DEVICE)
    assert not isinstance(game_for(made, config, regulariser, pair.unknown, True), CardGame)
    with pytest.raises(ConfigError, match="game_for takes the reference for them"):
        game.share(Processes())
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fastgaum\[cuda\]', or use device cpu"):
        game_for(plain, config, regulariser, pair.unknown, True)
    with pytest.raises(ConfigError, match="Triton is not installed"):
        outputs_for(plain, torch.device(DEVICE))
