"""OnlineModel: a fitted model folded for one display at a time, and how what a caller gives of a
display becomes what the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.features.encoder import N_RESERVED
from fastgaum.features.item_vectors import component_names
from fastgaum.features.numbers import (
    LOG_VIEWS,
    item_numbers,
    log_views,
    number_columns,
    totals_of,
)
from fastgaum.features.vocabulary import OF_PLACE
from fastgaum.kernels.candidate_formulas import TRAINING_NUMBERS
from fastgaum.logs.columns import MOST_NUMBER, show
from fastgaum.logs.log import FloatArray, IntArray
from fastgaum.logs.number_text import parse_numbers
from fastgaum.models.folded import (
    FoldedRecurrent,
    SlateScorer,
    TableRows,
    Vectors,
    folded_scorer,
    projected_vectors,
    slate_distribution,
)
from fastgaum.nets.histories import HistoryEncoder, Recurrent

if TYPE_CHECKING:
    from fastgaum.models.choice_model import Head
    from fastgaum.models.user_model import UserModel

VIEWS = "views"
"""name under which the view counts of protocol `views` are given"""


class _Field(NamedTuple):
    """A field of candidates that the model reads."""

    column: int
    """of the ids, or of the numbers"""
    rows: dict[str, int] | None
    """row of each category; None for numbers"""


class GivenContext(NamedTuple):
    """The context of one event."""

    rows: IntArray
    """row of the value of each field of categories or items, -1 for an unknown one"""
    items: list[str]
    """the item in each field of items"""
    numbers: FloatArray
    """each field of numbers, standardised"""


class OnlineModel:
    """A fitted model for single displays, folded once; its users (`OnlineUser`) share it.

    Attributes:
        networks: of the model.
        head: whose distribution `probabilities` are.
        outside: whether no click is a choice.
        fields: names of the fields of candidates that the model reads.
        context_fields: names of the context fields that it reads, and what each holds.
    """

    def __init__(self, model: UserModel, head: Head = "reward") -> None:
        """Fold a model; changing it afterwards changes nothing here.

        Args:
            model: a fitted model.
            head: "reward" for the reward's best response, or "generator".

        Raises:
            ConfigError: the model is not fitted, or lacks the head.
        """
        networks, space = model.networks, model.space
        if networks is None or space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        if head not in ("reward", "generator"):
            raise ConfigError(f"head must be reward or generator, got {head!r}")
        if head == "generator" and networks.generator is None:
            raise ConfigError(
                "the model has no generator (players = exact): use head='reward', whose best "
                "response it is"
            )
        self.networks, self.space, self.head, self.outside = networks, space, head, model.outside
        self.regulariser = model.regulariser
        self.eta = float(model.config.eta) if head == "reward" else 1.0
        self.vector_rows: dict[str, int] | None = None
        every_id = np.arange(space.n_ids, dtype=np.int32)
        self._fold(every_id, None)
        self.distribute = slate_distribution(self.regulariser, self.eta, self.outside, head)
        encoder = networks.player.history
        self.history_dim, self.state_dim = encoder.state_dim, networks.player.state_dim
        self.item_ids = space.categorical[0].values
        self.item_rows = _rows(self.item_ids)
        items = np.arange(-1, len(self.item_ids), dtype=np.int32)
        # the unknown item is last, as row -1
        statistics = item_numbers(
            totals_of(space.item_counts, np.roll(items, -1)), space.prior_rate
        )
        columns = number_columns(TRAINING_NUMBERS, space.number_names)
        self.training_columns = columns[columns >= 0]
        self.training_numbers: FloatArray = statistics[:, columns >= 0]
        self._read_fields()
        self._read_context()
        self.kind_rows, self.acted_rows = (
            (_rows(space.actions[0].values), _rows(space.actions[1].values))
            if space.actions
            else ({}, {})
        )
        self.of_items: dict[str, dict[str, object]] = {}

    def _fold(self, ids: IntArray, vectors: Vectors | None) -> None:
        """Fold the networks over rows of one id each, and their vectors."""
        networks, space = self.networks, self.space
        self.id_of_row = ids
        rows = TableRows(ids[:, None], space.categorical[0].stop, space.n_numbers, vectors=vectors)
        self.reward = folded_scorer(networks.player.reward, rows)
        self.scorer: SlateScorer = self.reward
        if self.head == "generator" and networks.generator is not None:
            self.scorer = folded_scorer(networks.generator, rows)
        encoder = networks.player.history
        self.history: FoldedRecurrent | HistoryEncoder = (
            FoldedRecurrent(encoder, rows)
            if type(encoder) is Recurrent
            else deepcopy(encoder).cpu().eval()
        )

    def _read_fields(self) -> None:
        space = self.space
        self.fields: dict[str, _Field] = {}
        for column, part in enumerate(space.categorical):
            if part.source not in ("item", *OF_PLACE):
                self.fields[part.name] = _Field(column, _rows(part.values))
        for column, name in enumerate(space.number_names):
            if name in space.field_names or name in component_names(space.vectors):
                self.fields[name] = _Field(column, None)
            elif name == LOG_VIEWS:
                self.fields[VIEWS] = _Field(column, None)

    def _read_context(self) -> None:
        space, networks = self.space, self.networks
        self.context_fields = space.context_holds
        self.context_rows = {
            part.name: self.item_rows if part.source == "context_item" else _rows(part.values)
            for part in space.context
        }
        self.context_starts = np.array([part.start + 1 for part in space.context], np.int32)
        self.columns_of_items = [
            at for at, part in enumerate(space.context) if part.source == "context_item"
        ]
        self.of_vectors: FloatArray = np.zeros((0, 0), np.float32)
        self.vectors: FloatArray = np.zeros((0, 0), np.float32)
        if space.context:
            assert networks.player.items is not None
            table = networks.player.items.table.detach().cpu().numpy()
            self.vectors = np.array(table, np.float32)

    def with_item_table(self, table: pl.DataFrame) -> OnlineModel:
        """The model, for displays that need not give the fields of items: a column `item`, and a
        column for each field that the table has instead, or for the vectors that the model reads.
        Other columns are not read.

        Raises:
            ConfigError: the table has no such column, an item twice, or a value of the wrong kind;
                or the model reads vectors of items, and the table has none, or others.
        """
        if "item" not in table.columns:
            raise ConfigError(
                f"an item table has a column 'item', got {', '.join(table.columns)}: rename yours"
            )
        ids = table["item"].cast(pl.String)
        if ids.null_count() or ids.n_unique() < len(ids):
            raise ConfigError(
                "an item table has one row for each item: an item is missing or twice"
            )
        other = copy(self)
        other.of_items = {}
        if self.space.vectors.dim:
            other._read_vectors(ids, table)
        for name in (name for name in table.columns if name in self.fields):
            column = table[name]
            if self.fields[name].rows is None and column.dtype == pl.String:
                # a file without types; what is no number stays, and is said
                numbers = parse_numbers(column)
                column = column if numbers is None else numbers
            values = self.encoded(name, column.to_list(), len(ids))
            other.of_items[name] = dict(zip(ids.to_list(), values.tolist(), strict=True))
        return other

    def _read_vectors(self, ids: pl.Series, table: pl.DataFrame) -> None:
        """Take the vectors of a table's items: as components, or folded into the networks' rows."""
        vectors, known = self.space.vectors, ids.to_list()
        of_items = vectors.of_table(ids, table)
        if not vectors.are_read:
            components = vectors.components(of_items)
            for name, values in zip(component_names(vectors), components.T, strict=True):
                self.of_items[name] = dict(zip(known, values.tolist(), strict=True))
            return
        # a trained item has its id's row, each other one a row of its own after the ids'; with
        # actions, whose items are read without vectors, all items have rows of their own
        n_ids = self.space.n_ids
        new = [item for item in known if self.space.actions or item not in self.item_rows]
        after = {item: n_ids + at for at, item in enumerate(new)}
        self.vector_rows = {
            item: after.get(item, self.item_rows.get(item, 0) + N_RESERVED) for item in known
        }
        item_of_row = np.full(n_ids + len(new), -1, np.int32)
        item_of_row[list(self.vector_rows.values())] = np.arange(len(known), dtype=np.int32)

        def of_rows(part: slice) -> FloatArray:
            items = item_of_row[part]
            found = np.zeros((len(items), vectors.dim), np.float32)
            found[items >= 0] = vectors.rows(of_items, items[items >= 0])
            return found

        own = [self.item_rows.get(item, -1) + N_RESERVED for item in new]
        self._fold(np.append(np.arange(n_ids), own).astype(np.int32), of_rows)
        if self.space.fields_of_items:
            assert self.networks.player.items is not None
            items = self.networks.player.items
            self.of_vectors = projected_vectors(items, of_rows, len(item_of_row))

    def unknown(self, items: Sequence[str | int]) -> list[str | int]:
        """Those of some items that training never displayed. Raises ConfigError for no id."""
        return [item for item in items if item_key(item) not in self.item_rows]

    def display_ids(self, items: Sequence[str], rows: IntArray) -> IntArray:
        """Row of the folded tables of each displayed item, of its row among the training items.

        Raises:
            ConfigError: the model reads vectors, and no item table has the item's.
        """
        if not self.space.vectors.are_read:
            return rows + np.int32(N_RESERVED)
        missing = next((item for item in items if item not in (self.vector_rows or {})), None)
        if self.vector_rows is None or missing is not None:
            raise self._no_vector(missing if self.vector_rows is not None else None)
        return np.array([self.vector_rows[item] for item in items], np.int32)

    def _no_vector(self, item: str | None) -> ConfigError:
        names = ", ".join(name for name, _ in self.space.vectors.widths)
        if item is not None:
            return ConfigError(
                f"the item table has no item {show(item)}, whose vector ({names}) the model reads: "
                "add a row"
            )
        return ConfigError(
            f"the model reads the item vectors {names}: give an item table that has them "
            "(OnlineUser(model.with_item_table(frame)), --item-table)"
        )

    def field_values(
        self, items: Sequence[str], given: Mapping[str, Sequence[object]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Each field's row of a category, or number, for each item, (n,).

        Raises:
            ConfigError: a field is missing or unknown, has another number of values, or one of the
                wrong kind.
        """
        for name in given:
            if name not in self.fields:
                known = ", ".join(self.fields) or "none"
                raise ConfigError(
                    f"a display has the field '{name}', those that the model reads of candidates "
                    f"are: {known}{did_you_mean(name, self.fields)}"
                )
        values = {}
        for name in self.fields:
            if name in given:
                values[name] = self.encoded(name, given[name], len(items))
                continue
            known_values = self.of_items.get(name)
            if known_values is None and name in component_names(self.space.vectors):
                raise self._no_vector(None)
            if known_values is None:
                raise ConfigError(
                    f"the model reads the field '{name}' of candidates: give a value for each item "
                    f"(fields={{'{name}': […]}}), or an item table that has the column"
                )
            for item in items:
                if item not in known_values:
                    raise ConfigError(
                        f"the item table has no item {show(item)}: give the field '{name}' with "
                        "the display, or a row to the table"
                    )
            values[name] = np.array([known_values[item] for item in items])
        return values

    def encoded(self, name: str, values: Sequence[object], n: int) -> npt.NDArray[Any]:
        """A field's row of a category, or number, of each of n values. Raises ConfigError as
        `field_values`."""
        rows = self.fields[name].rows
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != n:
            raise ConfigError(
                f"the field '{name}' has one value for each of {n} items, got {values!r}"
            )
        if rows is not None:
            return np.array([rows.get(_text(value, name) or "", -1) for value in values], np.int32)
        numbers = np.array([_number(value, name) for value in values], np.float32)
        if name != VIEWS:
            return numbers
        if not (numbers >= 1).all():
            raise ConfigError(f"view counts are at least 1, got {numbers.min():g}")
        return log_views(numbers).astype(np.float32)

    def context_of(self, context: Mapping[str, object]) -> GivenContext:
        """The context of an event, of a value for each field.

        Raises:
            ConfigError: a field is missing or unknown, or has a value of the wrong kind.
        """
        names, space = self.context_fields, self.space
        for name in context:
            if name not in names:
                known = ", ".join(names) or "none"
                raise ConfigError(
                    f"the context has the field '{name}', those that the model reads are: {known}"
                    f"{did_you_mean(name, names)}"
                )
        for name in names:
            if name not in context:
                raise ConfigError(
                    f"the context has no field '{name}': give each of {', '.join(names)}"
                )
        texts = [_text(context[part.name], part.name) or "" for part in space.context]
        rows = [
            self.context_rows[part.name].get(text, -1)
            for part, text in zip(space.context, texts, strict=True)
        ]
        items = [
            text
            for part, text in zip(space.context, texts, strict=True)
            if part.source == "context_item"
        ]
        numbers = np.array(
            [_number(context[name], name) for name in space.context_number_names], np.float32
        )
        return GivenContext(
            np.array(rows, np.int32), items, (numbers - space.context_mean) / space.context_scale
        )


def _rows(values: pl.Series) -> dict[str, int]:
    return {value: row for row, value in enumerate(values.cast(pl.String).to_list())}


def item_key(item: object) -> str:
    """The id of an item as a log has it."""
    key = None if isinstance(item, bool) else _text(item, "item") if item is not None else None
    if key is None:
        raise ConfigError(f"an item id is text or a whole number, got {item!r}")
    return key


def _text(value: object, name: str) -> str | None:
    """A category as a log has it; None for a missing one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        # Python writes no whole number of thousands of digits
        with suppress(ValueError):
            return str(int(value))
    raise ConfigError(f"'{name}' takes text or a whole number, got {_said(value)}")


def _number(value: object, name: str) -> float:
    known = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    # compared first: not every whole number has a float
    if known and -MOST_NUMBER <= value <= MOST_NUMBER:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ConfigError(
        f"'{name}' takes a number between -{MOST_NUMBER:g} and {MOST_NUMBER:g}, got {_said(value)}"
    )


def _said(value: object) -> str:
    try:
        return repr(value)
    except ValueError:
        return "one of thousands of digits"
