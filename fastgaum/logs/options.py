"""How a log is read: the options.

The command line and a run's reading.json are made of the fields of `ReadOptions`."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import msgspec

from fastgaum.errors import ConfigError, as_given, did_you_mean, require_known
from fastgaum.logs.clicks import ClickRule, OutsideRule

_OTHER_ROLE = {"chosen": "chosen_index", "chosen_index": "chosen", "item": "items", "items": "item"}

SplitRule = Literal["auto", "file", "user", "half", "other-half", "time"]


class ReadKeywords(TypedDict, total=False):
    """The options of reading as keyword arguments."""

    columns: Mapping[str, str]
    wide: str | None
    candidate_fields: Sequence[str]
    context_fields: Sequence[str]
    outcomes: Sequence[str]
    outcome_of_all: bool
    time_fields: Sequence[str]
    item_table: str | os.PathLike[str] | None
    item_vectors: Sequence[str]
    user_table: str | os.PathLike[str] | None
    past: str | None
    available: str | None
    weight: str | None
    actions: str | os.PathLike[str] | None
    ordered: bool
    grid: int | None
    clicks: str
    outside: str
    split: str
    split_seed: int
    sample_users: float
    delimiter: str | None
    name: str | None


def _option(default: Any, what: str) -> Any:
    return field(default=default, metadata={"help": what})


@dataclass(frozen=True, kw_only=True, repr=False)
class ReadOptions:
    """The options of reading a log, which know which of them were given. Raises ConfigError for a
    rule that does not exist."""

    columns: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "the column of a role: item=sku, chosen=clicked (repeatable)"},
    )
    """by role: {"item": "sku", "event": "ts"}; an empty name of chosen: displays have no choice
    yet"""
    wide: str | None = _option(
        None,
        "one row is a whole display, with columns by item: the items, in the order of their codes "
        "1, 2, …, and how columns are called: {TRAIN,SM,CAR}_{field}",
    )
    """fields of candidates, and `available`, are then fields of this pattern (`logs.wide`)"""
    candidate_fields: tuple[str, ...] = _option(
        (), "a column of the candidates to read, such as a price (repeatable)"
    )
    """numbers as float32 (NaN, infinite and missing are errors), text as categories (missing is
    code -1). Text is numbers if every filled value is one; booleans are 1 and 0. A nested log gives
    a list per event, or one value for the whole display set."""
    context_fields: tuple[str, ...] = _option(
        (),
        "a column of the events to read, such as a query or a device (repeatable); whole numbers "
        "and text are categories, decimal numbers are numbers",
    )
    """missing is code -1. Text is numbers if every value is one and some are not whole; booleans
    are categories."""
    outcomes: tuple[str, ...] = _option(
        (),
        "a column of what followed a choice, such as minutes, a rating or a purchase (repeatable): "
        "a number or a category in the chosen row, empty in all others. Later events of the "
        "session read it, and a model predicts it",
    )
    """missing after a choice: not known. Text is numbers if every filled value is one"""
    outcome_of_all: bool = _option(
        False,
        "rows that were not chosen have values in the columns of outcomes too: they are not read",
    )
    time_fields: tuple[str, ...] = _option(
        (),
        "what to read of the times of events (repeatable). gap: logarithm of the seconds since the "
        "event before in the session. hour: hour of the day. day: day of the week",
    )
    """names of TIME_FIELDS; hour and day need times, gap takes numbers too, whose unit it has"""
    item_table: str | None = _option(None, "a file of columns of items, one row per item")
    """missing items and numbers get the column's mean, missing categories code -1"""
    item_vectors: tuple[str, ...] = _option(
        (),
        "a column of the item table with a vector of numbers per item, such as an embedding of its "
        "text or image (repeatable)",
    )
    user_table: str | None = _option(None, "a file of columns of users, one row per user")
    """every user of the log has a row; missing numbers get the table's mean, categories code -1"""
    past: str | None = _option(
        None,
        "a column with the items of the user's past, before the first event of the session: lists, "
        "or text of ids with spaces between them",
    )
    """of a session's first event, oldest item first; an empty name: none"""
    available: str | None = _option(
        None, "a column of 0 or 1, or of true or false: a candidate with 0 could not be chosen"
    )
    weight: str | None = _option(
        None,
        "a column with the weight of each event, above 0, in fits and figures",
    )
    actions: str | None = _option(
        None,
        "a file of what users did between displays: a session or a user, an item and, if known, an "
        "action and its time",
    )
    ordered: bool = _option(False, "the order of the items in a display is real: keep it")
    grid: int | None = _option(
        None, "columns of the grid that an ordered display fills row by row; 1: a list"
    )
    clicks: ClickRule = _option(
        "error",
        "displays with several clicks. error: refuse them. first: only the first click counts, by "
        "click_order, else by the order of rows. "
        "each: every click is a choice from what is left of the display",
    )
    outside: OutsideRule = _option(
        "error",
        "clicks on an item that was not displayed. error: refuse them. none: they do not count. "
        "append: the item becomes the last of the display. drop: the display is left out",
    )
    split: SplitRule = _option(
        "auto",
        "how the log is split. file: as the file says. user: whole users, 50/25/25. time: by time. "
        "half, other-half: one half of the users trains and validates, the other is tested. auto: "
        "file if the file has a split, else user",
    )
    split_seed: int = _option(0, "seed of --split-by user, half and other-half")
    sample_users: float = _option(
        1.0,
        "read a sample of the users, this share of them: each user by the hash of its id, so that "
        "every log and a larger share have it too",
    )
    """above 0, at most 1; without a user column each session is a user. A choice at training: a log
    that is read as the training log was is read whole (`whole_log`)"""
    delimiter: str | None = _option(
        None, "the sign between columns of a text file, if its first line does not show it"
    )
    name: str | None = None
    """by default the file's name"""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """by default those that differ from their defaults"""
    recorded: frozenset[str] = field(default=frozenset(), compare=False)
    """those of `given` that are of a run's record: a log with a split of its own passes over their
    split_seed, and their numbers were judged in the training log"""
    means: Mapping[str, float] = field(default_factory=dict, compare=False)
    """what stands for a missing number of a column of an item or user table: of a log that was
    read, so that a part of it, or a later log, is read alike"""
    categories: frozenset[str] = field(default=frozenset(), compare=False)
    """likewise the fields whose text was categories, though all of it may be numbers there"""

    def __post_init__(self) -> None:
        for option in LOG_RULES:
            require_known(option, getattr(self, option), typing.get_args(_TYPES[option]))
        if self.grid is not None and not 1 <= self.grid <= MOST_GRID:
            raise ConfigError(
                f"grid is {self.grid}, a number of columns from 1 to {MOST_GRID} is required"
            )
        if self.wide is not None:
            parse_wide(self.wide)
        if not 0 < self.sample_users <= 1:
            raise ConfigError(
                f"sample_users is {self.sample_users}, a share of the users above 0 and at most 1 "
                "is required: .01 reads one in a hundred"
            )
        for option in ("candidate_fields", "context_fields", "item_vectors", "outcomes"):
            if "" in getattr(self, option):
                raise _nameless(option)
        if any(not name and role != "chosen" for role, name in self.columns.items()):
            raise _nameless("columns")
        if self.delimiter == "tab":
            object.__setattr__(self, "delimiter", "\t")
        sign = self.delimiter
        if sign is not None and (len(sign.encode()) != 1 or sign in '"\n\r'):
            raise ConfigError(
                f"delimiter is {sign!r}, one sign of ASCII (or the word tab) is required"
            )
        for name in self.time_fields:
            if name not in TIME_FIELDS:
                raise ConfigError(
                    f"time_fields has '{name}', known are {', '.join(TIME_FIELDS)}"
                    f"{did_you_mean(str(name), TIME_FIELDS)}"
                )
        if not self.given:
            changed = (
                one.name
                for one in dataclasses.fields(self)
                if one.name in OPTIONS and getattr(self, one.name) not in (one.default, {})
            )
            object.__setattr__(self, "given", frozenset(changed))

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"ReadOptions({said})"

    @classmethod
    def of(cls, **given: Unpack[ReadKeywords]) -> ReadOptions:
        """The options given as keywords. Raises ConfigError for one that does not exist or has a
        wrong type."""
        values: dict[str, Any] = dict(given)
        for name in values:
            if name not in OPTIONS:
                raise ConfigError(
                    f"no option of reading is called '{name}'{did_you_mean(name, OPTIONS)}; known "
                    f"are {', '.join(OPTIONS)}"
                )
        typed = {name: _typed(name, value) for name, value in values.items()}
        return cls(**typed, given=frozenset(values))

    @property
    def values(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: getattr(self, name) for name in OPTIONS if name in self.given}

    def over(self, base: ReadOptions) -> ReadOptions:
        """These options, and where one, or the column of a role, was not given, that of `base`."""
        if not isinstance(base, ReadOptions):
            raise ConfigError(
                f"options is {as_given(base)}, a fastgaum.logs.options.ReadOptions is required: "
                "give single options by name"
            )
        merged = {**base.values, **self.values}
        if "columns" in self.given & base.given:
            others = {_OTHER_ROLE.get(role) for role in self.columns}
            former = {role: one for role, one in base.columns.items() if role not in others}
            merged["columns"] = {**former, **self.columns}
        return dataclasses.replace(
            ReadOptions.of(**merged),
            recorded=self.recorded | (base.recorded - self.given),
            means={**base.means, **self.means},
            categories=base.categories | self.categories,
        )

    def whole_log(self) -> ReadOptions:
        """These options for a log that is to be predicted or evaluated: of all its users."""
        sample = {"sample_users"}
        return dataclasses.replace(
            self, sample_users=1.0, given=self.given - sample, recorded=self.recorded - sample
        )

    def to_json(self) -> dict[str, object]:
        """The options that were given, as plain values under their names on the command line."""
        values: dict[str, object] = {}
        for name, value in self.values.items():
            if name == "columns":
                value = [f"{role}={column}" for role, column in value.items()]
            elif name in FILES and value is not None:
                # the record may be read in another folder
                value = str(Path(value).absolute())
            values[option_name(name)] = list(value) if isinstance(value, tuple) else value
        return values | self.of_log

    @property
    def of_log(self) -> dict[str, object]:
        """What a record keeps of the log that was read: means and categories, if it has some."""
        found: dict[str, object] = {
            "means": dict(self.means),
            "categories": [*sorted(self.categories)],
        }
        return {name: values for name, values in found.items() if values}

    @classmethod
    def from_json(cls, values: object) -> ReadOptions:
        """The options that `to_json` made. Raises ValueError or ConfigError."""
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__}, options by name are required")
        names = {option_name(name): name for name in OPTIONS}
        given: dict[str, Any] = {}
        means = msgspec.convert(values.get("means", {}), dict[str, float])
        categories = msgspec.convert(values.get("categories", []), frozenset[str])
        for key, value in values.items():
            if key in OF_LOG:
                continue
            if key not in names:
                raise ValueError(f"unknown option '{key}'")
            name = names[key]
            is_columns = name == "columns"
            given[name] = columns_of(msgspec.convert(value, list[str])) if is_columns else value
        return dataclasses.replace(
            cls.of(**given), recorded=frozenset(given), means=means, categories=categories
        )


def _nameless(option: str) -> ConfigError:
    return ConfigError(
        f"{option} names a column '', a name is required: give the column one (in pandas "
        "to_csv(index_label='row') names the index, index=False leaves it out)"
    )


def option_name(field_name: str) -> str:
    """An option's name on the command line and in JSON."""
    if field_name in ("columns", "candidate_fields", "context_fields", "time_fields", "outcomes"):
        return field_name.removesuffix("s")
    return "split_by" if field_name == "split" else field_name


def columns_of(texts: Sequence[str]) -> dict[str, str]:
    """Columns by role from texts like "item=sku". Raises ConfigError for another text."""
    columns: dict[str, str] = {}
    for text in texts:
        role, equals, name = text.partition("=")
        if not equals or not role or not (name or role == "chosen"):
            raise ConfigError(f"--column is written role=name (item=sku), got '{text}'")
        columns[role.strip()] = name.strip()
    return columns


def parse_wide(pattern: str) -> tuple[tuple[str, ...], str]:
    """The items of a pattern of a wide table, and the name of a column with {item} and {field}.
    Raises ConfigError.

    >>> parse_wide("{TRAIN,CAR}_{field}")
    (('TRAIN', 'CAR'), '{item}_{field}')
    """
    listed = _WIDE_ITEMS.findall(pattern)
    items = tuple(item.strip() for item in listed[0].split(",")) if listed else ()
    name = _WIDE_ITEMS.sub("{item}", pattern)
    whole = name.count("{item}") == name.count("{field}") == 1
    if not whole or not all(items) or len({*items}) < max(len(items), 2):
        raise ConfigError(
            f"wide is {as_given(pattern)}, the items with commas between them and the word field "
            "are required, each in braces and once: {TRAIN,SM,CAR}_{field}"
        )
    codes = [str(code) for code in range(1, len(items) + 1)]
    if any(item in codes and item != code for item, code in zip(items, codes, strict=True)):
        raise ConfigError(
            f"wide lists the items {', '.join(items)}, and a choice of {codes[0]} may be an item "
            "or the code of the first one: list items that are numbers in the order 1, 2, …"
        )
    return items, name


def _typed(name: str, value: Any) -> Any:
    if name in FILES and isinstance(value, os.PathLike):
        value = os.fspath(value)
    several = typing.get_origin(_TYPES[name]) is tuple
    if several and isinstance(value, Iterable) and not isinstance(value, str):
        value = tuple(value)
    try:
        # which of the known a Literal is, the record checks
        kind = str if name in LOG_RULES else _TYPES[name]
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        wanted = "expected a list of names" if several else str(error)[:1].lower() + str(error)[1:]
        cure = ": give the path of a file" if name in FILES else ""
        raise ConfigError(f"the option {name} is {as_given(value)}, {wanted}{cure}") from None


_WIDE_ITEMS = re.compile(r"\{([^{}]*,[^{}]*)\}")
MOST_GRID = 1_000_000
"""columns of a grid"""
TIME_FIELDS = ("gap", "hour", "day")
LOG_RULES = ("clicks", "outside", "split")
FILES = {"item_table", "user_table", "actions"}
OF_LOG = ("means", "categories")
ABOUT = ("given", "recorded", *OF_LOG)
OPTIONS = tuple(one.name for one in dataclasses.fields(ReadOptions) if one.name not in ABOUT)
_TYPES = typing.get_type_hints(ReadOptions)
DEFAULT_OPTIONS = ReadOptions()
