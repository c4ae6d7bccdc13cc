"""Which settings `presets.PORTFOLIO` should hold, and what it costs to have these alone.

    python bench/experiments/portfolio.py measure docs/tables/portfolio.json
    python bench/experiments/portfolio.py choose docs/tables/portfolio.json

`measure` fits many settings, with exact players, on parts of real logs and on logs of made-up laws,
each without the first fold of users and without the second, and writes the losses of the users left
out; a later call fits what the file lacks. No test session is read. `choose` takes the list whose
best has the lowest mean loss over logs, one setting after the other (Feurer et al., "Auto-Sklearn
2.0", JMLR 2022; Salinas and Erickson, "TabRepo", AutoML 2024), and judges it by leaving a log out:
the regret of a log is how much worse the list chosen on all others is there than the best setting
of all, where the settings of the list are compared as a fit compares them."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fastgaum.arrays import Float64Array
from fastgaum.bench.made_up_laws import LAWS, make_law
from fastgaum.bench.report import write_object
from fastgaum.config import Config
from fastgaum.game.checkpoint import Checkpointer, TriedSetting
from fastgaum.game.processes import Processes
from fastgaum.logs.cut import slice_sessions
from fastgaum.logs.hashes import mix_hashes
from fastgaum.logs.log import TEST, SessionLog
from fastgaum.logs.read import load
from fastgaum.machine import machine_facts
from fastgaum.models.fit_data import PreparedLog
from fastgaum.models.portfolio import Halving, settings_of
from fastgaum.models.user_model import UserModel
from fastgaum.presets import LogSetting
from fastgaum.reports.table import Json, rows_to_markdown
from fastgaum.threads import one_thread

FOLDS = 2
"""folds that are left out, of those that a fit makes"""
LENGTH = 9
"""settings of the portfolio of a log with folds"""
CAP = 0.15
"""nats above the best of a log, at most, that a setting counts: one that fails there fails there"""


def log_named(name: str) -> SessionLog:
    """`yelp`; `clara2/8`, one in eight of its users, by their hashes; `price_type:500:1`, a made-up
    law's log of so many training events, by its seed."""
    if ":" in name:
        asked, events, seed = name.split(":")
        (law,) = (one for one in LAWS if one == asked)
        return make_law(law, int(events), int(seed)).log
    of, _, part = name.partition("/")
    log = load(of)
    if not part:
        return log
    drawn = mix_hashes(log.user_hashes, np.full(len(log.user_hashes), 77, np.uint64))
    kept = (drawn % np.uint64(int(part)) == 0) & (log.split != TEST)
    return slice_sessions(log, np.flatnonzero(kept))


LOGS = (
    *("yelp", "taobao", "yoochoose", "search_clicks", "ebnerd", "clara2/8", "tastenet/8"),
    *("lpmc/16", "lpmc-persons/24", "movielens-small/16"),
    *("main:500:1", "price_type:500:1", "places:500:1", "no_click:500:1"),
    *("boredom:1000:1", "repeats:1000:1", "main:3000:1", "price_type:3000:1"),
)
CANDIDATES = """
0.2 0 read set 6 full 64×64 0.5 0.1 128 0.003
0 16 apart own 0 nocounts 64×64 0.1 0.1 32 0.003
0.5 16 apart set 6 full 64×64 0.5 0.1 128 0.003
0.5 16 read own 6 nocounts 128×128 0.1 0.1 512 0.003
0.5 0 apart own 6 full 16 0.1 1 128 0.003
0 16 apart own 16 nocounts 128×128 0.1 1 32 0.003
0.5 16 read own 16 norel 64×64 0.1 1 128 0.01
0.2 0 read own 6 full 128×128 0.5 1 32 0.01
0.5 0 read own 16 norel 128×128 0.5 1 128 0.01
0.5 16 apart set 6 full 64×64 0.1 0.1 32 0.003
0.5 16 apart set 6 full 64×64 0.1 0.1 32 0.01
0.5 16 apart set 6 norel 64×64 0.1 0.1 32 0.003
0.5 16 apart own 6 nocounts 128×128 0.1 0.1 32 0.003
0.2 0 read set 6 full 64×64 0.1 0.1 32 0.003
0.5 0 read set 6 full 64×64 0.1 0.1 32 0.003
0.5 16 apart set 6 full 128×128 0.1 1 32 0.01
0.5 16 apart set 6 full 64×64 0.5 0.1 32 0.003
0.5 16 read set 6 full 64×64 0.1 0.1 32 0.003
0.5 16 apart own 0 nocounts 128×128 0.1 0.1 32 0.003
0.5 16 apart own 6 full 128×128 0.1 1 32 0.01
0.5 0 apart own 6 norel 128×128 0.1 1 32 0.01
0.5 0 read own 6 norel 64×64 0.1 0.1 32 0.003
0.2 16 apart set 6 full 64×64 0.1 0.1 32 0.003
0.5 16 apart set 6 nocounts 128×128 0.1 0.1 32 0.003
0.5 16 apart set 16 full 256×128 0.1 0.1 128 0.003
"""
"""a setting in a line: dropout, tastes, whether places are kept apart, whether numbers are also
given relative to their display set, pieces, whether counts and relations are read, hidden, id
dropout, weight decay, events of a batch, learning rate"""
COUNTS: dict[str, dict[str, object]] = {
    "full": {"counts": True, "relations": True},
    "norel": {"counts": True, "relations": False},
    "nocounts": {"counts": False, "relations": False},
}


def candidates() -> dict[str, LogSetting]:
    """The settings that are compared, by name: those that drew well among 40 at random on eight
    logs, and their neighbours."""
    found: dict[str, LogSetting] = {}
    for row in (line.split() for line in CANDIDATES.strip().splitlines()):
        dropout, tastes, apart, context, pieces, counts, hidden, ids, decay, events, lr = row
        values: dict[str, object] = {
            "dropout": float(dropout),
            "tastes": int(tastes),
            "examination": apart == "apart",
            "relative_numbers": context == "set",
            "pieces": int(pieces),
            **COUNTS[counts],
            "hidden": tuple(int(one) for one in hidden.split("×")),
            "id_dropout": float(ids),
            "weight_decay": float(decay),
            "lr": float(lr),
        }
        found[" ".join(row)] = LogSetting(values, batch_events=int(events))
    return found


def fit_all(path: Path, names: Sequence[str], settings: Mapping[str, LogSetting]) -> None:
    """Fit what the object at `path` lacks; it is written after each log and setting."""
    facts: Json = {"machine": machine_facts(), "folds": FOLDS, "logs": {}}
    if path.is_file():
        facts |= json.loads(path.read_text("utf-8"))
    for name in names:
        losses: Json = facts["logs"].setdefault(name, {})
        log, missing = log_named(name), [one for one in settings if one not in losses]
        for number, setting in enumerate(missing, 1):
            started = time.process_time()
            found = losses_of(log, settings[setting])
            seconds = round(time.process_time() - started, 1)
            losses[setting] = {"losses": found, "seconds": seconds}
            write_object(path, facts)
            what = f"[{number}/{len(missing)}] {name}, {setting}"
            print(f"{what}: {np.mean(found):.4f}, {seconds} s", flush=True)


def losses_of(log: SessionLog, setting: LogSetting) -> list[float]:
    """The least loss of the users of a fold that a fit left out, of each of the first FOLDS folds;
    what a log has not (places, numbers) is as it is."""
    asked = Config(search=tuple(setting.values), players="exact")
    (config,) = settings_of(asked, log, {"": setting}).values()
    # as many as it says, however many events the log has: what is compared is not what is left
    share = log.count("sessions", "train") / log.count("events", "train")
    config = config.replace(batch_sessions=max(1, round(setting.batch_events * share)))
    model, found = UserModel(config, device="cpu"), list[float]()
    prepared = PreparedLog(log, model.folds_for(log))(config)
    for fold in range(FOLDS):
        with one_thread():
            one = UserModel(config.replace(seed=fold), device="cpu")
            rows = one.train_on(prepared, None, Checkpointer(), Processes(), fold)
        found.append(min(row.score for row in rows))
    return found


def regrets(facts: Json) -> tuple[list[str], list[str], Float64Array]:
    """Logs, settings that all of them have, and how much worse than the best of its log each is,
    (n_logs, n_settings), up to CAP."""
    logs = list(facts["logs"])
    settings = [one for one in facts["logs"][logs[0]] if all(one in facts["logs"][x] for x in logs)]
    means = [[np.mean(facts["logs"][x][one]["losses"]) for one in settings] for x in logs]
    losses = np.array(means, np.float64)
    return logs, settings, np.minimum(losses - losses.min(1, keepdims=True), CAP)


def choose_greedily(regret: Float64Array, length: int) -> list[int]:
    """Columns, the first the best alone, each further one the best beside those before."""
    best, chosen = np.full(len(regret), np.inf), list[int]()
    for _ in range(length):
        beside = np.minimum(best[:, None], regret).mean(0)
        beside[chosen] = np.inf
        chosen.append(int(beside.argmin()))
        best = np.minimum(best, regret[:, chosen[-1]])
    return chosen


def found_by_halving(of_log: Json, settings: Sequence[str]) -> float:
    """The mean loss of the setting that a fit's comparison would choose among these."""

    def loss_of(name: str, fold: int, _: int | None) -> float:
        return float(of_log[name]["losses"][fold])

    trials = Halving(tuple(settings), FOLDS, 0).run(loss_of)
    best = min(trials, key=TriedSetting.rank)
    return float(np.mean(of_log[best.name]["losses"]))


def judge(facts: Json, lengths: Sequence[int]) -> Iterator[Json]:
    """The regret of each log by a list of each length that was chosen without it."""
    logs, settings, regret = regrets(facts)
    for length, (i, log) in itertools.product(lengths, enumerate(logs)):
        others = [settings[j] for j in choose_greedily(np.delete(regret, i, 0), length)]
        least = min(float(np.mean(one["losses"])) for one in facts["logs"][log].values())
        found = found_by_halving(facts["logs"][log], others)
        yield {"length": length, "log": log, "regret": found - least}


def list_markdown(facts: Json, length: int) -> str:
    """The settings chosen on all logs, and the regret of the list up to each."""
    logs, settings, regret = regrets(facts)
    best, rows = np.full(len(logs), np.inf), [("setting", "mean regret", "worst")]
    for j in choose_greedily(regret, length):
        best = np.minimum(best, regret[:, j])
        rows.append((settings[j], f"{best.mean():.4f}", f"{best.max():.4f}"))
    return rows_to_markdown(rows)


def judged_markdown(judged: Sequence[Json]) -> str:
    """Regrets of logs left out, a column for each length."""
    lengths = sorted({one["length"] for one in judged})
    by_log: dict[str, list[float]] = {}
    for one in sorted(judged, key=lambda one: one["length"]):
        by_log.setdefault(one["log"], []).append(one["regret"])
    columns = list(zip(*by_log.values(), strict=True))
    means, worst = ([f(one) for one in columns] for f in (np.mean, max))
    lines = {**by_log, "mean": means, "worst": worst}
    rows = [[log, *(f"{value:.4f}" for value in values)] for log, values in lines.items()]
    return rows_to_markdown([["log left out", *(f"{n} settings" for n in lengths)], *rows])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["measure", "choose"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--logs", nargs="+", default=LOGS)
    args = parser.parse_args(argv)
    if args.what == "measure":
        fit_all(args.file, args.logs, candidates())
        return
    facts: Json = json.loads(args.file.read_text("utf-8"))
    print(list_markdown(facts, LENGTH))
    print(judged_markdown(list(judge(facts, (1, LENGTH // 2, LENGTH)))))


if __name__ == "__main__":
    main()
