"""`fastgaum data`: which logs there are, how to get them, what is wrong with one, and how to make one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from fastgaum.cli.console import check_outputs, note, say, show_table, write_json
from fastgaum.cli.logs import check_log_output, check_shards_folder, write_log
from fastgaum.cli.progress import DownloadProgress, EventProgress
from fastgaum.cli.reading import AS_IT_IS, Log, Reading
from fastgaum.errors import ConfigError

if TYPE_CHECKING:
    from fastgaum.sessions.shards import ShardedLog

app = App(name="data", help="Logs: list, info, get, audit, convert, build, synth.")


DataDir = Annotated[Path | None, Parameter(help="where registry names are looked up first")]


@app.command(name="list")
def list_(*, data_dir: DataDir = None) -> None:
    """List the logs that have a name, and whether they are at hand."""
    from fastgaum.datasets.locate import find
    from fastgaum.datasets.registry import dataset, names

    rows = []
    for entry in map(dataset, names()):
        path = find(entry.name, data_dir)
        at_hand = "bundled" if entry.bundled else "absent" if path is None else str(path.parent)
        rows.append([entry.name, f"{entry.counts.get('events', 0):,}", f"{entry.counts.get('items', 0):,}", at_hand])
    show_table(["name", "events", "items", "at hand"], rows)
    say("`fastgaum data info NAME` says what it is, `fastgaum data get NAME` brings it here")


@app.command
def info(name: Annotated[str, Parameter(help="a registry name")], /, *, data_dir: DataDir = None) -> None:
    """Say what a log is: origin, terms, counts, checksums, and its card."""
    from fastgaum.datasets.locate import find
    from fastgaum.datasets.registry import card, dataset

    entry = dataset(name)
    path = find(name, data_dir)
    say(f"{entry.name}: {entry.title}")
    say(f"origin: {entry.origin}")
    say(f"terms: {entry.terms}")
    say("counts: " + ", ".join(f"{count:,} {what}" for what, count in entry.counts.items()))
    for file in entry.files:
        say(f"file: {file.path}, sha256 {file.sha256}, {file.url or 'no address: adopt a copy with --from'}")
    say(f"at hand: {path or 'no'}\n")
    say(card(name).rstrip())


@app.command
def get(
    name: Annotated[str, Parameter(help="a registry name")],
    /,
    *,
    from_: Annotated[
        Path | None, Parameter(name="--from", help="adopt a local copy: a file, or a folder of files")
    ] = None,
    data_dir: Annotated[Path | None, Parameter(help="where to put it; the user cache if not given")] = None,
) -> None:
    """Download a log, or adopt a local copy; either way its sha256 must be the registry's."""
    from fastgaum.datasets.fetch import get as fetch

    with DownloadProgress(name) as progress:
        path = fetch(name, from_file=from_, data_dir=data_dir, progress=progress)
    say(f"{path}: {name}, checksum right")


@app.command
def audit(
    log: Log,
    /,
    *,
    json: Annotated[Path | None, Parameter(help="also write the report as one JSON object")] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Try simple label-free rules on a log, and name each that finds the clicked item more often than chance.

    Traps in a log are a finding, not a failure: the exit code is 0.
    """
    check_outputs(json)
    from fastgaum.sessions.audit import audit as audit_log

    report = audit_log(reading.open(log), reading.raw_rows(log))
    if json is not None:
        write_json(json, report.to_dict())
    say(report.to_text())


@app.command
def convert(
    log: Log,
    /,
    *more: Annotated[str, Parameter(help="with --shards: further files of the same log")],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="a .parquet or .csv file (long layout), or a folder")],
    shards: Annotated[
        int | None, Parameter(help="write a folder of so many shards: a log of any size, at a bounded memory")
    ] = None,
    reading: Reading = AS_IT_IS,
) -> None:
    """Read a log, check it, and write it: as a file in the long layout, packed into a folder that loads at once, or in shards.

    With --shards files are read a piece at a time and any number of them may be given; all of a user's sessions come to lie
    in one shard.
    """
    if shards is not None:
        _convert_to_shards((log, *more), out, shards, reading)
        return
    if more:
        raise ConfigError("several logs become one in shards only: pass --shards N")
    check_log_output(out)
    sessions = reading.load(log)
    write_log(sessions, out)
    say(f"{out}: {sessions.n_sessions} sessions, {sessions.n_events} events, {sessions.n_candidates} candidates")


def _convert_to_shards(logs: tuple[str, ...], out: Path, n_shards: int, reading: Reading) -> None:
    check_shards_folder(out)
    from fastgaum.datasets.sharding import shard_logs

    written = shard_logs(logs, out, n_shards, data_dir=reading.data_dir, **reading.options())
    _say_shards(out, written)


def _say_shards(out: Path, log: ShardedLog) -> None:
    from fastgaum.sessions.shard_files import cut_of

    say(
        f"{out}: {log.n_sessions} sessions, {log.n_events} events, {log.n_candidates} candidates of {log.n_items} items"
    )
    say(f"  {cut_of(log.shards)}")


@app.command
def check(shards: Annotated[Path, Parameter(help="a folder of shards")], /) -> None:
    """Read every file of a log in shards whole: is each what was written."""
    from fastgaum.sessions.shards import open_shards

    log = open_shards(shards, verify=True)
    for number in range(len(log.shards)):
        log.read(number)
    _say_shards(shards, log)


@app.command
def build(
    choices: Annotated[
        str, Parameter(help="a folder or file of MovieLens (1M, 100K, latest) or LastFM-1K, or a registry name")
    ],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="a .parquet or .csv file (long layout), or a folder")],
    rule: Annotated[
        Literal["nearest", "nearest-unseen", "released-before"] | None,
        Parameter(help="what is displayed beside the chosen item; nearest if not given"),
    ] = None,
    displayed: Annotated[int | None, Parameter(help="candidates of a display set; 10 if not given")] = None,
    seed: Annotated[int | None, Parameter(help="breaks ties in time, draws samples; 0 if not given")] = None,
    item: Annotated[Literal["artist", "track"], Parameter(help="what an item is in LastFM-1K")] = "artist",
    candidate_field: Annotated[
        Literal["release_time"] | None, Parameter(help="add the release to logs of the other rules")
    ] = None,
    split_seed: Annotated[int, Parameter(help="seed of the split of whole users, 50/25/25")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Make a log of choices whose display sets were never recorded: each display is made up by a rule.

    nearest: the chosen item and those that other users chose nearest in time. nearest-unseen: the same, without what
    the user chose before. released-before: items released in the calendar month (or year) before the choice.
    """
    check_log_output(out)
    from fastgaum.datasets.displays import as_rows, build_named

    given = {"rule": rule, "displayed": displayed, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    fields = () if candidate_field is None else (candidate_field,)
    with EventProgress(choices) as progress:
        built = build_named(
            choices, data_dir=data_dir, item=item, candidate_fields=fields, split_seed=split_seed, progress=progress,
            **options,
        )  # fmt: skip
    write_log(as_rows(built.log, built.rule.seed) if out.suffix else built.log, out)
    for line in built.notes:
        note(line)
    log = built.log
    say(
        f"{out}: {log.n_sessions} sessions, {log.n_events} events, {log.n_candidates} candidates of {log.n_items} items"
    )
    fields_of_file = "".join(f" --candidate-field {name}" for name in log.candidate_fields) if out.suffix else ""
    say(f"  `fastgaum data audit {out}{fields_of_file}` says what the rule gives away")


@app.command
def synth(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="a .parquet or .csv file, or a folder")],
    events: Annotated[int, Parameter(help="events to draw")] = 2000,
    shards: Annotated[int | None, Parameter(help="write a folder of so many shards, without the truth")] = None,
    preset: Annotated[str, Parameter(help="the world to start from: default, sample, scale, tail")] = "default",
    items: Annotated[int | None, Parameter(help="size of the catalogue")] = None,
    seed: Annotated[int | None, Parameter(help="the one source of randomness")] = None,
    rule: Annotated[Literal["shannon", "l2"] | None, Parameter(help="softmax or sparsemax choices")] = None,
    eta: Annotated[float | None, Parameter(help="how decided the user is")] = None,
    no_click: Annotated[float | None, Parameter(name="--no-click", help="share of events without a click")] = None,
    mean_length: Annotated[float | None, Parameter(help="mean events per session")] = None,
    max_length: Annotated[int | None, Parameter(help="longest session")] = None,
    mean_display: Annotated[float | None, Parameter(help="mean candidates per display set")] = None,
) -> None:
    """Draw a log of a world whose reward and choice rule are known, and write the truth beside it."""
    given = {
        "n_items": items, "seed": seed, "rule": rule, "eta": eta, "no_click": no_click, "mean_length": mean_length,
        "max_length": max_length, "mean_display": mean_display,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None}
    if shards is not None:
        check_shards_folder(out)
        from fastgaum.sessions.shard_writer import synthesise_shards

        _say_shards(out, synthesise_shards(events, out, shards, preset=preset, **changes))
        return
    check_log_output(out)
    from fastgaum.sessions.oracle import oracle_scores, truth_path, write_truth
    from fastgaum.sessions.synthetic import synthesise

    log, truth = synthesise(events, preset=preset, **changes)
    write_log(log, out)
    write_truth(log, truth, truth_path(out))
    oracle = oracle_scores(log, truth)
    say(f"{out}: {log.n_sessions} sessions, {log.n_events} events; {truth_path(out)}: the truth")
    say(f"  the oracle's prec@1 on the test split is {100 * oracle.precision[1]:.1f}, its NLL {oracle.nll:.3f}")
