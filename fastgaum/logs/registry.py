"""The registry: what `data/registry.toml` says of every log that has a name, and its card."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from fastgaum.errors import DatasetError, did_you_mean
from fastgaum.untrusted import parse_toml

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,199}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""names that Windows keeps for devices, whatever the folder"""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set, pinned by its content. Raises DatasetError for a path that leaves the
    data folder."""

    path: str
    """where it stands below the data folder, with forward slashes"""
    sha256: str
    """of its bytes, 64 hexadecimal digits"""
    url: str | None = None
    """where it can be downloaded; None: only a local copy can be adopted"""
    bytes: int | None = None
    """its size, if known"""

    def __post_init__(self) -> None:
        if not all(map(_is_name, self.path.split("/"))):
            raise DatasetError(
                f"the registry path '{self.path}' leaves the data folder: a plain relative path is "
                "required"
            )
        if not _SHA256.fullmatch(self.sha256):
            raise DatasetError(
                f"the registry has '{self.sha256}' as sha256 of '{self.path}', 64 hexadecimal "
                "digits are required"
            )
        if self.bytes is not None and (type(self.bytes) is not int or self.bytes < 0):
            raise DatasetError(
                f"the registry has {self.bytes!r} as size of '{self.path}', a number of bytes is "
                "required"
            )
        if self.url is not None and not self.url.startswith(("https://", "http://")):
            raise DatasetError(
                f"the registry has the address '{self.url}' for '{self.path}', http or https is "
                "required"
            )

    def below(self, folder: Path) -> Path:
        """Path of the file in a data folder."""
        return folder.joinpath(*PurePosixPath(self.path).parts)


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry."""

    name: str
    title: str
    origin: str
    """repository and commit, or the maker"""
    terms: str
    """under which terms the data stand, as far as stated"""
    files: tuple[DataFile, ...]
    """at least one; the first is the log itself"""
    card: str
    """its file in data/cards"""
    counts: Mapping[str, int] = field(default_factory=dict)
    """sessions, events, candidates, items of the packed log"""
    read: Mapping[str, Any] = field(default_factory=dict)
    """options that `read_log` needs for it"""
    bundled: bool = False
    """whether its files come with FastGAUM"""
    build: Mapping[str, Any] = field(default_factory=dict)
    """fields of `DisplayRule` for choices without display sets; empty for a log that has its own"""

    @property
    def simulated(self) -> bool:
        """Whether its display sets were never recorded, so that loading it makes them up."""
        return bool(self.build)


def _is_name(part: str) -> bool:
    """Whether a part of a path names a file below its folder on every system."""
    return bool(_NAME.fullmatch(part)) and not _DEVICES.fullmatch(part) and part[-1] not in ". "


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
    """Return a data set's card (markdown): what it is, where from, its terms, its traps. Raises
    DatasetError."""
    return (_data() / "cards" / dataset(name).card).read_text(encoding="utf-8")


def parse_registry(text: str) -> dict[str, Dataset]:
    """Read a registry's text. Raises DatasetError for an entry that is not one."""
    try:
        entries = {name: _entry(name, values) for name, values in parse_toml(text).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"the registry is damaged ({error}): install FastGAUM again") from None
    return entries


def data_root() -> Path:
    """The folder that holds registry.toml, cards, published tables and the sample (read only)."""
    return Path(str(_data() / "registry.toml")).parent


def _entry(name: str, values: Mapping[str, Any]) -> Dataset:
    if not isinstance(values["card"], str) or "/" in values["card"] or not _is_name(values["card"]):
        raise DatasetError(
            f"the registry names the card {values['card']!r} for '{name}', a file's name is "
            "required"
        )
    files = tuple(DataFile(**file) for file in values["files"])
    if not files:
        raise DatasetError(f"the registry has no file for '{name}', one is required")
    return Dataset(name=name, **{**values, "files": files})


@cache
def _registry() -> dict[str, Dataset]:
    return parse_registry((_data() / "registry.toml").read_text(encoding="utf-8"))


def _data() -> importlib.resources.abc.Traversable:
    # fastgaum.data has no __init__.py: a namespace package, found in a checkout (symlink), an
    # editable install and a wheel.
    return importlib.resources.files("fastgaum.data")
