"""No record differs from the golden one. What a record is, and how it is made anew, says `make`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.make import CONFIGURATIONS, distance, kept_records, nearness, records_of

KEPT = kept_records()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_records_are_the_golden_ones(name: str) -> None:
    now = records_of(name)
    kept = {key.split("/")[1]: one for key, one in KEPT.items() if key.split("/")[0] == name}
    assert sorted(now) == sorted(kept)
    if "places" in now:
        # a draw at a border may fall to the other side; from then on that user lives otherwise
        same = (now["places"] == kept["places"]).all(axis=0)
        assert (~same).sum() <= 1, f"{(~same).sum()} of {len(same)} users choose otherwise"
        for records in (now, kept):
            records["world"] = records["world"][:, same]
            del records["places"]
    moved = {one: distance(one, now[one], kept[one]) for one in now}
    assert {one: f"{by:.1e}" for one, by in moved.items() if by > nearness(one)} == {}, (
        "by the largest difference over the largest number. A change that is meant says so in its "
        f"commit, and remakes the records: python -m tests.golden.make {name}"
    )


def test_the_records_are_of_all_that_they_should() -> None:
    assert {key.split("/")[0] for key in KEPT} == set(CONFIGURATIONS)
    assert all(np.isfinite(one).all() for key, one in KEPT.items() if "losses" not in key)
