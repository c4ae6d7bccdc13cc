"""Tables of the user's own in the place of ours: the same training, an ordinary model, and errors
that name the table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastgaum.errors import ConfigError
from fastgaum.logs.log import SessionLog
from fastgaum.logs.synthetic import synthesise
from fastgaum.models.run_folder import train_run
from fastgaum.models.user_model import UserModel
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.tables import normal_table
from fastgaum.nets.tensors import Bags
from fastgaum.worlds.learned_world import LearnedWorld
from tests.worlds.test_examples import module_of

PLAIN: dict[str, Any] = {
    **{"protocol": "identity", "set_context": False, "relations": False, "search": ()},
    **{"dropout": 0.0, "id_dropout": 0.0, "warm_start": 2, "catch_up": 1, "epochs": 2},
    **{"history_dim": 4, "hidden": (8, 8), "batch_sessions": 50},
}
"""nothing is drawn while training: the engine and autograd draw in different ways"""


class Split(nn.Module):
    """A table in three parts by id modulo 3, each a table of ours without bias; drawn as the whole
    one would be."""

    def __init__(self, name: str, n_rows: int, width: int, std: float) -> None:
        super().__init__()
        whole, self.n_rows = normal_table(n_rows, width, std).detach(), n_rows
        if name.endswith("items"):
            # where ours starts too: the towers' last column is the items' own bias
            whole[:, -1] = 0
        with torch.random.fork_rng():
            self.parts = nn.ModuleList(
                BagLinear(len(whole[part::3]), 0, width, 0.0, bias=False) for part in range(3)
            )
        for part, table in enumerate(self.parts):
            table.table.data.copy_(whole[part::3])

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        sums = []
        for part, table in enumerate(self.parts):
            held = ids % 3 == part
            before = torch.cat(
                [held.new_zeros(1, dtype=torch.int32), held.cumsum(0, dtype=torch.int32)]
            )
            numbers = torch.zeros(len(offsets) - 1, 0)
            sums.append(table(Bags(ids[held] // 3, before[offsets.long()], numbers)))
        return sums[0] + sums[1] + sums[2]

    def weight(self) -> Tensor:
        rows = torch.empty(self.n_rows, self.parts[0].table.shape[1])
        for part, table in enumerate(self.parts):
            rows[part::3] = table.table.detach()
        return rows


@pytest.fixture(scope="module")
def log() -> SessionLog:
    return synthesise(1200, preset="sample", seed=3, n_items=20, no_click=0.3)[0]


def losses(table: Any) -> np.ndarray:
    return np.asarray(table.select("loss", "val_loss", "gap").fill_nan(0.0).to_numpy())


@pytest.mark.parametrize(
    "changes",
    [{"table_optimiser": "adagrad"}, {"history": "bilstm"}, {"tower_dim": 6}],
    ids=["embeddings", "bilstm", "towers"],
)
def test_a_split_table_trains_as_the_whole_one(log: SessionLog, changes: dict[str, Any]) -> None:
    ours = UserModel.from_preset(device="cpu", **PLAIN | changes)
    theirs = UserModel.from_preset(device="cpu", tables=Split, **PLAIN | changes)
    expected, found = losses(ours.fit(log)), losses(theirs.fit(log))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    assert theirs.networks is not None
    assert any(isinstance(module, Split) for module in theirs.networks.modules())


def test_what_is_saved_is_an_ordinary_model_and_a_world(log: SessionLog, tmp_path: Path) -> None:
    model = UserModel.from_preset(device="cpu", tables=Split, **PLAIN)
    model.fit(log)
    model.save(tmp_path / "user.safetensors")
    loaded = UserModel.load(tmp_path / "user.safetensors", device="cpu")
    assert loaded.networks is not None
    assert type(loaded.networks.player.history) is Recurrent
    one, other = (which.predict(log, "test") for which in (model, loaded))
    for column in ("utility", "probability", "generator_probability"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-4, atol=1e-5)
    slates = np.random.default_rng(0).integers(20, size=(6, 3)).astype(np.int32)
    worlds = [LearnedWorld(which).population(6) for which in (model, loaded)]
    for probs in zip(*(users.probabilities(slates) for users in worlds), strict=True):
        np.testing.assert_allclose(*probs, atol=1e-6)


class Flat(Split):
    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        return super().forward(ids, offsets).reshape(1, -1)


class Short(Split):
    def weight(self) -> Tensor:
        return super().weight()[1:]


@pytest.mark.parametrize(
    ("tables", "changes", "message"),
    [
        (Split, {"history": "pw"}, "history = pw .* use lstm or bilstm"),
        (lambda *_: None, {}, "the table 'history.input' is a NoneType: a torch module"),
        (lambda name, n, width, _: nn.EmbeddingBag(n, width), {}, "EmbeddingBag: .* method weight"),
        (Flat, {}, r"gives sums of bags of shape \(1, \d+\), a tensor of shape \(\d+, 16\)"),
        (Short, {}, r"gives rows of shape \(\d+, 16\), a tensor of shape"),
    ],
)
def test_a_table_that_is_none_is_refused(
    log: SessionLog, tables: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = UserModel.from_preset(device="cpu", tables=tables, **PLAIN | {"epochs": 1} | changes)
    with pytest.raises(ConfigError, match=message):
        train_run(model, log, tmp_path / "run")


class StandIn(nn.Module):
    """`torchrec.EmbeddingBagCollection` of one table on one device, as its users see it."""

    def __init__(self, tables: list[dict[str, Any]]) -> None:
        super().__init__()
        (table,) = tables
        shape = table["num_embeddings"], table["embedding_dim"]
        bag = nn.EmbeddingBag(*shape, mode="sum", include_last_offset=True)
        table["init_fn"](bag.weight)
        self.embedding_bags = nn.ModuleDict({table["name"]: bag})

    def forward(self, features: tuple[Tensor, Tensor]) -> Any:
        ((bag,), (values, lengths)) = self.embedding_bags.values(), features
        sums = bag(values, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))
        return SimpleNamespace(values=lambda: sums)


def test_torchrec_s_collections_train(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The example over TorchRec where it is installed, else over the stand-in."""
    if importlib.util.find_spec("torchrec") is None:
        made: Any = ModuleType("torchrec")
        made.EmbeddingBagCollection, made.EmbeddingBagConfig = StandIn, dict
        made.KeyedJaggedTensor = SimpleNamespace(
            from_lengths_sync=lambda keys, values, lengths: (values, lengths)
        )
        monkeypatch.setitem(sys.modules, "torchrec", made)
    settings = PLAIN | {"batch_sessions": 1000, "epochs": 4}
    theirs, table = module_of("torchrec_tables").main(log, **settings)
    assert table["val_loss"].min() < table["val_loss"][0]
    theirs.save(tmp_path / "user.safetensors")
    assert UserModel.load(tmp_path / "user.safetensors", device="cpu").space is not None
