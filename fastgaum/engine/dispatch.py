"""Which of the two implementations of the game trains: the engine or the reference.

The reference (`game.game.ReferenceGame`: plain torch and autograd) takes every network and every
option on every device. The engine (`engine.game.EngineGame`: kernels and gradients in closed form)
is faster and takes what presets use:

| what | the engine takes |
|---|---|
| history encoder | ours: `lstm`, `gru`, `pw`, `bilstm`, and no subclass of theirs |
| tables | ours: no `OwnTable` of the caller |
| states | of the logged choices |
| numbers | float32 |
| device | the processor |
| several processes | all but `bilstm`, whose gradients of matrices are never written |

The choice needs no option, since both give the same losses and gradients: tests hold them
together."""

from __future__ import annotations

import torch

from fastgaum.config import Config
from fastgaum.engine.game import HISTORIES, EngineGame
from fastgaum.game.game import Game, ReferenceGame
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Regulariser
from fastgaum.nets.tables import OwnTable
from fastgaum.processes import Processes


def game_for(
    networks: Networks,
    config: Config,
    regulariser: Regulariser,
    unknown_of_id: torch.Tensor,
    outside: bool,
    processes: Processes | None = None,
) -> Game:
    """The game that trains these networks: on the engine where it can be, by autograd elsewhere.

    Args:
        networks: what is trained, on its device.
        config: how.
        regulariser: the generator's Ω.
        unknown_of_id: the id of each id's field for unknown values, (n_ids,).
        outside: whether no click is offered as a choice.
        processes: those that train together; alone if None.
    """
    device, alone = next(networks.parameters()).device, processes is None or processes.size == 1
    by_hand = runs_by_hand(networks, config, device) and (alone or config.history != "bilstm")
    kind = EngineGame if by_hand else ReferenceGame
    game = kind(networks, config, regulariser, unknown_of_id.to(device), outside)
    if processes is not None and not alone:
        game.share(processes)
    return game


def runs_by_hand(networks: Networks, config: Config, device: torch.device) -> bool:
    """Whether these networks and this game can be trained by hand."""
    known = type(networks.player.history) in HISTORIES
    ours = not any(isinstance(module, OwnTable) for module in networks.modules())
    floats = all(parameter.dtype is torch.float32 for parameter in networks.parameters())
    return known and ours and config.states == "logged" and floats and device.type == "cpu"
