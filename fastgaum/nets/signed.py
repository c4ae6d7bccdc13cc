"""Numbers with a sign: a price by which a utility only falls, a discount by which it only rises.

    u(a) = … + Σ_j ± Σ_k h_jk g_jk(s, a) x_jk(a),   g, h > 0

x_jk(a) are the number j of the candidate a as it is, and its pieces (`features.standardise`): all
rise with it, so their sum is a staircase that rises. g is softplus of a linear map of the user's
state, which ends in the context, and of the candidate's ids. Nothing else of a scorer reads j."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastgaum.arrays import FloatArray, IntArray
from fastgaum.nets.bags import BagLinear, BagSizes
from fastgaum.nets.segments import expand_to_candidates
from fastgaum.nets.tensors import Bags

FIRST_STEP, LEAST_STEP = 0.2, 1e-20
"""h at first, and at least"""
SPEED = 5.0
"""h = softplus(SPEED · step): an optimiser's steps are small, and the way of a step to a strong
effect of a price is long"""


class SignedNumbers(nn.Module):
    """What the numbers with a sign add to scores. They are a candidate's last ones."""

    directions: Tensor
    """1 or -1 of each step of each number, (n_steps,)"""

    def __init__(self, sizes: BagSizes, state_dim: int) -> None:
        """All users and items begin with the weight 1."""
        super().__init__()
        self.n_read = sizes.n_numbers
        """numbers before them, which scorers read"""
        directions = np.repeat(*np.array(sizes.signed, np.int64).T).astype(np.float32)
        n = len(directions)
        self.steps = nn.Parameter(torch.full((n,), FIRST_STEP, dtype=torch.float32))
        """of one number after another"""
        with torch.no_grad():
            self.steps.copy_(_step_of(self.steps))
        self.of_ids = BagLinear(sizes.n_ids, 0, n, 0.0)
        self.from_state = nn.Linear(state_dim, n, bias=False)
        nn.init.zeros_(self.from_state.weight)
        bias = self.of_ids.bias
        assert bias is not None
        nn.init.constant_(bias, float(np.log(np.expm1(1))))
        self.register_buffer("directions", torch.from_numpy(directions), persistent=False)

    @property
    def undecayed(self) -> list[nn.Parameter]:
        """What an optimiser moves without weight decay, which would be one towards some weight
        above 0."""
        assert self.of_ids.bias is not None
        return [self.steps, self.of_ids.bias]

    def others(self, candidates: Bags) -> Bags:
        """The candidates with the numbers that scorers read."""
        return Bags(
            candidates.ids,
            candidates.offsets,
            candidates.numbers[:, : self.n_read],
            candidates.vectors,
            candidates.width,
        )

    def forward(self, candidates: Bags, states: Tensor, display_offsets: Tensor) -> Tensor:
        """What is added to each candidate's score, (n_candidates,); states: (n_events,
        state_dim)."""
        n = candidates.n_bags
        of_states = expand_to_candidates(self.from_state(states), display_offsets, n)
        weights = functional.softplus(self.of_ids(candidates) + of_states)
        stairs = weights * candidates.numbers[:, self.n_read :]
        return stairs @ (self.directions * self.heights())

    def of_displays(
        self, ids: IntArray, numbers: FloatArray, states: Tensor, offsets: IntArray
    ) -> Tensor:
        """The same of display sets as kernels read them: ids (n_candidates, n_fields), numbers
        (n_candidates, n_numbers), offsets (n_events + 1,)."""
        n, width = ids.shape
        starts = torch.arange(n + 1, dtype=torch.int32) * width
        flat = torch.from_numpy(np.ascontiguousarray(ids).reshape(-1))
        bags = Bags(flat, starts, torch.from_numpy(numbers), None, width)
        found: Tensor = self(bags, states, torch.from_numpy(offsets))
        return found

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply all that is added by a factor above 0."""
        self.steps.copy_(_step_of((self.heights() * factor).clamp(min=LEAST_STEP)))

    def heights(self) -> Tensor:
        """h, (n_steps,)."""
        return functional.softplus(SPEED * self.steps)


def _step_of(heights: Tensor) -> Tensor:
    """The step of each h, also of a large or a small one."""
    return (heights + torch.log(-torch.expm1(-heights))) / SPEED
