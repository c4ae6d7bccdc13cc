"""The attacks, a row each. With those of tests/cli/test_bad_*.py they are what `make attack`
runs."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import fastgaum as fg
from fastgaum.logs.log import SPLITS, SessionLog
from fastgaum.logs.read import raw_rows, read_frame
from fastgaum.reports.page import write_report
from tests.attack.attacks import (
    GOOD,
    NESTED,
    Attack,
    IsTrue,
    Refused,
    RefusedCall,
    log,
    of_run,
    parquet,
    raw,
    record,
)
from tests.builders import flip_bit
from tests.cli.bad_input import Seeds

# fmt: off
LONG = "a" * 300
BIG = [2**60, 2**60 + 1, 2**60 + 2, 2**60 + 3]
PRICE = "--candidate-field p"
CATEGORIES = "which would be read as categories"
READ: dict[str, Attack] = {
    # the order of events
    "events 10, 9 and x": log("('x'): write all as numbers", event=["10", "9", "9", "x"]),
    "clock times": log("2025-01-09 08:30", event=["10:00", "9:05", "10:00", "9:05"]),
    "a time in words": log("'1 Uhr'", event=["2024-05-01 08:00", "1 Uhr", *["2024-05-02 09:00"] * 2]),
    "US dates": log("2025-01-09", event=["01/09/2025", "02/03/2025", *["03/01/2025"] * 2]),
    "US dates with a 13th": log("1 of the 4 values", event=["01/13/2025", *["02/03/2025"] * 3]),
    "half of times with a zone": log("everywhere or nowhere", event=["2024-05-01 08:00Z", *["2024-05-01 09:00"] * 3]),
    "event is view beside a time": log("--column event=time", session=["u"] * 4, chosen=[1, 0, 0, 0], event=["view"] * 4, time=[1, 1, 2, 2]),
    "time split of numbered events": log("--split-by user", "--split-by time", event=[1, 1, 1, 1]),
    # columns of one role
    "item and item_id": log("--column item=item", item_id=["x", "y", "x", "y"]),
    "chosen and clicked": log("both called as the chosen column", clicked=[0, 1, 1, 0]),
    "session and session_id": log("both called as the session column", session_id=[1, 1, 2, 3]),
    "user and user_id": log("both called as the user column", user=[1] * 4, user_id=[1, 2, 3, 4]),
    "items and item": parquet("both called as the items", nested=True, chosen=["a", None], item=["a", "c"]),
    "chosen and chosen_index": parquet("one is required", nested=True, chosen=["a", None], chosen_index=[0, None]),
    # ids and numbers
    "float items beyond 2^53": parquet("decimal numbers so large", item=pl.Series(BIG).cast(pl.Float64)),
    "float sessions beyond 2^53": parquet("decimal numbers so large", session=pl.Series(BIG).cast(pl.Float64)),
    "numbers with thousands": log(CATEGORIES, PRICE, p=["1,234.50", "2,000.00", "3.25", "1,100.75"]),
    "numbers in dollars": log(CATEGORIES, PRICE, p=["$3.50", "$4.25", "$1.00", "$2.75"]),
    "numbers in euros": log(CATEGORIES, PRICE, p=["12,50 €", "3,75 €", "4,25 €", "1,00 €"]),
    "numbers with underscores": log(CATEGORIES, PRICE, p=["1_000", "2_000", "3_000", "1_500"]),
    "numbers and n/a": log(CATEGORIES, PRICE, p=["12", "14", "n/a", "16"]),
    "numbers that are not finite": log("finite", PRICE, p=["1", "nan", "2", "3"]),
    # roles and rules
    "no item column": log("--column item=NAME", item=None),
    "no chosen column": log("chosen", chosen=None),
    "chosen is yes and no": log("chosen", chosen=["yes", "no", "no", "yes"]),
    "chosen is 2": log("chosen", chosen=[2, 0, 0, 1]),
    "two choices in one display": log("one is required", chosen=[1, 1, 0, 1]),
    "a missing item": log("item", item=["a", None, "a", "b"]),
    "a missing session": log("session", session=["u3", None, "u3", "u4"]),
    "a choice that is not displayed": parquet("among its 2 candidates", nested=True, chosen=["z", None]),
    "an index beyond the display": parquet("a position from 0 to 1", nested=True, chosen_index=[2, None]),
    "an empty display": parquet("displays nothing", nested=True, items=[["a"], []], chosen=["a", None]),
    "items of two types": parquet("item", nested=True, items=[[["a"]], [["b"]]], chosen=["a", None]),
    "a field twice, in two roles": log("as a candidate field and as a", f"{PRICE} --context-field p", p=[1, 2, 3, 4]),
    "a context that differs in a display": log("one value per event", "--context-field p", p=[1, 2, 3, 4]),
    "an unknown split": log("split", split=["train", "train", "train", "tset"]),
    # files
    "an empty file": raw("log.csv", b"", "0 bytes"),
    "a header alone": raw("log.csv", b"session,event,item,chosen\n", "the log is empty"),
    "not UTF-8": raw("log.csv", b"session,event,item,chosen\nu,1,\xff,1\n", "UTF-8"),
    "a NUL in a name": raw("log.csv", b"session,event,it\0em,chosen\nu,1,a,1\n", "no item column"),
    "UTF-16 that is none": raw("log.csv", b"\xff\xfeabc", "log.csv"),
    "a row too long": raw("log.csv", b"session,event,item,chosen\nu,1,a,1,9,9\n", "log.csv"),
    "a quote that does not end": raw("log.csv", b'session,event,item,chosen\nu,1,"a,1\n', "log.csv"),
    "truncated parquet": raw("log.parquet", b"PAR1" + bytes(40), "no readable parquet file"),
    "truncated arrow": raw("log.arrow", b"ARROW1" + bytes(40), "no readable arrow file"),
    "gzip that is none": raw("log.csv.gz", b"session,event\n", "log.csv.gz"),
    "zstd that is cut": raw("log.csv.zst", b"\x28\xb5\x2f\xfd\x04", "log.csv.zst"),
    "ndjson that is nested deep": raw("log.ndjson", '{"session": ' + "[" * 9999 + "\n", "log.ndjson"),
    "ndjson cut in the middle": raw("log.ndjson", '{"session": "u", "event": 1, "it', "log.ndjson"),
    "a pickle": raw("log.pkl", b"\x80\x04cos\nsystem\n.", "log.pkl"),
    "an empty folder": raw("log", lambda path: path.mkdir(), "log"),
    "a loop of links": raw("log.csv", lambda path: path.symlink_to(path.name), "log.csv"),
    "a path of 6,000 letters": Refused(f"data audit {'/'.join(['a' * 200] * 30)}", "255 bytes"),
    "two id columns in an item table": Refused("data convert {log} -o out --item-table t.csv", "one is required", {"t.csv": "item,item_id,k\na,b,1\n"}),
    "an item twice in a table": Refused("data convert {log} -o out --item-table t.csv", "one row per item", {"t.csv": "item,k\na,1\na,2\n"}),
    "ratings without a time": Refused("data build r.csv -o out", "r.csv", {"r.csv": "userId,movieId,rating\n1,1,5\n"}),
    "ratings that are cut": Refused("data build u.data -o out", "u.data", {"u.data": "1\t2\t3\n1\t"}),
    "a news log that is cut": Refused("data audit behaviors.tsv", "behaviors.tsv", {"behaviors.tsv": "1\tU1\t11/1"}),
    "a log in another layout": Refused("data audit log.csv", "log.csv", {"log.csv": "a,b\n1,2\n"}),
}
# fmt: on


def table_of(**columns: Any) -> Any:
    """A run's training table with columns changed."""

    def write(path: Path) -> None:
        pl.read_parquet(path).with_columns(**columns).write_parquet(path)

    return write


def long_table(path: Path) -> None:
    pl.concat([pl.read_parquet(path)] * 200_000).write_parquet(path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def copy_of_model(path: Path) -> None:
    path.write_bytes(path.with_name("model.safetensors").read_bytes())


# fmt: off
REPORT, EVALUATE = "report run -o page.html", "evaluate run {log}"
AGAIN = "train {log} -o run --resume"
RUNS: dict[str, Attack] = {
    "model with one bit changed": of_run("model.safetensors", flip_bit, EVALUATE, "bytes have changed since"),
    "model that is cut": of_run("model.safetensors", lambda path: os.truncate(path, 5000), EVALUATE, "damaged"),
    "model that is a pipe": of_run("model.safetensors", pipe, EVALUATE, "no model at"),
    "model that is a zip": of_run("model.safetensors", b"PK\x03\x04" + bytes(99), EVALUATE, "damaged"),
    "checkpoint that is a model": of_run("resume.safetensors", copy_of_model, AGAIN, "this version reads 'fastgaum-run"),
    "checkpoint of noise": of_run("resume.safetensors", b"\xff" * 1000, AGAIN, "damaged"),
    "reading that is a pipe": of_run("reading.json", pipe, REPORT, "missing, or no file"),
    "machine that is a pipe": of_run("machine.json", pipe, REPORT, "missing, or no file"),
    "metrics that are a pipe": of_run("metrics.parquet", pipe, REPORT, "that is a file"),
    "metrics of 400,000 rows": of_run("metrics.parquet", long_table, REPORT, "a page has room for 10000"),
    "metrics with a text": of_run("metrics.parquet", table_of(loss=pl.lit("x")), REPORT, "is damaged"),
    "metrics with a list": of_run("metrics.parquet", table_of(loss=pl.lit([1.0])), REPORT, "is damaged"),
    "metrics of one epoch twice": of_run("metrics.parquet", table_of(epoch=pl.lit(1)), REPORT, "epochs that rise"),
    "metrics without a speed": of_run("metrics.parquet", table_of(events_per_second=pl.lit(None)), REPORT, "a speed"),
    "machine: source is 5": of_run("machine.json", record(source=5), REPORT, "`$.log.source`"),
    "machine: cost is a text": of_run("machine.json", record(cost="x"), REPORT, "`$.cost`"),
    "machine: 10^400 seconds": of_run("machine.json", record(cost={"seconds": 10**400}), REPORT, "out of range"),
    "machine: a list": of_run("machine.json", "[]", REPORT, "holds no object"),
    "reading: nested": of_run("reading.json", "[" * 99_999, EVALUATE, "nested too deeply"),
    "reading: a long name": of_run("reading.json", f'{{"item_table": "{LONG}"}}', EVALUATE, "255 bytes"),
    "reading: another type": of_run("reading.json", '{"candidate_field": 3}', EVALUATE, "candidate_field is 3"),
    "config: a rate of 1e308": Refused("train {log} -o new --set generator_lr=1e308", "at most 1e+30"),
    "config: a table as a list": Refused("train {log} -o new --config c.toml", "cannot read", {"c.toml": "[a]\n[[a]]\n"}),
    "output: no room for its part": Refused(f"predict {{run}} {{log}} -o {'a' * 242}.csv", "255 bytes"),
    "threads without end": Refused("train {log} -o new --threads 1000000000", "at most 1024"),
    "a policy of noise": Refused("rl adapt p {run}", "p", {"p/policy.safetensors": b"\xff" * 99}),
    "a policy of a long name": Refused(f"ope sample --policy {LONG}", "give it (--run)"),
    "host with a NUL": Refused("serve {run} --host 'a\0b'", "host is an address or a name"),
    "host that is no IDNA": Refused(f"serve {{run}} --host {'ü' * 100}", "host is an address or a name"),
    "port of 70000": Refused("serve {run} --http 70000", "from 0 (any free one) to 65535"),
    "a comparison without a test split": Refused("compare log.csv", "--split-by user or --resplit", {"log.csv": pl.DataFrame(GOOD | {"split": ["train"] * 3 + ["validation"]})}),
    "a saved log: noise": Refused("data audit store", "log.json", {"store/log.json": b"\xff\x00"}),
    "a saved log: a list": Refused("data audit store", "log.json", {"store/log.json": "[]"}),
}
# fmt: on
LOG = fg.synthesise(60, preset="sample")[0]


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(GOOD | columns, strict=False)


SAMPLE = Path(fg.__file__).parent / "data" / "sample" / "sample.parquet"
WITH_A_PATH: dict[str, Callable[[str], object]] = {
    "read_log": fg.read_log,
    "load": fg.load,
    "load_log": fg.load_log,
    "save_log": lambda path: fg.save_log(LOG, path),
    "item table": lambda path: fg.read_log(SAMPLE, item_table=path),
    "UserModel.load": fg.UserModel.load,
    "write_report": lambda path: fg.write_report([path], [LOG], "never.html"),
    "Config.from_toml": fg.Config.from_toml,
}
WITH_A_NAME = (
    "data convert NAME.csv -o out",
    "data convert {log} -o NAME",
    "data convert {log} -o NAME.parquet",
    "data convert {log} -o out --item-table NAME.csv",
    "data audit {log} --json NAME",
    "data get yelp --data-dir NAME",
    "train {log} -o NAME",
    "train {log} -o NAME --resume",
    "train {log} -o run --config NAME.toml",
    "predict {run} {log} -o NAME.csv",
    "evaluate NAME {log}",
    "report NAME",
)
NAMES: dict[str, Attack] = {
    **{name: Refused(name.replace("NAME", LONG), "255 bytes") for name in WITH_A_NAME},
    **{
        f"{name} of {path[:3]!r}": RefusedCall(partial(call, path), says)
        for name, call in WITH_A_PATH.items()
        for path, says in ((LONG, "255 bytes"), ("a\0b", "without the character NUL"))
    },
}
"""names that no file can have"""
# fmt: off
CALLS: dict[str, Attack] = {
    "fit of a text": RefusedCall(lambda: fg.UserModel().fit("sample"), "a log is required"),  # type: ignore[arg-type]
    "compare of a log without test": RefusedCall(lambda: fg.compare(LOG.with_split(np.zeros(LOG.n_sessions, np.int8))), "resplits=range(1, 6)"),
    "SessionLog: an item beyond the vocabulary": RefusedCall(lambda: changed("items", 10**6), "items holds"),
    "SessionLog: an item below 0": RefusedCall(lambda: changed("items", -1), "items holds"),
    "SessionLog: a choice beyond the display": RefusedCall(lambda: changed("choices", 10**4), "choices holds"),
    "SessionLog: a user below 0": RefusedCall(lambda: changed("users", -1), "users holds"),
    "SessionLog: a split of 7": RefusedCall(lambda: changed("split", 7), "split holds"),
    "SessionLog: an offset of 10^8": RefusedCall(lambda: changed("display_offsets", 10**8), "display_offsets"),
    "SessionLog: too few item ids": RefusedCall(lambda: dataclasses.replace(LOG, item_ids=LOG.item_ids[:1]), "items holds"),
    "SessionLog: too few users": RefusedCall(lambda: dataclasses.replace(LOG, users=LOG.users[:-1]), "users has"),
    "a rate of infinity": RefusedCall(lambda: fg.Config.from_preset("fastgaum", lr=float("inf")), "at most 1e+30"),
}


# fmt: on
def changed(name: str, value: int) -> SessionLog:
    """The log with the first number of one array changed."""
    values = getattr(LOG, name).copy()
    values[0] = value
    return dataclasses.replace(LOG, **{name: values})


def same_split(seeds: Seeds) -> bool:
    """A drawn split does not depend on the order of the rows, nor on users that come later."""

    def parts(rows: pl.DataFrame) -> dict[str, str]:
        found = read_frame(rows.drop("split"), split="user")
        return dict(zip(found.session_ids, (SPLITS[i] for i in found.split), strict=True))

    whole = parts(seeds.frame)
    mirrored = parts(seeds.frame.reverse())
    users = seeds.frame["user"].unique(maintain_order=True)
    fewer = parts(seeds.frame.filter(pl.col("user").is_in(users[: len(users) // 2].implode())))
    return mirrored == whole and fewer.items() <= whole.items()


def page_is_clean(seeds: Seeds) -> bool:
    """What a terminal obeys does not reach a page."""
    shutil.copytree(seeds.run, "run")
    text = (
        Path("run/machine.json")
        .read_text()
        .replace('"system": "', '"system": "a\\u001b[31mb\\u202e')
    )
    Path("run/machine.json").write_text(text)
    write_report(["run"], [fg.read_log(seeds.log, candidate_fields=["price"])], "page.html")
    page = Path("page.html").read_text()
    return "a\\x1b[31mb\\x202e" in page and "\x1b" not in page


def names_what_is_not_read(_: Seeds) -> bool:
    """The audit of a file names its other columns."""
    frame(query="q").write_csv("log.csv")
    return "query" in fg.audit(fg.read_log("log.csv"), raw_rows("log.csv")).not_read


def hours(**columns: Any) -> list[str]:
    """The hours of four sessions."""
    found = read_frame(frame(session=[*"abcd"], chosen=1, **columns), time_fields=["hour"])
    return found.categories["hour"].gather(found.event_fields["hour"]).to_list()


# fmt: off
TRUE: dict[str, Attack] = {
    "arrays of a log are read-only": IsTrue(lambda _: not LOG.items.flags.writeable),
    "a drawn split is the user's": IsTrue(same_split),
    "an audit names what it did not read": IsTrue(names_what_is_not_read),
    "no escape in a page": IsTrue(page_is_clean),
    "semicolons are read": IsTrue(lambda _: bool(Path("log.csv").write_bytes(frame().write_csv(separator=";").encode())) and fg.read_log("log.csv").n_events == 3),
    "ids 1, 01 and 1.0 are three": IsTrue(lambda _: read_frame(frame(item=["1", "01", "1.0", "1"])).n_items == 3),
    "integers beyond 2^53 are kept": IsTrue(lambda _: read_frame(frame(item=BIG)).n_items == 4),
    "decimals beyond 2^53 are kept": IsTrue(lambda _: read_frame(frame(event=[Decimal(n) for n in BIG], chosen=1)).n_events == 4),
    "nanoseconds are kept": IsTrue(lambda _: read_frame(frame(event=[f"2025-01-09 08:30:00.{n:09}" for n in (1, 2, 3, 4)])).n_events == 4),
    "dates after the 12th are in order": IsTrue(lambda _: read_frame(frame(event=["13/01/2025", "14/01/2025", "02/02/2025", "31/12/2024"])).n_events == 4),
    "a click on a repeated item is one": IsTrue(lambda _: read_frame(pl.DataFrame(NESTED | {"items": [["a", "a", "b"], ["c"]], "chosen": ["a", None]})).n_candidates == 3),
    "hours are the clock's": IsTrue(lambda _: hours(event=["2024-05-01T08:00:00+02:00"] * 4) == ["8"] * 4),
    "times of a frame are the clock's": IsTrue(lambda _: hours(event=[datetime(2024, 5, 1, 8)] * 4) == ["8"] * 4),
}
# fmt: on
TABLES = {"reading": READ, "runs": RUNS, "names": NAMES, "Python": CALLS, "results": TRUE}
