"""Which column of a log plays which role, in one of two layouts:

long    one row per displayed candidate: session, event, item, chosen (0/1); without event, each
        session is one display
nested  one row per event: session, items (a list), chosen (an item, or a list in the order of the
        clicks; null: none) or chosen_index (positions in the list from 0; null or -1: no click)

Both may add event_label, user, split and click_order, and long adds views. Case and underscores of
names do not count."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from fastgaum.errors import LogFormatError, did_you_mean
from fastgaum.logs.options import DEFAULT_OPTIONS, ReadOptions

ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "session": ("session", "session_id", "sid"),
    "event": ("event", "time", "timestamp", "datetime", "impression_time", "event_time", "step"),
    "event_label": ("event_label", "event_id", "impression_id", "impression"),
    "user": ("user", "user_id", "uid"),
    "item": ("item", "item_id", "article_id", "product_id", "movie_id", "video_id"),
    "items": ("items", "item_ids", "candidates", "display_set", "article_ids_inview"),
    "chosen": ("chosen", "is_click", "click", "clicked", "chosen_item", "article_ids_clicked"),
    "chosen_index": ("chosen_index", "choice_index", "clicked_index", "choice"),
    "click_order": ("click_order", "click_rank", "click_time", "click_timestamp"),
    "split": ("split", "tr_val_tst"),
    "views": ("views",),
}
"""accepted column names of each role, the preferred one first"""


@dataclass(frozen=True)
class LogSchema:
    """The column that plays each role; None where a log has none. `item` makes it long, `items`
    nested."""

    session: str
    event: str | None = None
    """order or time within the session; without it, a session of a long log is one display, and
    rows of a nested log are events in their order"""
    item: str | None = None
    """long: the displayed item of a row"""
    items: str | None = None
    """nested: the list of displayed items"""
    chosen: str | None = None
    """long: 0 or 1; nested: the chosen item, or a list of them"""
    chosen_index: str | None = None
    """nested: the chosen item's position in `items`, from 0"""
    click_order: str | None = None
    """rank or time of a click; nested: a list beside that of the clicks"""
    event_label: str | None = None
    """the event's own id where `event` is only a time"""
    user: str | None = None
    """without it each session is its own user"""
    split: str | None = None
    views: str | None = None
    """long: views of the row's candidate; without it, rows with chosen = 0 are counted"""
    time_beside: str | None = None
    """another column with a name of `event`, that an event which never changes is held against"""

    @property
    def nested(self) -> bool:
        """Whether a row is an event (nested) rather than a candidate (long)."""
        return self.items is not None

    @property
    def by_session(self) -> bool:
        """Whether each session is one display: nothing tells displays of a long log apart."""
        return not (self.nested or self.event or self.event_label)

    @property
    def choice(self) -> str:
        """The column of the choice, whichever of the two a log has."""
        column = self.chosen_index or self.chosen
        assert column is not None
        return column

    def columns(self, options: ReadOptions) -> list[str]:
        """Columns that are read, each once."""
        of_roles = [getattr(self, role) for role in (*ROLE_NAMES, "time_beside")]
        others = [options.past, options.available, options.weight]
        fields = [*options.candidate_fields, *options.context_fields, *options.outcomes]
        return list(dict.fromkeys(filter(None, [*of_roles, *others, *fields])))


def _squeezed(name: str) -> str:
    return name.lower().replace("_", "")


def find_role(role: str, columns: Iterable[str]) -> str | None:
    """Return the column that plays `role` by its name, if any.

    >>> find_role("event", ["SessionId", "Time", "ItemId"])
    'Time'"""
    return find_column(ROLE_NAMES[role], columns)


def find_column(names: Iterable[str], columns: Iterable[str]) -> str | None:
    """Return the column that has one of the names, the first of them first, if any."""
    by_name = {_squeezed(column): column for column in reversed(list(columns))}
    for name in names:
        if _squeezed(name) in by_name:
            return by_name[_squeezed(name)]
    return None


def resolve_schema(
    dtypes: Mapping[str, pl.DataType], options: ReadOptions = DEFAULT_OPTIONS
) -> LogSchema:
    """Decide which column of a log plays which role: those that the options name, then those of
    `ROLE_NAMES`. Raises LogFormatError for a missing column, and a field that cannot be one."""
    explicit = dict(options.columns)
    for role, column in explicit.items():
        if role not in ROLE_NAMES:
            raise LogFormatError(
                f"columns names the role '{role}', one of {', '.join(ROLE_NAMES)} is "
                f"required{did_you_mean(role, ROLE_NAMES)}"
            )
        require_column(column, dtypes, f"the {role}", _cure_of_unlabelled(role))
    fields = {*options.candidate_fields, *options.context_fields, *options.outcomes}
    roles = {**_named_roles(dtypes, explicit, fields), **explicit}
    for one, other in (("chosen", "chosen_index"), ("chosen_index", "chosen")):
        if one in explicit and other not in explicit:
            roles.pop(other, None)
    _check_roles(roles, dtypes, fields)
    if options.clicks == "error":
        roles.pop("click_order", None)
    choice = [roles.get(role) for role in ("chosen", "chosen_index", "click_order")]
    _check_fields(options, choice, dtypes)
    free = [column for column in dtypes if column not in {*explicit.values(), *fields}]
    # but of events, where a number and a time both order
    for role, column in roles.items():
        if role not in explicit and role != "event":
            names = ROLE_NAMES[role] + (ROLE_NAMES["item"] if role == "items" else ())
            refuse_two(role, column, names, free)
    beside = None
    if "event" in roles and "event" not in explicit:
        others = set(dtypes) - {*roles.values(), *fields}
        beside = find_role("event", [column for column in dtypes if column in others])
    return LogSchema(
        **roles,
        time_beside=beside,
    )


def columns_named(names: Iterable[str], columns: Iterable[str]) -> list[str]:
    """The columns that have one of the names."""
    squeezed = {_squeezed(name) for name in names}
    return [column for column in columns if _squeezed(column) in squeezed]


def pasts_among(columns: Iterable[str]) -> list[str]:
    """Those of the columns that are called as the past of users is."""
    return columns_named(("history", "past"), columns)


def refuse_two(role: str, column: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise LogFormatError where a second column is called as that of a role."""
    two = columns_named(names, known)
    if column in two and len(two) > 1:
        raise LogFormatError(
            f"the columns {' and '.join(map(repr, two))} are both called as the {role} column "
            f"is, one is required: name it, --column {role}={column} "
            f"(columns={{'{role}': '{column}'}}), or rename the other"
        )


def no_column(what: str, role: str, names: Iterable[str], known: Iterable[str]) -> LogFormatError:
    """The error for a table that has no column with one of the names; `what`: what it needs."""
    known = list(known)
    return LogFormatError(
        f"{what} (accepted: {', '.join(names)}); the columns are {', '.join(known) or 'none'}"
        f"{did_you_mean(role, known)}: rename it"
    )


def _named_roles(
    dtypes: Mapping[str, pl.DataType], explicit: Mapping[str, str], fields: set[str]
) -> dict[str, str]:
    free = [column for column in dtypes if column not in explicit.values()]
    nested = "items" in explicit
    if not nested and "item" not in explicit and (items := find_role("items", free)) is not None:
        nested = is_list(dtypes[items]) or find_role("item", free) is None
    roles: dict[str, str] = {}
    for role in ROLE_NAMES:
        other_layout = ("item", "views") if nested else ("items", "chosen_index")
        if role in explicit or role in other_layout:
            continue
        column = find_role(role, free)
        # A user who names `views` as a field means their own column, not a count of rows.
        if column is not None and not (role == "views" and column in fields):
            roles[role] = column
    # events that are named by their session: each session is one display
    if "session" not in explicit and find_role("session", [explicit.get("event", "")]):
        roles["session"] = explicit["event"]
    named = {**roles, **explicit}
    if "session" not in named and "user" in named:
        roles["session"] = named["user"]
    # `event_id` orders events when nothing better does; it is then no label of something else.
    if "event" not in named and "event_label" in roles:
        roles["event"] = roles.pop("event_label")
    return roles


def _check_roles(
    roles: Mapping[str, str], dtypes: Mapping[str, pl.DataType], fields: Container[str]
) -> None:
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
    if "item" in roles and "chosen_index" in roles:
        raise LogFormatError(
            f"'{roles['chosen_index']}' is named as a position in a list of items, and this log "
            "has one row per displayed candidate: name a column of 0 and 1, --column chosen=NAME "
            "(columns={'chosen': 'NAME'})"
        )
    if "chosen" in roles and "chosen_index" in roles:
        raise LogFormatError(
            f"both '{roles['chosen']}' (the chosen item) and '{roles['chosen_index']}' (its "
            "position) are given, one is"
            f" required: name it, --column chosen={roles['chosen']} "
            f"(columns={{'chosen': '{roles['chosen']}'}})"
        )
    known = list(dtypes)
    free = [column for column in known if column not in roles.values() and column not in fields]

    def hint_of(role: str) -> str:
        hints = (did_you_mean(name, free) for name in ROLE_NAMES[role])
        return next(filter(None, hints), "")

    required = ("session", "chosen") if nested else ("session", "chosen", "item")
    given = {*roles, "chosen"} if "chosen_index" in roles else roles
    role = next((role for role in required if role not in given), None)
    hint, like = "" if role is None else hint_of(role), None
    if role is None and not nested and not {"event", "event_label"} & {*given}:
        # it may be called otherwise: that each session is one display is then to be said
        like = next((column for column in free if _like_event(column, dtypes[column])), None)
        role, hint = "event" if like else None, f"; did you mean '{like}'?"
    if role is None:
        return
    column = hint.split("'")[1] if hint else "NAME"
    layout = "one row per event" if nested else "one row per displayed candidate"
    raise LogFormatError(
        f"no {role} column in a log of {layout} (accepted: {', '.join(ROLE_NAMES[role])}); the "
        f"columns are {', '.join(known) or 'none'}{hint}: rename it, or pass --column "
        f"{role}={column} (columns={{'{role}': '{column}'}}){_cure_of_unlabelled(role)}"
        + (f", or event={roles['session']} if each session is one display" if like else "")
    )


def _like_event(column: str, dtype: pl.DataType) -> bool:
    """Whether a column without a role looks as if it told displays apart."""
    name = _squeezed(column)
    known = [_squeezed(one) for one in (*ROLE_NAMES["event"], "date", "ts")]
    return dtype.is_temporal() or bool(get_close_matches(name, known, n=1, cutoff=0.8))


def _cure_of_unlabelled(role: str) -> str:
    if role not in ("chosen", "chosen_index"):
        return ""
    return (
        "; displays without a choice yet are read with --column chosen= (columns={'chosen': ''}): "
        "to later displays of a session they are then without a click; choices without display "
        "sets, such as ratings, get some by `fastgaum data build`"
    )


def require_column(column: str, dtypes: Iterable[str], what: str, cure: str = "") -> None:
    """Raise LogFormatError unless a log has a column; `what`: who named it, `cure`: what else to
    do."""
    if column not in dtypes:
        known = list(dtypes)
        raise LogFormatError(
            f"no column '{column}' (named for {what}); the columns are "
            f"{', '.join(known)}{did_you_mean(column, known)}{cure}"
        )


def is_list(dtype: pl.DataType) -> bool:
    """Whether a column holds lists (of fixed or varying length)."""
    return isinstance(dtype, pl.List | pl.Array)


def _check_fields(
    options: ReadOptions, choice: Sequence[str | None], dtypes: Mapping[str, pl.DataType]
) -> None:
    named: dict[str, str] = {}
    names = (*ROLE_NAMES["chosen"], *ROLE_NAMES["chosen_index"])
    alike = {*choice, *columns_named(names, dtypes)}
    for what, columns in (
        ("a candidate field", options.candidate_fields),
        ("a context field", options.context_fields),
        ("an outcome", options.outcomes),
        ("the weight", [options.weight or ""]),
        ("the availability", [options.available or ""]),
    ):
        for column in filter(None, columns):
            require_column(column, dtypes, what)
            if column in (alike if what == "a context field" else choice):
                raise LogFormatError(
                    f"column '{column}' says what was chosen, it cannot be {what}: leave it out, "
                    "or rename it if it means something else"
                )
            if named.setdefault(column, what) != what and what != "the availability":
                raise LogFormatError(
                    f"column '{column}' is named as {named[column]} and as {what}, one is "
                    "required: context if an event has one value, candidate if its candidates "
                    "have their own, outcome if only the choice made it known; or copy the column"
                )
    for column in options.context_fields:
        if is_list(dtypes[column]):
            raise LogFormatError(
                f"column '{column}' holds lists, a context field has one value per event: name a "
                "plain column, or pass it as a candidate field if it has one value per candidate"
            )
    if options.past:
        require_column(options.past, dtypes, "the past")
        if not (is_list(dtypes[options.past]) or dtypes[options.past] == pl.String):
            raise LogFormatError(
                f"column '{options.past}' holds {dtypes[options.past]}, the past of a user is a "
                "list of items, or text of ids with spaces between them: save it so, or give a "
                "table of actions (--actions FILE), a row for each"
            )
