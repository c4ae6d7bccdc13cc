"""`fastgaum data`: which logs there are, how to get them, what is wrong with one, and how to make
one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fastgaum.cli.options import COMMON, DataDir, JsonFile, ModelOptions, given, use_threads
from fastgaum.cli.output import (
    check_log_output,
    check_outputs,
    finish,
    note,
    say,
    show_block,
    show_table,
    write_json,
    write_log,
)
from fastgaum.cli.progress import Bar, noting_compilation
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.cli.train import DEFAULT_MODEL, THIS_MACHINE, Machine
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from fastgaum.logs.log import SessionLog
    from fastgaum.reports.learning_curve import SampleFit

NamePath = Annotated[str, Parameter(help="a registry name")]
LogPath = Annotated[
    Path,
    Parameter(name=["--out", "-o"], help="a .parquet or .csv file (long layout), or a folder"),
]


@Parameter(name="*")
@dataclass(frozen=True)
class WorldOptions:
    """A preset of the synthetic world, and changes of it."""

    preset: str = "default"
    """the world to start from: default, sample, scale, tail"""
    n_items: Annotated[int | None, Parameter(name="--items")] = None
    """number of items"""
    seed: int | None = None
    """seed of everything random"""
    rule: Literal["shannon", "l2"] | None = None
    """how users choose: softmax (shannon) or sparsemax (l2)"""
    no_click: float | None = None
    """share of displays without a click"""
    order: Literal["none", "random", "popularity"] | None = None
    """order of the items of a display; none if not given"""
    examination: float | None = None
    """how much lower places lose: place p divides the odds of an item by p to this power"""


DEFAULT_WORLD = WorldOptions()


def data_list_command(*, data_dir: DataDir = None, json: JsonFile = None) -> None:
    """List the logs that have a name, and whether they are on this machine."""
    from fastgaum.logs.datasets import dataset, find_log, names

    check_outputs(json)
    rows, facts = [], []
    for entry in map(dataset, names()):
        path = find_log(entry.name, data_dir)
        place = None if path is None else str(path)
        known = {"name": entry.name, "title": entry.title, **entry.counts}
        facts.append({**known, "bundled": entry.bundled, "path": place})
        at_hand = "bundled" if entry.bundled else "absent" if path is None else str(path.parent)
        events, items = (f"{entry.counts.get(what, 0):,}" for what in ("events", "items"))
        rows.append([entry.name, events, items, at_hand])
    write_json(json, {"data_sets": facts})
    show_table(["name", "events", "items", "at hand"], rows)
    finish("`fastgaum data info NAME` says what it is, `fastgaum data get NAME` brings it here")


def data_info_command(
    name: NamePath,
    /,
    *,
    data_dir: DataDir = None,
    json: JsonFile = None,
) -> None:
    """Describe a log: origin, terms of use, sizes, checksums, and its card."""
    from fastgaum.logs.datasets import card, dataset, find_log

    entry = dataset(name)
    path = find_log(name, data_dir)
    check_outputs(json)
    place = None if path is None else str(path)
    write_json(json, {**dataclasses.asdict(entry), "path": place, "card": card(name)})
    say(f"{entry.name}: {entry.title}")
    say(f"origin: {entry.origin}")
    say(f"terms: {entry.terms}")
    say("counts: " + ", ".join(f"{count:,} {what}" for what, count in entry.counts.items()))
    for file in entry.files:
        say(
            f"file: {file.path}, sha256 {file.sha256}, "
            f"{file.url or 'no address: adopt a copy with --from'}"
        )
    say(f"at hand: {path or 'no'}\n")
    say(card(name).rstrip())


def data_get_command(
    name: NamePath,
    /,
    *,
    from_: Annotated[
        Path | None,
        Parameter(name="--from", help="copy a file, or a folder of files, that you have"),
    ] = None,
    data_dir: Annotated[
        Path | None, Parameter(help="the folder to put it in; the user cache if not given")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Download a log, or copy one that you have. Its sha256 must be the registry's."""
    check_outputs(json)
    from fastgaum.logs.datasets import fetch

    with Bar(f"downloading {name}" if from_ is None else f"copying and checking {from_}"):
        path = fetch(name, from_file=from_, data_dir=data_dir)
    finish(f"{path}: {name}, checksum right", json, {"name": name, "path": str(path)})


def data_audit_command(
    source: Log, /, *, json: JsonFile = None, reading: Reading = AS_IT_IS
) -> None:
    """Look for traps in a log: simple rules that find the clicked item without knowing the user.
    Also print the floors, which a model has to beat.

    A trap is a finding, not a failure: the exit code is 0."""
    check_outputs(json)
    from fastgaum.baselines.floors import floor_table
    from fastgaum.cli.evaluate import floor_facts, floor_texts
    from fastgaum.logs.audit import audit as audit_log

    with Bar(f"reading {source}"):
        log, raw = reading.load_with_rows(source)
    with Bar("auditing") as progress:
        report = audit_log(log, raw, progress=progress)
    floors = floor_table(log)
    write_json(json, {**report.to_dict(), "floors": floor_facts(floors)})
    if texts := floor_texts(floors):
        say(f"floors, prec@1 on all test events: {', '.join(texts)}\n")
    # which ends in the verdict
    say(report.to_text())


def data_plan_command(
    source: Log,
    /,
    *,
    options: ModelOptions = DEFAULT_MODEL,
    json: JsonFile = None,
    machine: Machine = THIS_MACHINE,
    reading: Reading = AS_IT_IS,
) -> None:
    """Say what more events would gain: fit on 1/16, 1/8, 1/4, 1/2 and all of the training users,
    and print the validation NLL that is expected of 2, 4 and 10 times as many events.

    One setting is chosen on half of the users and fitted 15 times, without folds: about four fits
    of the whole log, beside the choice."""
    check_outputs(json)
    config = options.resolve()
    from fastgaum.machine import machine_facts
    from fastgaum.reports.learning_curve import curve_block, learning_curve

    use_threads(machine.threads)
    with Bar(f"reading {source}"):
        log = reading.load_to_train(source)
    with noting_compilation(), Bar("fitting samples") as progress:

        def on_fit(fit: SampleFit, done: int, total: int) -> None:
            progress(done, total)
            progress.line(f"[{done}/{total}] {fit}")

        curve = learning_curve(log, config, device=machine.device, on_fit=on_fit)
    about = {"name": log.name, "fingerprint": log.fingerprint}
    read_with = reading.options.to_json()
    facts = {"machine": machine_facts(config.seed), "log": about, "read_with": read_with}
    write_json(json, facts | curve.to_dict())
    show_block(curve_block(curve, log.name))
    say(f"  {curve}")


def data_convert_command(
    source: Log,
    /,
    out: LogPath,
    parts: int | None = None,
    json: JsonFile = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Read a log, check it, and write it: as one file in the long layout, or as a folder that loads
    at once.

    Args:
        parts: write a folder of so many parts of whole users, one after another, so that the log
            need not fit in memory; 0: each file of a folder is a part
    """
    check_outputs(json)
    check_log_output(out)
    if parts is not None:
        _convert_parts(source, out, parts, json, reading)
        return
    with Bar(f"reading {source}"):
        log = reading.load(source)
    with Bar(f"writing {out}"):
        write_log(log, out)
    facts, line = _facts_of_log(out, log)
    finish(line, json, facts)


def _convert_parts(source: str, out: Path, parts: int, json: Path | None, reading: Reading) -> None:
    """Write a log in parts."""
    from fastgaum.logs.parts import save_in_parts
    from fastgaum.logs.store import StoredLog

    if out.suffix:
        raise ConfigError(
            f"'{out}' is a file, parts are written into a folder: leave '{out.suffix}' out"
        )
    with Bar(f"reading {source}") as progress:
        save_in_parts(
            source,
            out,
            parts,
            data_dir=reading.data_dir,
            options=reading.options,
            overwrite=COMMON.overwrite,
            progress=progress,
        )
    stored = StoredLog(out)
    counts = {"parts": stored.n_parts}
    counts |= {kind: stored.count(kind) for kind in ("sessions", "events", "candidates")}
    facts, line = _facts(out, stored.name, counts | {"items": stored.first.n_items})
    finish(line, json, facts)


def _facts_of_log(out: Path, log: SessionLog) -> tuple[dict[str, Any], str]:
    kinds = ["sessions", "events", "candidates", "items", *(["actions"] if log.actions else [])]
    return _facts(out, log.name, {kind: getattr(log, f"n_{kind}") for kind in kinds})


def _facts(out: Path, name: str, counts: dict[str, int]) -> tuple[dict[str, Any], str]:
    """Facts of a log that was written, and its sizes as a line."""
    line = f"{out}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}"
    return {"path": str(out), "name": name, **counts}, line


def data_build_command(
    choices: Annotated[
        str,
        Parameter(
            help="a file of users, items and times, a folder of MovieLens (1M, 100K, latest) or "
            "LastFM-1K, or a registry name"
        ),
    ],
    /,
    *,
    out: LogPath,
    displayed: Annotated[int, Parameter(help="items of a display")] = 10,
    seed: Annotated[int, Parameter(help="seed of the order of choices at the same time")] = 0,
    data_dir: DataDir = None,
    json: JsonFile = None,
) -> None:
    """Make a log from choices whose displays were not recorded. Each display holds the chosen item
    and the items that other users chose nearest in time."""
    check_log_output(out)
    check_outputs(json)
    from fastgaum.logs.datasets import resolve
    from fastgaum.logs.made_up_displays import make_displays
    from fastgaum.logs.read import read_log
    from fastgaum.logs.tables import stem_of

    found = resolve(choices, data_dir)
    found.verify()
    name = stem_of(found.path.resolve()) if found.dataset is None else found.dataset.name
    with Bar(f"making displays for {choices}"):
        frame = make_displays(found.path, displayed=displayed, seed=seed)
        # rows of a file are in an order that says nothing, which only an ordered log keeps
        log = read_log(frame, name=name, ordered=bool(out.suffix))
    with Bar(f"writing {out}"):
        write_log(log, out)
    notes = []
    if short := frame.filter(frame["items"].list.len() < displayed).height:
        few = f"displays have fewer than {displayed} candidates: no more exist"
        notes = [f"{short} of {log.n_events} {few}"]
        note(notes[0])
    audited = f"  `fastgaum data audit {out}` says what the rule gives away"
    facts, line = _facts_of_log(out, log)
    finish(f"{line}\n{audited}", json, facts | {"notes": notes})


def data_synth_command(
    *,
    out: LogPath,
    events: Annotated[int, Parameter(help="number of displays")] = 2000,
    world: WorldOptions = DEFAULT_WORLD,
    json: JsonFile = None,
) -> None:
    """Draw a log from a synthetic world. The truth is known and written beside the log."""
    check_outputs(json)
    check_log_output(out)
    from fastgaum.logs.synthetic import synthesise
    from fastgaum.worlds.oracle import oracle_scores, truth_path, write_truth

    check_outputs(truth_path(out))
    with Bar("drawing"):
        log, truth = synthesise(events, **given(**dataclasses.asdict(world)))
    with Bar(f"writing {out}"):
        write_log(log, out)
        # in the folder that is there now
        write_truth(log, truth, place := truth_path(out))
        oracle = oracle_scores(log, truth)
    prec1 = 100 * oracle.precision[1]
    facts, line = _facts_of_log(out, log)
    best = f"  the oracle's prec@1 on the test split is {prec1:.1f}, its NLL {oracle.nll:.3f}"
    facts |= {"truth": str(place), "oracle": {"prec@1": prec1, "nll": oracle.nll}}
    if log.ordered and out.suffix:
        best += "\n  the order of its displays is real: read it with --ordered"
    finish(f"{line}; {place}: the truth\n{best}", json, facts)
