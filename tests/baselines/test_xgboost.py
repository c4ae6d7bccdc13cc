"""Boosted trees: the contract, the softmax objective, and that no order of candidates leaks in."""

from __future__ import annotations

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("xgboost", reason="needs the extra 'baselines'")

from fastgaum.baselines import xgboost_trees
from fastgaum.baselines.base import Baseline
from fastgaum.baselines.field_columns import chosen_before
from fastgaum.baselines.registry import load_model
from fastgaum.baselines.xgboost_trees import (
    BoostedTrees,
    TreeRows,
    XgboostRank,
    XgboostSoftmax,
    shuffled_within_sets,
    softmax_gradient,
)
from fastgaum.errors import ConfigError
from fastgaum.features.encoder import Encoder
from fastgaum.features.fitting import fit_space
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.training_counts import of_relations
from fastgaum.logs.log import SessionLog
from fastgaum.nets.batches import assemble
from fastgaum.nets.segments import segment_logsumexp
from tests.builders import log_of, put, random_log, with_fields


def encoded_log(no_click: float = 0.3) -> EncodedSessions:
    log = random_log(3, n_sessions=30, no_click=no_click)
    return Encoder(fit_space(log), log).encode(log.sessions_in("all"))


@pytest.mark.parametrize("no_click", [False, True])
def test_softmax_gradient_is_autograd(no_click: bool) -> None:
    encoded = encoded_log(no_click=0.3 if no_click else 0.0)
    clicked = encoded.choices >= 0
    chosen = torch.from_numpy(
        encoded.display_offsets[:-1][clicked] + encoded.choices[clicked]
    ).long()
    offsets = torch.from_numpy(encoded.display_offsets)
    margins = torch.randn(len(encoded.ids), dtype=torch.float64)

    def nll(values: torch.Tensor) -> torch.Tensor:
        return segment_logsumexp(values, offsets, no_click).sum() - values[chosen].sum()

    values = margins.clone().requires_grad_()
    (expected,) = torch.autograd.grad(nll(values), values)
    label = torch.zeros_like(margins).index_fill(0, chosen, 1.0).numpy()
    gradient, hessian = softmax_gradient(margins.numpy(), label, encoded.display_offsets, no_click)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-9)
    p = gradient + label
    np.testing.assert_allclose(hessian, np.maximum(p * (1 - p), 1e-6))


def test_choices_so_far_as_columns() -> None:
    """Against a loop, with a window of two."""
    encoded = encoded_log()
    source = assemble(encoded)
    batch = source
    n_ids = int(encoded.ids.max()) + 1
    columns = chosen_before(batch, n_ids, window=2).toarray()
    for session in range(source.n_sessions):
        for event in range(source.session_offsets[session], source.session_offsets[session + 1]):
            stop = source.token_offsets[session] + event - source.session_offsets[session]
            expected = np.zeros(n_ids)
            for token in range(max(source.token_offsets[session], stop - 2), stop):
                candidate = source.token_candidates[token]
                np.add.at(expected, source.ids[candidate] if candidate >= 0 else [0], 1)
            np.testing.assert_array_equal(columns[event], expected)


def test_shuffling_keeps_the_choice() -> None:
    encoded = encoded_log()
    shuffled = shuffled_within_sets(encoded, 0)
    clicked = encoded.choices >= 0
    np.testing.assert_array_equal(shuffled.choices >= 0, clicked)
    rows = [
        e.ids[e.display_offsets[:-1][clicked] + e.choices[clicked]] for e in (encoded, shuffled)
    ]
    np.testing.assert_array_equal(*rows)
    assert (encoded.choices != shuffled.choices).any()


def test_ndcg_ties_by_expectation() -> None:
    """All candidates tie: the mean over places of 1 / log2(1 + place)."""
    encoded = encoded_log(no_click=0.0)
    sizes = np.diff(encoded.display_offsets)
    expected = np.mean([np.mean(1 / np.log2(1 + np.arange(1, k + 1))) for k in sizes])
    assert XgboostRank()._loss(np.zeros(len(encoded.ids)), encoded) == pytest.approx(-expected)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xgboost":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install '\.\[baselines\]' in the clone"):
        XgboostSoftmax()


ONE: dict[str, Any] = {
    "rounds": 20,
    "depth": 4,
    "min_child_weight": 1.0,
    "colsample": 0.8,
    "eta": 0.2,
}
"""one setting: only what trees read is compared"""


def survey(n_sessions: int = 600) -> SessionLog:
    """Three modes with a price each; a person knows the way to one of them or to none. Mode 0 is
    taken where mode 1 costs more than .5, else mode 2; now and then a mode cannot be had."""
    rng = np.random.default_rng(5)
    prices, sessions, shown = list[float](), [], list[list[int]]()
    for _ in range(n_sessions):
        modes = rng.permutation(3)[: 2 if rng.random() < 0.2 else 3].tolist()
        price = rng.random(len(modes))
        # without mode 1 it counts as cheap
        of_1 = price[modes.index(1)] if 1 in modes else 0.0
        wanted = 0 if of_1 > 0.5 else 2
        choice = modes.index(wanted) if wanted in modes else 0
        sessions.append([(modes, choice)])
        shown.append(modes)
        prices.extend(price.tolist())
    log = log_of(sessions, (rng.permutation(n_sessions) % 5 // 2).tolist())
    return put(log, candidate={"price": np.array(prices, np.float32)})


def encoded_with(model: Baseline, log: SessionLog, split: Any = "test") -> EncodedSessions:
    return model._encoder(log, split).encode(log.sessions_in(split))


def test_alternatives_are_read_where_another_price_decides() -> None:
    """The price of mode 1 says whether 0 or 2 is chosen, which the other rows' numbers do not."""
    log = survey()
    model = XgboostSoftmax(**ONE | {"rounds": 100})
    table = model.fit(log).history_
    wide = table["reads"] == "alternatives"
    assert (table.filter(wide)["val_loss"].to_numpy() < 0.1).any()
    assert (table.filter(~wide)["val_loss"].to_numpy() > 0.2).all()
    evaluation = model.evaluate(log, "test")
    assert evaluation.heads["reward"].nll_per_event.mean() < 0.15


def test_alternatives_of_a_file(tmp_path: Path) -> None:
    log, model = survey(200), XgboostSoftmax(**ONE)
    model.fit(log)
    model.save(tmp_path / "trees.safetensors")
    loaded = load_model(tmp_path / "trees.safetensors")
    assert isinstance(loaded, XgboostSoftmax)
    assert loaded.inputs == model.inputs == "alternatives"
    encoded = encoded_with(model, log)
    np.testing.assert_array_equal(loaded._all_scores(encoded), model._all_scores(encoded))


def test_no_alternatives_among_many_items() -> None:
    """Displays that hold a third of the items at most are not rows of alternatives."""
    model = XgboostSoftmax(**ONE)
    assert "alternatives" not in set(model.fit(random_log(3)).history_["reads"])


def numbers_of_items(n_sessions: int = 400) -> SessionLog:
    """Items are chosen for their price alone, and each display holds other ones: whom an item met
    says nothing."""
    rng = np.random.default_rng(2)
    items = [rng.choice(400, 4, replace=False).tolist() for _ in range(n_sessions)]
    price = rng.random((n_sessions, 4)).astype(np.float32)
    sessions = [[(shown, int(row.argmax()))] for shown, row in zip(items, price, strict=True)]
    log = log_of(sessions, (rng.permutation(n_sessions) % 4 // 2).tolist())
    return put(log, candidate={"price": price.ravel()})


def test_relations_are_read_if_validation_says_so() -> None:
    """Where they are not chosen, no number of theirs changes a score."""
    log, model = numbers_of_items(), XgboostSoftmax(**ONE)
    table = model.fit(log).history_
    tried = dict(zip(table["reads"], table["val_loss"], strict=False))
    assert set(tried) == {"relations", "counts", "ids"}
    assert model.inputs == min(tried, key=lambda name: tried[name]) != "relations"
    encoded = encoded_with(model, log, "validation")
    batch = assemble(encoded)
    assert model.space is not None
    of_pairs = of_relations(model.space)
    assert of_pairs.sum() == 12
    numbers = batch.candidates.numbers.clone()
    numbers[:, of_pairs] += 7
    candidates = dataclasses.replace(batch.candidates, numbers=numbers)
    other = dataclasses.replace(batch, candidates=candidates)
    np.testing.assert_array_equal(model._scores(other), model._scores(batch))
    without = XgboostSoftmax(relations=False, **ONE)
    assert set(without.fit(log).history_["reads"]) == {"counts", "ids"}


@pytest.mark.parametrize("reads", ["relations", "ids"])
def test_bins_made_in_blocks_are_those_of_all_rows(
    reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's bins of blocks of three sessions, against those of one dense table."""
    import xgboost

    log, model = with_fields(random_log(3, n_sessions=40)), XgboostSoftmax(**ONE)
    model.fit(log)
    encoded = encoded_with(model, log, "validation")
    columns, types = model._columns(assemble(encoded), reads)
    label = np.zeros(len(encoded.ids), np.float32)
    label[encoded.chosen_candidates] = 1
    whole = xgboost.QuantileDMatrix(
        columns, label=label, feature_types=types, enable_categorical=True
    )
    monkeypatch.setattr(xgboost_trees, "BLOCK_SESSIONS", 3)
    rows = TreeRows(encoded)
    assert len(list(rows.blocks())) > 2
    matrix = model._data(rows, reads)
    np.testing.assert_array_equal(matrix.get_label(), label)
    for one, other in zip(matrix.get_quantile_cut(), whole.get_quantile_cut(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (matrix.get_data() != whole.get_data()).nnz == 0


@pytest.mark.parametrize("kind", [XgboostSoftmax, XgboostRank])
def test_a_large_log_is_compared_in_part_and_fitted_whole(
    kind: type[BoostedTrees], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part says what trees read; those of both depths have read each training event."""
    log = random_log(3, n_sessions=80)
    monkeypatch.setattr(xgboost_trees, "MOST_TRIED", 100)
    seen = list[int]()
    boost = BoostedTrees._boost

    def counting(self: BoostedTrees, train: EncodedSessions, *more: Any) -> Any:
        seen.append(train.n_events)
        return boost(self, train, *more)

    monkeypatch.setattr(BoostedTrees, "_boost", counting)
    model = kind(rounds=5)
    table = model.fit(log).history_
    assert seen[-2:] == [log.count("events", "train")] * 2
    assert max(seen[:-2]) < seen[-1]
    assert len(seen) == table.height == model.settings_tried == 5
    assert table["depth"].to_list() == [4, 4, 4, 4, 6]
    assert set(table["eta"]) == {xgboost_trees.FAST_ETA}
    first = table["val_loss"][:3].to_list()
    chosen = table["reads"][:3].to_list()[int(np.argmin(first))]
    assert model.inputs == chosen
    assert table["reads"][3:].to_list() == [chosen] * 2
    assert model.chosen["depth"] == (6 if table["val_loss"][4] < table["val_loss"][3] else 4)
    assert np.isfinite(model._all_scores(encoded_with(model, log))).all()


def test_many_ids_are_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read only where training counted nothing."""
    log = random_log(3)
    monkeypatch.setattr(xgboost_trees, "MOST_IDS", 10)
    assert set(XgboostSoftmax(**ONE).fit(log).history_["reads"]) == {"relations", "counts"}
    assert set(XgboostSoftmax(protocol="identity", **ONE).fit(log).history_["reads"]) == {"ids"}


def test_settings_are_tried_in_turn() -> None:
    """Depth first, up to 6; each further setting with the best of those before it."""
    table = XgboostSoftmax(rounds=3, relations=False).fit(random_log(3)).history_
    assert table.height == 2 + 2 + 2 + 1 + 2 + 1
    assert set(table["depth"]) == {2, 4, 6}
    rows = table.to_dicts()
    best = rows[int(np.argmin(table["val_loss"][:4]))]["depth"]
    assert {row["depth"] for row in rows[4:]} == {best}
