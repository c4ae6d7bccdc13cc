"""Mutators: bytes in, other bytes out. Some know nothing of the format, others keep it whole and
change what it says."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable
from typing import Any

import polars as pl

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    0,
    1,
    -1,
    2,
    127,
    255,
    2**15,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    10**9,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64,
    10**30,
)
WORDS = (
    b"",
    b"\x00",
    b"nan",
    b"NaN",
    b"inf",
    b"-inf",
    b"1e309",
    b"-1",
    b"0.5",
    b"1e-400",
    b"999999999999999999999",
    b"null",
    b"true",
    b'"',
    b'""',
    b"'",
    b",",
    b",,,,",
    b"\n",
    b"\r\n",
    b"\t",
    b"\x1b[2J\x1b[31mred",
    b"[bold]x[/bold]",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"../../etc/passwd",
    b"/etc/passwd",
    b"| x | `y` |",
    b"\xf0\x9f\x98\x80",
    b"a" * 5000,
    b"[" * 3000,
    b"{" * 3000,
    b"1" * 5000,
    b"train",
    b"2020-01-01",
    b"=cmd()",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    0.5,
    2**31,
    2**63,
    10**40,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x1b[31mx",
    "../x",
    "/etc/passwd",
    "con",
    "a" * 3000,
    "item",
    "bags",
    "lstm",
    [],
    {},
    [1],
    ["x"],
    [[]],
    [None],
    {"x": 1},
    [1, "x"],
    ["x"] * 2000,
)


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip up to eight bits."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data) + 1)]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, copy or overwrite a stretch of itself."""
    a, b, c = (rng.randrange(len(data) + 1) for _ in range(3))
    a, b = min(a, b), max(a, b)
    part = data[a:b]
    kinds = (
        data[:a] + data[b:],
        data[:b] + part + data[b:],
        data[:c] + part + data[c:],
        data[:c] + part + data[c + len(part) :],
    )
    return rng.choice(kinds)[: 4 * len(data) + 100]


def lengths(data: bytes, rng: random.Random) -> bytes:
    """Overwrite what may be a length or an offset, mostly near the ends, where headers are."""
    width = rng.choice((1, 2, 4, 8))
    if len(data) < width:
        return data
    near = min(len(data) - width, rng.choice((16, 64, 512, len(data))))
    at = rng.randint(0, near)
    at = len(data) - width - at if rng.random() < 0.5 else at
    value = (
        rng.choice(NUMBERS) + rng.randint(-2, 2)
        if rng.random() < 0.7
        else rng.choice((len(data), 16, 256)) * rng.randint(1, 99)
    )
    return data[:at] + (value % 256**width).to_bytes(width, "little") + data[at + width :]


def keep_ends(inner: Mutator) -> Mutator:
    """The same, the first and last eight bytes kept: a reader goes on past the magic."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        return data[:8] + inner(data[8:-8], rng) + data[-8:] if len(data) > 32 else inner(data, rng)

    return mutate


def words(data: bytes, rng: random.Random) -> bytes:
    """Replace up to three tokens of a text by hostile ones."""
    spans = [found.span() for found in re.finditer(rb"[A-Za-z0-9_.-]+", data)]
    for a, b in sorted(rng.sample(spans, min(len(spans), rng.randint(1, 3))), reverse=True):
        data = data[:a] + rng.choice(WORDS) + data[b:]
    return data


def lines(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, swap or widen a line."""
    rows = data.split(b"\n")
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(4)
    if kind == 0:
        del rows[i]
    elif kind == 1:
        rows.insert(j, rows[i])
    elif kind == 2:
        rows[i], rows[j] = rows[j], rows[i]
    else:
        rows[i] += rng.choice((b",1,2", b"\t9", b"::5", b'"', b" ", rng.choice(WORDS)))
    return b"\n".join(rows)


def swap_value(value: Any, rng: random.Random) -> Any:
    """A plain value with one part of it changed, removed, added or renamed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        out = dict(value) if isinstance(value, dict) else list(value)
        kind = rng.random()
        if kind < 0.1:
            del out[key]
        elif kind < 0.2 and isinstance(out, dict):
            out[rng.choice(("x", "", "../x", f"{key}2"))] = out.pop(key)
        elif kind < 0.2:
            out.append(out[key])
        else:
            out[key] = swap_value(out[key], rng)
        return out
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 2, 1000, 2**31, 10**12))
    if isinstance(value, str) and rng.random() < 0.3:
        try:
            # a text that is JSON itself, as a model's metadata are
            return json.dumps(swap_value(json.loads(value), rng))
        except ValueError:
            pass
    return rng.choice(VALUES)


def json_value(data: bytes, rng: random.Random) -> bytes:
    """Swap values of a JSON text; now and then nest it as deep as nobody reads."""
    if rng.random() < 0.03:
        return b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    value = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        value = swap_value(value, rng)
    return json.dumps(value).encode()


def tensors(data: bytes, rng: random.Random) -> bytes:
    """Swap values of a safetensors header, or write NaN, infinity or noise over a tensor; lengths
    stay right."""
    n = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + n]), bytearray(data[8 + n :])
    if rng.random() < 0.6:
        if rng.random() < 0.7:
            # all that is no array is one JSON text
            about = json.loads(header["__metadata__"]["fastgaum"])
            header["__metadata__"]["fastgaum"] = json.dumps(swap_value(about, rng))
        else:
            part = rng.choice(list(header))
            header[part] = swap_value(header[part], rng)
    else:
        name = rng.choice([key for key in header if key != "__metadata__"])
        start, end = header[name]["data_offsets"]
        if end > start:
            at = rng.randrange(start, end) // 4 * 4
            noise = rng.choice(
                (
                    b"\x00\x00\xc0\x7f",
                    b"\x00\x00\x80\xff",
                    b"\xff\xff\xff\xff",
                    b"\xff\xff\xff\x7f",
                    rng.randbytes(4),
                )
            )
            body[at : at + 4] = noise[: end - at]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(body)


def frame(form: str) -> Mutator:
    """Change names, types or values of a parquet or arrow file, and write it whole again."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        table = (
            pl.read_parquet(io.BytesIO(data))
            if form == "parquet"
            else pl.read_ipc(io.BytesIO(data))
        )
        for _ in range(rng.randint(1, 2)):
            table = _changed(table, rng)
        out = io.BytesIO()
        if form == "parquet":
            table.write_parquet(out, compression=rng.choice(("zstd", "uncompressed", "lz4")))
        else:
            table.write_ipc(out, compression=rng.choice(("uncompressed", "lz4", "zstd")))
        return out.getvalue()

    return mutate


TYPES = (
    pl.Int8,
    pl.Int64,
    pl.UInt64,
    pl.Float32,
    pl.Float64,
    pl.String,
    pl.Boolean,
    pl.Categorical,
    pl.Null,
    pl.Binary,
    pl.Date,
    pl.Datetime,
    pl.Time,
    pl.Duration,
    pl.Int128,
    pl.Decimal(10, 2),
    pl.List(pl.Int64),
    pl.Struct({"a": pl.Int64}),
    pl.Array(pl.Int64, 2),
)


def _changed(table: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    if not table.width:
        return table
    name = rng.choice(table.columns)
    kind = rng.randrange(7)
    if kind == 0:
        return table.drop(name)
    if kind == 1:
        new = rng.choice(
            (
                "x\x1b[31m",
                "a\nb",
                "",
                "session",
                "item",
                "items",
                "chosen",
                "views",
                "split",
                "|`",
                "\u202e",
            )
        )
        return table if new in table.columns else table.rename({name: new})
    if kind == 2:
        return table.head(rng.choice((0, 1, 2, table.height)))
    if kind == 3:
        return pl.concat([table, table.sample(min(5, table.height), seed=rng.randrange(99))])
    if kind == 4:
        return table.with_columns(
            pl.lit(rng.choice(("\x1b[2Jx", 0, -1, None, float("nan"), 2**62, "a\nb", True))).alias(
                name
            )
        )
    dtype = rng.choice(TYPES)
    try:
        if kind == 5:
            return table.with_columns(pl.Series(name, [None] * table.height, dtype=dtype))
        return table.with_columns(pl.col(name).cast(dtype, strict=False))
    except (pl.exceptions.PolarsError, TypeError):
        return table


BYTES: tuple[Mutator, ...] = (
    flip,
    truncate,
    splice,
    lengths,
    keep_ends(flip),
    keep_ends(splice),
    keep_ends(lengths),
)
TEXT: tuple[Mutator, ...] = (*BYTES[:3], words, words, words, lines, lines)
BY_FORM: dict[str, tuple[Mutator, ...]] = {
    "text": TEXT,
    "json": (*TEXT[:4], json_value, json_value, json_value, json_value),
    "parquet": (*BYTES, *[frame("parquet")] * 4),
    "arrow": (*BYTES, *[frame("arrow")] * 4),
    "stream": BYTES,
    "safetensors": (*BYTES[:5], *[tensors] * 6),
}
