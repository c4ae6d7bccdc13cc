"""Two towers in stock torch: what a competent user writes for a log whose events have context.

    utility(event, a) = <U(context, path), own[a] + shared[a]> + bias[a] + w [the context names a]

U is a network of one hidden layer, with a straight way from the first field; its inputs are rows of
`shared`. Training is AdamW on whole displays, 1,024 events a step, with dropout; after an epoch
that is no better the learning rate is four tenths of what it was."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum.logs.log import SessionLog
from fastgaum.logs.vocabulary import Vocabulary

BATCH, LEARNING_RATE, SLOWER = 1024, 3e-3, 0.4
MEMORY = 2


@dataclass(frozen=True)
class Displays:
    candidates: Tensor
    """items of all displays, shape (n_candidates,)"""
    starts: Tensor
    """first candidate of each event, and the end, shape (n_events + 1,)"""
    chosen: Tensor
    """position of each event's choice among all candidates, shape (n_events,)"""
    context: Tensor
    """items of the context, and former values of its last field, (n_events, n_fields + MEMORY)"""
    n_fields: int
    n_items: int
    split: Tensor

    @classmethod
    def of(cls, log: SessionLog, fields: tuple[str, ...]) -> Displays:
        """A log without events that end without a choice, whose fields hold items; the last one is
        the path."""
        known = Vocabulary(log.item_ids)
        columns = []
        for name in fields:
            codes = known.codes(log.columns[name].categories)[log.columns[name].values]
            columns.append(np.where(codes < 0, log.n_items, codes).astype(np.int64))
        session = np.asarray(log.session_of_event)
        for _ in range(MEMORY):
            before = np.r_[log.n_items, columns[-1][:-1]]
            columns.append(np.where(np.r_[True, session[1:] != session[:-1]], log.n_items, before))
        starts = torch.from_numpy(np.asarray(log.display_offsets).astype(np.int64))
        return cls(
            torch.from_numpy(np.asarray(log.items).astype(np.int64)),
            starts,
            starts[:-1] + torch.from_numpy(np.asarray(log.choices).astype(np.int64)),
            torch.from_numpy(np.stack(columns, 1)),
            len(fields),
            log.n_items,
            torch.from_numpy(np.asarray(log.split)[session]),
        )

    def events(self, split: int) -> Tensor:
        return torch.nonzero(self.split == split).squeeze(1)


class TwoTowers(nn.Module):
    """The network; `forward` gives the NLL of some events' choices, shape (n_events,)."""

    def __init__(self, displays: Displays, width: int = 64, dropout: float = 0.4) -> None:
        super().__init__()
        self.displays, n = displays, displays.n_items
        self.shared, self.own = nn.Embedding(n + 1, width), nn.Embedding(n, width)
        self.bias, self.of_context = nn.Embedding(n, 1), nn.Parameter(torch.tensor(3.0))
        self.straight = nn.Linear(width, width, bias=False)
        self.user = nn.Sequential(
            nn.Linear(displays.context.shape[1] * width, 2 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.dropout = nn.Dropout(dropout)
        for table in (self.shared, self.own):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)
        nn.init.eye_(self.straight.weight)

    def forward(self, events: Tensor) -> Tensor:
        log = self.displays
        first, sizes = log.starts[events], log.starts[events + 1] - log.starts[events]
        event = torch.repeat_interleave(torch.arange(len(events)), sizes)
        packed = sizes.cumsum(0) - sizes
        items = log.candidates[torch.arange(len(event)) + (first - packed)[event]]
        read = self.dropout(self.shared(log.context[events]))
        users = self.user(read.flatten(1)) + self.straight(read[:, 0])
        scores = ((self.own(items) + self.shared(items)) * users[event]).sum(1)
        named = (items[:, None] == log.context[events, : log.n_fields][event]).any(1)
        scores = scores + self.bias(items).squeeze(1) + self.of_context * named
        top = torch.full((len(events),), -torch.inf).scatter_reduce(0, event, scores, "amax")
        rest = torch.zeros(len(events)).index_add(0, event, (scores - top[event]).exp())
        return top + rest.log() - scores[log.chosen[events] - first + packed]


class Training:
    def __init__(self, displays: Displays, weight_decay: float = 0.02) -> None:
        torch.manual_seed(0)
        self.displays, self.network = displays, TwoTowers(displays)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), LEARNING_RATE, weight_decay=weight_decay
        )

    def step(self, events: Tensor) -> float:
        loss = self.network(events).mean()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        return float(loss.detach())

    def epoch(self) -> None:
        events = self.displays.events(0)
        for batch in events[torch.randperm(len(events))].split(BATCH):
            self.step(batch)

    @torch.no_grad()
    def loss(self, split: int) -> float:
        """Mean NLL of a split's choices."""
        self.network.eval()
        losses = [self.network(part) for part in self.displays.events(split).split(4 * BATCH)]
        self.network.train()
        return float(torch.cat(losses).mean())

    def seconds_until(self, loss: float, epochs: int = 40) -> float:
        """Wall seconds until the validation NLL is at most so much; infinity where it never is."""
        started, best = time.perf_counter(), np.inf
        for _ in range(epochs):
            self.epoch()
            found = self.loss(1)
            if found <= loss:
                return time.perf_counter() - started
            if found >= best:
                for group in self.optimiser.param_groups:
                    group["lr"] *= SLOWER
            best = min(best, found)
        return float("inf")
