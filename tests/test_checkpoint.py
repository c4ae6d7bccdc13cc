"""A state that was saved comes back as it was; what is no state of ours is refused and named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fastgaum import state_file as checkpoint
from fastgaum.errors import CheckpointError, OutputError
from fastgaum.state_file import State, content_sha256, load_state, save_state

FORMAT = "fastgaum-test-1"
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/$_"), max_size=6)
DTYPES = (np.float64, np.float32, np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint8, bool)
ARRAYS = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 9),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**130), 2**130)
    | st.floats(allow_nan=False)
    | NAMES
    | ARRAYS
    | ARRAYS.filter(lambda a: a.dtype != np.uint64).map(torch.from_numpy)
    | st.lists(NAMES, max_size=3).map(lambda texts: pl.Series(texts, dtype=pl.String))
)
STATES = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_size=4,
)


def same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(same(*pair) for pair in zip(one, two, strict=True))
    if isinstance(one, pl.Series):
        return bool(one.equals(two))
    if isinstance(one, torch.Tensor | np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and bool((one == two).all())
    return bool(one == two)


@given(state=STATES)
@settings(max_examples=80, deadline=None)
def test_a_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("states")
    save_state(folder / "a", FORMAT, state)
    found = load_state(folder / "a", FORMAT, "cure", State)
    assert same(found, state)
    save_state(folder / "b", FORMAT, found)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


@dataclass
class Inner:
    rate: float
    rows: npt.NDArray[np.int32]


@dataclass
class Outer:
    name: str
    inner: list[Inner]
    weights: dict[str, torch.Tensor]
    texts: pl.Series
    more: State | None = None


WRONG: dict[str, tuple[Callable[[State], object], str]] = {
    "text": (lambda state: state.update(name=3), r"Expected `str`.*\$\.name"),
    "number": (lambda state: state["inner"][0].update(rate="x"), "Expected `float`"),
    "dtype": (lambda state: state["inner"][0].update(rows=np.zeros(2)), "an array of float64"),
    "array": (lambda state: state["weights"].update(a=np.zeros(2)), "ndarray found, Tensor"),
    "missing": (lambda state: state.pop("texts"), "missing required field `texts`"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_dataclass_comes_back_and_its_types_are_checked(wrong: str, tmp_path: Path) -> None:
    state = Outer(
        "é",
        [Inner(math.inf, np.arange(3, dtype=np.int32))],
        {"a": torch.ones(2)},
        pl.Series(["x", "", "ü\n"]),
        {"any": [np.arange(2), None]},
    )
    save_state(tmp_path / "file", FORMAT, state)
    found = load_state(tmp_path / "file", FORMAT, "cure", Outer)
    raw = load_state(tmp_path / "file", FORMAT, "cure", State)
    assert isinstance(found.inner[0], Inner)
    assert (found.name, found.inner[0].rate) == (state.name, math.inf)
    assert same(raw["texts"], found.texts)
    assert same(raw["more"], found.more)
    change, says = WRONG[wrong]
    change(raw)
    save_state(tmp_path / "file", FORMAT, raw)
    with pytest.raises(CheckpointError, match=f"damaged .*{says}"):
        load_state(tmp_path / "file", FORMAT, "cure", Outer)


def test_views_hold_their_own_values_and_what_comes_back_may_be_written_to(tmp_path: Path) -> None:
    block = torch.arange(12.0)
    state = {
        "part": block[2:5],
        "columns": block.view(3, 4)[:, 1:3],
        "turned": block.view(3, 4).t(),
        "number": np.float64(2.5),
        "scalar": torch.tensor(3.0),
    }
    save_state(tmp_path / "file", FORMAT, state)
    found = load_state(tmp_path / "file", FORMAT, "cure", State)
    assert found["number"] == 2.5
    assert found["scalar"].shape == ()
    for name in ("part", "columns", "turned"):
        assert torch.equal(found[name], state[name])
        found[name].add_(1)


def test_a_failed_write_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path / "file", FORMAT, {"a": torch.ones(2)})
    before = (tmp_path / "file").read_bytes()

    def full(*_: Any) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_state(tmp_path / "file", FORMAT, {"a": torch.zeros(2)})
    assert (tmp_path / "file").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("state", [{"a": {1: 2}}, {"a": object()}, {"$tensor": 1}])
def test_what_no_file_can_hold_is_refused(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        save_state(tmp_path / "a", FORMAT, state)
    assert not (tmp_path / "a").exists()


ONE = {"a": {"$tensor": "a"}}
DAMAGES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "none": ({}, {}, "format 'unknown'"),
    "format": ({"format": "fastgaum-test-0", "state": {}}, {}, "this version reads .*: cure"),
    "stateless": ({"format": FORMAT}, {}, "state"),
    "list": ({"format": FORMAT, "state": []}, {}, "values by name"),
    "missing": ({"format": FORMAT, "state": ONE}, {}, "'a' is missing"),
    "extra": ({"format": FORMAT, "state": {}}, {"a": np.zeros(1)}, "'a' has no place"),
    "nan": ({"format": FORMAT, "state": ONE}, {"a": np.array([0, math.nan])}, "holds nan at 1"),
    "mark": ({"format": FORMAT, "state": {"a": {"$tensor": [1]}}}, {}, "missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_state_is_named(damage: str, tmp_path: Path) -> None:
    about, arrays, message = DAMAGES[damage]
    about = {**about, "sha256": content_sha256(about, arrays)}
    save_file(arrays, tmp_path / "file", {"fastgaum": json.dumps(about)})
    with pytest.raises(CheckpointError, match=f"file'.*{message}"):
        load_state(tmp_path / "file", FORMAT, "cure", State)


def test_a_file_with_one_bit_changed_is_refused(tmp_path: Path) -> None:
    """Of names, types and values, and of the arrays: each thirteenth bit of the file."""
    file = tmp_path / "file"
    state = {"rate": 0.125, "weights": torch.tensor([0.5, -2.0]), "rows": np.arange(3)}
    save_state(file, FORMAT, state)
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 13):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with pytest.raises(CheckpointError):
            load_state(file, FORMAT, "cure", State)
    file.write_bytes(whole)
    assert same(load_state(file, FORMAT, "cure", State), state)


def test_a_file_replaced_while_it_is_read_is_whole(tmp_path: Path) -> None:
    class Replaced(type(Path())):  # type: ignore[misc]
        """A path over which a smaller file is renamed as soon as it is open."""

        def open(self, *given: Any, **named: Any) -> Any:
            opened = super().open(*given, **named)
            (tmp_path / "small").replace(tmp_path / "state")
            return opened

    save_state(tmp_path / "small", FORMAT, {"n": 1})
    save_state(tmp_path / "state", FORMAT, {"texts": ["a"] * 4000})
    assert load_state(Replaced(tmp_path / "state"), FORMAT, "", State) == {"n": 1}


def test_deep_and_long_headers_are_refused(tmp_path: Path) -> None:
    deep = '{"format":"fastgaum-test-1","state":{"a":' + "[" * 5000 + "]" * 5000 + "}}"
    save_file({}, tmp_path / "file", {"fastgaum": deep})
    with pytest.raises(CheckpointError, match=r"nested too deeply|is damaged"):
        load_state(tmp_path / "file", FORMAT, "cure", State)
    with pytest.raises(CheckpointError, match="No such file"):
        load_state(tmp_path / "absent", FORMAT, "cure", State)
