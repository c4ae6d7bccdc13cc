"""Models of the published table on one log, and whether the best is better than the next: `python
compare_models.py`."""

from collections.abc import Mapping
from typing import Any

import polars as pl

import fastgaum as fg
from fastgaum.baselines.registry import make_model

MODELS = ("random", "click-rate", "iknn", "logit", "fastgaum")


def main(log: str = "sample", **settings: Mapping[str, Any]) -> pl.DataFrame:
    """Fit each model, with settings of its own by name; return their figures on the test split, the
    best first."""
    sessions = fg.load(log)
    rows, evaluations = [], {}
    for name in MODELS:
        model = make_model(name, {"protocol": "bags", "seed": 0, **settings.get(name, {})})
        model.fit(sessions)  # whatever is open is chosen on the validation split
        evaluations[name] = evaluation = model.evaluate(sessions, split="test")
        figures = evaluation.heads["reward"]
        prec1, prec2 = figures.precision[1], figures.precision[2]
        row = {
            "model": name,
            "prec@1": prec1.mean,
            "from": prec1.low,
            "to": prec1.high,
            "prec@2": prec2.mean,
        }
        rows.append({**row, "NLL": figures.nll.mean})
    table = pl.DataFrame(rows).sort("prec@1", descending=True)
    with pl.Config(
        float_precision=2, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True
    ):
        print(table)
    best, second = table["model"][:2]
    lead = evaluations[best].lead(evaluations[second], k=1)  # on the same events, drawn by user
    word = "is" if lead.low > 0 else "need not be"
    print(
        f"{best} {word} better than {second}: {lead.mean:+.1f} points of prec@1, {lead.low:+.1f} "
        f"to {lead.high:+.1f}"
    )
    return table


if __name__ == "__main__":
    main()
