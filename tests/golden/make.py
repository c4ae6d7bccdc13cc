"""Golden records: what twelve configurations compute on two small logs.

A change that only moves, shortens or replaces code leaves every record as it is; `test_golden.py`
compares (`NEAR`). A change of what is computed says so in its commit, and remakes the records:

    python -m tests.golden.make                 # all
    python -m tests.golden.make sample-exact …  # these alone

It prints which records moved, and how far. All is read through public verbs, but for one seam:
`numbers_of`. Training is three epochs of one batch, so that float32's noise stays small.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import fastgaum as fg
from fastgaum.features.encoder import Encoder
from fastgaum.live_users.online import OnlineUser

FILE = Path(__file__).with_name("records.npz")
NEAR, NEAR_SCORES = 1e-5, 3e-5
"""of the largest number of a record; of scores after training: Adam's first steps magnify the noise
of tiny gradients, and scores by plain torch differ from the engine's by up to 8e-6"""
N_ITEMS, N_USERS, N_STEPS, N_DISPLAYS = 24, 8, 50, 20

_SHORT: dict[str, Any] = {
    **{"warm_start": 3, "catch_up": 1, "epochs": 3, "batch_sessions": 1000},
    **{"search": (), "folds": 0, "dropout": 0.0, "id_dropout": 0.0},
}
_GAME: dict[str, Any] = {**_SHORT, "epochs": 1}
_EXACT: dict[str, Any] = {**_SHORT, "players": "exact"}
_TOWERS: dict[str, Any] = {**_EXACT, "tower_dim": 8, "hidden": (16,), "relative_numbers": False}

CONFIGURATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sample-game": ("sample", "fastgaum", _GAME),
    "sample-exact": ("sample", "fastgaum", {**_EXACT, "dropout": 0.5, "id_dropout": 0.5}),
    "sample-no-counts": ("sample", "fastgaum", {**_EXACT, "counts": False, "relations": False}),
    "sample-sparse": ("sample", "fastgaum", {**_GAME, "regulariser": "tsallis", "eta": 2.0}),
    "sample-paper-pw": ("sample", "paper-pw", _EXACT),
    "made-game": ("made", "fastgaum", _GAME),
    "made-no-relations": ("made", "fastgaum", {**_EXACT, "relations": False, "hidden": (32,)}),
    "made-identity": ("made", "fastgaum", {**_EXACT, "protocol": "identity"}),
    "made-towers": ("made", "fastgaum", {**_TOWERS, "relations": False}),
    "made-towers-game": ("made", "fastgaum", {**_TOWERS, **_GAME, "players": "adversarial"}),
    "made-paper-lstm": ("made", "paper-lstm", _EXACT),
    "each-exact": ("each", "fastgaum", _EXACT),
}
"""log, preset and changes of each; only the second draws dropout"""
NUMBERS_AS_IN_GAME = ("sample-exact", "sample-sparse", "made-towers-game")
"""configurations whose candidates have the numbers of another one"""


def table_of_items() -> pl.DataFrame:
    rng, items = np.random.default_rng(4), range(N_ITEMS)
    return pl.DataFrame(
        {
            "item": [f"i{item}" for item in items],
            "brand": [f"b{item % 6}" for item in items],
            "size": [item * 7 % N_ITEMS / 8 for item in items],
            "text": rng.normal(size=(N_ITEMS, 5)).tolist(),
        }
    )


def made_log(clicks: str) -> fg.SessionLog:
    """A log of every column role, from a seed: of its displays some have two clicks, some none."""
    rng = np.random.default_rng(5)
    likes, n_users = rng.normal(size=N_ITEMS), 90
    rows, actions = [], []
    for session in range(150):
        page = int(rng.integers(N_ITEMS))
        for event in range(rng.integers(1, 6)):
            shown = rng.permutation(N_ITEMS)[: rng.integers(3, 7)].tolist()
            worth = likes[shown] + (np.array(shown) % 6 == page % 6) + rng.gumbel(size=len(shown))
            best = [f"i{shown[at]}" for at in np.argsort(-worth)]
            when = datetime(2024, 5, session % 28 + 1, session % 24) + timedelta(minutes=7 * event)
            at_hand = f"i{rng.integers(N_ITEMS)}"
            kind = "view" if rng.random() < 0.7 else "cart"
            actions.append((f"s{session}", when - timedelta(minutes=2), at_hand, kind))
            rows.append(
                {
                    "session": f"s{session}",
                    "user": f"u{session % n_users}",
                    "time": when,
                    "items": [f"i{item}" for item in shown],
                    "clicked": best[: int(rng.choice([0, 1, 1, 1, 2]))],
                    "price": rng.gamma(2.0, size=len(shown)).tolist(),
                    "shelf": rng.choice(["top", "floor", "end"], len(shown)).tolist(),
                    "page": f"i{page}",
                    "device": str(rng.choice(["phone", "desk"])),
                    "warmth": float(rng.normal(12, 5)),
                }
            )
            page = int(best[0][1:])
    users = [f"u{user}" for user in range(n_users)]
    countries, months = ["be", "nl", None] * 30, np.arange(n_users) / 4
    tables = {
        "log": pl.DataFrame(rows),
        "items": table_of_items(),
        "users": pl.DataFrame({"user": users, "country": countries, "months": months}),
        "actions": pl.DataFrame(actions, ["session", "time", "item", "action"], orient="row"),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder, f"{name}.parquet")) for name in tables}
        for name, table in tables.items():
            table.write_parquet(paths[name])
        return fg.read_log(
            paths["log"],
            candidate_fields=["price", "shelf"],
            context_fields=["page", "device", "warmth"],
            time_fields=["gap", "hour"],
            item_table=paths["items"],
            item_vectors=["text"],
            user_table=paths["users"],
            actions=paths["actions"],
            ordered=True,
            grid=3,
            clicks=clicks,
        )


@cache
def log_of(name: str) -> fg.SessionLog:
    if name == "sample":
        return fg.load("sample")
    return made_log("each" if name == "each" else "first")


def numbers_of(model: fg.UserModel, log: fg.SessionLog) -> np.ndarray:
    """Numbers of validation's candidates, (n_candidates, n_numbers), columns by name: the one seam
    that is not public."""
    space = model.space
    assert space is not None
    encoded = Encoder(space, log).encode(log.sessions_in("validation"))
    return encoded.numbers[:, np.argsort(space.number_names)]


def records_of(name: str) -> dict[str, np.ndarray]:
    """The records of a configuration, by name."""
    log_name, preset, changes = CONFIGURATIONS[name]
    log, model = log_of(log_name), fg.UserModel.from_preset(preset, device="cpu", **changes)
    table = model.fit(log).history_
    figures = ["loss", "val_loss", "val_prec1", "gap", "val_gap"]
    numbers = {} if name in NUMBERS_AS_IN_GAME else {"numbers": numbers_of(model, log)}
    found = numbers | {
        "losses": table.select(figures).cast(pl.Float64).to_numpy(),
        **scores_of(model, log),
        "evaluation": figures_of_test(model, log),
        "online": np.concatenate(list(online(model, log))),
    }
    return found | ({} if log_name == "each" else life(model, log))


def scores_of(model: fg.UserModel, log: fg.SessionLog) -> dict[str, np.ndarray]:
    """Utilities of validation's candidates, and each head's probabilities. Without a no click
    nothing says where zero is: a utility is then the distance to the display's mean."""
    frame = model.predict(log, "validation")
    if not model.no_click:
        mean = pl.col("utility").mean().over("session", "event")
        frame = frame.with_columns(pl.col("utility") - mean)
    names = ["utility", "probability", "no_click_probability", "generator_probability"]
    return {column: frame[column].to_numpy() for column in names if column in frame.columns}


def figures_of_test(model: fg.UserModel, log: fg.SessionLog) -> np.ndarray:
    """prec@1, 2 and 5, NLL with its interval, Brier score and calibration error, a row per head."""
    heads = model.evaluate(log, "test", allow_seen_users=True).heads
    return np.array(
        [
            [
                *(head.precision[k].mean for k in sorted(head.precision)),
                *(head.nontrivial[k] for k in sorted(head.nontrivial)),
                *(head.nll.mean, head.nll.low, head.nll.high, head.brier, head.ece),
            ]
            for _, head in sorted(heads.items())
        ]
    )


def online(model: fg.UserModel, log: fg.SessionLog) -> Iterator[np.ndarray]:
    """Probabilities of twenty displays of one online user, who chooses by a seed."""
    rng, made = np.random.default_rng(2), log.name != "sample"
    user = model.user("generator" if model.config.players == "adversarial" else "reward")
    if made:
        user = OnlineUser(user.model.with_item_table(table_of_items()))
    for display in range(N_DISPLAYS):
        items = rng.choice(log.item_ids.to_list(), rng.integers(2, 6), replace=False).tolist()
        context: dict[str, object] = {
            **{"page": items[0], "device": "desk", "warmth": 9.5, "gap": 1.0 + display % 3},
            **{"hour": str(display), "country": "nl", "months": 2.5},
        }
        if "clicks_so_far" in log.columns_of("event"):
            context["clicks_so_far"] = float(display % 2)
        fields = {"price": rng.gamma(2.0, size=len(items)).tolist(), "shelf": ["top"] * len(items)}
        yield user.probabilities(items, *((context, fields) if made else ()))
        user.chose(None if model.no_click and display % 5 == 4 else items[display % len(items)])
        if made and display % 3 == 0:
            user.acted(items[-1], "view")


def life(model: fg.UserModel, log: fg.SessionLog) -> dict[str, np.ndarray]:
    """Fifty steps of eight users of the learned world, who begin as logged: places of choices,
    and the probabilities of places and of no click before each, (steps, users, …)."""
    world = fg.LearnedWorld(model, log=log, starts="logged")
    users, rng = world.population(N_USERS), np.random.default_rng(3)
    users.reset(rng.integers(1 << 62, size=N_USERS, dtype=np.uint64))
    places, probabilities = [], []
    for _ in range(N_STEPS):
        slates = rng.integers(0, world.n_items, (N_USERS, 4), dtype=np.int32)
        probs, none = users.probabilities(slates)
        probabilities.append(np.column_stack([probs, none]))
        keys = rng.integers(1 << 62, size=N_USERS, dtype=np.uint64)
        places.append(users.step(slates, keys).places)
    return {"places": np.array(places, np.int8), "world": np.array(probabilities, np.float32)}


def distance(name: str, now: np.ndarray, kept: np.ndarray) -> float:
    """How far a record is from the kept one: the largest difference over the largest number kept;
    infinite where shapes differ. Of drawn places it is the share of users whose choices differ."""
    if now.shape != kept.shape:
        return float("inf")
    if name.endswith("places"):
        return float((now != kept).any(axis=0).mean())
    if not np.array_equal(np.isnan(now), np.isnan(kept)):
        return float("inf")
    difference = np.abs(np.nan_to_num(now - kept))
    return float(difference.max(initial=0) / max(1e-30, np.abs(np.nan_to_num(kept)).max(initial=0)))


def nearness(name: str) -> float:
    """How far a record may be from the kept one."""
    record = name.split("/")[-1]
    return NEAR if record in ("numbers", "losses", "evaluation") else NEAR_SCORES


def kept_records() -> dict[str, np.ndarray]:
    if not FILE.exists():
        return {}
    with np.load(FILE) as kept:
        return dict(kept)


def main(names: list[str]) -> None:
    """Make the records anew, all or those of some configurations, and say what moved."""
    torch.set_num_threads(1)
    kept = kept_records()
    made = {key: kept[key] for key in kept if names and key.split("/")[0] in CONFIGURATIONS}
    for name in names or CONFIGURATIONS:
        made = {key: record for key, record in made.items() if key.split("/")[0] != name}
        for record, now in records_of(name).items():
            key = f"{name}/{record}"
            made[key] = now
            moved = distance(key, now, kept[key]) if key in kept else float("inf")
            if moved > nearness(key):
                print(f"{key}: {'new' if key not in kept else f'moved by {moved:.1e}'}")
    np.savez_compressed(FILE, **made)
    print(f"{len(made)} records, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
