"""Where a log stands: a registry name in one of the data folders, or a path as it is."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from fastgaum.errors import DatasetError, did_you_mean
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.logs.registry import DataFile, Dataset, data_root, dataset, names

DATA_DIR = "FASTGAUM_DATA_DIR"
"""environment variable that names a data folder"""


@dataclass(frozen=True)
class Located:
    """A log that was found."""

    path: Path
    """the log's file or folder"""
    dataset: Dataset | None = None
    """its registry entry; None for a path"""
    options: ReadOptions = DEFAULT_OPTIONS
    """what its registry entry says about reading it, its name too"""


def cache_folder() -> Path:
    """The user's data cache: $XDG_CACHE_HOME/fastgaum/data, by default ~/.cache/fastgaum/data."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a relative path is to be ignored.
    return (
        (Path(root) if os.path.isabs(root) else Path("~/.cache").expanduser()) / "fastgaum" / "data"
    )


def data_folders(data_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders that names are looked up in, in order: `data_dir`, $FASTGAUM_DATA_DIR, the user
    cache.

    Raises DatasetError if `data_dir` is given and is no folder.
    """
    folders = []
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise DatasetError(
                f"the data folder '{data_dir}' is not a folder: give one that exists, or leave it "
                "out"
            )
        folders.append(Path(data_dir))
    if os.environ.get(DATA_DIR):
        folders.append(Path(os.environ[DATA_DIR]))
    return [*folders, cache_folder()]


def find_log(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return where a registry name's log stands, or None if it is absent (or no registry name); its
    content is not read.

    Raises DatasetError if `data_dir` is given and is no folder.
    """
    folders = data_folders(data_dir)
    if name not in names():
        return None
    entry = dataset(name)
    for folder in [data_root()] if entry.bundled else folders:
        path = entry.files[0].below(folder)
        if path.is_file():
            return path
    return None


def available(data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Names that `load` can read now: their file is there."""
    return [name for name in names() if find_log(name, data_dir) is not None]


def resolve(
    name_or_path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None
) -> Located:
    """Find a log. A text that is a registry name means that data set, `./yelp` or a Path means a
    file of that name.

    Raises DatasetError if there is neither, with the cure.
    """
    if isinstance(name_or_path, str) and name_or_path in names():
        return _by_name(dataset(name_or_path), data_dir)
    path = Path(name_or_path)
    if path.exists():
        return Located(path)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(str(name_or_path), names()) or did_you_mean(path.name, beside)
    raise DatasetError(
        f"'{name_or_path}' is neither a file nor a data set{hint}; data sets are "
        f"{', '.join(names())}"
    )


def verify(file: DataFile, path: Path) -> None:
    """Raise DatasetError, naming both hashes, unless a local copy has the registry's sha256."""
    found = sha256_of(path)
    if found != file.sha256:
        raise DatasetError(
            f"'{path}' has the sha256 {found}, {file.sha256} is required: the copy is damaged or "
            "another version,"
            " replace it, or read it by its path to use it as it is"
        )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal. Raises DatasetError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(
            f"cannot read '{path}': {error.strerror}; give a file that can be read"
        ) from None


def _by_name(entry: Dataset, data_dir: str | os.PathLike[str] | None) -> Located:
    path = find_log(entry.name, data_dir)
    if path is None:
        looked = ", ".join(str(folder) for folder in data_folders(data_dir))
        fetch = "" if entry.files[0].url is None else f"`fastgaum data get {entry.name}`, or "
        raise DatasetError(
            f"'{entry.name}' needs {entry.files[0].path}, which is not in {looked}: "
            f"{fetch}`fastgaum data get {entry.name} --from FILE`"
        )
    return Located(path, entry, ReadOptions.of(name=entry.name, **entry.read))
