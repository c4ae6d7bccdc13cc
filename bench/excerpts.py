"""What pages show of the committed objects beside whole tables: the README's two short tables,
misses included, single numbers in prose, and the commit that made an object.

A number in prose stands between two comments, which a reader does not see:
`<!--= logs/wikispeedia > cells > model=fastgaum > head=reward > k=1 > nll : .3f -->1.763<!--/-->`.
The steps lead through the object, `name=value` into a list; after the colon is Python's format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastgaum.bench.report import machine_lines, never_reached, short, with_unit
from fastgaum.reports.reproduce_table import FLOOR_MODELS, KS, rows_by_model
from fastgaum.reports.table import num, rows_to_markdown, signed
from fastgaum.untrusted import escaped

Json = Mapping[str, Any]

PUBLISHED = ("GAN-PW", "GAN-LSTM")
"""the paper's own two models"""
OTHERS = {
    "paper-pw": "the model of GAN-PW",
    "paper-lstm": "the model of GAN-LSTM",
    "logit": "linear model",
}
"""rows that are always shown beside ours, and what they are called"""
OURS = "fastgaum"
EXACT, MEMBERS = "fastgaum-exact", "fastgaum-members"
POOL = "pool"
WHICH_MODEL = (
    *("log", "training events", "shown", "holds", "lowest NLL", f"`{OURS}`, NLL less the best's"),
    *("highest prec@1", f"`{OURS}`, prec@1 less the best's", f"seconds of `{OURS}`", "take"),
)
"""columns of the table of logs"""
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


def made_at(result: Json) -> str:
    commit = result.get("machine", {}).get("commit")
    return f"Made at commit {commit[:7]}." if commit else "The object does not name its commit."


def results_to_markdown(result: Json) -> str:
    """A reproduce object in a dozen rows, prec@1 / prec@2 by data set."""
    names = list(result["datasets"])
    columns = [_column(result, name) for name in names]
    rows = [("", *names)]
    rows += [(label, *(column[label] for column in columns)) for label in columns[0]]
    tested = ", ".join(
        f"{facts['n_test_events']} events of {facts['n_test_users']} users ({name})"
        for name, facts in result["datasets"].items()
    )
    notes = (
        f"prec@1 / prec@2, %; {result['seeds']} seeds, protocol `{result['protocol']}`, the logs' "
        f"own split, tested on {tested}",
        "bold: better than every other model by a paired 95 % interval",
        "GAN-PW and GAN-LSTM as published, and the authors' code, read item identities alone; rows "
        "trained here also read counts of each item, and their models of GAN-PW and GAN-LSTM are "
        "fitted by likelihood, without a game",
        "every row that reads counts also reads relations (counts of pairs of items); what a row's "
        "settings leave out, and rows of identities alone, the whole table says",
    )
    lines = [rows_to_markdown(rows), "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, "", made_at(result)])


def which_model_to_markdown(*results: Json) -> str:
    """A row per log of comparisons: its facts, the best rows, and the cheapest that none beats."""
    rows = [
        (name, facts, [c for c in result["cells"] if (c["dataset"], c["k"]) == (name, 1)])
        for result in results
        for name, facts in result["datasets"].items()
    ]
    lines = [WHICH_MODEL]
    for name, facts, cells in sorted(rows, key=lambda row: row[1].get("n_train_events", 0)):
        by_model = {cell["model"]: cell for cell in cells if cell["head"] == "reward"}
        single = [cell for model, cell in by_model.items() if model not in (POOL, MEMBERS)]
        likeliest = min(single, key=lambda cell: cell["nll"])
        sharpest = max(single, key=lambda cell: cell["mean"])
        # nothing beats a row whose interval to the best other model reaches 0
        level = [c for c in by_model.values() if c["nll_vs_best_other"]["ci"][0] <= 0]
        holds = facts.get("holds", ["?"]) + ["displays made up"] * ("simulated" in facts)
        line = [name, f"{facts['n_train_events']:,}" if "n_train_events" in facts else "?"]
        line += [num(facts["display_size"]) if "display_size" in facts else "?"]
        line += [", ".join(holds) or "ids alone", _timed(likeliest, "nll", 3)]
        line += [_to_best(by_model[OURS]["nll_vs_best_other"], 3), _timed(sharpest, "mean", 1)]
        line += [_to_best(by_model[OURS]["vs_best_other"], 1), num(by_model[OURS]["seconds"])]
        take = min(level, key=lambda cell: cell["seconds"])
        lines.append((*line, f"`{take['model']}` ({num(take['seconds'])} s)"))
    notes = (
        f"lowest, highest: of one model, not of `{POOL}` or `{MEMBERS}`; in brackets seconds of a "
        "fit with its evaluation",
        f"less the best's: paired difference to the best row of another model, `{POOL}` and "
        f"`{MEMBERS}` too, with its 95 % interval; shown: items of a display on average",
        "take: the cheapest row in seconds whose NLL no other model's beats by that interval",
        "?: the object does not say it",
    )
    made = " ".join(dict.fromkeys(map(made_at, results)))
    notes_text = "\n".join(f"- {note}" for note in notes)
    return f"{rows_to_markdown(lines, left=(0, 3, 4, 6, 9))}\n\n{notes_text}\n\n{made}"


def _timed(cell: Json, figure: str, digits: int) -> str:
    return f"`{cell['model']}` {num(cell[figure], digits)} ({num(cell['seconds'])} s)"


def _to_best(versus: Json, digits: int) -> str:
    low, high = (signed(end, digits) for end in versus["ci"])
    return f"{signed(versus['diff'], digits)} ({low} to {high}, `{versus['model']}`)"


def _column(result: Json, name: str) -> dict[str, str]:
    facts, rows = result["datasets"][name], rows_by_model(result["cells"], name)
    floors, best = facts["floors"], facts["published_best"]
    floor = max((one for one in floors if one != "random"), key=lambda one: float(floors[one]["1"]))
    published = escaped(" / ".join(dict.fromkeys(best[k]["model"] for k in KS)))
    column = {
        "floor: random order": " / ".join(num(floors["random"][k]) for k in KS),
        "floor: best by counting": " / ".join(num(floors[floor][k]) for k in KS)
        + f" ({floor.removeprefix('train_').replace('_', ' ')})",
    }
    for model in PUBLISHED:
        cells = result["published_table"]["rows"][model][name]
        column[f"{model}, published"] = " / ".join(num(cells[k]["mean"]) for k in KS)
        column[f"{model}, authors' code"] = " / ".join(
            num(facts["authors_code"][model][k]) for k in KS
        )
    column["best published of nine models"] = (
        " / ".join(num(best[k]["mean"]) for k in KS) + f" ({published})"
    )

    def ours(model: str, head: str = "reward") -> str:
        return " / ".join(
            f"**{num(cell['mean'])}**" if cell["bold"] else num(cell["mean"])
            for cell in (rows[model, head][k] for k in KS)
        )

    for model, called in OTHERS.items():
        column[f"{called}, trained here (`{model}`)"] = ours(model)
    left_out = {OURS, EXACT, MEMBERS, POOL, *FLOOR_MODELS.values()}
    other = next(model for model, _ in rows if model not in left_out)
    column["best other single model, trained here"] = f"{ours(other)} (`{other}`)"
    if (EXACT, "reward") in rows:
        column[f"`{OURS}` without the game: exact players (`{EXACT}`)"] = ours(EXACT)
    for head in ("generator", "reward"):
        column[f"**`{OURS}`, {head}**"] = ours(OURS, head)
    if (MEMBERS, "reward") in rows:
        column[f"the mean of eight fits of it (`{MEMBERS}`)"] = ours(MEMBERS)
    if (POOL, "reward") in rows:
        column[f"pool of unlike models, `{OURS}` among them (`{POOL}`)"] = ours(POOL)
    lead = rows[OURS, "reward"]["1"]["vs_best_other"]
    low, high = map(signed, lead["ci"])
    column["lead of its reward over the best other model, in points of prec@1"] = (
        f"{signed(lead['diff'])} ({low} to {high}, `{lead['model']}`)"
    )
    return column


SPEED = {
    "quality-wikispeedia": "time to a validation NLL of 1.97 on Wikispeedia",
    "round-scale": "training of both players, 10 M events and 1 M items",
    "lstm-h64-tail": "LSTM of 64 over ragged sessions, both ways",
    "env-4096": "world: 4,096 users, slates of 10, the paper's sizes",
    "env-4096-relations": "simulated users of the default model",
    "rate-wikispeedia": "training speed of the default model on Wikispeedia",
    "evaluate-wikispeedia": "candidates of a split evaluated",
    "online-session": "one display of ten, scored online",
    "audit-wikispeedia": "audit of 16.5 M candidates",
    "convert-wikispeedia": "the same log converted",
    "memory-bytes-per-event": "memory of a log in training",
    "cold-first-step-empty-cache": "first step after an installation",
    "cold-first-step-warm-cache": "first step afterwards",
}
"""groups of races and figures that are shown, and what they are called"""
RIVALS = {
    "round-scale": ("stock-torch", "stock torch, padded"),
    "lstm-h64-tail": ("torch-packed", "torch's packed LSTM"),
}
"""whose ratio is shown of a race, and what that rival is called; of others the rate alone"""


def speed_to_markdown(result: Json) -> str:
    """A bench object in a dozen rows, the machine above it and how many of all targets are met
    below."""
    # the first of a group has its bar
    figures = {figure["group"]: figure for figure in reversed(result["figures"])}
    rows: list[tuple[str, ...]] = [("what", "ours", "against", "ratio", "target", "met")]
    for group, what in SPEED.items():
        races = [race for race in result["races"] if race["group"] == group]
        row = _figure_row(figures[group]) if group in figures else _race_row(races)
        rows.append((what, *row))
    held = [
        entry["holds"]
        for entry in (*result["races"], *result["figures"])
        if entry["holds"] is not None
    ]
    table = rows_to_markdown(rows, left=(0, 2))
    met = f"{sum(held)} of {len(held)} targets are met. {made_at(result)}"
    return f"{machine_lines(result)[0]}.\n\n{table}\n\n{met}"


def _race_row(races: list[Json]) -> tuple[str, ...]:
    """A race by its ratio over a rival, or by its rate; the bar is that one's, if it has one."""
    first = races[0]
    rival, against = RIVALS.get(first["group"], ("rate", ""))
    bar = next((race for race in races if race["over"] == rival), None)
    ratios = [f"{short(one['ratio'])} ×" for one in first["rivals"] if one["name"] == rival]
    asked = "" if bar is None else f"≥ {short(bar['target'])}" + (" ×" if against else "")
    rate = f"{short(first['ours']['rate'])} {first['ours']['unit']}"
    return (rate, against, "".join(ratios), asked, _met(bar))


def _figure_row(figure: Json) -> tuple[str, ...]:
    """A figure: its unit says what it is over, where it is a ratio ("x RecSim's user-steps/s")."""
    unit, target = figure["unit"], figure["target"]
    times = unit.startswith("x ")
    sense = "≤" if figure["sense"] == "at most" else "≥"
    asked = "" if target is None else f"{sense} {short(target)}" + (" ×" if times else "")
    if not times:
        return (with_unit(figure), "", "", asked, _met(figure))
    ratio = never_reached(figure) or f"{short(figure['value'])} ×"
    return ("", unit[2:], ratio, asked, _met(figure))


def _met(bar: Json | None) -> str:
    return "" if bar is None or bar["holds"] is None else "yes" if bar["holds"] else "no"
