"""The engine's layers on a card: what `scorer`, `towers`, `histories` and `tables` are on the
processor, over Triton's kernels.

A layer's `forward` keeps what its `backward` reads. Both work on padded batches (`card_batches`),
and no shape depends on what an array holds, so a CUDA graph can repeat them. Products of matrices
are torch's; ragged sums, gathers by id and the recurrence are kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.engine import card_kernels as kernels
from fastgaum.engine.card_batches import CardBatch
from fastgaum.engine.card_kernels import BagEntries, BagFactors, DotFactors, SortedEntries
from fastgaum.engine.card_lstm import CardLstmLayer
from fastgaum.engine.card_tables import (
    BLOCK,
    CardTable,
    bag_of_entry,
    held_columns,
    sorted_entries,
    sum_bags,
    sum_segments,
)
from fastgaum.engine.scorer import dense_parameters, linears
from fastgaum.engine.tables import Rule
from fastgaum.nets.bags import BagLinear, SharedBagLinear
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import RewardPlayer, Scorer, TowerScorer
from fastgaum.nets.towers import TwoTower

GradOf = Callable[[Tensor], Tensor]
"""where a dense parameter's gradient is written"""


def ragged_softmax(scores: Tensor, offsets: Tensor, outside: bool) -> tuple[Tensor, Tensor]:
    """Return the softmax of each event's scores, (n_candidates,), and log Σ exp, (n_events,).

    Candidates after the last event's have probability 0. With `outside` no click, of score 0, is
    one more choice."""
    n_events = len(offsets) - 1
    probs, log_totals = torch.zeros_like(scores), scores.new_empty(n_events)
    kernels.softmax_events[(n_events,)](scores, offsets, probs, log_totals, outside, BLOCK)
    return probs, log_totals


def logged_choice_gradient(probs: Tensor, batch: CardBatch) -> Tensor:
    """Return (probability − 1 for the logged choice) / n_events, (n_candidates,)."""
    grad, offsets = torch.zeros_like(probs), batch.display_offsets
    programs = (len(offsets) - 1,)
    kernels.choice_gradients[programs](probs, offsets, batch.choices, batch.share, grad, BLOCK)
    return grad


class Drops:
    """What dropout keeps in one turn of the game: asked for by the same name, the same again."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.kept: dict[str, Tensor] = {}

    def __call__(self, name: str, values: Tensor) -> Tensor | None:
        """What multiplies values of that shape: 0, or 1 / (1 − rate); None where nothing drops."""
        if not self.rate:
            return None
        if name not in self.kept:
            keep = torch.rand(values.shape, device=values.device) >= self.rate
            self.kept[name] = keep.to(values.dtype) / (1 - self.rate)
        return self.kept[name]


NO_DROPS = Drops(0.0)


class CardBagLinear:
    """`BagLinear` by hand."""

    def __init__(self, source: BagLinear) -> None:
        self.source = source
        bias = source.bias if source.numbers is None else source.numbers.bias
        self.bias = cast(nn.Parameter, bias)

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the table."""
        numbers = self.source.numbers
        weight = None if numbers is None else cast(nn.Parameter, numbers.weight)
        return [part for part in (self.source.up, weight, self.bias) if part is not None]

    def forward(self, bags: BagEntries, numbers: Tensor) -> Tensor:
        """The mapped bags, (n_bags, width)."""
        source, self.given = self.source, numbers
        x = self.rows = sum_bags(source.table.detach(), bags)
        if source.up is not None:
            x = x @ source.up.detach()
        if source.numbers is not None:
            x = x + numbers @ source.numbers.weight.detach().T
        return x + self.bias.detach()

    def backward(self, grad: Tensor, grad_of: GradOf) -> Tensor:
        """Leave the dense gradients; returns that of each bag's sum of rows."""
        source = self.source
        grad_of(self.bias).copy_(grad.sum(0))
        if source.numbers is not None:
            grad_of(source.numbers.weight).copy_(grad.T @ self.given)
        if source.up is None:
            return grad
        grad_of(source.up).copy_(self.rows.T @ grad)
        return grad @ source.up.detach().T


class CardScorerLayer:
    """`Scorer` by hand."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.rate = scorer, scorer.dropout.p
        self.first = CardBagLinear(scorer.first)
        self.wide = None if scorer.wide is None else CardBagLinear(scorer.wide)

    def own_tables(self, n_ids: int, rule: Rule) -> list[CardTable]:
        """Make the tables over ids sparse."""
        layers = [self.first, *([] if self.wide is None else [self.wide])]
        self.tables = [CardTable(layer.source.table, n_ids, rule) for layer in layers]
        return self.tables

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the tables."""
        return dense_parameters(self.scorer)

    def forward(self, batch: CardBatch, states: Tensor, drops: Drops) -> Tensor:
        """Scores, (n_candidates,), without what places add."""
        scorer = self.scorer
        self.batch, self.states, bags = batch, states, batch.candidates
        x = self.first.forward(bags, batch.numbers)
        x = x + (states @ scorer.from_state.weight.detach().T).index_select(0, batch.events)
        self.hidden: list[tuple[Tensor, Tensor | None, Tensor]] = []
        for i, layer in enumerate(linears(scorer)):
            active = scorer.act(x)
            kept = drops(f"hidden {i}", active)
            given = active if kept is None else active * kept
            self.hidden.append((active, kept, given))
            x = functional.linear(given, layer.weight.detach(), layer.bias.detach())
        if self.wide is not None:
            x = x + self.wide.forward(bags, batch.numbers)
        return x[:, 0]

    def backward(self, grad_scores: Tensor, entries: SortedEntries, grad_of: GradOf) -> Tensor:
        """Leave all gradients; returns that of the states, (n_events, state_dim).

        entries: the candidates' ids."""
        scorer, grad = self.scorer, grad_scores[:, None]
        if self.wide is not None:
            self.tables[1].add(entries, self.wide.backward(grad, grad_of))
        for layer, (active, kept, given) in zip(
            reversed(linears(scorer)), reversed(self.hidden), strict=True
        ):
            grad_of(layer.weight).copy_(grad.T @ given)
            grad_of(layer.bias).copy_(grad.sum(0))
            grad = grad @ layer.weight.detach()
            if kept is not None:
                grad = grad * kept
            grad = grad * SLOPES[type(scorer.act)](active)
        self.tables[0].add(entries, self.first.backward(grad, grad_of))
        of_events = sum_segments(grad, self.batch.display_offsets)
        grad_of(scorer.from_state.weight).copy_(of_events.T @ self.states)
        return of_events @ scorer.from_state.weight.detach()


SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: lambda active: (active > 0).to(active.dtype),
    nn.ELU: lambda active: torch.where(active > 0, 1.0, active + 1),
    nn.Tanh: lambda active: 1 - active.square(),
}
"""the slope of an activation, of what it gives"""


class CardTowerLayer:
    """Two towers by hand: U of each event by torch, its product with V of each candidate in a
    kernel. The owner of the table sums its gradient."""

    def __init__(self, tower: TwoTower) -> None:
        self.tower = tower

    def dense_parameters(self) -> list[nn.Parameter]:
        """All parameters but the table."""
        tower = self.tower
        layers = (tower.numbers, tower.hidden, tower.out, tower.direct)
        return [part for layer in layers if layer is not None for part in layer.parameters()]

    def forward(self, batch: CardBatch, states: Tensor, drops: Drops) -> Tensor:
        """Scores, (n_candidates,)."""
        tower, self.batch = self.tower, batch
        self.of_state = drops("state", states)
        self.x = states if self.of_state is None else states * self.of_state
        hidden = functional.relu(functional.linear(self.x, *_of(tower.hidden)))
        self.of_user = drops("user", hidden)
        self.hidden = hidden if self.of_user is None else hidden * self.of_user
        user = functional.linear(self.hidden, *_of(tower.out))
        user = user + self.x @ tower.direct.weight.detach().T
        self.users = torch.cat([user, user.new_ones(len(user), 1)], 1)
        table, shown = tower.items.table.detach(), batch.shown
        scores, width = user.new_empty(shown.n), table.shape[1]
        kernels.dot_candidates[(-(-shown.n // BLOCK),)](
            DotFactors(self.users, table),
            *(shown, scores, width, batch.ids.shape[1], BLOCK, held_columns(width)),
        )
        if tower.numbers is not None:
            scores += batch.numbers @ tower.numbers.weight.detach()[0]
        return scores

    def backward(self, grad_scores: Tensor, grad_of: GradOf) -> Tensor:
        """Leave the dense gradients, and the factors of the table's in `factors`; returns that of
        the states, (n_events, state_dim)."""
        tower, batch, grad_users = self.tower, self.batch, torch.empty_like(self.users)
        table, width = tower.items.table.detach(), self.users.shape[1]
        columns = held_columns(width)
        kernels.dot_users_gradient[(len(grad_users), -(-width // columns))](
            grad_scores,
            DotFactors(grad_users, table),
            *(batch.shown, width, batch.ids.shape[1], BLOCK, columns),
        )
        self.factors = BagFactors(batch.events, grad_scores, self.users, len(batch.ids))
        if tower.numbers is not None:
            grad_of(tower.numbers.weight)[0] = batch.numbers.T @ grad_scores
        grad = grad_users[:, :-1]
        grad_of(tower.out.weight).copy_(grad.T @ self.hidden)
        grad_of(tower.out.bias).copy_(grad.sum(0))
        grad_of(tower.direct.weight).copy_(grad.T @ self.x)
        of_hidden = (grad @ tower.out.weight.detach()) * (self.hidden > 0)
        if self.of_user is not None:
            of_hidden = of_hidden * self.of_user
        grad_of(tower.hidden.weight).copy_(of_hidden.T @ self.x)
        grad_of(tower.hidden.bias).copy_(of_hidden.sum(0))
        grad_x = of_hidden @ tower.hidden.weight.detach() + grad @ tower.direct.weight.detach()
        return grad_x if self.of_state is None else grad_x * self.of_state


class CardTowerScorerLayer:
    """`TowerScorer` by hand."""

    def __init__(self, scorer: TowerScorer) -> None:
        self.scorer = scorer
        self.deep, self.tower = CardScorerLayer(scorer.deep), CardTowerLayer(scorer.tower)
        self.rate = self.deep.rate
        self.own: CardTable | None = None

    def own_tables(self, n_ids: int, rule: Rule) -> list[CardTable]:
        """Make the tables over ids sparse; the tower's too, where no other reads it."""
        tables = self.deep.own_tables(n_ids, rule)
        if self.scorer.items is None:
            return tables
        self.own = CardTable(self.scorer.items.table, n_ids, rule)
        return [*tables, self.own]

    def dense_parameters(self) -> list[nn.Parameter]:
        """The network's, then the towers'."""
        return [*self.deep.dense_parameters(), *self.tower.dense_parameters()]

    def forward(self, batch: CardBatch, states: Tensor, drops: Drops) -> Tensor:
        """As `CardScorerLayer.forward`."""
        scores = self.tower.forward(batch, states, drops)
        return scores + self.deep.forward(batch, states, drops)

    def backward(self, grad_scores: Tensor, entries: SortedEntries, grad_of: GradOf) -> Tensor:
        """As `CardScorerLayer.backward`; a table that others own gets its gradient from them."""
        grad_states = self.tower.backward(grad_scores, grad_of)
        grad_states = grad_states + self.deep.backward(grad_scores, entries, grad_of)
        if self.own is not None:
            nothing = self.tower.users[:0]
            self.own.add(entries, nothing, self.tower.factors)
        return grad_states


class CardStates:
    """States of events by hand: of an LSTM over the past choices, then of the context; and the
    table of items that both share with the candidates."""

    def __init__(self, player: RewardPlayer) -> None:
        self.player = player
        self.encoder = cast(Recurrent, player.history)
        self.input = CardBagLinear(self.encoder.input)
        self.shared = isinstance(self.encoder.input, SharedBagLinear)
        self.layers = [CardLstmLayer() for _ in range(self.encoder.layers)]
        self.own: CardTable | None = None
        self.items: CardTable | None = None

    def own_tables(self, n_ids: int, rule: Rule) -> list[CardTable]:
        """Make the tables over ids sparse."""
        if not self.shared:
            self.own = CardTable(self.encoder.input.table, n_ids, rule)
        if self.player.items is not None:
            self.items = CardTable(self.player.items.table, n_ids, rule)
        return [table for table in (self.own, self.items) if table is not None]

    def dense_parameters(self) -> list[nn.Parameter]:
        """Input projection, recurrent weights, biases."""
        e = self.encoder
        return [*self.input.dense_parameters(), *e.weight_hh, *e.weight_ih, *e.bias_ih]

    def forward(self, batch: CardBatch) -> Tensor:
        """State of each event, (n_events, state_dim)."""
        self.batch, e, self.below = batch, self.encoder, list[Tensor]()
        x = self.input.forward(batch.tokens, batch.token_numbers)
        h = self.layers[0].forward(x, e.weight_hh[0].detach(), batch.sequences)
        for i, layer in enumerate(self.layers[1:]):
            self.below.append(h)
            x = functional.linear(h, e.weight_ih[i].detach(), e.bias_ih[i].detach())
            h = layer.forward(x, e.weight_hh[i + 1].detach(), batch.sequences)
        states = h.new_zeros(len(batch.choices), e.state_dim)
        states.index_copy_(0, batch.readers, h)
        # tokens that no event reads have written there
        states[-1] = 0
        parts = [states]
        if self.player.context is not None:
            if batch.context_ids.shape[1]:
                assert self.player.items is not None
                rows = sum_bags(self.player.items.table.detach(), batch.context)
                parts.append(rows.reshape(len(states), -1))
            parts.append(batch.context_numbers)
        return torch.cat(parts, 1)

    def backward(self, grad_states: Tensor, tower: CardTowerLayer | None, grad_of: GradOf) -> None:
        """Leave all gradients; `tower` has left the candidates' factors of the items' table."""
        batch, e = self.batch, self.encoder
        size = e.state_dim
        grad = grad_states[:, :size].index_select(0, batch.readers)
        for i in range(len(self.layers) - 1, -1, -1):
            q, of_weight = self.layers[i].backward(grad, batch.before)
            grad_of(e.weight_hh[i]).copy_(of_weight)
            if i:
                grad_of(e.weight_ih[i - 1]).copy_(q.T @ self.below[i - 1])
                grad_of(e.bias_ih[i - 1]).copy_(q.sum(0))
                grad = q @ e.weight_ih[i - 1].detach()
        of_tokens = self.input.backward(q, grad_of)
        if self.own is not None:
            self.own.add(sorted_entries(batch.token_ids, batch.token_of_id), of_tokens)
        if self.items is None:
            return
        n = 0 if tower is None else len(batch.ids)
        ids, bags, rows = [batch.ids[:n].reshape(-1)], [bag_of_entry(batch.ids[:n])], list[Tensor]()
        if self.shared:
            ids.append(batch.token_ids)
            bags.append(n + batch.token_of_id)
            rows.append(of_tokens)
            n += len(of_tokens)
        if n_fields := batch.context_ids.shape[1]:
            ids.append(batch.context_ids.reshape(-1))
            bags.append(n + bag_of_entry(ids[-1][:, None]))
            end = size + n_fields * self.items.width
            rows.append(grad_states[:, size:end].reshape(-1, self.items.width))
        others = torch.cat(rows) if rows else grad_states.new_zeros(0, self.items.width)
        entries = sorted_entries(torch.cat(ids), torch.cat(bags))
        self.items.add(entries, others, None if tower is None else tower.factors)


def _of(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight.detach(), layer.bias.detach()
