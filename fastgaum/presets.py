"""The presets: values of a configuration under a name, and the settings among which `fastgaum`
chooses on each log."""

from __future__ import annotations

from dataclasses import dataclass, field

_PLAIN: dict[str, object] = {
    "relative_numbers": False,
    "pieces": 0,
    "tastes": 0,
    "relations": False,
    "examination": False,
    "search": (),
    "folds": 0,
    "wide": False,
}
"""without what `fastgaum` adds to the three networks"""

FOLDS = 5
FOLDS_BELOW = 20_000
"""training events below which a fit is the mean of fits on folds of users"""
MANY_CANDIDATES = 2_000_000
"""training candidates from which a log has towers, and nothing is compared: a short fit would
mislead, since towers gain more from sessions than the network does"""
KNOWN_DISPLAYS, LEAST_ID_DROPOUT = 50, 0.02
"""displays of an item, in the mean, from which ids are replaced less often; and how often at least:
a row of unknown items is to be trained, and an item of many displays needs no help from it"""
MANY_BATCH_EVENTS = 256
"""events of a batch of a large log, at least"""
LARGE_DISPLAYS = 300
"""candidates of the display in which a training candidate stands, in the mean over these
candidates: above, relations are left out, whose cost grows with the square of a display (docs: how
fastgaum chooses)"""
_TOWERS: dict[str, object] = {
    "tower_dim": 64,
    "hidden": (32,),
    "history_dim": 32,
    "relative_numbers": False,
    "relations": False,
    "dropout": 0.5,
    "id_dropout": 0.02,
    "weight_decay": 0.15,
    "patience": 2,
    "lr_drops": 0,
}


@dataclass(frozen=True)
class LogSetting:
    """Values that a fit may choose, and the logs that they suit."""

    values: dict[str, object] = field(default_factory=dict)
    batch_events: int = 32
    """of a batch, at least"""
    least_events: int = 0
    """training events from which it is tried"""
    most_events: float = float("inf")
    """training events below which it is tried"""
    least_candidates: int = 0
    most_candidates: float = MANY_CANDIDATES

    def suits(self, n_events: int, n_candidates: int) -> bool:
        """Whether it is tried on a log of so much training."""
        return (
            self.least_events <= n_events < self.most_events
            and self.least_candidates <= n_candidates < self.most_candidates
        )


_Values = dict[str, object]
_NO_COUNTS: _Values = {"counts": False, "relations": False, "relative_numbers": False, "pieces": 0}
_READ: _Values = {"examination": False, "tastes": 0}
_WIDE: _Values = {"hidden": (128, 128)}
_QUICK: _Values = {**_WIDE, "weight_decay": 1.0, "lr": 0.01}


def _few(batch_events: int, values: _Values) -> LogSetting:
    """A setting of a log that is fitted by folds."""
    return LogSetting({"id_dropout": 0.1} | values, batch_events, most_events=FOLDS_BELOW)


def _many(values: _Values) -> LogSetting:
    """A setting of a log with one fit."""
    return LogSetting({"dropout": 0.2} | values, least_events=FOLDS_BELOW)


PORTFOLIO: dict[str, LogSetting] = {
    "small batches": _few(32, {}),
    "no tastes, no relations, decay": _few(
        32, _QUICK | {"tastes": 0, "relations": False, "relative_numbers": False}
    ),
    "places read, no tastes, no relations, decay": _few(
        128,
        _QUICK
        | _READ
        | {"relations": False, "relative_numbers": False, "pieces": 16, "id_dropout": 0.5},
    ),
    "places read, no tastes": _few(128, _READ | {"dropout": 0.2, "id_dropout": 0.5}),
    "no counts, no dropout": _few(32, _NO_COUNTS | {"dropout": 0.0}),
    "decay": _few(32, _QUICK),
    "small dropout": _few(32, {"dropout": 0.2}),
    "small batches, ids dropped": _few(32, {"id_dropout": 0.5}),
    "ids dropped": _few(128, {"id_dropout": 0.5}),
    "network": _many({}),
    "network, places read, no tastes": _many(_READ),
    "network of 128": _many({**_WIDE, "id_dropout": 0.1}),
    "network without relations": _many({"relations": False}),
    "towers": LogSetting(
        _TOWERS, 1000, least_candidates=MANY_CANDIDATES, most_candidates=float("inf")
    ),
}
"""what the `fastgaum` preset may be, by name, in the order in which a fit tries them"""
CHOSEN_KEYS = (
    *dict.fromkeys(key for one in PORTFOLIO.values() for key in one.values),
    "batch_sessions",
)
"""keys that a fit chooses, unless they are set"""

TRAINING_KEYS = (
    *("warm_start", "catch_up", "epochs", "patience", "lr_drops", "select", "batch_sessions"),
    *("local_steps", "lr", "rounds_lr", "generator_lr", "generator_steps"),
    *("weight_decay", "dropout", "id_dropout", "clip", "seed"),
)
"""keys that say how networks are trained, not what they are: a fit with another model's weights may
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
    "paper-lstm": {**_PAPER, "history": "lstm", "history_dim": 20},
    "paper-pw": {**_PAPER, "history": "pw", "history_window": 20, "history_weights": 4},
    "planning": {
        **_NO_COUNTS,
        "players": "exact",
        "search": (),
        "folds": FOLDS,
        "id_dropout": 0.1,
    },
}
"""`fastgaum-exact`: the same without the game, which shows what the game adds. `paper-*`: the
paper's sizes with exact Shannon players. `planning`: worlds that policies are trained in; counts,
relations and what else is displayed say much of the slates that were logged, and lead astray on
those of a plan, which are like none of them"""
