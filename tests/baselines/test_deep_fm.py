"""DeepFM: the contract, and its second-order term."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastgaum.baselines.deep_fm import DeepFm
from fastgaum.baselines.gradient import mean_of_choices
from fastgaum.features.batches import assemble
from fastgaum.features.encoder import Encoder
from fastgaum.nets.bags import bag_sum
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import to_tensors
from tests.builders import random_log


@pytest.mark.parametrize("protocol", ["identity", "bags"])
def test_the_network_is_the_papers_with_every_field_built(protocol: str) -> None:
    """Field vectors side by side, the double sum over their pairs, and the deep part on all of
    them."""
    log = random_log(3, n_sessions=40)
    model = DeepFm(protocol=protocol, epochs=1, id_dropout=0.8, loss="logistic")
    model.fit(log)
    assert model.space is not None
    encoded = Encoder(model.space, log).encode(log.sessions_in("all"))
    batch = to_tensors(assemble(encoded, np.arange(encoded.n_sessions, dtype=np.int32)))
    network = model.network.eval()
    with torch.no_grad():
        candidates, tokens = batch.candidates, batch.tokens
        summed = (
            bag_sum(network.of_ids, tokens.ids, tokens.offsets, None)
            + tokens.numbers @ network.of_numbers
        )
        users = expand_to_candidates(mean_of_choices(summed, batch), batch.display_offsets)
        ids = network.of_ids[torch.from_numpy(batch.source.ids).long()]
        fields = torch.cat(
            [ids, candidates.numbers[:, :, None] * network.of_numbers, users[:, None]], dim=1
        )
        pairs = itertools.combinations(range(fields.shape[1]), 2)
        expected = sum(
            ((fields[:, i] * fields[:, j]).sum(1) for i, j in pairs), torch.zeros(len(fields))
        )
        expected += network.linear(candidates).squeeze(1) + network.rest(
            network.first(fields.flatten(1))
        ).squeeze(1)
        torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-5)
