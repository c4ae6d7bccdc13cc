"""The three networks of one user model: history encoder, reward model, generator."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.nets.histories import (
    Encoders,
    HistoryEncoder,
    PositionWeight,
    PrefixBiLstm,
    Recurrent,
    history_encoder,
)
from fastgaum.nets.scorers import Scorer
from fastgaum.nets.tables import TableMaker
from fastgaum.nets.tensors import Bags, BatchTensors


@dataclass(frozen=True)
class IdDropout:
    """Replaces ids by their field's unknown row, so that the unknown row is trained and never
    random."""

    unknown_of_id: Tensor
    """unknown row of each id, int32, shape (n_ids,)"""
    rate: float

    def __call__(self, bags: Bags) -> Bags:
        """Return bags with each id dropped with probability `rate`."""
        if self.rate == 0:
            return bags
        keep = torch.rand(bags.ids.shape, device=bags.ids.device) >= self.rate
        return Bags(
            torch.where(keep, bags.ids, self.unknown_of_id[bags.ids.long()]),
            bags.offsets,
            bags.numbers,
        )


def made_encoder(
    encoder: Encoders,
    config: Config,
    n_ids: int,
    n_numbers: int,
    tables: TableMaker | None,
    name: str,
) -> HistoryEncoder:
    """A history encoder: the configured one over our tables or those that `tables` makes, or one of
    the user's own.

    Raises:
        ConfigError: `encoder` gives an encoder of ours, over our table, where tables are the user's
            own.
    """
    if tables is not None and encoder is history_encoder:
        return history_encoder(config, n_ids, n_numbers, tables, name)
    made = encoder(config, n_ids, n_numbers)
    if tables is not None and type(made) in (Recurrent, PrefixBiLstm, PositionWeight):
        raise ConfigError(
            f"history gives a {type(made).__name__} over a table of ours, and tables are your own: "
            "leave history out, or pass"
            " an encoder of a class of your own"
        )
    return made


class RewardPlayer(nn.Module):
    """A history encoder and the reward model that reads its states; one optimiser trains both."""

    def __init__(
        self,
        config: Config,
        n_ids: int,
        n_numbers: int,
        encoder: Encoders = history_encoder,
        tables: TableMaker | None = None,
    ) -> None:
        super().__init__()
        self.history: HistoryEncoder = made_encoder(
            encoder, config, n_ids, n_numbers, tables, "history"
        )
        self.reward = Scorer(
            n_ids,
            n_numbers,
            self.history.state_dim,
            config.hidden,
            config.activation,
            config.item_dim,
            config.dropout,
            config.wide,
            tables,
            "reward",
        )

    def forward(self, batch: BatchTensors, generated: Bags | None = None) -> tuple[Tensor, Tensor]:
        """Return utilities (n_candidates,) and the states (n_events, state_dim) they were read
        from.

        With `generated` tokens, each state has its last choice replaced by the generated one.
        """
        states = self.history(batch) if generated is None else self.history.branch(batch, generated)
        utility: Tensor = self.reward(batch.candidates, states, batch.display_offsets)
        return utility, states


class Networks(nn.Module):
    """Both players. The generator reads the reward player's states. `encoder` makes the history
    encoder.

    `tables` makes the tables over ids where they are not to be ours; autograd then trains the
    networks."""

    def __init__(
        self,
        config: Config,
        n_ids: int,
        n_numbers: int,
        encoder: Encoders = history_encoder,
        tables: TableMaker | None = None,
    ) -> None:
        super().__init__()
        self.player = RewardPlayer(config, n_ids, n_numbers, encoder, tables)
        self.generator: Scorer | None = None
        if config.players == "adversarial":
            self.generator = Scorer(
                n_ids,
                n_numbers,
                self.player.history.state_dim,
                config.hidden,
                config.activation,
                config.item_dim,
                wide=config.wide,
                tables=tables,
                name="generator",
            )

    def utility(self, batch: BatchTensors, generated: Bags | None = None) -> tuple[Tensor, Tensor]:
        """Utilities (n_candidates,) and the states (n_events, state_dim) they were read from."""
        outputs: tuple[Tensor, Tensor] = self.player(batch, generated)
        return outputs

    def logits(self, batch: BatchTensors, states: Tensor) -> Tensor:
        """The generator's logits (n_candidates,), from the reward player's states."""
        assert self.generator is not None
        logits: Tensor = self.generator(batch.candidates, states, batch.display_offsets)
        return logits

    @torch.no_grad()
    def outputs(self, batch: BatchTensors) -> tuple[Tensor, Tensor | None]:
        """Utilities and the generator's logits (n_candidates,), without dropout; no logits without
        a generator."""
        self.eval()
        utility, states = self.utility(batch)
        return utility, None if self.generator is None else self.logits(batch, states)


def require_room(
    config: Config, n_ids: int, n_numbers: int, encoder: Encoders = history_encoder
) -> None:
    """Raise ConfigError, before anything is made, for networks that this machine's memory cannot
    hold.

    Training holds four numbers for each of theirs: the weight, its gradient and Adam's two means.
    """
    with torch.device("meta"):
        wanted = 16 * sum(
            value.numel() for value in Networks(config, n_ids, n_numbers, encoder).parameters()
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > memory:
        raise ConfigError(
            f"networks of this configuration take {wanted / 1e9:,.1f} GB to train over {n_ids} "
            "ids, this machine has"
            f" {memory / 1e9:,.1f} GB: lower hidden, history_dim or history_weights, or set "
            "item_dim"
        )
