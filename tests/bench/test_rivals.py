"""The rivals of the races train the same networks on the same objective: losses and weights follow
ours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastgaum.bench.rivals.flops import round_flops
from fastgaum.bench.rivals.nano import StockTorch
from fastgaum.bench.rivals.two_towers import Displays, TwoTowers
from fastgaum.config import Config
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.nets.batches import Batch, assemble, batches
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import regulariser_of
from tests.builders import PlainGame, log_of, put, random_log

PLAIN = {"players": "adversarial", "dropout": 0.0, "id_dropout": 0.0}


@pytest.mark.parametrize("no_click", [0.0, 0.2])
def test_stock_torch_takes_our_steps(no_click: float) -> None:
    """Three rounds of both on one batch.

    Our tables' rows rest while no batch holds them, where dense Adam lets their momentum run on: on
    one batch, and with the weight decay that they wait for, both are the same."""
    config = Config.from_preset("paper-lstm", **PLAIN)
    log = random_log(3, n_sessions=60, n_items=30, max_length=6, no_click=no_click)
    space = fit_space(log, "identity", relative_numbers=False)
    encoded = Encoder(space, log).encode(log.sessions_in("train"))
    batch = next(batches(encoded, 20, np.random.default_rng(0)))
    torch.manual_seed(0)
    networks = Networks(config, space.n_ids, space.n_numbers)
    theirs = StockTorch(networks, config, no_click > 0)
    unknown = torch.from_numpy(space.unknown_of_id)
    ours = PlainGame(networks, config, regulariser_of(config), unknown, no_click > 0)
    losses = [(ours.round(batch), theirs.round(theirs.prepare(batch))) for _ in range(3)]
    ours.settle()
    for one, two in losses:
        assert two == pytest.approx(one, rel=1e-4)
    weights, twins = networks.state_dict(), theirs.weights()
    assert weights.keys() == twins.keys()
    for name, value in weights.items():
        # Without no click a set's probabilities do not depend on a common shift of its scores: the
        # gradient of the biases that shift them is rounding noise, which Adam blows up to whole
        # steps.
        if no_click or not (name.endswith("bias") and ".rest." in name):
            assert float((value - twins[name]).abs().max()) < 1e-4, name


def _batch(lengths: list[int], size: int) -> Batch:
    """Sessions of the given lengths; every display set has `size` new items, of which the first is
    chosen."""
    items = itertools.count()
    log = log_of([[([next(items) for _ in range(size)], 0) for _ in range(n)] for n in lengths])
    everything = np.arange(len(lengths), dtype=np.int32)
    space = fit_space(log, "identity", relative_numbers=False)
    return assemble(Encoder(space, log).encode(everything), everything)


def test_flops_of_a_round_counted_by_hand() -> None:
    """One session of two events, one candidate each, LSTM of 2, one hidden layer of 3."""
    config = Config.from_preset("paper-lstm", history_dim=2, hidden=[3], generator_steps=1, **PLAIN)
    # two gathered rows, W_s s twice, the last layer twice
    score = 2 * 3 + 2 * (2 * 2 * 3) + 2 * (2 * 3)
    score_back = 2 * 3 + 2 * (2 * (2 * 2 * 3) + 2 * (2 * 3))
    # one token: a row of gates and one recurrent product
    encode, encode_back = 8 + 2 * 2 * 8, 8 + 2 * 2 * 2 * 8
    # two rows of a scorer's table, one row of the history's
    scorer, history = 12 * (2 * 3 + 3 + 6 + 3 + 1), 12 * (8 + 8 + 16)
    reward = encode + encode_back + score + score_back + scorer + history
    generator = score + score_back + scorer
    assert round_flops(_batch([2], 1), config) == reward + generator + encode + 2 * score


@torch.no_grad()
def test_two_towers_score_as_written() -> None:
    """Each event's NLL against a loop over its candidates."""
    rng = np.random.default_rng(0)
    log = random_log(3, n_sessions=12, n_items=9)
    codes = {name: rng.integers(0, 9, log.n_events).astype(np.int32) for name in ("goal", "page")}
    names = dict.fromkeys(codes, log.item_ids)
    log = put(log, event=codes, categories=names)
    displays = Displays.of(log, ("goal", "page"))
    network = TwoTowers(displays, width=4).eval()
    losses = network(torch.arange(log.n_events)).tolist()
    shared, own, bias = (table.weight for table in (network.shared, network.own, network.bias))
    for event, loss in enumerate(losses):
        session, goal, page = (
            log.session_of_event[event],
            codes["goal"][event],
            codes["page"][event],
        )
        former = [
            int(codes["page"][event - back])
            if event - back >= log.session_offsets[session]
            else log.n_items
            for back in (1, 2)
        ]
        read = shared[[int(goal), int(page), *former]]
        user = network.user(read.flatten()) + network.straight(read[0])
        items = log.items[log.display_offsets[event] : log.display_offsets[event + 1]]
        scores = [
            float(user @ (own[a] + shared[a]) + bias[a, 0]) + 3.0 * (a in (goal, page))
            for a in items
        ]
        nll = -torch.tensor(scores).log_softmax(0)[log.choices[event]]
        assert loss == pytest.approx(float(nll), abs=1e-5)
