"""Batches hold whole sessions, unpadded, and tokens that never see the event they are read at."""

from __future__ import annotations

import numpy as np

from fastgaum.sessions.batches import assemble, batches, token_bags
from fastgaum.sessions.features import NO_CLICK_ID, FeatureSpace
from tests.builders import log_of, random_log


def test_every_session_comes_once_and_whole() -> None:
    log = random_log(5)
    encoded = FeatureSpace.fit(log).encode(log, log.sessions_in("train"))
    seen = []
    for batch in batches(encoded, 7, np.random.default_rng(0)):
        assert batch.session_offsets[-1] == batch.n_events
        for i, row in enumerate(batch.rows):
            seen.append(row)
            ours = batch.choices[batch.session_offsets[i] : batch.session_offsets[i + 1]]
            theirs = log.choices[log.session_offsets[row] : log.session_offsets[row + 1]]
            np.testing.assert_array_equal(ours, theirs)
    assert sorted(seen) == sorted(encoded.rows)


def test_the_same_seed_gives_the_same_order() -> None:
    log = random_log(5)
    encoded = FeatureSpace.fit(log).encode(log, log.sessions_in("train"))
    orders = [[b.rows.tolist() for b in batches(encoded, 7, np.random.default_rng(9))] for _ in range(2)]
    assert orders[0] == orders[1]
    assert orders[0] != [b.rows.tolist() for b in batches(encoded, 7)]


def test_tokens_are_the_choices_before_the_last_event() -> None:
    log = log_of([[([0, 1, 2], 2), ([3, 4], -1), ([0, 5], 1)], [([1, 2], 0)]])
    encoded = FeatureSpace.fit(log, "identity").encode(log, log.sessions_in("all"))
    batch = assemble(encoded, np.array([1, 0], np.int32))
    assert batch.token_offsets.tolist() == [0, 0, 2]
    ids, offsets, numbers = token_bags(batch)
    first_item = 2
    assert ids.tolist() == [first_item + 2, NO_CLICK_ID]
    assert offsets.tolist() == [0, 1, 2]
    assert numbers.shape == (2, 0)
    kept = assemble(encoded, np.array([1, 0], np.int32), keep_last=True)
    assert kept.token_offsets.tolist() == [0, 1, 4]
