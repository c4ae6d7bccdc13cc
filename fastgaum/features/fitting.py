"""How a feature space is counted in the training split of a log."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import ConfigError, LogFormatError, did_you_mean
from fastgaum.features.coded_log import CodedLog
from fastgaum.features.encoder import Encoder
from fastgaum.features.fields import (
    OF_PLACE,
    TrainingValues,
    action_fields,
    categorical_fields,
    context_fields,
)
from fastgaum.features.item_vectors import ItemVectors, component_names
from fastgaum.features.number_columns import (
    PLACE_NUMBERS,
    SAME_AS,
    made_numbers,
    place_rates,
)
from fastgaum.features.outcomes import is_ranked, names_of_outcomes
from fastgaum.features.relations import left_out
from fastgaum.features.sessions import EncodedSessions, Selection, select_sessions
from fastgaum.features.space import FeatureSpace, Sign, factors_of
from fastgaum.features.standardise import (
    Moments,
    NumberCode,
    add_pieces,
    made_robust,
    signed_last,
    standardised,
)
from fastgaum.features.training_counts import StatisticsCounter
from fastgaum.features.training_order import (
    Hiding,
    TrainingOrder,
    share_to_hide,
    spaces_before,
    training_order,
    with_all_training,
)
from fastgaum.logs.clicks import is_successive
from fastgaum.logs.context import context_of, training_events
from fastgaum.logs.log import ItemCounts, SessionLog
from fastgaum.logs.trained_users import TrainedUsers

CUT_BY = 200_000
"""candidates whose numbers say where these are cut"""
SIGNED_PIECES = 6
"""of a number with a sign, where no other number is cut"""


def fit_space(
    log: SessionLog,
    protocol: str = "bags",
    relative_numbers: bool = True,
    relations: bool = False,
    examination: bool = False,
    towers: bool = False,
) -> FeatureSpace:
    """The space of `fit_training`."""
    return fit_training(log, protocol, relative_numbers, relations, examination, towers)[0]


def fit_training(
    log: SessionLog,
    protocol: str = "bags",
    relative_numbers: bool = True,
    relations: bool = False,
    examination: bool = False,
    towers: bool = False,
    pieces: int = 0,
    order: TrainingOrder | None = None,
    folds: int = 0,
    robust: bool = False,
    shared_rows: bool = False,
    signs: Mapping[str, Sign] | None = None,
) -> tuple[FeatureSpace, EncodedSessions]:
    """Count the training split of a log; return its space, and its training sessions as they are
    read.

    Args:
        log: the log.
        protocol: what a candidate's bag holds: identity, bags or views.
        relative_numbers: whether numbers also come less their mean over the display set.
        relations: whether numbers say what pairs of items have been to each other.
        examination: whether the places of an ordered log are kept apart from the bags.
        towers: whether vectors of items are read whole, not as components.
        pieces: into how many pieces each number is cut (with towers those of the log itself).
        order: in which a model without actions reads training users; None: `training_order`.
        folds: of users over training and validation (`FeatureSpace.folds`), both of which are then
            counted and read; 0: none.
        robust: whether the log's own numbers are centred, scaled and bent by
            `number_code.made_robust`.
        shared_rows: whether the items of a very large log share rows (`fields.share_rows`).
        signs: as of `FeatureSpace`.

    Raises:
        ConfigError: protocol `views` on a log without view counts, or a sign of what is no number
            of candidates that varies.
        LogFormatError: the log has no training session, or a column has the name of a number.
    """
    given, log = log, with_all_training(log, folds)
    _require_training(log)
    values, of_context = TrainingValues(log), ContextNumbers(log)
    values.add(log)
    of_context.add(log)
    rates = place_rates(log) if examination else np.zeros(0, np.float32)
    choices = SpaceChoices(
        protocol, relative_numbers, relations, towers, pieces, robust, shared_rows, signs or {}
    )
    blank = blank_space(log, values, choices, rates, of_context)
    counts = protocol != "identity"
    if order is None:
        blank = blank.with_changes(actions=action_fields(log, (*blank.categorical, *blank.context)))
    blank = dataclasses.replace(
        blank,
        fingerprint=log.fingerprint,
        reading=None if log.reading is None else log.reading.to_json(),
        trained=TrainedUsers.of(log),
    )
    coded = CodedLog(blank, log)
    space = with_displays(blank, coded, values)
    counter = StatisticsCounter(coded, space, relations, counts)
    counter.add(log.sessions_in("train"))
    space = with_names(counter.counted(), log)
    train, moments = _encode_training(Encoder(space, log, coded), order)
    space = with_code(space, train, moments, choices)
    if folds:
        space = space.with_changes(folds=folds, fingerprint=given.fingerprint)
    return space, dataclasses.replace(train, code=space.code)


class SpaceChoices(NamedTuple):
    """The arguments of `fit_training` that a space of a log in parts has too."""

    protocol: str
    relative_numbers: bool
    relations: bool
    towers: bool
    pieces: int
    robust: bool
    shared_rows: bool
    signs: Mapping[str, Sign] = {}


class ContextNumbers:
    """The numbers of training events, counted part by part, and some of them kept."""

    def __init__(self, log: SessionLog) -> None:
        """Begin with nothing. log: any part, by which the kinds of context fields are judged."""
        self.fields = context_of(log)
        self.names = [part.name for part in self.fields if part.holds == "numbers"]
        self.moments, self.kept = Moments(), list[FloatArray]()

    def add(self, log: SessionLog, most: int | None = None) -> None:
        """Count a part, and keep the numbers of `most` of its training events; None: all."""
        if self.names:
            training = training_events(log)
            raw = np.stack([log.values_at(name, training) for name in self.names], 1)
            self.moments.add(raw)
            self.kept.append(raw[:most])

    def combine(self, other: ContextNumbers) -> None:
        """Count and keep what another has."""
        self.moments.combine(other.moments)
        self.kept += other.kept

    def code(self, pieces: int, robust: bool) -> NumberCode:
        """How networks read them."""
        n = len(self.names)
        if not n:
            return standardised(Moments(), 0)
        code, raw = standardised(self.moments, n), np.concatenate(self.kept)
        if robust:
            code = made_robust(code, raw, range(n))
        return add_pieces(code, raw, pieces, range(n))


def blank_space(
    log: SessionLog,
    values: TrainingValues,
    choices: SpaceChoices,
    rates: FloatArray,
    of_context: ContextNumbers,
) -> FeatureSpace:
    """A space of the fields that training displays, before anything is counted. log: any part;
    rates: `place_rates`. Raises ConfigError and LogFormatError as `fit_training`."""
    if choices.protocol == "views" and log.views is None:
        raise ConfigError(
            f"protocol 'views' needs repeated view rows, log '{log.name}' has none: use 'bags'"
        )
    if choices.relations and (why := left_out(log)):
        raise ConfigError(f"{why}: train with relations = false, or leave the setting out")
    require_signed(log, choices.signs)
    no_user, none = np.zeros(0, np.uint64), np.zeros(0, np.float32)
    places = log.ordered and not len(rates)
    categorical = categorical_fields(log, values, places, choices.shared_rows)
    return FeatureSpace(
        protocol=choices.protocol,
        relative_numbers=choices.relative_numbers,
        ordered=log.ordered,
        field_names=tuple(sorted(log.columns_of("candidate", "item"))),
        fingerprint="",
        trained=TrainedUsers(no_user, no_user),
        folds=0,
        categorical=categorical,
        context=context_fields(log, values, of_context.fields, categorical),
        actions=(),
        vectors=ItemVectors.of(log, values.items, components=not choices.towers),
        grid=0 if len(rates) else log.grid,
        number_names=(),
        code=standardised(Moments(), 0),
        least=none,
        most=none,
        item_counts=ItemCounts.zeros(0),
        relations=None,
        crossed=(),
        prior_rate=0.0,
        no_click=values.no_click,
        context_number_names=tuple(of_context.names),
        context_code=of_context.code(choices.pieces, choices.robust),
        outcomes=values.outcomes.fields(),
        signs=dict(sorted(choices.signs.items())),
        place_rates=rates,
    )


def with_displays(space: FeatureSpace, coded: CodedLog, values: TrainingValues) -> FeatureSpace:
    """The space with the training displays of each item, by which pairs are counted."""
    counts = ItemCounts.zeros(len(space.categorical[0].values))
    counts.displays[coded.space_rows[values.items]] = values.displays[values.items]
    return dataclasses.replace(space, item_counts=counts)


def with_names(space: FeatureSpace, log: SessionLog) -> FeatureSpace:
    """The space whose counts are complete, with the numbers that it makes, as they are."""
    counts = space.item_counts
    prior_rate = float(counts.choices.sum() / counts.displays.sum())
    space = space.with_changes(prior_rate=prior_rate, number_names=names_of_numbers(space, log))
    zeros = np.zeros(space.n_raw, np.float32)
    as_they_are = standardised(Moments(), space.n_raw)
    return space.with_changes(code=as_they_are, least=zeros, most=zeros)


def with_code(
    space: FeatureSpace, train: EncodedSessions, moments: Moments, choices: SpaceChoices
) -> FeatureSpace:
    """The space with numbers scaled as training sessions say, whose numbers are as they are."""
    if not moments.count:
        return space
    of_log = (*space.field_names, *space.signs)
    own = np.flatnonzero(np.isin(space.number_names, of_log))
    signed = [space.number_names.index(name) for name in space.signs]
    unread = [at for at, name in enumerate(space.number_names) if name in space.unread]
    for name, at in zip(space.signs, signed, strict=True):
        if moments.least[at] == moments.most[at]:
            raise ConfigError(
                f"signs names '{name}', which is {moments.least[at]:g} in all of training: nothing "
                "can be learned of it, leave its sign out"
            )
    columns = [*own, *np.flatnonzero(np.isin(train.varying, own)) + len(space.number_names)]
    code = standardised(moments, space.n_raw, columns)
    if choices.pieces or choices.robust or signed:
        raw = train.numbers_of(_sample(train))
        if choices.robust:
            code = made_robust(code, raw, columns)
        cut = columns if choices.towers else range(space.n_raw)
        code = add_pieces(code, raw, choices.pieces, [at for at in cut if at not in unread])
        if signed:
            pieces = choices.pieces or SIGNED_PIECES
            code = signed_last(code, raw, pieces, signed, unread)
    return space.with_changes(code=code, least=moments.least, most=moments.most)


def _sample(encoded: EncodedSessions) -> Selection:
    """Sessions of CUT_BY candidates or so, in equal steps over all."""
    step = max(len(encoded.ids) // CUT_BY, 1)
    return select_sessions(encoded, np.arange(0, encoded.n_sessions, step, dtype=np.int32))


def _require_training(log: SessionLog) -> None:
    if log.count("sessions", "train") == 0:
        raise LogFormatError(
            f"log '{log.name}' has no training session: give a split column or --split user"
        )


def names_of_numbers(space: FeatureSpace, log: SessionLog) -> tuple[str, ...]:
    """Names of all numbers of a log's candidates. Raises LogFormatError: a field has the name of
    such a number, or two numbers have one name."""
    successive = is_successive(space.context_number_names)
    names = made_numbers(space.protocol, space.relations is not None, successive)
    others = (*(PLACE_NUMBERS if space.grid else ()), *component_names(space.vectors))
    of_context = space.numbers_of_context
    taken = {*names, *of_context, *others, "item", *OF_PLACE}
    for name in sorted(log.columns_of("item", "candidate", "event", "user")):
        if name in taken or name.startswith(SAME_AS):
            raise LogFormatError(
                f"field name '{name}' is one of the built-in fields: rename the column"
            )
    if len(set(of_context)) < len(of_context):
        raise LogFormatError(
            f"the context fields {', '.join(sorted(log.context))} would make two numbers "
            "of one name: rename one of them"
        )
    signs = tuple(space.signs)
    of_log = sorted(own_numbers(log) - {*signs})
    given: tuple[str, ...] = ()
    if space.protocol != "identity":
        read = [name for name in (*names, *of_log) if name not in space.unread]
        ranked = [name for name in read if is_ranked(name, name in of_log)]
        given = names_of_outcomes(space.outcomes, space.categorical, ranked)
        names = (*names, *of_context)
    return (*names, *others, *given, *of_log, *signs)


def own_numbers(log: SessionLog) -> set[str]:
    """Names of the numbers that a log itself has of candidates and items."""
    columns = log.columns_of("item", "candidate").items()
    return {name for name, column in columns if column.texts is None}


def require_signed(log: SessionLog, signs: Mapping[str, Sign]) -> None:
    """Raise ConfigError for a sign of what is no number of a log's candidates."""
    numbers = own_numbers(log)
    for name in signs:
        field, number = factors_of(name)
        if name in numbers or (number in numbers and _holds_numbers(log, field)):
            continue
        why, known = "unknown", did_you_mean(name, numbers)
        if name in log.context:
            why = f"a field of the context, the same for all candidates (write {name}*NUMBER)"
        elif name in log.columns_of("item", "candidate"):
            why = "a category"
        elif number:
            fields = [one for one in log.context if _holds_numbers(log, one)]
            why, known = "no product of a number of the context and one of candidates", ""
            why += f" (of the context there are {', '.join(fields) or 'none'})"
        raise ConfigError(
            f"signs names '{name}', which is {why}: numbers of candidates are "
            f"{', '.join(sorted(numbers)) or 'none'}{known}"
        )


def _holds_numbers(log: SessionLog, field: str) -> bool:
    """Whether a field of the context is one of numbers."""
    return any(one.name == field and one.holds == "numbers" for one in context_of(log))


def ordered_blocks(
    encoder: Encoder, order: TrainingOrder
) -> tuple[IntArray, Iterator[tuple[Encoder, IntArray]]]:
    """The training sessions as they are read; and by block an encoder that knows what came
    before."""
    space, log = encoder.space, encoder.log
    rows = log.sessions_in("train")
    blocks = [order.blocks(log.users[rows], number) for number in range(order.n_orders)]
    read = [[rows[of_order == block] for block in range(order.n_blocks)] for of_order in blocks]

    def encoders() -> Iterator[tuple[Encoder, IntArray]]:
        share = share_to_hide(space.item_counts.displays, order.alone) if order.hides else 0.0
        for number, of_order in enumerate(read):
            if not space.has_statistics:
                yield from ((encoder, of_block) for of_block in of_order if len(of_block))
                continue
            before = spaces_before(encoder.coded, space, order, number)
            for one, of_block in zip(before, of_order, strict=True):
                if len(of_block):
                    yield encoder.with_space(one, Hiding(share, number)), of_block

    return np.concatenate([one for of_order in read for one in of_order]), encoders()


def _encode_training(
    encoder: Encoder, order: TrainingOrder | None
) -> tuple[EncodedSessions, Moments]:
    """Training sessions as they are read, and moments of their numbers."""
    moments, rows = Moments(), encoder.log.sessions_in("train")
    blocks = iter([(encoder, rows)])
    if order is not None or encoder.space.has_statistics:
        rows, blocks = ordered_blocks(encoder, order or training_order(encoder.log))
    encoded, first = encoder.make_room(rows), 0
    for of_block, of_rows in blocks:
        of_block.fill(encoded, of_rows, moments, first)
        first += len(of_rows)
    return encoded, moments
