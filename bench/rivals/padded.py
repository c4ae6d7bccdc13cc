"""What the padded rivals share: the game on padded batches.

The game is `fastgaum.game.game.Game` with logged or generated histories, written as everybody
writes it on padded
tensors: masked softmax, dense AdamW, one autograd graph per step. A rival adds its own layers.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastgaum.bench.rivals.padding import Padded
from fastgaum.config import Config
from fastgaum.features.batches import Batch
from fastgaum.nets.networks import Networks

Optimisers = list[torch.optim.Optimizer]


class PaddedGame(ABC):
    """The two players on padded batches; subclasses hold the layers and say how a batch is
    prepared."""

    def __init__(self, networks: Networks, config: Config, n_ids: int, outside: bool) -> None:
        check(config)
        self.config, self.n_ids, self.outside = config, n_ids, outside
        self.reward, self.generator = self.build(networks)
        self.reward_optimisers = self.optimisers(self.reward, config.lr, config.weight_decay)
        self.generator_optimisers = self.optimisers(self.generator, config.generator_lr, 0.0)

    @abstractmethod
    def build(self, networks: Networks) -> tuple[nn.Module, nn.Module]:
        """Return the reward player's and the generator's layers, with the networks' weights
        copied."""

    @abstractmethod
    def prepare(self, batch: Batch) -> Padded:
        """Pad a batch (a race may keep this outside the time)."""

    @abstractmethod
    def states(self, batch: Padded, generated: Tensor | None = None) -> Tensor:
        """State before each event, laid out as the events; `generated` ids (B, T) replace each
        state's last choice."""

    @abstractmethod
    def scores(self, scorer: nn.Module, batch: Padded, states: Tensor) -> Tensor:
        """Score of each slot, shape of `batch.ids`."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Weights under the names and in the shapes of `Networks.state_dict`."""

    def optimisers(self, module: nn.Module, lr: float, weight_decay: float) -> Optimisers:
        """Dense AdamW over all that is trained."""
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)]

    def exact_step(self, batch: Padded) -> float:
        """One reward step against the closed-form best response; returns its loss (mean over
        events, nats)."""
        eta = self.config.eta
        utility = self.utility(batch)[0]
        best = self._log_probs(eta * utility, batch, normalise=False).logsumexp(-1) / eta
        loss = ((best - batch.at_choice(utility)) * batch.weight).sum()
        return self._update(loss, self.reward, self.reward_optimisers)

    def round(self, batch: Padded) -> float:
        """Generator steps, then one reward step; returns the mean of ⟨φ, r⟩ − r(a_t) before the
        reward's update."""
        with torch.no_grad():
            generated = self._drawn(batch) if self.config.states == "generated" else None
            utility, states = self.utility(batch, generated)
            best = self._probs(self.config.eta * utility, batch)
        for _ in range(self.config.generator_steps):
            logits = self.scores(self.generator, batch, states)
            value = self._log_probs(logits, batch, normalise=False).logsumexp(-1) - (
                best * logits
            ).sum(-1)
            self._update((value * batch.weight).sum(), self.generator, self.generator_optimisers)
        with torch.no_grad():
            probs = self._probs(self.scores(self.generator, batch, states), batch)
        utility = self.utility(batch)[0]
        played = utility if generated is None else self.utility(batch, generated)[0]
        loss = (((probs * played).sum(-1) - batch.at_choice(utility)) * batch.weight).sum()
        return self._update(loss, self.reward, self.reward_optimisers)

    def utility(self, batch: Padded, generated: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Utilities of all slots, and the states they were read from."""
        states = self.states(batch, generated)
        return self.scores(self.reward.get_submodule("scorer"), batch, states), states

    def _drawn(self, batch: Padded) -> Tensor:
        """What the generator would have chosen at each event, by Gumbel noise in the order that
        `Game` draws it."""
        log_probs = self._log_probs(self.scores(self.generator, batch, self.states(batch)), batch)
        noise = torch.zeros_like(log_probs)
        noise[..., : batch.real.shape[-1]][batch.real] = _gumbel(int(batch.real.sum()))
        outside = _gumbel(len(batch.row))
        if self.outside:
            noise[..., -1][batch.weight > 0] = outside
        drawn = (log_probs + noise).argmax(-1)
        return batch.events_of(torch.where(drawn == batch.real.shape[-1], -1, drawn))

    def _log_probs(self, scores: Tensor, batch: Padded, normalise: bool = True) -> Tensor:
        """Masked log-softmax (or the masked scores), with a last column of value 0 for no click
        where it is offered."""
        masked = scores.masked_fill(~batch.offered, -torch.inf)
        if self.outside:
            masked = torch.cat([masked, masked.new_zeros(*masked.shape[:-1], 1)], dim=-1)
        return masked.log_softmax(-1) if normalise else masked

    def _probs(self, scores: Tensor, batch: Padded) -> Tensor:
        return self._log_probs(scores, batch)[..., : scores.shape[-1]].exp()

    def _update(self, loss: Tensor, module: nn.Module, optimisers: Optimisers) -> float:
        module.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.clip(module)
        for optimiser in optimisers:
            optimiser.step()
        return float(loss.detach())

    def clip(self, module: nn.Module) -> None:
        """Scale the player's gradient to the largest norm allowed."""
        nn.utils.clip_grad_norm_(module.parameters(), self.config.clip)


class Scorer(nn.Module):
    """The layers after the first, which each rival has in its own way as `first` and
    `from_state`."""

    def __init__(
        self, source: nn.Module, first: nn.Module, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.first = first
        self.from_state = clone(source.get_submodule("from_state"))
        self.rest = clone(source.get_submodule("rest"))
        self.act = activation

    def after_first(self, x: Tensor) -> Tensor:
        """Scores from the first layer's output, last axis dropped."""
        for layer in self.rest.children():
            x = layer(self.act(x))
        return x[..., 0]


def clone(module: nn.Module) -> nn.Module:
    """A copy whose weights are its own."""
    return copy.deepcopy(module)


def clone_parameter(source: nn.Parameter) -> nn.Parameter:
    """A copy that is trained on its own."""
    return nn.Parameter(source.detach().clone())


def check(config: Config) -> None:
    """Refuse what the rivals do not have. Raises ValueError."""
    plain = config.item_dim == 0 and not config.wide
    fixed = config.dropout == 0 and config.id_dropout == 0 and config.players == "adversarial"
    if not (plain and fixed and config.regulariser == "shannon"):
        raise ValueError(
            "the rivals race three plain networks (item_dim 0, no wide path, Shannon, players "
            "adversarial) without dropout"
        )


def _gumbel(n: int) -> Tensor:
    return -torch.log(-torch.log(torch.rand(n).clamp(min=1e-20, max=1 - 1e-7)))
