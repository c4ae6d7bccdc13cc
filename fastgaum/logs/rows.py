"""From a table of either layout to `Rows`: roles read, types typed, nested events spread over their
candidates."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray
from fastgaum.errors import LogFormatError
from fastgaum.logs.action_tables import past_column
from fastgaum.logs.clicks import ClickFacts, without_order
from fastgaum.logs.column_roles import LogSchema, find_role, is_list
from fastgaum.logs.columns import (
    REFUSED,
    CodedIds,
    Where,
    as_list,
    context_column,
    filled_ids,
    first_true,
    ids_as_text,
    parse_flags,
    parse_split,
    parse_weights,
    refuse_at,
    require_filled,
    row_number,
    show,
)
from fastgaum.logs.cut import check_size
from fastgaum.logs.event_order import clock_of, order_of, parse_order
from fastgaum.logs.fold import Rows, event_text
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.outcomes import refuse_unchosen
from fastgaum.logs.vocabulary import NO_CODE, Vocabulary

AVAILABLE = "0 (it could not be chosen) or 1 is required"


def candidate_rows(table: pl.DataFrame, schema: LogSchema, options: ReadOptions) -> Rows:
    """Turn a table of either layout into rows of one candidate each. Raises LogFormatError."""
    if table.height == 0:
        raise LogFormatError("the log is empty (no rows): at least one event is required")
    if schema.nested:
        return _nested_rows(table, schema, options)
    assert schema.item is not None
    assert schema.chosen is not None
    lines, has_times = _event_columns(table, schema, options)
    # of each row the first one of its event, and the least order there, where rows may differ in it
    least = ("row", "order") if schema.event_label else ("row",)
    firsts = lines.with_row_index("row").select(pl.col(least).min().over("session", "key"))
    first = firsts["row"].to_numpy()
    is_start = first == np.arange(table.height)
    starts = np.flatnonzero(is_start)
    events = lines[starts].drop("key").with_columns(*firsts.drop("row")[starts])
    context = _context(table, options)
    for name, column in context.items():
        row = first_true(column.ne_missing(column.gather(first)))
        if row is not None:
            is_weight = name == options.weight
            cure = "" if is_weight else ", or pass it as a candidate field"
            raise LogFormatError(
                f"{event_text(lines, row)} has {show(column[int(first[row])])} and "
                f"{show(column[row])} in column '{name}', a "
                f"{'weight' if is_weight else 'context field'} has one value per event: correct "
                f"it{cure}"
            )
    item = CodedIds.of(table[schema.item], "item")
    _require_items(item, schema.item)
    _require_past(table, lines, item, options)
    chosen = parse_flags(table[schema.chosen], "0 (displayed) or 1 (chosen) is required")
    if schema.by_session:
        _check_one_display(lines["session"], item, chosen, options)
    views = _views(table[schema.views]) if schema.views else (~chosen).cast(pl.Int64)
    outcomes = {name: table[name] for name in options.outcomes}
    refuse_unchosen(
        outcomes,
        chosen.to_numpy(),
        lambda row: event_text(lines, row),
        of_all=options.outcome_of_all,
    )
    rows = Rows(
        events,
        (np.cumsum(is_start) - 1)[first].astype(np.int32),
        item,
        chosen.to_numpy(),
        fields={name: table[name] for name in options.candidate_fields},
        outcomes=outcomes,
        click_order=_click_order(table, schema),
        views=views.to_numpy(),
        context={name: column.gather(starts) for name, column in context.items()},
        has_times=has_times,
        by_session=schema.by_session,
    )
    if not options.available:
        return rows
    return _of_available(rows, parse_flags(table[options.available], AVAILABLE), options)


def _of_available(rows: Rows, available: pl.Series, options: ReadOptions) -> Rows:
    """The rows of candidates that could be chosen; available: of each row. Raises LogFormatError
    for a choice that is not available, an event of no available item, and a place that would
    move."""
    there, column = available.to_numpy(), options.available

    def refuse(row: int, found: str) -> LogFormatError:
        text = show(rows.item.as_text()[row])
        named = event_text(rows.events, int(rows.event_of_row[row]))
        return LogFormatError(f"{named} {found.format(text)}")

    row = first_true(rows.chosen & ~there)
    if row is not None:
        raise refuse(
            row,
            f"chose item {{}}, whose '{column}' is 0, a choice has to be available: correct one "
            "of the two, or drop the event",
        )
    n_there = np.bincount(rows.event_of_row[there], minlength=rows.events.height)
    row = first_true(n_there[rows.event_of_row] == 0)
    if row is not None:
        raise refuse(
            row,
            f"has '{column}' = 0 for item {{}} and all others, at least one available item is "
            "required: correct the column, or drop the event",
        )
    last = np.zeros(rows.events.height, np.int64)
    last[rows.event_of_row[there]] = np.flatnonzero(there)
    row = first_true(~there & (np.arange(rows.n_rows) < last[rows.event_of_row]))
    if options.ordered and row is not None:
        raise refuse(
            row,
            f"displays item {{}}, whose '{column}' is 0, before others: without it their places "
            "would move, with --ordered (ordered=True) only the last items of a display may be "
            "unavailable: leave --ordered out, and give places as a column (--candidate-field)",
        )
    return dataclasses.replace(
        rows,
        event_of_row=rows.event_of_row[there],
        item=CodedIds.of(rows.item.as_text().filter(available), "item"),
        chosen=rows.chosen[there],
        fields={name: values.filter(available) for name, values in rows.fields.items()},
        outcomes={name: values.filter(available) for name, values in rows.outcomes.items()},
        views=None if rows.views is None else rows.views[there],
        click_order=None if rows.click_order is None else rows.click_order.filter(available),
    )


def _click_order(table: pl.DataFrame, schema: LogSchema) -> pl.Series | None:
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


def _require_items(item: CodedIds, column: str, where: Where = row_number) -> None:
    if (item.codes == NO_CODE).any():
        require_filled(pl.Series(item.codes).replace(NO_CODE, None), "item", column, where)


def _require_past(
    table: pl.DataFrame, lines: pl.DataFrame, item: CodedIds, options: ReadOptions
) -> None:
    """Refuse text as a past whose words are no items."""
    if not options.past or table[options.past].dtype != pl.String:
        return
    words = lines["past"].explode().drop_nulls().unique()
    if len(words) and not words.is_in(item.texts.implode()).any():
        raise LogFormatError(
            f"column '{options.past}' holds String, the past of a user is a list of items, or text "
            f"of ids with spaces between them, and none of its {len(words)} words is an item of "
            "the log: name another column, or save it as lists"
        )


def _context(table: pl.DataFrame, options: ReadOptions) -> dict[str, pl.Series]:
    """The columns of events by name, the weight among them."""
    context = {
        name: context_column(table[name], categories=options.categories)
        for name in options.context_fields
    }
    if options.weight:
        context[options.weight] = parse_weights(table[options.weight])
    return context


def _event_columns(
    table: pl.DataFrame, schema: LogSchema, options: ReadOptions
) -> tuple[pl.DataFrame, bool]:
    """session, order, label and, where the log has them, clock, user, split and past; of a long log
    the key that tells a session's events apart; and whether the order is of numbers or times."""
    session = filled_ids(table[schema.session], "session", "session id")
    rows = pl.int_range(table.height, eager=True)
    order, label, parsed, clock, written = rows, rows, None, None, None
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
        if parsed is not None and parsed.dtype.is_temporal():
            if options.time_fields:
                clock = clock_of(event)
            if not event.dtype.is_temporal():
                written = event
        _check_several(session, event, table, schema)
    elif schema.by_session:
        label = pl.zeros(table.height, dtype=pl.Int32, eager=True)
    if schema.event_label is not None:
        named = table[schema.event_label]
        parsed_label = parse_order(named)
        if parsed_label is not None and parsed_label.n_unique() < named.n_unique():
            parsed_label = None  # "12" and "012" are two names of one number
        label = ids_as_text(named, "event_label") if parsed_label is None else parsed_label
        require_filled(label, "event label", schema.event_label)
        if not schema.nested:
            _check_shared(label, session, table, schema)
    if schema.nested and (schema.event_label or find_role("event_label", [schema.event or ""])):
        _refuse_copies(label, session, table, schema)
    columns = {"session": session, "order": order, "label": label}
    if written is not None and schema.event_label is None:
        columns["written"] = written
    if not schema.nested:
        # a row of a nested log is an event of its own, whatever it is called
        columns["key"] = label
    if clock is not None:
        columns["clock"] = clock
    if schema.user is not None:
        columns["user"] = filled_ids(table[schema.user], "user", "user id")
    if schema.split is not None:
        columns["split"] = parse_split(table[schema.split])
    if options.past:
        columns["past"] = past_column(table[options.past])
    lines = pl.DataFrame(columns)
    for role in ("user", "split"):
        if role in columns:
            values, first = lines[role], lines.select(pl.col(role).first().over("session"))[role]
            row = first_true(values != first)
            if row is not None:
                raise LogFormatError(
                    f"session {show(session[row])} has the {role}s {show(first[row])} and "
                    f"{show(values[row])}, one is required: give each {role}'s part its own "
                    "session id"
                )
    return lines, parsed is not None


def _check_shared(
    label: pl.Series, session: pl.Series, table: pl.DataFrame, schema: LogSchema
) -> None:
    """Refuse a label that is a row number in disguise."""
    labels = label.n_unique()
    # less is counted where the labels are surely shared
    if schema.event is None or 2 * labels < table.height:
        return
    named = pl.DataFrame({"session": session, "event": table[schema.event], "label": label})
    rows = named.with_columns(table[schema.item or ""].alias("item")).drop("event").n_unique()
    events = named.drop("label").n_unique()
    if events < labels == rows:
        raise LogFormatError(
            f"the event label '{schema.event_label}' differs in each of the {rows} rows "
            f"while session and '{schema.event}' make {events} events, a label is shared by an "
            f"event's rows: to leave it out pass --column event={schema.event} --column "
            f"event_label={schema.event} (columns={{'event': '{schema.event}', "
            f"'event_label': '{schema.event}'}})"
        )


def _refuse_copies(
    label: pl.Series, session: pl.Series, table: pl.DataFrame, schema: LogSchema
) -> None:
    """Refuse rows of a nested log that are copies of others: the second would follow the choice."""
    names = {schema.session, schema.event, schema.event_label} - {None}
    alike = table.select(names).is_duplicated().arg_true()
    rows = table[alike].select(names | {schema.items, schema.choice})
    row = first_true(rows.is_duplicated())
    if row is not None:
        raise LogFormatError(
            f"event {show(label[alike[row]])} of session {show(session[alike[row]])} has two rows, "
            f"alike in items and choice ({rows.height - rows.n_unique()} rows are such copies), an "
            "event is one row: drop the copies"
        )


def _check_one_display(
    session: pl.Series, item: CodedIds, chosen: pl.Series, options: ReadOptions
) -> None:
    """Refuse sessions that may be several displays, where no column tells displays apart."""
    rows = pl.DataFrame([session.alias("session"), pl.Series("item", item.codes)])
    no_column = (
        "no column tells the displays of a session apart, so each session is one display: name the "
        "column that does, --column event=NAME (columns={'event': 'NAME'})"
    )
    row = first_true(alike := rows.is_duplicated())
    if row is not None:
        several = rows.filter(alike)["session"].n_unique()
        raise LogFormatError(
            f"session {show(session[row])} has several rows of item {show(item.as_text()[row])} "
            f"({several} of {session.n_unique()} sessions have such rows), and {no_column}, or "
            "drop the copies"
        )
    clicks = session.filter(chosen)
    row = first_true(clicks.is_duplicated())
    if row is not None and options.clicks == "error":
        several = clicks.filter(clicks.is_duplicated()).n_unique()
        raise LogFormatError(
            f"session {show(clicks[row])} has {(clicks == clicks[row]).sum()} chosen rows "
            f"({several} of {session.n_unique()} sessions have several), and {no_column}, or if it "
            "is one display pass --clicks each (clicks='each')"
        )


def _check_several(
    session: pl.Series, event: pl.Series, table: pl.DataFrame, schema: LogSchema
) -> None:
    """Refuse an event that never changes beside times that do."""
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


def _views(column: pl.Series) -> pl.Series:
    cure = "correct it, or rename the column if it means something else"
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean)):
        raise LogFormatError(
            f"column '{column.name}' holds {column.dtype}, a count of views is required: {cure}"
        )
    counts = column.cast(pl.Int64, strict=False)
    wrong = counts.is_null() | (counts < 0).fill_null(True)
    refuse_at(column, wrong, f"a count of views is required: {cure}")
    return counts


def _nested_rows(table: pl.DataFrame, schema: LogSchema, options: ReadOptions) -> Rows:
    assert schema.items is not None
    events, has_times = _event_columns(table, schema, options)

    def name_event(event: int) -> str:
        return event_text(events, event)

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
    available = None
    if options.available:
        values = _spread(table[options.available], lengths, event_of_row, None, name_event)
        available = parse_flags(values, AVAILABLE, lambda row: name_event(int(event_of_row[row])))
    item = CodedIds.of(items.explode(), "item")
    _require_items(item, schema.items, lambda row: name_event(int(event_of_row[row])))
    _require_past(table, events, item, options)
    clicks = _read_clicks(table, schema, name_event)
    click_event = clicks["event"].to_numpy()
    outside = np.zeros(0, np.int64)
    if schema.chosen_index is not None:
        click_of_row = _rows_of_positions(clicks, lengths, schema.chosen_index, name_event)
    else:
        click_of_row = _rows_of_items(clicks, item, event_of_row)
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
            raise LogFormatError(
                "every display has a click on an item that it did not display, with --outside drop "
                "no event is left: pass --outside none or append"
            )
        rest = _nested_rows(table.filter(kept), schema, options)
        dropped = dataclasses.replace(facts, displays=facts.outside_displays)
        return dataclasses.replace(rest, clicks=dropped)
    if len(outside) and options.outside == "append":
        texts = pl.concat([item.as_text(), clicks["value"].gather(outside).alias("item")])
        event_of_row = np.concatenate([event_of_row, click_event[outside]])
        source = np.argsort(event_of_row, kind="stable")
        click_of_row = np.concatenate([click_of_row, outside.astype(np.int32)])[source]
        event_of_row = event_of_row[source]
        item = CodedIds.of(texts.gather(source), "item")
        if available is not None:
            chosen = pl.repeat(True, len(outside), eager=True)
            available = pl.concat([available, chosen]).gather(source)
    fields = {
        name: _spread(table[name], lengths, event_of_row, source, name_event)
        for name in options.candidate_fields
    }
    outcomes = {
        name: _spread(table[name], lengths, event_of_row, source, name_event)
        for name in options.outcomes
    }
    # a plain column has what followed the event's choice, a list what followed each candidate's
    listed = {name: one for name, one in outcomes.items() if is_list(table[name].dtype)}
    refuse_unchosen(
        listed,
        click_of_row >= 0,
        lambda row: name_event(int(event_of_row[row])),
        of_all=options.outcome_of_all,
    )
    rows = Rows(
        events,
        event_of_row,
        item,
        click_of_row >= 0,
        fields,
        outcomes=outcomes,
        context=_context(table, options),
        has_times=has_times,
        # an event of a plain column has one click
        click_order=(
            None
            if options.clicks == "error" or not is_list(table[schema.choice].dtype)
            else pl.Series(click_of_row).replace(-1, None)
        ),
        clicks=facts,
    )
    return rows if available is None else _of_available(rows, available, options)


def _require_lengths(
    column: str, sizes: pl.Series, lengths: pl.Series, of: str, cure: str, name_event: Where
) -> None:
    event = first_true(sizes != lengths)
    if event is not None:
        raise LogFormatError(
            f"{name_event(event)} has {sizes[event]} values in '{column}' for {lengths[event]} "
            f"{of}, one each is required: make the lists equally long{cure}"
        )


def _spread(
    column: pl.Series,
    lengths: pl.Series,
    event_of_row: IntArray,
    source: npt.NDArray[np.int64] | None,
    name_event: Where,
) -> pl.Series:
    """A candidate column of a nested log, one value per candidate; source: which of the listed
    candidates each row is, or beyond them; None: the rows are the candidates."""
    if not is_list(column.dtype):
        return column.gather(event_of_row)
    lists = as_list(column)
    sizes = lists.list.len().fill_null(0)
    _require_lengths(column.name, sizes, lengths, "candidates", "", name_event)
    values = lists.explode()
    if source is None:
        return values
    return values.gather(pl.Series(np.where(source < len(values), source, -1)).replace(-1, None))


def _read_clicks(table: pl.DataFrame, schema: LogSchema, name_event: Where) -> pl.DataFrame:
    """Event and value (item as text, or position) of all clicks, in their order."""
    value, of_items = table[schema.choice], schema.chosen_index is None
    of_lists = is_list(value.dtype)
    event = np.arange(table.height, dtype=np.int32)
    frame = pl.DataFrame([pl.Series("event", event), value.alias("value")])
    if of_lists:
        value = as_list(value)
        lengths = value.list.len().fill_null(0)
        frame = pl.DataFrame(
            [
                pl.Series("event", np.repeat(event, lengths.to_numpy())),
                value.filter(lengths > 0).explode().alias("value"),
            ]
        )
        if schema.click_order is not None:
            order = _spread_order(table[schema.click_order], lengths, name_event)
            frame = frame.with_columns(order.alias("order"))
    if of_items:
        frame = frame.with_columns(
            ids_as_text(frame["value"].alias(schema.choice), "chosen").alias("value")
        )
    frame = frame.drop_nulls("value")
    if of_items:
        row = first_true(frame["value"].str.starts_with(REFUSED))
        if row is not None:
            # the file does not say whether there was a click
            of_event, text = frame.select("event", "value").row(row)
            raise LogFormatError(f"{row_number(of_event)} has {text.removeprefix(REFUSED)}")
    if "order" in frame.columns:
        wrong = frame.filter(pl.col("event").is_duplicated() & pl.col("order").is_null())
        if wrong.height:
            of_click = name_event(int(wrong["event"][0]))
            raise LogFormatError(without_order(of_click, schema.click_order or ""))
        frame = frame.sort("event", "order", maintain_order=True)
    if not of_items:
        sizes = as_list(table[schema.items or ""]).list.len()
        of_each = of_lists and (lengths == sizes).all() and bool((sizes > 2).any())
        numbers = frame["value"].cast(pl.Float64, strict=False)
        if frame["value"].dtype == pl.Boolean or (of_each and numbers.is_in([0.0, 1.0]).all()):
            raise LogFormatError(
                f"'{schema.chosen_index}' says yes or no of each candidate, the positions of the "
                "clicks are required: write them, or one row per displayed candidate"
            )
    if of_lists:
        frame = frame.unique(["event", "value"], keep="first", maintain_order=True)
    return frame.select("event", "value")


def _spread_order(column: pl.Series, lengths: pl.Series, name_event: Where) -> pl.Series:
    if column.null_count() == len(column):
        return pl.Series([None] * int(lengths.sum()), dtype=pl.Int64)
    if not is_list(column.dtype):
        raise LogFormatError(
            f"column '{column.name}' is the order of clicks and holds {column.dtype}, a list of "
            "one rank or time for each click is required: correct it, or rename it, and clicks "
            "count in the order of their list"
        )
    lists = as_list(column)
    assert isinstance(lists.dtype, pl.List)
    gaps = pl.lit(None, lists.dtype.inner).repeat_by(lengths)
    lists = lists.to_frame().select(pl.coalesce(pl.col(column.name), gaps)).to_series()
    cure = ", or rename the column, and clicks count in the order of their list"
    _require_lengths(column.name, lists.list.len(), lengths, "clicks", cure, name_event)
    clicks = lists.filter(lengths > 0).explode()
    order = order_of(clicks, lambda click: f"click {click + 1}")
    if order is None:
        raise LogFormatError(
            f"column '{column.name}' is the order of clicks and holds {column.dtype}: ranks or "
            "times are required"
        )
    return order


def _rows_of_items(clicks: pl.DataFrame, item: CodedIds, event_of_row: IntArray) -> IntArray:
    """The click of each row, -1 for none, shape (n_rows,)."""
    codes, n = Vocabulary(item.texts).codes(clicks["value"]), len(item.texts)
    known = np.flatnonzero(codes >= 0)
    click_keys = clicks["event"].to_numpy()[known].astype(np.int64) * n + codes[known]
    keys = event_of_row.astype(np.int64) * n + item.codes
    rows = pl.Series(keys).is_in(pl.Series(click_keys).implode()).arg_true().to_numpy()
    order = np.argsort(click_keys)
    click_of_row = np.full(len(keys), -1, np.int32)
    click_of_row[rows] = known[order[np.searchsorted(click_keys[order], keys[rows])]]
    return click_of_row


def _rows_of_positions(
    clicks: pl.DataFrame, lengths: pl.Series, column: str, name_event: Where
) -> IntArray:
    event, index = clicks["event"].to_numpy(), clicks["value"]
    numbers = index.cast(pl.Float64, strict=False).fill_nan(None)
    unread = numbers.is_null() & index.cast(pl.String).ne("NaN")
    # A missing index is NaN here, and every comparison with it is false.
    position, size = numbers.to_numpy(), lengths.to_numpy().astype(np.int64)
    click = first_true(
        unread.to_numpy() | (position < -1) | (position >= size[event]) | (position % 1 > 0)
    )
    if click is not None:
        of_click = size[event[click]]
        raise LogFormatError(
            f"{name_event(int(event[click]))} has '{column}' = {show(index[click])} for {of_click} "
            f"candidates, a position from 0 to {of_click - 1} is required (null or -1: no click): "
            f"correct the row, or if '{column}' is an item pass --column chosen={column} "
            f"(columns={{'chosen': '{column}'}})"
        )
    clicked = np.flatnonzero(position >= 0)
    click_of_row = np.full(size.sum(), -1, np.int32)
    starts = np.cumsum(size) - size
    click_of_row[starts[event[clicked]] + position[clicked].astype(np.int64)] = clicked
    return click_of_row
