"""People in the Horizon task (Wilson et al., J. Exp. Psychol. General 2014) whom training does not
know: NLL of their free choices, beside published figures.

    python bench/experiments/horizon.py [--seeds 3] [--simulate] [--folds 10]

The log is horizon/choices.parquet of $FASTGAUM_DATA_DIR. A session is a person, and an item an arm
of one game; what arms have paid comes from the outcome `reward` alone. Of a forced trial the other
arm is not available, so that it says nothing of choices and is no part of the figure.

--simulate: also exploration in the open loop. Simulated people, of the first split of people, play
1,000 games of each horizon: games of people whom training does not know, with their forced trials as
logged; of a free choice an arm pays a normal number around its mean in the log. Once they begin
without a history, and once after the first games of those people, as these chose.

--folds: also folds of choices, as published, with the same people and games on both sides. A choice
of the test fold is a forced trial in the sessions that are fitted: the history reads it, and nothing
learns from it. These sessions once more, whole and under other names, are the test."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl

import fastgaum as fg

PUBLISHED = {
    "uniform": np.log(2),
    "hybrid cognitive model (people on both sides)": 0.4322,
    "read-outs of LLaMA-65B (people on both sides)": 0.3864,
}
"""Binz and Schulz, "Turning large language models into cognitive models", ICLR 2024"""


def read_games(path: Path) -> pl.DataFrame:
    """A row per arm and trial, the trials of each person, a session, numbered in their order."""
    order = pl.struct("game_number", "trial").rank("dense").over("person").cast(pl.Int64)
    return pl.read_parquet(path).with_columns(
        session="person", item=pl.col("game") + "/" + pl.col("arm"), event=order - 1
    )


def read_people(games: pl.DataFrame, seed: int = 0) -> fg.SessionLog:
    """The games as a log, split by their column `split`, or people by `seed`."""
    columns = {"session": "session", "user": "session", "event": "event", "item": "item"}
    is_split = "split" in games.columns
    split = {"split": "file"} if is_split else {"split": "user", "split_seed": seed}
    return fg.read_log(
        games,
        columns=columns | ({"split": "split"} if is_split else {}),
        candidate_fields=["arm"],
        context_fields=["horizon", "trials_left", *(["person"] if is_split else [])],
        available="available",
        outcomes=["reward"],
        **split,
    )


def nll_of_fold(games: pl.DataFrame, fold: int, folds: int) -> tuple[float, int]:
    """Summed NLL of the free choices of a fold, nats, and how many these are."""
    of_trial = np.random.default_rng(0).integers(folds, size=len(games) // 2)
    trials = games.select("session", "event").unique(maintain_order=True)
    held = trials.filter(pl.Series(of_trial == fold))
    games = games.join(held.with_columns(held=True), on=["session", "event"], how="left")
    games = games.with_columns(pl.col("held").fill_null(False) & (pl.col("forced") == 0))
    known = games.with_columns(
        available=pl.when("held").then("chosen").otherwise("available"),
        split=pl.when(pl.col("person").rank("dense") % 6 == 0)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train")),
    )
    again = games.with_columns(
        session="again " + pl.col("session"), item="again " + pl.col("item"), split=pl.lit("test")
    )
    log = read_people(pl.concat([known, again], how="vertical_relaxed"))
    model = fg.UserModel.from_preset("fastgaum", seed=fold).fit(log)
    chosen = again.filter(pl.col("held") & (pl.col("chosen") == 1))
    said = chosen.join(model.predict(log, split="test"), on=["session", "event", "item"])
    assert len(said) == len(chosen)
    return -float(said["probability"].log().sum()), len(said)


def nll_of_free_choices(model: fg.UserModel, log: fg.SessionLog) -> tuple[float, int]:
    """NLL of test people's free choices, nats each, and how many these are."""
    events = log.split[log.session_of_event] == 2
    is_free = events & (np.diff(log.display_offsets) > 1)
    # the one arm of a forced trial has the probability 1
    total = model.evaluate(log, split="test").heads["reward"].nll.mean * events.sum()
    return float(total / is_free.sum()), int(is_free.sum())


N_PLAYERS, GAMES_EACH = 20, 100
"""simulated people, and their games, half of each horizon"""
LIVED = 100
"""logged games of a person that a simulated one may begin after"""
NOISE = 8.0
"""standard deviation of what an arm pays (Wilson et al.)"""


def play_games(model: fg.UserModel, games: pl.DataFrame, lived: int) -> pl.DataFrame:
    """Rows of trials as of the log, `GAMES_EACH` games of each simulated person, who begins after
    the first `lived` games of one of those people."""
    draws, rows = np.random.default_rng(0), []
    trials = games.filter(pl.col("chosen") == 1).sort("game", "trial")
    logged = {(of[0],): game.to_dicts() for of, game in trials.group_by(["game"])}
    by_horizon = [
        trials.filter(pl.col("horizon") == horizon)["game"].unique().sort() for horizon in (5, 10)
    ]
    people = trials["person"].unique().sort()
    first = trials.filter(pl.col("game_number") < lived).sort("event")
    for player in range(N_PLAYERS):
        names = pl.concat([one.sample(GAMES_EACH // 2, seed=player) for one in by_horizon])
        user = model.user()
        before = first.filter(pl.col("person") == people[player % len(people)])
        past = before["game"].unique(maintain_order=True).to_list()
        for number, name in enumerate([*past, *draws.permutation(names.to_numpy())]):
            game, is_past = logged[(name,)], number < len(past)
            means = {
                arm: np.mean([one["reward"] for one in game if one["arm"] == arm] or [50.0])
                for arm in ("left", "right")
            }
            for trial in game:
                told = bool(trial["forced"]) or is_past
                arms = [trial["arm"]] if trial["forced"] else ["left", "right"]
                context = {"horizon": trial["horizon"], "trials_left": trial["trials_left"]}
                items = [f"{number}/{arm}" for arm in arms]
                chances = user.probabilities(items, context, {"arm": arms}).astype(np.float64)
                at, paid = arms.index(trial["arm"]), trial["reward"]
                if not told:
                    at = int(draws.choice(len(arms), p=chances / chances.sum()))
                    paid = float(np.clip(np.round(draws.normal(means[arms[at]], NOISE)), 1, 100))
                user.chose(items[at], {"reward": paid})
                if not is_past:
                    own = {"arm": arms[at], "reward": paid, "person": f"simulated {player}"}
                    rows.append({**trial, **own})
    return pl.DataFrame(rows)


def explored(trials: pl.DataFrame) -> pl.DataFrame:
    """A row for each game: person, horizon, and whether its first free choice was of the less-seen
    arm, null where both were forced as often, and of the lower mean, null elsewhere."""
    forced, is_left = pl.col("forced") == 1, pl.col("arm") == "left"
    n, mean = (
        [of(pl.col("reward").filter(forced & side)) for side in (is_left, ~is_left)]
        for of in (pl.Expr.count, pl.Expr.mean)
    )
    chose_left = is_left.filter(~forced).first()
    uneven, even = n[0] != n[1], (n[0] == n[1]) & (mean[0] != mean[1])
    return (
        trials.filter(pl.col("chosen") == 1)
        .sort("person", "game", "trial")
        .group_by("person", "horizon", "game")
        .agg(
            less_seen=pl.when(uneven).then(chose_left == (n[0] < n[1])),
            lower_mean=pl.when(even).then(chose_left == (mean[0] < mean[1])),
        )
    )


def compare_exploration(people: pl.DataFrame, simulated: pl.DataFrame) -> str:
    """Shares at the first free choice of each horizon, people's with their 95 % interval, by a
    bootstrap over people, beside the simulated ones."""
    lines, draws = (
        ["| at the first free choice | people | simulated | inside |", "|---|---|---|---|"],
        2000,
    )
    found, played = explored(people), explored(simulated)
    names = found["person"].unique().sort()
    weights = np.random.default_rng(0).multinomial(len(names), [1 / len(names)] * len(names), draws)
    for what in ("less_seen", "lower_mean"):
        for horizon in (5, 10):
            of_horizon = pl.col("horizon") == horizon
            sums = (
                found.filter(of_horizon)
                .group_by("person")
                .agg(pl.col(what).sum().alias("yes"), pl.col(what).count().alias("n"))
                .sort("person")
            )
            yes, n = sums["yes"].to_numpy(), sums["n"].to_numpy()
            low, high = np.percentile(weights @ yes / (weights @ n), [2.5, 97.5])
            share = float(played.filter(of_horizon)[what].mean())  # type: ignore[arg-type]
            lines.append(
                f"| {what.replace('_', ' ')}, horizon {horizon} | {yes.sum() / n.sum():.3f} "
                f"({low:.3f} to {high:.3f}) | {share:.3f} | {'yes' if low <= share <= high else 'no'} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="splits of people")
    parser.add_argument("--simulate", action="store_true", help="compare exploration")
    parser.add_argument("--folds", type=int, default=0, help="folds of choices")
    folder = os.environ.get("FASTGAUM_DATA_DIR")
    if folder is None:
        parser.error("$FASTGAUM_DATA_DIR is not set: it is the folder that holds horizon/")
    options, found = parser.parse_args(), []
    games = read_games(Path(folder) / "horizon" / "choices.parquet")
    for seed in range(options.seeds):
        log = read_people(games, seed)
        model = fg.UserModel.from_preset("fastgaum", seed=seed).fit(log)
        nll, n = nll_of_free_choices(model, log)
        found.append(nll)
        print(f"fastgaum, people apart, split {seed}: {nll:.4f} of {n:,} free choices", flush=True)
        if options.simulate and seed == 0:
            unknown = log.session_ids.gather(log.sessions_in("test"))
            of_unknown = games.filter(pl.col("session").is_in(unknown.implode()))
            for lived in (0, LIVED):
                print(f"simulated people after {lived} games of a person:")
                played = play_games(model, of_unknown, lived)
                print(compare_exploration(games, played), flush=True)
    if found:
        print(f"fastgaum, people apart, mean: {fmean(found):.4f}")
    sums = np.zeros(2)
    for fold in range(options.folds):
        one = nll_of_fold(games, fold, options.folds)
        sums += one
        print(
            f"fastgaum, folds of choices, fold {fold}: {one[0] / one[1]:.4f} of {one[1]:,}; "
            f"until now {sums[0] / sums[1]:.4f}",
            flush=True,
        )
    for name, value in PUBLISHED.items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
