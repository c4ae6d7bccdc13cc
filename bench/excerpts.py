"""What pages show of the committed objects beside whole tables: the README's two short tables,
misses included, single numbers in prose, and the commit that made an object.

A number in prose stands between two comments, which a reader does not see:
`<!--= logs/wikispeedia > cells > model=fastgaum > head=reward > k=1 > nll : .3f -->1.763<!--/-->`.
The steps lead through the object, `name=value` into a list; after the colon is Python's format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastgaum.bench.report import machine_lines, never_reached, short, with_unit
from fastgaum.reports.reproduce_table import FLOOR_MODELS, KS, rows_by_model
from fastgaum.reports.table import escaped, num, rows_to_markdown, signed

Json = Mapping[str, Any]

PUBLISHED = ("GAN-PW", "GAN-LSTM")
"""the paper's own two models: their rows of the published table, and of the authors' code where it
was run"""
OTHERS = {
    "paper-pw": "the model of GAN-PW",
    "paper-lstm": "the model of GAN-LSTM",
    "logit": "linear model",
}
"""rows that are always shown beside ours, and what they are called: the paper's models, which are
fitted by likelihood here, and a linear one"""
OURS = "fastgaum"
EXACT = "fastgaum-exact"
"""ours without the game"""
POOL = "pool"
"""holds our model as a member, so that it is no other model"""
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
    """The line below a table that says which code made it."""
    commit = result.get("machine", {}).get("commit")
    return f"Made at commit {commit[:7]}." if commit else "The object does not name its commit."


def results_to_markdown(result: Json) -> str:
    """A reproduce object in a dozen rows, prec@1 / prec@2 by data set: floors, published, authors'
    code, ours."""
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
        "bold: its paired 95 % interval over users lies above 0 against every other model",
        "GAN-PW and GAN-LSTM as published, and the authors' code, read item identities alone; rows "
        "trained here also read counts of each item, and their models of GAN-PW and GAN-LSTM are "
        "fitted by likelihood, without a game",
        "every row that reads counts also reads relations (counts of pairs of items); what a row's "
        "settings leave out, and rows of identities alone, the whole table says",
    )
    lines = [rows_to_markdown(rows), "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, "", made_at(result)])


def _column(result: Json, name: str) -> dict[str, str]:
    """One data set's cells by the row's label, in the order of the rows."""
    facts, rows = result["datasets"][name], rows_by_model(result["cells"], name)
    column = {
        "floor: random order": _pair(num(facts["floors"]["random"][k]) for k in KS),
        "floor: best by counting": _best_floor(facts["floors"]),
    }
    for model in PUBLISHED:
        cells = result["published_table"]["rows"][model][name]
        column[f"{model}, published"] = _pair(num(cells[k]["mean"]) for k in KS)
        column[f"{model}, authors' code"] = _pair(num(facts["authors_code"][model][k]) for k in KS)
    column["best published of nine models"] = _best_published(facts["published_best"])
    for model, called in OTHERS.items():
        column[f"{called}, trained here (`{model}`)"] = _pair(
            _mean(rows[model, "reward"][k]) for k in KS
        )
    column["best other single model, trained here"] = _best_other(rows)
    if (EXACT, "reward") in rows:
        column[f"`{OURS}` without the game: exact players (`{EXACT}`)"] = _pair(
            _mean(rows[EXACT, "reward"][k]) for k in KS
        )
    for head in ("generator", "reward"):
        column[f"**`{OURS}`, {head}**"] = _pair(_mean(rows[OURS, head][k]) for k in KS)
    if (POOL, "reward") in rows:
        column[f"pool of unlike models, `{OURS}` among them (`{POOL}`)"] = _pair(
            _mean(rows[POOL, "reward"][k]) for k in KS
        )
    column["lead of its reward over the best other model, in points of prec@1"] = _lead(
        rows[OURS, "reward"]["1"]["vs_best_other"]
    )
    return column


def _mean(cell: Json) -> str:
    return f"**{num(cell['mean'])}**" if cell["bold"] else num(cell["mean"])


def _pair(texts: Iterable[str]) -> str:
    return " / ".join(texts)


def _best_floor(floors: Json) -> str:
    """The floor of best prec@1 that is not the random order."""
    name = max(
        (floor for floor in floors if floor != "random"),
        key=lambda floor: float(floors[floor]["1"]),
    )
    title = name.removeprefix("train_").replace("_", " ")
    return f"{_pair(num(floors[name][k]) for k in KS)} ({title})"


def _best_published(best: Json) -> str:
    models = " / ".join(dict.fromkeys(best[k]["model"] for k in KS))
    return f"{_pair(num(best[k]['mean']) for k in KS)} ({escaped(models)})"


def _best_other(rows: Mapping[tuple[str, str], Json]) -> str:
    """The best prec@1 of a model that is neither ours, nor the pool, nor a floor."""
    left_out = {OURS, EXACT, POOL, *FLOOR_MODELS.values()}
    key = next(key for key in rows if key[0] not in left_out)
    return f"{_pair(_mean(rows[key][k]) for k in KS)} (`{key[0]}`)"


def _lead(part: Json) -> str:
    low, high = part["ci"]
    return f"{signed(part['diff'])} ({signed(low)} to {signed(high)}, `{part['model']}`)"


@dataclass(frozen=True)
class Line:
    """A line of the short speed table."""

    what: str
    group: str
    """race or figure"""
    rival: str | None = None
    """of a race: whose ratio is shown; None: the rate alone"""
    against: str = ""
    """what that rival is called here"""


SPEED = (
    Line("Wikispeedia, from the log to validation NLL 1.97", "quality-wikispeedia"),
    Line(
        "training of both players, 10 M events and 1 M items",
        "round-scale",
        "stock-torch",
        "stock torch, padded",
    ),
    Line(
        "LSTM of 64 over ragged sessions, both ways",
        "lstm-h64-tail",
        "torch-packed",
        "torch's packed LSTM",
    ),
    Line("world: 4,096 users, slates of 10, the paper's sizes", "env-4096"),
    Line("the same with all that the preset reads", "env-4096-relations"),
    Line("the default preset's exact steps on Wikispeedia", "rate-wikispeedia"),
    Line("candidates of a split evaluated", "evaluate-wikispeedia"),
    Line("one display of ten, scored online", "online-session"),
    Line("audit of 16.5 M candidates", "audit-wikispeedia"),
    Line("the same log converted", "convert-wikispeedia"),
    Line("memory of a log in training", "memory-bytes-per-event"),
    Line("first step after an installation", "cold-first-step-empty-cache"),
    Line("first step afterwards", "cold-first-step-warm-cache"),
)
"""what is shown, hits and misses; a name that the object lacks is an error"""


def speed_to_markdown(result: Json) -> str:
    """A bench object in a dozen rows, the machine above it and how many of all targets are met
    below."""
    races: dict[str, list[Json]] = {}
    for race in result["races"]:
        races.setdefault(race["group"], []).append(race)
    # the first figure of a group has its bar
    figures = {figure["group"]: figure for figure in reversed(result["figures"])}
    rows: list[tuple[str, ...]] = [
        ("what", "ours", "against", "ratio", "target", "met"),
    ]
    rows += [
        _figure_row(line, figures[line.group])
        if line.group in figures
        else _race_row(line, races[line.group])
        for line in SPEED
    ]
    held = [
        entry["holds"]
        for entry in (*result["races"], *result["figures"])
        if entry["holds"] is not None
    ]
    table = rows_to_markdown(rows, left=(0, 2))
    met = f"{sum(held)} of {len(held)} targets are met. {made_at(result)}"
    return f"{machine_lines(result)[0]}.\n\n{table}\n\n{met}"


def _race_row(line: Line, races: list[Json]) -> tuple[str, ...]:
    """A race by its ratio over a rival, or by its rate; the bar is that one's, if it has one."""
    ours = races[0]["ours"]
    bar = next((race for race in races if race["over"] == (line.rival or "rate")), None)
    unit = ours["unit"]
    if line.rival is None:
        ratio, asked = "", "" if bar is None else f"≥ {short(bar['target'])}"
    else:
        rival = next(one for one in races[0]["rivals"] if one["name"] == line.rival)
        ratio, asked = (
            f"{short(rival['ratio'])} ×",
            "" if bar is None else f"≥ {short(bar['target'])} ×",
        )
    holds = "" if bar is None else _yes(bar["holds"])
    return (line.what, f"{short(ours['rate'])} {unit}", line.against, ratio, asked, holds)


def _figure_row(line: Line, figure: Json) -> tuple[str, ...]:
    """A figure: its unit says what it is over, where it is a ratio ("x RecSim's user-steps/s")."""
    unit = figure["unit"]
    sense = "≤" if figure["sense"] == "at most" else "≥"
    times = unit.startswith("x ")
    target = figure["target"]
    asked = "" if target is None else f"{sense} {short(target)}" + (" ×" if times else "")
    ours, against, ratio = with_unit(figure), "", ""
    if times:
        ours, against = "", unit[2:]
        ratio = never_reached(figure) or f"{short(figure['value'])} ×"
    return (
        line.what,
        ours,
        against,
        ratio,
        asked,
        "" if figure["holds"] is None else _yes(figure["holds"]),
    )


def _yes(holds: bool | None) -> str:
    return "yes" if holds else "no"
