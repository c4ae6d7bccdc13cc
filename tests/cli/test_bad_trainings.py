"""Trainings that cannot be: their configuration, their log or their folder. One row each."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from tests.cli.bad_input import DEEP, Make, Row, Seeds, check_refused


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


def only_training(seeds: Seeds) -> list[str]:
    seeds.frame.with_columns(split=pl.lit("train")).write_csv(seeds.folder / "log.csv")
    return ["train", str(seeds.folder / "log.csv"), "-o", str(seeds.folder / "run")]


def full_folder(seeds: Seeds) -> list[str]:
    (seeds.folder / "thesis.tex").write_text("years of work")
    return ["train", str(seeds.log), "-o", str(seeds.folder), "--overwrite"]


ROWS: dict[str, Row] = {
    "unknown preset": (train("--preset", "fastgam"), "did you mean 'fastgaum'"),
    "unknown key": (train(config="epocs = 3"), "did you mean 'epochs'"),
    "wrong type": (train(config="epochs = '3'"), "epochs must be a whole number"),
    "impossible value": (train(config="eta = 0"), "eta must be a number greater than 0"),
    "preset of a file": (train(config="preset = 'fastgam'"), "did you mean 'fastgaum'"),
    "list wanted": (train(config="hidden = 64"), "list of 1 to 100 values"),
    "half a line": (train(config="epochs = "), "cannot read configuration"),
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
    "a rate that no weight can take": (
        train("--set", "generator_lr=1e308"),
        "generator_lr must be a number greater than 0 and at most 1e+30",
    ),
    "nested configuration": (train(config=f"hidden = {DEEP}"), "nested too deeply"),
    "nested setting": (train("--set", f"hidden={DEEP}"), "hidden must be a list"),
    "configuration of megabytes": (train(config="#" * 2_000_000), "longer than the"),
    "NUL in a configuration": (train(config="epochs\x00 = 3"), "cannot read configuration"),
    "configuration not UTF-8": (train(config=b"preset = '\xff'"), "cannot read configuration"),
    "no validation session": (only_training, "no validation session"),
    "folder of other files": (full_folder, "thesis.tex"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_training_is_refused(
    fails: Callable[[list[str]], str], seeds: Seeds, row: str
) -> None:
    check_refused(ROWS[row], seeds, fails)
