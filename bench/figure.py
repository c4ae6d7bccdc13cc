"""Draw prec@1 by model, with intervals, floors and published values, from a table's JSON.

`fastgaum reproduce … --json table.json`, then `python bench/figure.py table.json docs/prec1.svg` (extra `plots`).
"""

from __future__ import annotations

import json
import sys


def draw(table: dict, path: str, best_published: dict[str, float]) -> None:
    """One panel per data set: our heads' means with 95 % intervals, random floor and best published mean as lines."""
    import matplotlib.pyplot as plt

    # text stays text, and ids do not change from one drawing to the next
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fastgaum", "font.size": 9})
    names = list(table["datasets"])
    figure, panels = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.4), sharey=True)
    for panel, name in zip(panels, names, strict=True):
        cells = [cell for cell in table["cells"] if cell["dataset"] == name and cell["k"] == 1]
        labels = [f"{cell['model']}, {cell['head']}" for cell in cells]
        for row, cell in enumerate(reversed(cells)):
            low, high = cell["ci"]
            panel.plot([low, high], [row, row], color="#1f6feb", linewidth=1.5, alpha=0.6)
            panel.plot(cell["mean"], row, "o", color="#1f6feb", markersize=5)
        panel.axvline(table["datasets"][name]["floors"]["random"]["1"], color="#888888", linestyle=":", label="random")
        panel.axvline(best_published[name], color="#d1242f", linestyle="--", label="best published")
        panel.set_yticks(range(len(cells)), list(reversed(labels)))
        panel.set_title(name)
        panel.set_xlabel("prec@1, %")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=2)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    from fastgaum.metrics.published import best_published

    with open(sys.argv[1]) as file:
        loaded = json.load(file)
    draw(loaded, sys.argv[2], {name: float(best_published(name)["1"]["mean"]) for name in loaded["datasets"]})
