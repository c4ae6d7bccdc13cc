"""Models on disk: one safetensors file, the configuration and feature space in its metadata. No pickle anywhere."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open

from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError
from fastgaum.files import read_whole
from fastgaum.models.networks import Networks
from fastgaum.models.tensor_writer import write_tensors
from fastgaum.sessions.features import CategoricalField, FeatureSpace
from fastgaum.sessions.relations import PairTable, Relations

if TYPE_CHECKING:
    from fastgaum.models.user_model import UserModel

FORMAT = "fastgaum-model-2"
_SPACE_ARRAYS = ("mean", "scale", "least", "most", "item_displays", "item_choices", "item_expected")
_SPACE_VALUES = ("protocol", "set_context", "prior_rate", "no_click", "ordered", "fingerprint")


def save_model(model: UserModel, path: Path) -> None:
    """Write a fitted model.

    Raises:
        CheckpointError: the model has a user's own regulariser, which a file cannot hold.
        OutputError: the file cannot be written.
    """
    if model.networks is None or model.space is None:
        raise ConfigError("the model has not been trained: call fit before save")
    from fastgaum.models.regularisers import Custom

    if isinstance(model.regulariser, Custom):
        raise CheckpointError("a model with a regulariser of your own cannot be saved: a file holds no code")
    tensors = {f"net.{name}": value.detach().cpu().contiguous() for name, value in model.networks.state_dict().items()}
    metadata = {"config": json.dumps(model.config.to_mapping()), "outside": json.dumps(model.outside)}
    write_model(path, tensors, model.space, metadata)


def write_model(path: Path, tensors: dict[str, torch.Tensor], space: FeatureSpace, metadata: dict[str, str]) -> None:
    """Write a model's tensors and metadata, its feature space among them, as one safetensors file; atomic.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = dict(tensors)
    for name in _SPACE_ARRAYS:
        tensors[f"space.{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(space, name)))
    for part in space.categorical:
        for name, value in _text_tensors(part.values).items():
            tensors[f"values.{part.name}.{name}"] = value
    tensors |= _relation_tensors(space.relations)
    about_space = {name: getattr(space, name) for name in _SPACE_VALUES} | {
        "number_names": space.number_names,
        "field_names": space.field_names,
        "categorical": [[part.name, part.source, part.start] for part in space.categorical],
    }
    write_tensors(path, tensors, {"format": FORMAT, "space": json.dumps(about_space), **metadata})


def read_model(path: Path) -> tuple[Path, dict[str, str], dict[str, torch.Tensor]]:
    """Read a model file, or `model.safetensors` of a run folder: where it stands, its metadata, its tensors.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"no model at '{path}': give a run folder written by `fastgaum train`, or its model.safetensors"
        )
    return read_whole(file, lambda: _read_model(file))


def _read_model(file: Path) -> tuple[Path, dict[str, str], dict[str, torch.Tensor]]:
    with damage_named(file), safe_open(file, framework="pt") as reader:
        metadata = reader.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"'{file}' has format {metadata.get('format', 'unknown')!r}, this version reads {FORMAT!r}: train again, or"
                " use the version that wrote it"
            )
        return file, metadata, {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Whatever a crafted or damaged file makes fail becomes one CheckpointError that names it."""
    try:
        yield
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError, ConfigError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"'{file}' is damaged or not a model of this version: {reason}") from error


def load_model(path: Path, device: str) -> UserModel:
    """Read a model file, or `model.safetensors` of a run folder.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    from fastgaum.models.user_model import UserModel

    file, metadata, tensors = read_model(path)
    with damage_named(file):
        config = Config.from_mapping(json.loads(metadata["config"]))
        model = UserModel(config, device=device)
        model.space = read_space(metadata, tensors)
        model.outside = bool(json.loads(metadata["outside"]))
        model.networks = Networks(config, model.space.n_ids, model.space.n_numbers)
        model.networks.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        model.networks.to(model.device)
    return model


def read_space(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> FeatureSpace:
    """The feature space that `write_model` wrote. Raises KeyError or ValueError for a damaged one."""
    values: dict[str, Any] = json.loads(metadata["space"])
    arrays: dict[str, Any] = {name: tensors[f"space.{name}"].numpy() for name in _SPACE_ARRAYS}
    return FeatureSpace(
        **{name: values[name] for name in _SPACE_VALUES},
        **arrays,
        relations=_relations(tensors),
        number_names=tuple(values["number_names"]),
        field_names=tuple(values["field_names"]),
        categorical=tuple(
            CategoricalField(name, source, start, _text_series(tensors, f"values.{name}"))
            for name, source, start in values["categorical"]
        ),
    )


def _relation_tensors(relations: Relations | None) -> dict[str, torch.Tensor]:
    if relations is None:
        return {}
    tensors = {"relations.n_items": torch.tensor(relations.n_items)}
    for name in ("rivals", "follows"):
        table: PairTable = getattr(relations, name)
        for part in ("starts", "keys", "counts"):
            tensors[f"relations.{name}.{part}"] = torch.from_numpy(np.ascontiguousarray(getattr(table, part)))
    return tensors


def _relations(tensors: dict[str, torch.Tensor]) -> Relations | None:
    if "relations.n_items" not in tensors:
        return None
    tables = [
        PairTable(*(tensors[f"relations.{name}.{part}"].numpy() for part in ("starts", "keys", "counts")))
        for name in ("rivals", "follows")
    ]
    n_items = int(tensors["relations.n_items"])
    for table, width in zip(tables, (3, 2), strict=True):
        table.check(n_items, width)
    return Relations(n_items, *tables)


def _text_tensors(values: pl.Series) -> dict[str, torch.Tensor]:
    """Text as bytes and offsets: the tables of a large catalogue stay out of the JSON header."""
    encoded = [value.encode() for value in values.to_list()]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    joined = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    return {"bytes": torch.from_numpy(joined), "offsets": torch.from_numpy(offsets)}


def _text_series(tensors: dict[str, torch.Tensor], name: str) -> pl.Series:
    joined = tensors[f"{name}.bytes"].numpy().tobytes()
    offsets = tensors[f"{name}.offsets"].tolist()
    return pl.Series([joined[a:b].decode() for a, b in itertools.pairwise(offsets)], dtype=pl.String)
