"""Places in a grid: a row and a column, as categories and as numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgaum.errors import ConfigError, FeatureMismatchError, LogFormatError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fields import OF_PLACE
from fastgaum.features.fitting import fit_space
from fastgaum.features.number_columns import PLACE_NUMBERS
from fastgaum.logs.fold import to_frame
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import read_log
from fastgaum.logs.store import load_log, save_log
from fastgaum.models.space_state import saved_space, space_of
from tests.builders import random_log

LOG = dataclasses.replace(random_log(3, n_sessions=40, n_items=20), ordered=True)


def gridded(grid: int) -> Any:
    return dataclasses.replace(LOG, grid=grid)


def place_of_candidates() -> np.ndarray:
    return np.concatenate([np.arange(n) for n in np.diff(LOG.display_offsets)])


@pytest.mark.parametrize("grid", [1, 2, 4, 9])
def test_a_place_has_a_row_and_a_column(grid: int) -> None:
    log = gridded(grid)
    space = fit_space(log, "identity", relative_numbers=True)
    places, encoded = place_of_candidates(), Encoder(space, log).encode(log.sessions_in("all"))
    by_source = {part.source: (column, part) for column, part in enumerate(space.categorical)}
    longest = len(by_source["position"][1].values)
    wanted = {"position": places, "place_row": places // grid, "place_column": places % grid}
    for source in OF_PLACE:
        column, part = by_source[source]
        expected = np.where(places < longest, wanted[source], -1)
        np.testing.assert_array_equal(encoded.ids[:, column] - part.start - 1, expected)
        assert part.values.to_list() == [str(i) for i in range(len(part.values))]
    assert len(by_source["place_row"][1].values) == -(-longest // grid)
    # a place's number relative to the display says nothing more
    assert space.number_names == PLACE_NUMBERS
    assert encoded.numbers.shape[1] == 2
    numbers = encoded.numbers * space.code.scale + space.code.start
    np.testing.assert_allclose(numbers[:, 0], places // grid, atol=1e-5)
    np.testing.assert_allclose(numbers[:, 1], places % grid, atol=1e-5)


def test_where_places_are_kept_apart_they_are_no_fields() -> None:
    space = fit_space(gridded(2), examination=True)
    assert space.grid == 0
    assert not {part.source for part in space.categorical} & {*OF_PLACE}
    assert not set(space.number_names) & {*PLACE_NUMBERS}


def test_a_space_asks_for_its_grid_and_is_kept() -> None:
    space = fit_space(gridded(2))
    again = space_of(saved_space(space))
    assert (again.grid, again.number_names) == (2, space.number_names)
    with pytest.raises(
        FeatureMismatchError, match=r"a grid of 2 columns, .* has no grid: .*--grid 2"
    ):
        Encoder(space, LOG)
    for grid in (0, -2):
        with pytest.raises(ValueError, match=r"does not fit the fields|not those of the fields"):
            space_of(saved_space(dataclasses.replace(space, grid=grid)))


def test_reading_and_keeping(tmp_path: Path) -> None:
    frame = to_frame(LOG)
    log = read_log(frame, ordered=True, grid=3)
    assert log.grid == 3
    assert log.fingerprint != read_log(frame, ordered=True).fingerprint
    save_log(log, tmp_path / "saved")
    assert load_log(tmp_path / "saved").fingerprint == log.fingerprint
    assert read_log(tmp_path / "saved", ordered=True, grid=5).grid == 5
    assert ReadOptions.from_json(ReadOptions.of(grid=3).to_json()).grid == 3
    with pytest.raises(LogFormatError, match=r"grid=3 .* read it with ordered=True"):
        read_log(frame, grid=3)
    for wrong in (0, -1, 10**20):
        with pytest.raises(ConfigError, match=f"grid is {wrong}, a number of columns from 1 to"):
            ReadOptions.of(grid=wrong)
    with pytest.raises(ConfigError, match="the option grid is 'wide'"):
        ReadOptions.of(grid="wide")  # type: ignore[arg-type]
