"""What is fuzzed: seeds, one of each form that a user hands in, made by the commands themselves,
and what reads each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.cli.app import main
from fastgaum.logs.fold import to_frame
from fastgaum.logs.read import read_log
from fastgaum.logs.shard_writer import save_log
from fastgaum.logs.synthetic import synthesise
from tests.logs import public_files

SMALL = [
    "--set",
    "epochs=1",
    "--set",
    "warm_start=1",
    "--set",
    "catch_up=1",
    "--set",
    "hidden=[8]",
    "--set",
    "history_dim=4",
]


@dataclass(frozen=True)
class Target:
    """A file of the seed folder, and the commands that read it; commands run beside it and write
    below out/."""

    file: str
    form: str
    """which mutators fit, see `mutate.BY_FORM`"""
    commands: tuple[str, ...]
    weight: int = 1


LOGS = (
    "data audit {}|data convert {} -o out/log|data convert {} -o out/log.csv|data audit {} "
    "--candidate-field price|"
    "data convert {} -o out/log.parquet --candidate-field price --split-by user|evaluate run {} "
    "--json out/e.json"
)
MODEL = (
    "evaluate run log.parquet --json out/e.json|predict run log.parquet -o out/p.csv|"
    "simulate run -o out/s.csv --episodes 3 --slate-size 3 --horizon 2 --log log.parquet"
)
ADAPT = "rl adapt policy plain --episodes 1 --users 3 --seeds 1 --horizon 2"
PLAIN = (
    "evaluate plain log.parquet --json out/e.json|simulate plain -o out/s.csv --episodes 3 "
    f"--slate-size 3 --horizon 2|{ADAPT}"
)
STORE = (
    "evaluate run store --json out/e.json|data convert store -o out/log.parquet|data convert "
    "store -o out/copy|data audit store"
)
TABLE = "data convert log.parquet -o out/log --item-table {}"
BUILD = (
    "data build {} -o out/log --rule nearest --displayed 4|data build {} -o out/log.csv --rule "
    "released-before --displayed 3"
)


def _of(file: str, form: str, commands: str, weight: int = 1) -> Target:
    return Target(file, form, tuple(commands.replace("{}", file.split("/")[0]).split("|")), weight)


TARGETS = (
    _of("log.csv", "text", LOGS, 6),
    _of("log.tsv", "text", LOGS, 2),
    _of("log.parquet", "parquet", LOGS, 6),
    _of("nested.parquet", "parquet", LOGS, 4),
    _of("log.arrow", "arrow", LOGS, 4),
    _of("stream.arrow", "stream", LOGS, 2),
    _of("shards/b.parquet", "parquet", LOGS, 1),
    _of("items.csv", "text", TABLE, 1),
    _of("items.parquet", "parquet", TABLE, 2),
    _of("config.toml", "text", "train unsplit.csv -o out/run --config config.toml", 3),
    _of("run/model.safetensors", "safetensors", MODEL, 8),
    _of("run/reading.json", "json", "evaluate run log.parquet --json out/e.json", 2),
    _of("plain/model.safetensors", "safetensors", PLAIN, 4),
    _of("policy/policy.safetensors", "safetensors", ADAPT, 4),
    _of("store/shards.json", "json", STORE, 6),
    *(
        _of(f"store/{name}.parquet", "parquet", STORE, 2)
        for name in ("shard-00000", "items", "categories")
    ),
    _of("ratings.csv", "text", BUILD, 2),
    _of("movies.csv", "text", BUILD.replace("{}", "ratings.csv"), 1),
    _of("u.data", "text", BUILD.replace("{}", "u.data"), 1),
    _of("plays.tsv", "text", BUILD, 1),
    *(
        _of(file, form, "data convert {} -o out/log|data audit {}", 1)
        for file, form in (
            ("behaviors.tsv", "text"),
            ("train.csv", "text"),
            ("data.npz", "stream"),
            ("CLARA2SearchLog_beta", "text"),
            ("paths_finished.tsv", "text"),
        )
    ),
    _of("links.tsv", "text", "data convert paths_finished.tsv -o out/log", 1),
    _of("log.txt", "text", "data get yelp --from log.txt --data-dir out/data", 1),
)


def make_seeds(folder: Path) -> None:
    """Write every seed below a folder, a few kilobytes each."""
    log, _ = synthesise(60, preset="sample", no_click=0.1)
    price = np.random.default_rng(0).random(log.n_candidates)
    frame = (
        to_frame(log)
        .drop("event_label", strict=False)
        .with_columns(price=pl.Series(price).round(3))
    )
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_csv(folder / "log.csv")
    frame.write_csv(folder / "log.tsv", separator="\t")
    frame.write_csv(folder / "log.txt", separator="\t")
    frame.with_columns(split=pl.lit("train")).write_csv(folder / "unsplit.csv")
    frame.write_parquet(folder / "log.parquet")
    frame.write_ipc(folder / "log.arrow", compression="lz4")
    frame.write_ipc_stream(folder / "stream.arrow")
    (folder / "shards").mkdir()
    frame.write_parquet(folder / "shards" / "a.parquet")
    frame.write_parquet(folder / "shards" / "b.parquet")
    nested = frame.group_by("session", "event", "user", "split", maintain_order=True).agg(
        "price", items="item", chosen=pl.col("item").filter(pl.col("chosen") == 1).first()
    )
    nested.write_parquet(folder / "nested.parquet")
    items = (
        frame.select("item")
        .unique()
        .sort("item")
        .with_columns(kind=pl.lit("k"), weight=pl.lit(1.5))
    )
    items.write_csv(folder / "items.csv")
    items.write_parquet(folder / "items.parquet")
    save_log(read_log(folder / "log.parquet", candidate_fields=["price"]), folder / "store")
    _write_choices(folder)
    for write in (public_files.mind, public_files.trivago, public_files.finn):
        write(folder)
    for write in public_files.ROW_BY_ROW.values():
        write(folder)
    run, log_file = str(folder / "run"), str(folder / "log.parquet")
    assert main(["train", log_file, "-o", run, "--candidate-field", "price", *SMALL]) == 0
    (folder / "config.toml").write_bytes((folder / "run" / "config.toml").read_bytes())
    assert read_log(log_file).n_events == 60
    tiny = [
        "--set",
        "episodes=1",
        "--set",
        "users=4",
        "--set",
        "warm_up=4",
        "--set",
        "batch=4",
        "--set",
        "evaluations=1",
    ]
    play = ["--horizon", "2", "--set", "width=4", "--set", "towers=[4]"]
    plain = str(folder / "plain")
    assert main(["train", log_file, "-o", plain, *SMALL]) == 0
    assert main(["rl", "train", plain, "-o", str(folder / "policy"), "-k", "2", *tiny, *play]) == 0


def _write_choices(folder: Path) -> None:
    rng = random.Random(0)
    rows = sorted({(rng.randint(1, 6), rng.randint(1, 12)) for _ in range(60)})
    timed = [
        (user, item, rng.randint(1, 5), 900_000_000 + 86_400 * i)
        for i, (user, item) in enumerate(rows)
    ]
    text = "userId,movieId,rating,timestamp\n" + "".join(
        f"{u},{m},{r},{t}\n" for u, m, r, t in timed
    )
    (folder / "ratings.csv").write_text(text)
    movies = "".join(f'{m},"Film, The {m} ({1980 + m})",Drama|War\n' for m in range(1, 13))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies)
    (folder / "u.data").write_text("".join(f"{u}\t{m}\t{r}\t{t}\n" for u, m, r, t in timed))
    plays = "".join(
        f"user_{u}\t2008-01-{1 + i % 28:02}T10:00:00Z\tart{m}\tName {m}\ttr{m}\tSong\n"
        for i, (u, m, _, _) in enumerate(timed)
    )
    (folder / "plays.tsv").write_text(plays)


def pick(rng: random.Random) -> tuple[Target, list[str]]:
    """A target by weight, and one of its commands."""
    target = rng.choices(TARGETS, [target.weight for target in TARGETS])[0]
    return target, rng.choice(target.commands).split()
