"""Everything that a user, or whoever made their files, can get wrong: one row each, one test for
all.

Exit code 2, one line on stderr that says what is wrong, nothing on stdout, nothing written, and
soon."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastgaum.cli.app import main
from tests.builders import change_shard, change_state

Fails = Callable[[list[str]], str]
MOST_SECONDS = 20.0
"""processor time; each takes a fraction of a second, this is what `hang` means on a machine that
does other things too"""


@dataclass(frozen=True)
class Seeds:
    """Good files, and an empty folder to spoil copies in."""

    frame: pl.DataFrame
    log: Path
    run: Path
    store: Path
    folder: Path


Make = Callable[[Seeds], list[str]]


def convert(path: Path, *options: str) -> list[str]:
    return ["data", "convert", str(path), "-o", str(path.parent / "out"), *options]


def csv(change: Callable[[pl.DataFrame], pl.DataFrame], *options: str) -> Make:
    """A csv log, changed."""

    def make(seeds: Seeds) -> list[str]:
        change(seeds.frame).write_csv(seeds.folder / "log.csv")
        return convert(seeds.folder / "log.csv", *options)

    return make


def raw(name: str, content: bytes) -> Make:
    """A log of these bytes."""

    def make(seeds: Seeds) -> list[str]:
        (seeds.folder / name).write_bytes(content)
        return convert(seeds.folder / name)

    return make


def nested(**columns: Any) -> Make:
    """A nested log of two events, some columns changed."""
    values = {
        "session": ["u", "u"],
        "event": [1, 2],
        "items": [["a", "b"], ["c"]],
        "chosen": ["a", None],
        **columns,
    }

    def make(seeds: Seeds) -> list[str]:
        pl.DataFrame(values, strict=False).write_parquet(seeds.folder / "log.parquet")
        return convert(seeds.folder / "log.parquet")

    return make


def column(name: str, value: Any, *options: str) -> Make:
    """A csv log with one value everywhere in one column."""
    return csv(lambda frame: frame.with_columns(pl.lit(value).alias(name)), *options)


def train(*options: str, config: str | bytes | None = None) -> Make:
    """A training with these options or this configuration."""

    def make(seeds: Seeds) -> list[str]:
        argv = ["train", str(seeds.log), "-o", str(seeds.folder / "run"), *options]
        if config is not None:
            (seeds.folder / "c.toml").write_bytes(
                config if isinstance(config, bytes) else config.encode()
            )
            argv += ["--config", str(seeds.folder / "c.toml")]
        return argv

    return make


def run(change: Callable[[Path], None], *options: str) -> Make:
    """An evaluation of a run folder that was changed."""

    def make(seeds: Seeds) -> list[str]:
        shutil.copytree(seeds.run, seeds.folder / "run")
        change(seeds.folder / "run")
        return ["evaluate", str(seeds.folder / "run"), str(seeds.log), *options]

    return make


def model(change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Make:
    """A run of which the model's state, arrays named, or its arrays were changed."""
    return run(
        lambda folder: change_state(
            folder / "model.safetensors", lambda about, arrays: change(about["state"], arrays)
        )
    )


def config(**changes: Any) -> Make:
    """A model whose configuration asks for something else than its weights are."""
    return model(lambda state, _: state["config"].update(changes))


def tensor(name: str, at: int, value: float) -> Make:
    """A model with one number of one array changed."""

    def change(_: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[name].reshape(-1)[at] = value

    return model(change)


def another_version(folder: Path) -> None:
    change_state(
        folder / "model.safetensors", lambda about, _: about.update(format="fastgaum-model-9")
    )


def store(change: Callable[[Path], None]) -> Make:
    """A saved log that was changed."""

    def make(seeds: Seeds) -> list[str]:
        shutil.copytree(seeds.store, seeds.folder / "store")
        change(seeds.folder / "store")
        return convert(seeds.folder / "store")

    return make


def manifest(text: Callable[[dict[str, Any]], Any]) -> Make:
    """A saved log whose shards.json was changed."""

    def change(folder: Path) -> None:
        value = json.loads((folder / "shards.json").read_text())
        changed = text(value)
        (folder / "shards.json").write_text(
            changed if isinstance(changed, str) else json.dumps(value)
        )

    return store(change)


def rows(name: str, *values: Any) -> Make:
    """A saved log with the first values of one column of its shard changed, checksum and all; a
    number takes the first place of a list."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        column = frame[name].to_list()
        for i, value in enumerate(values):
            of_list = isinstance(column[i], list) and not isinstance(value, list)
            column[i] = [value, *column[i][1:]] if of_list else value
        return frame.with_columns(pl.Series(name, column, frame[name].dtype))

    return store(lambda folder: change_shard(folder, change))


def header(length: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])

    return change


def bomb(kind: str) -> Make:
    """A few kilobytes that stand for a hundred million values."""

    def make(seeds: Seeds) -> list[str]:
        n = 25_000_000
        path = seeds.folder / f"bomb.{kind}"
        zeros = pl.zeros(n, dtype=pl.Int8, eager=True)
        frame = pl.DataFrame({"session": zeros, "event": zeros, "item": zeros, "chosen": zeros})
        if kind == "parquet":
            frame.write_parquet(path, compression="zstd", row_group_size=n, statistics=False)
        else:
            frame.write_ipc(path, compression="zstd")
        return convert(path)

    return make


def long_line(seeds: Seeds) -> list[str]:
    path = seeds.folder / "log.csv"
    path.write_text("session,event,item,chosen\nu,1,")
    # a hole: two gigabytes that take no disk
    os.truncate(path, 2 << 30)
    return convert(path)


def bad_shard(seeds: Seeds) -> list[str]:
    for name in ("a", "b"):
        seeds.frame.write_parquet(seeds.folder / f"{name}.parquet")
    os.truncate(seeds.folder / "b.parquet", 500)
    return ["data", "convert", str(seeds.folder), "-o", str(seeds.folder / "out")]


def other_fields(seeds: Seeds) -> list[str]:
    seeds.frame.drop("price").write_parquet(seeds.folder / "log.parquet")
    return ["evaluate", str(seeds.run), str(seeds.folder / "log.parquet")]


def unwritable(seeds: Seeds) -> list[str]:
    (seeds.folder / "file").write_text("in the way")
    return ["predict", str(seeds.run), str(seeds.log), "-o", str(seeds.folder / "file" / "p.csv")]


def only_training(seeds: Seeds) -> list[str]:
    seeds.frame.with_columns(split=pl.lit("train")).write_csv(seeds.folder / "log.csv")
    return ["train", str(seeds.folder / "log.csv"), "-o", str(seeds.folder / "run")]


def full_folder(seeds: Seeds) -> list[str]:
    (seeds.folder / "thesis.tex").write_text("years of work")
    return ["train", str(seeds.log), "-o", str(seeds.folder), "--overwrite"]


def spreadsheet(seeds: Seeds) -> list[str]:
    return ["predict", str(seeds.run), str(seeds.log), "-o", str(seeds.folder / "probs.xlsx")]


def item_table(text: str) -> Make:
    def make(seeds: Seeds) -> list[str]:
        (seeds.folder / "items.csv").write_text(text)
        return [
            "data",
            "convert",
            str(seeds.log),
            "-o",
            str(seeds.folder / "out"),
            "--item-table",
            str(seeds.folder / "items.csv"),
        ]

    return make


def adopt(seeds: Seeds) -> list[str]:
    (seeds.folder / "yelp.txt").write_text("not it")
    return [
        "data",
        "get",
        "yelp",
        "--from",
        str(seeds.folder / "yelp.txt"),
        "--data-dir",
        str(seeds.folder),
    ]


def unfilled(seeds: Seeds) -> list[str]:
    (seeds.folder / "log.csv").write_text("session,event,item,chosen\nu3,17,a,1\nu4,,,0\n")
    return convert(seeds.folder / "log.csv")


DEEP = "[" * 100_000 + "]" * 100_000
WIDE = ",".join(f"c{i}" for i in range(20_000)).encode() + b"\n1\n"

ROWS: dict[str, tuple[Make, str]] = {
    # what the main job's list names
    "missing column": (csv(lambda frame: frame.drop("item")), "no item column"),
    "misnamed column": (
        csv(lambda frame: frame.rename({"chosen": "choosen"})),
        "did you mean 'choosen'",
    ),
    "two choices": (column("chosen", 1), "one is required"),
    "choice not displayed": (nested(chosen=["z", None]), "which is not among its 2 candidates"),
    "empty log": (csv(lambda frame: frame.head(0)), "the log is empty"),
    "empty file": (raw("log.csv", b""), "0 bytes"),
    "empty display": (nested(items=[["a", "b"], []]), "displays nothing"),
    "session without event": (unfilled, "has no event"),
    "NaN in a column": (
        column("price", float("nan"), "--candidate-field", "price"),
        "a finite number is required",
    ),
    "infinity in a column": (
        column("price", float("inf"), "--candidate-field", "price"),
        "a finite number is required",
    ),
    "not UTF-8": (
        raw("log.csv", "session,event,item,chosen\nu,0,café,1\n".encode("latin1")),
        "not UTF-8: line 2",
    ),
    "truncated parquet": (raw("log.parquet", b"PAR1" + bytes(40)), "no readable parquet file"),
    "one bad shard": (bad_shard, "'b.parquet' is no readable parquet file"),
    "unknown preset": (train("--preset", "fastgam"), "did you mean 'fastgaum'"),
    "unknown key": (train(config="epocs = 3"), "did you mean 'epochs'"),
    "wrong type": (train(config="epochs = '3'"), "epochs must be a whole number"),
    "impossible value": (train(config="eta = 0"), "eta must be a number greater than 0"),
    "run of another version": (
        run(another_version),
        "fastgaum-model-9",
    ),
    "truncated run": (
        run(lambda folder: os.truncate(folder / "model.safetensors", 5000)),
        "is damaged",
    ),
    "unwritable output": (unwritable, "cannot write"),
    "no validation session": (only_training, "no validation session"),
    "folder of other files": (full_folder, "thesis.tex"),
    "table of another kind": (spreadsheet, ".parquet or .csv"),
    "preset of a file": (train(config="preset = 'fastgam'"), "did you mean 'fastgaum'"),
    "list wanted": (train(config="hidden = 64"), "list of 1 to 100 values"),
    "half a line": (train(config="epochs = "), "cannot read configuration"),
    "empty run": (run(lambda folder: os.truncate(folder / "model.safetensors", 0)), "damaged"),
    "unknown option of reading": (
        run(lambda folder: (folder / "reading.json").write_text('{"candidate_feild": ["price"]}')),
        "reading.json",
    ),
    "log of other fields": (other_fields, "price"),
    # bombs: small files that stand for much
    "parquet bomb": (bomb("parquet"), "when it is decoded"),
    "arrow bomb": (bomb("arrow"), "when it is decoded"),
    "line of 2 GB": (long_line, "no line end in the"),
    "20,000 columns": (raw("log.csv", WIDE), "has 20000 columns, at most 10000"),
    # configurations
    "hidden of a billion": (
        train(config="hidden = [1000000000]"),
        "hidden must be a list of 1 to 100 values, each a whole number",
    ),
    "a billion layers": (
        train("--set", "history_layers=1000000000"),
        "history_layers must be a whole number at least 1 and at most 100",
    ),
    "networks of terabytes": (
        train("--set", "hidden=[65536, 65536, 65536, 65536, 65536, 65536, 65536]"),
        "GB to train",
    ),
    "seed beyond 64 bits": (
        train("--set", f"seed={10**40}"),
        "seed must be a whole number at least 0 and at most",
    ),
    "number beyond a float": (
        train("--set", f"eta={10**400}"),
        "eta must be a number greater than 0 and finite",
    ),
    "nested configuration": (train(config=f"hidden = {DEEP}"), "nested too deeply"),
    "nested setting": (train("--set", f"hidden={DEEP}"), "hidden must be a list"),
    "configuration of megabytes": (train(config="#" * 2_000_000), "longer than the"),
    "NUL in a configuration": (train(config="epochs\x00 = 3"), "cannot read configuration"),
    "configuration not UTF-8": (train(config=b"preset = '\xff'"), "cannot read configuration"),
    # runs
    "header of exabytes": (run(header(2**60)), "its header declares"),
    "header beyond the file": (run(header(4_000_000)), "its header declares"),
    "wider than its weights": (config(hidden=[60000, 60000]), "the configuration asks for"),
    "deeper than its weights": (
        config(history_layers=100),
        "asks for more layers than",
    ),
    "impossible configuration": (
        config(hidden=[10**9]),
        "hidden must be a list of 1 to 100 values, each a whole number",
    ),
    "NaN weight": (
        tensor("weights/player.reward.rest.0.weight", 1, float("nan")),
        "rest.0.weight' holds nan at 1",
    ),
    "infinite mean": (
        tensor("space/mean", 0, float("inf")),
        "space/mean' holds inf at 0",
    ),
    "scale of 0": (tensor("space/scale", 0, 0.0), "not positive"),
    "offsets that fall": (
        tensor("space/categorical/0/offsets", 1, 10**6),
        "do not cut its bytes into texts",
    ),
    "negative count": (tensor("space/item_counts/displays", 0, -1), "does not hold a count"),
    "two items of one id": (
        model(lambda _, arrays: arrays["space/categorical/0/bytes"].fill(48)),
        "holds a value twice",
    ),
    "weights missing": (
        model(lambda _, arrays: arrays.pop("weights/player.reward.rest.0.weight")),
        "is missing",
    ),
    "number of another version": (
        model(lambda state, _: state["space"]["number_names"].__setitem__(0, "displayed_afore")),
        "is not a number that this version makes",
    ),
    "ids that overlap": (
        model(lambda state, _: state["space"]["categorical"][0].update(start=0)),
        "1 is required",
    ),
    "damaged space": (model(lambda state, _: state.update(space=[])), "is damaged"),
    "reading.json of another type": (
        run(lambda folder: (folder / "reading.json").write_text('{"candidate_field": 3}')),
        "candidate_field is 3",
    ),
    "reading.json nested": (
        run(lambda folder: (folder / "reading.json").write_text(DEEP)),
        "nested too deeply",
    ),
    "reading.json a list": (
        run(lambda folder: (folder / "reading.json").write_text("[]")),
        "options by name",
    ),
    # saved logs
    "item out of range": (rows("items", 10**6), "items holds 1000000, 0 to"),
    "negative item": (rows("items", -5), "items holds -5, 0 to"),
    "choice out of range": (rows("choice", 0, 0, 99), "choices holds 99 for"),
    "empty display of a saved log": (rows("items", []), "is damaged"),
    "no first session": (rows("start", False), "its first row starts no session"),
    "unknown split": (rows("split", 7), "split holds 7"),
    "negative user": (rows("user", -1), "users holds -1"),
    "views of 0": (rows("views", 0), "views holds 0"),
    "gap in the session ids": (rows("session", None), "session_ids holds"),
    "items that are text": (
        store(lambda folder: change_shard(folder, lambda f: f.cast({"items": pl.List(pl.String)}))),
        "items is object",
    ),
    "column that is not there": (
        store(lambda folder: change_shard(folder, lambda f: f.drop("choice"))),
        "is damaged",
    ),
    "shard elsewhere": (
        manifest(lambda value: value["shards"][0].update(file="../shard-00000.parquet")),
        "a plain name is required",
    ),
    "absolute shard": (
        manifest(lambda value: value["tables"]["items"].update(file="/etc/passwd")),
        "a plain name is required",
    ),
    "manifest nested": (manifest(lambda _: f'{{"x": {DEEP}}}'), "nested too deeply"),
    "manifest of another kind": (manifest(lambda value: value.update(shards=3)), "is damaged"),
    # names that a terminal obeys, and other files
    "escape in a header": (
        raw("log.csv", b"session,event,it\x1b[31mem,chosen\nu,1,a,1\n"),
        r"it\x1b[31mem",
    ),
    "bidi in a header": (
        raw("log.csv", "session,event,it\u202eem,chosen\nu,1,a,1\n".encode()),
        r"it\u202eem",
    ),
    "escape in an id": (
        raw("log.csv", b"session,event,item,chosen\nu\x1b[2J,1,a,1\nu\x1b[2J,1,b,1\n"),
        r"u\x1b[2J",
    ),
    "item twice in a table": (item_table("item,kind\na,1\na,2\n"), "one row per item"),
    "empty table of items": (item_table("item,kind\n"), "the table is empty"),
    "table of other items": (item_table("item,kind\nnobody,1\n"), "none of the log's"),
    "copy that is not the file": (adopt, "yelp.txt' has the sha256"),
}


@pytest.fixture(scope="module")
def saved(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "store"
    assert (
        main(["data", "convert", str(log_file), "-o", str(folder), "--candidate-field", "price"])
        == 0
    )
    return folder


@pytest.mark.parametrize("row", ROWS)
def test_bad_input(
    fails: Fails,
    frame: pl.DataFrame,
    log_file: Path,
    trained: Path,
    saved: Path,
    tmp_path: Path,
    row: str,
) -> None:
    make, says = ROWS[row]
    argv = make(Seeds(frame, log_file, trained, saved, tmp_path))
    started = time.process_time()
    err = fails(argv)
    assert says in err
    assert time.process_time() - started < MOST_SECONDS
    assert err[:-1].isprintable()


@pytest.mark.parametrize(
    "item",
    ["-9223372036854775808", "18446744073709551616", "007", "a b", "é", "1.5", "=1+1", "a\x00b"],
)
def test_strange_ids_are_ids(tmp_path: Path, item: str) -> None:
    (tmp_path / "log.csv").write_text(
        f"session,event,item,chosen\n-1,0,{item},1\n-1,0,b,0\nx,0,b,1\n"
    )
    assert main(convert(tmp_path / "log.csv")) == 0
