"""The commands when all is well: what they print, what they leave on disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main
from fastgaum.models.run_folder import MADE_FILES
from fastgaum.presets import PORTFOLIO
from tests.cli.good_files import QUICK
from tests.test_docs import undrawn


def test_train_leaves_a_run_folder(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == sorted(MADE_FILES)
    config = tomllib.loads((trained / "config.toml").read_text())
    assert (config["preset"], config["epochs"]) == ("fastgaum", 1)
    assert json.loads((trained / "reading.json").read_text()) == {"candidate_field": ["price"]}
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == pl.read_parquet(trained / "metrics.parquet").height


def test_a_run_has_a_card_for_people(trained: Path, log_file: Path, tmp_path: Path) -> None:
    """Of a preset and of a model that is fitted in one go; ids of a log start no markup."""
    card = (trained / "README.md").read_text(encoding="utf-8")
    about = json.loads((trained / "machine.json").read_text())
    best = pl.read_parquet(trained / "metrics.parquet").filter("best").row(-1, named=True)
    for said in (
        "# fastgaum: a user model",
        f"`{about['log']['fingerprint']}`",
        "| fields that it may read | price |",
        f"| validation: prec@1, % | {best['val_prec1']:.4g} |",
        "`fastgaum evaluate RUN LOG --split test`",
    ):
        assert said in card
    odd = tmp_path / "a|b <i>.parquet"
    shutil.copy(log_file, odd)
    run = tmp_path / "run"
    assert main(["train", str(odd), "-o", str(run), "--preset", "click-rate"]) == 0
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "| log | a\\|b &lt;i> |" in card
    assert "| validation: negative log-likelihood | " in card
    # a code block of the card is code
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code.replace("RUN", str(run)), names := {})
    assert names["model"].name == "click-rate"


def test_a_model_file_brings_the_reading_of_its_run(tmp_path: Path) -> None:
    frame = pl.DataFrame({"session": range(40), "times": [1.0, 3.0] * 20, "event": 0})
    frame = frame.join(pl.DataFrame({"item": ["a", "b"]}), how="cross")
    frame = frame.with_columns(pl.Series("chosen", [1, 0, 0, 1] * 20))
    frame.write_parquet(tmp_path / "log.parquet")
    log, run, found = str(tmp_path / "log.parquet"), tmp_path / "run", []
    assert main(["train", log, "-o", str(run), "--preset", "click-rate", "--weight", "times"]) == 0
    for one in (run, run / "model.safetensors"):
        out = tmp_path / f"{one.name}.json"
        assert main(["evaluate", str(one), log, "--json", str(out)]) == 0
        found.append(json.loads(out.read_text()))
    assert found[0]["weighted"]
    assert found[0]["heads"] == found[1]["heads"]


def test_one_heavy_event_is_said_to_be_all(
    log_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a training, an evaluation, an audit and the page; equal weights are not worth a word."""
    monkeypatch.setattr("fastgaum.reports.charts.picture_of", undrawn)
    frame = pl.read_parquet(log_file)
    heavy = (pl.struct("session", "event") == pl.struct("session", "event").first()).over("split")
    weight = pl.when(heavy).then(1e12).otherwise(1.0)
    for name, weights in (("heavy", weight), ("alike", pl.lit(3.0))):
        log, run, page = (str(tmp_path / f"{name}{end}") for end in (".parquet", "", ".html"))
        frame.with_columns(weight=weights).write_parquet(log)
        said, heard = "are worth 1.0 events of one weight", name == "heavy"
        capsys.readouterr()
        argv = ["train", log, "-o", run, "--preset", "click-rate", "--weight", "weight"]
        assert main(argv) == 0
        err = capsys.readouterr().err
        assert bool(re.search(rf"training, weights differ: \d+ events {said}", err)) == heard
        assert main(["evaluate", run, log, "--json", f"{run}.json"]) == 0
        assert (said in capsys.readouterr().out) == heard
        found = json.loads(Path(f"{run}.json").read_text())["effective_events"]
        assert found == (pytest.approx(1, abs=1e-6) if heard else None)
        assert main(["data", "audit", log, "--weight", "weight"]) == 0
        assert ("events of one weight, (Σw)²/Σw²" in capsys.readouterr().out) == heard
        assert main(["report", run, "-o", page]) == 0
        assert ("Weights differ, so the events" in Path(page).read_text()) == heard


def test_a_folder_with_a_readme_alone_is_another_s(
    log_file: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    (tmp_path / "README.md").write_text("mine")
    argv = ["train", str(log_file), "-o", str(tmp_path), "--overwrite"]
    assert "holds other files (README.md …)" in fails(argv)


def test_train_reads_a_run_s_own_config(
    trained: Path, log_file: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    argv = ["train", str(log_file), "-o", str(tmp_path / "run")]
    argv += ["--config", str(trained / "config.toml")]
    assert main([*argv, "--seed", "5", "--set", "lr=0.01"]) == 0
    former = tomllib.loads((trained / "config.toml").read_text())
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config == former | {"seed": 5, "lr": 0.01}
    # the file has all keys: another preset would be a name alone
    argv[3] = str(tmp_path / "other")
    assert "paper-pw is asked for: leave one" in fails([*argv, "--preset", "paper-pw"])


def test_train_takes_signs(
    log_file: Path, tmp_path: Path, fails: Callable[[list[str]], str]
) -> None:
    argv = ["train", str(log_file), "-o", str(tmp_path / "run"), *QUICK]
    assert "--sign takes a number and + or -, as cost=-, got 'price=x'" in fails(
        [*argv, "--sign", "price=x"]
    )
    assert "--sign is of presets (fastgaum, " in fails(
        [*argv[:4], "--preset", "logit", "--sign", "price=-"]
    )
    argv += ["--candidate-field", "price"]
    assert main([*argv, "--sign", "price=+", "--sign", "price=-"]) == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["signs"] == {"price": "-"}


def test_train_prints_a_plain_line_per_epoch_and_setting(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    argv = ["train", str(log_file), "-o", str(tmp_path / "run"), *QUICK]
    assert main([*argv, "--set", "search=['relations', 'counts']"]) == 0
    out, err = capsys.readouterr()
    n_epochs = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    read, lines = 3, err.splitlines()
    what, *epochs = lines[read : read + n_epochs + 1]
    header, *compared = lines[read + n_epochs + 1 :]
    assert what == (
        "epochs: loss is the reward's in training; the least validation loss is kept; in rounds "
        "loss is the game's value, on another scale, and may be below 0"
    )
    assert header.startswith("3 settings were compared with exact players, each by its least")
    assert header.endswith("validation loss; and one was chosen, and fitted anew:")
    assert all("val prec@1" in line and "events/s" in line for line in epochs)
    found = [line.split(" · ")[0].removeprefix("compared: ") for line in compared]
    assert len(found) == 3
    assert set(found) < set(PORTFOLIO)
    assert sum(line.endswith(" s · chosen") for line in compared) == 1
    assert "gap" in err
    assert f"{n_epochs} epochs" in out
    assert re.search(r"best \d+ by validation loss: validation prec@1 ", out)


def test_train_says_by_which_loss_the_epoch_is_chosen(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of exact players alone, and by another score."""
    argv = ["train", str(log_file), "-o", str(tmp_path / "run"), "--preset", "paper-pw"]
    assert main([*argv, "--set", "epochs=2"]) == 0
    out, err = capsys.readouterr()
    assert "training; the least calibrated validation loss is kept\n" in err
    assert " by calibrated validation loss: validation prec@1 " in out
    assert "compared" not in err


def test_a_run_without_a_place_goes_to_runs_by_the_log_s_name(
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for source, name in (("sample", "sample"), (str(log_file), "world")):
        argv = ["train", source, "--preset", "click-rate"]
        assert main(argv) == 0
        assert capsys.readouterr().out.startswith(f"runs/{name}: click-rate, ")
        assert (tmp_path / "runs" / name / "model.safetensors").is_file()
        assert main(argv) == 2
        assert f"'runs/{name}' holds a run already: choose another" in capsys.readouterr().err
        assert main([*argv, "--overwrite"]) == 0
        capsys.readouterr()


def test_train_says_how_it_read_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["visit;at;item;price;stock;clicked"]
    for visit in range(40):
        for display in range(3):
            at = f"2026-03-{visit % 28 + 1:02} 06:0{display}:00+01:00"
            clicks = {0: "110", 1: "010", 2: "000"}[display]
            lines += [
                f"{visit};{at};i{(visit + place) % 7};{place}.5;9;{clicks[place]}"
                for place in range(3)
            ]
    (tmp_path / "shop.csv").write_text("\n".join(lines) + "\n")
    named = ["session=visit", "event=at", "chosen=clicked"]
    roles = [part for name in named for part in ("--column", name)]
    read = ["--candidate-field", "price", "--clicks", "first"]
    argv = ["train", str(tmp_path / "shop.csv"), "-o", str(tmp_path / "run"), *QUICK]
    assert main([*argv, *roles, *read]) == 0
    err = capsys.readouterr().err
    for said in (
        "shop: 40 sessions of 40 users, 120 events (33.3 % without a click), 360 displayed items "
        "of 7; sessions: ",
        "fields read: price (number, of the candidate)\n",
        "columns not read: stock (",
        "no column of users: each session counts as a user of its own\n",
        "times order events by UTC; a time without an offset counts as UTC\n",
        "displays with several clicks: 33.3 % of 120; the first counts, 40 later clicks",
    ):
        assert said in err
    lines = [f"{line};{number}" for number, line in enumerate(lines)]
    (tmp_path / "shop.csv").write_text("\n".join(lines).replace("clicked;0", "clicked;row") + "\n")
    roles = [one.replace("event=at", "event=row") for one in roles]
    assert main([*argv, *roles, "--overwrite"]) == 0
    # nothing of the former run is left
    reading = json.loads((tmp_path / "run" / "reading.json").read_text())
    assert reading == {"column": ["session=visit", "event=row", "chosen=clicked"]}
    assert "every event displays one item; if rows of" in capsys.readouterr().err


def test_a_run_remembers_the_context(
    log_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fails: Callable[[list[str]], str],
) -> None:
    run, users = tmp_path / "run", tmp_path / "users.csv"
    known = pl.read_parquet(log_file)["user"].unique()
    pl.DataFrame({"user": known, "land": (known % 3).cast(pl.String)}).write_csv(users)
    argv = ["train", str(log_file), "-o", str(run), "--context-field", "query", *QUICK]
    argv = [*argv, "--user-table", str(users)]
    assert main([*argv, "--json", str(tmp_path / "train.json")]) == 0
    says = "context of the events: land (categories), query (categories)"
    assert says in capsys.readouterr().err
    assert json.loads((tmp_path / "train.json").read_text())["context"] == {
        "land": "categories",
        "query": "categories",
    }
    reading = json.loads((run / "reading.json").read_text())
    assert reading.pop("categories") == ["land", "query"]
    assert reading == {"context_field": ["query"], "user_table": str(users)}
    assert main(["evaluate", str(run), str(log_file)]) == 0
    # simulate, rl train and rl evaluate take the log by one function
    small = ["--set", "episodes=1", "--set", "users=8", "--set", "warm_up=8", "--set", "batch=8"]
    learn = ["rl", "train", str(run), "-o", str(tmp_path / "policy"), "-k", "2", "--horizon", "2"]
    err = fails([*learn, *small])
    assert "reads the context fields land, query" in err
    assert "pass a log that has some, --log LOG (log=…)" in err
    assert main([*learn, *small, "--log", str(log_file)]) == 0
    assert (tmp_path / "policy").exists()


def test_evaluate_reads_the_log_as_the_run_did(
    trained: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(trained), str(log_file), "--json", str(tmp_path / "e.json")]) == 0
    out = capsys.readouterr().out
    assert "prec@1" in out
    assert "generator" in out
    figures = json.loads((tmp_path / "e.json").read_text())
    head = figures["heads"]["reward"]
    low, high = head["prec"]["1"]["ci"]
    assert low <= head["prec"]["1"]["mean"] <= high
    assert figures["gap"] >= 0
    assert figures["machine"]["versions"]["torch"]
    assert f"{head['prec']['1']['mean']:.1f}" in out


def test_a_run_whose_columns_were_named_scores_a_saved_log(log_file: Path, tmp_path: Path) -> None:
    file, saved, run = (str(tmp_path / name) for name in ("log.parquet", "saved", "run"))
    pl.read_parquet(log_file).rename({"item": "sku"}).write_parquet(file)
    column, figures = ["--column", "item=sku"], []
    assert main(["train", file, "-o", run, *column, *QUICK]) == 0
    assert main(["data", "convert", file, "-o", saved, *column]) == 0
    for source in (file, saved):
        facts = tmp_path / "facts.json"
        assert main(["evaluate", run, source, "--json", str(facts), "--overwrite"]) == 0
        figures.append(json.loads(facts.read_text())["heads"])
    assert figures[0] == figures[1]


def test_a_run_with_an_item_table_scores_a_saved_log(log_file: Path, tmp_path: Path) -> None:
    """Converted with the table, whose values may have changed since, or without."""
    run, table, kept, plain = (tmp_path / name for name in ("run", "items.csv", "kept", "plain"))
    ids = pl.read_parquet(log_file)["item"].unique().sort()
    items = pl.DataFrame({"item": ids, "weight": pl.int_range(len(ids), eager=True) + 0.5})
    items.write_csv(table)
    option, figures = ["--item-table", str(table)], []
    train = ["train", str(log_file), "-o", str(run), *option, "--preset", "logit"]
    assert main(train) == 0
    assert main(["data", "convert", str(log_file), "-o", str(kept), *option]) == 0
    assert main(["data", "convert", str(log_file), "-o", str(plain)]) == 0
    for source in (log_file, plain, kept):
        if source == kept:
            items.with_columns(weight=pl.lit(1.5)).write_csv(table)
        facts = tmp_path / "facts.json"
        assert main(["evaluate", str(run), str(source), "--json", str(facts), "--overwrite"]) == 0
        figures.append(json.loads(facts.read_text())["heads"])
    assert figures[0] == figures[1] == figures[2]


def test_displays_without_a_choice_yet_are_predicted(
    trained: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A session's first display has the probabilities that it has in the whole log, in the order of
    the file after a join."""
    first = pl.col("event") == pl.col("event").min().over("session")
    # training sessions read in their own log what the users before them said
    held_out = pl.col("split") == "test"
    frame = pl.read_parquet(log_file).filter(first & held_out)
    frame = frame.sample(fraction=1, shuffle=True, seed=0)
    asked, whole = tmp_path / "asked.csv", tmp_path / "whole.parquet"
    frame.drop("chosen").write_csv(asked)
    assert main(["predict", str(trained), str(log_file), "-o", str(whole)]) == 0
    capsys.readouterr()
    assert main(["predict", str(trained), str(asked), "-o", str(tmp_path / "p.parquet")]) == 0
    assert "asked.csv has no choices" in capsys.readouterr().err
    keys = ["session", "event", "item"]
    found = pl.read_parquet(tmp_path / "p.parquet")
    assert found.select(pl.read_csv(asked).columns).equals(pl.read_csv(asked, infer_schema=False))
    assert not found["trained_on"].any()
    in_whole = pl.read_parquet(whole).select(*keys, "probability")
    beside = frame.join(in_whole, on=keys, how="left", maintain_order="left")
    probabilities = [one["probability"].to_numpy() for one in (found, beside)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)
    # another command asks for the column, and says how to go on
    assert main(["evaluate", str(trained), str(asked)]) == 2
    assert "--column chosen= (columns={'chosen': ''})" in capsys.readouterr().err


def test_predict_at_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["data", "synth", "--events", "300", "--items", "12", "--order", "random"]
    assert main([*argv, "--examination", "1", "-o", str(tmp_path / "ranked")]) == 0
    options = ["--set", "epochs=1", "--set", "warm_start=1", "--set", "search=[]"]
    log, run = str(tmp_path / "ranked"), str(tmp_path / "run")
    assert main(["train", log, "-o", run, *options]) == 0
    utilities = {}
    for place in ("own", "none", "1"):
        out = tmp_path / f"{place}.parquet"
        assert main(["predict", run, log, "-o", str(out), "--at-place", place]) == 0
        utilities[place] = pl.read_parquet(out)["utility"]
    assert utilities["none"].equals(utilities["1"])
    assert not utilities["own"].equals(utilities["none"])
    out = str(tmp_path / "p.csv")
    capsys.readouterr()
    assert main(["predict", run, log, "-o", out, "--at-place", "0"]) == 2
    assert "places 1 to 10" in capsys.readouterr().err
    assert not Path(out).exists()


def test_doctor_reports_what_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor"]) == 0
    assert "FAILED" not in capsys.readouterr().out

    def broken() -> None:
        raise OSError("no compiler\nhere")

    monkeypatch.setattr("fastgaum.cli.doctor.train_shortly", broken)
    assert main(["doctor"]) == 1
    assert "FAILED: OSError: no compiler here" in capsys.readouterr().out


def test_reader_that_goes_away_is_no_error() -> None:
    """`fastgaum data info … | head -0`: no traceback, no complaint at exit."""
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "fastgaum", "data", "info", "sample"]
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")
