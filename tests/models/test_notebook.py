"""What a person in a notebook, or one who knows scikit-learn, meets."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import rich.console

import fastgaum as fg
from fastgaum.baselines.registry import make_model
from fastgaum.cli.app import main
from fastgaum.errors import ConfigError
from fastgaum.game.observers import Observer
from fastgaum.html_view import MOST_ROWS, html_view
from fastgaum.logs.fold import to_frame
from tests.builders import put, random_log

QUICK: dict[str, Any] = {"players": "exact", "epochs": 3, "search": (), "folds": 0}


def choices() -> pl.DataFrame:
    columns = ["session", "event", "item", "chosen", "user"]
    return to_frame(fg.synthesise(200, preset="sample")[0]).select(columns)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 100 columns in place of stderr would show."""
    shown, made = io.StringIO(), rich.console.Console

    def console(**_: Any) -> rich.console.Console:
        return made(file=shown, force_terminal=True, width=100, color_system=None)

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich.console.Console", console)
    return shown


def test_a_fit_shows_how_far_it_is_on_a_terminal(
    screen: io.StringIO, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, seen = random_log(5, n_sessions=60), list[int]()

    class Notes(Observer):
        def on_epoch_begin(self, epoch: int) -> None:
            seen.append(epoch)

    fg.UserModel.from_preset(**QUICK).fit(log, [Notes()])
    assert len(seen) == 3
    assert "epoch 3" in screen.getvalue()
    assert "prec@1" in screen.getvalue()
    before = screen.getvalue()
    fg.UserModel.from_preset(**QUICK).fit(log, progress=False)
    assert screen.getvalue() == before
    # a comparison of settings is waited for the longest
    two = QUICK | {"preset": "fastgaum", "search": ("dropout",)}
    model = fg.UserModel.from_preset(**two)
    assert len(model.settings_for(log)) > 1
    model.fit(log)
    assert "comparing" in screen.getvalue()
    with pytest.raises(ConfigError, match="progress is 'yes', True, False or None"):
        model.fit(log, progress="yes")  # type: ignore[arg-type]
    # a command has a display of its own, and the next fit has ours again
    choices().write_csv(tmp_path / "log.csv")
    file, before = str(tmp_path / "log.csv"), screen.getvalue()
    compare = ["compare", file, "--models", "paper-pw", "--seeds", "1", "--jobs", "1"]
    assert main([*compare, "--set", "epochs=1", "--set", "warm_start=1", "--quiet"]) == 0
    assert "epoch" not in screen.getvalue()[len(before) :]
    fg.UserModel.from_preset(**QUICK).fit(log)
    assert "epoch 3" in screen.getvalue()[len(before) :]


def test_nothing_is_shown_in_pipes(capfd: pytest.CaptureFixture[str]) -> None:
    fg.UserModel.from_preset(**QUICK).fit(random_log(5, n_sessions=60))
    assert capfd.readouterr() == ("", "")


def test_calls_chain_and_pandas_comes_back_as_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas in, pandas out: fastgaum[frames]")
    rows = choices()
    frame = rows.to_pandas().set_index(np.arange(rows.height)[::-1])
    # as a pipeline calls them
    found = make_model("click-rate").fit(frame).predict(frame)
    assert isinstance(found, pandas.DataFrame)
    assert found.index.equals(frame.index)
    assert "probability" not in frame.columns
    expected = make_model("click-rate").fit(rows).predict(rows)
    assert list(found.columns) == expected.columns
    pandas.testing.assert_frame_equal(found[frame.columns.tolist()], frame)
    np.testing.assert_array_equal(found["probability"], expected["probability"])
    nested = rows.group_by("session", "event", "user", maintain_order=True).agg(
        items=pl.col("item"), chosen=pl.col("item").filter(pl.col("chosen") == 1).first()
    )
    lists = make_model("click-rate").fit(nested)
    ours, theirs = lists.predict(nested), lists.predict(nested.to_pandas())
    assert theirs["probability"].tolist() == ours["probability"].to_list()


def test_cross_validation_over_users_scores_users_that_are_left_out() -> None:
    selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn's own")
    pipeline = pytest.importorskip("sklearn.pipeline")
    base = pytest.importorskip("sklearn.base")
    pandas = pytest.importorskip("pandas", reason="frames of pandas: fastgaum[frames]")
    frame = choices().to_pandas()
    model = make_model("click-rate")
    folds = selection.GroupKFold(3)
    scores = selection.cross_val_score(model, frame, groups=frame["user"], cv=folds)
    by_hand = []
    for train, test in folds.split(frame, groups=frame["user"]):
        fitted = make_model("click-rate").fit(frame.iloc[train])
        log = fg.read_log(frame.iloc[test])
        by_hand.append(-fitted.evaluate(log, "all").heads["reward"].nll.mean)
    np.testing.assert_allclose(scores, by_hand)
    assert len(set(scores)) == 3
    assert isinstance(base.clone(model), type(model))
    for one in (model, fg.UserModel.from_preset(**QUICK)):
        pipe = pipeline.make_pipeline(one).fit(frame)
        assert isinstance(pipe.predict(frame), pandas.DataFrame)
        assert pipe.score(frame) == one.score(frame) < 0


def test_views_of_a_notebook_are_escaped_and_say_the_figures() -> None:
    log = put(random_log(3, n_sessions=80, no_click=0.2), name="<script>")
    log = dataclasses.replace(log, name="<script>")
    model = make_model("click-rate").fit(log)
    evaluation = model.evaluate(log)
    table = fg.compare(log, ["click-rate", "random"], seeds=1)
    views = {"log": log, "evaluation": evaluation, "table": table, "model": model}
    shown = {name: one._repr_html_() for name, one in views.items()}
    assert all("<script>" not in one and len(one) < 20_000 for one in shown.values())
    assert "Log &#x27;&lt;script&gt;&#x27;" in shown["log"]
    assert f">{log.n_events:,}</td>" in shown["log"]
    found = evaluation.heads["reward"]
    assert f"{found.precision[1].mean:.1f} ({found.precision[1].low:.1f} to" in shown["evaluation"]
    assert f"{found.nll.mean:.3f} (" in shown["evaluation"]
    cell = next(one for one in table.cells if one["model"] == "click-rate" and one["k"] == 1)
    assert f"{cell['mean']:.1f} ({cell['ci'][0]:.1f} to {cell['ci'][1]:.1f})" in shown["table"]
    # polars' own
    priced = put(log, candidate={"price": log.items.astype(np.float32)})
    priced = dataclasses.replace(priced, item_ids=pl.Series([f"<b>{i}" for i in range(12)]))
    answer = fg.what_if(make_model("logit").fit(priced), priced, fields={"price": lambda p: 2 * p})
    assert "<b>" not in answer._repr_html_()


def test_a_long_table_is_cut_and_counted() -> None:
    rows = [[f"<{n}>", n] for n in range(MOST_ROWS + 2)]
    shown = html_view("t", ["a", "b"], rows, ["n & m"])
    assert shown.count("<tr>") == 1 + MOST_ROWS
    assert "… and 2 rows more" in shown
    assert "n &amp; m" in shown
    assert "&lt;0&gt;" in shown


def test_public_names_and_short_signatures() -> None:
    assert dir(fg) == sorted(fg.__all__)
    calls = [getattr(fg, name) for name in fg.__all__ if name not in ("__version__", "errors")]
    calls += [fg.UserModel.fit, fg.UserModel.evaluate, fg.UserModel.predict, fg.UserModel.score]
    for call in calls:
        assert len(str(inspect.signature(call))) < (2400 if call is fg.Config else 900), call
    assert str(inspect.signature(fg.load)).count("ReadOptions()") == 1


def test_plots_draw_what_a_report_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures: install fastgaum[plots]")
    log = random_log(3, n_sessions=120)
    log = put(log, candidate={"price": log.items.astype(np.float32) + np.float32(1)})
    model = fg.UserModel.from_preset(**QUICK).fit(log)
    curve = fg.response_curve(model, log, "price", 5)
    answer = fg.what_if(model, log, fields={"price": lambda p: 2 * p})
    results = {
        "compare": fg.compare(log, ["logit", "click-rate"], seeds=1),
        "evaluate": model.evaluate(log),
        "fit": model,
        "curve": curve,
        "what-if": answer,
    }
    texts = {}
    for name, result in results.items():
        picture = fg.plot(result)
        picture.save(tmp_path / f"{name}.svg")
        texts[name] = set(re.findall(r">([^<>\n]+)</text>", (tmp_path / f"{name}.svg").read_text()))
        assert '<img src="data:image/svg+xml;base64,' in picture._repr_html_()
        assert repr(picture).startswith("Picture(")
    assert {"logit", "prec@1, %"} <= texts["compare"]
    assert {"reward", "floor: random"} <= texts["evaluate"]
    assert {"epoch", "loss of the reward"} <= texts["fit"]
    # several panels have one legend
    assert (tmp_path / "fit.svg").read_text().count(">validation<") == 1
    assert "log-odds" in texts["curve"]
    assert {"before", "after", "share, %", "i0"} <= texts["what-if"]
    first = fg.plot(answer).charts[""].label
    assert f"i0 {100 * answer['before'][0]:.1f} to {100 * answer['after'][0]:.1f}" in first
    with pytest.raises(ConfigError, match=r"no drawing of a polars\.DataFrame"):
        fg.plot(curve.drop("share"))
    with pytest.raises(ConfigError, match=r"this fastgaum\.UserModel has no epochs to draw"):
        fg.plot(fg.UserModel())
