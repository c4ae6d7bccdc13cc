"""Examination: how much users look at each place of a display, apart from what they like.

    logit(a at place p) = u(s, c, a) + e(p),   e(1) = 0

exp(e(p)) multiplies the odds of whatever stands at place p, as in click models. No click has no
place, and keeps the logit 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Place = int | Literal["own"] | None
"""where candidates are scored: at their own place, all at place 1, 2, …, or, with None, as at 1"""


class Examination(nn.Module):
    """e of each place, shared by all users and items, without weight decay."""

    def __init__(self, start: Sequence[float]) -> None:
        """Start from these logits, less that of the first; a candidate beyond the last place counts
        as there."""
        super().__init__()
        later = [value - start[0] for value in start[1:]]
        self.later = nn.Parameter(torch.tensor(later, dtype=torch.float32))
        """e of place 2 and on; that of place 1 is 0, or no level of e would be known"""

    @property
    def undecayed(self) -> list[nn.Parameter]:
        """What an optimiser moves without weight decay."""
        return [self.later]

    @property
    def by_place(self) -> Tensor:
        """e(1), e(2), …, (n_places,)."""
        return torch.cat([self.later.new_zeros(1), self.later])

    def forward(self, display_offsets: Tensor, n_candidates: int) -> Tensor:
        """e of each candidate, (n_candidates,), by its place in its display."""
        sizes = display_offsets.diff()
        starts = display_offsets[:-1].repeat_interleave(sizes, output_size=n_candidates)
        places = torch.arange(n_candidates, device=starts.device) - starts
        by_place: Tensor = self.by_place[places.clamp(max=len(self.later))]
        return by_place

    def moved(self, scores: Tensor, display_offsets: Tensor, place: int | None) -> Tensor:
        """The scores of candidates as if all stood at one place, (n_candidates,)."""
        moved: Tensor = scores - self(display_offsets, len(scores))
        return moved if place is None else moved + self.by_place[place - 1]
