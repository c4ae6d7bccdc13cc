"""Bringing a registry data set into the data folder: downloaded from its pinned address, or adopted
from a local copy.

The files have half a megabyte, so a download that was cut begins anew. What arrives is written
beside its place and renamed into place only if its sha256 is the registry's."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from fastgaum.errors import DatasetError, OutputError
from fastgaum.files import atomic
from fastgaum.locks import name_lock
from fastgaum.logs.locate import cache_folder, sha256_of, verify
from fastgaum.logs.registry import DataFile, Dataset, data_root, dataset

Progress = Callable[[int, int | None], None]
"""called with the bytes that are there and those expected (None: unknown)"""

ATTEMPTS = 4
"""how often a cut or refused connection is tried before giving up"""
TIMEOUT = 30.0
"""seconds without a byte after which a connection counts as cut"""
PAUSE = 0.5
"""seconds before the second attempt; doubles with each further one"""
MOST_BYTES = 1 << 34
"""bytes of a download whose size the registry does not know"""
_BLOCK = 1 << 16
_RETRY_STATUS = (408, 429, 500, 502, 503, 504)


class _CutError(Exception):
    """The connection ended early."""


def fetch(
    name: str | Dataset,
    *,
    from_file: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Bring a data set's files into `data_dir` (default: the user cache) and return the path of its
    log.

    A file that is there with the right sha256 stays. Without `from_file` the others are downloaded.

    Args:
        name: a registry name, or an entry.
        from_file: a local copy to adopt after its sha256 is checked: a file, which may be any one
            of the data set's, or a folder that holds them.
        data_dir: where the files go.
        progress: called while a file is downloaded.

    Raises:
        DatasetError: the name is unknown, a checksum is wrong, a download fails, or the data set
            has no address.
        OutputError: the folder cannot be written.
    """
    entry = name if isinstance(name, Dataset) else dataset(name)
    if entry.bundled:
        return entry.files[0].below(data_root())
    folder = Path(data_dir) if data_dir is not None else cache_folder()
    if from_file is not None:
        return _adopt(entry, Path(from_file), folder)
    for file in entry.files:
        if _is_there(file, folder):
            continue
        if file.url is None:
            raise DatasetError(
                f"'{entry.name}' has no address for {file.path} ({entry.origin}): get it there "
                f"and run `fastgaum data get {entry.name} --from FILE`"
            )
        target = _target(file, folder)
        with name_lock(target):
            # a process that waited for another one finds the file that the other fetched
            if not _is_there(file, folder):
                _download(file, file.url, target, progress)
    return entry.files[0].below(folder)


def _is_there(file: DataFile, folder: Path) -> bool:
    path = file.below(folder)
    return path.is_file() and sha256_of(path) == file.sha256


def _target(file: DataFile, folder: Path) -> Path:
    """Where the file will stand, its folder made; a link inside the data folder must not lead out
    of it."""
    path = file.below(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write '{path.parent}': {error.strerror}; choose another data folder"
        ) from None
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"'{path}' leads out of the data folder '{folder}': remove the link")
    return path


def _adopt(entry: Dataset, source: Path, folder: Path) -> Path:
    adopted = []
    for file, copy in _copies(entry, source):
        target = _target(file, folder)
        if not (target.exists() and target.samefile(copy)):
            with atomic(target) as beside:
                shutil.copyfile(copy, beside)
                # what was checked may have been replaced since
                verify(file, beside)
        adopted.append(target)
    return adopted[0]


def _copies(entry: Dataset, source: Path) -> list[tuple[DataFile, Path]]:
    """Which local copy is which of the data set's files, by content; raises DatasetError unless
    each one is right."""
    if source.is_dir():
        pairs = []
        for file in entry.files:
            places = (file.below(source), source / Path(file.path).name)
            copy = next((place for place in places if place.is_file()), None)
            if copy is None:
                raise DatasetError(
                    f"'{source}' has no {Path(file.path).name}, '{entry.name}' needs it: give the "
                    "folder or file that has"
                )
            pairs.append((file, copy))
    else:
        if not source.is_file():
            raise DatasetError(
                f"there is no file '{source}': give the path of a local copy of "
                f"{entry.files[0].path}"
            )
        found = sha256_of(source)
        pairs = [
            (next((file for file in entry.files if file.sha256 == found), entry.files[0]), source)
        ]
    for file, copy in pairs:
        found = sha256_of(copy)
        if found != file.sha256:
            raise DatasetError(
                f"'{copy}' has the sha256 {found}, {file.sha256} is required for {file.path}: it "
                "is damaged or another version"
            )
    return pairs


def _download(file: DataFile, url: str, target: Path, progress: Progress | None) -> None:
    # of downloads that were killed; the lock says that no other is under way
    for left in target.parent.glob(f".{target.name}.*.part"):
        left.unlink(missing_ok=True)
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            with atomic(target) as beside:
                with open(beside, "wb") as output:
                    _receive(file, url, output, progress)
                found = sha256_of(beside)
                if found != file.sha256:
                    raise DatasetError(
                        f"{url} sent a file with the sha256 {found}, {file.sha256} is required; it "
                        "was removed: use --from FILE with a good copy"
                    )
            return
        except _CutError as cut:
            reason = str(cut)
    raise DatasetError(
        f"downloading {url} failed {ATTEMPTS} times ({reason}): run the same command again, or use "
        "--from FILE with a local copy"
    )


def _receive(file: DataFile, url: str, output: IO[bytes], progress: Progress | None) -> None:
    """Write what the address sends. Raises _CutError if the connection ends early, DatasetError if
    another attempt is no use."""
    held, expected = 0, file.bytes
    for block, length in _blocks(url):
        output.write(block)
        held += len(block)
        expected = file.bytes if length is None else length
        if held > (MOST_BYTES if file.bytes is None else file.bytes):
            raise DatasetError(
                f"{url} sends more than the {file.bytes or MOST_BYTES} bytes of {file.path}; "
                "what arrived was removed: use --from FILE"
            )
        if progress is not None:
            progress(held, expected)
    if expected is not None and held < expected:
        raise _CutError(f"connection cut after {held} of {expected} bytes")


def _blocks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """What an address sends, and how many bytes it announces; errors as `_receive`. What goes wrong
    where a block is used is not caught here."""
    request = urllib.request.Request(url, headers={"User-Agent": "fastgaum"})
    try:
        with _opener().open(request, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length", "")
            while block := answer.read(_BLOCK):
                yield block, int(length) if length.isdecimal() else None
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _RETRY_STATUS:
            raise _CutError(f"HTTP {error.code}") from None
        raise DatasetError(
            f"{url} answers HTTP {error.code} {error.reason}: the file is not there, use --from "
            "FILE with a local copy"
        ) from None
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise _CutError(reason) from None


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


def _opener() -> urllib.request.OpenerDirector:
    """http and https only: a redirect must not lead to file: or ftp:, nor from https to http."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
