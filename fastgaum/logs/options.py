"""How a log is read: the options, and the schema, which role each of its columns plays.

All code that reads a log passes `ReadOptions` on whole. A new option is a field of it, used in
`rows` and `fold`, or in `read`. The command line and a run's reading.json are made of its fields.

A `LogSchema` says which column plays which role, in one of two layouts:

long    one row per displayed candidate: session, event, item, chosen (0/1)
nested  one row per event: session, items (a list), chosen (an item, or a list of one; null: none)
        or chosen_index (its position in the list from 0; null or -1: no click)

Both may add event_label, user, split, and long adds views. Names are matched without regard to case
and underscores, so `session_id`, `SessionId` and `sessionID` are one name."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from fastgaum.errors import ConfigError, LogFormatError, did_you_mean
from fastgaum.logs.fields import check_fields, is_list, require_column

if TYPE_CHECKING:
    import polars as pl

ChoiceRule = Literal["error", "first"]
SplitRule = Literal["auto", "file", "user", "half", "other-half", "time"]


class ReadKeywords(TypedDict, total=False):
    """The options of reading as keyword arguments: those that are given."""

    columns: Mapping[str, str]
    candidate_fields: Sequence[str]
    context_fields: Sequence[str]
    item_table: str | os.PathLike[str] | None
    ordered: bool
    choices: str
    split: str
    split_seed: int
    name: str | None


def _option(default: Any, what: str) -> Any:
    """A field of the options, with its help on the command line."""
    return field(default=default, metadata={"help": what})


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read a log. Raises ConfigError for an unknown way to split, or to choose a choice.

    The record knows which options were given. The others may be filled in by what is known of the
    log: its registry entry, or the run that was trained on it (`over`)."""

    columns: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "the column of a role, as role=name: item=sku (repeatable)"},
    )
    """the column that plays a role, by role: {"item": "sku", "event": "ts"}; the other roles are
    found by their names"""
    candidate_fields: tuple[str, ...] = _option(
        (), "a further column of each candidate to use (repeatable)"
    )
    """further columns of each candidate: numbers as float32 (NaN, infinite and missing are errors),
    text as categories (missing is code -1). A csv column is numbers if every filled value is one. A
    nested log gives a list per event, or one value for the whole display set."""
    context_fields: tuple[str, ...] = _option(
        (),
        "a column of one value per event to use, a query or a device: whole numbers and text are "
        "categories, decimal numbers are numbers (repeatable)",
    )
    """what is known of an event beside its candidates: whole numbers and text as categories
    (missing is code -1), decimal numbers as float32. A csv column is numbers if every filled value
    is one and some are not whole."""
    item_table: str | None = _option(None, "a file of static item columns, one row per item")
    """missing items and numbers get the column's mean, missing categories code -1"""
    ordered: bool = _option(False, "the display order is real, and is kept")
    """whether the order of rows, or of the list, is real; if not, candidates stand by item id"""
    choices: ChoiceRule = _option("error", "what to do with an event of several chosen items")
    """"error", or "first" keeps the first chosen item"""
    split: SplitRule = _option(
        "auto",
        "the file's split, drawn by user, or cut by time; half, other-half: one half of the users "
        "trains and validates, the other is the test split; auto: the file's if it has one, else "
        "user",
    )
    """user: whole users 50/25/25, by `split_seed`; time: sessions 50/25/25, by the time of their
    first event; half and other-half, by `split_seed`: two runs without a common user"""
    split_seed: int = _option(0, "seed of --split-by user, half and other-half")
    """seed of the splits that are drawn"""
    name: str | None = None
    """what tables and messages call the log; by default the file's name"""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """names of the options that were given; by default those that differ from their defaults"""

    def __post_init__(self) -> None:
        for option in ("choices", "split"):
            value, known = getattr(self, option), typing.get_args(_TYPES[option])
            if value not in known:
                raise ConfigError(
                    f"{option} is '{value}', one of {', '.join(known)} is "
                    f"required{did_you_mean(str(value), known)}"
                )
        if not self.given:
            fields = dataclasses.fields(self)
            changed = (
                one.name for one in fields if getattr(self, one.name) not in (one.default, {})
            )
            object.__setattr__(self, "given", frozenset(changed))

    @classmethod
    def of(cls, **given: Unpack[ReadKeywords]) -> ReadOptions:
        """The options given as keywords. Raises ConfigError for one that does not exist."""
        values: dict[str, Any] = dict(given)
        for name in values:
            if name not in OPTIONS:
                raise ConfigError(
                    f"no option of reading is called '{name}'{did_you_mean(name, OPTIONS)}; known "
                    f"are {', '.join(OPTIONS)}"
                )
        if values.get("item_table") is not None:
            values["item_table"] = os.fspath(values["item_table"])
        for name in {"candidate_fields", "context_fields"} & values.keys():
            values[name] = tuple(values[name])
        return cls(**values, given=frozenset(values))

    @property
    def values(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: getattr(self, name) for name in OPTIONS if name in self.given}

    def over(self, base: ReadOptions) -> ReadOptions:
        """These options, and where one was not given, that of `base`."""
        return ReadOptions.of(**{**base.values, **self.values})

    def to_json(self) -> dict[str, object]:
        """The options that were given, as plain values under their names on the command line."""
        values: dict[str, object] = {}
        for name, value in self.values.items():
            if name == "columns":
                value = [f"{role}={column}" for role, column in value.items()]
            elif name == "item_table" and value is not None:
                # the record may be read in another folder
                value = str(Path(value).absolute())
            values[option_name(name)] = list(value) if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_json(cls, values: object) -> ReadOptions:
        """The options that `to_json` made. Raises ValueError where a value is of another type, and
        ConfigError where it does not exist."""
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__}, options by name are required")
        names = {option_name(name): name for name in OPTIONS}
        given: dict[str, Any] = {}
        for key, value in values.items():
            if key not in names:
                raise ValueError(f"unknown option '{key}'")
            name = names[key]
            if not _is_plain(value, _TYPES[name]):
                raise ValueError(f"{key} is {value!r}")
            given[name] = columns_of(value) if name == "columns" else value
        return cls.of(**given)


def option_name(field_name: str) -> str:
    """An option's name on the command line and in JSON: several of one kind are given one by
    one."""
    if field_name in ("columns", "candidate_fields", "context_fields"):
        return field_name.removesuffix("s")
    return "split_by" if field_name == "split" else field_name


def columns_of(texts: Sequence[str]) -> dict[str, str]:
    """Columns by role from texts like "item=sku". Raises ConfigError for another text."""
    columns: dict[str, str] = {}
    for text in texts:
        role, equals, name = text.partition("=")
        if not equals or not role or not name:
            raise ConfigError(f"--column is written role=name (item=sku), got '{text}'")
        columns[role.strip()] = name.strip()
    return columns


def _is_plain(value: object, kind: object) -> bool:
    """Whether a value from JSON may be given for an option of this type."""
    if typing.get_origin(kind) in (tuple, Mapping):
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if typing.get_origin(kind) is types.UnionType:
        return any(_is_plain(value, one) for one in typing.get_args(kind))
    return type(value) is (str if typing.get_origin(kind) is Literal else kind)


OPTIONS = tuple(one.name for one in dataclasses.fields(ReadOptions) if one.name != "given")
"""names of all options"""
_TYPES = typing.get_type_hints(ReadOptions)
DEFAULT_OPTIONS = ReadOptions()
"""no option given: everything is found by its name"""


ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "session": ("session", "session_id", "sid"),
    "event": ("event", "time", "timestamp", "datetime", "impression_time", "event_time", "step"),
    "event_label": ("event_label", "event_id", "impression_id", "impression"),
    "user": ("user", "user_id", "uid"),
    "item": ("item", "item_id", "article_id", "product_id", "movie_id"),
    "items": ("items", "item_ids", "candidates", "display_set", "article_ids_inview"),
    "chosen": ("chosen", "is_click", "click", "clicked", "chosen_item", "article_ids_clicked"),
    "chosen_index": ("chosen_index", "choice_index", "clicked_index", "choice"),
    "split": ("split", "tr_val_tst"),
    "views": ("views",),
}
"""accepted column names of each role, the preferred one first (the released files' SessionId, Time,
ItemId, is_click and tr_val_tst are among them)"""

EBNERD: dict[str, str] = {
    "session": "user_id",
    "user": "user_id",
    "event": "impression_time",
    "event_label": "impression_id",
    "items": "article_ids_inview",
    "chosen": "article_ids_clicked",
}
"""the EB-NeRD news logs, recognised by having all these columns, before any single name is looked
up: a user's impressions in time order are one session (their session_id is a browser visit)"""


@dataclass(frozen=True)
class LogSchema:
    """The column that plays each role; None where a log has none. `item` makes it long, `items`
    nested."""

    session: str
    """whose events belong together"""
    event: str | None = None
    """order or time of the event within its session (null is an error); only nested may lack it:
    the order of rows"""
    item: str | None = None
    """long: the displayed item of a row"""
    items: str | None = None
    """nested: the list of displayed items"""
    chosen: str | None = None
    """long: 0 or 1; nested: the chosen item, or a list of them"""
    chosen_index: str | None = None
    """nested: the chosen item's position in `items`, from 0"""
    event_label: str | None = None
    """the event's own id where `event` is only a time; in long, rows of one session and label are
    one event"""
    user: str | None = None
    """who the session belongs to; without it each session is its own user"""
    split: str | None = None
    """0, 1, 2 or train, validation, test"""
    views: str | None = None
    """long: views of the row's candidate; without it, rows with chosen = 0 are counted"""
    candidate_fields: tuple[str, ...] = ()
    """further columns of each candidate, as the options name them; no role"""
    context_fields: tuple[str, ...] = ()
    """columns of one value per event, likewise"""

    @property
    def nested(self) -> bool:
        """Whether a row is an event (nested) rather than a candidate (long)."""
        return self.items is not None

    def columns(self) -> list[str]:
        """Columns that the schema reads, each once."""
        of_roles = (getattr(self, role) for role in ROLE_NAMES)
        named = (column for column in of_roles if column is not None)
        return list(dict.fromkeys([*named, *self.candidate_fields, *self.context_fields]))


def _squeezed(name: str) -> str:
    return name.lower().replace("_", "")


def find_role(role: str, columns: Iterable[str]) -> str | None:
    """Return the column that plays `role` by its name, the most preferred name first; None if there
    is none.

    >>> find_role("event", ["SessionId", "Time", "ItemId"])
    'Time'
    """
    by_name = {_squeezed(column): column for column in reversed(list(columns))}
    for name in ROLE_NAMES[role]:
        if _squeezed(name) in by_name:
            return by_name[_squeezed(name)]
    return None


def resolve_schema(
    dtypes: Mapping[str, pl.DataType], options: ReadOptions = DEFAULT_OPTIONS
) -> LogSchema:
    """Decide which column of a log plays which role.

    The columns that the options name by role come first; then a known layout, or the names in
    `ROLE_NAMES`. Raises LogFormatError if a required role has no column or a named column (that of
    a field too) does not exist, or a field cannot be one."""
    explicit = dict(options.columns)
    for role, column in explicit.items():
        if role not in ROLE_NAMES:
            raise LogFormatError(
                f"columns names the role '{role}', one of {', '.join(ROLE_NAMES)} is "
                f"required{did_you_mean(role, ROLE_NAMES)}"
            )
        require_column(column, dtypes, f"the {role}")
    fields = {*options.candidate_fields, *options.context_fields}
    roles = {**_named_roles(dtypes, explicit, fields), **explicit}
    for one, other in (("chosen", "chosen_index"), ("chosen_index", "chosen")):
        if one in explicit and other not in explicit:
            roles.pop(other, None)
    _check_roles(roles, dtypes)
    choice = [roles.get("chosen"), roles.get("chosen_index")]
    names = [_squeezed(name) for name in (*ROLE_NAMES["chosen"], *ROLE_NAMES["chosen_index"])]
    alike = [column for column in dtypes if _squeezed(column) in names]
    named = (options.candidate_fields, options.context_fields)
    check_fields(*named, choice, alike, dtypes)
    return LogSchema(**roles, candidate_fields=named[0], context_fields=named[1])


def _named_roles(
    dtypes: Mapping[str, pl.DataType], explicit: Mapping[str, str], fields: set[str]
) -> dict[str, str]:
    """Roles by known layout or by name, leaving out columns that were named for another role."""
    free = [column for column in dtypes if column not in explicit.values()]
    if set(EBNERD.values()) <= set(dtypes):
        split = find_role("split", free)
        return {**EBNERD, **({"split": split} if split and "split" not in explicit else {})}
    nested = "items" in explicit or ("item" not in explicit and _looks_nested(dtypes, free))
    roles: dict[str, str] = {}
    for role in ROLE_NAMES:
        other_layout = ("item", "views") if nested else ("items", "chosen_index")
        if role in explicit or role in other_layout:
            continue
        column = find_role(role, free)
        # A user who names `views` as a field means their own column, not a count of rows.
        if column is not None and not (role == "views" and column in fields):
            roles[role] = column
    named = {**roles, **explicit}
    if "session" not in named and "user" in named:
        roles["session"] = named["user"]
    # `event_id` orders events when nothing better does; it is then no label of something else.
    if "event" not in named and "event_label" in roles:
        roles["event"] = roles.pop("event_label")
    return roles


def _looks_nested(dtypes: Mapping[str, pl.DataType], free: list[str]) -> bool:
    items = find_role("items", free)
    return items is not None and (is_list(dtypes[items]) or find_role("item", free) is None)


def _check_roles(roles: Mapping[str, str], dtypes: Mapping[str, pl.DataType]) -> None:
    nested = "items" in roles
    if nested and "item" in roles:
        raise LogFormatError(
            f"both an item column '{roles['item']}' and an items column '{roles['items']}' are "
            "named, one is required: item for one row per candidate, items for one row per event"
        )
    if nested and not is_list(dtypes[roles["items"]]):
        raise LogFormatError(
            f"column '{roles['items']}' holds {dtypes[roles['items']]}, a list of items is "
            "required: save a nested log as parquet or arrow, or write one row per candidate"
        )
    if "chosen" in roles and "chosen_index" in roles:
        raise LogFormatError(
            f"both '{roles['chosen']}' (the chosen item) and '{roles['chosen_index']}' (its "
            "position) are given, one is"
            f" required: name it, columns={{'chosen': '{roles['chosen']}'}}"
        )
    required = ("session", "chosen") if nested else ("session", "chosen", "item", "event")
    given = {*roles, "chosen"} if "chosen_index" in roles else roles
    missing = [role for role in required if role not in given]
    if missing:
        raise LogFormatError(_missing_text(missing[0], roles, dtypes, nested))


def _missing_text(role: str, roles: Mapping[str, str], dtypes: Iterable[str], nested: bool) -> str:
    known = list(dtypes)
    free = [column for column in known if column not in roles.values()]
    hint = next((hint for name in ROLE_NAMES[role] if (hint := did_you_mean(name, free))), "")
    column = hint.split("'")[1] if hint else "NAME"
    layout = "one row per event" if nested else "one row per displayed candidate"
    return (
        f"no {role} column in a log of {layout} (accepted: {', '.join(ROLE_NAMES[role])}); the "
        "columns are"
        f" {', '.join(known) or 'none'}{hint}: rename it, or pass columns={{'{role}': '{column}'}}"
    )
