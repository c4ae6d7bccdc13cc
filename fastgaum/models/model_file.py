"""Models on disk: one safetensors file that holds weights, configuration and feature space. No
pickle anywhere."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from fastgaum.checkpoint import State, check_weights, damage_named, load_state, save_state
from fastgaum.config import Config
from fastgaum.errors import CheckpointError, ConfigError, did_you_mean
from fastgaum.features.encoder import SAME_AS, made_numbers
from fastgaum.features.relations import Relations
from fastgaum.features.space import CategoricalField, FeatureSpace
from fastgaum.kernels.relations import PairCounts
from fastgaum.logs.log import ItemCounts
from fastgaum.nets.networks import Networks, context_sizes
from fastgaum.nets.tables import plain_state

if TYPE_CHECKING:
    from fastgaum.models.user_model import UserModel
    from fastgaum.nets.histories import Encoders
    from fastgaum.nets.regularisers import Regulariser

FORMAT = "fastgaum-model-5"
_CODE_NAME = re.compile(r"[\w<>(). ]{1,200}")


def save_user_model(model: UserModel, path: Path) -> None:
    """Write a fitted model.

    A file holds no code: of a regulariser or a history encoder of the user's own it holds the name,
    and `UserModel.load` asks for the code.

    Raises:
        OutputError: the file cannot be written.
    """
    if model.networks is None or model.space is None:
        raise ConfigError("the model has not been trained: call fit before save")
    state = {
        "config": model.config.to_mapping(),
        "own": own_code(model),
        "weights": plain_state(model.networks),
    }
    save_model_state(path, model.space, model.outside, state)


def save_model_state(path: Path, space: FeatureSpace, outside: bool, state: State) -> None:
    """Write a model's state beside what every model has: its feature space, and whether no click is
    offered as a choice.

    Raises:
        OutputError: the file cannot be written.
    """
    save_state(path, FORMAT, {"space": space_state(space), "outside": outside, **state})


def load_model_state(path: Path) -> tuple[Path, State]:
    """Read a model file, or `model.safetensors` of a run folder: where it stands, and its state, in
    which `space` is a FeatureSpace.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = "" if path.exists() else did_you_mean(path.name, beside)
        raise CheckpointError(
            f"no model at '{path}'{close}: give a run folder written by `fastgaum train`, or its "
            "model.safetensors"
        )
    cure = "train again, or use the version that wrote it"
    state = load_state(file, FORMAT, cure, "model")
    with damage_named(file):
        if not isinstance(state["outside"], bool):
            raise ValueError(f"outside is {state['outside']!r}, true or false is required")
        return file, {**state, "space": space_of(state["space"])}


def own_code(model: UserModel) -> dict[str, str]:
    """Names of what a model has of the user's own code: its regulariser, its history encoder."""
    from fastgaum.nets.histories import history_encoder
    from fastgaum.nets.regularisers import regulariser_of

    own = {}
    if model.regulariser != regulariser_of(model.config):
        own["regulariser"] = _code_name(model.regulariser)
    if model.history is not history_encoder:
        own["history"] = _code_name(model.history)
    return own


def _code_name(code: object) -> str:
    """What a user writes for a regulariser or an encoder: Custom(square), MyRegulariser(),
    MyEncoder."""
    if hasattr(code, "__name__"):
        return str(code.__name__)
    inner = _code_name(code.function) if hasattr(code, "function") else ""
    return f"{type(code).__name__}({inner})"


def load_user_model(
    kind: type[UserModel],
    path: Path,
    device: str,
    regulariser: Regulariser | None = None,
    history: Encoders | None = None,
) -> UserModel:
    """Read a user model, with the code that its file names.

    Args:
        kind: the class of the model.
        path: its file, or a run folder.
        device: where the networks are put.
        regulariser: the model's own one, if its file names one.
        history: the model's own history encoder, likewise.

    Raises:
        CheckpointError: missing, damaged, of another format, or trained with code that is not
            given.
    """
    file, state = load_model_state(path)
    with damage_named(file):
        config = Config.from_mapping(state["config"])
        model = kind(config, regulariser=regulariser, history=history, device=device)
        named = _own_names(state["own"])
    _check_own(path, named, own_code(model))
    with damage_named(file):
        model.space, model.outside = state["space"], state["outside"]
        model.networks = _networks(config, state["space"], state["weights"], model.history)
        model.networks.to(model.device)
    return model


def _own_names(named: object) -> dict[str, str]:
    """The code that a file names. Raises ValueError for a damaged record of it."""
    if not isinstance(named, dict) or not named.keys() <= {"regulariser", "history"}:
        raise ValueError(
            "its record of your own code names more than a regulariser and a history encoder"
        )
    if not all(isinstance(name, str) and _CODE_NAME.fullmatch(name) for name in named.values()):
        raise ValueError("its record of your own code holds something else than names")
    return named


def _check_own(path: Path, named: dict[str, str], given: dict[str, str]) -> None:
    """Raise CheckpointError unless the code given is the code that a file names."""
    for what, word in (("regulariser", "a regulariser"), ("history", "a history encoder")):
        name, got = named.get(what), given.get(what)
        if name is not None and got is None:
            raise CheckpointError(
                f"the model in '{path}' has {word} of its own ('{name}'), and a file holds no "
                f"code: load it in Python with UserModel.load('{path}', {what}={name})"
            )
        if name is None and got is not None:
            raise CheckpointError(
                f"the model in '{path}' has no {word[2:]} of its own: load it without {what}={got}"
            )
        if name != got:
            raise CheckpointError(
                f"the model in '{path}' was trained with {what}={name}, not {got}: pass that one"
            )


def _networks(
    config: Config, space: FeatureSpace, weights: dict[str, torch.Tensor], encoder: Encoders
) -> Networks:
    """Networks of a file's weights. Raises ValueError unless the weights are those that the
    configuration asks for."""
    # each layer has a weight: what is asked for beyond the file's is not even counted out
    if config.history_layers + len(config.hidden) > len(weights):
        raise ValueError(
            f"the configuration asks for more layers than the {len(weights)} weights of the file"
        )
    sizes = (config, space.n_ids, space.n_numbers, encoder)
    with torch.device("meta"):
        check_weights(Networks(*sizes, context=context_sizes(space)), weights)
    networks = Networks(*sizes, context=context_sizes(space))
    networks.load_state_dict(weights)
    return networks


NUMBERS = ("mean", "scale", "least", "most")
ARRAYS = dict.fromkeys((*NUMBERS, "context_mean", "context_scale"), np.float32)
COUNTS = {
    field.name: getattr(ItemCounts.zeros(0), field.name).dtype
    for field in dataclasses.fields(ItemCounts)
}
PAIRS = {"starts": np.int64, "keys": np.int64, "counts": np.int32}
VALUES: dict[str, type] = {
    "protocol": str,
    "set_context": bool,
    "prior_rate": float,
    "no_click": bool,
    "ordered": bool,
    "fingerprint": str,
}
SOURCES = ("item", "item_field", "candidate_field", "position")
OF_CONTEXT = ("context", "context_item")


def space_state(space: FeatureSpace) -> State:
    """The space as a state that a file can hold."""
    return {
        **{name: getattr(space, name) for name in (*VALUES, *ARRAYS)},
        "item_counts": {name: getattr(space.item_counts, name) for name in COUNTS},
        "number_names": list(space.number_names),
        "field_names": list(space.field_names),
        "context_number_names": list(space.context_number_names),
        "categorical": [{**_named(one), **_text_state(one.values)} for one in space.categorical],
        # the values of a field that holds items are the items'
        "context": [
            {**_named(one), **(_text_state(one.values) if one.source == "context" else {})}
            for one in space.context
        ],
        "relations": None
        if space.relations is None
        else {
            name: {part: getattr(table, part) for part in PAIRS}
            for name, table in space.relations._asdict().items()
        },
    }


def space_of(state: Any) -> FeatureSpace:
    """The space that `space_state` describes. Raises KeyError, TypeError or ValueError for a
    damaged one."""
    for name, kind in VALUES.items():
        if type(state[name]) is not kind:
            raise ValueError(f"the feature space's {name} is no {kind.__name__}")
    if not 0 <= state["prior_rate"] <= 1:
        raise ValueError(
            f"the feature space's prior_rate is {state['prior_rate']}, 0 to 1 is required"
        )
    fields = [
        CategoricalField(*_field(one, SOURCES), _text_series(one)) for one in state["categorical"]
    ]
    n_items = _check_fields(fields)
    context = _context(state["context"], fields)
    counts = {name: _array(state["item_counts"], name, kind) for name, kind in COUNTS.items()}
    space = FeatureSpace(
        **{name: state[name] for name in VALUES},
        **{name: _array(state, name, kind) for name, kind in ARRAYS.items()},
        item_counts=ItemCounts(**counts),
        relations=_relations(state["relations"], n_items),
        number_names=_names(state["number_names"]),
        field_names=_names(state["field_names"]),
        categorical=tuple(fields),
        context=context,
        context_number_names=_names(state["context_number_names"]),
    )
    _check_arrays(space, n_items)
    _check_numbers(space)
    return space


def _named(field: CategoricalField) -> State:
    return {"name": field.name, "source": field.source, "start": field.start}


def _field(state: Any, sources: Sequence[str]) -> tuple[str, str, int]:
    name, source, start = state["name"], state["source"], state["start"]
    if not isinstance(name, str) or source not in sources or type(start) is not int:
        raise ValueError(f"{str(name)[:40]!r} is no field of ids")
    return name, source, start


def _check_fields(fields: list[CategoricalField]) -> int:
    """Fields of ids lie one after the other, items first, each value once; returns the number of
    items."""
    if (
        not fields
        or fields[0].source != "item"
        or sum(field.source == "item" for field in fields) != 1
    ):
        raise ValueError("the first field of ids must be the items")
    start = 1
    for field in fields:
        start = _check_field(field, start)
    return len(fields[0].values)


def _check_field(field: CategoricalField, start: int) -> int:
    """A field's ids start where they must, each value once; returns where the next ones start."""
    if field.start != start:
        raise ValueError(
            f"the ids of field '{field.name}' start at {field.start}, {start} is required"
        )
    if field.values.n_unique() != len(field.values):
        raise ValueError(f"field '{field.name}' holds a value twice")
    return field.stop


def _context(state: Any, fields: list[CategoricalField]) -> tuple[CategoricalField, ...]:
    """Context fields of ids, by name: those of categories follow the candidates' fields, those of
    items have the items' ids."""
    items, stop = fields[0], fields[-1].stop
    context = []
    for one in state:
        name, source, start = _field(one, OF_CONTEXT)
        holds_items = source == "context_item"
        values = items.values if holds_items else _text_series(one)
        context.append(CategoricalField(name, source, start, values))
        if holds_items:
            _check_field(context[-1], items.start)
        else:
            stop = _check_field(context[-1], stop)
    return tuple(context)


def _check_arrays(space: FeatureSpace, n_items: int) -> None:
    for name in COUNTS:
        counts = getattr(space.item_counts, name)
        if len(counts) != n_items or (n_items and counts.min() < 0):
            raise ValueError(f"space.item_{name} does not hold a count for each of {n_items} items")
    n_of_context = len(space.context_number_names)
    for name in ARRAYS:
        named = space.n_numbers if name in NUMBERS else n_of_context
        if len(getattr(space, name)) != named:
            raise ValueError(
                f"space.{name} holds {len(getattr(space, name))} numbers, {named} are named"
            )
    for name in ("scale", "context_scale"):
        scale = getattr(space, name)
        if len(scale) and scale.min() <= 0:
            raise ValueError(f"space.{name} holds a number that is not positive")


def _check_numbers(space: FeatureSpace) -> None:
    """Each number is one that an encoder makes of a log with these fields."""
    of_context = [*(part.name for part in space.context), *space.context_number_names]
    if len(set(of_context)) < len(of_context):
        raise ValueError("a context field is given twice")
    made = made_numbers(space.protocol, space.relations is not None)
    same = (SAME_AS + name for name in space.fields_of_items)
    known = {*made, *made_numbers("bags", False), *same, *space.field_names}
    for name in space.number_names:
        if name not in known or space.number_names.count(name) > 1:
            raise ValueError(
                f"'{name[:40]}' is not a number that this version makes, or it is given twice"
            )


def _array(state: Any, name: str, kind: Any, axes: int = 1) -> Any:
    value = state[name]
    if not isinstance(value, np.ndarray) or value.dtype != kind or value.ndim != axes:
        raise ValueError(f"'{name}' is no array of {np.dtype(kind)} with {axes} axes")
    return value


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{str(values)[:60]} are no names")
    return tuple(values)


def _relations(state: Any, n_items: int) -> Relations | None:
    if state is None:
        return None
    tables = [
        [_array(state[name], part, kind, 1 + (part == "counts")) for part, kind in PAIRS.items()]
        for name in Relations._fields
    ]
    relations = Relations(*(PairCounts(n_items, *table) for table in tables))
    relations.check(n_items)
    return relations


def _text_state(values: pl.Series) -> State:
    """Text as bytes and offsets: the tables of a large catalogue stay out of the JSON header."""
    encoded = [value.encode() for value in values.to_list()]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    return {"bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), "offsets": offsets}


def _text_series(state: Any) -> pl.Series:
    offsets, joined = _array(state, "offsets", np.int64), _array(state, "bytes", np.uint8)
    # Offsets that went back and forth would make a text of the whole for each of them.
    if (
        not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(joined)
        or (np.diff(offsets) < 0).any()
    ):
        name = str(state["name"])[:40]
        raise ValueError(f"the offsets of field '{name}' do not cut its bytes into texts")
    text = joined.tobytes()
    return pl.Series(
        [text[a:b].decode() for a, b in itertools.pairwise(offsets.tolist())], dtype=pl.String
    )
