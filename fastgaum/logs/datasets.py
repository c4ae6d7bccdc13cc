"""Logs that have a name, as `data/registry.toml` says: where they stand, and how they are fetched.

A name is looked up in the data folders. Every file must have the registry's sha256."""

from __future__ import annotations

import hashlib
import http.client
import importlib.resources
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from fastgaum.errors import DatasetError, OutputError, as_given, did_you_mean, no_log, require_path
from fastgaum.files import atomic
from fastgaum.locks import name_lock
from fastgaum.logs.addresses import is_address
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions
from fastgaum.untrusted import parse_toml

DATA_DIR = "FASTGAUM_DATA_DIR"
TIMEOUT = 30.0
"""seconds without a byte: the connection is cut"""
_CUT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class DataFile:
    """One file of a data set, pinned by its content."""

    path: str
    """below the data folder, with forward slashes"""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    url: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
    """None: only a local copy can be adopted"""


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry."""

    name: str
    title: str
    origin: str
    """repository and commit, or the maker"""
    terms: str
    files: Annotated[tuple[DataFile, ...], msgspec.Meta(min_length=1)]
    """the first is the log itself"""
    card: str
    counts: Mapping[str, int] = field(default_factory=dict)
    """sessions, events, candidates, items of the packed log"""
    read: Mapping[str, Any] = field(default_factory=dict)
    """options of `read_log`"""
    unit: str = "users"
    """what a user of the log is, in the plural; intervals are over them"""
    bundled: bool = False
    """whether its files come with FastGAUM"""
    simulated: bool = False
    """whether reading it makes up its display sets"""


def names() -> list[str]:
    """Names in the registry, in its order."""
    return list(_registry())


def dataset(name: str) -> Dataset:
    """Return a registry entry. Raises DatasetError for an unknown name."""
    known = _registry()
    if name not in known:
        raise DatasetError(
            f"no data set is called '{name}'{did_you_mean(name, known)}; known are "
            f"{', '.join(known)}"
        )
    return known[name]


def card(name: str) -> str:
    """Return a data set's card (markdown). Raises DatasetError."""
    return (data_root() / "cards" / dataset(name).card).read_text(encoding="utf-8")


def parse_registry(text: str) -> dict[str, Dataset]:
    """Read a registry's text. Raises DatasetError for an entry that is not one."""
    try:
        return {
            name: msgspec.convert({**values, "name": name}, Dataset)
            for name, values in parse_toml(text).items()
        }
    except (ValueError, TypeError) as error:
        raise DatasetError(f"the registry is damaged ({error}): install FastGAUM again") from None


def data_root() -> Path:
    """The folder of registry.toml, cards, published tables and the sample (read only)."""
    # fastgaum.data has no __init__.py: a namespace package, found in a checkout (symlink), an
    # editable install and a wheel.
    return Path(str(importlib.resources.files("fastgaum.data") / "registry.toml")).parent


@cache
def _registry() -> dict[str, Dataset]:
    return parse_registry((data_root() / "registry.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Located:
    """A log that was found."""

    path: Path
    dataset: Dataset | None = None
    """None for a path"""
    options: ReadOptions = DEFAULT_OPTIONS
    """options of its registry entry, its name too"""
    address: str | None = None
    """of a saved log that is not on a disk"""

    @property
    def source(self) -> str | Path:
        """What is read: the address, or the path."""
        return self.address or self.path

    @property
    def simulated(self) -> bool:
        """Whether its display sets are made up."""
        return self.dataset is not None and self.dataset.simulated

    def verify(self) -> None:
        """Raise DatasetError where a file of a registry name has not the registry's sha256."""
        if self.dataset is not None:
            verify(self.dataset.files[0], self.path)


def cache_folder() -> Path:
    """The user's data cache: $XDG_CACHE_HOME/fastgaum/data, by default ~/.cache/fastgaum/data."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a relative path is to be ignored.
    cache = Path(root) if os.path.isabs(root) else Path("~/.cache").expanduser()
    return cache / "fastgaum" / "data"


def data_folders(data_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders of names: `data_dir`, $FASTGAUM_DATA_DIR, the user cache. Raises DatasetError."""
    folders = []
    if data_dir is not None:
        if not isinstance(data_dir, str | os.PathLike) or not Path(data_dir).is_dir():
            raise DatasetError(
                f"the data folder {as_given(data_dir)} is not a folder: give one that exists, or "
                "leave it out"
            )
        folders.append(Path(data_dir))
    if os.environ.get(DATA_DIR):
        folders.append(Path(os.environ[DATA_DIR]))
    return [*folders, cache_folder()]


def find_log(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return where a registry name's log stands, if it is at hand. Raises DatasetError for no
    folder."""
    folders = data_folders(data_dir)
    if name not in names():
        return None
    entry = dataset(name)
    for folder in [data_root()] if entry.bundled else folders:
        path = folder / entry.files[0].path
        if path.is_file():
            return path
    return None


def resolve(
    name_or_path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None
) -> Located:
    """Find a log: a text that is a registry name is that data set, `./yelp` or a Path a file,
    `https://…`, `s3://…` or `gs://…` the folder of a saved log.
    Raises DatasetError with the cure."""
    if isinstance(name_or_path, str) and name_or_path in names():
        entry, place = dataset(name_or_path), find_log(name_or_path, data_dir)
        if place is None:
            looked = ", ".join(str(folder) for folder in data_folders(data_dir))
            get = "" if entry.files[0].url is None else f"`fastgaum data get {entry.name}`, or "
            raise DatasetError(
                f"'{entry.name}' needs {entry.files[0].path}, which is not in {looked}: "
                f"{get}`fastgaum data get {entry.name} --from FILE`"
            )
        return Located(place, entry, ReadOptions.of(name=entry.name, **entry.read))
    if not isinstance(name_or_path, str | os.PathLike):
        raise no_log(name_or_path)
    if is_address(name_or_path):
        return Located(Path(name_or_path), address=name_or_path)
    require_path("a log", name_or_path)
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
            "another version, replace it, or read it by its path to use it as it is"
        )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal. Raises DatasetError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(
            f"cannot read '{path}': {error.strerror}; give a file that can be read"
        ) from None


def fetch(
    name: str | Dataset,
    *,
    from_file: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Bring a data set's files into `data_dir` (default: the user cache) and return the path of its
    log.

    Args:
        name: a registry name, or an entry.
        from_file: a local copy to adopt: one of the data set's files, or a folder that holds them.
        data_dir: where the files go.

    Raises:
        DatasetError: the name, a checksum, a download or the address is wrong.
        OutputError: the folder cannot be written.
    """
    entry = name if isinstance(name, Dataset) else dataset(name)
    if entry.bundled:
        return data_root() / entry.files[0].path
    folder = Path(data_dir) if data_dir is not None else cache_folder()
    if from_file is not None:
        copies = _copies(entry, Path(from_file))
        for file, copy in copies:
            verify(file, copy)
        for file, copy in copies:
            target = _make_room(file, folder)
            if not (target.exists() and target.samefile(copy)):
                with atomic(target) as beside:
                    shutil.copyfile(copy, beside)
                    # what was checked may have been replaced since
                    verify(file, beside)
        return folder / copies[0][0].path
    for file in entry.files:
        if _is_there(file, folder):
            continue
        if file.url is None:
            raise DatasetError(
                f"'{entry.name}' has no address for {file.path} ({entry.origin}): get it there "
                f"and run `fastgaum data get {entry.name} --from FILE`"
            )
        target = _make_room(file, folder)
        with name_lock(target):
            # a process that waited for another one finds the file that the other fetched
            if not _is_there(file, folder):
                _download(file, file.url, target)
    return folder / entry.files[0].path


def _is_there(file: DataFile, folder: Path) -> bool:
    path = folder / file.path
    return path.is_file() and sha256_of(path) == file.sha256


def _make_room(file: DataFile, folder: Path) -> Path:
    path = folder / file.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write '{path.parent}': {error.strerror}; choose another data folder"
        ) from None
    return path


def _copies(entry: Dataset, source: Path) -> list[tuple[DataFile, Path]]:
    if source.is_file():
        found = sha256_of(source)
        same = (file for file in entry.files if file.sha256 == found)
        return [(next(same, entry.files[0]), source)]
    if not source.is_dir():
        raise DatasetError(
            f"there is no file '{source}': give the path of a local copy of {entry.files[0].path}"
        )
    pairs = []
    for file in entry.files:
        places = (source / file.path, source / Path(file.path).name)
        copy = next((place for place in places if place.is_file()), None)
        if copy is None:
            raise DatasetError(
                f"'{source}' has no {Path(file.path).name}, '{entry.name}' needs it: give the "
                "folder or file that has"
            )
        pairs.append((file, copy))
    return pairs


def _download(file: DataFile, url: str, target: Path) -> None:
    # of downloads that were killed; the lock says that no other is under way
    for left in target.parent.glob(f".{target.name}.*.part"):
        left.unlink(missing_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "fastgaum"})
    cure = "run the same command again, or use --from FILE with a local copy"
    with atomic(target) as beside:
        try:
            with (
                urllib.request.build_opener(_Redirects()).open(request, timeout=TIMEOUT) as answer,
                open(beside, "wb") as output,
            ):
                held = 0
                while block := answer.read(1 << 16):
                    held += len(block)
                    if held > file.bytes:
                        raise DatasetError(
                            f"the address sends more than the {file.bytes} bytes of the file: use "
                            "--from FILE with a good copy"
                        )
                    output.write(block)
        except _CUT as error:
            raise DatasetError(f"downloading {url} failed ({error}): {cure}") from None
        found = sha256_of(beside)
        if found != file.sha256:
            raise DatasetError(
                f"{url} sent a file with the sha256 {found}, {file.sha256} is required: {cure}"
            )


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follow a redirect, but not off an encrypted connection."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DatasetError(
                f"{req.full_url} leads to {newurl}, which is not encrypted: use --from FILE with a "
                "good copy"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
