"""Files of our own writer are safetensors files, and the same content gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, safe_open

from fastgaum.errors import OutputError
from fastgaum.tensor_writer import DTYPES, write_tensors

SHAPES = st.lists(st.integers(0, 4), max_size=3)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(
    drawn=st.dictionaries(
        NAMES, st.tuples(st.sampled_from(sorted(DTYPES, key=str)), SHAPES), max_size=5
    ),
    metadata=st.dictionaries(NAMES, NAMES, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[str, tuple[torch.dtype, list[int]]],
    metadata: dict[str, str],
) -> None:
    drawn.pop("__metadata__", None)
    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in drawn.items()}
    folder = tmp_path_factory.mktemp("tensors")
    write_tensors(folder / "a", tensors, metadata)
    read = load_file(folder / "a")
    assert read.keys() == tensors.keys()
    for name, value in tensors.items():
        assert read[name].dtype is value.dtype
        assert torch.equal(read[name], value)
    with safe_open(folder / "a", framework="pt") as reader:
        assert (reader.metadata() or {}) == metadata
    write_tensors(folder / "b", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_widest_items_come_first_so_that_all_are_aligned(tmp_path: Path) -> None:
    tensors = {
        "a": torch.ones(3, dtype=torch.uint8),
        "b": torch.ones(3, dtype=torch.float64),
        "c": torch.ones(2),
    }
    write_tensors(tmp_path / "file", tensors, {})
    content = (tmp_path / "file").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for name, value in tensors.items():
        assert header[name]["data_offsets"][0] % value.element_size() == 0


def test_views_and_strided_tensors_hold_their_own_values(tmp_path: Path) -> None:
    block = torch.arange(12.0)
    tensors = {
        "part": block[2:5],
        "columns": block.view(3, 4)[:, 1:3],
        "turned": block.view(3, 4).t(),
    }
    write_tensors(tmp_path / "file", tensors, {})
    read = load_file(tmp_path / "file")
    assert all(torch.equal(read[name], value) for name, value in tensors.items())


def test_a_failed_write_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tensors(tmp_path / "file", {"a": torch.ones(2)}, {})
    before = (tmp_path / "file").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_tensors(tmp_path / "file", {"a": torch.zeros(2)}, {})
    assert (tmp_path / "file").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
