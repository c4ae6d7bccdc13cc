"""Online users: one user at a time, one display at a time, as a service has them.

user = model.user()
user.probabilities(["i3", "i7", "i1"])    # one for each item, and one for no click
user.chose("i7")                          # the state moves on
user.acted("i3", "cart")                  # here too, of a model that reads actions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError, NumericsError, did_you_mean, require_type
from fastgaum.features.fields import OF_PLACE
from fastgaum.features.item_vectors import component_names
from fastgaum.features.number_columns import LOG_VIEWS
from fastgaum.kernels.candidate_counts import UserDisplays
from fastgaum.live_users.context import ContextRows, category_of, number_of
from fastgaum.live_users.fixed_networks import FittedModel, FixedNetworks
from fastgaum.live_users.item_catalogue import ActionIds, Catalogue
from fastgaum.live_users.users import ShownDisplays, Users
from fastgaum.logs.columns import parse_field, show
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import MISSING
from fastgaum.nets.networks import Head

VIEWS = "views"
"""name under which the view counts of protocol `views` are given"""
_ONE: IntArray = np.zeros(1, np.int32)


class OnlineModel:
    """A fitted model for single displays; its users (`OnlineUser`) share it.

    Attributes:
        item_ids: the items that training displayed.
        fields: row of each category, by field of candidates that the model reads; None for numbers.
        of_items: names of fields that an item table has.
        catalogue: the items as candidates; NaN and 0 where a display has to give a field.
    """

    def __init__(self, model: FittedModel, head: Head = "reward") -> None:
        """Copy a model's networks. Raises ConfigError for a model that is not fitted, or lacks the
        head."""
        self.fits = [FixedNetworks(one, head) for one in (model, *model.members)]
        self.space = space = self.networks.space
        self.item_ids = space.categorical[0].values
        self.context_fields = space.context_holds
        self.fields: dict[str, dict[str, int] | None] = {}
        self.columns: dict[str, int] = {}
        """column of each field in the ids, or in the numbers"""
        for column, part in enumerate(space.categorical):
            if part.source not in ("item", *OF_PLACE):
                rows = {value: row for row, value in enumerate(part.values.to_list())}
                self.fields[part.name], self.columns[part.name] = rows, column
        own = {*space.field_names, *component_names(space.vectors), LOG_VIEWS}
        for column, name in enumerate(space.number_names):
            if name in own:
                name = VIEWS if name == LOG_VIEWS else name
                self.fields[name], self.columns[name] = None, column
        self._use_table(self.item_ids[:0], {}, None)

    @property
    def networks(self) -> FixedNetworks:
        """Those of the first fit."""
        return self.fits[0]

    def _use_table(
        self,
        items: pl.Series,
        values: Mapping[str, npt.NDArray[Any]],
        source: SessionLog | None,
    ) -> None:
        self.catalogue = Catalogue.of_table(self.space, items, values, source)
        self.of_items = frozenset(values)
        self.with_vector: set[str] = set() if source is None else set(items.to_list())
        self.context = ContextRows(self.catalogue)
        self.actions = ActionIds(self.catalogue) if self.space.actions else None

    def with_item_table(self, table: pl.DataFrame) -> OnlineModel:
        """The model for displays without the fields, or vectors, of an item table: a column `item`,
        and one for each of them. Other columns are not read.

        Raises:
            ConfigError: the table has no items, one twice, a wrong value, a missing number, or not
                the model's vectors.
        """
        require_type("table", table, pl.DataFrame)
        if "item" not in table.columns:
            raise ConfigError(
                f"an item table has a column 'item', got {', '.join(table.columns)}: rename yours"
            )
        ids = table["item"].cast(pl.String)
        if ids.null_count() or ids.n_unique() < len(ids):
            raise ConfigError(
                "an item table has one row for each item: an item is missing or twice"
            )
        other, vectors, values = copy(self), self.space.vectors, {}
        for name in (name for name in table.columns if name in self.fields):
            column = table[name]
            if self.fields[name] is None and column.dtype == pl.String:
                # text that is no number is refused below
                numbers = parse_field(column)
                column = column if numbers is None else numbers
            means = (self.space.reading or {}).get("means", {})
            if self.fields[name] is None and name in means and column.dtype.is_numeric():
                column = column.cast(pl.Float64).fill_null(means[name])
            elif self.fields[name] is None and (missing := column.null_count()):
                raise ConfigError(
                    f"column '{name}' of the item table lacks {missing:,} of {len(column):,} "
                    "numbers, and the model has no mean for it: fill them in, or drop the column "
                    "and give the field with each display"
                )
            of_log = LOG_VIEWS if name == VIEWS else name
            values[of_log] = self.encoded(name, column.to_list(), len(ids))
        other._use_table(ids, values, vectors.of_table(ids, table) if vectors.dim else None)
        if (of_items := other.catalogue.vectors) is not None:
            n = other.catalogue.n_items + 1
            other.fits = [one.with_vectors(of_items, n) for one in self.fits]
        return other

    def candidates(
        self, items: Sequence[str], given: Mapping[str, Sequence[object]]
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Row in the catalogue of each displayed item, ids (n, n_categorical) and base numbers (n,
        n_base).

        Raises:
            ConfigError: a field is missing, unknown or wrong, or an item has no vector.
        """
        catalogue, row_of = self.catalogue, self.catalogue.rows
        unknown = catalogue.n_items
        rows = np.array([row_of.get(item, unknown) for item in items], np.int32)
        ids, numbers = catalogue.ids.take(rows, 0), catalogue.fixed.take(rows, 0)
        for name in given:
            if name not in self.fields:
                known = ", ".join(self.fields) or "none"
                raise ConfigError(
                    f"a display has the field '{name}', those that the model reads of candidates "
                    f"are: {known}{did_you_mean(name, self.fields)}"
                )
        for name, of_field in self.fields.items():
            column = self.columns[name]
            if name in given:
                values = self.encoded(name, given[name], len(items))
                if of_field is None:
                    numbers[:, column] = values
                else:
                    ids[:, column] = self.space.categorical[column].ids(values)
                continue
            missing = np.isnan(numbers[:, column]) if of_field is None else ids[:, column] == 0
            if missing.any() and name not in component_names(self.space.vectors):
                if name not in self.of_items:
                    raise ConfigError(
                        f"the model reads the field '{name}' of candidates: give a value for each "
                        f"item (fields={{'{name}': […]}}), or an item table that has the column"
                    )
                raise ConfigError(
                    f"the item table has no item {show(items[int(missing.argmax())])}: give the "
                    f"field '{name}' with the display, or a row to the table"
                )
        if self.space.vectors.dim and not self.with_vector.issuperset(items):
            names = ", ".join(name for name, _ in self.space.vectors.widths)
            if not self.with_vector:
                raise ConfigError(
                    f"the model reads the item vectors {names}: give an item table that has them "
                    "(OnlineUser(model.with_item_table(frame)), --item-table)"
                )
            lacking = next(item for item in items if item not in self.with_vector)
            raise ConfigError(
                f"the item table has no item {show(lacking)}, whose vector ({names}) the model "
                "reads: add a row"
            )
        return rows, ids, numbers

    def encoded(self, name: str, values: Sequence[object], n: int) -> npt.NDArray[Any]:
        """A field's n values as rows of categories, or numbers. Raises ConfigError as
        `candidates`."""
        rows = self.fields[name]
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != n:
            raise ConfigError(
                f"the field '{name}' has one value for each of {n} items, got {values!r}"
            )
        if rows is not None:
            texts = [category_of(value, name) for value in values]
            return np.array(
                [rows.get(MISSING if text is None else text, -1) for text in texts], np.int32
            )
        numbers = np.array([number_of(value, name) for value in values], np.float32)
        if name != VIEWS:
            return numbers
        if not (numbers >= 1).all():
            raise ConfigError(f"view counts are at least 1, got {numbers.min():g}")
        return np.log(numbers).astype(np.float32)

    def outcome_row(self, given: Mapping[str, object] | None, *, chosen: bool) -> FloatArray | None:
        """What followed a choice as columns, (1, n_outcomes), NaN for what is not known. Raises
        ConfigError as `OnlineUser.chose`."""
        fields = {one.name: one for one in self.space.outcomes}
        require_type("outcome", given or {}, Mapping)
        for name in given or {}:
            if name not in fields:
                raise ConfigError(
                    f"outcome has '{name}', those that the model reads are: "
                    f"{', '.join(fields) or 'none'}{did_you_mean(name, fields)}"
                )
            if not chosen:
                raise ConfigError(
                    f"outcome has '{name}', and nothing was chosen: nothing follows no click, "
                    "leave it out"
                )
        if not fields:
            return None
        columns = []
        for name, one in fields.items():
            value = None if given is None else given.get(name)
            row: FloatArray = np.full(one.width, np.nan, np.float32)
            if value is not None and one.categories is None:
                row[:] = number_of(value, name)
            elif value is not None:
                row[:] = one.categories == category_of(value, name)
            columns.append(row)
        return np.concatenate(columns)[None]

    def action_ids(self, item: str, action: str, given: Mapping[str, object]) -> IntArray:
        """Feature ids of an action, (1, n_fields). Raises ConfigError as `OnlineUser.acted`."""
        if self.actions is None:
            raise ConfigError(
                "the model reads no actions: train it on a log that has some (--actions FILE)"
            )
        row = self.catalogue.rows.get(item, self.catalogue.n_items)
        ids, fields = self.actions.of(np.array([row]), action), self.actions.fields
        for name in given:
            if name not in fields:
                raise ConfigError(
                    f"an action has the field '{name}', those that the model reads of its item "
                    f"are: {', '.join(fields) or 'none'}{did_you_mean(name, fields)}"
                )
        for at, (name, column) in enumerate(fields.items(), 1):
            start = self.space.categorical[column].start
            if name in given:
                ids[0, at] = start + 1 + self.encoded(name, [given[name]], 1)[0]
            elif ids[0, at] == 0 and name not in self.of_items:
                raise ConfigError(
                    f"the model reads the field '{name}' of items: give it "
                    f"(fields={{'{name}': …}}), or an item table that has the column"
                )
            # an item that the table lacks has an unknown category
            ids[0, at] = ids[0, at] or start
        return ids


class OnlineUser:
    """One user, with all that it has seen and chosen.

    Probabilities are those of `predict` for the same session of another log than the training log.
    Calls of one user must not overlap; different users may be used on different threads.
    """

    def __init__(self, model: OnlineModel) -> None:
        self.model = model
        # predict scores what there is, however far from what training has seen
        self._users = Users(model.fits, 1, within=False, n_following=len(model.fits))
        self._further: dict[str, int] = {}
        """numbers of items that the catalogue lacks, behind its rows"""
        self._seen: set[str] = set()
        self._has_context = not model.context_fields
        self._shown: tuple[ShownDisplays, list[str]] | None = None
        self.n_events = 0
        """choices, no click among them"""

    def __repr__(self) -> str:
        told = f"{self.n_events} choices told, {len(self._seen)} items shown"
        model = self.model
        return f"OnlineUser({model.networks.head} of {len(model.item_ids)} items: {told})"

    @property
    def unknown(self) -> list[str]:
        """Items of the display scored last, until its choice, that training never displayed."""
        rows, n_trained = self.model.catalogue.rows, len(self.model.item_ids)
        shown = [] if self._shown is None else self._shown[1]
        return [item for item in shown if rows.get(item, n_trained) >= n_trained]

    @property
    def state(self) -> FloatArray:
        """A copy of the user's state, shape (state_dim,): its history, then its last context. Of a
        model by folds the state in the first fit: states of two fits cannot be compared."""
        return np.array(self._users.states[0], np.float32)

    def probabilities(
        self,
        items: Sequence[str | int],
        context: Mapping[str, object] | None = None,
        fields: Mapping[str, Sequence[object]] | None = None,
    ) -> FloatArray:
        """Probability of each item of a display, then, where no click is a choice, of that; shape
        (n,) or (n + 1,). No state moves.

        Args:
            items: ids in the order of the display.
            context: a value for each context field; None: as at the display before.
            fields: values of each field of candidates, one for each item.

        Raises:
            ConfigError: the display is empty, has an item twice, or lacks what the model reads.
            NumericsError: a score is not finite.
        """
        networks, of_fits = self.model.networks, self._scores(items, context, fields)
        offsets, found = np.array([0, len(of_fits[0])], np.int32), []
        for scores in of_fits:
            probs, none = networks.distribution(scores, offsets)
            found.append(np.concatenate([probs, none]) if networks.no_click else probs)
        return found[0] if len(found) == 1 else np.mean(found, 0, np.float32)

    def chose(self, item: str | int | None, outcome: Mapping[str, object] | None = None) -> None:
        """Choose an item of the display that was scored last, or None; the state moves on.

        Args:
            item: an item, or None for no click.
            outcome: what followed, by the name of the outcome; what is left out is not known.

        Raises:
            ConfigError: no display was scored since the last choice, or it did not show the item;
                or an outcome is unknown, of another kind, or of no choice.
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
        followed = self.model.outcome_row(outcome, chosen=place >= 0)
        self._users.move([(shown, np.array([place], np.int32), followed)])
        self._shown = None
        self.n_events += 1

    def acted(
        self, item: str | int, action: str, fields: Mapping[str, object] | None = None
    ) -> None:
        """Act on an item between two displays; the state moves on.

        Args:
            item: an item, displayed or not.
            action: a kind that training knew.
            fields: the item's categories, unless an item table has them.

        Raises:
            ConfigError: the action is unknown, or a field is missing or unknown.
        """
        require_type("fields", fields or {}, Mapping)
        self._users.act(_ONE, self.model.action_ids(item_key(item), action, fields or {}))
        self._shown = None

    def _scores(
        self,
        items: Sequence[str | int],
        context: Mapping[str, object] | None,
        fields: Mapping[str, Sequence[object]] | None,
    ) -> list[FloatArray]:
        model, n_items = self.model, self.model.catalogue.n_items
        require_type("fields", fields or {}, Mapping)
        require_type("context", context or {}, Mapping)
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
        rows, ids, numbers = model.candidates(keys, fields or {})
        further, shown_items = self._further, rows
        if rows.max() == n_items:
            shown_items = rows.copy()
            for at in np.flatnonzero(rows == n_items).tolist():
                shown_items[at] = model.context.number_of_further(keys[at], further)
        if context is not None:
            values = {name: [value] for name, value in context.items()}
            self._users.give_context(_ONE, model.context.of(values, further))
            self._has_context = True
        elif not self._has_context:
            raise ConfigError(
                f"the model reads the context fields {', '.join(model.context_fields)}, and the "
                "user has none yet: give the context of its first display"
            )
        self._seen.update(keys)
        offsets = np.array([0, len(keys)], np.int32)
        shown = self._users.show(
            UserDisplays(_ONE, offsets, shown_items), ids, numbers, [(0, 1)], rows
        )
        users, batch = shown.users, shown.batch
        found = [one.scores("chooser", users, batch, True) for one in self._users.members]
        # what was never scored has no choice
        self._shown = None
        for scores in found:
            if not np.isfinite(scores).all():
                at = int(np.argmin(np.isfinite(scores)))
                raise NumericsError(
                    f"item {show(keys[at])} has the score {scores[at]}, a finite one is "
                    "required: correct the display's numbers where they are far from the "
                    "training log's, or train again (the model has diverged)"
                )
        self._shown = shown, keys
        return found


def item_key(item: object) -> str:
    """The id of an item as a log has it."""
    key = None if isinstance(item, bool) else category_of(item, "item")
    if key is None:
        raise ConfigError(f"an item id is text or a whole number, got {item!r}")
    return key
