"""Bringing a registry data set into the data folder: downloaded from its pinned address, or adopted
from a local copy.

Downloads use urllib: one file from one fixed address needs no more than the standard library
offers, so no dependency is taken on for it. What arrives is written to a .part file and renamed
into place only if its sha256 is the registry's."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastgaum.errors import DatasetError, OutputError
from fastgaum.files import atomic, sync_file, sync_folder
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
    """The connection ended early; what arrived is kept."""


def get(
    name: str | Dataset,
    *,
    from_file: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    attempts: int = ATTEMPTS,
    timeout: float = TIMEOUT,
    pause: float = PAUSE,
) -> Path:
    """Bring a data set's files into `data_dir` (default: the user cache) and return where its log
    stands.

    A file that is there with the right sha256 stays. `from_file` adopts a local copy, a file or a
    folder that holds the files, after checking its sha256; a single file may be any one of the data
    set's. Without it the files are downloaded; an interrupted download goes on where it stopped, in
    this call (up to `attempts`) or in a later one.

    Raises DatasetError for an unknown name, a wrong checksum (the file is removed), a download that
    fails, or a data set that has no address; OutputError if the folder cannot be written."""
    entry = name if isinstance(name, Dataset) else dataset(name)
    if entry.bundled:
        return entry.files[0].below(data_root())
    folder = Path(data_dir) if data_dir is not None else cache_folder()
    if from_file is not None:
        return _adopt(entry, Path(from_file), folder)
    for file in entry.files:
        if not _is_there(file, folder):
            if file.url is None:
                raise DatasetError(
                    f"'{entry.name}' has no address for {file.path} ({entry.origin}): get it there "
                    "and run"
                    f" `fastgaum data get {entry.name} --from FILE`"
                )
            target = _target(file, folder)
            with name_lock(target):
                # who waited for another process that fetched it has it now
                if not _is_there(file, folder):
                    _download(file, file.url, target, progress, attempts, timeout, pause)
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


def _download(
    file: DataFile,
    url: str,
    target: Path,
    progress: Progress | None,
    attempts: int,
    timeout: float,
    pause: float,
) -> None:
    # The hash in the name: a part of another version is never continued.
    part = target.with_name(f"{target.name}.{file.sha256[:12]}.part")
    reason = ""
    for attempt in range(max(attempts, 1)):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            _receive(file, url, part, progress, timeout)
            break
        except _CutError as cut:
            reason = str(cut)
    else:
        held = part.stat().st_size if part.exists() else 0
        raise DatasetError(
            f"downloading {url} failed {max(attempts, 1)} times ({reason}); the {held} bytes that "
            "arrived are kept in"
            f" '{part}': run the same command again to go on"
        )
    found = sha256_of(part)
    if found != file.sha256:
        part.unlink()
        raise DatasetError(
            f"{url} sent a file with the sha256 {found}, {file.sha256} is required; it was "
            "removed: use --from FILE with a good copy"
        )
    try:
        with open(part, "rb") as arrived:
            sync_file(arrived)
        os.replace(part, target)
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write '{target}': {error.strerror}; choose another data folder"
        ) from None


def _receive(
    file: DataFile, url: str, part: Path, progress: Progress | None, timeout: float
) -> None:
    """Append to `part` what it lacks. Raises _CutError if the connection ends early, DatasetError
    if trying again is no use."""
    held = part.stat().st_size if part.exists() else 0
    if held and held == file.bytes:
        return
    request = urllib.request.Request(
        url, headers={"User-Agent": "fastgaum"} | ({"Range": f"bytes={held}-"} if held else {})
    )
    try:
        with _opener().open(request, timeout=timeout) as answer:
            # 200 instead of 206: the server does not know ranges and sends the whole file again.
            if held and not (
                answer.status == 206
                and answer.headers.get("Content-Range", "").startswith(f"bytes {held}-")
            ):
                if answer.status == 206:
                    part.unlink()
                    raise _CutError("the server sent another range than asked")
                held = 0
            length = answer.headers.get("Content-Length", "")
            total = held + int(length) if length.isdecimal() else None
            _append(file, url, answer, part, held, total, progress)
    except urllib.error.HTTPError as error:
        _refused(url, part, error)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise _CutError(
            str(getattr(error, "reason", "") or error) or type(error).__name__
        ) from None


def _append(
    file: DataFile,
    url: str,
    answer: http.client.HTTPResponse,
    part: Path,
    held: int,
    total: int | None,
    progress: Progress | None,
) -> None:
    try:
        output = open(part, "ab" if held else "wb")  # noqa: SIM115 (opening and writing fail with different meanings)
    except OSError as error:
        raise OutputError(
            f"cannot write '{part}': {error.strerror}; choose another data folder"
        ) from None
    with output:
        while block := answer.read(_BLOCK):
            try:
                output.write(block)
            except OSError as error:
                raise OutputError(
                    f"cannot write '{part}': {error.strerror}; free space or choose another data "
                    "folder"
                ) from None
            held += len(block)
            if held > (MOST_BYTES if file.bytes is None else file.bytes):
                output.close()
                part.unlink()
                raise DatasetError(
                    f"{url} sends more than the {file.bytes or MOST_BYTES} bytes of {file.path}; "
                    "what arrived was removed: use --from FILE"
                )
            if progress is not None:
                progress(held, total if total is not None else file.bytes)
    expected = total if total is not None else file.bytes
    if expected is not None and held < expected:
        raise _CutError(f"connection cut after {held} of {expected} bytes")


def _refused(url: str, part: Path, error: urllib.error.HTTPError) -> None:
    error.close()
    if error.code == 416:
        # The part is longer than the file: it is not a part of it.
        part.unlink(missing_ok=True)
        raise _CutError("the server has no such range") from None
    if error.code in _RETRY_STATUS:
        raise _CutError(f"HTTP {error.code}") from None
    raise DatasetError(
        f"{url} answers HTTP {error.code} {error.reason}: the file is not there, use --from FILE "
        "with a local copy"
    ) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
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
