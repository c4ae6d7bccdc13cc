"""A fit that begins with the weights of a fitted model (`fit(log, start=model)`)."""

from __future__ import annotations

import torch

from fastgaum.config import Config
from fastgaum.errors import ConfigError
from fastgaum.features.fields import ids_elsewhere
from fastgaum.features.space import FeatureSpace
from fastgaum.models.networks_model import NetworksModel
from fastgaum.nets.networks import Networks
from fastgaum.presets import TRAINING_KEYS


def require_same_settings(asked: Config, start: NetworksModel) -> None:
    """Raise ConfigError for a configuration that is not, keys of training aside, that of a fit."""
    if start.space is None:
        raise ConfigError("start has not been trained: fit it, or load a run")
    was, now = start.config.replace(folds=0, search=()).to_mapping(), asked.to_mapping()
    free = (*TRAINING_KEYS, "no_click")
    differ = [f"{k} = {was[k]}, not {now[k]}" for k in was if now[k] != was[k] and k not in free]
    if differ:
        raise ConfigError(
            f"a fit with the weights of start has {', '.join(differ)}: make the model with "
            "UserModel(start.config.replace(folds=0, search=())), or fit without start"
        )


@torch.no_grad()
def take_weights(networks: Networks, space: FeatureSpace, start: NetworksModel) -> None:
    """Give networks over a space the weights of a fitted model, those of ids by their names; a new
    id keeps its own. Raises ConfigError for weights of other shapes."""
    assert start.networks is not None
    assert start.space is not None
    n, weights = start.space.n_ids, start.networks.state_dict()
    ids = torch.from_numpy(ids_elsewhere(space.fields, start.space.fields))
    try:
        for name, own in networks.state_dict().items():
            # position weights have several rows for each id
            if name.endswith("table") and len(own) % len(ids) == 0:
                rows = own.view(len(ids), -1).clone()
                rows[ids >= 0] = weights[name].to(own.device).view(n, -1)[ids[ids >= 0]]
                weights[name] = rows.view(own.shape)
        networks.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(
            f"the networks are not those of start ({str(error).splitlines()[-1].strip()}): fit "
            "without start"
        ) from None
