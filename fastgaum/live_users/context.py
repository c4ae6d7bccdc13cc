"""The context of an event, as worlds and online users get it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.fields import ids_of_context
from fastgaum.live_users.item_catalogue import Catalogue
from fastgaum.logs.columns import BOOLEANS, MOST_NUMBER
from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import MISSING, Vocabulary


@dataclass(frozen=True)
class EncodedContext:
    """The context of one event of each of n users; `LearnedWorld.context_of` makes it of values."""

    ids: IntArray
    """feature id of each field of categories or items, shape (n, n_fields)"""
    items: IntArray
    """the catalogue's row of the item in each field of items, -1 for none, shape (n,
    n_fields_of_items)"""
    numbers: FloatArray
    """the numbers as networks read them, shape (n, n_numbers)"""
    factors: FloatArray
    """the number in each product with a sign (`FeatureSpace.products`), shape (n, n_products)"""

    def of(self, rows: npt.NDArray[np.integer]) -> EncodedContext:
        """The contexts of those users or events."""
        return EncodedContext(
            self.ids[rows], self.items[rows], self.numbers[rows], self.factors[rows]
        )


class ContextRows:
    """Encodes the context of events."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue, self.space = catalogue, catalogue.space
        self.names = tuple(self.space.context_holds)
        self.n_trained = len(self.space.categorical[0].values)
        self.row_of: list[dict[str, int]] = [
            catalogue.rows
            if part.source == "context_item"
            else {value: row for row, value in enumerate(part.values.to_list())}
            for part in self.space.context
        ]
        """row of each value, by field of `space.context`"""
        self.starts = np.array([part.start for part in self.space.context], np.int32)
        self.stops = np.array([part.stop for part in self.space.context], np.int32)
        self.of_items = np.array([one is catalogue.rows for one in self.row_of], np.bool_)

    def of(
        self, values: Mapping[str, Iterable[object]], further: dict[str, int] | None = None
    ) -> EncodedContext:
        """Encode values by field, one for each user; new categories and items are unknown ones.

        Args:
            values: the values of each field.
            further: numbers of items that the catalogue does not hold; takes those of new ones.

        Raises:
            ConfigError: a field is missing or unknown, or has a wrong value or number of values.
        """
        names, space = self.names, self.space
        for name in (*values, *names):
            if name not in names:
                raise ConfigError(
                    f"the context has the field '{name}', those that the model reads are: "
                    f"{', '.join(names) or 'none'}{did_you_mean(name, names)}"
                )
            if name not in values:
                raise ConfigError(
                    f"the context has no field '{name}': give each of {', '.join(names)}"
                )
        columns = {name: _listed(name, values[name]) for name in names}
        if len({len(column) for column in columns.values()}) > 1:
            raise ConfigError(
                "the fields of a context have one value for each user, got "
                + ", ".join(f"{len(column)} in '{name}'" for name, column in columns.items())
            )
        n = len(columns[names[0]]) if names else 1
        rows = np.empty((n, len(space.context)), np.int32)
        for at, (part, row_of) in enumerate(zip(space.context, self.row_of, strict=True)):
            texts = [_context_category(value, part.name) for value in columns[part.name]]
            rows[:, at] = [row_of.get(MISSING if text is None else text, -1) for text in texts]
            if further is not None and self.of_items[at]:
                for row, text in enumerate(texts):
                    if text is not None and rows[row, at] < 0:
                        # a display may show it while the context is kept
                        rows[row, at] = self.number_of_further(text, further)
        items = rows[:, self.of_items]
        rows[:, self.of_items] = np.where(items < self.n_trained, items, -1)
        numbers = np.empty((n, len(space.context_number_names)), np.float32)
        for at, name in enumerate(space.context_number_names):
            numbers[:, at] = [_context_number(value, name) for value in columns[name]]
        ids = ids_of_context(space.context, rows)
        of_products = [space.context_number_names.index(field) for field, _ in space.products]
        return EncodedContext(ids, items, space.encode_context(numbers), numbers[:, of_products])

    def number_of_further(self, item: str, further: dict[str, int]) -> int:
        """The number of an item that the catalogue does not hold, behind its rows."""
        return further.setdefault(item, self.catalogue.n_items + 1 + len(further))

    def of_log(self, log: SessionLog, events: IntArray) -> EncodedContext:
        """Encode the context of events of a log. Raises FeatureMismatchError for other fields than
        the training log's, LogFormatError for a number that is not finite."""
        coded = CodedLog(self.space, log)
        row_of_item = Vocabulary(self.catalogue.item_ids).codes(log.item_ids)
        # one entry more: a value that is no item of the log
        items = np.append(row_of_item, np.int32(-1))[coded.context_items(events)]
        numbers, factors = coded.context_numbers(events), coded.factors(events)
        return EncodedContext(coded.context_ids(events), items, numbers, factors)

    def checked(self, context: object, n: int) -> EncodedContext:
        """The context, if it is one of n users.

        Raises:
            ConfigError: a wrong shape, an unknown id or item, or a number that is not finite.
        """
        space, cure = self.space, "make it with the world's context_of"
        if not isinstance(context, EncodedContext):
            raise ConfigError(
                "a step takes the context that the world's context_of makes of values, got a "
                f"{type(context).__name__}: pass context=world.context_of(…)"
            )
        n_numbers = space.context_code.n_numbers
        shapes = len(space.context), len(space.fields_of_items), n_numbers, len(space.products)
        names = "ids", "items", "numbers", "factors"
        parts = (getattr(context, name) for name in names)
        for what, part, width in zip(names, parts, shapes, strict=True):
            if np.shape(part) != (n, width):
                raise ConfigError(
                    f"the {what} of a context have the shape ({n}, {width}) for {n} users, got "
                    f"{np.shape(part)}: {cure}"
                )
        ids, items = context.ids, context.items
        outside = (ids < self.starts) | (ids >= self.stops)
        if outside.any():
            field = space.context[int(outside.any(axis=0).argmax())]
            raise ConfigError(
                f"the context has the id {ids[outside][0]}, those of '{field.name}' are "
                f"{field.start} … {field.stop - 1}: {cure}"
            )
        if items.size and not -1 <= items.min() <= items.max() < self.catalogue.n_items:
            raise ConfigError(
                f"the context has the items {items.min()} … {items.max()}, the world's are 0 … "
                f"{self.catalogue.n_items - 1}, and -1 for none: {cure}"
            )
        if not (np.isfinite(context.numbers).all() and np.isfinite(context.factors).all()):
            raise ConfigError(f"the context has a number that is not finite: {cure}")
        return context


def _listed(name: str, values: object) -> list[object]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ConfigError(
            f"the context field '{name}' takes a row of values, one for each user, got {values!r}"
        )
    return list(values)


def _context_category(value: object, name: str) -> str | None:
    # a log's booleans are categories of the context, and numbers of candidates
    text = str(value) if isinstance(value, bool | np.bool_) else category_of(value, name)
    return text.lower() if text is not None and text.lower() in BOOLEANS else text


def _context_number(value: object, name: str) -> float:
    if isinstance(value, bool | np.bool_):
        raise ConfigError(
            f"'{name}' takes a number, got {value}: a log's booleans are categories of the context"
        )
    return number_of(value, name)


def category_of(value: object, name: str) -> str | None:
    """A category as a log has it. Raises ConfigError for another value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        # Python writes no whole number of thousands of digits
        with suppress(ValueError):
            return str(int(value))
    raise ConfigError(f"'{name}' takes text or a whole number, got {_quote(value)}")


def number_of(value: object, name: str) -> float:
    """A number as a log has it. Raises ConfigError for another value."""
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
