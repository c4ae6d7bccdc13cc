"""The configuration of a user model: one frozen dataclass, whose values are checked when it is
made. A field's hint says what it may be: `Annotated[int, Meta(ge=1)]`."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from msgspec import Meta

from fastgaum.errors import ConfigError, as_given, did_you_mean, require_path, require_type
from fastgaum.presets import (
    CHOSEN_KEYS,
    FOLDS,
    FOLDS_BELOW,
    KNOWN_DISPLAYS,
    LEAST_ID_DROPOUT,
    PRESETS,
)
from fastgaum.untrusted import parse_toml, read_text

Protocol = Literal["identity", "bags", "views"]
HistoryKind = Literal["lstm", "pw"]
RegulariserKind = Literal["shannon", "l2", "tsallis"]

_LARGEST = sys.float_info.max
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
Rate = Annotated[float, Meta(gt=0, le=1e30)]
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
Probability = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
CountFromOne = Annotated[int, Meta(ge=1, le=10**9)]
Width = Annotated[int, Meta(ge=1, le=1 << 16)]
Widths = Annotated[tuple[Width, ...], Meta(max_length=100)]
Signs = dict[Annotated[str, Meta(min_length=1)], Literal["+", "-"]]
MOST_SEED = 2**62
MOST_FOLDS = 100
Seed = Annotated[int, Meta(ge=0, le=MOST_SEED)]
# beyond the largest sizes a configuration is a slip or an attack: what it names is made before the
# first error


RENAMED = {"set_context": "relative_numbers"}
"""keys that have another name now"""


class CheckedSettings:
    """Base of a frozen dataclass of settings, checked when one is made."""

    what: ClassVar[str]
    """what a setting is called in an error"""

    def __post_init__(self) -> None:
        for key, hint in _hints(type(self)).items():
            object.__setattr__(self, key, checked(key, getattr(self, key), hint))

    def replace(self, **changes: object) -> Self:
        """A copy with some values changed. Raises ConfigError as `from_mapping`."""
        return type(self).from_mapping({**self.to_mapping(), **changes})

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for TOML or JSON; tuples become lists."""
        values = {key: getattr(self, key) for key in _hints(type(self))}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Read a mapping strictly. Raises ConfigError for an unknown key or an impossible value."""
        require_type(f"what is set of a {cls.what}", values, Mapping)
        known = _hints(cls)
        for key in values:
            if key not in known:
                hint = did_you_mean(key, known)
                if key in RENAMED:
                    hint = f": it is called '{RENAMED[key]}' now"
                raise ConfigError(f"unknown {cls.what} '{key}'{hint}")
        return cls(**values)


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def checked(key: str, value: object, hint: object) -> object:
    """A plain value brought to a field's type, within its bounds. Raises ConfigError."""
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError:
        got = list(value) if isinstance(value, tuple) else value
        close = ""
        if typing.get_origin(hint) is Literal:
            close = did_you_mean(str(value), map(str, typing.get_args(hint)))
        said = repr(got) if "\n" not in repr(got) else as_given(got)
        raise ConfigError(f"{key} must be {_rule(hint)}, got {said}{close}") from None


def _rule(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        meta = parts[1]
        bounds = {
            "greater than": meta.gt,
            "at least": meta.ge,
            "below": meta.lt,
            "at most": None if meta.le == _LARGEST else meta.le,
        }
        if meta.max_length is not None:
            item = _rule(typing.get_args(parts[0])[0])
            least = f"{meta.min_length} to" if meta.min_length else "at most"
            return f"a list of {least} {meta.max_length} values, each {item}"
        rules = [f"{word} {bound:.15g}" for word, bound in bounds.items() if bound is not None]
        if meta.le == _LARGEST:
            rules.append("finite")
        return f"{_rule(parts[0])} {' and '.join(rules)}"
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is dict:
        return f"a table of names, each with {_rule(parts[1])}"
    if origin is tuple:
        return f"a list, each value {_rule(parts[0])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_rule, parts))
    return _KINDS.get(hint, "none")


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
MOST_CLIP = 1e15
"""a gradient of that norm still has moments in float32"""


@dataclass(frozen=True)
class Config(CheckedSettings):
    """All choices that make a user model and its training. Defaults are the `fastgaum` preset."""

    what: ClassVar[str] = "configuration key"

    preset: str = "fastgaum"
    """the preset these values started from"""
    protocol: Protocol = "bags"
    """what a candidate's bag holds"""

    history: HistoryKind = "lstm"
    """history encoder: lstm, or pw (position weights)"""
    history_dim: Width = 8
    """size of the state per direction"""
    history_layers: Annotated[int, Meta(ge=1, le=100)] = 1
    """stacked recurrent layers"""
    history_window: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """pw: number of lags m"""
    history_weights: Annotated[int, Meta(ge=1, le=1000)] = 4
    """pw: number of position-weight columns n"""
    hidden: Annotated[tuple[Width, ...], Meta(min_length=1, max_length=100)] = (64, 64)
    """widths of both scorers' hidden layers"""
    activation: Literal["elu", "relu"] = "relu"
    """activation of the scorers' hidden layers"""
    wide: bool = True
    """scorers also have a linear path from bag to score (wide & deep)"""
    tower_dim: Annotated[int, Meta(ge=0, le=1 << 12)] = 0
    """size of the vectors of user and item whose product is part of a score; 0 = none"""
    tastes: Annotated[int, Meta(ge=0, le=1 << 12)] = 16
    """size of the user's vector that weighs a log's own numbers; 0 = the same for all users"""
    relative_numbers: bool = True
    """numbers are also given relative to their mean over the display set"""
    pieces: Annotated[int, Meta(ge=0, le=1000)] = 6
    """pieces into which numbers are cut at their training quantiles; 0: none is cut"""
    relations: bool = True
    """training counts of a candidate beside its rivals and after the choices so far"""
    counts: bool = True
    """training counts of a candidate's item, alone and under the context"""
    examination: bool = True
    """where the order of displays is real, each place adds a number to a utility without it"""
    regulariser: RegulariserKind = "shannon"
    """the generator's convex regulariser: Shannon, L2 (sparsemax), Tsallis (1.5-entmax)"""
    eta: Positive = 1.0
    """exploration scale: the best response is ∇Ω*(eta · utility)"""
    no_click: Literal["auto", "always", "never"] = "auto"
    """whether no click is offered as a choice; auto = when the training log holds one"""
    players: Literal["exact", "adversarial"] = "adversarial"
    """exact: the generator is its closed form; adversarial: three networks"""
    warm_start: Count = 40
    """at most so many epochs with exact players before the adversarial rounds"""
    catch_up: Count = 60
    """at most so many epochs of generator steps alone, where it cannot start as the best
    response"""

    epochs: CountFromOne = 60
    """at most so many epochs of rounds, or of exact steps"""
    patience: CountFromOne = 4
    """stop after so many epochs without a better validation score; in rounds after three"""
    lr_drops: Count = 1
    """how often a phase goes on from its best epoch with a third of the learning rates"""
    select: Literal["loss", "calibrated loss"] = "loss"
    """the validation score that chooses the epoch; calibrated: utilities are scaled by their best
    number, and so are those of the fitted model"""
    batch_sessions: CountFromOne = 64
    """sessions per batch"""
    local_steps: CountFromOne = 16
    """steps of each of several processes between two means of their weights (local SGD)"""
    lr: Rate = 3e-3
    """learning rate of the reward player"""
    rounds_lr: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    """the reward player's learning rate in the rounds, as a share of lr"""
    generator_lr: Rate = 3e-3
    """learning rate of the generator"""
    generator_steps: CountFromOne = 2
    """generator steps per reward step (one round)"""
    weight_decay: NotNegative = 0.1
    """decoupled weight decay of the reward player"""
    dropout: Probability = 0.5
    """dropout in the reward player's scorer"""
    id_dropout: Probability = 0.5
    """most probability that an id is replaced by its field's unknown row in a step"""
    clip: Annotated[float, Meta(gt=0, le=MOST_CLIP)] = 5.0
    """largest gradient norm per player"""
    search: tuple[str, ...] = CHOSEN_KEYS
    """keys that `fit` chooses for the log, among the settings of `presets.PORTFOLIO`; a key that is
    set is not among them"""
    budget: Literal["auto"] | Annotated[float, Meta(gt=0, le=1000)] = "auto"
    """what comparing settings may cost, in fits of the whole log: 3 compare nine of them over
    five folds; auto: 3 below
    `presets.FOLDS_BELOW` training events, and 1 from there on"""
    folds: Literal["auto"] | Annotated[int, Meta(ge=0, le=MOST_FOLDS)] = "auto"
    """folds of users over training and validation, each left out by one fit, of which results are
    the mean; 0: one fit on the log's own split; auto: 5 below `presets.FOLDS_BELOW` training
    events"""
    signs: Signs = field(default_factory=dict)
    """numbers of candidates by which all utilities only rise (+) or fall (-), {price: "-"};
    of a product, income*price, the product has the sign, and price the other one where income is
    below 0"""
    seed: Seed = 0
    """seeds every random stream of the run"""

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = self.lr * max(self.rounds_lr, 1) * self.weight_decay
        if rate >= 1:
            raise ConfigError(
                f"lr · weight_decay must be below 1, got {self.lr} · {self.weight_decay}: a step "
                "would undo all weights"
            )
        for key in self.search:
            if key not in CHOSEN_KEYS:
                raise ConfigError(
                    f"search names keys that a fit chooses, '{key}' is none"
                    f"{did_you_mean(key, CHOSEN_KEYS)}; these are {', '.join(CHOSEN_KEYS)}"
                )
        if self.folds == 1:
            raise ConfigError("folds must be 0, or at least 2, got 1: no user would be left out")
        if self.tastes == 1:
            raise ConfigError("tastes must be 0, or at least 2, got 1: one number is a constant")
        if self.tower_dim == 1:
            raise ConfigError(
                "tower_dim must be 0, or at least 2, got 1: one of its numbers is the item's bias"
            )

    def folds_of(self, n_events: int) -> int:
        """Folds that a fit on so many training events asks for; 0: none."""
        if self.folds == "auto":
            return FOLDS if n_events < FOLDS_BELOW else 0
        return self.folds

    def for_items(self, displays: Sequence[int]) -> Config:
        """The configuration for a log that displays each item so often in training."""
        n_items = sum(n > 0 for n in displays)
        enough = KNOWN_DISPLAYS * n_items / max(sum(displays), 1)
        rate = min(self.id_dropout, max(enough, LEAST_ID_DROPOUT))
        return self.replace(id_dropout=rate)

    def warmed(self) -> Config:
        """Its warm start alone, or all of it where it has exact players."""
        if self.players == "exact":
            return self
        return self.replace(players="exact", epochs=max(self.warm_start, 1))

    @classmethod
    def from_preset(cls, name: str, **changes: object) -> Config:
        """A named preset, with changes. Raises ConfigError for an unknown preset or value."""
        require_type("the name of a preset", name, str)
        if changes.pop("preset", name) != name:
            raise ConfigError(
                f"two presets are named, '{name}' and another one: name one, from_preset(NAME)"
            )
        if name not in PRESETS:
            raise ConfigError(
                f"unknown preset '{name}'{did_you_mean(name, PRESETS)}; presets are "
                f"{', '.join(PRESETS)}"
            )
        return cls.from_mapping({**PRESETS[name], "preset": name}).with_keys(**changes)

    def with_keys(self, **changes: object) -> Config:
        """As `replace`; a key that is set is not chosen by a fit."""
        search = [key for key in self.search if key not in changes]
        return self.replace(**{"search": search, **changes})

    @classmethod
    def from_toml(cls, path: str | Path, **changes: object) -> Config:
        """Read a TOML file, whose `preset` names the values it starts from. Raises ConfigError."""
        values = read_settings(path) | changes
        preset = values.pop("preset", "fastgaum")
        if not isinstance(preset, str):
            raise ConfigError(
                f"preset must be a name, got {preset!r}; presets are {', '.join(PRESETS)}"
            )
        return cls.from_preset(preset, **values)


def read_settings(path: str | Path) -> dict[str, object]:
    """The keys of a TOML file. Raises ConfigError where it is missing or not TOML."""
    require_path("a configuration", path)
    try:
        return parse_toml(read_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read configuration '{path}': {error}") from error


def parse_setting(text: str) -> tuple[str, object]:
    """Split `key=value` and read the value as TOML, or as text if it is none: `hidden=[64, 64]`,
    `history=lstm`. Raises ConfigError without an `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"a setting is written key=value, got '{text}'")
    try:
        return key.strip(), parse_toml(f"value = {value}")["value"]
    except ValueError:
        return key.strip(), value.strip()
