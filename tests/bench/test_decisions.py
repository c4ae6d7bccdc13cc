"""`fastgaum bench decisions`: units are decided once, and the table is of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastgaum.bench.experiments import decisions
from fastgaum.cli.app import main
from fastgaum.errors import ConfigError
from fastgaum.policies.advice import Advice

LEAD = {"tiring": 1.0, "not tiring": -1.0}


def decided(unit: decisions.Unit) -> dict[str, Any]:
    """A plan that leads where users tire, and one deployment of three that is paid less."""
    lead = LEAD.get(unit.truth, 0.0)
    leads = tuple(lead + 0.01 * step for step in range(5))
    n_events = unit.n_events or 437
    advice = Advice("slateq", leads, greedy=10.0, n_events=n_events, decoys=0.0)
    paid = -0.5 if unit == decisions.Unit("tiring", 30, 2000, 103) else lead
    return {
        "truth": unit.truth,
        "n_items": unit.n_items,
        "seed": unit.seed,
        # as `decide`: of a site, the events of its log
        **advice.to_dict(),
        "paid": paid,
        "paid_low": paid - 1,
        "paid_high": paid + 1,
    }


def test_units_are_decided_once_and_counted_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[decisions.Unit] = []

    def decide(unit: decisions.Unit) -> dict[str, Any]:
        asked.append(unit)
        return decided(unit)

    monkeypatch.setattr(decisions, "decide", decide)
    units, page, table = (tmp_path / name for name in ("units.jsonl", "page.json", "table.md"))
    command = f"bench decisions --units {units} --markdown {table} --json {page}".split()
    # a unit by which a constant was chosen is not judged
    chosen_by = decided(decisions.Unit("tiring", 30, 2000, 102))
    units.write_text(json.dumps(chosen_by) + "\n")
    assert main([*command, "--seeds", "1"]) == 0
    assert asked == list(decisions.list_units(1))
    assert len(units.read_text().splitlines()) == 26
    assert main([*command, "--seeds", "1", "--overwrite"]) == 0
    assert len(asked) == 25
    result = json.loads(page.read_text())
    rows = {row["truth"]: row for row in result["decisions"]}
    assert {row["seed"] for row in result["rows"]} == {103}
    tiring = rows["tiring"]
    assert (tiring["units"], tiring["deploy"], tiring["false"]) == (6, 6, 1)
    assert tiring["taken gain"] == pytest.approx(1)
    assert tiring["covered"] == pytest.approx(5 / 6)
    assert (rows["not tiring"]["keep greedy"], rows["all"]["units"]) == (6, 25)
    assert "| tiring | 6 | 6 |" in table.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("decisions", "--units decisions.jsonl"),
        ("decisions lstm --units u.jsonl", "run it alone"),
        ("lstm --units u.jsonl", "races have none"),
        ("decisions --units u.jsonl --seeds 0", "--seeds"),
    ],
)
def test_wrong_calls_are_refused(
    arguments: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments.split()]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_line_that_is_no_decision_is_named(tmp_path: Path) -> None:
    path = tmp_path / "units.jsonl"
    row = decided(decisions.Unit("tiring", 30, 2000, 103))
    path.write_text(json.dumps(row) + "\n{}\n")
    with pytest.raises(ConfigError, match="line 2 of"):
        decisions.run(path, 1, print)
