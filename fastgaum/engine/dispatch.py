"""Which of the two implementations of the game trains: the engine or the reference.

The reference (`game.game.ReferenceGame`: plain torch and autograd) takes every network and every
option on every device. The engine (`engine.game.EngineGame`: kernels and gradients in closed form)
is faster and takes what presets use:

| what | the engine takes |
|---|---|
| history encoder | `lstm`, and no subclass of it |
| regulariser | `shannon`, and no subclass of it |
| tables | ours: no `OwnTable` of the caller; `table_optimiser` adam |
| states | of the logged choices |
| numbers | float32 |
| device | the processor |

The choice needs no option, since both give the same losses and gradients: tests hold them
together."""

from __future__ import annotations

import copy

import torch

from fastgaum.config import Config
from fastgaum.engine.game import EngineGame
from fastgaum.game.game import Game, ReferenceGame
from fastgaum.game.scoring import Outputs
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Regulariser, Shannon
from fastgaum.nets.tables import OwnTable

MOST_COPIED = 1 << 22
"""numbers of networks that are copied to be scored with: with their optimisers 50 MB"""


def game_for(
    networks: Networks,
    config: Config,
    regulariser: Regulariser,
    unknown_of_id: torch.Tensor,
    outside: bool,
) -> Game:
    """Return the game that trains these networks: on the engine where it can be, by autograd
    elsewhere.

    Args:
        networks: what is trained, on its device.
        config: how.
        regulariser: the generator's Ω.
        unknown_of_id: the id of each id's field for unknown values, (n_ids,).
        outside: whether no click is offered as a choice.
    """
    device = next(networks.parameters()).device
    by_hand = runs_by_hand(networks, config, regulariser, device)
    kind = EngineGame if by_hand else ReferenceGame
    return kind(networks, config, regulariser, unknown_of_id.to(device), outside)


def runs_by_hand(
    networks: Networks, config: Config, regulariser: Regulariser, device: torch.device
) -> bool:
    """Whether these networks and this game can be trained by hand."""
    known = type(networks.player.history) is Recurrent and type(regulariser) is Shannon
    usual = config.states == "logged" and config.table_optimiser == "adam"
    plain = not any(isinstance(module, OwnTable) for module in networks.modules())
    single = all(value.dtype is torch.float32 for value in networks.parameters())
    return known and usual and plain and single and device.type == "cpu"


def outputs_by_hand(
    networks: Networks,
    config: Config,
    regulariser: Regulariser,
    unknown_of_id: torch.Tensor,
    outside: bool,
) -> Outputs:
    """A function that scores batches as these networks do now, on the processor: the engine with a
    copy of them, the networks themselves where the engine does not take them, or where a copy is
    large.

    Args: as `game_for`."""
    n_numbers = sum(one.numel() for one in networks.parameters())
    by_hand = runs_by_hand(networks, config, regulariser, torch.device("cpu"))
    if not by_hand or n_numbers > MOST_COPIED:
        return networks.outputs
    return EngineGame(copy.deepcopy(networks), config, regulariser, unknown_of_id, outside).outputs
