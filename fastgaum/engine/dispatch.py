"""Which of the two implementations of the game trains; both give the same losses and gradients.

The reference (`game.game.ReferenceGame`: plain torch and autograd) takes every network and every
option on every device. The engine (`engine.game.EngineGame`: kernels and gradients in closed form)
takes, on the processor, `lstm` and `shannon` themselves, adam, and float32."""

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

MOST_COPIED = 1 << 22
"""numbers of networks copied to be scored with"""


def game_for(
    networks: Networks,
    config: Config,
    regulariser: Regulariser,
    unknown_of_id: torch.Tensor,
    outside: bool,
) -> Game:
    """The game that trains these networks, by the engine where it can.

    unknown_of_id: the id of each id's field for unknown values, (n_ids,); outside: whether no click
    is offered as a choice."""
    device = next(networks.parameters()).device
    by_hand = runs_by_hand(networks, config, regulariser, device)
    kind = EngineGame if by_hand else ReferenceGame
    return kind(networks, config, regulariser, unknown_of_id.to(device), outside)


def runs_by_hand(
    networks: Networks, config: Config, regulariser: Regulariser, device: torch.device
) -> bool:
    """Whether the engine takes these networks and this game."""
    known = type(networks.player.history) is Recurrent and type(regulariser) is Shannon
    usual = config.table_optimiser == "adam"
    single = all(value.dtype is torch.float32 for value in networks.parameters())
    return known and usual and single and device.type == "cpu"


def outputs_by_hand(
    networks: Networks,
    config: Config,
    regulariser: Regulariser,
    unknown_of_id: torch.Tensor,
    outside: bool,
) -> Outputs:
    """A function that scores batches as these networks do now, on the processor: the engine with a
    copy of them, unless it does not take them or they are large. Args as `game_for`."""
    n_numbers = sum(one.numel() for one in networks.parameters())
    by_hand = runs_by_hand(networks, config, regulariser, torch.device("cpu"))
    if not by_hand or n_numbers > MOST_COPIED:
        return networks.outputs
    return EngineGame(copy.deepcopy(networks), config, regulariser, unknown_of_id, outside).outputs
