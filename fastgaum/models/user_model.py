"""UserModel: a learned user.

model = UserModel.from_preset("fastgaum")
model.fit(log)
model.history_                               # a polars frame, one row per epoch
model.evaluate(log, split="test")
model.save("user.safetensors")
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import polars as pl
import torch

from fastgaum import ops, threads
from fastgaum.arrays import BoolArray, Float64Array, FloatArray
from fastgaum.config import Config
from fastgaum.errors import (
    CheckpointError,
    ConfigError,
    NumericsError,
    as_given,
    require_path,
    require_type,
)
from fastgaum.features.encoder import Encoder
from fastgaum.features.sessions import EncodedSessions
from fastgaum.features.space import FeatureSpace
from fastgaum.features.training_order import number_of_folds
from fastgaum.game.checkpoint import Checkpointer, TriedSetting
from fastgaum.game.observers import EpochRow, Observer, Observers
from fastgaum.game.scoring import ScoredSessions, mean_of, out_of_fold
from fastgaum.kernels import ahead
from fastgaum.live_users.online import OnlineModel, OnlineUser
from fastgaum.logs.log import SessionLog
from fastgaum.logs.read import as_log
from fastgaum.logs.store import StoredLog
from fastgaum.logs.tables import Frame
from fastgaum.machine import device_of
from fastgaum.models.choice_model import ChoiceModel, ScoreSessions
from fastgaum.models.fit_bar import bar_of_fit
from fastgaum.models.fit_checks import offers_no_click
from fastgaum.models.fit_data import (
    Prepared,
    PreparedLog,
    PreparedParts,
    in_memory,
    parts_to_choose,
)
from fastgaum.models.folds import forget_ids, mean_out_of_fold, member_config
from fastgaum.models.model_file import (
    OwnCode,
    SavedModel,
    check_own,
    code_name,
    load_model_state,
    networks_of,
)
from fastgaum.models.networks_model import NetworksModel
from fastgaum.models.outcomes import by_ridge, fit_heads, heads_of, outcomes_of_candidates
from fastgaum.models.portfolio import Halving, budget_of, settings_of, short_epochs
from fastgaum.models.space_state import saved_space, space_of
from fastgaum.models.start import require_same_settings, take_weights
from fastgaum.nets.batches import Batch
from fastgaum.nets.examination import Place
from fastgaum.nets.histories import Encoders, history_encoder
from fastgaum.nets.networks import (
    ContextSizes,
    Head,
    Networks,
    context_sizes,
    log_rates,
    require_room,
)
from fastgaum.nets.outcomes import OutcomeHead
from fastgaum.nets.regularisers import (
    ChoiceDistribution,
    Regulariser,
    regulariser_of,
    require_regulariser,
)
from fastgaum.nets.tensors import float32_on
from fastgaum.state_file import State, damage_named, state_of
from fastgaum.threads import seeded

if TYPE_CHECKING:
    from fastgaum.game.processes import Processes

IN_MEMORY_BYTES = 1 << 28
"""weights of compared settings above this size are not kept"""


class UserModel(NetworksModel):
    """History encoder, reward model and generator over one feature space.

    Attributes:
        config: as it was chosen by the last `fit`.
        asked: the configuration from which each `fit` starts.
        networks: the torch modules; None before `fit`.
        trials: settings that the last fit compared, each with its validation loss.
        members: of a fit by folds the fits of all folds but the first, whose networks are
            `networks`. Results are means over all folds; a user who trained is scored by the fit
            that left its fold out.
        heads: what follows choices, on the states of `networks`; None without outcomes.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        regulariser: Regulariser | None = None,
        history: Encoders | None = None,
        device: str = "auto",
    ) -> None:
        """Take a configuration; a `regulariser` and a history encoder of one's own replace the
        configured ones. They are code, which no file holds: `load` wants them again.

        `history` makes an encoder (`nets.histories.HistoryEncoder`) of the configuration and the
        numbers of ids and of numbers of a bag.

        Raises:
            ConfigError: the device is not available, or `regulariser` is none.
        """
        self.config = self.asked = Config() if config is None else config
        require_type("config", self.config, Config)
        if regulariser is not None:
            require_regulariser(regulariser)
        self.regulariser: Regulariser = regulariser or regulariser_of(self.config)
        self.history: Encoders = history or history_encoder
        if not callable(self.history):
            raise ConfigError(
                f"history is {as_given(history)}, a function that makes an encoder is required"
            )
        self.device = device_of(device)
        self.networks: Networks | None = None
        self.trials: tuple[TriedSetting, ...] = ()
        self.members: tuple[UserModel, ...] = ()
        self.heads: OutcomeHead | None = None
        self._online: dict[str, OnlineModel] = {}
        self._unmet: BoolArray | None = None
        """ids that the fit without a fold has not met, shape (n_ids,)"""

    def __repr__(self) -> str:
        says = "not trained" if self.space is None else f"{len(self.space.unknown_of_id):,} ids"
        return f"UserModel(preset '{self.config.preset}', {says})"

    @classmethod
    def from_preset(
        cls,
        name: str = "fastgaum",
        *,
        regulariser: Regulariser | str | None = None,
        history: Encoders | str | None = None,
        device: str = "auto",
        **changes: object,
    ) -> UserModel:
        """A model with a preset's configuration, with changes. `regulariser` and `history` are
        names, or code of one's own.

        Raises:
            ConfigError: unknown preset or key, or an impossible value.
        """
        if isinstance(history, str):
            changes["history"], history = history, None
        if isinstance(regulariser, str):
            changes["regulariser"], regulariser = regulariser, None
        asked = Config.from_preset(name, **changes)
        return cls(asked, regulariser=regulariser, history=history, device=device)

    def fit(
        self,
        log: SessionLog | StoredLog | Frame,
        observers: Sequence[Observer] | None = (),
        *,
        start: UserModel | None = None,
        checkpointer: Checkpointer | None = None,
        processes: Processes | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Train on the log's training split, choose the epoch on its validation split; return the
        model, whose `history_` has a row per epoch.

        The same seed on the same machine gives the same model. Fits on several threads take turns.
        After KeyboardInterrupt the model is of no use until the next `fit`.

        Args:
            log: a log, or a frame whose columns have roles by their names; or a saved log, which
                is read part by part and need not fit in memory.
            observers: see each epoch and each batch.
            start: a fitted model, of folds the first one, whose weights are taken over, those of
                ids by their names; validated first, they stay where no epoch is better. Counts and
                ids are those of `log`, scales of numbers those of `start`.
            checkpointer: saves the run as it goes, and brings it to where a former one was.
            processes: those that fit this model together (`game.processes`), on the same log.
            progress: whether a bar shows how far it is; None: on a terminal and in a notebook.

        Raises:
            LogFormatError: a split is empty, `no_click` does not fit the log, or a frame's column
                has no role.
            FeatureMismatchError: the log has other fields than that of `start`.
            ConfigError: the networks do not fit memory, or are not those of `start`.
            NumericsError: a loss is not finite; the model then holds the last good state.
        """
        from fastgaum.game.processes import Processes

        if threads.get_threads() > 1:
            ahead.start()
        checkpointer, processes = checkpointer or Checkpointer(), processes or Processes()
        given = in_memory(log) if isinstance(log, StoredLog) else as_log(log)
        parts = given if isinstance(given, StoredLog) else None
        told = Observers(() if observers is None else observers)
        if start is not None:
            require_type("start", start, UserModel)
            require_same_settings(self.asked, start)
            # it may be this model, which becomes another
            start = copy.copy(start)
        if parts is not None and (outcomes := parts.first.outcomes):
            raise ConfigError(
                f"a log in parts is fitted without outcomes ({', '.join(outcomes)}): load it into "
                "memory (load_log), or convert it without them"
            )
        if parts is not None and (start is not None or self.folds_for(given)):
            what = "folds" if start is None else "start"
            raise ConfigError(
                f"a log in parts is fitted without {what}: load it into memory (load_log), or "
                f"leave {what} out"
            )
        former = None if start is None else start.space
        settings = self.settings_for(given)
        first = next(iter(settings.values()))
        prepare: PreparedLog | partial[PreparedParts] = (
            PreparedLog(given, self.folds_for(given), former)
            if isinstance(given, SessionLog)
            else partial(PreparedParts, given, processes=processes)
        )
        compared = None
        if len(settings) > 1:
            # settings of a log in parts are compared on a sample of these
            compared = PreparedLog(parts_to_choose(parts)) if parts is not None else prepare
        # what is refused leaves the model as it was
        prepared = (compared or prepare)(first)
        self.trials, self.members, self.settings_tried = (), (), len(settings)
        self.heads = None
        self.config = first
        wanted = progress if processes.is_first else False
        with bar_of_fit(wanted, self.config, len(settings)) as bars:
            shown = Observers([*told.observers, *bars])
            begun: Mapping[int, Begun] = {}
            if isinstance(compared, PreparedLog):
                # before a file is written
                require_room(*self._sizes(prepared.space))
                checkpointer.begin()
                halving = self._halving(given, settings)
                begun = self._compare(settings, halving, compared, checkpointer, processes)
                prepared = prepare(self.config)
            del prepare, compared
            self.members = self._on_folds(prepared, shown, checkpointer, processes, begun)
            rows = self.train_on(
                prepared, shown, checkpointer, processes, begun=begun.get(0), start=start
            )
        if prepared.space.outcomes and isinstance(given, SessionLog):
            with seeded(self.config.seed):
                self.heads = fit_heads(self._networks(), prepared.space, given, self.config.seed)
        self.history_ = pl.DataFrame([row.to_dict() for row in rows])
        return self

    def folds_for(self, log: SessionLog | StoredLog) -> int:
        """Folds of users that `fit` makes of a log; 0: it takes the log's own split."""
        if isinstance(log, StoredLog):
            log = in_memory(log)
        folds = self.asked.folds_of(log.count("events", "train"))
        return number_of_folds(log, folds) if folds and isinstance(log, SessionLog) else folds

    def settings_for(self, log: SessionLog | StoredLog) -> dict[str, Config]:
        """Configurations that `fit` compares on a log, by name, in order."""
        settings = settings_of(self.asked, log)
        names = self._halving(log, settings).names
        return {name: settings[name] for name in names}

    def _halving(self, log: SessionLog | StoredLog, settings: Iterable[str]) -> Halving:
        epochs = short_epochs(log.count("candidates", "train"))
        halving = Halving(tuple(settings), self.folds_for(log), epochs)
        return halving.within(budget_of(self.asked, log))

    def _compare(
        self,
        settings: Mapping[str, Config],
        halving: Halving,
        prepare: PreparedLog,
        checkpointer: Checkpointer,
        processes: Processes,
    ) -> Mapping[int, Begun]:
        """Choose the setting of the lowest loss out of fold with exact players, by successive
        halving; return its fits of the folds that are not done, from which these go on."""
        begun = dict[tuple[str, int], Begun]()

        def fit(name: str, fold: int, epochs: int | None = None) -> Begun:
            config = member_config(settings[name].warmed(), fold)
            if epochs is not None:
                config = config.replace(epochs=epochs)
            trial = self._like(config)
            rows = trial.train_on(prepare(config), None, Checkpointer(), processes, fold)
            return Begun(rows, trial._networks().state_dict())

        def loss_of(name: str, fold: int, epochs: int | None) -> float:
            try:
                found = fit(name, fold, epochs)
            except NumericsError:
                # the training proper then meets the same, and leaves its last good state
                return sys.float_info.max
            n_bytes = sum(weight.nbytes for weight in found.weights.values())
            # large ones are made again: the same fit gives the same weights
            if prepare.folds and n_bytes * len(settings) <= IN_MEMORY_BYTES:
                begun[name, fold] = found
            return min(row.score for row in found.rows)

        if not checkpointer.compared:
            checkpointer.compared = halving.run(loss_of)
        asked = self.asked.search
        self.trials = tuple(
            replace(one, values={key: getattr(settings[one.name], key) for key in asked})
            for one in checkpointer.compared
        )
        best = min(self.trials, key=TriedSetting.rank)
        self.config = settings[best.name]
        of_folds: dict[int, Begun] = {}
        if best.val_loss < sys.float_info.max:
            done = range(1, 1 + len(checkpointer.members))
            for fold in (one for one in range(prepare.folds) if one not in done):
                # the fold's own fit meets a divergence again, and leaves its last good state
                with suppress(NumericsError):
                    of_folds[fold] = begun.get((best.name, fold)) or fit(best.name, fold)
        return of_folds

    def _sizes(self, space: FeatureSpace) -> tuple[Config, int, int, Encoders, ContextSizes]:
        """What `Networks` are made of."""
        return self.config, space.n_ids, space.n_numbers, self.history, context_sizes(space)

    def _like(self, config: Config) -> UserModel:
        return UserModel(**self._given | {"config": config})

    def _on_folds(
        self,
        of_log: Prepared | PreparedParts,
        observers: Observers,
        checkpointer: Checkpointer,
        processes: Processes,
        begun: Mapping[int, Begun],
    ) -> tuple[UserModel, ...]:
        """Fit the chosen configuration on each fold but the first, with another seed each."""
        config, self.space = self.config, of_log.space
        self.no_click = offers_no_click(of_log.log, config.no_click)
        done = list(self._fitted_members(checkpointer.members))
        for fold in range(len(done) + 1, of_log.space.folds):
            observers.tell(Observer.on_fold_begin, fold, of_log.space.folds)
            model = self._like(member_config(self.config, fold))
            model.train_on(of_log, None, checkpointer, processes, fold, begun.get(fold))
            done.append(model)
            checkpointer.members.append(model._networks().state_dict())
        return tuple(done)

    def _fitted_members(self, weights: Sequence[dict[str, torch.Tensor]]) -> Iterator[UserModel]:
        """The fits of the folds after the first, from their weights. Raises ValueError for damaged
        ones."""
        assert self.space is not None
        for fold, of_member in enumerate(weights, start=1):
            model = self._like(member_config(self.config, fold))
            networks = networks_of(model.config, self.space, of_member, self.history)
            model.networks = networks.to(self.device)
            model.space, model.no_click = self.space, self.no_click
            yield model

    def train_on(
        self,
        of_log: Prepared | PreparedParts,
        observers: Observers | None,
        checkpointer: Checkpointer,
        processes: Processes,
        fold: int = 0,
        begun: Begun | None = None,
        start: UserModel | None = None,
    ) -> list[EpochRow]:
        """Train new networks with `config` on all users but those of a fold, or without folds on
        the log's own split; nothing is compared. Errors are those of `fit`.

        begun: a fit of these networks with exact players, on the same data, to go on from."""
        # kernels take a second to import: a loaded model does without
        from fastgaum.game.game import Game
        from fastgaum.game.loop import Trainer

        space = of_log.space
        self.config = self.config.for_items(space.item_counts.displays.tolist())
        sizes = self._sizes(space)
        require_room(*sizes)
        self.space = space
        self.no_click = offers_no_click(of_log.log, self.config.no_click)
        with seeded(self.config.seed, self.device):
            with float32_on():
                networks = Networks(*sizes, log_rates(space))
            self.networks = networks.to(self.device)
            if start is not None:
                take_weights(self.networks, space, start)
            if begun is not None:
                self.networks.load_state_dict(begun.weights, strict=False)
            unknown = torch.from_numpy(space.unknown_of_id)
            game = Game(self.networks, self.config, self.regulariser, unknown, self.no_click)
            trainer = Trainer(
                game,
                of_log.data(fold),
                observers,
                checkpointer,
                processes,
                starts=start is not None,
                warmed=() if begun is None else begun.rows,
            )
            self._unmet = ~of_log.known_ids(fold) if space.folds else None
            self._is_training = True
            try:
                rows = trainer.run()
            finally:
                self._is_training = False
            if self._unmet is not None:
                forget_ids(self.networks, self._unmet, space.unknown_of_id)
            return rows

    @property
    def settings(self) -> Config:
        """The configuration."""
        return self.config

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As of `ChoiceModel`; `deep`: with the keys of the configuration."""
        keys: dict[str, Any] = self.asked.to_mapping() if deep else {}
        return (
            super().get_params() | keys | {str(what): one for what, one in self._own_code().items()}
        )

    def set_params(self, **params: Any) -> Self:
        """As of `ChoiceModel`; also keys of the configuration."""
        own: dict[str, Any] = {}
        keys: dict[str, Any] = {}
        for name, value in params.items():
            # a regulariser and a history have names in the configuration, or are code
            is_key = name not in self._given or (isinstance(value, str) and name != "device")
            if is_key:
                keys[name] = value
            if name in self._given:
                own[name] = None if is_key else value
        config = own.get("config") or self.asked
        if "preset" in keys:
            config = Config.from_preset(keys.pop("preset"), **keys)
        elif keys:
            config = config.with_keys(**keys)
        return super().set_params(**own | {"config": config})

    def user(self, head: Head = "reward") -> OnlineUser:
        """As of `ChoiceModel`; the first user takes longer, the networks are copied."""
        found = self._online.get(head)
        if found is None or found.networks.source is not self.networks:
            found = OnlineModel(self, head)
            # what an observer has copied is of that epoch's weights
            if not self._is_training:
                self._online[head] = found
        return OnlineUser(found)

    def state(self) -> State:
        """As of `ChoiceModel`, with the names of code of the user's own."""
        if self.networks is None or self.space is None:
            raise ConfigError("the model has not been trained: call fit before save")
        trials = [
            {"name": one.name, "val_loss": one.val_loss, "rung": one.rung} for one in self.trials
        ]
        networks = self.networks
        if self._is_training and self._unmet is not None:
            # as it is after the fit
            networks = copy.deepcopy(networks)
            forget_ids(networks, self._unmet, self.space.unknown_of_id)
        return {
            "space": saved_space(self.space),
            "no_click": self.no_click,
            "config": self.config.to_mapping(),
            "own": {what: code_name(code) for what, code in self._own_code().items()},
            "weights": networks.state_dict(),
            "compared": trials,
            "members": [one._networks().state_dict() for one in self.members],
            "heads": {} if self.heads is None else self.heads.state_dict(),
        }

    def _own_code(self) -> dict[OwnCode, Any]:
        own: dict[OwnCode, Any] = {}
        if self.regulariser != regulariser_of(self.config):
            own["regulariser"] = self.regulariser
        if self.history is not history_encoder:
            own["history"] = self.history
        return own

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
            CheckpointError: the file is missing, damaged, of another version, or with code that is
                not given.
        """
        require_path("a saved model", path)
        file, state = load_model_state(Path(path))
        if "model" in state:
            raise CheckpointError(
                f"'{path}' holds the model {state['model']!r}, which has no states of its own to "
                "play on: train a preset (fastgaum) for a world or a policy; evaluate, predict and "
                "report take this one, and fastgaum.baselines.registry.load_model reads it"
            )
        return cls.of_state(file, state, device, regulariser, history)

    @classmethod
    def of_state(
        cls,
        path: Path,
        state: State,
        device: str,
        regulariser: Regulariser | None = None,
        history: Encoders | None = None,
    ) -> UserModel:
        """The model of a state that was read from the file `path`. Raises CheckpointError as
        `load`."""
        with damage_named(path):
            saved = state_of(state, SavedModel)
            config = Config.from_mapping(saved.config)
            model = cls(config, regulariser=regulariser, history=history, device=device)
            model.trials = tuple(saved.compared)
        own = {what: code_name(code) for what, code in model._own_code().items()}
        check_own(path, saved.own, own)
        with damage_named(path):
            model.space, model.no_click = space_of(saved.space), saved.no_click
            networks = networks_of(config, model.space, saved.weights, model.history)
            model.networks = networks.to(model.device)
            if len(saved.members) != max(model.space.folds - 1, 0):
                raise ValueError(
                    f"it holds {len(saved.members) + 1} fits, and its space has "
                    f"{model.space.folds} folds"
                )
            model.members = tuple(model._fitted_members(saved.members))
            if saved.heads:
                state_dim = networks.player.state_dim
                model.heads = heads_of(model.space, state_dim, saved.heads)
        return model

    def _outcomes(self, batch: Batch) -> Float64Array | None:
        """As of `ChoiceModel`."""
        if self.heads is None or self.space is None:
            return None
        with ops.plain():
            return outcomes_of_candidates(self.heads, self._networks(), self.space, batch)

    def _ridge(self, batch: Batch) -> FloatArray | None:
        """As of `ChoiceModel`."""
        if self.heads is None or self.space is None:
            return None
        return by_ridge(self.heads, self.space.outcomes, batch.candidates.numbers.cpu().numpy())

    def utility(self, batch: Batch) -> torch.Tensor:
        """The mean over the members; of users who trained, by the fit that left them out."""
        each = [super().utility(batch), *(one.utility(batch) for one in self.members)]
        return mean_out_of_fold(each, batch)

    def examination(self, head: Head = "reward") -> FloatArray | None:
        """As of `ChoiceModel`: as utilities are, the mean over the members in the logarithm."""
        each = [super().examination(head), *(one.examination(head) for one in self.members)]
        found = [np.log(one) for one in each if one is not None]
        return np.asarray(np.exp(np.mean(found, axis=0)), np.float32) if found else None

    def choice_distribution(self, batch: Batch, head: Head = "reward") -> ChoiceDistribution:
        """As `utility`."""
        each = [super().choice_distribution(batch, head)]
        each += [one.choice_distribution(batch, head) for one in self.members]
        if len(each) == 1:
            return each[0]
        probs = mean_out_of_fold([one.probs for one in each], batch)
        no_click = mean_out_of_fold([one.no_click_prob for one in each], batch)
        return ChoiceDistribution(probs, no_click, probs.log(), no_click.log())

    def _scorer(self, n_candidates: int, at_place: Place = "own") -> ScoreSessions:
        each = [super()._scorer(n_candidates, at_place)]
        each += [one._scorer(n_candidates, at_place) for one in self.members]

        def score(encoded: EncodedSessions) -> ScoredSessions:
            members = [of_one(encoded) for of_one in each]
            mean = mean_of(members)
            return mean if encoded.held_out is None else out_of_fold(mean, members, encoded)

        return score


def members_of(model: ChoiceModel) -> tuple[ChoiceModel, ...]:
    """The fits of a model's folds, each as a model of its own; none where there are no folds."""
    if not isinstance(model, UserModel) or not model.members:
        return ()
    first = copy.copy(model)
    # online users of the whole model are means
    first.members, first._online = (), {}
    return (first, *model.members)


class Begun(NamedTuple):
    """A fit with exact players, from which one with the game goes on."""

    rows: Sequence[EpochRow]
    weights: dict[str, torch.Tensor]
    """of its best epoch"""


def fits_without(model: UserModel, log: SessionLog) -> tuple[UserModel, ...]:
    """The fit of each fold of a model as a model that knows nothing of the users whom it left out:
    not in its networks, nor in its counts, which are those of the other folds. log: the training
    log (`Encoder.reads_training_log`)."""
    assert model.space is not None
    spaces = Encoder(model.space, log).spaces_without_folds()
    fits = []
    for one, space in zip(members_of(model), spaces, strict=True):
        fit = copy.copy(one)
        assert isinstance(fit, UserModel)
        fit.space, fit._online = space, {}
        fits.append(fit)
    return tuple(fits)
