"""History encoders: the choices made before an event, in order, and the actions between them,
become its state s_t, which never contains the choice at t. A session's first is zero, unless
actions come before it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from fastgaum import ops
from fastgaum.config import Config
from fastgaum.nets.bags import (
    BagLinear,
    BagSizes,
    SharedBagLinear,
    bag_sum,
    drawn,
    normal_table,
)
from fastgaum.nets.batches import Batch
from fastgaum.nets.segments import has_triton, segment_ids
from fastgaum.nets.sequences import lstm, prefixes
from fastgaum.nets.tensors import Bags, gather_bags, join_bags

if TYPE_CHECKING:
    from fastgaum.ops.history import HistoryKernels, HistoryPass, Tokens

Carry = tuple[Tensor, ...]


class HistoryEncoder(nn.Module, ABC):
    """Base: places the states after tokens at the events that read them.

    An encoder of one's own gives `state_dim` and `after_tokens`, has at least one parameter, and is
    made by a call with (config, n_ids, n_numbers): `UserModel(config, history=MyEncoder)`. All else
    reads the last `window` choices again; a better encoder replaces it, `initial`, `advance` and
    `state_of` together."""

    state_dim: int
    """numbers of a state"""
    window: int | None = None
    """choices that a state reaches back; None: all"""

    @abstractmethod
    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        """State after each token, shape (n_tokens, state_dim); tokens are session-major, `offsets`
        (n_sessions + 1,).

        A token is the bag of a choice or an action. Its state depends on it and those before it
        alone."""

    def last_states(self, tokens: Bags, offsets: Tensor) -> Tensor:
        """State after the last token of each sequence, (n_sequences, state_dim)."""
        return self.after_tokens(tokens, offsets)[offsets[1:].long() - 1]

    def initial(self, n: int) -> Carry:
        """Carry of n users without history."""
        device = next(self.parameters()).device
        users, bags, ids = (
            torch.zeros(size, dtype=torch.int32, device=device) for size in (n + 1, 1, 0)
        )
        return users, bags, ids, torch.zeros(0, 0, dtype=torch.float32, device=device)

    def advance(self, carry: Carry, tokens: Bags) -> Carry:
        """Carry after one more choice of each user, a bag each."""
        offsets, bag_offsets, ids, numbers = carry
        old = Bags(ids, bag_offsets, numbers if len(numbers) else tokens.numbers[:0])
        kept = torch.diff(offsets).long()
        if self.window is not None:
            kept = kept.clamp(max=self.window - 1)
        ends = (kept + 1).cumsum(0)
        rows = torch.arange(int(ends[-1]), device=offsets.device)
        rows = rows + torch.repeat_interleave(
            offsets[1:].long() - kept - (ends - kept - 1), kept + 1
        )
        rows[ends - 1] = old.n_bags + torch.arange(tokens.n_bags, device=offsets.device)
        bags = gather_bags(join_bags(old, tokens), rows)
        users = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
        return users, bags.offsets, bags.ids, bags.numbers

    def state_of(self, carry: Carry) -> Tensor:
        """State held by a carry, (n, state_dim)."""
        offsets, bag_offsets, ids, numbers = carry
        if len(bag_offsets) == 1:
            return next(self.parameters()).new_zeros(len(offsets) - 1, self.state_dim)
        return self.last_states(Bags(ids, bag_offsets, numbers), offsets)

    def pass_of(self, batch: Batch) -> HistoryPass | None:
        """A pass that makes the states and takes their gradient back by itself; None: autograd
        does."""
        return None

    def forward(self, batch: Batch) -> Tensor:
        """State before each event, (n_events, state_dim)."""
        states = next(self.parameters()).new_zeros(batch.n_events, self.state_dim)
        if len(batch.later_events) == 0:
            return states
        read, after = batch.read_tokens, self.after_tokens(batch.tokens, batch.token_offsets)
        return states.index_copy(0, batch.later_events, after if read is None else after[read])


class Recurrent(HistoryEncoder):
    """LSTM over the chosen candidates' bags; weights as in torch.nn.LSTM."""

    def __init__(
        self, sizes: BagSizes, dim: int, layers: int = 1, items: BagLinear | None = None
    ) -> None:
        """Draw the parameters; `items` are vectors of ids that others read too."""
        super().__init__()
        self.state_dim = dim
        self.layers = layers
        bound = 1 / math.sqrt(dim)
        if items is None:
            self.input = BagLinear(sizes.n_ids, sizes.n_numbers, 4 * dim, bound / 2)
        else:
            self.input = cast(BagLinear, SharedBagLinear(items, sizes.n_numbers, 4 * dim))
        self.weight_hh = nn.ParameterList(_uniform(bound, 4 * dim, dim) for _ in range(layers))
        self.weight_ih = nn.ParameterList(_uniform(bound, 4 * dim, dim) for _ in range(layers - 1))
        self.bias_ih = nn.ParameterList(_uniform(bound, 4 * dim) for _ in range(layers - 1))
        self._kernels: HistoryKernels | None = None

    def kernels(self) -> HistoryKernels | None:
        """The kernels that read these weights, or None: torch does."""
        source = self.input
        # a subclass may say by itself what comes after tokens
        if type(self) is not Recurrent or type(source) not in (BagLinear, SharedBagLinear):
            return None
        if not ops.takes(source.table):
            return None
        if self._kernels is None:
            from fastgaum.ops.history import HistoryKernels

            numbers, bias, (first, *hh) = source.numbers, source.bias, self.weight_hh
            matrix = None
            if numbers is not None:
                matrix, bias = numbers.weight, numbers.bias
            assert bias is not None
            layers = [[first], *zip(hh, self.weight_ih, self.bias_ih, strict=True)]
            self._kernels = HistoryKernels(source.table, source.up, matrix, bias, layers)
        return self._kernels

    def kernels_for(self, batch: Batch) -> tuple[HistoryKernels, Tokens] | None:
        """The kernels that make the states of this batch, and its tokens, or None: torch does."""
        source, tokens, read = self.input, batch.tokens, batch.read_tokens
        of = self.kernels() if len(batch.later_events) else None
        if of is None or (torch.is_grad_enabled() and not source.sparse_grad):
            return None
        if source.projection_of_rows is not None and tokens.vectors is not None:
            return None
        from fastgaum.kernels.bag_linear import BagArrays
        from fastgaum.ops.history import Tokens

        of_numbers = tokens.numbers.numpy()
        if source.numbers is None:
            of_numbers = of_numbers[:, :0]
        return of, Tokens(
            BagArrays(tokens.ids.numpy(), tokens.offsets.numpy(), of_numbers),
            batch.token_offsets.numpy(),
            batch.n_events,
            batch.later_events.numpy(),
            None if read is None else read.numpy(),
        )

    def __getstate__(self) -> dict[str, object]:
        """Without kernels, which a copy binds to its own weights."""
        return {**self.__dict__, "_kernels": None}

    def pass_of(self, batch: Batch) -> HistoryPass | None:
        """As the base says."""
        found = self.kernels_for(batch)
        if found is None:
            return None
        from fastgaum.ops.history import HistoryPass

        return HistoryPass(*found, alone=True)

    def forward(self, batch: Batch) -> Tensor:
        """State before each event, (n_events, state_dim)."""
        found = self.kernels_for(batch)
        if found is None:
            return super().forward(batch)
        from fastgaum.ops.history import states_of_events

        return states_of_events(*found)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        """State after each token."""
        gates = self.input(tokens)
        if gates.is_cuda and has_triton():
            from fastgaum.nets.cuda_ops import lstm_states
        elif ops.takes(gates):
            from fastgaum.ops.lstm import lstm_states
        else:
            return self.run(gates, offsets, self.initial(len(offsets) - 1))[-1][0]
        h = lstm_states(gates, offsets, self.weight_hh[0])
        for layer in range(1, self.layers):
            gates = nn.functional.linear(h, self.weight_ih[layer - 1], self.bias_ih[layer - 1])
            h = lstm_states(gates, offsets, self.weight_hh[layer])
        return h

    def run(self, gates: Tensor, offsets: Tensor, carry: Carry) -> list[tuple[Tensor, Tensor]]:
        """Each layer's h and c, (n_tokens, dim) each."""
        outputs: list[tuple[Tensor, Tensor]] = []
        for layer in range(self.layers):
            weight = self.weight_hh[layer]
            if layer:
                gates = nn.functional.linear(
                    outputs[-1][0], self.weight_ih[layer - 1], self.bias_ih[layer - 1]
                )
            outputs.append(lstm(gates, offsets, weight, carry[2 * layer], carry[2 * layer + 1]))
        return outputs

    def initial(self, n: int) -> Carry:
        """Zeros: h and c of each layer."""
        zeros = self.weight_hh[0].new_zeros(n, self.state_dim)
        return tuple(zeros.clone() for _ in range(2 * self.layers))

    def advance(self, carry: Carry, tokens: Bags) -> Carry:
        """One recurrent step."""
        ones = torch.arange(tokens.n_bags + 1, dtype=torch.int32, device=tokens.ids.device)
        return tuple(part for layer in self.run(self.input(tokens), ones, carry) for part in layer)

    def state_of(self, carry: Carry) -> Tensor:
        """The last layer's h."""
        return carry[-2]


class PositionWeight(HistoryEncoder):
    """The position weights of Chen et al. (ICML 2019, §4.1): s_t = vec[σ(F_{t-m:t-1} W + B)], every
    lag used, W (m, n) learned; F's column j is the multi-hot vector of the choice j steps back. The
    encoder returns a linear readout of s_t, which is never built, into `state_dim` units."""

    window: int
    sparse_grad = False
    """as in `BagLinear`"""

    def __init__(self, n_ids: int, window: int, columns: int, state_dim: int) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.window = window
        # lag 1 starts strongest: with equal starts the columns would be copies of one another and
        # stay so
        self.lag_weights = drawn(
            (window, columns),
            lambda: (
                0.7 ** torch.arange(window, dtype=torch.float32)[:, None]
                * (1 + 0.3 * torch.randn(window, columns))
            ),
        )
        self.bias = nn.Parameter(torch.zeros(columns))
        self.table = normal_table(n_ids * columns, state_dim, 0.1)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        """State after each token."""
        read, starts = prefixes(offsets, self.window)
        states = segment_ids(starts, len(read))
        lags = starts[1:][states] - torch.arange(len(read), device=read.device)
        # every occurrence of an id in a state's window
        sizes = tokens.offsets.diff().long()[read]
        position = torch.arange(len(read), device=read.device).repeat_interleave(sizes)
        first = tokens.offsets[read] - (sizes.cumsum(0) - sizes)
        ids = tokens.ids[torch.arange(len(position), device=read.device) + first[position]].long()
        # the distinct ids of each state, and the lags at which each occurs
        n_ids = len(self.table) // len(self.bias)
        keys, entries = torch.unique(states[position] * n_ids + ids, return_inverse=True)
        sums = self.bias.new_zeros(len(keys), len(self.bias)).index_add(
            0, entries, self.lag_weights.index_select(0, lags[position] - 1)
        )
        # an absent id weighs exactly 0; the constant tanh(bias) belongs in the readout's bias
        weights = (sums + self.bias).tanh() - self.bias.tanh()
        columns = torch.arange(len(self.bias), device=read.device)
        rows = ((keys % n_ids)[:, None] * len(self.bias) + columns).int().reshape(-1)
        edges = torch.arange(len(starts), device=read.device) * n_ids
        ends = (torch.searchsorted(keys, edges) * len(self.bias)).int()
        return bag_sum(self.table, rows, ends, weights.reshape(-1), self.sparse_grad)


Encoders = Callable[[Config, int, int], HistoryEncoder]
"""makes an encoder of a configuration and the numbers of ids and of numbers of a bag"""


def history_encoder(
    config: Config, n_ids: int, n_numbers: int, items: BagLinear | None = None
) -> HistoryEncoder:
    """The encoder that a configuration names. `lstm` reads `items`, a table of vectors that others
    read too."""
    if config.history == "pw":
        return PositionWeight(
            n_ids, config.history_window, config.history_weights, config.hidden[0]
        )
    sizes = BagSizes(n_ids, n_numbers)
    return Recurrent(sizes, config.history_dim, config.history_layers, items)


def _uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
