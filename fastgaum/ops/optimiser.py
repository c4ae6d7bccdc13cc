"""LazyAdamW: AdamW for one player's dense parameters, and lazy AdamW (`kernels/optimiser.py`) for
its tables over ids, clipped together as by torch.nn.utils.clip_grad_norm_."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fastgaum import ops, threads
from fastgaum.arrays import FloatArray, IntArray
from fastgaum.errors import StepRefusedError
from fastgaum.kernels import optimiser as kernels
from fastgaum.ops.tables import SHARED_FLOATS, Table

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class LazyAdamW:
    """Owns a player's dense parameters in one flat tensor, of which the modules' become views, as
    their gradients are of another: an operator may write a gradient there, autograd adds to it.

    A row of a table moves in the steps that name it, and then gets the weight decay that it has
    waited for. By kernels where parameters are float32 on the CPU, else by torch."""

    def __init__(
        self,
        dense: Iterable[nn.Parameter],
        tables: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        clip: float,
        undecayed: Iterable[nn.Parameter] = (),
    ) -> None:
        """Take the parameters; `undecayed` ones stand last, without weight decay."""
        self.parameters = [*dense, *(free := list(undecayed))]
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.steps, self.log_decay = 0, 0.0
        self.flat = torch.cat([one.detach().reshape(-1) for one in self.parameters])
        self.n_decayed = self.flat.numel() - sum(one.numel() for one in free)
        self.grad, self.m, self.v = (torch.zeros_like(self.flat) for _ in range(3))
        at = 0
        for one in self.parameters:
            end = at + one.numel()
            one.data = self.flat[at:end].view(one.shape)
            one.grad = self.grad[at:end].view(one.shape)
            at = end
        self.tables = [TableRows(table) for table in tables]
        self.by_kernels = ops.takes(self.flat)
        if self.by_kernels:
            self.arrays = tuple(one.numpy() for one in (self.flat, self.m, self.v, self.grad))

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.grad.zero_()
        for table in self.tables:
            table.forget()

    def step(self, loss: float = 0.0) -> float:
        """Take a step; return the loss. Raises StepRefusedError, with nothing moved, for a gradient
        that is not finite."""
        if self.by_kernels:
            self._step_by_kernels()
        else:
            self._step()
        return loss

    def _begin(self, norm: float) -> tuple[float, tuple[float, float]]:
        """Count a step; return what scales its gradient, and Adam's corrections."""
        if not math.isfinite(norm):
            raise StepRefusedError(f"the norm of the gradient is {norm}")
        self.steps += 1
        self.log_decay += math.log1p(-self.lr * self.weight_decay)
        corrections = 1 - BETA1**self.steps, math.sqrt(1 - BETA2**self.steps)
        return min(1.0, self.clip / (norm + 1e-6)), corrections

    def _step_by_kernels(self) -> None:
        named = [table.table.take() for table in self.tables]
        grad = self.arrays[3]
        parts = [grad, *(one[1].reshape(-1) for one in named if one is not None)]
        squares = _squares(parts)
        if not squares < math.inf:
            # squares of float32 overflow from 1e19 on
            squares = sum(float(np.square(one, dtype=np.float64).sum()) for one in parts)
        shrink, corrections = self._begin(math.sqrt(squares) if squares >= 0 else math.nan)
        small, end = np.float32, self.n_decayed
        decay = small(self.lr * self.weight_decay)
        fixed = small(BETA1), small(BETA2), small(corrections[0]), small(corrections[1]), small(EPS)
        rates = kernels.AdamRates(small(shrink), small(self.lr), decay, *fixed)
        calls: list[threads.Call] = []
        of_rows = rates._replace(decay=self.log_decay)
        for table, one in zip(self.tables, named, strict=True):
            if one is not None:
                calls += table.moves(*one, of_rows)
        cuts = [
            (slice(at, min(at + SHARED_FLOATS, end)), rates) for at in range(0, end, SHARED_FLOATS)
        ]
        if end < len(grad):
            cuts.append((slice(end, None), rates._replace(decay=small(0))))
        for cut, of_cut in cuts:
            calls.append((kernels.adam_dense, (*(one[cut] for one in self.arrays), of_cut)))
        _run_worth(calls, sum(map(len, parts)))

    @torch.no_grad()
    def _step(self) -> None:
        """What the kernels do, in torch."""
        named = [table.take() for table in self.tables]
        parts = [self.grad, *(grad for _, grad in filter(None, named))]
        norm = float(torch.nn.utils.get_total_norm(parts))
        if not math.isfinite(norm):
            norm = float(torch.nn.utils.get_total_norm([one.double() for one in parts]))
        shrink, corrections = self._begin(norm)
        keep = torch.ones_like(self.flat)
        keep[: self.n_decayed] -= self.lr * self.weight_decay
        grad = self.grad * shrink
        self.flat.mul_(keep).sub_(_adam(self.m, self.v, grad, self.lr, corrections))
        for table, one in zip(self.tables, named, strict=True):
            if one is not None:
                table.move(one[0].long(), one[1] * shrink, self.lr, self.log_decay, corrections)

    def settle(self) -> None:
        """Give every table row the weight decay that it has waited for."""
        if self.weight_decay:
            for table in self.tables:
                table.settle(self.log_decay)

    @property
    def counters(self) -> tuple[float, float]:
        """Steps taken, and the logarithm of the weight decay of them all."""
        return float(self.steps), self.log_decay

    def set_counters(self, steps: float, log_decay: float) -> None:
        """Go on counting from here."""
        self.steps, self.log_decay = int(steps), log_decay

    def state(self) -> dict[str, Tensor]:
        """Memory of a step beside the counters, by name; to be written to."""
        tensors = {"m": self.m, "v": self.v}
        for i, table in enumerate(self.tables):
            tensors |= {
                f"table.{i}.m": table.m,
                f"table.{i}.v": table.v,
                f"table.{i}.shrunk": table.shrunk,
            }
        return tensors

    def release(self) -> None:
        """Give each parameter an array of its own again, without a gradient."""
        for one in self.parameters:
            one.data, one.grad = one.data.clone(), None
        for table in self.tables:
            table.forget()
            del table.parameter.learned  # type: ignore[attr-defined]


def _adam(
    m: Tensor, v: Tensor, grad: Tensor, lr: float, corrections: tuple[float, float]
) -> Tensor:
    """Move the moments; return the step (Kingma & Ba, ICLR 2015)."""
    m.mul_(BETA1).add_(grad, alpha=1 - BETA1)
    v.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
    return lr / corrections[0] * m / (v.sqrt() / corrections[1] + EPS)


class TableRows:
    """A table's parameter and its moments."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter, self.table = parameter, Table(parameter)
        values = parameter.detach()
        self.shrunk = torch.zeros(len(values), dtype=torch.float64, device=values.device)
        """logarithm of each row's weight decay so far, (n_rows,)"""
        self.m, self.v = torch.zeros_like(values), torch.zeros_like(values)
        if not values.is_cuda:
            self.arrays = self.m.numpy(), self.v.numpy(), self.shrunk.numpy()
        self.moved: Tensor | None = None
        """whether each row has moved since another has asked, (n_rows,); None: nobody asks"""

    def forget(self) -> None:
        """Forget the gradient."""
        self.parameter.grad = None
        self.table.given.clear()

    def take(self) -> tuple[Tensor, Tensor] | None:
        """The rows that have a gradient, (n_named,), and their gradients, (n_named, width)."""
        sparse, self.parameter.grad = self.parameter.grad, None
        if sparse is not None and (self.parameter.is_cuda or not self.table.given):
            sparse = sparse.coalesce()
            return sparse.indices()[0], sparse.values()
        self.parameter.grad = sparse
        found = self.table.take()
        return found and (torch.from_numpy(found[0]), torch.from_numpy(found[1]))

    def moves(
        self, rows: IntArray, grad: FloatArray, rates: kernels.AdamRates
    ) -> list[threads.Call]:
        """The calls that move the named rows."""
        if self.moved is not None:
            self.moved.numpy()[rows] = True
        count, width = grad.shape
        size = count if count * width <= SHARED_FLOATS else math.ceil(count / 8)
        arrays = self.table.values, *self.arrays
        cuts = [slice(at, min(at + size, count)) for at in range(0, count, max(size, 1))]
        return [(kernels.adam_rows, (*arrays, rows[cut], grad[cut], rates)) for cut in cuts]

    def move(
        self,
        rows: Tensor,
        grad: Tensor,
        lr: float,
        log_decay: float,
        corrections: tuple[float, float],
    ) -> None:
        """Move the named rows."""
        if self.moved is not None:
            self.moved[rows] = True
        keep = (log_decay - self.shrunk[rows]).exp()[:, None].to(grad.dtype)
        self.shrunk[rows] = log_decay
        m, v = self.m[rows], self.v[rows]
        step = _adam(m, v, grad, lr, corrections)
        self.m[rows], self.v[rows] = m, v
        self.parameter[rows] = self.parameter[rows] * keep - step

    @torch.no_grad()
    def settle_some(self, rows: Tensor, log_decay: float) -> None:
        """Give some rows the weight decay that they have waited for."""
        values, keep = self.parameter.detach(), (log_decay - self.shrunk[rows]).exp()
        values[rows] *= keep[:, None].to(values.dtype)
        self.shrunk[rows] = log_decay

    @torch.no_grad()
    def settle(self, log_decay: float) -> None:
        """Give every row the weight decay that it has waited for."""
        values = self.parameter.detach()
        if values.dtype is torch.float32 and not values.is_cuda:
            kernels.decay_rows(values.numpy(), self.shrunk.numpy(), log_decay)
            return
        values.mul_((log_decay - self.shrunk).exp()[:, None].to(values.dtype))
        self.shrunk.fill_(log_decay)


def _squares(flat: Sequence[FloatArray]) -> float:
    sums = [np.empty(-(-len(values) // kernels.BLOCK)) for values in flat]
    calls: list[threads.Call] = [
        (kernels.sum_of_squares, (values, part, own))
        for values, own in zip(flat, sums, strict=True)
        for part in range(len(own))
    ]
    _run_worth(calls, sum(map(len, flat)))
    return sum(float(own.sum()) for own in sums)


def _run_worth(calls: Sequence[threads.Call], n_read: int) -> None:
    if n_read > SHARED_FLOATS:
        threads.run_chains([[call] for call in calls])
    else:
        for function, arguments in calls:
            function(*arguments)
