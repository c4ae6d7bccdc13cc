"""The networks of one user model: history encoder, reward model, generator.

The generator and the reward model are scorers: one small network scores every candidate. Its first
layer on [state; bag] factorises: W [s; x_a] = W_s s (once per event) + Σ_{f ∈ bag(a)} E_f (a
gather) + W_x numbers. Two towers (`nets.towers`) may stand beside it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum import ops
from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.space import FeatureSpace
from fastgaum.nets.bags import BagLinear, BagSizes, SharedBagLinear
from fastgaum.nets.batches import Batch
from fastgaum.nets.examination import Examination
from fastgaum.nets.histories import (
    Encoders,
    HistoryEncoder,
    history_encoder,
)
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.signed import SignedNumbers
from fastgaum.nets.tensors import Bags, float32_on
from fastgaum.nets.towers import NO_NUMBERS, TwoTower, vector_table

if TYPE_CHECKING:
    from fastgaum.ops.displays import DisplayBatch
    from fastgaum.ops.history import HistoryPass
    from fastgaum.ops.scorer import ScorerKernels

Head = Literal["reward", "generator"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU}


class Scorer(nn.Module):
    """(state, display set) → one number per candidate; no click is pinned at 0 and not scored."""

    items: BagLinear | None
    """the towers' table of items where it is this scorer's own"""
    tower: TwoTower | None
    examination: Examination | None
    """None where places are not kept apart"""
    signed: SignedNumbers | None
    """None where no number has a sign"""

    def __init__(
        self,
        sizes: BagSizes,
        state_dim: int,
        hidden: tuple[int, ...],
        activation: str,
        dropout: float = 0.0,
        wide: bool = False,
        first: BagLinear | None = None,
    ) -> None:
        """Draw the parameters; `wide` adds a linear path from bag to score; `first` is another map
        of bags to the first layer."""
        super().__init__()
        widths = (*hidden, 1)
        of_bag = sizes.n_ids, sizes.n_numbers
        self.first = BagLinear(*of_bag, widths[0], 0.1) if first is None else first
        self.from_state = nn.Linear(state_dim, widths[0], bias=False)
        # starts at 0: the network leads, the linear path adds what it lacks
        self.wide = BagLinear(*of_bag, 1, 0.0) if wide else None
        self.act = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.items = self.tower = self.examination = self.signed = None
        self.rest = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self._kernels: ScorerKernels | None = None

    @property
    def drops(self) -> bool:
        """Whether training drops units."""
        return self.dropout.p > 0 or (self.tower is not None and self.tower.dropout.p > 0)

    def kernels(self) -> ScorerKernels | None:
        """The kernels that read these weights, or None: torch does."""
        if type(self.first) is not BagLinear or type(self.act) not in ACTIVATIONS.values():
            return None
        if not ops.takes(self.first.table):
            return None
        if self._kernels is None:
            from fastgaum.ops.scorer import ScorerKernels

            self._kernels = ScorerKernels(self)
        return self._kernels

    def kernels_for(self, candidates: Bags, states: Tensor) -> ScorerKernels | None:
        """The kernels that score these candidates and learn from them, or None: torch does."""
        of = self.kernels() if candidates.width is not None and ops.takes(states) else None
        if of is None or (torch.is_grad_enabled() and not self.first.sparse_grad):
            return None
        return of

    def __getstate__(self) -> dict[str, object]:
        """Without kernels, which a copy binds to its own weights."""
        return {**self.__dict__, "_kernels": None}

    def inputs(
        self, of: ScorerKernels, candidates: Bags, display_offsets: Tensor
    ) -> tuple[DisplayBatch, Tensor | None]:
        """Display sets as kernels read them, and the vectors of their items as rows of the
        table."""
        from fastgaum.ops.displays import DisplayBatch, parts_of

        items, given = None if self.tower is None else self.tower.items, candidates.vectors
        vectors = None
        if items is not None and items.projection is not None and given is not None:
            vectors = given.values @ items.projection
        shown = candidates.displays.get(of.share)
        if shown is None:
            offsets = display_offsets.numpy()
            ids = candidates.ids.numpy().reshape(candidates.n_bags, -1)
            rows = None if given is None else given.rows.numpy()
            parts = parts_of(offsets, *of.share)
            shown = DisplayBatch(offsets, ids, candidates.numbers.numpy(), parts, rows)
            if torch.is_grad_enabled():
                # steps follow one another: the memory of one serves the next
                shown.rooms = of.rooms
            candidates.displays[of.share] = shown
        return shown, vectors

    def forward(
        self, candidates: Bags, states: Tensor, display_offsets: Tensor, key: int | None = None
    ) -> Tensor:
        """Scores, (n_candidates,); states: (n_events, state_dim); key: of the kernels' dropout."""
        of = self.kernels_for(candidates, states)
        if of is not None:
            from fastgaum.ops.scorer import score

            shown, vectors = self.inputs(of, candidates, display_offsets)
            return score(of, shown, states, key, vectors)
        signed = None
        if self.signed is not None:
            signed = self.signed(candidates, states, display_offsets)
            candidates = self.signed.others(candidates)
        tower = None if self.tower is None else self.tower(candidates, states, display_offsets)
        x: Tensor = self.first(candidates) + expand_to_candidates(
            self.from_state(states), display_offsets, candidates.n_bags
        )
        for layer in self.rest:
            x = layer(self.dropout(self.act(x)))
        if self.wide is not None:
            x = x + self.wide(candidates)
        scores = x.squeeze(1) if tower is None else tower + x.squeeze(1)
        if self.examination is not None:
            scores = scores + self.examination(display_offsets, len(scores))
        return scores if signed is None else scores + signed

    def scale(self, factor: float) -> None:
        """Multiply all scores by a factor."""
        if self.tower is not None:
            self.tower.scale(factor)
        if self.signed is not None:
            self.signed.scale(factor)
        for layer in (self.rest[-1], self.wide, self.examination):
            for parameter in () if layer is None else layer.parameters():
                parameter.mul_(factor)


def scorer_of(
    config: Config,
    sizes: BagSizes,
    state_dim: int,
    items: BagLinear | None = None,
    items_at: Sequence[int] = (),
) -> Scorer:
    """The scorer that a configuration asks for. `items`: vectors of the ids that another module
    owns; `items_at`: as in `TwoTower`."""
    wide = config.wide and not config.tower_dim
    scorer = Scorer(sizes, state_dim, config.hidden, config.activation, config.dropout, wide)
    if config.tower_dim:
        if items is None:
            items = scorer.items = vector_table(sizes, config.tower_dim)
        dim, n = config.tower_dim, sizes.n_numbers
        scorer.tower = TwoTower(items, dim, n, state_dim, config.dropout, items_at, sizes.own)
    elif config.tastes and len(sizes.own):
        scorer.tower = TwoTower(None, config.tastes, 0, state_dim, own=sizes.own)
    if sizes.places:
        scorer.examination = Examination(sizes.places)
    if sizes.signed:
        scorer.signed = SignedNumbers(sizes, state_dim)
    return scorer


@dataclass(frozen=True)
class ContextSizes:
    """Sizes of an event's context and an item's vector."""

    hold_items: tuple[bool, ...] = ()
    """of each field of ids, whether it holds items"""
    n_numbers: int = 0
    vector_dim: int = 0
    """numbers of an item's vector that a tower reads; 0: none"""
    own: range = NO_NUMBERS
    """columns of the log's own numbers, which tastes read"""
    n_outcomes: int = 0
    """columns of a past choice's outcomes, which the history reads behind its numbers"""
    signed: tuple[tuple[int, int], ...] = ()
    """as of `BagSizes`"""

    @property
    def n_fields(self) -> int:
        """Fields of ids: one id of each per event."""
        return len(self.hold_items)

    @property
    def n_signed(self) -> int:
        """Columns of numbers with a sign."""
        return sum(width for _, width in self.signed)


NO_CONTEXT = ContextSizes()


def context_sizes(space: FeatureSpace) -> ContextSizes:
    """Sizes of the context and the vectors of a feature space."""
    hold_items = tuple(part.source == "context_item" for part in space.context)
    vector_dim = space.vectors.dim if space.vectors.are_read else 0
    names = [name for name in space.number_names if name not in space.unread]
    own = range(len(names) - sum(name in space.field_names for name in names), len(names))
    n_numbers = space.context_code.n_numbers
    return ContextSizes(hold_items, n_numbers, vector_dim, own, space.n_outcomes, space.signed)


def log_rates(space: FeatureSpace) -> tuple[float, ...]:
    """First logits of the places of a feature space, if they are kept apart."""
    return tuple(np.log(space.place_rates.astype(np.float64)).tolist())


CONTEXT_DIM = 8
"""numbers of a context field's vector where nothing else reads the table"""


class EventContext(nn.Module):
    """The context of an event: the rows of its fields' ids, then its numbers, after the history in
    the state."""

    def __init__(self, items: BagLinear | None, sizes: ContextSizes) -> None:
        super().__init__()
        # in a tuple, which torch does not search for modules: the owner has its parameters
        self._items = (items,)
        self.sizes = sizes
        self.dim = sizes.n_numbers
        if items is not None:
            self.dim += sizes.n_fields * items.table.shape[1]

    @property
    def items(self) -> BagLinear | None:
        """The table of the fields' ids, if there are any."""
        return self._items[0]

    def forward(self, ids: Bags, numbers: Tensor) -> Tensor:
        """Return (n_events, dim); `ids`: one bag of one id per event and field."""
        if self.items is None:
            return numbers
        return torch.cat([self.items(ids).reshape(len(numbers), -1), numbers], 1)


class RewardPlayer(nn.Module):
    """A history encoder, the event's context and the reward model that reads both.

    `items` is a table of one vector per id, which candidates, context and past choices share."""

    def __init__(
        self,
        config: Config,
        sizes: BagSizes,
        context: ContextSizes = NO_CONTEXT,
        encoder: Encoders = history_encoder,
    ) -> None:
        super().__init__()
        self.items: BagLinear | None = None
        if config.tower_dim or context.n_fields:
            self.items = vector_table(sizes, config.tower_dim or CONTEXT_DIM)
        shared = self.items if config.tower_dim else None
        # the past is not the candidate: its tokens keep all numbers
        n_numbers = sizes.n_numbers + context.n_signed + context.n_outcomes
        self.history: HistoryEncoder = (
            history_encoder(config, sizes.n_ids, n_numbers, shared)
            if encoder is history_encoder
            else encoder(config, sizes.n_ids, n_numbers)
        )
        self.context: EventContext | None = None
        if context.n_fields or context.n_numbers:
            self.context = EventContext(self.items if context.n_fields else None, context)
        context_dim = 0 if self.context is None else self.context.dim
        self.state_dim = self.history.state_dim + context_dim
        start, dim = self.history.state_dim, config.tower_dim
        items_at = [start + dim * i for i, held in enumerate(context.hold_items) if held]
        self.reward = scorer_of(config, sizes, self.state_dim, shared, items_at)

    def states(self, batch: Batch) -> Tensor:
        """State of each event, (n_events, state_dim): of the choices before it, then its
        context."""
        states: Tensor = self.history(batch)
        if self.context is None:
            return states
        return torch.cat([states, self.context(batch.context, batch.context_numbers)], 1)

    def states_and_way_back(self, batch: Batch) -> tuple[Tensor, HistoryPass | None]:
        """States as of `states`, and what takes their gradient back; None: autograd does."""
        made = None if self.context is not None else self.history.pass_of(batch)
        if made is None:
            return self.states(batch), None
        return torch.from_numpy(made.states), made

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Utilities (n_candidates,) and the states (n_events, state_dim)."""
        states = self.states(batch)
        utility: Tensor = self.reward(batch.candidates, states, batch.display_offsets)
        return utility, states


class Networks(nn.Module):
    """Both players; the generator reads the reward player's states."""

    def __init__(
        self,
        config: Config,
        n_ids: int,
        n_numbers: int,
        encoder: Encoders = history_encoder,
        context: ContextSizes = NO_CONTEXT,
        places: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        sizes = BagSizes(
            n_ids,
            n_numbers - context.n_signed,
            context.vector_dim,
            places,
            context.own,
            context.signed,
        )
        of_reward = replace(sizes, places=tuple(logit / config.eta for logit in places))
        self.player = RewardPlayer(config, of_reward, context, encoder)
        self.generator: Scorer | None = None
        if config.players == "adversarial":
            self.generator = scorer_of(config, sizes, self.player.state_dim)

    def utility(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Utilities (n_candidates,) and the states (n_events, state_dim)."""
        outputs: tuple[Tensor, Tensor] = self.player(batch)
        return outputs

    def logits(self, batch: Batch, states: Tensor) -> Tensor:
        """The generator's logits (n_candidates,), from the reward player's states."""
        assert self.generator is not None
        logits: Tensor = self.generator(batch.candidates, states, batch.display_offsets)
        return logits

    @torch.no_grad()
    def start_generator(self, eta: float) -> None:
        """Make the generator the reward model's own copy, times `eta`: with a link that is ∇Ω*, the
        best response."""
        generator, player = self.generator, self.player
        assert generator is not None
        values = dict(player.reward.named_parameters())
        if player.items is not None:
            values |= {f"items.{name}": rows for name, rows in player.items.named_parameters()}
        for name, parameter in generator.named_parameters():
            parameter.copy_(values[name])
        if eta != 1:
            generator.scale(eta)

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply all utilities and logits by a factor."""
        player, scorers = self.player, [self.player.reward]
        if self.generator is not None:
            scorers.append(self.generator)
        for scorer in scorers:
            scorer.scale(factor)
        tower = player.reward.tower
        if tower is None or tower.items is None or tower.items is not player.items:
            return
        # history and context read the vectors that were scaled with the reward
        for module in player.history.modules():
            if isinstance(module, SharedBagLinear):
                module.up.div_(factor)
        if player.context is not None and player.context.items is not None:
            start = player.history.state_dim
            of_ids = slice(start, player.state_dim - player.context.sizes.n_numbers)
            for scorer in scorers:
                reads = [scorer.from_state]
                if scorer.tower is not None:
                    reads += [scorer.tower.hidden, scorer.tower.direct]
                if scorer.signed is not None:
                    reads.append(scorer.signed.from_state)
                for layer in reads:
                    layer.weight[:, of_ids].div_(factor)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Utilities and the generator's logits, if any, (n_candidates,), without dropout."""
        if self.training:
            self.eval()
        utility, states = self.utility(batch)
        return utility, None if self.generator is None else self.logits(batch, states)

    @torch.no_grad()
    def moved_to(
        self, place: int | None, utility: Tensor, logits: Tensor | None, batch: Batch
    ) -> tuple[Tensor, Tensor | None]:
        """Utilities and logits, of networks with an examination, as if all stood at one place."""
        offsets, reward = batch.display_offsets, self.player.reward.examination
        assert reward is not None
        if self.generator is not None and logits is not None:
            assert self.generator.examination is not None
            logits = self.generator.examination.moved(logits, offsets, place)
        return reward.moved(utility, offsets, place), logits


def require_room(
    config: Config,
    n_ids: int,
    n_numbers: int,
    encoder: Encoders = history_encoder,
    context: ContextSizes = NO_CONTEXT,
) -> None:
    """Raise ConfigError for networks that this machine's memory cannot hold in training."""
    with float32_on("meta"):
        networks = Networks(config, n_ids, n_numbers, encoder, context)
    # weights, gradients, two moments, and the best, the latest and the average weights
    wanted = 28 * sum(value.numel() for value in networks.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > memory:
        raise ConfigError(
            f"networks of this configuration take {wanted / 1e9:,.1f} GB to train over {n_ids} "
            f"ids, this machine has {memory / 1e9:,.1f} GB: lower hidden, history_dim or "
            "history_weights"
        )
