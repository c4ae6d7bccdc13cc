"""The rivals of the races train the same networks on the same objective: losses and weights follow
ours."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from fastgaum.bench.rivals.flops import padded_work, step_flops
from fastgaum.bench.rivals.padded import PaddedGame
from fastgaum.bench.rivals.padded_one_hot import PaddedOneHot, ReportOneHot, generated_states
from fastgaum.bench.rivals.padding import pad
from fastgaum.bench.rivals.stock_torch import StockTorch, looped, packed, sparse_adam
from fastgaum.config import Config
from fastgaum.features.batches import Batch, assemble, batches
from fastgaum.features.space import FeatureSpace
from fastgaum.game.game import ReferenceGame
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from fastgaum.nets.tensors import to_tensors
from tests.builders import log_of, random_log

REPORT = {"preset": "report", "history_dim": 6, "history_layers": 2, "hidden": [8, 8]}
LSTM = {"preset": "paper-lstm"}
PW = {"preset": "paper-pw", "history_window": 3}


class Pair:
    """Our game and a rival with the same weights, and a batch of a small log."""

    def __init__(self, rival: Any, no_click: float, settings: dict[str, Any]) -> None:
        changes = {"players": "adversarial", "dropout": 0.0, "id_dropout": 0.0} | settings
        self.config = Config.from_preset(changes.pop("preset"), **changes)
        log = random_log(3, n_sessions=60, n_items=30, max_length=6, no_click=no_click)
        space = FeatureSpace.fit(log, "identity", set_context=False)
        encoded = space.encode(log, log.sessions_in("train"))
        self.n_ids = space.n_ids
        self.batch = next(batches(encoded, 20, np.random.default_rng(0)))
        torch.manual_seed(0)
        self.networks = Networks(self.config, space.n_ids, space.n_numbers)
        self.rival: PaddedGame = rival(self.networks, self.config, space.n_ids, no_click > 0)
        unknown = torch.from_numpy(space.unknown_of_id)
        self.game = ReferenceGame(
            self.networks, self.config, regulariser_of(self.config), unknown, no_click > 0
        )

    def steps(self, kind: str, n: int) -> tuple[list[float], list[float]]:
        """Steps of both on the one batch; returns their losses.

        Our tables' rows rest while no batch holds them, where dense Adam lets their momentum run
        on: on one batch, and with the weight decay that they wait for, both are the same."""
        losses: tuple[list[float], list[float]] = ([], [])
        for _ in range(n):
            # generated histories are drawn: both draw the same noise
            torch.manual_seed(1)
            losses[0].append(getattr(self.game, kind)(to_tensors(self.batch)))
            torch.manual_seed(1)
            losses[1].append(getattr(self.rival, kind)(self.rival.prepare(self.batch)))
        self.game.settle()
        return losses

    def largest_difference(self) -> dict[str, float]:
        """Of each weight, over what the rival has trained."""
        ours, theirs = self.networks.state_dict(), self.rival.weights()
        assert ours.keys() == theirs.keys()
        return {name: float((ours[name] - theirs[name]).abs().max()) for name in ours}


as_reported = partial(ReportOneHot, widest=12)

LAYOUTS = [
    *[(PaddedOneHot, preset) for preset in (LSTM, REPORT, PW)],
    (as_reported, REPORT),
    *[(rival, LSTM) for rival in (StockTorch, packed, looped)],
    (StockTorch, PW),
]
CASES = [
    *[(rival, settings, kind) for rival, settings in LAYOUTS for kind in ("exact_step", "round")],
    # exact players generate no history
    *[
        (rival, {**preset, "states": "generated"}, "round")
        for rival in (PaddedOneHot, as_reported)
        for preset in (LSTM, REPORT, PW)
    ],
]


@pytest.mark.parametrize("no_click", [0.0, 0.2])
@pytest.mark.parametrize(("rival", "settings", "kind"), CASES)
def test_a_rival_takes_our_steps(
    rival: Any, settings: dict[str, Any], kind: str, no_click: float
) -> None:
    pair = Pair(rival, no_click, settings)
    # other draws in the next round would be other rows of the history's table
    ours, theirs = pair.steps(kind, 1 if settings.get("states") == "generated" else 3)
    assert theirs == pytest.approx(ours, rel=1e-4)
    for name, difference in pair.largest_difference().items():
        # Without no click a set's probabilities do not depend on a common shift of its scores: the
        # gradient of the biases that shift them is rounding noise, which Adam blows up to whole
        # steps.
        if no_click or not (name.endswith("bias") and ".rest." in name):
            assert difference < 1e-4, name


@pytest.mark.parametrize("settings", [LSTM, PW])
def test_sparse_adam_is_ours_without_weight_decay(settings: dict[str, Any]) -> None:
    """To a thousandth: torch adds its eps before the bias correction, ours and AdamW after it."""
    pair = Pair(sparse_adam, 0.2, {**settings, "weight_decay": 0.0})
    ours, theirs = pair.steps("round", 3)
    assert theirs == pytest.approx(ours, rel=1e-3)


def test_rivals_refuse_what_they_do_not_have() -> None:
    with pytest.raises(ValueError, match="without dropout"):
        Pair(PaddedOneHot, 0.0, {**LSTM, "dropout": 0.1})
    with pytest.raises(ValueError, match="histories lstm, bilstm and pw"):
        Pair(PaddedOneHot, 0.0, {**LSTM, "history": "gru"})
    with pytest.raises(ValueError, match="logged histories only"):
        Pair(StockTorch, 0.0, {**LSTM, "states": "generated"})


def _batch(lengths: list[int], size: int) -> Batch:
    """Sessions of the given lengths; every display set has `size` new items, of which the first is
    chosen."""
    items = itertools.count()
    log = log_of([[([next(items) for _ in range(size)], 0) for _ in range(n)] for n in lengths])
    encoded = FeatureSpace.fit(log, "identity", set_context=False).encode(
        log, np.arange(len(lengths), dtype=np.int32)
    )
    return assemble(encoded, np.arange(len(lengths), dtype=np.int32))


def test_padding_keeps_every_candidate() -> None:
    batch = _batch([1, 3], 2)
    padded = pad(batch, flat=False)
    assert padded.ids.shape == (2, 3, 2)
    assert padded.ids[padded.real].tolist() == batch.ids[:, 0].tolist()
    assert pad(batch, flat=False, widest=5).ids.shape == (2, 3, 5)
    assert float(padded.weight.sum()) == pytest.approx(1)
    assert padded.tokens.tolist() == [[2, 0, 0], [4, 6, 8]]


def test_flops_of_a_step_counted_by_hand() -> None:
    """One session of two events, one candidate each, five ids, LSTM of 2, one hidden layer of 3."""
    batch = _batch([2], 1)
    config = Config.from_preset("paper-lstm", history_dim=2, hidden=[3])
    scorer = (
        2 * 3 + 2 * (2 * 2 * 3) + 2 * (2 * 3)
    )  # two gathered rows, W_s s twice, the last layer twice
    scorer_back = 2 * 3 + 2 * (2 * (2 * 2 * 3) + 2 * (2 * 3))
    history, history_back = (
        8 + 2 * 2 * 8,
        8 + 2 * 2 * 2 * 8,
    )  # one token: a row of gates and one recurrent product
    adam = 12 * (
        (8 + 8 + 16) + (2 * 3 + 3 + 6 + 3 + 1)
    )  # one row of the history's table, two of the scorer's
    truth = step_flops(batch, config, 5, "exact", padded=False)
    assert truth == scorer + scorer_back + history + history_back + adam
    dense = step_flops(batch, config, 5, "exact", padded=True)
    more = 2 * (2 * 3) * (2 * 5 - 1) + 2 * 8 * (2 * 5 - 1) + 12 * (8 * 4 + 3 * 3)
    assert dense == truth + more


def test_padding_costs_what_it_holds() -> None:
    """The FLOP ratio grows with the catalogue and with raggedness; generated histories make it
    quadratic in length."""
    config = Config.from_preset("paper-lstm", players="adversarial")

    def ratio(lengths: list[int], n_ids: int, config: Config = config) -> float:
        batch = _batch(lengths, 3)
        padded, true = (
            step_flops(batch, config, n_ids, "round", padded=side) for side in (True, False)
        )
        return padded / true

    assert ratio([4] * 8, 1000) > 2 * ratio([4] * 8, 200)
    assert ratio([1] * 7 + [25], 1000) > 2 * ratio([4] * 8, 1000)
    generated = config.replace(states="generated")
    assert ratio([40], 1000, generated) > 2 * ratio([4] * 10, 1000, generated)


def test_the_report_pads_to_the_log_and_encodes_what_is_not_there() -> None:
    """Two sessions of 1 and 3 steps, sets of 2 padded to 4: twice the slots, and a loop over 2 · (1
    + 2) prefix tokens."""
    batch = _batch([1, 3], 2)
    config = Config.from_preset("paper-lstm", states="generated", players="adversarial")
    care, report = (padded_work(batch, config, 9, widest) for widest in (None, 4))
    assert (care.slots, report.slots) == (2 * 3 * 2, 2 * 3 * 4)
    assert (care.generated, report.generated) == (1 + 2, 2 * (1 + 2))
    assert step_flops(batch, config, 9, "round", True, 4) > step_flops(
        batch, config, 9, "round", True
    )


def test_generated_states_of_steps_that_a_session_does_not_have_are_encoded_too() -> None:
    calls = []

    class Counting(torch.nn.Module):
        def forward(self, x: torch.Tensor, last_only: bool = False) -> torch.Tensor:
            calls.append(tuple(x.shape[:2]))
            return x.sum(1, keepdim=True) if x.shape[1] else x

    logged, generated = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    states = generated_states(Counting(), logged, generated, [1, 3])
    assert calls == [(1, 0), (1, 1), (1, 2)]
    torch.testing.assert_close(states[1, 2], logged[1, 0] + generated[1, 1])
    everywhere = generated_states(Counting(), logged, generated, [3, 3])
    assert calls[3:] == [(1, 0), (1, 1), (1, 2), (1, 1), (1, 2)]
    assert torch.equal(everywhere[1], states[1])
