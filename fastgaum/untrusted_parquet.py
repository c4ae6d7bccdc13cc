"""Files of strangers, decoded for a trial in a process of its own: parquet, arrow, ndjson, and
text that is compressed.

Most of these formats pack a column of equal values into a few bytes, so that a file of a kilobyte
may hold billions of rows, and a damaged file can make polars panic, which writes to the terminal.
The trial has a memory limit and its stderr goes nowhere: what it survives, this process decodes
too. One such process serves all files; it is started with the first of them and ends with this
process.

Files that FastGAUM wrote itself are known by their sha256 and need no trial."""

from __future__ import annotations

import atexit
import json
import os
import resource
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from fastgaum.errors import LogFormatError
from fastgaum.untrusted import parse_json

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
SIGNS = ",;\t|"
"""what may divide columns"""
NDJSON = (".ndjson", ".jsonl")
COMPRESSED = (".gz", ".zst")
"""what may follow the extension of a file of text"""

FREE_BYTES = 1 << 26
"""decoded bytes that any file may hold"""
BYTES_PER_BYTE = 400
"""decoded bytes per byte of the file beyond them: logs have up to 25"""
SPARE_BYTES = 1 << 29
"""memory that decoding may take beyond what it gives"""
MOST_COLUMNS = 10_000
"""columns of a table"""
PIECE_ROWS = 1_000_000
"""rows that are decoded at once"""
FIRST_LINES = 64
"""lines that may say what a file is"""
PATIENCE, SLOWEST = 60.0, 1e6
"""seconds that a trial may take, and bytes of the file per further second"""

# A damaged page can make polars panic, which is no PolarsError and not even an Exception.
READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def one_line(error: BaseException) -> str:
    """First line of a library's message. A panic's message speaks of polars' code, not of the
    file."""
    if isinstance(error, pl.exceptions.PanicException):
        return "polars fails on its contents"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def file_kind(path: Path) -> str:
    """The extension that says what a file holds: `clicks.CSV.gz` → `.csv`; of a compressed file
    that is no text, both of its extensions."""
    last = path.suffix.lower()
    if last not in COMPRESSED:
        return last
    inner = Path(path.stem).suffix.lower()
    return inner if inner in SEPARATORS or inner in NDJSON else inner + last


def separator_of(kind: str, header: str) -> str:
    """What divides the columns of a file of text: what its extension says, or where its first line
    does not have that, the one other sign of SIGNS that it has.

    >>> separator_of(".csv", "session;event;item"), separator_of(".csv", "session")
    (';', ',')
    """
    usual = SEPARATORS.get(kind, "\t")
    found = [sign for sign in SIGNS if sign in header]
    return found[0] if len(found) == 1 else usual


def _header_line(path: Path) -> str:
    if path.suffix.lower() in COMPRESSED:
        return lazy_lines(path).head(1).collect().item() or ""
    with path.open("rb") as file:
        return file.readline(1 << 20).decode("utf-8", errors="replace")


def lazy_rows(path: Path, separator: str | None = None) -> pl.LazyFrame:
    """The rows of a file, of which only the header is read (a stream of arrow has none and is read
    whole; that of ndjson is all of its keys). `separator` divides the columns of text; None: what
    its first line says. Raises READ_ERRORS."""
    kind = file_kind(path)
    if kind in SEPARATORS:
        # Everything is read as text: ids keep leading zeros, and a column of mixed types cannot
        # fail halfway.
        separator = separator or separator_of(kind, _header_line(path))
        return pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
    if kind in NDJSON:
        # a column without a value has no type: it is text, as in a csv
        rows = pl.scan_ndjson([path], infer_schema_length=None)
        return rows.with_columns(pl.col(pl.Null).cast(pl.String))
    if kind in PARQUET:
        return pl.scan_parquet(path, hive_partitioning=False, glob=False)
    with path.open("rb") as file:
        is_stream = file.read(6) != b"ARROW1"
    if is_stream:
        return pl.read_ipc_stream(path).lazy()
    return pl.scan_ipc(path, hive_partitioning=False, glob=False)


def lazy_lines(path: Path) -> pl.LazyFrame:
    """The lines of a file of text, one column `line`. Raises READ_ERRORS."""
    return pl.scan_csv(
        path,
        # what divides units, which no line of text has
        separator="\x1f",
        has_header=False,
        new_columns=["line"],
        infer_schema=False,
        quote_char=None,
        truncate_ragged_lines=True,
        glob=False,
    )


def first_lines(path: Path) -> list[str]:
    """The first lines of a file of compressed text. Raises LogFormatError if they cannot be
    read."""
    _try(path, [], lines=True)
    try:
        return [line or "" for line in lazy_lines(path).head(FIRST_LINES).collect()["line"]]
    except READ_ERRORS as error:
        raise LogFormatError(f"'{path.name}' {_damaged(path, one_line(error))}") from None


def try_lines(path: Path) -> None:
    """Raise LogFormatError unless all lines of a file of compressed text can be decoded, and hold
    no more than a file of its size may."""
    _try(path, None, lines=True)


def try_header(path: Path) -> None:
    """Raise LogFormatError unless the header of a file can be read; text is decoded whole."""
    _try(path, None if _is_text(path) else [])


def try_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise LogFormatError unless columns of a file can be decoded, and hold no more than a file of
    its size may. Text was decoded whole with its header."""
    if not _is_text(path):
        _try(path, list(columns))


def _is_text(path: Path) -> bool:
    return file_kind(path) in (*SEPARATORS, *NDJSON)


def read_small_parquet(path: Path) -> pl.DataFrame:
    """All columns of a parquet file. Raises LogFormatError if it cannot be read."""
    try:
        _try(path, None)
        return pl.read_parquet(path, glob=False)
    except READ_ERRORS as error:
        raise LogFormatError(f"'{path.name}' {_damaged(path, one_line(error))}") from None


def _try(path: Path, columns: list[str] | None, lines: bool = False) -> None:
    with _lock:
        if _Trial.running is None or _Trial.running.owner != os.getpid():
            _Trial.running = _Trial()
        found = _Trial.running.ask(path, columns, lines)
    if found is not None:
        raise LogFormatError(f"'{path.name}' {found}")


def _damaged(path: Path, found: str) -> str:
    kind = file_kind(path)
    name = "parquet" if kind in PARQUET else "arrow" if kind in ARROW else kind[1:]
    return f"is no readable {name} file (cut short or damaged): {found}; copy or write it again"


class _Trial:
    """The process that decodes first."""

    running: _Trial | None = None

    def __init__(self) -> None:
        self.owner = os.getpid()
        root = str(Path(__file__).parents[1])
        given = os.environ.get("PYTHONPATH")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastgaum.untrusted_parquet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{given}" if given else root},
            # Ctrl-C is this process's to handle
            start_new_session=True,
        )

    def ask(self, path: Path, columns: list[str] | None, lines: bool) -> str | None:
        """What is wrong with a file; None if nothing is."""
        size = path.stat().st_size
        try:
            answer = self._answer(json.dumps([str(path.absolute()), columns, lines]), size)
        except BaseException:
            self.end()
            raise
        if answer:
            found: str | None = parse_json(answer)
            return found
        self.end()
        return _damaged(
            path,
            f"decoding it takes more than {(SPARE_BYTES + _most_bytes(size)) >> 20} MB of memory, "
            f"or {PATIENCE + size / SLOWEST:.0f} s",
        )

    def _answer(self, order: str, size: int) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(order.encode() + b"\n")
            self.process.stdin.flush()
        ready = select.select([self.process.stdout], [], [], PATIENCE + size / SLOWEST)[0]
        return self.process.stdout.readline() if ready else b""

    def end(self) -> None:
        """End the process; the next trial starts another."""
        if _Trial.running is self:
            _Trial.running = None
        if self.owner == os.getpid():
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            self.process.wait()


_lock = threading.Lock()


@atexit.register
def _end() -> None:
    if _Trial.running is not None:
        _Trial.running.end()


# -- within the process of the trial


def _serve() -> None:
    """Answer each file on stdin with what is wrong with it, until stdin ends."""
    for line in sys.stdin:
        name, columns, lines = parse_json(line)
        path = Path(name)
        panicked = False
        try:
            found = _decoded(path, columns, lines)
        except (*READ_ERRORS, MemoryError) as error:
            found = _damaged(path, one_line(error))
            panicked = isinstance(error, pl.exceptions.PanicException)
        print(json.dumps(found), flush=True)
        if panicked:
            # its other threads are in no known state
            return


def _decoded(path: Path, columns: list[str] | None, lines: bool) -> str | None:
    """Decode a file's header and the given columns (None: all), or its first lines (all of them);
    what is wrong with its size."""
    size = path.stat().st_size
    _limit_memory(SPARE_BYTES + _most_bytes(size))
    lazy = lazy_lines(path) if lines else lazy_rows(path)
    known = lazy.collect_schema().names()
    if len(known) > MOST_COLUMNS:
        return (
            f"has {len(known)} columns, at most {MOST_COLUMNS} are read: keep those that you need"
        )
    if columns == []:
        lazy.head(FIRST_LINES).collect() if lines else lazy.select(pl.len()).collect()
        return None
    held, most = 0, _most_bytes(size)
    all_of_it = lazy.select(known if columns is None else columns)
    for frame in _pieces(all_of_it, in_slices=not lines and not _is_text(path)):
        # a column of nulls takes no memory here, but will when it is made something of
        held += max(int(frame.estimated_size()), 8 * frame.height * frame.width)
        if held > most:
            return (
                f"has {size} bytes and holds more than {most} when it is decoded, the most that is "
                "read from such a file: if you trust it, write it again, uncompressed or as csv"
            )
    return None


def _pieces(lazy: pl.LazyFrame, in_slices: bool) -> Iterator[pl.DataFrame]:
    """The rows, some at a time."""
    if not in_slices:
        # text has no index: each slice would be read from the start
        yield from lazy.collect_batches(chunk_size=PIECE_ROWS, maintain_order=True)
        return
    n_rows = int(lazy.select(pl.len()).collect().item())
    for start in range(0, n_rows, PIECE_ROWS):
        yield lazy.slice(start, PIECE_ROWS).collect()


def _most_bytes(size: int) -> int:
    return FREE_BYTES + BYTES_PER_BYTE * size


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has, where the system says how many it
    has."""
    with suppress(OSError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        held = next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmData" in line)
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = held + more if hard == resource.RLIM_INFINITY else min(held + more, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


if __name__ == "__main__":
    _serve()
