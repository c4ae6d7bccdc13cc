"""The optimiser of a player that autograd trains: AdamW for dense gradients, lazy AdamW (as in
`kernels/optimiser.py`) or row-wise Adagrad for sparse ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgaum.errors import StepRefusedError
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.examination import Examination
from fastgaum.nets.histories import PositionWeight

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@dataclass
class _Rows:
    parameter: nn.Parameter
    shrunk: Tensor
    """logarithm of each row's weight decay so far, (n_rows,), float64"""
    moments: tuple[Tensor, ...]
    """Adam's m and v, (n_rows, d) each, or Adagrad's squares, (n_rows,)"""


class StockOptimiser:
    """One player's parameters; `step` clips the gradient over all of them, then moves them."""

    def __init__(
        self,
        player: nn.Module,
        lr: float,
        weight_decay: float,
        clip: float,
        rule: str,
    ) -> None:
        tables: dict[int, nn.Parameter] = {}
        for module in player.modules():
            if isinstance(module, BagLinear | PositionWeight):
                module.sparse_grad = True
                tables[id(module.table)] = module.table
        self.dense = [p for p in player.parameters() if id(p) not in tables]
        self.tables = [_rows(table, rule) for table in tables.values()]
        self.lr, self.weight_decay, self.clip, self.rule = lr, weight_decay, clip, rule
        self.steps, self.log_decay = 0, 0.0
        free = [part.later for part in player.modules() if isinstance(part, Examination)]
        kept = {id(parameter) for parameter in free}
        decayed = [parameter for parameter in self.dense if id(parameter) not in kept]
        self.adam = torch.optim.AdamW(
            decayed, lr=lr, betas=(BETA1, BETA2), eps=EPS, weight_decay=weight_decay, fused=True
        )
        self.adam.add_param_group({"params": free, "weight_decay": 0.0})

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.adam.zero_grad(set_to_none=True)
        for table in self.tables:
            table.parameter.grad = None

    @torch.no_grad()
    def step(self, loss: float = 0.0) -> float:
        """Take a step; return the loss. Raises StepRefusedError, with nothing moved, for a gradient
        that is not finite."""
        sparse = [
            (table, table.parameter.grad.coalesce())
            for table in self.tables
            if table.parameter.grad is not None
        ]
        parts = [*self._dense_gradients(), *(grad.values() for _, grad in sparse)]
        norm = float(torch.nn.utils.get_total_norm(parts))
        if not math.isfinite(norm):
            # squares of float32 overflow from 1e19 on
            norm = float(torch.nn.utils.get_total_norm([part.double() for part in parts]))
        if not math.isfinite(norm):
            raise StepRefusedError(f"the norm of the gradient is {norm}")
        shrink = min(1.0, self.clip / (norm + 1e-6))
        self.steps += 1
        torch._foreach_mul_(self._dense_gradients(), shrink)
        for group in self.adam.param_groups:
            group["lr"] = self.lr
        self.adam.step()
        self.log_decay += math.log1p(-self.lr * self.weight_decay)
        for table, grad in sparse:
            self._move(table, grad.indices()[0], grad.values() * shrink)
        return loss

    @torch.no_grad()
    def settle(self) -> None:
        """Give every row the weight decay that it has waited for."""
        if self.weight_decay:
            for table in self.tables:
                table.parameter.mul_(
                    (self.log_decay - table.shrunk).exp()[:, None].to(table.parameter.dtype)
                )
                table.shrunk.fill_(self.log_decay)

    def _dense_gradients(self) -> list[Tensor]:
        return [p.grad for p in self.dense if p.grad is not None]

    @property
    def counters(self) -> tuple[float, float]:
        """Steps taken, and the logarithm of the weight decay of them all."""
        return float(self.steps), self.log_decay

    def set_counters(self, steps: float, log_decay: float) -> None:
        """Go on counting from here."""
        self.steps, self.log_decay = int(steps), log_decay

    def state(self) -> dict[str, Tensor]:
        """Memory of a step beside the counters, by name; to be written to."""
        tensors: dict[str, Tensor] = {}
        for i, parameter in enumerate(self.dense):
            tensors |= {
                f"dense.{i}.{name}": value for name, value in self._moments(parameter).items()
            }
        for i, table in enumerate(self.tables):
            tensors |= {
                f"table.{i}.{part}": value
                for part, value in enumerate((table.shrunk, *table.moments))
            }
        return tensors

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.adam.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return dict(state)

    def _move(self, table: _Rows, rows: Tensor, grad: Tensor) -> None:
        keep = (self.log_decay - table.shrunk[rows]).exp()[:, None].to(grad.dtype)
        table.shrunk[rows] = self.log_decay
        if self.rule == "adagrad":
            (squares,) = table.moments
            squares[rows] += grad.square().mean(1)
            step = self.lr * grad / (squares[rows].sqrt() + EPS)[:, None]
        else:
            m, v = table.moments
            m[rows] = BETA1 * m[rows] + (1 - BETA1) * grad
            v[rows] = BETA2 * v[rows] + (1 - BETA2) * grad.square()
            denominator = v[rows].sqrt() / math.sqrt(1 - BETA2**self.steps) + EPS
            step = self.lr / (1 - BETA1**self.steps) * m[rows] / denominator
        table.parameter[rows] = table.parameter[rows] * keep - step


def _rows(table: nn.Parameter, rule: str) -> _Rows:
    values = table.detach()
    shrunk = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    if rule == "adagrad":
        return _Rows(table, shrunk, (values.new_zeros(len(values)),))
    return _Rows(table, shrunk, (torch.zeros_like(values), torch.zeros_like(values)))
