"""UserModel: a learned user. Fit on a log; then it scores display sets, draws choices, and moves its state on.

model = UserModel.from_preset("fastgaum")
table = model.fit(log)                       # a polars frame, one row per epoch
model.evaluate(log, split="test")
model.save("user.safetensors")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from fastgaum.config import Config
from fastgaum.errors import ConfigError, LogFormatError, NumericsError
from fastgaum.metrics.evaluation import Evaluation, evaluate_heads
from fastgaum.models.history import Carry
from fastgaum.models.networks import Networks
from fastgaum.models.regularisers import ChoiceDistribution, Regulariser, regulariser_of
from fastgaum.models.sampling import sample_candidates
from fastgaum.models.tensors import BatchTensors, to_tensors
from fastgaum.sessions.batches import batches
from fastgaum.sessions.features import EncodedSessions, FeatureSpace
from fastgaum.sessions.packed import SessionLog, SplitName

Head = Literal["reward", "generator"]


class UserModel:
    """History encoder, reward model and generator over one feature space.

    Attributes:
        config: the resolved configuration.
        space: what the training split said of items and fields; None before `fit`.
        networks: the torch modules; None before `fit`.
        table: the last fit's table, a row per epoch; None before `fit`.
    """

    def __init__(
        self, config: Config | None = None, *, regulariser: Regulariser | None = None, device: str = "auto"
    ) -> None:
        """Take a configuration; a user's own `regulariser` replaces the configured one.

        Raises:
            ConfigError: the device is not available.
        """
        self.config = config or Config()
        self.regulariser: Regulariser = regulariser or regulariser_of(self.config)
        self.device = _device(device)
        self.space: FeatureSpace | None = None
        self.networks: Networks | None = None
        self.outside = False
        self.table: pl.DataFrame | None = None

    @classmethod
    def from_preset(cls, name: str = "fastgaum", *, device: str = "auto", **changes: Any) -> UserModel:
        """A model with a preset's configuration, with changes.

        Raises:
            ConfigError: unknown preset or key, or an impossible value.
        """
        return cls(Config.from_preset(name, **changes), device=device)

    def fit(self, log: SessionLog, observer: Any = None) -> pl.DataFrame:
        """Train on the log's training split, choose the epoch on its validation split; return a row per epoch.

        The caller's torch random state is left as it was. The same seed on the same machine gives the same model.

        Raises:
            LogFormatError: a split is empty, or no click is required and none is in the log.
            NumericsError: a loss is not finite; the model then holds the last good state.
        """
        from fastgaum.training.loop import Trainer, TrainingData
        from fastgaum.training.observers import Silent

        space = FeatureSpace.fit(log, self.config.protocol, self.config.set_context)
        if len(log.sessions_in("validation")) == 0:
            raise LogFormatError(f"log '{log.name}' has no validation session to choose an epoch on: use --split user")
        self.space, self.outside = space, self._offers_no_click(log, space)
        data = TrainingData(
            train=space.encode(log, log.sessions_in("train")),
            validation=space.encode(log, log.sessions_in("validation")),
            session_name=lambda row: f"'{log.session_ids[row]}'",
        )
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            self.networks = Networks(self.config, space.n_ids, space.n_numbers).to(self.device)
            trainer = Trainer(
                self.networks, self.config, self.regulariser, data, torch.from_numpy(space.unknown_of_id), self.outside,
                observer or Silent(), self.device,
            )  # fmt: skip
            rows = trainer.run()
        self.table = pl.DataFrame([row.to_dict() for row in rows])
        return self.table

    def evaluate(self, log: SessionLog, split: SplitName = "test") -> Evaluation:
        """Metrics of both heads on a split, with intervals over users.

        Raises:
            LogFormatError: the split is empty.
            FeatureMismatchError: the log's fields are not the training log's.
        """
        encoded = self._encoded(log, split)
        scores = self._score(encoded)
        heads = {"reward": scores.reward}
        if scores.generator is not None:
            heads["generator"] = scores.generator
        gap = float(scores.gap.mean()) if scores.gap is not None else None
        return evaluate_heads(heads, encoded, self.outside, gap)

    def predict(self, log: SessionLog, split: SplitName = "all") -> pl.DataFrame:
        """One row per candidate: session, event, item, utility, probability (reward's best response), the generator's.

        `no_click_probability` repeats within an event.
        """
        encoded = self._encoded(log, split)
        scores = self._score(encoded)
        frame = _candidate_frame(log, encoded).with_columns(
            utility=scores.reward.scores,
            probability=np.exp(scores.reward.log_probs),
            no_click_probability=np.exp(np.repeat(scores.reward.outside_log_prob, np.diff(encoded.display_offsets))),
        )
        if scores.generator is None:
            return frame
        return frame.with_columns(generator_probability=np.exp(scores.generator.log_probs))

    def sample(
        self, log: SessionLog, split: SplitName = "test", seed: int = 0, head: Head = "generator"
    ) -> pl.DataFrame:
        """Draw a choice for every display set, on logged histories: session, event, item (null for no click)."""
        encoded = self._encoded(log, split)
        draws = torch.Generator().manual_seed(seed)
        parts, base = [], 0
        for batch in self._batches(encoded):
            candidates = sample_candidates(self.choice_distribution(batch, head), batch.display_offsets, draws).numpy()
            parts.append(np.where(candidates >= 0, candidates + base, -1))
            base += int(batch.display_offsets[-1])
        chosen = np.concatenate(parts)
        frame = _candidate_frame(log, encoded)
        first = frame[encoded.display_offsets[:-1].tolist()]
        items = pl.Series("item", [None if row < 0 else row for row in chosen.tolist()], dtype=pl.Int64)
        drawn: pl.DataFrame = first.select("session", "event")
        return drawn.with_columns(item=frame["item"].gather(items.fill_null(0)).set(items.is_null(), None))

    @torch.no_grad()
    def utility(self, batch: BatchTensors) -> torch.Tensor:
        """Utilities of a batch's candidates, shape (n_candidates,); no click has utility 0."""
        networks = self._networks().eval()
        return networks.utility(batch)[0]

    @torch.no_grad()
    def choice_distribution(self, batch: BatchTensors, head: Head = "reward") -> ChoiceDistribution:
        """A head's distribution over each display set: the reward's best response, or the generator's own."""
        networks = self._networks().eval()
        utility, states = networks.utility(batch)
        if head == "reward" or networks.generator is None:
            return self.regulariser.best_response(self.config.eta * utility, batch.display_offsets, self.outside)
        return self.regulariser.link(networks.logits(batch, states), batch.display_offsets, self.outside)

    def choice_log_probs(self, batch: BatchTensors, head: Head = "reward") -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of candidates (n_candidates,) and of no click (n_events,)."""
        dist = self.choice_distribution(batch, head)
        return dist.log_probs, dist.outside_log_prob

    def initial(self, n: int) -> list[Carry]:
        """Histories of n users who have chosen nothing yet, one carry per reward player."""
        return [player.history.initial(n) for player in self._networks().players]

    @torch.no_grad()
    def advance(self, carries: list[Carry], tokens: Any) -> list[Carry]:
        """Histories after one more choice of each user: one recurrent step, never a re-encoding (bilstm excepted)."""
        players = self._networks().players
        return [player.history.advance(carry, tokens) for player, carry in zip(players, carries, strict=True)]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: weights, and in its metadata the configuration and feature space; atomic.

        Raises:
            OutputError: the file cannot be written.
        """
        from fastgaum.models.persist import save_model

        save_model(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> UserModel:
        """Read a saved model, or the model of a run folder.

        Raises:
            CheckpointError: the file is missing, damaged, or made by another version.
        """
        from fastgaum.models.persist import load_model

        return load_model(Path(path), device)

    def tensors(self, log: SessionLog, split: SplitName = "all", batch_sessions: int = 1024) -> Any:
        """Yield a split as batches of tensors, for `utility` and `choice_log_probs`."""
        for batch in batches(self._encoded(log, split), batch_sessions):
            yield to_tensors(batch, self.device)

    def _score(self, encoded: EncodedSessions) -> Any:
        from fastgaum.training.scoring import score

        scores = score(self._networks(), self._batches(encoded), self.regulariser, self.config.eta, self.outside)
        if not np.isfinite(scores.reward.scores).all():
            raise NumericsError("a utility is not finite: the model has diverged and ranks nothing")
        return scores

    def _batches(self, encoded: EncodedSessions) -> Any:
        return (to_tensors(batch, self.device) for batch in batches(encoded, 1024))

    def _encoded(self, log: SessionLog, split: SplitName) -> EncodedSessions:
        self._networks()
        assert self.space is not None
        rows = log.sessions_in(split)
        if len(rows) == 0:
            raise LogFormatError(f"log '{log.name}' has no session in split '{split}': choose another split")
        return self.space.encode(log, rows)

    def _networks(self) -> Networks:
        if self.networks is None:
            raise ConfigError("the model has not been trained: call fit or load first")
        return self.networks

    def _offers_no_click(self, log: SessionLog, space: FeatureSpace) -> bool:
        if self.config.no_click == "never" and log.has_no_click:
            raise LogFormatError(
                f"log '{log.name}' has events without a choice: no_click = never does not fit, use auto"
            )
        return self.config.no_click == "always" or (self.config.no_click == "auto" and log.has_no_click)


def _candidate_frame(log: SessionLog, encoded: EncodedSessions) -> pl.DataFrame:
    """session, event, item of each encoded candidate, as the log names them."""
    from fastgaum.sessions.ragged import pick_rows

    _, events = pick_rows(log.session_offsets, encoded.rows)
    _, candidates = pick_rows(log.display_offsets, events)
    event_of = np.repeat(events, np.diff(encoded.display_offsets))
    return pl.DataFrame(
        {
            "session": log.session_ids.gather(log.session_of_event[event_of]),
            "event": log.event_ids.gather(event_of),
            "item": log.item_ids.gather(np.asarray(log.items)[candidates]),
        }
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device '{name}': use cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for and no card is at hand: use cpu or auto")
    return device
