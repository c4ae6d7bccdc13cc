"""A wide table, of one row a choice with columns by item, as a table of lists over the items.

`{TRAIN,SM,CAR}_{field}` declares it: the items, in the order of their codes 1, 2, 3, and how a
column of an item and a field is called. Such names are made and looked up: none is taken apart."""

from __future__ import annotations

import dataclasses
import re

import polars as pl

from fastgaum.errors import LogFormatError, did_you_mean
from fastgaum.logs.column_roles import ROLE_NAMES, find_column, find_role
from fastgaum.logs.columns import REFUSED
from fastgaum.logs.options import ReadOptions, parse_wide
from fastgaum.logs.tables import FileTable

_ITEMS, _SESSION = "items", "session"
"""columns that are made"""


def columns_of_fields(options: ReadOptions) -> dict[str, list[str]]:
    """What the columns of each field that is read are called, in the order of the items."""
    assert options.wide is not None
    items, name = parse_wide(options.wide)
    fields = dict.fromkeys(filter(None, (*options.candidate_fields, options.available)))
    return {
        field: [name.replace("{field}", field).replace("{item}", item) for item in items]
        for field in fields
    }


def absent_columns(options: ReadOptions, table: FileTable) -> tuple[str, ...]:
    """Columns of fields that the file lacks, in whose place is 0."""
    known = {*table.stored}
    return tuple(
        one
        for names in columns_of_fields(options).values()
        for one in names
        if known & {*names} and one not in known
    )


def say_absent(absent: tuple[str, ...]) -> str:
    """What stands for columns that are not there, in words."""
    return f"no column {', '.join(absent)}: there the field is 0, and has no part in the utility"


def lists_of_items(table: FileTable, options: ReadOptions) -> tuple[FileTable, ReadOptions]:
    """The table with a list of the items, and of each field's values, in every row, and the
    options that name them.

    A column of a field that some item lacks is 0: it has no part in this item's utility. Choices
    are items by name, or by code from 1. A row is a session unless sessions or users are named.

    Raises LogFormatError: a field has no column, or the availability not one of each item; a name
    could mean two columns; no column says what was chosen.
    """
    assert options.wide is not None
    items, name = parse_wide(options.wide)
    known, sources = list(table.dtypes), columns_of_fields(options)
    lists = {field: names for field, names in sources.items() if {*names} & {*known}}
    for field in sources.keys() - lists.keys():
        if field not in known:
            pattern = re.escape(name).replace(r"\{field\}", "(.+)")
            found = (
                match[1]
                for item in items
                for one in known
                if (match := re.fullmatch(pattern.replace(r"\{item\}", re.escape(item)), one))
            )
            fields = list(dict.fromkeys(found))
            raise LogFormatError(
                f"no column {' or '.join(sources[field][:2])}, as --wide calls those of '{field}'"
                f"{did_you_mean(field, fields)}; fields are {', '.join(fields) or 'none'}: correct "
                f"the field, or the pattern '{options.wide}'"
            )
    used = [one for names in lists.values() for one in names]
    for made in (*lists, _ITEMS):
        if made in known:
            raise LogFormatError(
                f"column '{made}' stands beside those that --wide makes '{made}' of: rename or "
                "drop it"
            )
    if len({*used}) < len(used):
        twice = next(one for one in used if used.count(one) > 1)
        raise LogFormatError(
            f"column '{twice}' is of two items or fields by the pattern '{options.wide}': rename it"
        )
    if options.available in lists and (lacks := {*lists[options.available]} - {*known}):
        raise LogFormatError(
            f"no column {', '.join(sorted(lacks))}, the availability of every item is required: "
            "add a column of 1 for an item that could always be chosen"
        )
    made_columns = [
        pl.lit(pl.Series([list(items)])).alias(_ITEMS),
        *(_in_one_list(table, names).alias(field) for field, names in lists.items()),
    ]
    roles = dict(options.columns)
    if "chosen_index" not in roles and roles.get("chosen") != "":
        of_names = [roles["chosen"]] if "chosen" in roles else [*ROLE_NAMES["chosen"], "choice"]
        chosen = find_column(of_names, known)
        if chosen is None:
            raise LogFormatError(
                f"no column says what was chosen (accepted: {', '.join(of_names)}); the columns "
                f"are {', '.join(known)}: name it, --column chosen=NAME (columns={{'chosen': "
                "'NAME'})"
            )
        roles["chosen"] = chosen
        made_columns.append(_chosen_item(chosen, items))
    by_row = not ({"session", "user"} & {*roles}) and not any(
        find_role(role, known) for role in ("session", "user")
    )
    if by_row and len(table.parts) > 1:
        raise LogFormatError(
            "the rows of several shards have no session and no user: name a column, --column "
            "session=NAME (columns={'session': 'NAME'})"
        )
    parts = tuple(
        (path, (rows.with_row_index(_SESSION) if by_row else rows).with_columns(made_columns))
        for path, rows in table.parts
    )
    dtypes = dict(parts[0][1].collect_schema())
    made_table = dataclasses.replace(table, parts=parts, dtypes=dtypes, stored=tuple(known))
    return made_table, dataclasses.replace(options, columns={**roles, "items": _ITEMS})


def _in_one_list(table: FileTable, names: list[str]) -> pl.Expr:
    """The values of some columns, 0 for those that are not there."""
    here = [name for name in names if name in table.dtypes]
    of_text = any(table.dtypes[name] == pl.String for name in here)
    zero = pl.lit("0" if of_text else 0)
    return pl.concat_list([pl.col(one) if one in here else zero for one in names])


def _chosen_item(column: str, items: tuple[str, ...]) -> pl.Expr:
    """The item that a value names, or whose code from 1 it is; a value that is neither is refused
    when it is read, with its row."""
    text = pl.col(column).cast(pl.String).str.strip_suffix(".0")
    codes = {str(code): item for code, item in enumerate(items, start=1)}
    rule = f"an item ({', '.join(items)}) or its code from 1 to {len(items)} is required"
    wrong = pl.format(f"{REFUSED}'{column}' = {{}}, {rule}: correct it or drop the row", text)
    known = {**codes, **{item: item for item in items}}
    found = text.replace_strict(known, default=None, return_dtype=pl.String)
    return pl.coalesce(found, wrong).alias(column)
