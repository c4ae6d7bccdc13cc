"""Online users: one user at a time, one display at a time, as a service has them.

    user = model.user()
    user.probabilities(["i3", "i7", "i1"])    # one for each item, and one for no click
    user.chose("i7")                          # the state moves on
    user.acted("i3", "cart")                  # so does it here, of a model that reads actions

A display has the probabilities that `predict` gives it in a log with the same session. The model is
folded once for all its users; then a display is a few calls of compiled loops, and no tensor is
made. (A history encoder that must be read again, bilstm, position weights or one of your own, and a
regulariser of your own still are torch's.)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fastgaum.errors import ConfigError, NumericsError, did_you_mean
from fastgaum.features.encoder import NO_CLICK_ID
from fastgaum.features.session_counts import SessionCounts
from fastgaum.features.vocabulary import rows_of_places
from fastgaum.kernels.candidate_formulas import Slates
from fastgaum.logs.columns import show
from fastgaum.logs.log import FloatArray, IntArray
from fastgaum.models.folded import (
    FoldedRecurrent,
    RecurrentHistories,
    SlateProbabilities,
    SlateScorer,
    UserHistories,
)
from fastgaum.models.online_model import GivenContext, OnlineModel, item_key
from fastgaum.nets.histories import HistoryEncoder
from fastgaum.nets.tensors import Bags

ROOM = 64
"""items that a user's tables have room for at first"""
MOST_SIZES = 16
"""sizes of display that a user has room for at a time"""
_ONE = np.ones(1, np.bool_)


class OnlineUser:
    """One user: what it has seen and chosen until now.

    A display's probabilities are those of `predict` for the same session of another log than the
    training log. An item that training did not display is an unknown one (`unknown`). Calls of one
    user must not overlap; different users may be used on different threads.
    """

    def __init__(self, model: OnlineModel) -> None:
        self.model = model
        space = model.space
        self._fixed: FloatArray = np.zeros((ROOM, len(space.number_names)), np.float32)
        self._counts = SessionCounts(space, self._fixed, 1)
        self._counts.training_rows = np.zeros(ROOM, np.int32)
        # predict scores what there is, however far from what training has seen
        nothing = np.full_like(space.most, np.inf)
        self._counts.items = self._counts.items._replace(least=-nothing, most=nothing)
        self._codes: dict[str, int] = {}
        """the user's own number of each item that it was shown, in order of appearance"""
        self._history: UserHistories = (
            RecurrentHistories(model.history, 1)
            if isinstance(model.history, FoldedRecurrent)
            else _EncodedHistory(model.history, model.id_of_row)
        )
        self._states: FloatArray = np.zeros((1, model.state_dim), np.float32)
        self._context: GivenContext | None = None
        self._displays: dict[int, _Display] = {}
        self._shown: tuple[_Display, list[str]] | None = None
        self.n_events = 0
        """choices that it was told, no click among them"""

    def __repr__(self) -> str:
        told = f"{self.n_events} choices told, {self.n_items} items shown"
        return f"OnlineUser({self.model.head} of {len(self.model.item_ids)} items: {told})"

    @property
    def unknown(self) -> list[str | int]:
        """Ids of the display scored last, until its choice, that training never displayed."""
        return [] if self._shown is None else self.model.unknown(self._shown[1])

    @property
    def n_items(self) -> int:
        """How many items it was shown: its tables have a row for each."""
        return len(self._codes)

    @property
    def state(self) -> FloatArray:
        """A copy of the user's state, shape (state_dim,): its history, then the context given last,
        if the model reads any."""
        return np.array(self._states[0], np.float32)

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
        display = self._show(items, context, fields)
        self._score(display, self.model.scorer)
        n, outside = display.rows.shape[1], self.model.outside
        result = np.empty(n + outside, np.float32)
        if self.model.distribute is not None:
            self.model.distribute(0, 1, display.scored)
            result[:n] = display.scored.probs[0]
            result[n:] = display.scored.none[:outside]
            return result
        scores = torch.from_numpy(self.model.eta * display.scored.scores[0])
        offsets = torch.tensor([0, n], dtype=torch.int32)
        dist = self.model.regulariser.best_response(scores, offsets, outside)
        result[:n] = dist.probs.numpy()
        result[n:] = dist.outside_prob.numpy()[:outside]
        return result

    def utilities(
        self,
        items: Sequence[str | int],
        context: Mapping[str, object] | None = None,
        fields: Mapping[str, Sequence[object]] | None = None,
    ) -> FloatArray:
        """The reward model's utility of each item of a display, shape (n,); no click has utility 0.
        Arguments and errors as of `probabilities`."""
        display = self._show(items, context, fields)
        self._score(display, self.model.reward)
        utilities: FloatArray = display.scored.scores[0].copy()
        return utilities

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
        display, items = self._shown
        place, key = -1, None if item is None else item_key(item)
        if key is not None:
            if key not in items:
                raise ConfigError(
                    f"the choice {show(key)} is not among the displayed items "
                    f"{', '.join(map(show, items[:10]))}: tell one of them, or None for no click"
                )
            place = items.index(key)
        self._counts.make_room(len(items))
        chosen = display.rows[0, place] if place >= 0 else np.full(1, -1, np.int32)
        self._counts.count(0, 1, _ONE, display.rows, chosen)
        ids, numbers = np.full_like(display.ids[:, :1], -1), np.zeros_like(display.numbers[:, :1])
        if place >= 0:
            ids[0, 0], numbers[0, 0] = display.ids[0, place], display.numbers[0, place]
        self._history.advance(0, 1, _ONE, ids, numbers)
        self._states[:, : self.model.history_dim] = self._history.states
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
        ids = action_ids(self.model, item_key(item), action, fields or {})
        numbers = np.zeros((1, 1, self.model.space.n_numbers), np.float32)
        self._history.advance(0, 1, _ONE, ids[None, None], numbers)
        self._states[:, : self.model.history_dim] = self._history.states
        self._shown = None

    def _show(
        self,
        items: Sequence[str | int],
        context: Mapping[str, object] | None,
        fields: Mapping[str, Sequence[object]] | None,
    ) -> _Display:
        """Write what the model reads of a display."""
        model, counts = self.model, self._counts
        keys = [item if type(item) is str else item_key(item) for item in _row_of(items)]
        if len(set(keys)) < len(keys) or not keys:
            twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None)
            raise ConfigError(
                "a display shows at least one item, got none"
                if twice is None
                else f"a display shows each item once, got {show(twice)} twice"
            )
        values = model.field_values(keys, fields or {}) if model.fields or fields else {}
        given = self._context if context is None else model.context_of(context)
        if given is None and model.context_fields:
            raise ConfigError(
                f"the model reads the context fields {', '.join(model.context_fields)}, and the "
                "user has none yet: give the context of its first display"
            )
        if len(keys) not in self._displays:
            if len(self._displays) >= MOST_SIZES:
                self._displays.clear()
            self._displays[len(keys)] = _Display(model, len(keys))
        display = self._displays[len(keys)]
        rows = np.array([model.item_rows.get(key, -1) for key in keys], np.int32)
        codes = self._coded(keys, rows)
        display.rows[0, :, 0] = codes
        display.ids[0, :, 0] = model.display_ids(keys, rows)
        for name, (column, categories) in model.fields.items():
            if categories is None:
                self._fixed[codes, column] = values[name]
            else:
                start = model.space.categorical[column].start
                display.ids[0, :, column] = values[name] + np.int32(start + 1)
        if given is not None:
            self._write_context(given)
        counts.write(0, 1, Slates(display.rows, 0), display.numbers)
        self._context, self._shown = given, (display, keys)
        return display

    def _score(self, display: _Display, scorer: SlateScorer) -> None:
        scores = display.scored.scores
        scorer.write(0, 1, Slates(display.ids, 0), display.numbers, self._states, scores)
        if not np.isfinite(scores).all():
            assert self._shown is not None
            at = int(np.argmin(np.isfinite(scores[0])))
            # it was never scored: no choice is of it
            (_, keys), self._shown = self._shown, None
            raise NumericsError(
                f"item {show(keys[at])} has the score {scores[0, at]}, a finite one is "
                "required: correct the display's numbers where they are far from the training "
                "log's, or train again (the model has diverged)"
            )

    def _coded(self, keys: list[str], rows: IntArray) -> IntArray:
        """The user's own number of each item; a new one is entered."""
        codes, first = self._codes, len(self._codes)
        found = np.array([codes.setdefault(key, len(codes)) for key in keys], np.int32)
        if len(codes) > first:
            self._make_room(len(codes))
            trained, fixed, model = self._counts.training_rows, self._fixed, self.model
            assert trained is not None
            trained[found] = np.where(rows < 0, len(model.item_rows), rows)
            fixed[found[:, None], model.training_columns] = model.training_numbers[rows]
        return found

    def _make_room(self, n: int) -> None:
        room, counts = len(self._fixed), self._counts
        if n <= room:
            return
        more = max(room, n - room)
        self._fixed = np.concatenate([self._fixed, np.zeros((more, self._fixed.shape[1]))]).astype(
            np.float32
        )
        counts.items = counts.items._replace(fixed=self._fixed)
        assert counts.training_rows is not None
        counts.training_rows = np.concatenate([counts.training_rows, np.zeros(more, np.int32)])

    def _write_context(self, context: GivenContext) -> None:
        """Write the context to the state, and to what the numbers of candidates are made of."""
        model, counts = self.model, self._counts
        counts.context_values[0] = context.rows
        counts.context_items[0] = [self._codes.get(item, -1) for item in context.items]
        state, n = self._states[0, model.history_dim :], len(context.numbers)
        if len(context.rows):
            rows = model.vectors[context.rows + model.context_starts]
            if model.vector_rows is not None and context.items:
                found = [model.vector_rows.get(item, NO_CLICK_ID) for item in context.items]
                rows[model.columns_of_items] += model.of_vectors[found]
            state[: len(state) - n] = rows.ravel()
        state[len(state) - n :] = context.numbers


class _Display:
    """Room for a display of n items."""

    def __init__(self, model: OnlineModel, n: int) -> None:
        space = model.space
        self.rows: IntArray = np.zeros((1, n, 1), np.int32)
        """the user's own number of each item"""
        self.ids: IntArray = np.zeros((1, n, len(space.categorical)), np.int32)
        rows = rows_of_places(space.categorical, space.grid, np.arange(n, dtype=np.int32))
        for column, part in enumerate(space.categorical):
            if part.source in rows:
                self.ids[0, :, column] = rows[part.source] + np.int32(part.start + 1)
        self.numbers: FloatArray = np.zeros((1, n, space.n_numbers), np.float32)
        scores, probs = np.zeros((2, 1, n), np.float32)
        self.scored = SlateProbabilities(self.ids, scores, probs, np.zeros(1, np.float32))


class _EncodedHistory:
    """One user's history under an encoder that reads past choices again."""

    in_parts = False

    def __init__(self, encoder: HistoryEncoder, id_of_row: IntArray) -> None:
        self.encoder, self.id_of_row = encoder, id_of_row
        self.states: FloatArray = np.zeros((1, encoder.state_dim), np.float32)
        self.carry = encoder.initial(1)

    def reset(self, rows: IntArray | slice) -> None:
        """Forget the choices."""
        self.states[:] = 0
        self.carry = self.encoder.initial(1)

    @torch.no_grad()
    def advance(
        self,
        first: int,
        last: int,
        active: npt.NDArray[np.bool_],
        chosen: IntArray,
        numbers: FloatArray,
    ) -> None:
        """Move on by a choice: ids (1, 1, ·), -1 for no click, and numbers (1, 1, d)."""
        ids = chosen[0, 0] if chosen[0, 0, 0] >= 0 else np.full(1, NO_CLICK_ID, np.int32)
        ids = self.id_of_row[ids]
        offsets = torch.tensor([0, len(ids)], dtype=torch.int32)
        bag = Bags(torch.from_numpy(ids), offsets, torch.from_numpy(numbers[0].copy()))
        self.carry = self.encoder.advance(self.carry, bag)
        self.states[:] = self.encoder.state_of(self.carry).numpy()


def _row_of(items: object) -> Iterable[str | int]:
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise ConfigError(f"a display is a row of item ids, got {items!r}: give a list of them")
    return items


def action_ids(model: OnlineModel, item: str, action: str, given: Mapping[str, object]) -> IntArray:
    """Feature ids of an action, (n_fields,). Raises ConfigError as `OnlineUser.acted`."""
    space = model.space
    if not space.actions:
        raise ConfigError(
            "the model reads no actions: train it on a log that has some (--actions FILE)"
        )
    (kinds, others), items = space.actions, space.categorical[0]
    if action not in model.kind_rows:
        raise ConfigError(
            f"the model knows no action {show(action)}, training had {', '.join(model.kind_rows)}"
            f"{did_you_mean(str(action), model.kind_rows)}"
        )
    row = model.item_rows.get(item, -1)
    alone = others.start + 1 + model.acted_rows.get(item, -1)
    ids = [items.start + 1 + row if row >= 0 else alone]
    of_item = {part.name: part for part in space.categorical if part.source == "item_field"}
    for name in (name for name in given if name not in of_item):
        raise ConfigError(
            f"an action has the field '{name}', those that the model reads of its item are: "
            f"{', '.join(of_item) or 'none'}{did_you_mean(name, of_item)}"
        )
    for name, part in of_item.items():
        if name in given:
            value = int(model.encoded(name, [given[name]], 1)[0])
        elif name in model.of_items:
            value = int(model.of_items[name].get(item, -1))  # type: ignore[call-overload]
        else:
            raise ConfigError(
                f"the model reads the field '{name}' of items: give it (fields={{'{name}': …}}), "
                "or an item table that has the column"
            )
        ids.append(part.start + 1 + value)
    return np.array([*ids, kinds.start + 1 + model.kind_rows[action]], np.int32)
