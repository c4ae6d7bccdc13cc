"""Which of the implementations of the game trains: the engine, its layers on a card, or the
reference.

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
| several processes | all but `bilstm`, except with local steps |

On a card `engine.card_game.CardGame` (Triton's kernels) takes of these the `lstm`, no vectors of
items, the `shannon` regulariser and one process; the reference takes the rest there.

The choice needs no option, since all give the same losses and gradients: tests hold them
together."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import torch

from fastgaum.config import Config
from fastgaum.engine.game import EngineGame
from fastgaum.engine.players import HISTORIES
from fastgaum.errors import ConfigError
from fastgaum.game.game import Game, ReferenceGame
from fastgaum.game.scoring import Outputs
from fastgaum.nets.histories import Recurrent
from fastgaum.nets.networks import Networks
from fastgaum.nets.regularisers import Regulariser, Shannon
from fastgaum.nets.tables import OwnTable
from fastgaum.processes import Processes

MOST_COPIED = 1 << 22
"""numbers of networks that are copied to be scored with: with their optimisers 50 MB"""


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

    Raises:
        ConfigError: the networks are on a card, and Triton is not installed.
    """
    device, alone = next(networks.parameters()).device, processes is None or processes.size == 1
    made_of = (networks, config, regulariser, unknown_of_id.to(device), outside)
    if alone and is_card(device) and trains_on_card(networks, config, regulariser):
        take_card(device)
        from fastgaum.engine.card_game import CardGame

        return CardGame(*made_of)
    local = config.local_steps > 1
    known = alone or local or config.history != "bilstm"
    by_hand = runs_by_hand(networks, config, device) and known
    kind = EngineGame if by_hand else ReferenceGame
    game = kind(*made_of)
    if processes is not None and not alone and not local:
        game.share(processes)
    return game


def runs_by_hand(networks: Networks, config: Config, device: torch.device) -> bool:
    """Whether these networks and this game can be trained by hand."""
    known = type(networks.player.history) in HISTORIES
    logged = config.states == "logged"
    return known and _is_plain(networks) and logged and device.type == "cpu"


def outputs_for(networks: Networks, device: torch.device) -> Outputs:
    """What scores batches with these networks: Triton's kernels on a card, where they can be.

    Raises:
        ConfigError: as `game_for`.
    """
    if not (is_card(device) and runs_on_card(networks)):
        return networks.outputs
    take_card(device)
    from fastgaum.engine.card_game import CardNetworks

    return CardNetworks(networks).outputs


def outputs_by_hand(
    networks: Networks,
    config: Config,
    regulariser: Regulariser,
    unknown_of_id: torch.Tensor,
    outside: bool,
) -> Outputs:
    """What scores batches as these networks do now, on the processor: the engine with a copy of
    them, the networks themselves where the engine does not take them, or where a copy is large.

    Args: as `game_for`."""
    n_numbers = sum(one.numel() for one in networks.parameters())
    by_hand = runs_by_hand(networks, config, torch.device("cpu"))
    if not by_hand or n_numbers > MOST_COPIED:
        return networks.outputs
    return EngineGame(copy.deepcopy(networks), config, regulariser, unknown_of_id, outside).outputs


def runs_on_card(networks: Networks) -> bool:
    """Whether a card's layers take these networks: they do not know vectors of items."""
    history, items = networks.player.history, networks.player.items
    vectors = items is not None and items.projection is not None
    lstm = type(history) is Recurrent and history.kind == "lstm"
    return lstm and not vectors and _is_plain(networks)


def trains_on_card(networks: Networks, config: Config, regulariser: Regulariser) -> bool:
    """Whether a card's layers take this game."""
    return runs_on_card(networks) and config.states == "logged" and type(regulariser) is Shannon


def is_card(device: torch.device) -> bool:
    """Whether Triton's kernels run there."""
    return device.type == "cuda"


def take_card(device: torch.device) -> None:
    """Let Triton's kernels run on that card, of several. Raises ConfigError where Triton is not
    installed."""
    if find_spec("triton") is None:
        raise ConfigError(
            "a card trains and scores by Triton's kernels, and Triton is not installed: "
            "pip install 'fastgaum[cuda]', or use device cpu"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _is_plain(networks: Networks) -> bool:
    """Whether the tables are ours, and all numbers float32."""
    ours = not any(isinstance(module, OwnTable) for module in networks.modules())
    return ours and all(value.dtype is torch.float32 for value in networks.parameters())
