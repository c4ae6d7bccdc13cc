"""The three networks of one user model: history encoder, reward model, generator.

The generator and the reward model are both scorers. One small network with shared weights scores
every candidate, so permuting a display set permutes its scores. Its first layer on the multi-hot
vector [state; bag] factorises: W [s; x_a] = W_s s (once per event) + Σ_{f ∈ bag(a)} E_f (a gather)
+ W_x numbers."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.nets.bags import BagSizes, bag_linear
from fastgaum.nets.histories import (
    Encoders,
    HistoryEncoder,
    history_encoder,
)
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tables import TableMaker
from fastgaum.nets.tensors import Bags, BatchTensors

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class Scorer(nn.Module):
    """(state, display set) → one number per candidate; no click is pinned at 0 and is not
    scored."""

    def __init__(
        self,
        sizes: BagSizes,
        state_dim: int,
        hidden: tuple[int, ...],
        activation: str,
        dropout: float = 0.0,
        wide: bool = False,
        name: str = "",
    ) -> None:
        """Draw the parameters.

        Args:
            sizes: what the candidates' bags hold.
            state_dim: numbers of a state.
            hidden: widths of the hidden layers.
            activation: of the hidden layers, a key of `ACTIVATIONS`.
            dropout: rate after each hidden layer.
            wide: whether there is a linear path from bag to score beside the network.
            name: of the tables, where the user makes them.
        """
        super().__init__()
        widths = (*hidden, 1)
        self.first = bag_linear(sizes, widths[0], 0.1, f"{name}.first")
        self.from_state = nn.Linear(state_dim, widths[0], bias=False)
        # starts at 0: the network leads, the linear path adds what it lacks
        linear = replace(sizes, item_dim=0)
        self.wide = bag_linear(linear, 1, 0.0, f"{name}.wide") if wide else None
        self.act = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.rest = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, candidates: Bags, states: Tensor, display_offsets: Tensor) -> Tensor:
        """Return scores, shape (n_candidates,); `states` has shape (n_events, state_dim)."""
        x: Tensor = self.first(candidates) + expand_to_candidates(
            self.from_state(states), display_offsets, candidates.n_bags
        )
        for layer in self.rest:
            x = layer(self.dropout(self.act(x)))
        if self.wide is not None:
            x = x + self.wide(candidates)
        return x.squeeze(1)


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
        self.history: HistoryEncoder = (
            history_encoder(config, n_ids, n_numbers, tables)
            if encoder is history_encoder
            else encoder(config, n_ids, n_numbers)
        )
        self.reward = Scorer(
            BagSizes(n_ids, n_numbers, config.item_dim, tables),
            self.history.state_dim,
            config.hidden,
            config.activation,
            config.dropout,
            config.wide,
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
                BagSizes(n_ids, n_numbers, config.item_dim, tables),
                self.player.history.state_dim,
                config.hidden,
                config.activation,
                wide=config.wide,
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
            f"ids, this machine has {memory / 1e9:,.1f} GB: lower hidden, history_dim or "
            "history_weights, or set item_dim"
        )
