"""What training costs as a log, a catalogue, a network and the number of processes grow: a stated
model, and its tables.

    python bench/cost_model.py                                         # the page's tables
    python bench/cost_model.py --items 1e8 --batch-events 65536 --processes 1,8,64 --preset large

docs/concepts/cost.md gives the formulas; here they are as code. One step is one batch of whole
sessions on each process. Under data-parallel training every process holds all networks; after a
backward pass the gradients of dense parameters are summed by a ring (each process sends and
receives 2 (K − 1) / K of them), and of each table the rows that a batch names travel as rows to all
others: an id and the row's gradient, 4 + 4 · width bytes. A round is `generator_steps` such
exchanges for the generator and one for the reward player with its history encoder.

What a machine does is measured or said. docs/tables/processes.json holds what `python
bench/processes.py speed` printed, and `compared` puts it beside the model; the rates in the
arguments below are said, and guesses where nobody has measured them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastgaum.bench.rivals.flops import Work, work_flops
from fastgaum.config import PRESETS, Config, parse_setting
from fastgaum.nets.networks import Networks

MEASURED = Path(__file__).resolve().parents[1] / "docs" / "tables" / "processes.json"
"""batches of one size on one process and on several: rates, and what went over the wire"""
EXACT_RANKS = 100_000
"""ranks of items whose chance of being drawn is taken one by one; beyond them in bins"""
FLOAT, ID, SHRUNK, VIEW = 4, 4, 8, 16
"""bytes of a number, of an id on the wire, of a row's weight decay so far, of an item's id as text
"""
BEST_IN_MEMORY = 1 << 28
"""best weights of more bytes than these lie in a file"""


@dataclass(frozen=True)
class Table:
    """A table with a row per item, of one network."""

    name: str
    width: int
    draws: float
    """ids that an event names in it"""
    updates: int
    """optimiser steps that a round or an exact step moves it by"""
    reads: int
    """forward passes that need its rows as they are then"""


@dataclass(frozen=True)
class Setting:
    """What is trained on what."""

    preset: str = "large"
    items: float = 1e6
    batch_events: int = 4096
    """events of a batch, per process"""
    displays: float = 5.0
    """candidates of an event"""
    tokens: float = 1.0
    """history tokens of an event: (length − 1) / length of a mean session"""
    exponent: float = 1.0
    """of the power law of what is displayed: the item of rank i has a share ∝ i^−exponent"""
    kind: str = "round"
    """round, or exact: a step of the reward player alone"""
    changes: tuple[tuple[str, Any], ...] = ()
    """settings other than the preset's"""

    @cached_property
    def config(self) -> Config:
        """The resolved configuration; under `identity` a candidate's bag is one id."""
        return Config.from_preset(
            self.preset,
            **{
                "protocol": "identity",
                "players": "adversarial",
                "search": (),
                **dict(self.changes),
            },
        )

    @cached_property
    def dense(self) -> dict[str, int]:
        """Dense parameters of each player."""
        with torch.device("meta"):
            networks = Networks(self.config, 1, 0)
        parts: dict[str, list[nn.Module]] = {
            "reward": [networks.player],
            "generator": [] if networks.generator is None else [networks.generator],
        }
        return {
            name: sum(
                value.numel()
                for module in modules
                for key, value in module.named_parameters()
                if not key.endswith("table")
            )
            for name, modules in parts.items()
        }

    @property
    def updates(self) -> dict[str, int]:
        """Optimiser steps of each player in a step."""
        return {
            "reward": 1,
            "generator": self.config.generator_steps if self.kind == "round" else 0,
        }

    @property
    def tables(self) -> list[Table]:
        """All tables: an event's candidates name rows of the scorers', its choice one row of the
        encoder's."""
        config, steps = self.config, self.updates
        gates = 4 if config.history == "lstm" else 3
        found = [Table("history", config.item_dim or gates * config.history_dim, self.tokens, 1, 1)]
        for player, updates in steps.items():
            # a generator's distribution is read once more after its last step
            reads = updates if player == "reward" else updates and updates + 1
            found.append(
                Table(player, config.item_dim or config.hidden[0], self.displays, updates, reads)
            )
            if config.wide:
                found.append(Table(f"{player} wide", 1, self.displays, updates, reads))
        return found

    def distinct(self, draws: float) -> float:
        """Different items among so many draws."""
        return distinct(draws, self.items, self.exponent)


WORLD, WORLD_LENGTH = Setting("paper-lstm", displays=4.5, tokens=1 / 3, exponent=0.5), 1.5
"""what bench/processes.py trains on: the synthetic world `scale`, and the mean events of its
sessions"""


@dataclass(frozen=True)
class Machine:
    """What one process of a machine does."""

    events_per_second: float
    """of one process alone"""
    sends: float
    """bytes per second that a process sends while it receives as much"""
    moves: float
    """bytes per second of rows read and written at random places of its memory"""
    latency: float = 2e-5
    """seconds of a message"""


@dataclass(frozen=True)
class Cost:
    """One step on each of K processes, per process."""

    processes: int
    flops_per_event: float
    moved_per_event: float
    """bytes of table rows read and written, when one process is alone"""
    memory: float
    """bytes of weights, optimiser and item ids"""
    dense_sent: float
    rows_sent: float
    """bytes that a process sends: of dense gradients, and of rows; it receives as many"""
    seconds: float
    computing: float
    """seconds of its own batch"""
    catching_up: float
    """seconds in which rows that only the others' batches name are moved"""
    sending: float
    events_per_second: float
    """of all processes"""

    @property
    def efficiency(self) -> float:
        """Share of the step in which a process does what it would do alone."""
        return self.computing / self.seconds


def distinct(draws: float, items: float, exponent: float) -> float:
    """Expected number of different items among independent draws from a power law: Σ 1 − exp(−draws
    · p_i).

    >>> round(distinct(100, 100, 0.0), 1)
    63.2
    """
    n = int(items)
    head = np.arange(1, min(n, EXACT_RANKS) + 1, dtype=np.float64)
    ranks, counts = head, np.ones(len(head))
    if n > EXACT_RANKS:
        edges = np.unique(np.geomspace(EXACT_RANKS + 1, n + 1, 2000).round())
        ranks = np.concatenate([head, np.sqrt(edges[:-1] * (edges[1:] - 1))])
        counts = np.concatenate([counts, np.diff(edges)])
    weights = ranks**-exponent
    shares = weights / (weights * counts).sum()
    return float((counts * -np.expm1(-draws * shares)).sum())


def cost(setting: Setting, machine: Machine, processes: int, sharded: bool = False) -> Cost:
    """One step of K processes; `sharded`: each holds a K-th of every table's rows, and rows are
    fetched and given back."""
    k, events, rule = processes, setting.batch_events, setting.config.table_optimiser
    wire = others = moved = memory = best = exchanges = 0.0
    for table in setting.tables:
        row = FLOAT * table.width
        # weight and two moments, or weight alone beside one number, are read and written; the
        # gradient is written and read
        update = (6 * row if rule == "adam" else 2 * row + 2 * FLOAT) + 2 * row
        own, all_of_them = (
            setting.distinct(events * table.draws),
            setting.distinct(k * events * table.draws),
        )
        moved += (
            (table.reads + table.updates) * row * events * table.draws
            + table.updates * update * own
        ) / events
        state = (3 * row if rule == "adam" else row + FLOAT) + SHRUNK
        memory += setting.items * state / (k if sharded else 1)
        best += setting.items * row / (k if sharded else 1)
        if k == 1:
            continue
        if sharded:
            # ids go out and rows come back; gradients go out. A process gives others as many as it
            # asks for
            wire += (k - 1) / k * own * (table.reads * (ID + row) + table.updates * row)
            others += table.updates * max(all_of_them / k - own, 0.0) * update
            exchanges += 2 * table.reads + table.updates
        else:
            wire += table.updates * (k - 1) * own * (ID + row)
            others += table.updates * (all_of_them - own) * update
            exchanges += table.updates
    n_dense = sum(setting.dense.values())
    best += FLOAT * n_dense
    memory += 4 * FLOAT * n_dense + VIEW * setting.items + (best if best < BEST_IN_MEMORY else 0.0)
    dense_sent = sum(
        2 * (k - 1) / k * FLOAT * setting.dense[name] * n for name, n in setting.updates.items()
    )
    computing = events / machine.events_per_second
    catching_up = others / machine.moves
    # a ring goes round twice for a sum, once for rows
    messages = (k - 1) * (exchanges + 2 * sum(setting.updates.values()))
    sending = (wire + dense_sent) / machine.sends + messages * machine.latency
    seconds = computing + catching_up + sending
    return Cost(
        processes=k,
        flops_per_event=flops_per_event(setting),
        moved_per_event=moved,
        memory=memory,
        dense_sent=dense_sent,
        rows_sent=wire,
        seconds=seconds,
        computing=computing,
        catching_up=catching_up,
        sending=sending,
        events_per_second=k * events / seconds,
    )


def flops_per_event(setting: Setting) -> float:
    """Arithmetic of one step over its events, by the rule of `rivals/flops.py`."""
    events, config = setting.batch_events, setting.config
    candidates, tokens = int(events * setting.displays), int(events * setting.tokens)
    work = Work(
        events=events,
        slots=candidates,
        tokens=tokens,
        gathered=tokens,
        generated=0,
        n_ids=int(setting.items),
        dense=False,
        rows_history=int(setting.distinct(tokens)),
        rows_scorer=int(setting.distinct(candidates)),
        lags=0.0,
    )
    # an embedding is a product more, which that rule's contenders do not have
    gates = (4 if config.history == "lstm" else 3) * config.history_dim
    above = {"history": gates, "reward": config.hidden[0], "generator": config.hidden[0]}
    up = sum(
        2 * config.item_dim * above[table.name] * table.draws * (table.reads + 2 * table.updates)
        for table in setting.tables
        if table.name in above
    )
    return work_flops(work, config, setting.kind) / events + up


def measured(file: Path = MEASURED) -> dict[str, Any] | None:
    """What was measured on 1 and 2 processes, if it was."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def compared(result: dict[str, Any], machine: Machine) -> list[tuple[str, ...]]:
    """Rows of a measurement: preset, sessions of a batch, rates on one process and K, their ratio
    and the model's, bytes and the model's.

    Bytes are those of an exchange, of which a round has one of the reward player and
    `generator_steps` of the generator."""
    rows: list[tuple[str, ...]] = []
    for preset, batches in result["presets"].items():
        for size, found in batches.items():
            events = round(int(size) * WORLD_LENGTH)
            setting = replace(WORLD, preset=preset, items=result["items"], batch_events=events)
            said = cost(
                setting, replace(machine, events_per_second=found["alone"]), result["processes"]
            )
            rows.append(
                (
                    f"`{preset}`",
                    size,
                    f"{found['alone']:,.0f}",
                    f"{found['together']:,.0f}",
                    f"{found['speed_up']:.2f}",
                    f"{said.events_per_second / found['alone']:.2f}",
                    _bytes(found["wire_bytes_per_step"]),
                    _bytes((said.dense_sent + said.rows_sent) / sum(setting.updates.values())),
                )
            )
    return rows


HEAD = (
    "processes",
    "memory",
    "sent: dense",
    "sent: rows",
    "computing",
    "others' rows",
    "sending",
    "events/s",
    "efficiency",
)


def row_of(one: Cost) -> tuple[str, ...]:
    """A cost as text."""
    return (
        f"{one.processes}",
        _bytes(one.memory),
        _bytes(one.dense_sent),
        _bytes(one.rows_sent),
        _seconds(one.computing),
        _seconds(one.catching_up),
        _seconds(one.sending),
        f"{one.events_per_second:,.0f}",
        f"{one.efficiency:.0%}",
    )


def to_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["--:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} TB"


def _seconds(s: float) -> str:
    return f"{s:.3g} s" if s >= 1 else f"{1e3 * s:.3g} ms"


def main() -> None:
    """Print a setting's table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    base = Setting()
    parser.add_argument("--preset", default=base.preset, choices=PRESETS)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting other than the preset's",
    )
    parser.add_argument("--items", type=float, default=base.items)
    parser.add_argument(
        "--batch-events", type=int, default=base.batch_events, help="events of a batch, per process"
    )
    parser.add_argument(
        "--displays", type=float, default=base.displays, help="candidates of an event"
    )
    parser.add_argument(
        "--exponent", type=float, default=base.exponent, help="of the power law of displayed items"
    )
    parser.add_argument("--kind", choices=("round", "exact"), default=base.kind)
    parser.add_argument("--processes", default="1,2,4,8,16,32,64", help="numbers of processes")
    parser.add_argument("--events-per-second", type=float, default=1e5, help="of one process alone")
    parser.add_argument(
        "--sends", type=float, default=1e9, help="bytes per second that a process sends"
    )
    parser.add_argument(
        "--moves", type=float, default=4e9, help="bytes per second of table rows moved"
    )
    parser.add_argument("--latency", type=float, default=2e-5, help="seconds of a message")
    parser.add_argument(
        "--sharded", action="store_true", help="each process holds its share of every table"
    )
    arguments = parser.parse_args()
    setting = Setting(
        preset=arguments.preset,
        items=arguments.items,
        batch_events=arguments.batch_events,
        displays=arguments.displays,
        exponent=arguments.exponent,
        kind=arguments.kind,
        changes=tuple(map(parse_setting, arguments.set)),
    )
    machine = Machine(
        arguments.events_per_second, arguments.sends, arguments.moves, arguments.latency
    )
    costs = [
        cost(setting, machine, int(k), arguments.sharded) for k in arguments.processes.split(",")
    ]
    print(
        f"{costs[0].flops_per_event:,.0f} FLOPs and {costs[0].moved_per_event:,.0f} bytes of rows "
        "per event\n"
    )
    print(to_markdown(HEAD, map(row_of, costs)))


if __name__ == "__main__":
    main()
