"""Online users: one user at a time, one display at a time, as a service has them.

    user = model.user()
    user.probabilities(["i3", "i7", "i1"])    # one for each item, and one for no click
    user.chose("i7")                          # the state moves on
    user.acted("i3", "cart")                  # so does it here, of a model that reads actions

A display has the probabilities that `predict` gives it in a log with the same session. An online
user is a population of one (`models.users`), whose items, fields and context come as Python values;
the networks are copied once for all users of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.engine.fixed import FixedScorer
from fastgaum.errors import ConfigError, NumericsError, did_you_mean
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
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.kernels.candidate_formulas import TRAINING_NUMBERS
from fastgaum.logs.columns import MOST_NUMBER, show
from fastgaum.logs.number_text import parse_numbers
from fastgaum.models.choice_model import Head
from fastgaum.models.networks_model import NetworksModel
from fastgaum.models.users import FixedNetworks, ShownDisplays, Users

VIEWS = "views"
"""name under which the view counts of protocol `views` are given"""
_ONE: IntArray = np.zeros(1, np.int32)


class OnlineModel:
    """A fitted model for single displays; its users (`OnlineUser`) share it.

    Attributes:
        networks: copies of the model's.
        fields: the fields of candidates that the model reads, and the row of each category; None
            for a field of numbers.
        context_fields: names of the context fields that it reads, and what each holds.
        of_items: values of fields by item, where an item table has them.
    """

    def __init__(self, model: NetworksModel, head: Head = "reward") -> None:
        """Copy a model's networks; changing it afterwards changes nothing here.

        Args:
            model: a fitted model.
            head: "reward" for the reward's best response, or "generator".

        Raises:
            ConfigError: the model is not fitted, or lacks the head.
        """
        self.networks = FixedNetworks(model, head)
        self.space = space = self.networks.space
        self.item_ids, names = space.categorical[0].values, space.number_names
        self.item_rows = _rows(self.item_ids)
        items = np.arange(-1, len(self.item_ids), dtype=np.int32)
        # the unknown item is last, as row -1
        statistics = item_numbers(
            totals_of(space.item_counts, np.roll(items, -1)), space.prior_rate
        )
        columns = number_columns(TRAINING_NUMBERS, names)
        self.training_numbers: FloatArray = np.zeros((len(items), len(names)), np.float32)
        self.training_numbers[:, columns[columns >= 0]] = statistics[:, columns >= 0]
        self.fields: dict[str, dict[str, int] | None] = {}
        self.columns: dict[str, int] = {}
        """column of each field in the ids, or in the numbers"""
        for column, part in enumerate(space.categorical):
            if part.source not in ("item", *OF_PLACE):
                self.fields[part.name], self.columns[part.name] = _rows(part.values), column
        own = {*space.field_names, *component_names(space.vectors), LOG_VIEWS}
        for column, name in enumerate(names):
            if name in own:
                name = VIEWS if name == LOG_VIEWS else name
                self.fields[name], self.columns[name] = None, column
        self.context_fields = space.context_holds
        self.context_rows = {
            part.name: self.item_rows if part.source == "context_item" else _rows(part.values)
            for part in space.context
        }
        self.kind_rows, self.acted_rows = (
            (_rows(part.values) for part in space.actions) if space.actions else ({}, {})
        )
        self.of_items: dict[str, dict[str, object]] = {}
        self.vector_rows: dict[str, int] | None = None
        """row of the vector of each item that an item table has, where networks read vectors"""

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
        other, known, vectors = copy(self), ids.to_list(), self.space.vectors
        other.of_items = {}
        if vectors.dim:
            of_items = vectors.of_table(ids, table)
            if not vectors.are_read:
                components = vectors.components(of_items)
                for name, values in zip(component_names(vectors), components.T, strict=True):
                    other.of_items[name] = dict(zip(known, values.tolist(), strict=True))
            else:
                # the last row is that of an item that the table has not
                other.vector_rows, n = _rows(ids), len(ids)

                def standardised(part: slice) -> FloatArray:
                    rows = np.arange(n)[part]
                    found = np.zeros((len(range(n + 1)[part]), vectors.dim), np.float32)
                    found[: len(rows)] = vectors.rows(of_items, rows)
                    return found

                other.networks = self.networks.with_vectors(standardised, n + 1)
        for name in (name for name in table.columns if name in self.fields):
            column = table[name]
            if self.fields[name] is None and column.dtype == pl.String:
                # a file without types; what is no number stays, and is said
                numbers = parse_numbers(column)
                column = column if numbers is None else numbers
            encoded = self.encoded(name, column.to_list(), len(ids))
            other.of_items[name] = dict(zip(known, encoded.tolist(), strict=True))
        return other

    def unknown(self, items: Sequence[str | int]) -> list[str | int]:
        """Those of some items that training never displayed. Raises ConfigError for no id."""
        return [item for item in items if item_key(item) not in self.item_rows]

    def vectors_of(self, items: Sequence[str]) -> IntArray | None:
        """Row of each displayed item's vector; None where networks read none.

        Raises:
            ConfigError: networks read vectors, and no item table has the item's.
        """
        if not self.space.vectors.are_read:
            return None
        rows = self.vector_rows
        missing = next((item for item in items if rows is None or item not in rows), None)
        if rows is None or missing is not None:
            raise self._no_vector(None if rows is None else missing)
        return np.array([rows[item] for item in items], np.int32)

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
        rows = self.fields[name]
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

    def action_ids(self, item: str, action: str, given: Mapping[str, object]) -> IntArray:
        """Feature ids of an action, (1, n_fields). Raises ConfigError as `OnlineUser.acted`."""
        space = self.space
        if not space.actions:
            raise ConfigError(
                "the model reads no actions: train it on a log that has some (--actions FILE)"
            )
        (kinds, others), items = space.actions, space.categorical[0]
        if action not in self.kind_rows:
            raise ConfigError(
                f"the model knows no action {show(action)}, training had "
                f"{', '.join(self.kind_rows)}{did_you_mean(str(action), self.kind_rows)}"
            )
        row = self.item_rows.get(item, -1)
        alone = others.start + 1 + self.acted_rows.get(item, -1)
        ids = [items.start + 1 + row if row >= 0 else alone]
        of_item = {part.name: part for part in space.categorical if part.source == "item_field"}
        for name in (name for name in given if name not in of_item):
            raise ConfigError(
                f"an action has the field '{name}', those that the model reads of its item are: "
                f"{', '.join(of_item) or 'none'}{did_you_mean(name, of_item)}"
            )
        for name, part in of_item.items():
            if name in given:
                value = int(self.encoded(name, [given[name]], 1)[0])
            elif name in self.of_items:
                value = int(self.of_items[name].get(item, -1))  # type: ignore[call-overload]
            else:
                raise ConfigError(
                    f"the model reads the field '{name}' of items: give it "
                    f"(fields={{'{name}': …}}), or an item table that has the column"
                )
            ids.append(part.start + 1 + value)
        return np.array([[*ids, kinds.start + 1 + self.kind_rows[action]]], np.int32)


class OnlineUser:
    """One user: what it has seen and chosen until now.

    A display's probabilities are those of `predict` for the same session of another log than the
    training log. An item that training did not display is an unknown one (`unknown`). Calls of one
    user must not overlap; different users may be used on different threads.
    """

    def __init__(self, model: OnlineModel) -> None:
        self.model = model
        # predict scores what there is, however far from what training has seen
        self._users = Users(model.networks, 1, within=False)
        self._further: dict[str, int] = {}
        """number, behind the training rows, of each item that it was shown and training was not"""
        self._seen: set[str] = set()
        self._has_context = not model.context_fields
        self._shown: tuple[ShownDisplays, list[str]] | None = None
        self.n_events = 0
        """choices that it was told, no click among them"""

    def __repr__(self) -> str:
        told = f"{self.n_events} choices told, {self.n_items} items shown"
        model = self.model
        return f"OnlineUser({model.networks.head} of {len(model.item_ids)} items: {told})"

    @property
    def unknown(self) -> list[str | int]:
        """Ids of the display scored last, until its choice, that training never displayed."""
        return [] if self._shown is None else self.model.unknown(self._shown[1])

    @property
    def n_items(self) -> int:
        """How many items it was shown."""
        return len(self._seen)

    @property
    def state(self) -> FloatArray:
        """A copy of the user's state, shape (state_dim,): its history, then the context given last,
        if the model reads any."""
        return np.array(self._users.states[0], np.float32)

    def probabilities(
        self,
        items: Sequence[str | int],
        context: Mapping[str, object] | None = None,
        fields: Mapping[str, Sequence[object]] | None = None,
    ) -> FloatArray:
        """Probability of each item of a display, then, where no click is a choice, of that; shape
        (n,) or (n + 1,). Nothing moves: the display may be another next time.

        Args:
            items: ids of the displayed items, in their order.
            context: a value for each context field that the model reads; None: as at the display
                before.
            fields: values of each field of candidates that the model reads, one for each item.

        Raises:
            ConfigError: the display is empty, has an item twice, or lacks what the model reads.
            NumericsError: a score is not finite.
        """
        networks = self.model.networks
        scores = self._scores(networks.chooser, items, context, fields)
        offsets = np.array([0, len(scores)], np.int32)
        probs, none = networks.distribution(scores, offsets)
        return np.append(probs, none) if networks.outside else probs

    def utilities(
        self,
        items: Sequence[str | int],
        context: Mapping[str, object] | None = None,
        fields: Mapping[str, Sequence[object]] | None = None,
    ) -> FloatArray:
        """The reward model's utility of each item of a display, shape (n,); no click has utility 0.
        Arguments and errors as of `probabilities`."""
        return self._scores(self.model.networks.reward, items, context, fields)

    def chose(self, item: str | int | None) -> None:
        """The user chose an item of the display that was scored last, or, with None, nothing: its
        state moves on.

        Raises:
            ConfigError: no display was scored since the last choice, or it did not show the item.
        """
        if self._shown is None:
            raise ConfigError(
                "a choice is among what a display shows: call probabilities with its items first"
            )
        shown, items = self._shown
        place, key = -1, None if item is None else item_key(item)
        if key is not None:
            if key not in items:
                raise ConfigError(
                    f"the choice {show(key)} is not among the displayed items "
                    f"{', '.join(map(show, items[:10]))}: tell one of them, or None for no click"
                )
            place = items.index(key)
        self._users.move(shown, np.array([place], np.int32))
        self._shown = None
        self.n_events += 1

    def acted(
        self, item: str | int, action: str, fields: Mapping[str, object] | None = None
    ) -> None:
        """The user did something with an item between two displays: its state moves on.

        Args:
            item: the item; it need not have been displayed.
            action: what was done, one of the kinds that training knew.
            fields: the item's categories that the model reads, unless an item table has them.

        Raises:
            ConfigError: the model does not know the action, or a field is missing or unknown.
        """
        self._users.act(_ONE, self.model.action_ids(item_key(item), action, fields or {}))
        self._shown = None

    def _scores(
        self,
        scorer: FixedScorer,
        items: Sequence[str | int],
        context: Mapping[str, object] | None,
        fields: Mapping[str, Sequence[object]] | None,
    ) -> FloatArray:
        """A scorer's score of each item of a display, (n,)."""
        model, n_trained = self.model, len(self.model.item_ids)
        if isinstance(items, str) or not isinstance(items, Iterable):
            raise ConfigError(f"a display is a row of item ids, got {items!r}: give a list of them")
        keys = [item if type(item) is str else item_key(item) for item in items]
        if len(set(keys)) < len(keys) or not keys:
            twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None)
            raise ConfigError(
                "a display shows at least one item, got none"
                if twice is None
                else f"a display shows each item once, got {show(twice)} twice"
            )
        values = model.field_values(keys, fields or {}) if model.fields or fields else {}
        given = None if context is None else self._encoded_context(context)
        if given is None and not self._has_context:
            raise ConfigError(
                f"the model reads the context fields {', '.join(model.context_fields)}, and the "
                "user has none yet: give the context of its first display"
            )
        rows = np.array([model.item_rows.get(key, -1) for key in keys], np.int32)
        ids = np.zeros((len(keys), len(model.space.categorical)), np.int32)
        ids[:, 0], numbers = rows + np.int32(N_RESERVED), model.training_numbers[rows]
        vectors = model.vectors_of(keys)
        for name, of_field in values.items():
            column = model.columns[name]
            if model.fields[name] is None:
                numbers[:, column] = of_field
            else:
                ids[:, column] = of_field + np.int32(model.space.categorical[column].start + 1)
        self._seen.update(keys)
        for at in np.flatnonzero(rows < 0).tolist():
            rows[at] = self._further.setdefault(keys[at], n_trained + len(self._further))
        if given is not None:
            self._give_context(*given)
        offsets = np.array([0, len(keys)], np.int32)
        shown = self._users.show(UserDisplays(_ONE, offsets, rows), ids, numbers, vectors)
        scores = self._users.scores(scorer, shown)
        # what was never scored has no choice
        self._shown = None
        if not np.isfinite(scores).all():
            at = int(np.argmin(np.isfinite(scores)))
            raise NumericsError(
                f"item {show(keys[at])} has the score {scores[at]}, a finite one is "
                "required: correct the display's numbers where they are far from the training "
                "log's, or train again (the model has diverged)"
            )
        self._shown = shown, keys
        return scores

    def _encoded_context(
        self, context: Mapping[str, object]
    ) -> tuple[IntArray, list[str], FloatArray]:
        """Feature ids of the context's fields of categories and items, (1, n_fields), the item in
        each field of items, and the standardised numbers, (1, n_numbers).

        Raises:
            ConfigError: a field is missing or unknown, or has a value of the wrong kind.
        """
        model, space = self.model, self.model.space
        names = model.context_fields
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
        texts = {part.name: _text(context[part.name], part.name) or "" for part in space.context}
        ids = [
            part.start + 1 + model.context_rows[part.name].get(texts[part.name], -1)
            for part in space.context
        ]
        numbers = [_number(context[name], name) for name in space.context_number_names]
        standardised = (np.array([numbers], np.float32) - space.context_mean) / space.context_scale
        items = [texts[name] for name in space.fields_of_items]
        return np.array([ids], np.int32), items, standardised

    def _give_context(self, ids: IntArray, items: list[str], numbers: FloatArray) -> None:
        model, vectors, self._has_context = self.model, None, True
        own = [model.item_rows.get(item, self._further.get(item, -1)) for item in items]
        if model.vector_rows is not None:
            n = len(model.vector_rows)
            vectors = np.array([[model.vector_rows.get(item, n) for item in items]], np.int32)
        self._users.give_context(_ONE, ids, np.array([own], np.int32), numbers, vectors)


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
    raise ConfigError(f"'{name}' takes text or a whole number, got {_quote(value)}")


def _number(value: object, name: str) -> float:
    known = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    # compared first: not every whole number has a float
    if known and -MOST_NUMBER <= value <= MOST_NUMBER:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ConfigError(
        f"'{name}' takes a number between -{MOST_NUMBER:g} and {MOST_NUMBER:g}, got {_quote(value)}"
    )


def _quote(value: object) -> str:
    try:
        return repr(value)
    except ValueError:
        return "one of thousands of digits"
