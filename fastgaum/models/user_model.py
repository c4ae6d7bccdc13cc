"""UserModel: a learned user. Fit on a log; then it scores display sets, draws choices, and moves
its state on.

model = UserModel.from_preset("fastgaum")
table = model.fit(log)                       # a polars frame, one row per epoch
model.evaluate(log, split="test")
model.save("user.safetensors")
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch

from fastgaum.checkpoint import State
from fastgaum.config import Config
from fastgaum.errors import ConfigError, NumericsError
from fastgaum.features.batches import ShardIterator, StreamedSessions
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import EncodedSessions, Sessions
from fastgaum.features.space import FeatureSpace
from fastgaum.game.epochs import Observer
from fastgaum.game.scoring import HeadScores, Outputs, ScoredSessions, score
from fastgaum.logs.log import FloatArray, SessionLog, SplitName
from fastgaum.logs.shards import AnyLog
from fastgaum.machine import device_of
from fastgaum.models.choice_model import (
    ChoiceModel,
    Head,
    offers_no_click,
    require_validation,
)
from fastgaum.models.model_file import load_user_model, user_model_state
from fastgaum.nets.examination import Place
from fastgaum.nets.histories import Carry, Encoders, history_encoder
from fastgaum.nets.networks import Networks, context_sizes, log_rates, require_room
from fastgaum.nets.regularisers import ChoiceDistribution, Regulariser, regulariser_of
from fastgaum.nets.tables import TableMaker
from fastgaum.nets.tensors import Bags, BatchTensors
from fastgaum.processes import Processes

if TYPE_CHECKING:
    from fastgaum.game.checkpoint import Checkpointer


class UserModel(ChoiceModel):
    """History encoder, reward model and generator over one feature space.

    Attributes:
        config: the resolved configuration; after `fit` as it is for a log of that size, with the
            searched switches as they were chosen.
        asked: the configuration that was asked for, from which each `fit` starts.
        networks: the torch modules; None before `fit`.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        regulariser: Regulariser | None = None,
        history: Encoders | None = None,
        tables: TableMaker | None = None,
        device: str = "auto",
    ) -> None:
        """Take a configuration; a `regulariser` or a history encoder of one's own replaces the
        configured one.

        `history` makes an encoder of the configuration, the number of ids and the number of numbers
        of a bag: a subclass of `nets.histories.HistoryEncoder` will do. Both are code, which no
        file holds: `load` wants them again. `tables` (`nets.tables.TableMaker`) makes the tables
        over ids; autograd then trains the model, and what is saved of it is an ordinary model.

        Raises:
            ConfigError: the device is not available.
        """
        self.config = self.asked = config or Config()
        self.regulariser: Regulariser = regulariser or regulariser_of(self.config)
        self.history: Encoders = history or history_encoder
        self.tables = tables
        self.device = device_of(device)
        self.networks: Networks | None = None

    @classmethod
    def from_preset(
        cls,
        name: str = "fastgaum",
        *,
        regulariser: Regulariser | str | None = None,
        history: Encoders | str | None = None,
        tables: TableMaker | None = None,
        device: str = "auto",
        **changes: object,
    ) -> UserModel:
        """A model with a preset's configuration, with changes.

        `regulariser` and `history` are names, as in the configuration, or code of one's own as in
        `UserModel`.

        Raises:
            ConfigError: unknown preset or key, or an impossible value.
        """
        if isinstance(history, str):
            changes["history"], history = history, None
        if isinstance(regulariser, str):
            changes["regulariser"], regulariser = regulariser, None
        asked = Config.from_preset(name, **changes)
        return cls(asked, regulariser=regulariser, history=history, tables=tables, device=device)

    def fit(
        self,
        log: AnyLog,
        observer: Observer | None = None,
        *,
        checkpointer: Checkpointer | None = None,
        processes: Processes | None = None,
    ) -> pl.DataFrame:
        """Train on the log's training split, choose the epoch on its validation split; return a row
        per epoch.

        A log in shards (`logs.read.open_log`) is read a few shards at a time. The caller's torch
        random state is left as it was. The same seed on the same machine gives the same model.
        Ctrl-C raises KeyboardInterrupt; the model is then of no use until the next `fit`.

        Args:
            log: a log in memory, or one in shards.
            observer: sees each epoch and each batch.
            checkpointer: saves the run as it goes, and brings it to where a former one was.
            processes: those that fit this model together. Each calls this with the same log, a
                batch's sessions are shared among them, and all end with the same weights.

        Raises:
            LogFormatError: a split is empty, or no click is required and none is in the log.
            ConfigError: the networks do not fit memory.
            NumericsError: a loss is not finite; the model then holds the last good state.
        """
        # the engine's kernels take a second to import: a loaded model does without
        from fastgaum.engine.dispatch import game_for
        from fastgaum.game.checkpoint import Checkpointer
        from fastgaum.game.loop import Trainer, TrainingData

        checkpointer, processes = checkpointer or Checkpointer(), processes or Processes()
        self.config = self.configured(log)
        if self.config.search:
            self.config = self._searched(log, checkpointer, processes)
        c = self.config
        made_of = c.protocol, c.set_context, c.relations, c.examination
        train: Sessions | None = None
        if isinstance(log, SessionLog) and processes.shards is None:
            space, train = FeatureSpace.fit_training(log, *made_of)
        else:
            space = FeatureSpace.fit(log, *made_of)
        require_validation(log)
        if self.tables is None:
            require_room(
                self.config, space.n_ids, space.n_numbers, self.history, context_sizes(space)
            )
        self.space, self.outside = space, offers_no_click(log, self.config.no_click)
        encoder = space.encoder(log)
        data = TrainingData(
            train=self._sessions(encoder, log, "train", processes.shards)
            if train is None
            else train,
            validation=self._sessions(encoder, log, "validation"),
            session_name=lambda row: f"'{log.session_name(row)}'",
        )
        del encoder, train
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            networks = Networks(
                self.config,
                space.n_ids,
                space.n_numbers,
                self.history,
                self.tables,
                context_sizes(space),
                log_rates(space),
            )
            self.networks = networks.to(self.device)
            unknown = torch.from_numpy(space.unknown_of_id)
            game = game_for(
                self.networks, self.config, self.regulariser, unknown, self.outside, processes
            )
            rows = Trainer(game, data, observer, checkpointer, processes).run()
        self.table = pl.DataFrame([row.to_dict() for row in rows])
        return self.table

    @property
    def settings(self) -> Config:
        """The configuration."""
        return self.config

    def configured(self, log: AnyLog) -> Config:
        """The configuration asked for, as it is for a log of this size."""
        return self.asked.grown(log.count("events", "train"), log.count("sessions", "train"))

    @torch.no_grad()
    def utility(self, batch: BatchTensors, at_place: Place = "own") -> torch.Tensor:
        """Utilities of a batch's candidates, shape (n_candidates,); no click has utility 0.

        With what their places add, or `at_place` as in `predict_parts`."""
        self._require_place(at_place)
        networks = self._networks().eval()
        utility = networks.utility(batch)[0]
        return utility if at_place == "own" else _moved(networks, utility, None, batch, at_place)[0]

    def examination(self, head: Head = "reward") -> FloatArray | None:
        """As the base says; None also for the generator of exact players."""
        networks = self._networks()
        scorer = networks.player.reward if head == "reward" else networks.generator
        if scorer is None or scorer.examination is None:
            return None
        by_place: FloatArray = scorer.examination.by_place.detach().exp().cpu().numpy()
        return by_place

    @torch.no_grad()
    def choice_distribution(self, batch: BatchTensors, head: Head = "reward") -> ChoiceDistribution:
        """A head's distribution over each display set: the reward's best response, or the
        generator's own."""
        networks = self._networks().eval()
        utility, states = networks.utility(batch)
        if head == "reward" or networks.generator is None:
            return self.regulariser.best_response(
                self.config.eta * utility, batch.display_offsets, self.outside
            )
        return self.regulariser.link(
            networks.logits(batch, states), batch.display_offsets, self.outside
        )

    def initial(self, n: int) -> Carry:
        """Histories of n users who have chosen nothing yet."""
        return self._networks().player.history.initial(n)

    @torch.no_grad()
    def advance(self, carries: Carry, tokens: Bags) -> Carry:
        """Histories after one more choice of each user: one recurrent step, never a re-encoding
        (bilstm excepted)."""
        return self._networks().player.history.advance(carries, tokens)

    def state(self) -> State:
        """Weights, configuration and feature space."""
        return user_model_state(self)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        regulariser: Regulariser | None = None,
        history: Encoders | None = None,
        device: str = "auto",
    ) -> UserModel:
        """Read a saved model, or the model of a run folder; one with code of your own wants that
        code again.

        Raises:
            CheckpointError: the file is missing, damaged, or made by another version, or the model
                had a regulariser or a history encoder of its own, which is not given (or is another
                one).
        """
        return load_user_model(cls, Path(path), device, regulariser, history)

    def _searched(self, log: AnyLog, checkpointer: Checkpointer, processes: Processes) -> Config:
        """The configuration asked for, its searched switches as they do best on validation with
        exact players."""
        exact = {
            "players": "exact",
            "epochs": max(self.asked.warm_start, 1),
            "search": (),
            "states": "logged",
        }
        settings = [
            dict(zip(self.asked.search, values, strict=True))
            for values in itertools.product((True, False), repeat=len(self.asked.search))
        ]
        for switches in settings[len(checkpointer.tried) :]:
            trial = UserModel(
                self.asked.replace(**exact, **switches),
                regulariser=self.regulariser,
                device=self.device.type,
                history=self.history,
                tables=self.tables,
            )
            try:
                table = trial.fit(log, checkpointer=checkpointer, processes=processes)
                loss = min(table["val_loss"].to_list())
            except NumericsError:
                # the training proper then meets the same, and leaves its last good state
                loss = math.inf
            checkpointer.tried.append(loss)
        self.settings_tried = len(settings)
        best = min(zip(checkpointer.tried, settings, strict=True), key=lambda trial: trial[0])[1]
        return self.asked.replace(**best, search=())

    def _sessions(
        self, encoder: Encoder, log: AnyLog, split: SplitName, shards: ShardIterator | None = None
    ) -> Sessions | StreamedSessions:
        if not isinstance(log, SessionLog):
            return StreamedSessions(encoder, log, split, self.config.window, shards)
        if shards is not None:
            raise ConfigError(
                "shards are handed out, and the log is in memory, not in shards: convert it, and "
                "open_log it"
            )
        return encoder.for_training(log.sessions_in(split))

    def _score(self, encoded: EncodedSessions) -> ScoredSessions:
        return self._scored_by(self._networks().outputs, encoded)

    def _score_at(self, encoded: EncodedSessions, place: int | None) -> ScoredSessions:
        networks = self._networks()
        return self._scored_by(
            lambda batch: _moved(networks, *networks.outputs(batch), batch, place), encoded
        )

    def _scored_by(self, outputs: Outputs, encoded: EncodedSessions) -> ScoredSessions:
        scores = score(
            outputs,
            self._batches(encoded),
            self.regulariser,
            self.config.eta,
            self.outside,
        )
        heads: dict[str, HeadScores] = {"reward": scores.reward}
        if scores.generator is not None:
            heads["generator"] = scores.generator
        return ScoredSessions(heads, scores.gap)

    def _networks(self) -> Networks:
        if self.networks is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        return self.networks


@torch.no_grad()
def _moved(
    networks: Networks,
    utility: torch.Tensor,
    logits: torch.Tensor | None,
    batch: BatchTensors,
    place: int | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Utilities and logits of a batch, of networks with an examination, as if all candidates stood
    at one place."""
    offsets, reward = batch.display_offsets, networks.player.reward.examination
    assert reward is not None
    if networks.generator is not None and logits is not None:
        assert networks.generator.examination is not None
        logits = networks.generator.examination.moved(logits, offsets, place)
    return reward.moved(utility, offsets, place), logits
