"""The presets: values of a configuration under a name, and the sizes among which `fastgaum` chooses
on a large log."""

from __future__ import annotations

_PLAIN: dict[str, object] = {
    "set_context": False,
    "pieces": 0,
    "tastes": 0,
    "relations": False,
    "examination": False,
    "search": (),
    "wide": False,
    "grow": False,
}
"""without what `fastgaum` adds to the three networks"""

GROW_AT = 20_000
"""training events from which `fastgaum` sizes itself by short fits"""
COMPARE_BELOW = 2_000_000
"""training candidates below which sizes are compared; a log of more has the first one. A fit of a
part of its sessions would mislead: towers gain more from sessions than the network does"""
SHORT_VISITS, FEWEST_EPOCHS = 1_500_000, 6
"""training candidates times epochs of a short fit at most, and its epochs at least"""
TOWERS_AT = 50_000
"""training events from which a log of so many candidates has towers"""
BATCH_EVENTS = 1000
"""events of a batch of a size with towers"""
KNOWN_DISPLAYS, LEAST_ID_DROPOUT = 50, 0.02
"""displays of an item, in the mean, from which ids are replaced less often; and how often at least:
a row of unknown items is to be trained, and an item of many displays needs no help from it"""
NETWORK_EVENTS = 256
"""events of a batch of a size without towers"""
_NETWORK: dict[str, object] = {"dropout": 0.2}
_TOWERS: dict[str, object] = {
    "tower_dim": 64,
    "hidden": (32,),
    "history_dim": 32,
    "set_context": False,
    "relations": False,
    "dropout": 0.5,
    "id_dropout": 0.02,
    "weight_decay": 0.15,
    "patience": 2,
    "lr_drops": 0,
}
LARGE_DISPLAYS = 300
"""candidates of the display in which a training candidate stands, in the mean over these
candidates: above, relations are left out, whose cost grows with the square of a display (docs: how
fastgaum sizes itself)"""
SIZES: dict[str, dict[str, object]] = {
    "towers": _TOWERS,
    "network": {**_NETWORK, "relations": False},
    "network, relations": {**_NETWORK, "relations": True},
    "towers, no counts": {**_TOWERS, "counts": False},
    "network, no counts": {**_NETWORK, "relations": False, "counts": False},
}
"""what the `fastgaum` preset may be on a log of GROW_AT training events and more, by name; a fit
tries them in this order (docs: how fastgaum sizes itself)"""
GROWTH_DECIDES = (*_TOWERS, "counts", "search", "batch_sessions", "activation", "wide")
"""keys that a size sets, or that mean nothing in one: where one is set, a log of any number of
events is fitted as the configuration says"""

TRAINING_KEYS = (
    *("warm_start", "catch_up", "epochs", "patience", "lr_drops", "select", "batch_sessions"),
    *("local_steps", "lr", "rounds_lr", "generator_lr", "generator_steps"),
    *("weight_decay", "table_optimiser", "dropout", "id_dropout", "clip", "seed"),
)
"""keys that say how networks are trained, not what they are: a run that goes on from another may
change these"""

_PAPER: dict[str, object] = {
    **_PLAIN,
    "protocol": "identity",
    "players": "exact",
    "regulariser": "shannon",
    "hidden": (64, 64),
    "activation": "elu",
    "dropout": 0.0,
    "id_dropout": 0.1,
    "weight_decay": 0.01,
    "select": "calibrated loss",
    "lr_drops": 0,
    "epochs": 100,
    "patience": 20,
    "batch_sessions": 64,
    "lr": 3e-3,
}

PRESETS: dict[str, dict[str, object]] = {
    "fastgaum": {},
    "fastgaum-exact": {"players": "exact"},
    "fastgaum-members": {"members": 8},
    "paper-lstm": {**_PAPER, "history": "lstm", "history_dim": 20},
    "paper-pw": {**_PAPER, "history": "pw", "history_window": 20, "history_weights": 4},
    "report": {
        **_PLAIN,
        "protocol": "identity",
        "history": "bilstm",
        "history_dim": 512,
        "history_layers": 8,
        "hidden": (512,) * 8,
        "activation": "elu",
        "dropout": 0.1,
        "id_dropout": 0.1,
        "weight_decay": 0.01,
        "lr": 3e-4,
        "rounds_lr": 0.3,
        "generator_lr": 3e-4,
        "generator_steps": 5,
        "warm_start": 8,
        "epochs": 1,
        "patience": 5,
        "select": "calibrated loss",
        "lr_drops": 0,
        "batch_sessions": 64,
    },
}
"""`fastgaum-exact`: the same without the game, which shows what the game adds. `fastgaum-members`:
the mean of eight fits. `paper-*`: the
paper's sizes with exact Shannon players. `report`: the report's architecture, its game made
right."""
