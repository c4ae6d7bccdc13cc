"""The cost model beside what it speaks of: real networks, optimisers and batches, and formulas
worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgaum import threads
from fastgaum.bench import cost_model, growth
from fastgaum.bench.cost_model import Machine, Setting, cost, distinct
from fastgaum.bench.training import Run, config_of, world
from fastgaum.engine.game import EngineGame

MACHINE = Machine(events_per_second=1e5, sends=1e9, moves=4e9, latency=0.0)
SMALL = Setting("paper-lstm", items=500, batch_events=200, displays=4.5, tokens=0.5, exponent=0.5)


@pytest.mark.parametrize(
    ("items", "exponent", "draws"), [(300, 0.0, 200), (2_000, 1.0, 5_000), (400_000, 0.7, 30_000)]
)
def test_distinct_items_are_what_draws_have(items: int, exponent: float, draws: int) -> None:
    shares = np.arange(1, items + 1) ** -exponent
    shares /= shares.sum()
    rng = np.random.default_rng(0)
    seen = [len(np.unique(rng.choice(items, draws, p=shares))) for _ in range(5)]
    assert distinct(draws, items, exponent) == pytest.approx(np.mean(seen), rel=0.02)


def test_few_draws_and_many() -> None:
    assert distinct(1, 1e8, 1.0) == pytest.approx(1, rel=0.01)
    assert distinct(1e9, 1000, 0.5) == pytest.approx(1000)


def test_rows_are_those_of_the_synthetic_world_s_batches() -> None:
    """Its items of rank i are shown in proportion to i^−½: rows of a batch, within 10 %."""
    data = world("tail", 4_000, 2_000, 2.0)
    run = Run(data, config_of("paper-lstm", batch_sessions=200))
    found, events, candidates = [], [], []
    for _, batch in zip(range(5), run.waiting, strict=False):
        found.append(len(np.unique(batch.ids)))
        events.append(len(batch.choices))
        candidates.append(len(batch.ids))
    assert distinct(float(np.mean(candidates)), 2_000, 0.5) == pytest.approx(
        np.mean(found), rel=0.1
    )
    assert np.mean(candidates) / np.mean(events) == pytest.approx(4.5, rel=0.1)


@pytest.mark.parametrize("rule", ["adam", "adagrad"])
def test_memory_is_what_an_optimiser_holds(rule: str) -> None:
    """Weights, moments and best weights of the engine's players, beside the model of them."""
    setting = Setting(
        "paper-lstm",
        items=500,
        batch_events=200,
        displays=4.5,
        tokens=0.5,
        exponent=0.5,
        changes=(("table_optimiser", rule),),
    )
    run = Run(world("tail", 400, 500, 2.0), config_of("paper-lstm", table_optimiser=rule))
    assert isinstance(run.game, EngineGame)
    dense = {"reward": 0, "generator": 0}
    held = weights = 0
    for name, optimiser in run.game.optimisers().items():
        dense[name.partition(" ")[0]] += len(optimiser.values)
        tables = [table.values for table in optimiser.tables]
        weights += optimiser.values.nbytes + sum(values.nbytes for values in tables)
        held += (
            optimiser.values.nbytes
            + optimiser.grad.nbytes
            + sum(values.nbytes for values in tables)
        )
        held += sum(value.nbytes for value in optimiser.state().values())
    assert setting.dense == dense
    said = cost(setting, MACHINE, 1).memory - cost_model.VIEW * setting.items
    assert said == pytest.approx(held + weights, rel=0.01)  # a table has two rows more than items


def test_bytes_between_two_processes() -> None:
    """By hand: three tables of 80, 64 and 64 numbers a row; a round is one exchange of the reward
    player, two of the generator."""
    one = cost(SMALL, MACHINE, 2)
    tokens, candidates = (distinct(200 * per_event, 500, 0.5) for per_event in (0.5, 4.5))
    assert SMALL.config.generator_steps == 2
    assert one.rows_sent == pytest.approx(tokens * (4 + 320) + 3 * candidates * (4 + 256))
    # a ring of two sends as many numbers as there are
    assert one.dense_sent == pytest.approx(
        4 * (SMALL.dense["reward"] + 2 * SMALL.dense["generator"])
    )
    assert one.sending == pytest.approx((one.rows_sent + one.dense_sent) / 1e9)
    eight = cost(SMALL, MACHINE, 8)
    assert eight.rows_sent == pytest.approx(7 * one.rows_sent)
    assert eight.dense_sent == pytest.approx(7 / 4 * one.dense_sent)
    alone = cost(SMALL, MACHINE, 1)
    assert alone.rows_sent == alone.dense_sent == alone.sending == alone.catching_up == 0
    assert alone.efficiency == 1
    assert alone.events_per_second == pytest.approx(1e5)


def test_an_exact_step_has_no_generator() -> None:
    one = cost(Setting("large", kind="exact"), MACHINE, 2)
    rounds = cost(Setting("large"), MACHINE, 2)
    assert 0 < one.rows_sent < rounds.rows_sent
    assert 0 < one.flops_per_event < rounds.flops_per_event


def test_shares_of_tables_scale_where_whole_ones_do_not() -> None:
    whole, shares = (
        [cost(growth.FAR, growth.CARD, k, sharded) for k in growth.PROCESSES]
        for sharded in (False, True)
    )
    efficiency = [one.efficiency for one in whole]
    assert efficiency == sorted(efficiency, reverse=True)
    assert efficiency[-1] < 0.6 < shares[-1].efficiency
    assert len({round(one.memory) for one in whole}) == 1
    assert shares[-1].memory < whole[-1].memory / 3
    assert shares[-1].rows_sent < 2 * shares[1].rows_sent, (
        "what a process sends hardly grows with their number"
    )
    assert whole[-1].rows_sent == pytest.approx(63 * whole[1].rows_sent)


def test_arithmetic_grows_with_the_square_of_the_hidden_size() -> None:
    sizes = [
        cost_model.flops_per_event(
            Setting("paper-lstm", changes=(("history_dim", size), ("hidden", (64, 64))))
        )
        for size in (512, 1024)
    ]
    assert 3.5 < sizes[1] / sizes[0] < 4.1


def test_what_was_measured_stands_beside_the_model(tmp_path: Path) -> None:
    """The object is that of bench/processes.py."""
    setting = Setting(
        "paper-lstm", items=500, batch_events=300, displays=4.5, tokens=1 / 3, exponent=0.5
    )
    said = cost(setting, MACHINE, 2)
    # one exchange of the reward player, two of the generator
    sent = (said.rows_sent + said.dense_sent) / 3
    found = {"alone": 1e5, "together": 1.7e5, "speed_up": 1.7, "wire_bytes_per_step": sent}
    result = {"processes": 2, "items": 500, "presets": {"paper-lstm": {"200": found}}}
    (tmp_path / "processes.json").write_text(json.dumps(result))
    read = cost_model.measured(tmp_path / "processes.json")
    assert read is not None
    (row,) = cost_model.compared(read, MACHINE)
    assert row[:6] == (
        "`paper-lstm`",
        "200",
        "100,000",
        "170,000",
        "1.70",
        f"{said.events_per_second / 1e5:.2f}",
    )
    assert row[6] == row[7]
    assert "Not measured yet" in growth.processes(cost_model.measured(tmp_path / "nothing.json"))
    assert growth.processes(read).count("\n") == 2


def test_growth_is_measured_in_processor_time() -> None:
    before = threads.get_threads()
    result = growth.measure(events=(400,), items=(200, 300), repeats=1)
    assert threads.get_threads() == before
    assert [(row["what"], row["n"]) for row in result["rows"]] == [
        ("events", 400),
        ("items", 200),
        ("items", 300),
    ]
    assert all(row["us_per_event"] > 0 for row in result["rows"])
    assert "| 400 events |" in growth.measured(result)


def test_the_script_prints_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [
        "cost_model.py",
        "--items",
        "1e4",
        "--processes",
        "1,4",
        "--set",
        "item_dim=4",
        "--sharded",
        "--kind",
        "exact",
    ]
    monkeypatch.setattr("sys.argv", argv)
    cost_model.main()
    out = capsys.readouterr().out
    assert "FLOPs and" in out
    assert [line.split("|")[1].strip() for line in out.splitlines()[4:]] == ["1", "4"]
    assert torch.get_default_device() == torch.device("cpu")
