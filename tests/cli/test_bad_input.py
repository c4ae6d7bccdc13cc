"""What a user can get wrong on the command line: exit code 2, one line that says so, nothing
written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fastgaum.cli.app import main

Fails = Callable[[list[str]], str]

OPTIONS = [
    (["--preset", "fastgam"], "did you mean 'fastgaum'"),
    (["--set", "epoch=3"], "did you mean 'epochs'"),
    (["--set", "epochs=three"], "epochs must be a whole number"),
    (["--set", "epochs=2.5"], "epochs must be a whole number"),
    (["--set", "eta=0"], "eta must be a number greater than 0"),
    (["--set", "eta=-1"], "eta must be a number greater than 0"),
    (["--set", "eta=nan"], "eta must be a number greater than 0"),
    (["--set", "history=lsmt"], "history must be one of lstm"),
    (["--set", "epochs"], "key=value"),
    (["--set", "preset=3"], "preset must be a name"),
    (["--seed", "-1"], "seed must be a whole number at least 0"),
    (["--seed", "one"], "unable to convert"),
    (["--protocol", "bag"], 'Did you mean "bags"'),
    (["--sed", "1"], "Did you mean --seed"),
    (["--threads", "0"], "--threads must be at least 1 and at most 1024, got 0"),
    (["--threads", "1000000000"], "--threads must be at least 1 and at most 1024, got 1000000000"),
    (["--device", "gpu"], "unknown device 'gpu'"),
    (["--config", "absent.toml"], "cannot read configuration"),
    (["--column", "item:sku"], "role=name"),
    (["--column", "itme=sku"], "did you mean 'item'"),
    (["--column", "item=itm"], "did you mean 'item'"),
    (["--candidate-field", "prize"], "did you mean 'price'"),
    (["--context-field", "qury"], "did you mean 'query'"),
    (["--context-field", "price"], "a context field has one value per event"),
    (["--context-field", "chosen"], "says what was chosen"),
    (["--context-field", "query", "--candidate-field", "query"], "as a candidate field and as a"),
    (["--item-table", "absent.parquet"], "absent.parquet"),
    (["--split-by", "usr"], 'Did you mean "user"'),
    (["--clicks", "last"], "Choose from"),
    (["extra"], "extra"),
]


@pytest.mark.parametrize(
    ("options", "says"), OPTIONS, ids=[" ".join(options) for options, _ in OPTIONS]
)
def test_train_refuses_options(
    fails: Fails,
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in fails(["train", str(log_file), "-o", "run", *options])


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "reproduce", "compare"])
def test_unwritable_output_is_refused_before_work(
    fails: Fails, log_file: Path, trained: Path, tmp_path: Path, command: str
) -> None:
    # Below a file nothing can be written, whoever runs the tests.
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "out.parquet")
    argv = {
        "train": [str(log_file), "-o", out],
        "evaluate": [str(trained), str(log_file), "--json", out],
        "predict": [str(trained), str(log_file), "-o", out],
        "reproduce": ["--datasets", "absent", "--json", out],
        "compare": ["absent", "--json", out],
    }
    assert "cannot write" in fails([command, *argv[command]])


def test_log_whose_fields_differ(
    fails: Fails, frame: pl.DataFrame, trained: Path, tmp_path: Path
) -> None:
    frame.drop("price").write_parquet(tmp_path / "log.parquet")
    assert "price" in fails(["evaluate", str(trained), str(tmp_path / "log.parquet")])


def test_log_whose_context_differs(
    fails: Fails, log_file: Path, trained: Path, tmp_path: Path
) -> None:
    packed = str(tmp_path / "packed")
    fields = ["--context-field", "query", "--candidate-field", "price"]
    assert main(["data", "convert", str(log_file), "-o", packed, *fields]) == 0
    err = fails(["evaluate", str(trained), packed])
    assert "was trained on context fields [], log 'world' declares ['query']" in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["evaluate", str(tmp_path / "absent"), "sample"]
    assert main([*argv, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_bug_is_one_line_and_exit_1(
    capsys: pytest.CaptureFixture[str], log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("fastgaum.baselines.registry.load_model", broken)
    assert main(["evaluate", "run", str(log_file)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "RuntimeError: first line second line" in err
    assert "--debug" in err


def test_interrupt_is_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastgaum.baselines.registry.load_model", interrupted)
    assert main(["evaluate", "run", "sample"]) == 130
    assert capsys.readouterr().err == "fastgaum: interrupted\n"


def test_exit_code_of_the_process(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "fastgaum", "train", "absent.csv", "-o", str(tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fastgaum: error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_s_name_comes_from_the_option_a_setting_or_the_file(
    fails: Fails, log_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "pool.toml").write_text('preset = "pool"\nmembers = ["logi"]\n')
    argv = ["train", str(log_file), "-o", str(tmp_path / "run")]
    asked = (
        ["--config", str(tmp_path / "pool.toml")],
        ["--config", str(tmp_path / "pool.toml"), "--preset", "pool"],
        ["--set", "preset=pool", "--set", "members=['logi']"],
    )
    for options in asked:
        assert "no model is called 'logi'; did you mean 'logit'?" in fails([*argv, *options])
    assert "did you mean 'logit'?" in fails([*argv, "--preset", "logti"])
    assert not (tmp_path / "run").exists()
