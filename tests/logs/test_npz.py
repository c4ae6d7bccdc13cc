"""Archives of numpy arrays as logs: a row for each user and step, read piece by piece, and what is
refused before anything of its size is made."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgaum.errors import LogFormatError
from fastgaum.logs import npz
from fastgaum.logs.read import read_log

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 5))


@settings(max_examples=25)
@given(SHAPES, st.sampled_from(["<i4", ">i8", "<f4", "u1"]), st.integers(1, 40), st.booleans())
def test_an_archive_s_rows_are_its_arrays(tmp_path_factory, shape, dtype, piece, packed) -> None:
    path = tmp_path_factory.mktemp("npz") / "data.npz"
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 99, shape[:n]).astype(dtype)
        for name, n in (("a", 1), ("b", 2), ("c", 3))
    }
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npz, "_PIECE_VALUES", piece)
        rows = npz.archive_rows(path)
        found = rows.collect()
        some = rows.filter(pl.col("b") > 50).select("c", npz.STEP).collect()
    users, steps = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    assert found["a"].to_list() == arrays["a"][users].tolist()
    assert found["b"].to_list() == arrays["b"][users, steps].tolist()
    assert found["c"].to_list() == arrays["c"][users, steps].tolist()
    assert found[npz.STEP].to_list() == steps.tolist()
    assert some.equals(found.filter(pl.col("b") > 50).select("c", npz.STEP))
    assert rows.head(2).collect().equals(found.head(2))


def arrays_of(**changed: np.ndarray) -> dict[str, np.ndarray]:
    shape = (4, 3)
    return {
        "userId": np.arange(4),
        "click": np.ones(shape, np.int32),
        "slate": np.ones((*shape, 5), np.int32),
        "interaction_type": np.ones(shape, np.int32),
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"click": np.ones((5, 3))}, "all of the same users and steps"),
        ({"slate": np.ones((4, 2, 5))}, "all of the same users and steps"),
        ({"step": np.ones((4, 3))}, "none called step or item"),
        ({"names": np.array(["a", "b", "c", "d"])}, "has the array 'names' of shape"),
        ({"pickled": np.array([{}] * 4, object)}, "has the array 'pickled'"),
        ({"deep": np.ones((4, 3, 2, 2))}, "has the array 'deep'"),
        ({"slate": np.asfortranarray(np.ones((4, 3, 5)))}, "is stored column by column"),
        ({"wide": np.ones((4, 3, 0))}, "has the array 'wide'"),
    ],
)
def test_archives_that_are_refused(
    changed: dict[str, np.ndarray], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays_of(**changed))
    with pytest.raises(LogFormatError) as error:
        read_log(path)
    assert says in str(error.value)
    assert "data.npz" in str(error.value)


def test_an_archive_that_grows_beyond_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "data.npz", **arrays_of(slate=np.zeros((4, 3, 3000), np.int32)))
    monkeypatch.setattr(npz, "FREE_BYTES", 20_000)
    assert npz.archive_rows(tmp_path / "data.npz").collect().height == 12
    monkeypatch.setattr(npz, "BYTES_PER_BYTE", 1)
    with pytest.raises(LogFormatError, match="bytes when it is decompressed"):
        read_log(tmp_path / "data.npz")


def test_archives_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays_of(click=np.random.default_rng(0).integers(1, 9, (4, 3))))
    whole = path.read_bytes()
    cut = [whole[: len(whole) // 2], b"PK", whole[:60] + bytes(40) + whole[100:]]
    for data in cut:
        path.write_bytes(data)
        with pytest.raises(LogFormatError, match="no readable npz"):
            read_log(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing of numpy's")
    with pytest.raises(LogFormatError, match="no readable npz"):
        read_log(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("click.npy", bytes(99))
    with pytest.raises(LogFormatError, match="in a way that numpy does not write"):
        read_log(path)
    with zipfile.ZipFile(path, "w") as archive, archive.open("click.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<i4", "fortran_order": False, "shape": (9, 3)}
        )
    # polars wraps what a source of rows raises, or not, by its version
    with pytest.raises(
        (LogFormatError, pl.exceptions.ComputeError), match="ends before its values do"
    ):
        npz.archive_rows(path).collect()
