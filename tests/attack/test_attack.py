"""Every attack of the table."""

from __future__ import annotations

import shlex
import time

import pytest

from fastgaum.cli.app import main
from fastgaum.errors import FastgaumError
from tests.attack.attacks import IsTrue, RefusedCall, lay_out
from tests.attack.table import TABLES
from tests.cli.conftest import tree
from tests.cli.good_files import MOST_SECONDS, Seeds

ROWS = [(table, name) for table, rows in TABLES.items() for name in rows]


@pytest.mark.parametrize(("table", "name"), ROWS, ids=[name for _, name in ROWS])
def test_attack(
    table: str,
    name: str,
    seeds: Seeds,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    attack, started = TABLES[table][name], time.process_time()
    monkeypatch.chdir(seeds.folder)
    if isinstance(attack, IsTrue):
        assert attack.holds(seeds)
    elif isinstance(attack, RefusedCall):
        with pytest.raises(FastgaumError) as caught:
            attack.call()
        assert attack.says in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        lay_out(attack.files, seeds)
        before = tree(seeds.folder)
        good = {"log": seeds.log, "run": seeds.run}
        code = main(shlex.split(attack.command.format(**good)))
        # of the file descriptors, where libraries of other languages write too
        out, err = capfd.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("fastgaum: error: ")
        assert err.endswith("\n")
        assert err[:-1].isprintable()
        assert attack.says in err
        assert tree(seeds.folder) == before
    assert time.process_time() - started < MOST_SECONDS
