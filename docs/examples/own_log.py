"""A log of one's own, with a price per candidate and a category per item: `python own_log.py`.

The shop is made up: its customers take the cheaper of what they like, and like tea.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import fastgaum as fg

CATEGORIES = ["tea", "coffee", "mugs"]


def write_shop(n_visits: int) -> None:
    """Two files: shop.csv, a row per displayed candidate, and items.csv, a row per item."""
    rng = np.random.default_rng(0)
    rows = []
    for event in range(3 * n_visits):
        shown = rng.choice(30, size=4, replace=False)
        # today's price: it belongs to the candidate, not to the item
        price = rng.uniform(1, 9, size=4).round(2)
        liking = 2.0 * (shown % 3 == 0) - 0.6 * price + rng.gumbel(size=4)
        rows += [
            {
                "visit": event // 3,
                "ts": event,
                "sku": f"sku-{s}",
                "clicked": int(liking[i] == liking.max()),
                "price": p,
            }
            for i, (s, p) in enumerate(zip(shown, price, strict=True))
        ]
    pl.DataFrame(rows).write_csv("shop.csv")
    items = {
        "item": [f"sku-{i}" for i in range(30)],
        "category": [CATEGORIES[i % 3] for i in range(30)],
    }
    pl.DataFrame(items).write_csv("items.csv")


def main(n_visits: int = 500, **settings: Any) -> pl.DataFrame:
    """Train on the shop's log; return the mean utility of each category's candidates, and of dear
    and cheap ones."""
    write_shop(n_visits)
    log = fg.read_log(
        Path("shop.csv"),
        columns={"session": "visit", "event": "ts", "item": "sku"},
        candidate_fields=["price"],
        item_table="items.csv",
    )
    # simple rules that beat chance: here the price, which is no leak
    for finding in fg.audit(log).flagged:
        print(
            f"the audit names '{finding.rule}': prec@1 {finding.prec_at_1:.1f}, chance "
            f"{finding.floor:.1f}"
        )
    model = fg.UserModel.from_preset("fastgaum", **settings)
    model.fit(log)
    print(f"prec@1 {model.evaluate(log).heads['reward'].precision[1].mean:.1f}")
    scored = model.predict(log).with_columns(price=log.columns["price"].values)
    learned = (
        scored.join(pl.read_csv("items.csv"), on="item")
        .group_by("category", dear=pl.col("price") > 5)
        .agg(pl.mean("utility"))
        .sort("category", "dear")
    )
    print(learned)
    return learned


if __name__ == "__main__":
    main()
