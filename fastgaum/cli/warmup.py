"""`fastgaum warmup`: kernels are compiled now, not in the first fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fastgaum.cli.options import JsonFile
from fastgaum.cli.output import check_outputs, finish
from fastgaum.cli.progress import Bar, kernel_cache

if TYPE_CHECKING:
    from fastgaum.models.user_model import UserModel

SHORT: dict[str, Any] = {"epochs": 1, "warm_start": 1, "catch_up": 1, "search": []}
FITS: dict[str, dict[str, Any]] = {
    "a fit of a small log": {"name": "fastgaum"},
    "a fit of a large log": {"name": "fastgaum", "tower_dim": 8, "hidden": [8], "relations": False},
    "a fit of the paper's sizes": {"name": "paper-lstm", "players": "adversarial"},
}
"""presets and changes of networks that differ in the kernels they use"""


def warmup_command(*, json: JsonFile = None) -> None:
    """Compile all kernels now, as a step of the installation."""
    check_outputs(json)
    import numpy as np

    import fastgaum as fg

    log, started = fg.load("sample"), time.perf_counter()
    models: list[UserModel] = []

    def fit(changes: dict[str, Any]) -> None:
        model = fg.UserModel.from_preset(**SHORT, **changes, device="cpu")
        model.fit(log)
        models.append(model)

    def live() -> None:
        for model in models:
            users, keys = fg.LearnedWorld(model).population(2), np.arange(2, dtype=np.uint64)
            users.reset(keys)
            users.step(np.array([[0, 1, 2], [3, 4, 5]], np.int32), keys)

    def display() -> None:
        for model in models:
            user = model.user()
            user.probabilities(log.item_ids[:3].to_list())
            user.chose(log.item_ids[0])

    parts: dict[str, Callable[[], object]] = {
        **{what: partial(fit, changes) for what, changes in FITS.items()},
        "an evaluation": lambda: models[0].evaluate(log, "validation"),
        "a world": live,
        "an online display": display,
    }
    with Bar("compiling kernels") as progress:
        for done, (what, compile_part) in enumerate(parts.items()):
            progress(done, len(parts), what)
            compile_part()
        progress(len(parts), len(parts))
    seconds = time.perf_counter() - started
    place = kernel_cache()
    kept = "kernels run as plain Python here" if place is None else f"kernels are kept in {place}"
    finish(f"{kept} ({seconds:.1f} s)", json, {"path": str(place or ""), "seconds": seconds})
