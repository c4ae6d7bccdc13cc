"""LearnedWorld: a trained model as users who can be shown slates.

    world = LearnedWorld(UserModel.load("runs/mine"))
    users = world.population(4096)

A user's choice is drawn from the generator's distribution over the displayed places, or from the
reward's best response under the run's regulariser and eta; then the state advances by one recurrent
step. A step costs the same at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fastgaum.arrays import IntArray, KeyArray
from fastgaum.engine.scorer import DisplayBatch, parts_of
from fastgaum.errors import ConfigError, LogFormatError
from fastgaum.features.encoder import N_RESERVED
from fastgaum.logs.clicks import refuse_successive
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog, SplitName, require_log
from fastgaum.models.choice_model import Head
from fastgaum.models.user_model import UserModel
from fastgaum.models.users import FixedNetworks, ShownDisplays, Users
from fastgaum.worlds.actions import ActionIds, act_as_logged
from fastgaum.worlds.catalogue import Catalogue, item_features
from fastgaum.worlds.context import ContextRows, EncodedContext, LoggedContexts, drawn_sessions
from fastgaum.worlds.learned_population import LearnedPopulation
from fastgaum.worlds.world import NO_ITEM, Past, World

Starts = Literal["empty", "logged"]


class LearnedWorld(World):
    """Users who choose as a fitted `UserModel` does. Its items are those of the training split, and
    further ones if asked.

    Attributes:
        model: the model; changing it afterwards changes nothing here.
        head: whose distribution choices are drawn from.
    """

    def __init__(
        self,
        model: UserModel,
        head: Head | None = None,
        *,
        log: SessionLog | None = None,
        starts: Starts = "empty",
        split: SplitName = "train",
        n_features: int = 15,
        further: pl.Series | None = None,
    ) -> None:
        """Copy a model's networks.

        Args:
            model: a fitted model; `UserModel.load(run)` reads one. Of a model with fits on
                bootstraps it is the world of the fit on all users (`WorldSet` has them all).
            head: "generator", or "reward" for its best response; None = the generator where the
                model has one.
            log: what fields are read from, logged starts, and the contexts that users have if no
                step is given one; needed if the model reads fields, or for `starts="logged"`.
            starts: "empty": users have chosen nothing yet. "logged": each begins after a prefix of
                a logged session, both drawn by the key that `reset` gets: a session of `split`,
                then how many of its events, 0 to all but one.
            split: the log's split that logged starts and contexts are drawn from.
            n_features: width of `item_features`, at least 3.
            further: ids of items that training never displayed; each is an item of its own, of
                which the model knows no more than of any new one (and, with a `log`, its static
                fields).

        Raises:
            ConfigError: the model is not fitted or lacks the head, or a log is needed and none is
                given.
            FeatureMismatchError: the log's fields are not the training log's.
        """
        if not isinstance(model, UserModel):
            raise ConfigError(
                f"a {type(model).__name__} has no states of its own to play on: a world is made of "
                "a UserModel, a trained preset"
            )
        if model.networks is None or model.space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        if log is not None:
            require_log(log)
        for fields in (model.space.context_number_names, () if log is None else log.context):
            refuse_successive(fields, "a world asks its users for")
        if starts not in ("empty", "logged"):
            raise ConfigError(f"starts must be empty or logged, got '{starts}'")
        if starts == "logged" and log is None:
            raise ConfigError("logged starts need a log to draw them from: pass --log LOG (log=…)")
        self.catalogue = Catalogue.of(model.space, log, further)
        self.networks, vectors = FixedNetworks(model, head), self.catalogue.vectors
        if vectors is not None:
            self.networks = self.networks.with_vectors(vectors, self.catalogue.n_items + 1)
        self.model, self.head, self.outside = model, self.networks.head, model.outside
        self.item_ids, self.state_dim = self.catalogue.item_ids, self.networks.state_dim
        self.action_ids = ActionIds(self.catalogue) if model.space.actions else None
        self.item_features = item_features(self.catalogue, model.networks.player.reward, n_features)
        self.starts = (
            LoggedStarts(self.catalogue, log, split)
            if starts == "logged" and log is not None
            else None
        )
        self.split = split
        self.context: ContextRows | None = None
        self.logged_contexts: LoggedContexts | None = None
        if model.space.context_holds:
            self.context = ContextRows(self.catalogue)
            sessions = np.empty(0, np.int32) if log is None else log.sessions_in(split)
            if log is not None and len(sessions):
                self.logged_contexts = LoggedContexts(self.context, log, sessions)

    def _marks(self) -> Iterator[bytes]:
        # the weights as they are in the file
        networks = self.model.networks
        assert networks is not None
        for name, weight in networks.player.state_dict().items():
            yield name.encode()
            yield weight.detach().cpu().float().numpy().tobytes()

    def require_contexts(self) -> None:
        """Raise ConfigError unless users have contexts without being given any, or need none."""
        if self.context is not None and self.logged_contexts is None:
            raise ConfigError(
                f"the model reads the context fields {', '.join(self.context.space.context_holds)},"
                f" and users take theirs from {self.split} sessions of a log: pass a log that has "
                "some, --log LOG (log=…)"
            )

    def context_of(
        self, values: Mapping[str, Sequence[object] | npt.NDArray[np.generic]]
    ) -> EncodedContext:
        """The context of one event of each user, of values by field: what a step takes.

            users.step(slates, keys, context=world.context_of({"page": pages, "hour": hours}))

        A category or item that training did not see, and a missing one, is an unknown one.

        Raises:
            ConfigError: the model reads no context; a field is missing or unknown, has values of
                another kind or number than the others, or a number is not finite.
        """
        if self.context is None:
            raise ConfigError("the model reads no context: it was trained without context fields")
        return self.context.of(values)

    def population(self, n: int) -> LearnedPopulation:
        """Make n users without history.

        Raises:
            ConfigError: n is not positive.
        """
        if n < 1:
            raise ConfigError(f"a population has at least one user, got n = {n}")
        return LearnedPopulation(self, n)

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """The logged prefixes that these keys draw, event by event; nothing where users start
        empty."""
        return iter(()) if self.starts is None else self.starts.past(keys)


class LoggedStarts:
    """Prefixes of the sessions of one split of a log, encoded once, as the model has them there.

    Numbers and ids of a prefix are exactly the log's, but items that training never displayed are
    counted as one."""

    def __init__(self, catalogue: Catalogue, log: SessionLog, split: SplitName) -> None:
        rows = log.sessions_in(split)
        if len(rows) == 0:
            raise LogFormatError(
                f"log '{log.name}' has no session in split '{split}' to start users from"
            )
        encoded = catalogue.space.encode(log, rows)
        self.session_offsets = encoded.session_offsets
        self.display_offsets = encoded.display_offsets
        self.choices, self.ids, self.numbers = encoded.choices, encoded.ids, encoded.numbers
        # a further item is unknown here: ids do not tell one from another
        self.n_known, rows = catalogue.n_items, encoded.ids[:, 0] - np.int32(N_RESERVED)
        self.items = np.where(rows < 0, np.int32(self.n_known), rows)
        self.actions = encoded.actions

    def drawn(self, keys: KeyArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """A session for each key, and how many of its events went before: 0 … all but one."""
        sessions, lengths = drawn_sessions(keys, self.session_offsets)
        return sessions, lengths

    def past(self, keys: KeyArray) -> Iterator[Past]:
        """The prefixes that these keys draw, event by event, as items of the catalogue."""
        sessions, lengths = self.drawn(keys)
        for t in range(int(lengths.max(initial=0))):
            now = np.flatnonzero(lengths > t)
            events = self.session_offsets[sessions[now]] + t
            starts = self.display_offsets[events]
            sizes = self.display_offsets[events + 1] - starts
            places = np.arange(int(sizes.max()))
            items = self.items[np.minimum(starts[:, None] + places, len(self.items) - 1)]
            slates, choices = (
                np.full((len(keys), len(places)), NO_ITEM, np.int32),
                np.full(len(keys), -1, np.int32),
            )
            slates[now] = np.where(
                (places < sizes[:, None]) & (items < self.n_known), items, NO_ITEM
            )
            choices[now] = self.choices[events]
            yield Past(slates, choices, lengths > t)

    def play(self, users: Users, who: IntArray, keys: KeyArray) -> None:
        """Let the users `who`, who have no history, see and choose what is in their prefixes."""
        sessions, lengths = self.drawn(keys)
        first_events, networks = self.session_offsets[sessions], users.networks
        for t in range(int(lengths.max(initial=-1)) + 1):
            if self.actions is not None:
                # those before the event that users stand at are done too
                there = np.flatnonzero(lengths >= t)
                act_as_logged(users, who[there], self.actions, first_events[there] + t)
            now = np.flatnonzero(lengths > t)
            if not len(now):
                break
            events = first_events[now] + t
            offsets, at = pick_rows(self.display_offsets, events)
            choices, items, ids = self.choices[events], self.items[at], self.ids[at]
            vector_ids = ids
            if networks.reads_vectors:
                vector_ids = np.column_stack([ids, items + np.int32(networks.n_ids)])
            batch = DisplayBatch(offsets, ids, self.numbers[at], parts_of(offsets))
            chosen = np.where(choices >= 0, offsets[:-1] + choices, np.int32(-1))
            users.move(ShownDisplays(who[now], items, batch, vector_ids), chosen)
