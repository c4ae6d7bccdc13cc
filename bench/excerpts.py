"""What pages show of the committed objects beside whole tables: the README's short tables, single
numbers in prose, and the commit that made an object.

A number in prose stands between two comments, which a reader does not see:
`<!--= logs/wikispeedia > cells > model=fastgaum > head=reward > k=1 > nll : .3f -->1.763<!--/-->`.
The steps lead through the object, `name=value` into a list; after the colon is Python's format."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastgaum.bench.report import machine_lines, never_reached, short, with_unit
from fastgaum.errors import ConfigError
from fastgaum.logs.datasets import dataset, names
from fastgaum.reports.plots import colour, panels_in_file
from fastgaum.reports.reproduce_table import KS, rows_by_model
from fastgaum.reports.table import Block, block_to_markdown, num, rows_to_markdown, signed
from fastgaum.reports.world_tables import differs, ece_text, sides_of

Json = Mapping[str, Any]

PUBLISHED = {"GAN-PW": "paper-pw", "GAN-LSTM": "paper-lstm"}
"""the paper's own two models, and the presets that are these models"""
SHOWN = {
    "logit": "linear model",
    "xgboost": "boosted trees",
    "wd-ccf": "wide & deep",
    "paper-lstm": "the paper's networks",
    "fastgaum-exact": "FastGAUM without the game",
    "fastgaum": "FastGAUM",
}
"""models of the README's table, and what they are called"""
OURS = "fastgaum"
ENDED = ("pool", "fastgaum-members", "linucb")
"""models of earlier commits, whose rows stay"""
ENDED_NAMES = ", ".join(f"`{name}`" for name in ENDED)
WHICH_MODEL = (
    *("log", "events", "shown", "holds", "lowest NLL", f"`{OURS}`, NLL less the best's"),
    *("highest prec@1", f"`{OURS}`, prec@1 less the best's", f"seconds of `{OURS}`", "take"),
)
"""columns of the table of logs"""
"""stands for a difference that is not known"""
NUMBER = re.compile(r"<!--= (\S+) > (.+?) : (\S+) -->.*?<!--/-->")
"""object, steps and format of a number in prose"""


def set_numbers(page: str, read: Callable[[str], Json]) -> str:
    """Return the page with each number in prose as its object has it.

    >>> page = "about <!--= log > rows > k=2 > share : .0% -->?<!--/--> of them"
    >>> set_numbers(page, lambda file: {"rows": [{"k": 1, "share": 0.5}, {"k": 2, "share": 0.25}]})
    'about <!--= log > rows > k=2 > share : .0% -->25 %<!--/--> of them'

    Args:
        page: text of a page.
        read: the object of a name, as "bags"

    Raises:
        ValueError: a number's steps do not lead to one number of its object.
    """

    def found_again(found: re.Match[str]) -> str:
        name, steps, form = found.groups()
        try:
            value = _value_at(read(name), steps.split(" > "))
            text = format(value, form).replace("%", " %")
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"docs/tables/{name}.json has not one number at {steps!r}: name what it has, or "
                "take the number out of the page"
            ) from error
        return f"<!--= {name} > {steps} : {form} -->{text}<!--/-->"

    return NUMBER.sub(found_again, page)


def _value_at(value: Any, steps: Iterable[str]) -> Any:
    for step in steps:
        if isinstance(value, list) and "=" in step:
            key, _, wanted = step.partition("=")
            value = [one for one in value if str(one[key]) == wanted]
            value = value[0] if len(value) == 1 else value
        else:
            value = value[int(step) if isinstance(value, list) else step]
    return value


def made_at(*results: Json) -> str:
    commits = [result.get("machine", {}).get("commit") for result in results]
    if not all(commits):
        return "The object does not name its commit."
    named = list(dict.fromkeys(commit[:7] for commit in commits))
    return f"Made at commit{'s' * (len(named) > 1)} {', '.join(named)}."


def paper_to_markdown(result: Json, game: Json) -> str:
    """The paper's two models under its own protocol: as published, the authors' code, and ours,
    without the game and with it."""
    names = list(result["datasets"])
    rows = [("prec@1 / prec@2, %", *names)]
    for model, own in PUBLISHED.items():
        published = result["published_table"]["rows"][model]
        of_log = [(result["datasets"][name], published[name]) for name in names]
        ours, played = (
            [rows_by_model(one["cells"], name)[own, "reward"] for name in names]
            for one in (result, game)
        )
        rows += [
            (f"{model}, published", *(_both(cells, "mean") for _, cells in of_log)),
            (f"{model}, authors' code", *(_both(f["authors_code"][model]) for f, _ in of_log)),
            (f"`{own}` here, likelihood alone", *(_both(cells, "mean") for cells in ours)),
            (f"`{own}` here, with the game", *(_both(cells, "mean") for cells in played)),
        ]
    note = f"Models here read item ids alone; mean of {result['seeds']} seeds."
    return f"{rows_to_markdown(rows)}\n\n{note} {made_at(result, game)}"


def paper_cells_to_markdown(result: Json) -> str:
    """prec@1 of the paper's two models: published, by the authors' code, and by ours."""
    names = list(result["datasets"])
    rows = [("prec@1, %: published, authors' code, ours", *names)]
    for model, own in PUBLISHED.items():
        published = result["published_table"]["rows"][model]
        cells = []
        for name in names:
            ours = rows_by_model(result["cells"], name)[own, "reward"]["1"]["mean"]
            authors = result["datasets"][name]["authors_code"][model]["1"]
            cells.append(" / ".join(map(num, (published[name]["1"]["mean"], authors, ours))))
        rows.append((f"{model}, `{own}`", *cells))
    return f"{rows_to_markdown(rows)}\n\n{made_at(result)}"


def _both(by_k: Json, figure: str | None = None) -> str:
    return " / ".join(num(by_k[k] if figure is None else by_k[k][figure]) for k in KS)


def results_to_markdown(*results: Json) -> str:
    """prec@1 and NLL of a few models on the logs of several objects, where all read everything, and
    of the likeliest model that others published for the test events of a log."""
    logs = [(result, name) for result in results for name in result["datasets"]]
    rows = [("prec@1, % / NLL, nats", *(name for _, name in logs))]
    tables = [rows_by_model(result["cells"], name) for result, name in logs]
    best_published = [_best_published(result["datasets"][name]) for result, name in logs]
    for model, called in SHOWN.items():
        cells = [table.get((model, "reward"), {}).get("1") for table in tables]
        scores = [
            _scores(cell, published) for cell, published in zip(cells, best_published, strict=True)
        ]
        rows.append((f"{called} (`{model}`)", *scores))
    found = [one for published in best_published for one in published]
    for model in dict.fromkeys(one["model"] for one in found):
        scores = [
            next((_scores(one) for one in published if one["model"] == model), "–")
            for published in best_published
        ]
        rows.append((f"{model}, best published", *scores))
    bold = (
        "Bold: highest of its log and, by a paired 95 % interval, above every row that is not FastGAUM's"
        if "**" in str(rows)
        else "No prec@1 is above every other by a paired 95 % interval"
    )
    sources = "".join(
        f" Published for {name}: {one['source']}."
        for (_, name), published in zip(logs, best_published, strict=True)
        for one in published
    )
    return f"{rows_to_markdown(rows)}\n\n{bold}; –: not fitted.{sources} {made_at(*results)}"


def _best_published(facts: Json) -> list[Json]:
    """The model of the lowest NLL that others published for a log, if there is one."""
    return sorted(facts.get("published_models", []), key=lambda one: one["nll"])[:1]


def _scores(cell: Json | None, published: Iterable[Json] = ()) -> str:
    """prec@1 and NLL of a row; bold as its object says, unless a published row lies above it, which
    older objects do not ask."""
    if cell is None:
        return "–"
    bold = cell.get("bold") and all(one["mean"] <= cell["mean"] for one in published)
    precision = f"**{num(cell['mean'])}**" if bold else num(cell["mean"])
    return f"{precision} / {num(cell['nll'], 3)}"


def which_model_to_markdown(*results: Json) -> str:
    """A row per log of comparisons, in the order of their events: its facts, the best rows, and the
    cheapest that none beats. What older objects do not say of a log, the registry does."""
    rows = [
        (name, facts, [c for c in result["cells"] if (c["dataset"], c["k"]) == (name, 1)])
        for result in results
        for name, facts in result["datasets"].items()
    ]
    lines = [WHICH_MODEL]
    counts = {name: dataset(name).counts if name in names() else {} for name, _, _ in rows}
    for name, facts, cells in sorted(rows, key=lambda row: counts[row[0]].get("events", math.inf)):
        by_model = {cell["model"]: cell for cell in cells if cell["head"] == "reward"}
        single = [cell for model, cell in by_model.items() if model not in ENDED]
        likeliest = min(single, key=lambda cell: cell["nll"])
        sharpest = max(single, key=lambda cell: cell["mean"])
        # nothing beats a row whose interval to the best other model reaches 0
        level = [cell for cell in single if cell["nll_vs_best_other"]["ci"][0] <= 0]
        made_up = "simulated" in facts
        holds = facts.get("holds", ["?"]) + ["displays made up"] * made_up
        line = [name, "?", "?"]
        if of_log := counts[name]:
            line[1:] = f"{of_log['events']:,}", num(of_log["candidates"] / of_log["events"])
        line += [", ".join(holds) or "ids alone", _timed(likeliest, "nll", 3)]
        line += [_to_best(by_model[OURS]["nll_vs_best_other"], 3), _timed(sharpest, "mean", 1)]
        line += [_to_best(by_model[OURS]["vs_best_other"], 1), num(by_model[OURS]["seconds"])]
        take = min(level, key=lambda cell: cell["seconds"])
        # a model of made-up displays has learned the rule that made them
        lines.append((*line, "–" if made_up else f"`{take['model']}` ({num(take['seconds'])} s)"))
    notes = (
        f"lowest, highest, take: without {ENDED_NAMES}, which ended; in brackets seconds of a fit "
        "with its evaluation",
        "less the best's: paired difference to the best row of another model, also one that ended, "
        "with its 95 % interval; shown: items of a display on average",
        "take: the cheapest row in seconds whose NLL no other model's beats by that interval; –: the "
        "displays are made up, so a model has learned their rule",
        "events: of the whole log; ?: the object does not say it",
    )
    notes_text = "\n".join(f"- {note}" for note in notes)
    return f"{rows_to_markdown(lines, left=(0, 3, 4, 6, 9))}\n\n{notes_text}\n\n{made_at(*results)}"


def _timed(cell: Json, figure: str, digits: int) -> str:
    return f"`{cell['model']}` {num(cell[figure], digits)} ({num(cell['seconds'])} s)"


def _to_best(versus: Json, digits: int) -> str:
    low, high = (signed(end, digits) for end in versus["ci"])
    return f"{signed(versus['diff'], digits)} ({low} to {high}, `{versus['model']}`)"


SPEED = {
    "quality-wikispeedia": "wikispeedia (254,000 events), file to NLL 1.97, early in a fit",
    "round-scale": "training of both networks, 10 M events and 1 M items",
    "env-4096": "world of 4,096 learned users, slates of 10 items, ids alone",
    "online-display": "probabilities of one display, online",
}
"""groups of races and figures that the README shows, and what they are called"""
RIVALS = {"round-scale": ("stock-torch", "stock torch, padded")}
"""whose ratio is shown of a race, and what that rival is called; of others the rate alone"""


def speed_to_markdown(result: Json) -> str:
    """Four figures of a bench object, and the machine."""
    figures: dict[str, list[Json]] = {}
    for figure in result["figures"]:
        figures.setdefault(figure["group"], []).append(figure)
    rows: list[tuple[str, ...]] = [("what", "here", "beside")]
    for group, what in SPEED.items():
        races = [race for race in result["races"] if race["group"] == group]
        row = _figure_row(*figures[group]) if group in figures else _race_row(races)
        rows.append((what, *row))
    return f"{rows_to_markdown(rows, left=(0, 2))}\n\n{machine_lines(result)[0]}. {made_at(result)}"


def _race_row(races: list[Json]) -> tuple[str, str]:
    """A race by its rate, and its ratio over a rival if there is one."""
    first = races[0]
    rival, against = RIVALS.get(first["group"], ("", ""))
    ratios = [
        f"{short(one['ratio'])} × {against}" for one in first["rivals"] if one["name"] == rival
    ]
    return f"{short(first['ours']['rate'])} {first['ours']['unit']}", "".join(ratios)


def _figure_row(figure: Json, *others: Json) -> tuple[str, str]:
    """The first figure of a group, which has its bar, with its unit; or, of a ratio ("x RecSim's
    user-steps/s"), the seconds that another one has, and the ratio."""
    if not figure["unit"].startswith("x "):
        return with_unit(figure), ""
    never, rival = never_reached(figure), figure["unit"][2:].replace("as soon as", "as fast as")
    until = (f"{short(one['value'])} s" for one in others if one["unit"].startswith("s until"))
    return (never, rival) if never else (next(until, "–"), f"{short(figure['value'])} × {rival}")


def fidelity_summary(reports: Sequence[Json]) -> str:
    """Several reports as a markdown table, a column by log."""
    by_log = [{one["name"]: one for one in report["statistics"]} for report in reports]
    # the longest names all, in their order
    names = list(dict.fromkeys(name for one in sorted(by_log, key=len)[::-1] for name in one))

    def cell(one: Json) -> str:
        logged, _, simulated, _, _, ends = (column.text(one) for column in sides_of(one["unit"]))
        return f"{logged} → {simulated} ({ends})"

    rows = [(name, *(cell(one[name]) if name in one else "" for one in by_log)) for name in names]
    bold = frozenset(
        (i, j + 1)
        for i, name in enumerate(names)
        for j, one in enumerate(by_log)
        if name in one and differs(one[name])
    )
    rows.append(
        (
            "calibration error, % (world's own)",
            *(ece_text(report["calibration"]) for report in reports),
        )
    )
    notes = [
        "logged → simulated (95 % interval of the difference); bold: it leaves out 0",
        *(
            f"{report['log']['name']}, {report['split']} split: {report['events']} events of "
            f"{report['users']} users, each session replayed {report['replicas']} times"
            for report in reports
        ),
    ]
    logs = (report["log"]["name"] for report in reports)
    return block_to_markdown(
        Block("Log → world", ("statistic", *logs), tuple(rows), tuple(notes), bold)
    )


def draw_leads(*results: Json, path: Path, models: Sequence[str], narrow: bool = False) -> None:
    """Draw the NLL of some models less that of `logit`, with paired 95 % intervals and one scale for
    all data sets, and that of the best published model as a hollow mark; write it as
    `panels_in_file`. A model that an object lacks has no mark. Raises ConfigError where an object
    does not compare a model with `logit`."""
    rows, labels = range(len(models) + 1), [*models, "best published"]
    marks: dict[str, list[tuple[int, float, Sequence[float]]]] = {}
    """of a data set: row, difference, and the ends of its interval, if it has one"""
    for name, result in ((name, one) for one in results for name in one["datasets"]):
        rows_of = rows_by_model(result["cells"], name)
        cells = {model: by_k["1"] for (model, head), by_k in rows_of.items() if head == "reward"}
        of_log = [(at, cells[model]) for at, model in enumerate(models) if model in cells]
        if lacking := [models[at] for at, cell in of_log if not cell.get("nll_vs_logit")]:
            raise ConfigError(
                f"the table of {name} does not compare {', '.join(lacking)} with logit: make it "
                "with both models"
            )
        marks[name] = [
            (at, cell["nll_vs_logit"]["diff"], cell["nll_vs_logit"]["ci"]) for at, cell in of_log
        ]
        for one in _best_published(result["datasets"][name]):
            marks[name].append((len(models), one["nll"] - cells["logit"]["nll"], ()))
    n, high = len(marks), 0.25 * len(rows)
    size = (4.2, 0.8 + n * (0.6 + high)) if narrow else (1.8 + 1.5 * n, 1.1 + high)
    ends = [end for of_log in marks.values() for _, _, interval in of_log for end in interval]
    with panels_in_file(path, size, n, narrow=narrow) as panels:
        for place, (panel, name) in enumerate(zip(panels, marks, strict=True)):
            panel.axvline(0, color=colour("floor"), linewidth=1, label="linear model (logit)")
            for at, difference, interval in marks[name]:
                ours = labels[at].startswith(OURS)
                own = colour("reward" if ours else "muted" if interval else "published")
                if interval:
                    panel.hlines(at, interval[0], interval[-1], color=own, linewidth=2, alpha=0.45)
                fill = "full" if interval else "none"
                panel.plot(difference, at, "o", color=own, markersize=5, fillstyle=fill)
            panel.set(ylim=(len(rows) - 0.4, -0.6), xlim=(min(ends) - 0.01, max(ends) + 0.01))
            panel.set_yticks(rows, labels if narrow or place == 0 else [""] * len(rows))
            panel.set(title=name, xlabel="NLL less logit's")
