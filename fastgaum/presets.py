"""The presets: values of a configuration under a name, and what the `fastgaum` preset becomes on a
large log."""

from __future__ import annotations

from typing import Any

_PLAIN: dict[str, object] = {
    "set_context": False,
    "relations": False,
    "examination": False,
    "search": (),
    "wide": False,
    "grow": False,
}
"""without what `fastgaum` adds to the three networks"""

GROW_AT = 50_000
"""training events from which items are seen often enough for vectors of their own"""
BATCH_EVENTS = 1000
"""events of a batch then"""
GROWN: dict[str, object] = {
    "tower_dim": 64,
    "deep": True,
    "hidden": (32,),
    "history_dim": 32,
    "set_context": False,
    "relations": False,
    "search": (),
    "dropout": 0.5,
    "id_dropout": 0.02,
    "weight_decay": 0.15,
    "patience": 2,
}
"""what the `fastgaum` preset becomes on a large log (docs: design log, two towers)"""
GROWTH_DECIDES = (*GROWN, "batch_sessions", "activation", "item_dim", "wide")
"""keys that growth sets, or that mean nothing afterwards: where one is set, a log of any size is
fitted as the configuration says"""

_PAPER: dict[str, object] = {
    **_PLAIN,
    "protocol": "identity",
    "players": "exact",
    "regulariser": "shannon",
    "hidden": (64, 64),
    "activation": "elu",
    "item_dim": 0,
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

PRESETS: dict[str, dict[str, Any]] = {
    "fastgaum": {},
    "large": {
        **_PLAIN,
        "protocol": "identity",
        "item_dim": 8,
        "activation": "elu",
        "history_dim": 20,
        "dropout": 0.0,
        "id_dropout": 0.02,
        "weight_decay": 0.01,
        "batch_sessions": 256,
        "patience": 3,
        "lr_drops": 2,
    },
    "paper-lstm": {**_PAPER, "history": "lstm", "history_dim": 20},
    "paper-pw": {**_PAPER, "history": "pw", "history_window": 20, "history_weights": 4},
    "report": {
        **_PLAIN,
        "protocol": "identity",
        "item_dim": 0,
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
"""`large`: light regularisation and embeddings, for catalogues in the millions. `paper-*`: the
paper's sizes with exact Shannon players. `report`: the report's architecture, its game made
right."""
