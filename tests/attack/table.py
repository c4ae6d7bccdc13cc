"""The attacks, a row each: what `make attack` runs."""

from __future__ import annotations

import json
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
from fastgaum.logs.read import raw_rows, read_log
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
from tests.builders import change_state, change_table, flip_bit, log_of, put
from tests.cli.good_files import Seeds
from tests.logs.test_bad_files import changed_footer
from tests.test_panics import damaged_arrow


def long_line(path: Path) -> None:
    """A line of two gigabytes: a hole, which takes no disk."""
    path.write_text("session,event,item,chosen\nu,1,")
    os.truncate(path, 2 << 30)


def two_counts(path: Path) -> None:
    """A parquet file whose row group says half of the rows that its columns hold."""
    rows = pl.DataFrame({"session": range(480), "event": 0, "item": "a"})
    rows.with_columns(chosen=pl.lit(1)).write_parquet(path)
    changed_footer(path, 480, 241, 5)


def others(says: str, text: str = "", **changes: object) -> Refused:
    """A file of rows of others: the text, or one row with changes."""
    row = {"dataset": "sample", "model": "theirs", "source": "a paper", "prec1": 70.0, **changes}
    command = "reproduce --datasets sample --models random --add rows.json"
    return Refused(command, says, {"rows.json": text or json.dumps({"rows": [row]})})


# fmt: off
LONG = "a" * 300
DEEP = "[" * 100_000 + "]" * 100_000
BIG = [2**60, 2**60 + 1, 2**60 + 2, 2**60 + 3]
PRICE = "--candidate-field p"
CATEGORIES = "which would be read as categories"
READ: dict[str, Attack] = {
    # the order of events
    "events 10, 9 and x": log("'event' = 'x', and orders events beside numbers", event=["10", "9", "9", "x"]),
    "clock times": log("2025-01-09 08:30", event=["10:00", "9:05", "10:00", "9:05"]),
    "a time in words": log("'1 Uhr'", event=["2024-05-01 08:00", "1 Uhr", *["2024-05-02 09:00"] * 2]),
    "US dates": log("2025-01-09", event=["01/09/2025", "02/03/2025", *["03/01/2025"] * 2]),
    "US dates with a 13th": log("the year first", event=["01/13/2025", *["02/03/2025"] * 3]),
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
    "a name twice": raw("log.csv", b"session,event,item,item,chosen\n1,1,1,1,1\n", "two columns 'item': rename or drop one"),
    "columns divided by other signs": raw("log.csv", b"session;event|item\n1\n", "name what divides columns, --delimiter"),
    "not UTF-8": raw("log.csv", b"session,event,item,chosen\nu,1,\xff,1\n", "UTF-8"),
    "a NUL in a name": raw("log.csv", b"session,event,it\0em,chosen\nu,1,a,1\n", "no item column"),
    "UTF-16": raw("log.csv", "session,event".encode("utf-16"), "is UTF-16, UTF-8 is required"),
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
    "a misnamed column": log("did you mean 'choosen'", chosen=None, choosen=[1, 0, 0, 1]),
    "a session without an event": log("has no event", session=["u3", "u3", "u3", "u5"], event=[17, 17, 18, None], item=["a", "b", "a", None]),
    "not UTF-8, by its line": raw("log.csv", "session,event,item,chosen\nu,0,café,1\n".encode("latin1"), "not UTF-8: line 2"),
    "one bad shard": Refused("data convert log -o out", "'b.parquet' is no readable parquet file", {"log/a.parquet": pl.DataFrame(GOOD), "log/b.parquet": b"PAR1" + bytes(40)}),
    "a line of 2 GB": raw("log.csv", long_line, "no line end in the"),
    "20,000 columns": raw("log.csv", ",".join(f"c{i}" for i in range(20_000)) + "\n1\n", "has 20000 columns, at most 10000"),
    "an escape in a header": raw("log.csv", b"session,event,it\x1b[31mem,chosen\nu,1,a,1\n", r"it\x1b[31mem"),
    "bidi in a header": raw("log.csv", "session,event,it\u202eem,chosen\nu,1,a,1\n", r"it\u202eem"),
    "an escape in an id": raw("log.csv", b"session,event,item,chosen\nu\x1b[2J,1,a,1\nu\x1b[2J,1,b,1\n", r"u\x1b[2J"),
    "an empty item table": Refused("data convert {log} -o out --item-table t.csv", "the table is empty", {"t.csv": "item,k\n"}),
    "a table of other items": Refused("data convert {log} -o out --item-table t.csv", "none of the log's", {"t.csv": "item,k\nnobody,1\n"}),
    "a copy that is not the file": Refused("data get yelp --from yelp.txt --data-dir .", "yelp.txt' has the sha256", {"yelp.txt": "not it"}),
    "parquet that contradicts itself": raw("log.parquet", two_counts, "it says 480 rows, its row groups 241"),
    "parquet below a folder of parquet": Refused("data convert log -o out", "beside its 1 parquet shards", {"log/a.parquet": pl.DataFrame(GOOD), "log/more/b.parquet": pl.DataFrame(GOOD)}),
    "csv beside parquet": Refused("data convert log -o out", "holds 'b.csv' beside its 1 parquet shards", {"log/a.parquet": pl.DataFrame(GOOD), "log/b.csv": pl.DataFrame(GOOD)}),
    "a number that polars does not know": raw("log.arrow", damaged_arrow, "polars fails on its contents", PRICE),
    "a grid of 20 digits": log("a number of columns from 1 to 1000000", f"--ordered --grid {10**20 - 1}"),
    "an index as a field": log("a name is required", "--candidate-field ''", **{"": [0, 1, 2, 3]}),
    "an index as the context": log("a name is required", "--context-field ''", **{"": [0, 1, 2, 3]}),
    "several clicks without an event": log("--column event=NAME", event=None, item=[*"abca"], chosen=[1, 1, 0, 1]),
    "an item twice without an event": log("each session is one display", event=None),
    "an event that is misspelt": log("event=session if each session is one display", event=None, evnt=[1, 1, 2, 1]),
    "a past with commas": log("text of ids with spaces", "--past seen", seen="a,b"),
    "a past of other words": log("none of its 2 words is an item", "--past seen", seen="blue shirt"),
    "displays of MIND under another name": log("as MIND writes them", chosen=None, shown="N1-0 N2-1"),
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
def state(change: Callable[[Any, dict[str, np.ndarray]], object], says: str) -> Refused:
    """A run whose model has another state, or other arrays, is not evaluated."""

    return of_run("model.safetensors", lambda path: change_state(path, lambda about, arrays: change(about["state"], arrays)), EVALUATE, says)


# fmt: on


def tensor(name: str, at: int, value: float, says: str) -> Refused:
    """The same with one number of one array changed."""
    return state(lambda _, arrays: arrays[name].reshape(-1).__setitem__(at, value), says)


def header(length: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])


def same_texts(_: object, arrays: dict[str, np.ndarray]) -> None:
    texts = json.loads(arrays[f"{FIELD}/values"].tobytes())
    arrays[f"{FIELD}/values"] = np.frombuffer(json.dumps(["same"] * len(texts)).encode(), np.uint8)


def saved(says: str, change: Callable[[Path], object]) -> Refused:
    """A saved log that was changed is not converted."""
    return Refused(
        "data convert store -o out", says, {"store/log.json": lambda path: change(path.parent)}
    )


def table(says: str, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Refused:
    """A saved log with a table changed, checksum and all."""
    return saved(says, lambda folder: change_table(folder, name, change))


def rows(says: str, name: str, column: str, *values: Any) -> Refused:
    """The same with the first values of one column; a number takes the first place of a list."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        found = frame[column].to_list()
        for i, value in enumerate(values):
            of_list = isinstance(found[i], list) and not isinstance(value, list)
            found[i] = [value, *found[i][1:]] if of_list else value
        return frame.with_columns(pl.Series(column, found, frame[column].dtype))

    return table(says, name, change)


def manifest(says: str, change: Callable[[Any], object]) -> Refused:
    """A saved log whose log.json was changed; a text takes its place."""

    def write(folder: Path) -> None:
        about = json.loads((folder / "log.json").read_text())
        new = change(about)
        (folder / "log.json").write_text(new if isinstance(new, str) else json.dumps(about))

    return saved(says, write)


def cut_short(folder: Path) -> None:
    path = next(folder.glob("events-0.*"))
    path.write_bytes(path.read_bytes()[:-9])


def config(text: str | bytes, says: str) -> Refused:
    """A configuration is not trained."""
    return Refused("train {log} -o new --config c.toml", says, {"c.toml": text})


def with_query() -> SessionLog:
    zeros = np.zeros(LOG.n_candidates, np.float32)
    return put(LOG, candidate={"price": zeros}, event={"query": zeros[: LOG.n_events]})


def asked(command: str, says: str) -> tuple[str, Refused]:
    """A command line without files of its own is refused; it is its row's name."""
    return command, Refused(command, says)


# fmt: off
FIELD, WEIGHT = "space/base/categorical/0", "weights/player.reward.rest.0.weight"
REPORT, EVALUATE = "report run -o page.html", "evaluate run {log}"
AGAIN = "train {log} -o run --resume"
RUNS: dict[str, Attack] = {
    "model with one bit changed": of_run("model.safetensors", flip_bit, EVALUATE, "bytes have changed since"),
    "model that is cut": of_run("model.safetensors", lambda path: os.truncate(path, 5000), EVALUATE, "damaged"),
    "model that is a pipe": of_run("model.safetensors", pipe, EVALUATE, "no model at"),
    "model that is a zip": of_run("model.safetensors", b"PK\x03\x04" + bytes(99), EVALUATE, "damaged"),
    "model of another version": of_run("model.safetensors", lambda path: change_state(path, lambda about, _: about.update(format="fastgaum-model-99")), EVALUATE, "fastgaum-model-99"),
    "model: header of exabytes": of_run("model.safetensors", header(2**60), EVALUATE, "its header declares"),
    "model: header beyond the file": of_run("model.safetensors", header(4_000_000), EVALUATE, "its header declares"),
    "model: wider than its weights": state(lambda about, _: about["config"].update(hidden=[60000, 60000]), "the configuration asks for"),
    "model: deeper than its weights": state(lambda about, _: about["config"].update(history_layers=100), "asks for more layers than"),
    "model: impossible configuration": state(lambda about, _: about["config"].update(hidden=[10**9]), "hidden must be a list of 1 to 100 values, each a whole number"),
    "model: NaN weight": tensor(WEIGHT, 1, float("nan"), "rest.0.weight' holds nan at 1"),
    "model: infinite mean": tensor("space/base/code/start", 0, float("inf"), "space/base/code/start' holds inf at 0"),
    "model: scale of 0": tensor("space/base/code/scale", 0, 0.0, "not positive"),
    "model: number of no column": tensor("space/base/code/columns", 0, 10**6, "reads a column that is none of"),
    "model: texts that are cut": tensor(f"{FIELD}/values", -1, 0, "is damaged"),
    "model: negative count": tensor("space/base/item_counts/displays", 0, -1, "holds a count below 0"),
    "model: two items of one id": state(same_texts, "holds a value twice"),
    "model: weights missing": state(lambda _, arrays: arrays.pop(WEIGHT), "is missing"),
    "model: number of another version": state(lambda about, _: about["space"]["base"]["number_names"].__setitem__(0, "displayed_afore"), "is not a number that this version makes"),
    "model: ids that overlap": state(lambda about, _: about["space"]["base"]["categorical"][0].update(start=0), "1 is required"),
    "model: damaged space": state(lambda about, _: about.update(space=[]), "is damaged"),
    "reading: unknown option": of_run("reading.json", '{"candidate_feild": ["price"]}', EVALUATE, "reading.json"),
    "reading: a list": of_run("reading.json", "[]", EVALUATE, "options by name"),
    "log of other fields": Refused("evaluate {run} log.csv", "price", {"log.csv": pl.DataFrame(GOOD)}),
    "log of another context": Refused("evaluate {run} log", "was trained on context fields [], log 'synthetic' declares ['query']", {"log": lambda path: fg.save_log(with_query(), path)}),
    "checkpoint that is a model": of_run("resume.safetensors", copy_of_model, AGAIN, "this version reads 'fastgaum-run"),
    "checkpoint of noise": of_run("resume.safetensors", b"\xff" * 1000, AGAIN, "damaged"),
    "reading that is a pipe": of_run("reading.json", pipe, REPORT, "missing, or no file"),
    "machine that is a pipe": of_run("machine.json", pipe, REPORT, "missing, or no file"),
    "metrics that are a pipe": of_run("metrics.parquet", pipe, REPORT, "that is a file"),
    "metrics of 400,000 rows": of_run("metrics.parquet", long_table, REPORT, "a page has room for 10000"),
    "metrics with a text": of_run("metrics.parquet", table_of(loss=pl.lit("x")), REPORT, "is damaged"),
    "metrics of one epoch twice": of_run("metrics.parquet", table_of(epoch=pl.lit(1)), REPORT, "epochs that rise"),
    "metrics without a speed": of_run("metrics.parquet", table_of(events_per_second=pl.lit(None)), REPORT, "a speed"),
    "machine: source is 5": of_run("machine.json", record(source=5), REPORT, "`$.log.source`"),
    "machine: cost is a text": of_run("machine.json", record(cost="x"), REPORT, "`$.cost`"),
    "machine: 10^400 seconds": of_run("machine.json", record(cost={"seconds": 10**400}), REPORT, "out of range"),
    "machine: a list": of_run("machine.json", "[]", REPORT, "holds no object"),
    "reading: nested": of_run("reading.json", "[" * 99_999, EVALUATE, "nested too deeply"),
    "reading: a grid of 20 digits": of_run("reading.json", f'{{"ordered": true, "grid": {10**20 - 1}}}', EVALUATE, "reading.json"),
    "reading: a long name": of_run("reading.json", f'{{"item_table": "{LONG}"}}', EVALUATE, "255 bytes"),
    "reading: another type": of_run("reading.json", '{"candidate_field": 3}', EVALUATE, "candidate_fields is 3, expected a list"),
    "config: a rate of 1e308": Refused("train {log} -o new --set generator_lr=1e308", "at most 1e+30"),
    "config: a table as a list": Refused("train {log} -o new --config c.toml", "cannot read", {"c.toml": "[a]\n[[a]]\n"}),
    "output: no room for its part": Refused(f"predict {{run}} {{log}} -o {'a' * 242}.csv", "255 bytes"),
    "threads without end": Refused("train {log} -o new --threads 1000000000", "at most 1024"),
    "a policy of noise": Refused("simulate {run} -o t.csv --policy p", "p", {"p/policy.safetensors": b"\xff" * 99}),
    "a policy of a long name": Refused(f"ope {{log}} --run {{run}} --policy {LONG}", "255 bytes"),
    "host with a NUL": Refused("serve {run} --host 'a\0b'", "host is an address or a name"),
    "host that is no IDNA": Refused(f"serve {{run}} --host {'ü' * 100}", "host is an address or a name"),
    "port of 70000": Refused("serve {run} --http 70000", "from 0 (any free one) to 65535"),
    "rows of others that are no JSON": others("docs/rows.schema.json says", "{"),
    "rows of others nested without end": others("nested too deeply", DEEP),
    "no row of others": others("Expected `array` of length >= 1", '{"rows": []}'),
    "a figure of others that is a text": others("Expected `float`, got `str` - at `$.rows[0].prec1`", prec1="70"),
    "a share of others above 100 %": others("<= 100.0 - at `$.rows[0].prec1`", prec1=700),
    "a likelihood of others that is no number": others(">= 0.0 - at `$.rows[0].nll`", nll=float("nan")),
    "a field of others that does not exist": others("unknown field `recall`", recall=3),
    "rows of others of another log": others("rows of yelp, and the table is of sample", dataset="yelp"),
    "a row of others on another split": others("fingerprint aaaaaaaaaaaa, 'sample' has ", fingerprint="a" * 64),
    "a comparison without a test split": Refused("compare log.csv", "--split-by user or --resplit", {"log.csv": pl.DataFrame(GOOD | {"split": ["train"] * 3 + ["validation"]})}),
}
# fmt: on
# fmt: off
STORES: dict[str, Attack] = {
    "grid of 20 digits": manifest("grid is 99999999999999999999", lambda about: about.update(grid=10**20 - 1)),
    "item out of range": rows("items holds 1000000 at", "events", "items", 10**6),
    "negative item": rows("items holds -5 at", "events", "items", -5),
    "item twice": rows("is damaged", "events", "items", [1, 1, 1]),
    "choice out of range": rows("choices holds 99", "events", "choices", 0, 0, 99),
    "empty display": rows("is damaged", "events", "items", []),
    "fewer events": rows("session_offsets ends with", "sessions", "n_events", 0),
    "negative events": rows("session_offsets holds -1", "sessions", "n_events", -1),
    "no events": rows("session_offsets ends with", "sessions", "n_events", None),
    "unknown split": rows("split holds 7", "sessions", "split", 7),
    "negative user": rows("users holds -1", "sessions", "users", -1),
    "views of 0": rows("views holds 0", "events", "views", 0),
    "gap in the session ids": rows("session_ids holds", "sessions", "session_ids", None),
    "item ids that are alike": rows("item_ids holds a value twice", "items", "item_ids", "a", "a"),
    "items that are text": table("items is object", "events", lambda frame: frame.cast({"items": pl.List(pl.String)})),
    "items that are no lists": table("is damaged", "events", lambda frame: frame.with_columns(items=pl.lit(1))),
    "column that is not there": table("is damaged", "events", lambda frame: frame.drop("choices")),
    "a list too short": rows("price has not one value per candidate", "events", "candidate.price", [1.0]),
    "table elsewhere": manifest("a plain name is required", lambda about: about["items"].update(file="../items.parquet")),
    "absolute table": manifest("a plain name is required", lambda about: about["items"].update(file="/etc/passwd")),
    "table that is not there": manifest("cannot be read", lambda about: about["items"].update(file="items.parquet")),
    "table of another log": manifest("it was changed", lambda about: about["items"].update(sha256="0" * 64)),
    "table that is cut short": saved("it was changed", cut_short),
    "no table": manifest("missing required field `items`", lambda about: about.pop("items") and None),
    "no part": manifest("is damaged", lambda about: about.update(parts=[])),
    "a part twice": manifest("a user is in two parts", lambda about: about["parts"].append(about["parts"][0])),
    "a part of other counts": manifest("counts other events than the part holds", lambda about: about["parts"][0]["counts"].update(events=[9, 9, 9])),
    "a part of negative counts": manifest("Expected `int` >= 0", lambda about: about["parts"][0]["counts"].update(events=[-9, 9, 9])),
    "a part of two splits": manifest("counts other events than the part holds", lambda about: about["parts"][0]["counts"].update(events=[9, 9])),
    "manifest nested": manifest("nested too deeply", lambda _: f'{{"x": {DEEP}}}'),
    "manifest of another kind": manifest("is damaged", lambda about: about.update(parts=3)),
    "manifest of another version": manifest("version", lambda about: about.update(version=1)),
    "log of an earlier version": saved("convert it anew from its source", lambda folder: (folder / "log.json").rename(folder / "shards.json")),
    "manifest of noise": saved("log.json", lambda folder: (folder / "log.json").write_bytes(b"\xff\x00")),
    "manifest: a list": manifest("log.json", lambda _: "[]"),
}
TRAIN = "train {log} -o new"
ASKED: dict[str, Attack] = {
    "configuration: unknown key": config("epocs = 3", "did you mean 'epochs'"),
    "configuration: half a line": config("epochs = ", "cannot read configuration"),
    "configuration: nested": config(f"hidden = {DEEP}", "nested too deeply"),
    "configuration: megabytes": config("#" * 2_000_000, "longer than the"),
    "configuration: NUL": config("epochs\x00 = 3", "cannot read configuration"),
    "configuration: not UTF-8": config(b"preset = '\xff'", "cannot read configuration"),
    "folds: one": Refused(f"{TRAIN} --set folds=1", "folds must be 0, or at least 2, got 1"),
    "folds: too many": Refused(f"{TRAIN} --set folds=101", "folds must be"),
    "search: no key": Refused(f"""{TRAIN} --set "search=['drpout']" """, "did you mean 'dropout'"),
    "setting: beyond a float": Refused(f"{TRAIN} --set eta={10**400}", "eta must be a number greater than 0 and finite"),
    "setting: seed beyond 64 bits": Refused(f"{TRAIN} --set seed={10**40}", "seed must be a whole number at least 0 and at most"),
    "setting: nested": Refused(f"{TRAIN} --set hidden={DEEP}", "hidden must be a list"),
    "no validation session": Refused("train log.csv -o new", "no validation session", {"log.csv": pl.DataFrame(GOOD | {"split": "train"})}),
    "folder of other files": Refused("train {log} -o new --overwrite", "thesis.tex", {"new/thesis.tex": "years of work"}),
    "log folder of other files": Refused("data convert {log} -o new --overwrite", "is no saved log", {"new/notes.txt": "mine"}),
    "a run that is no folder": Refused("report {run} {log}", "is no run folder"),
    "another log": Refused("report {run} --log other.csv", "was trained on the log 'world' with the fingerprint", {"other.csv": pl.DataFrame(GOOD | {"price": 1.0})}),
    "choices as a log": Refused("data audit u.data", "`fastgaum data build`", {"u.data": "1\t2\t3\t881250949\n"}),
    "a name of a folder": Refused("evaluate rum {log}", "did you mean 'run'", {"run/x": ""}),
    "ratings of no time": Refused("data build r -o out", "column 'timestamp' holds no times", {"r/ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.0,yesterday\n"}),
    "an empty folder of ratings": Refused("data build r -o out", "no parquet shards (it holds nothing)", {"r": lambda path: path.mkdir()}),
    **{f"{command.split(' -')[0]} below a file": Refused(command, "cannot write", {"file": "in the way"}) for command in (
        "train {log} -o file/out", "evaluate {run} {log} --json file/out.json", "predict {run} {log} -o file/out.csv",
        "reproduce --datasets absent --json file/out.json", "compare absent --json file/out.json",
    )},
    **dict([
        asked(f"{TRAIN} --preset fastgam", "did you mean 'fastgaum'"),
        asked(f"{TRAIN} --preset logti", "did you mean 'logit'?"),
        asked(f"{TRAIN} --set epoch=3", "did you mean 'epochs'"),
        asked(f"{TRAIN} --set epochs=three", "epochs must be a whole number"),
        asked(f"{TRAIN} --set eta=-1", "eta must be a number greater than 0"),
        asked(f"{TRAIN} --set history=lsmt", "history must be one of lstm"),
        asked(f"{TRAIN} --set epochs", "key=value"),
        asked(f"{TRAIN} --set preset=3", "preset must be a name"),
        asked(f"{TRAIN} --set history_layers=1000000000", "history_layers must be a whole number at least 1 and at most 100"),
        asked(f"{TRAIN} --set hidden=[65536,65536,65536,65536,65536,65536,65536]", "GB to train"),
        asked(f"{TRAIN} --seed -1", "seed must be a whole number at least 0"),
        asked(f"{TRAIN} --seed one", "unable to convert"),
        asked(f"{TRAIN} --protocol bag", 'Did you mean "bags"'),
        asked(f"{TRAIN} --sed 1", "Did you mean --seed"),
        asked(f"{TRAIN} --threads 0", "--threads must be at least 1 and at most 1024, got 0"),
        asked(f"{TRAIN} --device gpu", "unknown device 'gpu'"),
        asked(f"{TRAIN} --config absent.toml", "cannot read configuration"),
        asked(f"{TRAIN} --column item:sku", "role=name"),
        asked(f"{TRAIN} --column itme=sku", "did you mean 'item'"),
        asked(f"{TRAIN} --column item=itm", "did you mean 'item'"),
        asked(f"{TRAIN} --candidate-field prize", "did you mean 'price'"),
        asked(f"{TRAIN} --context-field qury", "did you mean 'query'"),
        asked(f"{TRAIN} --context-field price", "a context field has one value per event"),
        asked(f"{TRAIN} --context-field chosen", "says what was chosen"),
        asked(f"{TRAIN} --context-field query --candidate-field query", "as a candidate field and as a"),
        asked(f"{TRAIN} --item-table absent.parquet", "absent.parquet"),
        asked(f"{TRAIN} --split-by usr", 'Did you mean "user"'),
        asked(f"{TRAIN} --clicks last", "Choose from"),
        asked(f"{TRAIN} extra", "extra"),
        asked("data info", "`fastgaum data info` needs NAME (a registry name)"),
        asked("train sample -o", "requires an argument"),
        asked("trian", 'Did you mean "train"'),
        asked("data lst", 'Did you mean "list"'),
        asked("rl evalute", 'Did you mean "evaluate"'),
        asked("train sampel -o new", "did you mean 'sample'"),
        asked("evaluate {run} sampel --quiet", "did you mean 'sample'"),
        asked("reproduce --datasets sample --models fastgam", "did you mean 'fastgaum'"),
        asked("reproduce --datasets sampel", "did you mean 'sample'"),
        asked("reproduce --datasets sample --seeds 0", "--seeds must be at least 1"),
        asked("reproduce --datasets sample --jobs 0", "--jobs must be at least 1"),
        asked("reproduce --datasets sample --models ,", "--models is an empty list"),
        asked("reproduce --datasets sample --set ep=1", "unknown configuration key 'ep'"),
        asked("compare {log} --models logti", "did you mean 'logit'"),
        asked("compare {log} --models click-rate --add absent.json", "No such file"),
        asked("compare {log} --context-field qury", "did you mean 'query'"),
        asked("compare {log} --split-by half --resplit 1", "give one of them"),
        asked("compare {log} --split-seed 7 --resplit 1", "--split-seed 7 splits the log"),
        asked("bench lsmt", "did you mean 'lstm'"),
        asked("bench env-4096 --threads 0", "threads must be at least 1 and at most 1024, got 0"),
        asked("data info yelpp", "did you mean 'yelp'"),
        asked("data get yelpp", "did you mean 'yelp'"),
        asked("data get ebnerd --data-dir .", "--from FILE"),
        asked("data convert {log} -o out.xlsx", ".parquet, .csv, or into a folder"),
        asked("data synth -o w --preset tial", "did you mean 'tail'"),
        asked("data synth -o w --no-click 2", "no_click is 2.0"),
        asked("data synth -o w --events 0", "n_events is 0"),
        asked("data synth -o w --rule l3", "Choose from"),
        asked("data audit absent.csv", "neither a file nor a data set"),
        asked("data build {log} -o log.xlsx", ".parquet, .csv, or into a folder"),
        asked("data build sample -o log.csv", "display sets of their own"),
        asked("data build absent -o log.csv", "neither a file nor a data set"),
        asked("predict {run} {log} -o p.xlsx", ".parquet or .csv"),
        asked("train {log} -o {run} --resume --quiet --set epochs=9", "has ended and has epochs = 1, not 9"),
        asked("predict {run} {log} -o p.csv --at-place 1", "does not keep places apart from taste"),
        asked("predict {run} {log} -o p.csv --at-place first", "at-place"),
        asked("what-if {run} {log}", "nothing is asked"),
        asked("what-if {run} {log} --scale price", "is not FIELD=VALUE"),
        asked("what-if {run} {log} --scale price=nan", "makes nan of"),
        asked("what-if {run} {log} --scale price=.9 --scale price=.1", "names each field once"),
        asked("what-if {run} {log} --worth prize=price", "did you mean 'price'"),
        asked("fidelity {run} {log} --episodes 0", "episodes must be at least 1, got 0"),
        asked("fidelity {run} {log} --seed -1", "seed must be at least 0, got -1"),
        asked("fidelity {run} {log} --split all", "Choose from"),
        asked("fidelity {run} {log} --head rewards", "Did you mean"),
        asked("fidelity {run} {log} --plot f.pdf", "ends in '.pdf', a figure is written as .svg or .png"),
        asked("fidelity {run} {log} --threads 0", "--threads must be at least 1"),
        asked("fidelity {run} {log} --json .", "it is a folder"),
        asked("fidelity absent {log}", "absent"),
        asked("report {run} --compare", "puts two runs side by side, got 1"),
        asked("report {run} --split all", "Choose from"),
        asked("report {run} -o .", "it is a folder"),
        asked("report {run} --log absent.csv", "'absent.csv' is neither a file nor a data set"),
        asked("report {run} --log sample", "no column 'price'"),
        asked("report {run} --threads 0", "--threads must be at least 1"),
        asked("report {run} absent", "'absent' is no run folder"),
        asked("ope {log} --policy gredy --run {run}", "did you mean 'greedy'"),
        asked("ope {log} --policy greedy", "--run"),
        asked("ope {log} --policy random --run {run} --epsilon 2", "a share from 0 to 1 is required"),
        asked("ope {log} --policy random --run {run} --propensity price", "context if an event has one value"),
        asked("ope {log} --policy random --run {run} --propensity chosen", "it cannot be a context field"),
        asked("ope {log} --policy . --run {run}", "no policy at '.'"),
        asked("simulate {run} -o t.csv --policy randm", "did you mean 'random'"),
        asked("simulate {run} -o t.csv --policy slateq", "written by `fastgaum rl train`"),
        asked("simulate {run} -o t.csv --threads 0", "--threads must be at least 1"),
        asked("simulate {run} -o t.csv", "price"),
        asked("simulate {run} -o t.csv --starts logged", "log"),
        asked("simulate {run} -o t.csv --log {log} --slate-size 0", "k, the items of a slate, is 0"),
        asked("simulate {run} -o t.csv --log {log} --slate-size 1000", "slate of 1000 items cannot be made"),
        asked("simulate {run} -o t.csv --log {log} --episodes 0", "number of episodes is 0"),
        asked("simulate {run} -o t.csv --log {log} --leaving 1.5", "a probability in [0, 1]"),
        asked("simulate {run} -o t.txt", ".parquet or .csv"),
        asked("simulate nothing -o t.csv", "nothing"),
        asked("rl train {run} -o p --policy cascade", "cascade-dqn"),
        asked("rl train {run} -o p --policy random", "not trained"),
        asked("rl train {run} -o p --policy slatq", "did you mean 'slateq'"),
        asked("rl train {run} -o p --set gama=1", "did you mean 'gamma'"),
        asked("rl train {run} -o p --log {log} -k 1000", "slate of 1000"),
        asked("rl train none -o p", "no model"),
        asked("rl evaluate {run} --policies gredy", "did you mean 'greedy'"),
        asked("rl evaluate {run} -k three", "three"),
        asked("rl evaluate {run} --log {log} --seeds 0", "1 seed"),
    ]),
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
    "relations of displays of 1 000": RefusedCall(lambda: fg.UserModel.from_preset(relations=True).fit(large_displays(1000)), "train with relations = false"),
    "compare of a name": RefusedCall(lambda: fg.compare("sample"), "a log in memory, got str"),  # type: ignore[arg-type]
    "compare of one text": RefusedCall(lambda: fg.compare(LOG, "logit"), "models is 'logit', a list"),
    "compare on no seed": RefusedCall(lambda: fg.compare(LOG, resplits=[-1]), "a seed of resplits is -1, a whole number"),
    "compare in no process": RefusedCall(lambda: fg.compare(LOG, jobs=0), "jobs is 0, a whole number of at least 1"),
    "compare with one fold": RefusedCall(lambda: fg.compare(LOG, ["logit"], settings={"folds": 1}), "folds must be 0, or at least 2, got 1"),
    "compare with a preset": RefusedCall(lambda: fg.compare(LOG, settings={"preset": "paper-pw"}), "preset"),
    "a world that always forgets": RefusedCall(lambda: fg.synthesise(10, decay=1.0), "decay is 1.0"),
    "a world without differences": RefusedCall(lambda: fg.synthesise(10, eta=float("nan")), "eta is nan"),
    "places of no order": RefusedCall(lambda: fg.synthesise(10, examination=1.0), "displays have no order"),
    "a field without a name": RefusedCall(lambda: read_log(frame(**{"": 1}), candidate_fields=[""]), "a name is required"),
    "a role without a name": RefusedCall(lambda: read_log(frame(), columns={"item": ""}), "a name is required"),
    "a rate of infinity": RefusedCall(lambda: fg.Config.from_preset("fastgaum", lr=float("inf")), "at most 1e+30"),
}


# fmt: on


def same_split(seeds: Seeds) -> bool:
    """A drawn split does not depend on the order of the rows, nor on users that come later."""

    def parts(rows: pl.DataFrame) -> dict[str, str]:
        found = read_log(rows.drop("split"), split="user")
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
    found = read_log(frame(session=[*"abcd"], chosen=1, **columns), time_fields=["hour"])
    return found.columns["hour"].categories.gather(found.columns["hour"].values).to_list()


def large_displays(size: int, n_events: int = 24) -> SessionLog:
    """Events of so many candidates, two a session."""
    rng = np.random.default_rng(1)
    shown = [[(rng.permutation(size).tolist(), 7) for _ in range(2)] for _ in range(n_events // 2)]
    return log_of(shown, split=([0, 0, 1, 2] * len(shown))[: len(shown)])


def large_displays_are_fitted(_: Seeds) -> bool:
    """Three epochs of displays of 10,000 candidates; the table's test bounds what they take."""
    found = fg.UserModel.from_preset(
        "fastgaum", device="cpu", warm_start=2, epochs=1, search=["relations", "tastes"]
    )
    found.fit(large_displays(10_000, 6))
    return all("displays of 10,000: no relations" in one.name for one in found.trials)


# fmt: off
TRUE: dict[str, Attack] = {
    "an index without a name is no field": IsTrue(lambda _: read_log(frame(**{"": [0, 1, 2, 3]})).fingerprint == read_log(frame()).fingerprint),
    "arrays of a log are read-only": IsTrue(lambda _: not LOG.items.flags.writeable),
    "a drawn split is the user's": IsTrue(same_split),
    "an audit names what it did not read": IsTrue(names_what_is_not_read),
    "no escape in a page": IsTrue(page_is_clean),
    "semicolons are read": IsTrue(lambda _: bool(Path("log.csv").write_bytes(frame().write_csv(separator=";").encode())) and fg.read_log("log.csv").n_events == 3),
    "ids 1, 01 and 1.0 are three": IsTrue(lambda _: read_log(frame(item=["1", "01", "1.0", "1"])).n_items == 3),
    "strange ids are ids": IsTrue(lambda _: read_log(frame(item=["-9223372036854775808", "007", "=1+1", "a\x00b"])).n_items == 4),
    "integers beyond 2^53 are kept": IsTrue(lambda _: read_log(frame(item=BIG)).n_items == 4),
    "decimals beyond 2^53 are kept": IsTrue(lambda _: read_log(frame(event=[Decimal(n) for n in BIG], chosen=1)).n_events == 4),
    "nanoseconds are kept": IsTrue(lambda _: read_log(frame(event=[f"2025-01-09 08:30:00.{n:09}" for n in (1, 2, 3, 4)])).n_events == 4),
    "a click on a repeated item is one": IsTrue(lambda _: read_log(pl.DataFrame(NESTED | {"items": [["a", "a", "b"], ["c"]], "chosen": ["a", None]})).n_candidates == 3),
    "hours are the clock's": IsTrue(lambda _: hours(event=["2024-05-01T08:00:00+02:00"] * 4) == ["8"] * 4),
    "displays of 10 000 are fitted": IsTrue(large_displays_are_fitted),
    "times of a frame are the clock's": IsTrue(lambda _: hours(event=[datetime(2024, 5, 1, 8)] * 4) == ["8"] * 4),
}
# fmt: on
TABLES = {
    "reading": READ,
    "runs": RUNS,
    "saved logs": STORES,
    "commands": ASKED,
    "names": NAMES,
    "Python": CALLS,
    "results": TRUE,
}
