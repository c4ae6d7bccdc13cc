"""Made-up files in the layouts of public logs: the columns are the publishers', every value is
ours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fastgaum.logs.public_formats import PUBLIC_LOGS

USERS, STEPS, SHOWN, ITEMS = 24, 3, 4, 9
"""users of each file, displays of each user, items of a display, and of all displays"""
START = dt.datetime(2021, 3, 4, 21, 58, 9)


@dataclass(frozen=True)
class Shown:
    """One display of a user."""

    user: int
    step: int
    time: dt.datetime
    items: list[int]
    clicks: list[int]
    """the clicked items, none, one or two"""


def displays() -> Iterator[Shown]:
    """The same displays in every file. The first click is the smallest item more often than not;
    each fifth display has no click."""
    rng = np.random.default_rng(7)
    for user in range(USERS):
        for step in range(STEPS):
            items = rng.choice(ITEMS, SHOWN, replace=False).tolist()
            liked = min(items) if rng.random() < 0.7 else items[-1]
            clicks = [] if (user + step) % 5 == 0 else [liked]
            yield Shown(user, step, START + dt.timedelta(hours=user + 7 * step), items, clicks)


def mind(folder: Path) -> Path:
    """No header, several clicks in a row, an empty history, the hour of twelve; every display has a
    click."""
    lines = []
    for number, shown in enumerate(displays(), start=1):
        clicks = set(shown.clicks or shown.items[:1]) | ({shown.items[1]} if number == 2 else set())
        history = " ".join(f"N{50 + (shown.user + i) % 7}" for i in range(shown.user % 3))
        shown_as = " ".join(f"N{item}-{int(item in clicks)}" for item in shown.items)
        # no leading zeros, as in "3/4/2021 9:58:09 PM"
        time, hour = shown.time, shown.time.hour
        when = (
            f"{time.month}/{time.day}/{time.year} {hour % 12 or 12}:{time:%M:%S} {'AP'[hour > 11]}M"
        )
        lines.append(f"{number}\tU{shown.user}\t{when}\t{history}\t{shown_as}\n")
    (folder / "news.tsv").write_text(
        "".join(
            f'N{item}\t{["news", "sports"][item % 2]}\tsub{item % 3}\tA "title\t\t\t[]\t[]\n'
            for item in range(ITEMS)
        )
    )
    return written(folder / "behaviors.tsv", "".join(lines))


def ebnerd(folder: Path) -> Path:
    """Lists, and a history of each reader beside."""
    rows = list(displays())
    pl.DataFrame(
        {
            "impression_id": range(len(rows)),
            "impression_time": [row.time for row in rows],
            "device_type": [row.user % 3 for row in rows],
            "article_ids_inview": [row.items for row in rows],
            "article_ids_clicked": [row.clicks or row.items[:1] for row in rows],
            "user_id": [row.user for row in rows],
            "session_id": [row.user * STEPS + row.step for row in rows],
            "next_read_time": [1.5] * len(rows),
        },
        schema_overrides={"article_ids_clicked": pl.List(pl.Int32)},
    ).write_parquet(folder / "behaviors.parquet")
    pl.DataFrame(
        {"user_id": range(USERS), "article_id_fixed": [[50 + user] for user in range(USERS)]}
    ).write_parquet(folder / "history.parquet")
    return folder / "behaviors.parquet"


def trivago(folder: Path) -> Path:
    """Actions of all kinds; a click-out outside its list, and one whose reference is withheld."""
    lines = [
        "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,"
        "current_filters,impressions,prices\n"
    ]
    for shown in displays():
        one = f"u{shown.user},s{shown.user}"
        time = int(shown.time.timestamp())
        where = 'DE,"Ulm, Germany",mobile' if shown.user % 2 else 'US,"Bath, UK",desktop'
        lists = "|".join(map(str, shown.items)) + "," + "|".join(f"{40 + i}" for i in shown.items)
        reference = {0: shown.clicks[0] if shown.clicks else shown.items[0]}.get(shown.step)
        if reference is None:
            outside = shown.step == 1 and shown.user % 6 == 0
            withheld = shown.step == 2 and shown.user % 6 == 1
            reference = 99 if outside else "" if withheld else shown.items[0]
        lines.append(
            f"{one},{time - 9},{2 * shown.step + 1},interaction item image,7,{where},,,\n"
            f"{one},{time},{2 * shown.step + 2},clickout item,{reference},{where},"
            f"Focus on Rating,{lists}\n"
        )
    return written(folder / "train.csv", "".join(lines))


def kuairand(folder: Path) -> Path:
    """A video a row; two of one user at the same millisecond."""
    lines = [
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
        "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
        "is_profile_enter,is_rand,tab\n"
    ]
    for shown in displays():
        time = int(shown.time.timestamp() * 1000)
        for place, item in enumerate(shown.items[:2]):
            click = int(item in shown.clicks)
            lines.append(
                f"{shown.user},{item},20210304,2158,{time},{click},0,0,0,0,0,{click},"
                f"{click * 900},{7000 + 10 * item},0,0,0,{place},{shown.step}\n"
            )
    return written(folder / "log_standard_4_08_to_4_21_1k.csv", "".join(lines))


def open_bandit(folder: Path) -> Path:
    """A column without a name, times with and without a fraction, a propensity a row."""
    lines = [
        ",timestamp,item_id,position,click,propensity_score,"
        + ",".join(f"user_feature_{i}" for i in range(4))
        + ","
        + ",".join(f"user-item_affinity_{i}" for i in range(ITEMS))
        + "\n"
    ]
    for shown in displays():
        for place, item in enumerate(shown.items[:3], start=1):
            fraction = ".000125" if shown.user % 2 else ""
            click = int(item in shown.clicks)
            affinities = ",".join(f"{(shown.user + i) % 3}.0" for i in range(ITEMS))
            lines.append(
                f"{len(lines) - 1},{shown.time}{fraction}+00:00,{item},{place},{click},"
                f"{1 / ITEMS:.6f},f{shown.user % 2},a,b,c{shown.user % 3},{affinities}\n"
            )
    return written(folder / "all.csv", "".join(lines))


def wikispeedia(folder: Path) -> Path:
    """Games of three links; the target is the last."""
    rows = list(displays())
    chosen = [(row.clicks or row.items)[0] for row in rows]
    pl.DataFrame(
        {
            "session": [row.user for row in rows],
            "event": [row.step for row in rows],
            "page": [row.items[0] for row in rows],
            "target": [chosen[row.user * STEPS + STEPS - 1] for row in rows],
            "items": [row.items for row in rows],
            "chosen": chosen,
            "split": [row.user % 3 for row in rows],
        }
    ).write_parquet(folder / "choices.parquet")
    pl.DataFrame({"page": [0], "links": [[1]]}).write_parquet(folder / "links.parquet")
    return folder / "choices.parquet"


def clara2(folder: Path) -> Path:
    """Result lists; some without a click."""
    rows = list(displays())
    pl.DataFrame(
        {
            "session": [row.user for row in rows],
            "event": [row.step for row in rows],
            "query": [f"q{row.step}" for row in rows],
            "items": [[str(item) for item in row.items] for row in rows],
            "chosen": [str(row.clicks[0]) if row.clicks else None for row in rows],
            "clicked": [[str(item) for item in row.clicks] for row in rows],
            "outside": [0 for _ in rows],
            "split": [row.user % 3 for row in rows],
        }
    ).write_parquet(folder / "displays.parquet")
    return folder / "displays.parquet"


def of_modes(folder: Path, layout: str, roles: dict[str, Callable[[Shown], int]]) -> Path:
    """A row for each item of a display that ends with a choice, with every field that a layout
    reads: a number of a candidate, a word of an event."""
    (known,) = (one for one in PUBLIC_LOGS if one.name == layout)
    rows = [
        {name: role(row) for name, role in roles.items()}
        | {"item": str(item), "chosen": int(item == (row.clicks or row.items)[0])}
        | dict.fromkeys(known.options.candidate_fields, item / 10)
        | dict.fromkeys(known.options.context_fields, f"c{row.step}")
        | {"split": row.user // 6 % 3}
        for row in displays()
        for item in row.items
    ]
    path = folder / known.files[0]
    pl.DataFrame(rows).write_parquet(path)
    return path


def lpmc(folder: Path) -> Path:
    """A trip is one of a person's displays, six persons are a household."""
    roles = {"person": lambda row: row.user, "household": lambda row: row.user // 6}
    return of_modes(folder, "LPMC", {"trip": lambda row: row.user * STEPS + row.step, **roles})


def tastenet(folder: Path) -> Path:
    """Rows are candidates."""
    roles = {"session": lambda row: row.user, "event": lambda row: row.step}
    return of_modes(folder, "TasteNet's toy", roles)


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "MIND": mind,
    "EB-NeRD": ebnerd,
    "trivago RecSys Challenge 2019": trivago,
    "KuaiRand": kuairand,
    "Open Bandit": open_bandit,
    "Wikispeedia": wikispeedia,
    "CLARA2": clara2,
    "LPMC": lpmc,
    "TasteNet's toy": tastenet,
}
"""what writes a public log's file, by its name"""
