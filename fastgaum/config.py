"""The configuration of a user model: one frozen dataclass, strict reading, presets.

Every value is checked when a `Config` is made, so a run cannot start on an impossible one.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.untrusted import parse_toml, read_text

Protocol = Literal["identity", "bags", "views"]
HistoryKind = Literal["lstm", "bilstm", "gru", "pw"]
RegulariserKind = Literal["shannon", "l2", "tsallis"]


@dataclass(frozen=True)
class Config:
    """All choices that make a user model and its training. Defaults are the `fastgaum` preset."""

    preset: str = "fastgaum"
    """the preset these values started from"""
    protocol: Protocol = "bags"
    """what a candidate's bag holds (docs: reading the table)"""

    history: HistoryKind = "lstm"
    """history encoder: lstm, bilstm (over each prefix), gru, or pw (position weights)"""
    history_dim: int = 8
    """size of the state per direction"""
    history_layers: int = 1
    """stacked recurrent layers"""
    history_window: int = 20
    """pw: number of lags m"""
    history_weights: int = 4
    """pw: number of position-weight columns n"""
    history_owner: Literal["reward", "own"] = "reward"
    """reward: the reward player trains one encoder and the generator reads it; own: each scorer has
    its own"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of both scorers' hidden layers"""
    activation: Literal["elu", "relu", "tanh"] = "relu"
    """activation of the scorers' hidden layers"""
    wide: bool = True
    """scorers also have a linear path from bag to score, beside the network (wide & deep)"""
    item_dim: int = 0
    """size of the id embeddings below the first layers; 0 = each id maps straight into the first
    layer (one-hot linear)"""
    set_context: bool = True
    """numbers are also given relative to their mean over the display set (a symmetric summary)"""

    relations: bool = True
    """numbers of what the training split says of a candidate beside its rivals and after the
    choices so far"""

    regulariser: RegulariserKind = "shannon"
    """the generator's convex regulariser: Shannon (softmax), L2 (sparsemax), Tsallis (entmax)"""
    tsallis_alpha: float = 1.5
    """alpha of the Tsallis regulariser, > 1"""
    eta: float = 1.0
    """exploration scale: the best response is ∇Ω*(eta · utility)"""
    no_click: Literal["auto", "always", "never"] = "auto"
    """whether no click is offered as a choice; auto = when the training log holds one"""
    players: Literal["exact", "adversarial"] = "adversarial"
    """exact: the generator is its closed form; adversarial: three networks"""
    states: Literal["logged", "generated"] = "logged"
    """histories in the generator's term: logged, or with the last choice replaced by a generated
    one"""
    expectation: Literal["exact", "sampled"] = "exact"
    """the expectation over a display set: exact, or a score-function estimate with a baseline"""
    ascent: Literal["mirror", "value"] = "mirror"
    """the generator's step: in the mirror geometry of Ω, or the plain gradient of its value; same
    fixed point"""
    warm_start: int = 40
    """at most so many epochs with exact players before the adversarial rounds (early stop applies)
    """
    catch_up: int = 60
    """at most so many epochs of generator steps alone after the warm start, until its gap is small
    """

    epochs: int = 60
    """at most so many epochs (of adversarial rounds, or of exact steps when players = exact)"""
    patience: int = 8
    """stop after so many epochs without a better validation score"""
    lr_drops: int = 1
    """how often a phase that has lost its patience goes on from its best epoch with a third of the
    learning rates"""
    select: Literal["loss", "prec@1"] = "loss"
    """the validation score that chooses the epoch: the reward's Fenchel–Young loss (Shannon: NLL /
    eta), or prec@1"""
    batch_sessions: int = 64
    """sessions per batch"""
    window: int = 4
    """of a log in shards, so many are in memory and shuffled together (and the next so many are
    being read)"""
    lr: float = 3e-3
    """learning rate of the reward player (history encoder and reward model)"""
    rounds_lr: float = 1.0
    """the reward player's learning rate in the rounds, as a share of lr: a large reward must not
    outrun its generator"""
    generator_lr: float = 3e-3
    """learning rate of the generator"""
    generator_steps: int = 2
    """generator steps per reward step (one round)"""
    weight_decay: float = 0.1
    """decoupled weight decay of the reward player"""
    table_optimiser: Literal["adam", "adagrad"] = "adam"
    """how tables over ids move: lazy AdamW, or row-wise Adagrad (a third of the memory); both touch
    a batch's rows only"""
    dropout: float = 0.5
    """dropout in the reward player's scorer"""
    id_dropout: float = 0.5
    """probability that an id is replaced by its field's unknown row in a training step"""
    clip: float = 5.0
    """largest gradient norm per player"""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """a batch whose loss or gradient is not finite: stop at the last good state, or skip the batch
    and go on"""
    most_skipped: int = 10
    """with on_nonfinite = skip: one skipped batch more than so many in a run, and training stops"""
    search: tuple[str, ...] = ("relations",)
    """switches that `fit` tries both ways with exact players; the better validation loss decides,
    training goes on with it"""
    members: int = 1
    """reward players trained side by side whose utilities are averaged"""
    seed: int = 0
    """seeds every random stream of the run"""

    def __post_init__(self) -> None:
        _check_values(self)

    @property
    def n_searched(self) -> int:
        """How many settings the search tries."""
        return 2 ** len(self.search) if self.search else 0

    def is_continued_by(self, other: Config) -> bool:
        """Whether a run of this configuration may go on with another: the same, or with more
        epochs."""
        return (
            other.epochs >= self.epochs and dataclasses.replace(other, epochs=self.epochs) == self
        )

    def replace(self, **changes: Any) -> Config:
        """Return a copy with some values changed, checked as in `from_mapping`.

        Raises:
            ConfigError: unknown key, wrong type or impossible value.
        """
        return Config.from_mapping({**self.to_mapping(), **changes})

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for TOML or JSON; tuples become lists."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """Read a mapping strictly: unknown keys, wrong types and impossible values are errors.

        Raises:
            ConfigError: naming the key, the value and what is allowed.
        """
        hints = typing.get_type_hints(cls)
        for key in values:
            if key not in hints:
                raise ConfigError(f"unknown configuration key '{key}'{did_you_mean(key, hints)}")
        return cls(**{key: coerce(key, value, hints[key]) for key, value in values.items()})

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Config:
        """A named preset, with changes.

        Raises:
            ConfigError: unknown preset, or a change that is not allowed.
        """
        if name not in PRESETS:
            raise ConfigError(
                f"unknown preset '{name}'{did_you_mean(name, PRESETS)}; presets are "
                f"{', '.join(PRESETS)}"
            )
        values = {"search": cls.search, **PRESETS[name], "preset": name, **changes}
        if "search" not in changes:
            # what is set is not tried the other way
            values["search"] = [key for key in values["search"] if key not in changes]
        return cls.from_mapping(values)

    @classmethod
    def from_toml(cls, path: str | Path, **changes: Any) -> Config:
        """Read a TOML file; its `preset` key, when given, names the values it starts from.

        Raises:
            ConfigError: the file is missing, not TOML, or holds a value that is not allowed.
        """
        try:
            values = parse_toml(read_text(path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read configuration '{path}': {error}") from error
        values.update(changes)
        preset = values.pop("preset", "fastgaum")
        if not isinstance(preset, str):
            raise ConfigError(
                f"preset must be a name, got {preset!r}; presets are {', '.join(PRESETS)}"
            )
        return cls.from_preset(preset, **values)


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `key=value` and read the value as TOML, or as text when it is none: `eta=1`,
    `hidden=[64, 64]`, `history=gru`.

    Raises:
        ConfigError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"a setting is written key=value, got '{text}'")
    try:
        return key.strip(), parse_toml(f"value = {value}")["value"]
    except ValueError:
        return key.strip(), value.strip()


def coerce(key: str, value: Any, hint: Any) -> Any:
    """Bring a plain value to a field's type. Raises ConfigError naming key, value and what is
    allowed."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            close = did_you_mean(str(value), map(str, allowed))
            raise ConfigError(
                f"{key} must be one of {', '.join(map(str, allowed))}, got {value!r}{close}"
            )
        return value
    if origin is tuple:
        kind = typing.get_args(hint)[0]
        if not isinstance(value, (list, tuple)) or not all(type(v) is kind for v in value):
            raise ConfigError(f"{key} must be a list of {_KINDS[kind]}, got {value!r}")
        return tuple(value)
    if hint is float and (type(value) is float or (type(value) is int and abs(value) < 2**1000)):
        return float(value)
    if isinstance(hint, types.UnionType) or type(value) is hint:
        return value
    raise ConfigError(f"{key} must be {hint.__name__}, got {value!r} ({type(value).__name__})")


_KINDS = {int: "whole numbers", str: "names"}
MOST_CLIP = 1e15
"""a gradient of that norm still has moments in float32"""
_POSITIVE = (
    "eta",
    "rounds_lr",
    "lr",
    "generator_lr",
    "history_dim",
    "history_layers",
    "history_window",
    "history_weights",
    "epochs",
    "patience",
    "batch_sessions",
    "window",
    "generator_steps",
    "clip",
    "members",
)
_NOT_NEGATIVE = (
    "weight_decay",
    "item_dim",
    "warm_start",
    "catch_up",
    "lr_drops",
    "seed",
    "most_skipped",
)


_AT_MOST = {
    "history_dim": 1 << 16,
    "history_layers": 100,
    "history_window": 10_000,
    "history_weights": 1000,
    "item_dim": 1 << 16,
    "members": 100,
    "epochs": 10**9,
    "patience": 10**9,
    "batch_sessions": 10**9,
    "generator_steps": 10**9,
    "warm_start": 10**9,
    "catch_up": 10**9,
    "lr_drops": 10**9,
    "seed": 2**62,
}
"""sizes beyond which a configuration is a slip or an attack: whatever it names is made before the
first error"""
MOST_LAYERS, WIDEST = 100, 1 << 16


def _check_sizes(config: Config) -> None:
    for key, most in _AT_MOST.items():
        value = getattr(config, key)
        if value > most:
            raise ConfigError(f"{key} must be at most {most}, got {value}")
    if len(config.hidden) > MOST_LAYERS or any(width > WIDEST for width in config.hidden):
        raise ConfigError(
            f"hidden holds at most {MOST_LAYERS} widths of at most {WIDEST}, got "
            f"{len(config.hidden)} up to {max(config.hidden)}"
        )


def _check_values(config: Config) -> None:
    for key in _POSITIVE:
        value = getattr(config, key)
        if not 0 < value < float("inf"):
            raise ConfigError(f"{key} must be greater than 0 and finite, got {value}")
    for key in _NOT_NEGATIVE:
        value = getattr(config, key)
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{key} must be at least 0 and finite, got {value}")
    if config.clip > MOST_CLIP:
        raise ConfigError(
            f"clip must be at most {MOST_CLIP:g}, got {config.clip}: squares of gradients must fit "
            "float32"
        )
    if (
        config.lr * config.rounds_lr * config.weight_decay >= 1
        or config.lr * config.weight_decay >= 1
    ):
        raise ConfigError(
            f"lr · weight_decay must be below 1, got {config.lr} · {config.weight_decay}: a step "
            "would undo all weights"
        )
    for key in ("dropout", "id_dropout"):
        value = getattr(config, key)
        if not 0 <= value < 1:
            raise ConfigError(f"{key} must be at least 0 and below 1, got {value}")
    _check_sizes(config)
    if not 1 < config.tsallis_alpha <= 10:
        raise ConfigError(
            "tsallis_alpha must be above 1 (1 is shannon) and at most 10, got "
            f"{config.tsallis_alpha}"
        )
    if any(width < 1 for width in config.hidden):
        raise ConfigError(f"hidden widths must be at least 1, got {list(config.hidden)}")
    switches = [key for key, hint in typing.get_type_hints(Config).items() if hint is bool]
    for key in config.search:
        if key not in switches:
            raise ConfigError(
                f"search names settings that are true or false, '{key}' is "
                f"none{did_you_mean(key, switches)};"
                f" these are {', '.join(switches)}"
            )
    if config.expectation == "sampled" and config.players == "exact":
        raise ConfigError(
            "expectation = sampled needs players = adversarial: exact players have a closed form"
        )
    if config.states == "generated" and config.players == "exact":
        raise ConfigError(
            "states = generated needs players = adversarial: exact players generate no history"
        )


_PLAIN: dict[str, Any] = {"set_context": False, "relations": False, "search": (), "wide": False}
"""without what `fastgaum` adds to the three networks"""

_PAPER: dict[str, Any] = {
    **_PLAIN,
    "protocol": "identity",
    "players": "exact",
    "regulariser": "shannon",
    "hidden": (64, 64),
    "activation": "elu",
    "item_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.1,
    "weight_decay": 0.01,
    "select": "prec@1",
    "lr_drops": 0,
    "epochs": 100,
    "patience": 20,
    "batch_sessions": 64,
    "lr": 3e-3,
}

PRESETS: dict[str, dict[str, Any]] = {
    "fastgaum": {},
    "large": {
        **_PLAIN,
        "protocol": "identity",
        "item_dim": 8,
        "activation": "elu",
        "history_dim": 20,
        "dropout": 0.0,
        "id_dropout": 0.02,
        "weight_decay": 0.01,
        "batch_sessions": 256,
        "patience": 3,
        "lr_drops": 2,
    },
    "paper-lstm": {**_PAPER, "history": "lstm", "history_dim": 20},
    "paper-pw": {**_PAPER, "history": "pw", "history_window": 20, "history_weights": 4},
    "report": {
        **_PLAIN,
        "protocol": "identity",
        "item_dim": 0,
        "history": "bilstm",
        "history_dim": 512,
        "history_layers": 8,
        "hidden": (512,) * 8,
        "activation": "elu",
        "dropout": 0.1,
        "id_dropout": 0.1,
        "weight_decay": 0.01,
        "lr": 3e-4,
        "rounds_lr": 0.3,
        "generator_lr": 3e-4,
        "generator_steps": 5,
        "warm_start": 8,
        "catch_up": 5,
        "epochs": 1,
        "patience": 5,
        "select": "prec@1",
        "lr_drops": 0,
        "batch_sessions": 64,
    },
}
"""`large`: light regularisation, for logs of 100,000 events and more. `paper-*`: the paper's sizes
with exact Shannon players. `report`: the report's architecture, its game made right."""
