"""Tables with a row per id: how they are made, so that millions of rows are read quickly and made once."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def normal_table(n_rows: int, width: int, std: float) -> nn.Parameter:
    """Return a (n_rows, width) table drawn from N(0, std²), the values of `torch.randn(n_rows, width) * std`.

    The memory is numpy's, which asks the kernel for huge pages where torch does not: rows are read at random, and in a
    table of 250 MB the search for their small pages costs more than the rows themselves.
    """
    values = torch.empty(n_rows, width)
    if values.device.type == "cpu" and values.dtype is torch.float32:
        values = torch.from_numpy(np.empty((n_rows, width), np.float32))
    return nn.Parameter(values.normal_().mul_(std))
