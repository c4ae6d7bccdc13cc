"""ChoiceModel: the verbs of every user model; tables, environments and policies use these alone."""

from __future__ import annotations

import dataclasses
import html
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, overload

import numpy as np
import polars as pl
import torch
from torch import Tensor

from fastgaum.arrays import Float64Array, FloatArray, IntArray
from fastgaum.errors import (
    ConfigError,
    LogFormatError,
    did_you_mean,
    require_known,
    require_path,
    require_whole,
)
from fastgaum.features.coded_log import check_columns
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import EncodedSessions, chunks, select_sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.game.scoring import SCORING_SESSIONS, ScoredSessions
from fastgaum.logs.cut import pick_rows
from fastgaum.logs.log import SessionLog, SplitName, require_split
from fastgaum.logs.options import ReadOptions
from fastgaum.logs.read import RowsToPredict, as_log, read_to_predict
from fastgaum.logs.store import StoredLog
from fastgaum.logs.tables import Frame, is_frame
from fastgaum.logs.trained_users import SeenUsers, count_seen
from fastgaum.metrics.evaluation import Evaluation, evaluate_heads
from fastgaum.metrics.outcomes import OutcomeFigures, figures_of_outcomes
from fastgaum.models.fit_checks import with_hidden_items
from fastgaum.models.model_file import MODEL_FORMAT
from fastgaum.models.score_frames import as_it_came, beside_rows, candidate_frame, checked_scores
from fastgaum.nets.batches import Batch, batches
from fastgaum.nets.examination import Place
from fastgaum.nets.networks import Head
from fastgaum.nets.regularisers import ChoiceDistribution, sample_candidates
from fastgaum.state_file import State, save_state
from fastgaum.threads import one_thread_each

_T = TypeVar("_T")
MOST_EVALUATED = 4_000_000
"""events of a log in parts that are evaluated, about, by users drawn at random"""
Progress = Callable[[int, int], None]
"""receives events done and events in all"""
ScoreSessions = Callable[[EncodedSessions], ScoredSessions]
"""scores a part of a log with every head"""


class ModelSettings(Protocol):
    """The settings of a model: a configuration, or a baseline's own."""

    @property
    def seed(self) -> int:
        """Seeds every random stream."""

    @property
    def protocol(self) -> str:
        """The content of a candidate's bag."""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for TOML or JSON."""


class ChoiceModel(ABC):
    """A user model: fit on a log, then it scores display sets and draws choices.

    `fit` reads a frame (polars, pandas or pyarrow) by the names of its columns; `evaluate`,
    `predict` and `score` read one as the training log was read.

    Attributes:
        space: items, fields and counts of the training split; None before `fit`.
        no_click: whether no click is a choice.
        history_: the last fit's rows, one per epoch or setting tried; absent before `fit`.
        settings_tried: number of settings that the last fit compared on validation.
    """

    space: FeatureSpace | None = None
    no_click: bool = False
    device: torch.device = torch.device("cpu")
    history_: pl.DataFrame
    settings_tried: int = 1
    answers_in_sample: ClassVar[bool] = False
    """whether what-if questions may be asked of sessions that trained it: it counts no choice"""
    _given: dict[str, Any]
    """the arguments of the constructor, by name"""

    @property
    def default_split(self) -> SplitName:
        """The split of which what-if questions are asked if none is named."""
        return "test"

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Remember the arguments of the constructor."""
        model = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(model, *args, **given)
        bound.apply_defaults()
        model._given = {name: bound.arguments[name] for name in list(bound.arguments)[1:]}
        return model

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, by name, as scikit-learn asks for them."""
        return dict(self._given)

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor, by names of `get_params`; the model is then not
        fitted.

        Raises:
            ConfigError: an unknown name or an impossible value; the model is then as it was.
        """
        for name in params:
            if name not in self._given:
                raise ConfigError(
                    f"a {type(self).__name__} has no parameter '{name}'"
                    f"{did_you_mean(name, self._given)}; known are {', '.join(self._given)}"
                )
        made = type(self)(**self._given | params)
        self.__dict__.clear()
        self.__dict__.update(made.__dict__)
        return self

    def _repr_html_(self) -> str:
        """Text of a notebook: the model, and the table of its last fit."""
        table = self.history_._repr_html_() if hasattr(self, "history_") else ""
        return f"<p><code>{html.escape(repr(self))}</code></p>{table}"

    @property
    @abstractmethod
    def settings(self) -> ModelSettings:
        """Settings as they were asked for, or are after `fit`."""

    @abstractmethod
    def fit(self, log: SessionLog | Frame, y: None = None, *, progress: bool | None = None) -> Self:
        """Train on the training split, choose on validation; return the model. `progress`: whether
        a model of epochs shows how far it is; None: on a terminal and in a notebook. `y` is a place
        for what scikit-learn's pipelines give, None: the choices are in the log."""

    @abstractmethod
    def utility(self, batch: Batch) -> Tensor:
        """Utilities of a batch's candidates, shape (n_candidates,); no click has utility 0."""

    @abstractmethod
    def choice_distribution(self, batch: Batch, head: Head = "reward") -> ChoiceDistribution:
        """A head's distribution over each display set."""

    @abstractmethod
    def state(self) -> State:
        """The fitted model as a state that a file can hold.

        Raises:
            ConfigError: the model has not been trained.
        """

    @abstractmethod
    def _scorer(self, n_candidates: int, at_place: Place = "own") -> ScoreSessions:
        """A scorer of parts, of so many candidates in all, several at once."""

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically: weights, settings, feature space, and how the
        training log was read.

        Raises:
            ConfigError: the model has not been trained.
            OutputError: the file cannot be written.
        """
        require_path("path", path)
        save_state(Path(path), MODEL_FORMAT, self.state())

    @property
    def reading(self) -> ReadOptions:
        """The options that the training log was read with, but for a sample of its users.

        Raises:
            ConfigError: the model has not been trained, or they are not known.
        """
        if self.space is not None and self.space.reading is None:
            raise ConfigError(
                "how the model's training log was read is not known (it was a saved log, or was "
                "not read): give a log, of a frame that of fastgaum.read_log with its options"
            )
        return ReadOptions.from_json(self._trained_space().reading).whole_log()

    def examination(self, head: Head = "reward") -> FloatArray | None:
        """Factor of each place on a candidate's odds, the first being 1, shape (n_places,); None
        where the model does not keep places apart."""
        return None

    def choice_log_probs(self, batch: Batch, head: Head = "reward") -> tuple[Tensor, Tensor]:
        """Log-probabilities of candidates (n_candidates,) and of no click (n_events,)."""
        dist = self.choice_distribution(batch, head)
        return dist.log_probs, dist.no_click_log_prob

    def evaluate(
        self,
        log: SessionLog | StoredLog | Frame,
        split: SplitName = "test",
        progress: Progress | None = None,
        *,
        hide_items: float = 0.0,
        seed: int = 0,
        allow_seen_users: bool = False,
    ) -> Evaluation:
        """Metrics of every head on a split, with intervals over users; those of events with an item
        that training never displayed apart.

        Args:
            log: a log, a frame, or a saved log, of which up to some MOST_EVALUATED events are read,
                by users drawn at random.
            split: "train", "validation", "test" or "all".
            progress: receives events done, and in all.
            hide_items: share of items, from 0 to below 1, to score under new ids, drawn by `seed`.
            allow_seen_users: score a test split whose users trained this model.

        Raises:
            LogFormatError: the split is empty.
            FeatureMismatchError: the log's fields are not the training log's.
            SeenUsersError: users of the test split trained this model.
            ConfigError: `hide_items` is no share, or is of training sessions; or a model that was
                fitted part by part is to score sessions that it counted.
        """
        if isinstance(log, StoredLog):
            log = log.read_split(split, MOST_EVALUATED)
        log = as_log(log, self.reading if is_frame(log) else None)
        if not allow_seen_users:
            self.seen_users(log, split).require_unseen()
        self._refuse_counted(log, split)
        hidden = 0
        if hide_items != 0:
            encoder = self._encoder(log, split)
            trained = ("train", "all", *(("validation",) if encoder.space.folds else ()))
            if split in trained and encoder.reads_training_log:
                # the log with other ids is another log: nothing would be left out of its counts
                raise ConfigError(
                    f"hide_items is for sessions that did not train, split '{split}' of log "
                    f"'{log.name}' holds the model's training sessions: take split 'test'"
                )
            log, hidden = with_hidden_items(log, encoder.space, hide_items, seed)
        encoded, scored = self.score_sessions(log, split, progress)
        evaluation = evaluate_heads(scored.heads, encoded, self.no_click, scored.gap)
        outcomes = self._outcome_figures(log, split) if self._trained_space().outcomes else {}
        return dataclasses.replace(evaluation, hidden=hidden, outcomes=outcomes)

    def score(self, log: SessionLog | Frame, split: SplitName | None = None) -> float:
        """Mean log-likelihood of a split's choices by the reward's best response, nats per event;
        higher is better. None: the test split, or the whole of a frame none of whose users trained
        the model, as scikit-learn gives them. Errors as of `evaluate`."""
        if split is None:
            split = "test"
            if is_frame(log):
                log = as_log(log, self.reading)
                split = "test" if self.seen_users(log, "all").n_seen else "all"
        return -self.evaluate(log, split).heads["reward"].nll.mean

    def __sklearn_is_fitted__(self) -> bool:
        """As scikit-learn asks."""
        return self.space is not None

    def __sklearn_tags__(self) -> Any:
        """As scikit-learn asks: neither a classifier nor a regressor, and no y."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False))

    def seen_users(self, log: SessionLog, split: SplitName = "test") -> SeenUsers:
        """How many users of a split trained this model. Errors as of `score_sessions`."""
        space = self._checked_space(log, split)
        check_columns(space, log)
        reads_training = space.folds > 0 and Encoder(space, log).reads_training_log
        return count_seen(space.trained, log, split, space.folds, reads_training=reads_training)

    def _refuse_counted(self, log: SessionLog, split: SplitName) -> None:
        """Raise ConfigError for training sessions of a fit in parts: without their log it cannot
        leave their own choices out of its counts, and would look better than it is."""
        space = self.space
        if space is None or not space.has_statistics or split not in ("train", "all"):
            return
        in_parts = len(space.trained.users) and not len(space.trained.sessions)
        if not in_parts or Encoder(space, log).reads_training_log:
            return
        if self.seen_users(log, split).n_seen:
            raise ConfigError(
                f"split '{split}' of log '{log.name}' holds users who trained the model part by "
                "part, and their own choices are in its counts: take split 'validation' or 'test', "
                "or a log of other users"
            )

    def score_sessions(
        self, log: SessionLog, split: SplitName = "test", progress: Progress | None = None
    ) -> tuple[EncodedSessions, ScoredSessions]:
        """The sessions of a split, without their bags, and every head's scores of them.

        Raises:
            LogFormatError, FeatureMismatchError: as `evaluate`.
            NumericsError: a utility is not finite.
        """

        def scored(part: EncodedSessions) -> ScoredSessions:
            return checked_scores(scorer(part), log, part)

        encoder = self._encoder(log, split)
        scorer = self._scorer(log.count("candidates", split))
        parts = list(self._parts(encoder, split, scored, progress))
        return encoder.encode_items(log.sessions_in(split)), ScoredSessions.joined(parts)

    @overload
    def predict(
        self,
        log: SessionLog | pl.DataFrame | pl.LazyFrame,
        split: SplitName = "all",
        *,
        at_place: Place = "own",
    ) -> pl.DataFrame: ...

    @overload
    def predict(self, log: Frame, split: SplitName = "all", *, at_place: Place = "own") -> Any: ...

    def predict(
        self, log: SessionLog | Frame, split: SplitName = "all", *, at_place: Place = "own"
    ) -> Any:
        """Utilities and probabilities of displayed candidates.

        Of a log, a row per candidate: session, event, item; known (training displayed the item);
        utility; probability (reward's best response) and, with members, its standard deviation;
        no_click_probability, the same within an event; the generator's; trained_on (the user
        trained the model, whose counts then hold these choices: it is another figure if the log
        is not the training log, row by row). `predict_parts` gives these rows in bounded memory;
        it has the arguments and errors.

        Of a frame, which need not say what was chosen, its rows with these columns added, lists
        where it is nested; of a frame of pandas, its own with its index, else a frame of polars.

        Raises:
            LogFormatError: the frame's displays change as they are read, or it has a column of a
                prediction's name.
            ConfigError: a frame with another split than all.
        """
        if not is_frame(log):
            return pl.concat(self.predict_parts(as_log(log), split, at_place=at_place))
        if split != "all":
            raise ConfigError(
                f"split is '{split}', of a frame every row is predicted: filter the frame, or give "
                "a log (fastgaum.read_log)"
            )
        rows = read_to_predict(log, self.reading)
        return as_it_came(log, rows.frame, self.predict_rows(rows, at_place=at_place))

    def predict_rows(
        self,
        rows: RowsToPredict,
        split: SplitName = "all",
        progress: Progress | None = None,
        *,
        at_place: Place = "own",
    ) -> pl.DataFrame:
        """The rows of a split as they stand, with the columns of `predict`; arguments and errors as
        of `predict_parts`, and LogFormatError for a column of a prediction's name, and where
        displays are made as they are read."""
        if rows.candidate is None:
            raise LogFormatError(
                f"the {rows.n} displayed candidates of the frame are {rows.log.n_candidates} of "
                "the log, whose displays were made as it was read (a public log, a wide table, "
                "clicks='each', "
                "outside='append' or 'drop', items that were not available): leave out rows that "
                "were not available, or predict a log of it, fastgaum.read_log(frame, "
                "options=model.reading)"
            )
        parts = self.predict_parts(rows.log, split, progress, at_place=at_place)
        return beside_rows(rows, pl.concat(parts), split)

    def predict_parts(
        self,
        log: SessionLog | StoredLog,
        split: SplitName = "all",
        progress: Progress | None = None,
        *,
        at_place: Place = "own",
    ) -> Iterator[pl.DataFrame]:
        """The rows of `predict` a chunk of sessions at a time; of a saved log, part by part.

        Args:
            at_place: "own": each candidate where the log displays it. A number from 1: as if all
                were at this place. None: by taste alone, which is the same as at place 1.

        Raises:
            LogFormatError, FeatureMismatchError: as `evaluate`.
            ConfigError: the model does not keep places apart (`examination`), or not this one.
        """
        self._require_place(at_place)
        if isinstance(log, StoredLog):
            return self._predict_stored(log, split, progress, at_place)
        encoder = self._encoder(log, split)
        scorer = self._scorer(log.count("candidates", split), at_place)
        return self._parts(encoder, split, partial(self._predicted, scorer, log), progress)

    def _predict_stored(
        self, stored: StoredLog, split: SplitName, progress: Progress | None, place: Place
    ) -> Iterator[pl.DataFrame]:
        done, n_events = 0, stored.count("events", split)
        for number in range(stored.n_parts):
            part = stored.read([number])
            if part.count("sessions", split):
                yield from self.predict_parts(part, split, at_place=place)
            done += part.count("events", split)
            if progress is not None:
                progress(done, n_events)

    def _require_place(self, place: Place) -> None:
        if place == "own" or self.space is None:
            return
        by_place = self.examination()
        if by_place is None:
            raise ConfigError(
                f"at_place is {place}, and this model does not keep places apart from taste: fit "
                "one with examination = true (preset fastgaum) on a log whose order is real "
                "(--ordered)"
            )
        if place is not None and not (type(place) is int and 1 <= place <= len(by_place)):
            raise ConfigError(
                f"at_place is {place!r}, the displays of the training log had places 1 to "
                f"{len(by_place)}: choose one of them, or none for free of place"
            )

    def _predicted(
        self, scorer: ScoreSessions, log: SessionLog, encoded: EncodedSessions
    ) -> pl.DataFrame:
        scored = checked_scores(scorer(encoded), log, encoded)
        reward, generator = scored.heads["reward"], scored.heads.get("generator")
        no_click = np.repeat(reward.no_click_log_prob, np.diff(encoded.display_offsets))
        columns = {
            "known": ~encoded.unseen,
            "utility": reward.scores,
            "probability": np.exp(reward.log_probs),
            "no_click_probability": np.exp(no_click),
        }
        if reward.spread is not None:
            columns["probability_sd"] = reward.spread
        if generator is not None:
            columns["generator_probability"] = np.exp(generator.log_probs)
        columns |= self._outcome_columns(encoded)
        trained = np.isin(log.user_hashes[encoded.rows], self._trained_space().trained.users)
        n_candidates = np.diff(encoded.display_offsets[encoded.session_offsets])
        columns["trained_on"] = np.repeat(trained, n_candidates)
        return candidate_frame(log, encoded).with_columns(**columns)

    def _outcomes(self, batch: Batch) -> Float64Array | None:
        """What would follow the choice of each candidate of a batch, (n_candidates, n_columns);
        None without outcomes."""
        return None

    def _ridge(self, batch: Batch) -> FloatArray | None:
        """The same by a ridge on its numbers, a rival of heads."""
        return None

    def _outcome_columns(self, encoded: EncodedSessions) -> dict[str, Float64Array]:
        space = self._trained_space()
        if not space.outcomes or not encoded.n_events:
            return {}
        found = [self._outcomes(batch) for batch in self._batches(encoded)]
        if found[0] is None:
            return {}
        labels = [label for one in space.outcomes for label in one.labels]
        values = np.concatenate([one for one in found if one is not None])
        return {f"expected_{label}": values[:, at] for at, label in enumerate(labels)}

    def _outcome_figures(self, log: SessionLog, split: SplitName) -> dict[str, OutcomeFigures]:
        """How well the heads say what followed the choices of a split."""
        encoder = self._encoder(log, split)
        parts = []

        def predicted(
            encoded: EncodedSessions,
        ) -> tuple[IntArray, dict[str, Float64Array], list[FloatArray | None]]:
            events = select_sessions(log, encoded.rows).events
            ridge = [self._ridge(batch) for batch in self._batches(encoded)]
            return events, self._outcome_columns(encoded), ridge

        for events, columns, ridge in self._parts(encoder, split, predicted):
            if not columns:
                return {}
            offsets, choices = pick_rows(log.display_offsets, events)[0], log.choices[events]
            chosen = (offsets[:-1] + choices)[choices >= 0]
            of_ridge = np.concatenate([one for one in ridge if one is not None])[chosen]
            said = np.stack([*columns.values()], 1)[chosen]
            parts.append((events[choices >= 0], said, of_ridge))
        if not parts:
            return {}
        events, found, rival = (np.concatenate(each) for each in zip(*parts, strict=True))
        return figures_of_outcomes(self._trained_space().outcomes, log, events, found, rival)

    def sample(
        self, log: SessionLog, split: SplitName = "test", seed: int = 0, head: Head = "generator"
    ) -> pl.DataFrame:
        """Draw a choice of every display, on logged histories: session, event, item or null."""
        require_whole("seed", seed)
        require_known("head", head, ("reward", "generator"))
        draws = torch.Generator().manual_seed(seed)

        def drawn(encoded: EncodedSessions) -> pl.DataFrame:
            chosen, base = [], 0
            for batch in self._batches(encoded):
                dist = self.choice_distribution(batch, head)
                candidates = sample_candidates(dist, batch.display_offsets, draws).numpy()
                chosen.append(np.where(candidates >= 0, candidates + base, -1))
                base += int(batch.display_offsets[-1])
            rows = pl.Series(np.concatenate(chosen)).replace(-1, None)
            frame = candidate_frame(log, encoded)
            first: pl.DataFrame = frame[encoded.display_offsets[:-1].tolist()]
            return first.with_columns(item=frame["item"].gather(rows))

        # the draws of a part come after those before it
        parts = self._parts(self._encoder(log, split), split, lambda encoded: encoded)
        return pl.concat([drawn(part) for part in parts])

    def user(self, head: Head = "reward") -> Any:
        """A new `live_users.online.OnlineUser`, of `UserModel` alone. Raises ConfigError for
        another model, or one that is not fitted."""
        raise ConfigError(
            f"a {type(self).__name__} scores whole logs (predict): online users are those of a "
            "UserModel, a trained preset"
        )

    def tensors(self, log: SessionLog, split: SplitName = "all") -> Iterator[Batch]:
        """Yield a split as batches of tensors, for `utility` and `choice_log_probs`."""
        return self._batches(self._encoder(log, split).encode(log.sessions_in(split)))

    def _batches(self, encoded: EncodedSessions) -> Iterator[Batch]:
        return (batch.to(self.device) for batch in batches(encoded, SCORING_SESSIONS))

    def _parts(
        self,
        encoder: Encoder,
        split: SplitName,
        work: Callable[[EncodedSessions], _T],
        progress: Progress | None = None,
    ) -> Iterator[_T]:
        """Yield the results of `work` on each chunk of a split, in their order; on the CPU several
        at once, each on a thread of its own. Chunks are cut where batches are."""
        log = encoder.log
        n_events, rows = log.count("events", split), log.sessions_in(split)

        def worked_on(chunk: IntArray) -> tuple[int, _T]:
            encoded = encoder.encode(chunk)
            return encoded.n_events, work(encoded)

        done, cut = 0, chunks(log, rows, SCORING_SESSIONS) if len(rows) else iter(())
        on_threads = self.device.type == "cpu"
        for n, result in (one_thread_each if on_threads else map)(worked_on, cut):
            done += n
            if progress is not None:
                progress(done, n_events)
            yield result

    def _encoder(self, log: SessionLog, split: SplitName) -> Encoder:
        """The encoder of a log; it is made first, and says faults of the log."""
        return Encoder(self._checked_space(log, split), log)

    def _checked_space(self, log: SessionLog, split: SplitName) -> FeatureSpace:
        space = self._trained_space()
        require_split(log, split)
        return space

    def _trained_space(self) -> FeatureSpace:
        if self.space is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        return self.space
