"""Session kNN, by vectors and in a cascade with the S-RNN: what neighbours add."""

from __future__ import annotations

import numpy as np

from fastgaum.baselines.sknn import CascadeSessionKnn, VectorSessionKnn
from tests.baselines.contract import co_choice_log, scores_of
from tests.builders import log_of


def test_later_choices_weigh_more() -> None:
    """After 0 then 1, the neighbour by 1 has similarity 1 and the neighbour by 0 has 1/2."""
    train = [[([0], 0), ([2], 0)], [([1], 0), ([3], 0)]]
    last = [([0, 4], 0), ([1, 4], 0), ([2, 3, 4], 0)]
    log = log_of([*train, last, last], [0, 0, 1, 2])
    model = VectorSessionKnn(shrinkage=0.0, repeat=0.0, popularity_weight=0.0)
    model.fit(log)
    scores = scores_of(model, log, log.sessions_in("test"))
    np.testing.assert_allclose(scores[-3:], [0.5 / 1.5, 1 / 1.5, 0])


def test_the_neighbours_come_first_and_the_network_ranks_among_equals() -> None:
    log = co_choice_log()
    model = CascadeSessionKnn(cascade=1000.0, repeat=-1.0, popularity_weight=0.0)
    model.fit(log)
    rows = log.sessions_in("test")[:1]
    ours, network = scores_of(model, log, rows), scores_of(model.rnn, log, rows)
    # [2, 0] without history, then [4, 3] after 0: the neighbours know 3 alone
    np.testing.assert_allclose(ours - network, [0, 0, 0, 1000], atol=1e-9)
