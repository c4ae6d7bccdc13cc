"""Going on from a former fit on a further log: what may change, and how its weights are first ones
of networks over a grown vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fastgaum.config import Config
from fastgaum.errors import ConfigError, did_you_mean
from fastgaum.features.fields import former_ids
from fastgaum.features.space import FeatureSpace
from fastgaum.logs.log import SessionLog
from fastgaum.models.networks_model import NetworksModel
from fastgaum.models.splits import offers_no_click
from fastgaum.nets.networks import Networks
from fastgaum.presets import TRAINING_KEYS


def config_from(start: NetworksModel, path: Path, changes: Mapping[str, object]) -> Config:
    """The configuration of a fit that goes on: the former one, nothing searched anew, with changes.
    Where no click was a choice it stays one, unless a change says otherwise.

    Raises:
        ConfigError: a change is of what the networks are, or is impossible.
    """
    former = start.config
    if start.outside and "no_click" not in changes:
        changes = {**changes, "no_click": "always"}
    asked = former.replace(**changes)
    was, now = former.to_mapping(), asked.to_mapping()
    allowed = (*TRAINING_KEYS, "no_click")
    differ = [key for key in was if now[key] != was[key] and key not in allowed]
    if differ:
        said = ", ".join(f"{key} = {was[key]}, not {now[key]}" for key in differ)
        close = did_you_mean(differ[0], allowed)
        raise ConfigError(
            f"the run in '{path}' has {said}, and its networks go on as they are{close}: leave the "
            f"options out, or train anew; what may change is {', '.join(allowed)}"
        )
    return asked.replace(grow=False, search=())


def check_log(start: NetworksModel, log: SessionLog, asked: Config) -> None:
    """Raise ConfigError where a log or the configuration asks for a choice that the former model
    did not have."""
    if not start.outside and offers_no_click(log, asked.no_click):
        what = (
            f"log '{log.name}' has events without a choice"
            if log.has_no_click
            else "no_click = always makes no click a choice"
        )
        raise ConfigError(
            f"{what}, and the run to go on from had none, so that no click has no place among its "
            "utilities: train anew"
        )


@torch.no_grad()
def start_from(networks: Networks, space: FeatureSpace, start: NetworksModel) -> None:
    """Give networks the weights of a former fit. A table's row is that of its id before; an id that
    is new has the row of its field's unknown values, which training has made for ids unseen.

    Args:
        networks: of the same sizes, over the ids of `space`.
        space: grown from the former one.
        start: the former model.

    Raises:
        ConfigError: a history encoder of one's own has weights that are neither of the same shape
            nor rows by id.
    """
    assert start.networks is not None
    assert start.space is not None
    weights, n_former = start.networks.state_dict(), start.space.n_ids
    ids = torch.from_numpy(former_ids(space.fields, start.space.fields)).long()
    for name, own in networks.state_dict().items():
        own.copy_(_grown(name, weights[name], own.shape, ids, n_former))


def _grown(name: str, former: Tensor, shape: torch.Size, ids: Tensor, n_former: int) -> Tensor:
    """A former weight in the shape of one over more ids, whose former ids are `ids`."""
    if former.shape == shape:
        return former
    # position weights have several rows for each id
    per_id = len(former) // n_former if former.ndim else 0
    rows = [(n * per_id, *shape[1:]) for n in (n_former, len(ids))]
    if not per_id or [tuple(former.shape), tuple(shape)] != rows:
        raise ConfigError(
            f"the history encoder's weight '{name}' has the shape {list(former.shape)} over "
            f"{n_former} ids and {list(shape)} over {len(ids)}: a fit goes on from weights of one "
            "shape, or with rows by id"
        )
    return former.view(n_former, per_id, -1)[ids].view(shape)
