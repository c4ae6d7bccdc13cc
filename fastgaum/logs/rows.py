"""From a table of either layout to `Rows`: roles read, types typed, nested events spread over
their candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.action_tables import past_column
from fastgaum.logs.clicks import ALL_DROPPED, ClickFacts
from fastgaum.logs.columns import (
    NO_CODE,
    CodedIds,
    context_column,
    first_true,
    ids_as_text,
    of_several,
    parse_flags,
    parse_split,
    require_filled,
    row_number,
    show,
)
from fastgaum.logs.cut import check_size
from fastgaum.logs.event_order import clock_of, order_of, parse_order
from fastgaum.logs.fold import Rows
from fastgaum.logs.nested_clicks import as_list, read_clicks, rows_of_items, rows_of_positions
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.schema import LogSchema, is_list

NameEvent = Callable[[int], str]


def candidate_rows(
    table: pl.DataFrame,
    schema: LogSchema,
    options: ReadOptions,
    *,
    untyped: bool = False,
) -> Rows:
    """Turn a table into rows of one candidate each.

    Args:
        table: the columns that the schema and the options name, a row per candidate or per event.
        schema: which column plays which role.
        options: how to read it.
        untyped: numbers may be given as text (csv).

    Raises:
        LogFormatError: a value breaks a rule of the layout.
    """
    if table.height == 0:
        raise LogFormatError("the log is empty (no rows): at least one event is required")
    spread = _nested_rows if schema.nested else _long_rows
    return spread(table, schema, options, untyped)


def _long_rows(
    table: pl.DataFrame,
    schema: LogSchema,
    options: ReadOptions,
    untyped: bool,
) -> Rows:
    assert schema.item is not None
    assert schema.chosen is not None
    columns, has_times = _event_columns(table, schema, options)
    events = pl.DataFrame(columns)
    item = CodedIds.of(table[schema.item], "item")
    _require_items(item, schema.item)
    chosen = parse_flags(table[schema.chosen])
    views = _views(table[schema.views]) if schema.views else (~chosen).cast(pl.Int64)
    return Rows(
        events,
        item,
        chosen.to_numpy(),
        fields={name: table[name] for name in schema.candidate_fields},
        untyped=untyped,
        click_order=_click_order(table, schema),
        views=views.to_numpy(),
        context=_context(table, schema, untyped),
        has_times=has_times,
    )


def _click_order(table: pl.DataFrame, schema: LogSchema) -> pl.Series | None:
    """What sorts the clicks of a long log, None without such a column."""
    if schema.click_order is None:
        return None
    column = table[schema.click_order]
    parsed = None if is_list(column.dtype) else order_of(column)
    if parsed is None:
        raise LogFormatError(
            f"column '{column.name}' is the order of clicks and holds {column.dtype}: ranks or "
            "times are required, one for each row of a click"
        )
    return parsed


def _require_items(item: CodedIds, column: str, where: NameEvent = row_number) -> None:
    if (item.codes == NO_CODE).any():
        require_filled(pl.Series(item.codes).replace(NO_CODE, None), "item", column, where)


def _context(table: pl.DataFrame, schema: LogSchema, untyped: bool) -> dict[str, pl.Series]:
    return {name: context_column(table[name], untyped) for name in schema.context_fields}


def _event_columns(
    table: pl.DataFrame, schema: LogSchema, options: ReadOptions
) -> tuple[list[pl.Series], bool]:
    """session, key, order, label and, where the log has them, clock, user, split and past; and
    whether the order is one of numbers or times."""
    session = _filled_ids(table, schema.session, "session")
    rows = pl.int_range(table.height, eager=True)
    order, label, parsed, clock = rows, rows, None, None
    if schema.event is not None:
        event = table[schema.event]
        parsed = order_of(event)
        label = ids_as_text(event, "event") if parsed is None else parsed
        require_filled(
            label,
            "event",
            schema.event,
            lambda row: f"{row_number(row)} (session {show(session[row])})",
        )
        # Text that is neither a number nor a time orders events by appearance.
        order = rows if parsed is None else parsed
        if parsed is not None and parsed.dtype.is_temporal() and options.time_fields:
            clock = clock_of(event)
        _check_several(session, event, table, schema)
    if schema.event_label is not None:
        named = table[schema.event_label]
        parsed_label = parse_order(named)
        label = ids_as_text(named, "event_label") if parsed_label is None else parsed_label
        require_filled(label, "event label", schema.event_label)
        if not schema.nested:
            _check_shared(label, session, table, schema)
    # A row of a nested log is an event of its own, whatever it is called.
    key = rows if schema.nested else label
    columns = [
        session.rename("session"),
        key.alias("key"),
        order.alias("order"),
        label.alias("label"),
    ]
    if clock is not None:
        columns.append(clock.rename("clock"))
    if schema.user is not None:
        columns.append(_filled_ids(table, schema.user, "user").rename("user"))
    if schema.split is not None:
        columns.append(parse_split(table[schema.split]).rename("split"))
    if schema.past is not None:
        columns.append(past_column(table[schema.past]).rename("past"))
    return columns, parsed is not None


def _check_shared(
    label: pl.Series, session: pl.Series, table: pl.DataFrame, schema: LogSchema
) -> None:
    """Refuse a label that is a row number in disguise: it would make each candidate an event of its
    own."""
    if label.n_unique() < table.height or schema.event is None:
        return
    events = pl.DataFrame([session.alias("session"), table[schema.event].alias("event")]).n_unique()
    if events < table.height:
        raise LogFormatError(
            f"the event label '{schema.event_label}' differs in each of the {table.height} rows "
            f"while session and '{schema.event}' make {events} events, a label is shared by an "
            f"event's rows: to leave it out pass --column event={schema.event} --column "
            f"event_label={schema.event} (columns={{'event': '{schema.event}', "
            f"'event_label': '{schema.event}'}})"
        )


def _check_several(
    session: pl.Series, event: pl.Series, table: pl.DataFrame, schema: LogSchema
) -> None:
    """Refuse what is called an event and has one value in the whole log, beside times that differ
    within sessions: the displays of a session would be one. Numbers that differ within displays too
    are no times of displays, but a field (how long a journey takes)."""
    if schema.time_beside is None or event.n_unique() > 1:
        return
    time = table[schema.time_beside]
    parsed = parse_order(time)
    displays = pl.DataFrame([session.alias("session"), time.alias("time")]).n_unique()
    of_displays = 2 * displays <= len(time) or (parsed is not None and parsed.dtype.is_temporal())
    if displays > session.n_unique() and (schema.nested or of_displays):
        raise LogFormatError(
            f"column '{schema.event}' is {show(event[0])} in all {len(event)} rows, which makes "
            f"one event of each session, while '{schema.time_beside}' differs within sessions: "
            f"name what tells events apart, --column event={schema.time_beside} "
            f"(columns={{'event': '{schema.time_beside}'}}), or '{schema.event}' if it is that"
        )


def _filled_ids(table: pl.DataFrame, column: str, role: str) -> pl.Series:
    ids = ids_as_text(table[column], role)
    require_filled(ids, f"{role} id", column)
    return ids


def _views(column: pl.Series) -> pl.Series:
    counts = column.cast(pl.Int64, strict=False)
    wrong = counts.is_null() | (counts < 0).fill_null(True)
    row = first_true(wrong)
    if row is not None:
        raise LogFormatError(
            f"{row_number(row)} has '{column.name}' = {show(column[row])}{of_several(wrong)}, a "
            "count of views is required: correct it, or rename the column if it means something "
            "else",
            row,
        )
    return counts


def _nested_rows(
    table: pl.DataFrame,
    schema: LogSchema,
    options: ReadOptions,
    untyped: bool,
) -> Rows:
    assert schema.items is not None
    columns, has_times = _event_columns(table, schema, options)
    session, label = columns[0], columns[3]

    def name_event(event: int) -> str:
        return f"event {show(label[event])} of session {show(session[event])}"

    items = as_list(table[schema.items])
    lengths = items.list.len().fill_null(0)
    event = first_true(lengths == 0)
    if event is not None:
        raise LogFormatError(
            f"{name_event(event)} displays nothing ('{schema.items}' is empty): drop the row or "
            "fill it in"
        )
    check_size(int(lengths.cast(pl.Int64).sum()))
    event_of_row = np.repeat(np.arange(table.height, dtype=np.int32), lengths.to_numpy())
    item = CodedIds.of(items.explode(), "item")
    _require_items(item, schema.items, lambda row: name_event(int(event_of_row[row])))
    clicks = read_clicks(table, schema, name_event)
    click_event = clicks["event"].to_numpy()
    outside = np.zeros(0, np.int64)
    if schema.chosen_index is not None:
        click_of_row = rows_of_positions(clicks, lengths, schema.chosen_index, name_event)
    else:
        click_of_row = rows_of_items(clicks, item, event_of_row)
        is_outside = np.ones(clicks.height, np.bool_)
        is_outside[click_of_row[click_of_row >= 0]] = False
        outside = np.flatnonzero(is_outside)
    facts = ClickFacts(
        outside_displays=len(np.unique(click_event[outside])), outside_clicks=len(outside)
    )
    source: npt.NDArray[np.int64] | None = None
    if len(outside) and options.outside == "error":
        event, item_text = clicks.row(int(outside[0]))
        raise LogFormatError(
            f"{name_event(event)} chose item {show(item_text)}, which is not "
            f"among its {lengths[event]} candidates: correct the row, or pass --outside none "
            f"(outside='none'), append or drop, or if '{schema.chosen}' is a position pass "
            f"--column chosen_index={schema.chosen} (columns={{'chosen_index': "
            f"'{schema.chosen}'}})"
        )
    if len(outside) and options.outside == "drop":
        kept = np.ones(table.height, np.bool_)
        kept[click_event[outside]] = False
        if not kept.any():
            raise LogFormatError(ALL_DROPPED)
        rest = _nested_rows(table.filter(kept), schema, options, untyped)
        dropped = dataclasses.replace(facts, displays=facts.outside_displays)
        return dataclasses.replace(rest, clicks=dropped)
    if len(outside) and options.outside == "append":
        texts = pl.concat([item.as_text(), clicks["value"].gather(outside).alias("item")])
        event_of_row = np.concatenate([event_of_row, click_event[outside]])
        source = np.argsort(event_of_row, kind="stable")
        click_of_row = np.concatenate([click_of_row, outside.astype(np.int32)])[source]
        event_of_row = event_of_row[source]
        item = CodedIds.of(texts.gather(source), "item")
    fields = {
        name: _spread(table[name], lengths, event_of_row, source, name_event)
        for name in schema.candidate_fields
    }
    return Rows(
        pl.DataFrame(columns),
        item,
        click_of_row >= 0,
        fields,
        untyped,
        context=_context(table, schema, untyped),
        event_of_row=event_of_row,
        has_times=has_times,
        # an event of a plain column has one click
        click_order=(
            None
            if options.clicks == "error" or not is_list(table[schema.choice].dtype)
            else pl.Series(click_of_row).replace(-1, None)
        ),
        clicks=facts,
    )


def _spread(
    column: pl.Series,
    lengths: pl.Series,
    event_of_row: IntArray,
    source: npt.NDArray[np.int64] | None,
    name_event: NameEvent,
) -> pl.Series:
    """A candidate column of a nested log, one value per candidate; a plain column holds for its
    whole display set.

    lengths: candidates of each event; source: which of them each row is, counted over all events, a
    row beyond them having no value of its own; None: the rows are the candidates."""
    if not is_list(column.dtype):
        return column.gather(event_of_row)
    lists = as_list(column)
    event = first_true(lists.list.len().fill_null(0) != lengths)
    if event is not None:
        raise LogFormatError(
            f"{name_event(event)} has {lists.list.len()[event] or 0} values in '{column.name}' for "
            f"{lengths[event]} candidates, one each is required: make the lists equally long"
        )
    values = lists.explode()
    if source is None:
        return values
    return values.gather(pl.Series(np.where(source < len(values), source, -1)).replace(-1, None))
