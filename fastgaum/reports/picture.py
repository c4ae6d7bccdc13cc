"""What a result shows, as a picture: drawn as a report draws it, shown in a notebook, kept in a
file."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastgaum.errors import ConfigError, require_path, type_name
from fastgaum.metrics.evaluation import Evaluation
from fastgaum.models.choice_model import ChoiceModel
from fastgaum.reports.charts import (
    chart_of_response,
    chart_of_shares,
    charts_of_epochs,
    standings,
    standings_of,
)
from fastgaum.reports.comparison import Comparison
from fastgaum.reports.plots import Chart, panels_in_file, picture_of, require_plots
from fastgaum.reports.table import Json

_CURVE = {"value", "share", "log_odds", "log_odds_low", "log_odds_high"}
_SHARES = {"item", "before", "after", "after_low", "after_high"}


@dataclass(frozen=True, repr=False)
class Picture:
    """Charts side by side, with their titles."""

    charts: dict[str, Chart]

    def __repr__(self) -> str:
        return f"Picture({'; '.join(chart.label for chart in self.charts.values())})"

    def _repr_html_(self) -> str:
        drawn = (picture_of(chart) for chart in self.charts.values())
        shown = (
            f'<img src="{one["address"]}" alt="{html.escape(one["label"], quote=True)}">'
            for one in drawn
        )
        return f"<div>{''.join(shown)}</div>"

    def save(self, path: str | Path) -> None:
        """Write it, .svg or .png. Raises OutputError."""
        require_path("a figure", path)
        sizes = [chart.size for chart in self.charts.values()]
        size = sum(width for width, _ in sizes), max(high for _, high in sizes)
        with panels_in_file(Path(path), size, len(sizes)) as panels:
            for panel, (title, chart) in zip(panels, self.charts.items(), strict=True):
                chart.fill(panel)
                # above the phases that stand on an axis of epochs
                panel.set_title(title, pad=16 if panel.texts else None)


def plot(result: object) -> Picture:
    """Draw a result as a report does.

    Args:
        result: of `compare`, prec@1 of each model, a panel a log; an `Evaluation`, prec@1 of
            each head beside a random order; a fitted `UserModel`, losses, prec@1 and the gap by
            epoch; the frame of `response_curve` or of `what_if`, log-odds over numbers, and shares
            before and after.

    Returns: a picture, which a notebook shows and `save` writes.

    Raises:
        ConfigError: there is nothing to draw of it, or matplotlib is not installed.
    """
    require_plots("a plot")
    charts = dict(_charts_of(result))
    if not charts and isinstance(result, ChoiceModel):
        raise ConfigError(
            f"this {type_name(result)} has no epochs to draw: draw the model that fit returned, "
            "not one from a file, or what its evaluate returns"
        )
    if not charts:
        raise ConfigError(
            f"there is no drawing of a {type_name(result)}: give what compare, evaluate, "
            "response_curve or what_if returns, or a UserModel that has been fitted"
        )
    return Picture(charts)


def _charts_of(result: object) -> Iterator[tuple[str, Chart]]:
    if isinstance(result, Comparison):
        yield from standings(result.result).items()
    elif isinstance(result, Evaluation):
        rows: list[Json] = [
            {"label": name, "kind": "reward", "prec": head.to_dict()["prec"]}
            for name, head in result.heads.items()
        ]
        floor = {"1": {"mean": result.random[1], "ci": None}}
        rows.append({"label": "floor: random", "kind": "floor", "prec": floor})
        yield "prec@1", standings_of(rows)
    elif isinstance(result, ChoiceModel) and "val_loss" in getattr(result, "history_", ()):
        rows = result.history_.to_dicts()
        best = next((row["epoch"] for row in reversed(rows) if row["best"]), None)
        yield from charts_of_epochs(rows, best)
    elif isinstance(result, pl.DataFrame) and set(result.columns) >= _CURVE:
        yield "", chart_of_response("value", result.to_dicts())
    elif isinstance(result, pl.DataFrame) and set(result.columns) >= _SHARES:
        yield "", chart_of_shares(result.to_dicts())
