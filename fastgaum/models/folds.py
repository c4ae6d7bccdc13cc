"""Fits by folds of users: one fit leaves out each fold, and results are means over the fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastgaum.arrays import BoolArray, IntArray
from fastgaum.config import MOST_SEED, Config
from fastgaum.nets.batches import Batch
from fastgaum.nets.networks import Networks
from fastgaum.nets.segments import expand_to_candidates


def member_config(config: Config, fold: int) -> Config:
    """The configuration of a fold's fit, with a seed of its own, except the first; runs of
    neighbouring seeds share none."""
    if fold == 0:
        return config
    state = np.random.SeedSequence([config.seed, fold]).generate_state(1, np.uint64)
    return config.replace(seed=int(state[0]) % MOST_SEED)


@torch.no_grad()
def forget_ids(networks: Networks, unknown: BoolArray, unknown_of_id: IntArray) -> None:
    """Give ids that a fit has not met the rows of its fields' unknown values, which it has."""
    ids = torch.from_numpy(np.flatnonzero(unknown))
    rows = torch.from_numpy(unknown_of_id.astype(np.int64))[ids]
    for module in networks.modules():
        table = getattr(module, "table", None)
        if isinstance(table, torch.nn.Parameter) and len(table) % len(unknown_of_id) == 0:
            # position weights have several rows for each id
            by_id = table.view(len(unknown_of_id), -1)
            by_id[ids] = by_id[rows]


def mean_out_of_fold(each: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
    """The mean of what each fit says of candidates or events, (n,); of those of users who trained,
    what the fit that left them out says."""
    found = torch.stack(list(each))
    mean, folds = found.mean(0), batch.held_out
    if folds is None or len(each) == 1:
        return mean
    if len(mean) > len(folds):
        folds = expand_to_candidates(folds, batch.display_offsets)
    own = found.gather(0, folds.clamp(min=0)[None])[0]
    return torch.where(folds >= 0, own, mean)
