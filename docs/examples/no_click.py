"""A log in which users may choose nothing: `python no_click.py`.

No click is a choice of its own, with utility 0: a candidate of negative utility is worse than none.
"""

from typing import Any

import polars as pl

import fastgaum as fg


def main(n_events: int = 3000, **settings: Any) -> tuple[float, float]:
    """Train on a log with 40 % of events without a click; return their predicted and observed
    share, in percent."""
    log, _ = fg.synthesise(n_events, n_items=50, no_click=0.4, seed=1)
    print(f"{log.count('choices')} of {log.n_events} events end with a click")

    model = fg.UserModel.from_preset("fastgaum", **settings)  # offers no click, as the log has it
    model.fit(log)
    evaluation = model.evaluate(log, split="test")
    reward = evaluation.heads["reward"]
    assert reward.no_click is not None
    predicted, observed = 100 * reward.no_click.predicted, 100 * reward.no_click.observed
    print(f"no click in the test split: predicted {predicted:.1f} %, observed {observed:.1f} %")
    print(
        f"prec@1 of events with a click: {reward.precision[1].mean:.1f}, a random order "
        f"{evaluation.random[1]:.1f}"
    )

    # an event's probabilities, no click among them, sum to 1
    events = (
        model.predict(log, split="test")
        .group_by("session", "event")
        .agg(
            pl.max("utility").alias("best utility"),
            pl.first("no_click_probability").alias("no click"),
            pl.sum("probability"),
        )
    )
    print(events.sort("no click").select("best utility", "no click", "probability").gather([0, -1]))
    return predicted, observed


if __name__ == "__main__":
    main()
