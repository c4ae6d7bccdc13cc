"""Displays of the synthetic world, drawn one after the other from one stream."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit


@jit
def draw_displays(
    rng: np.random.Generator,
    offsets: Array,
    skew: float,
    code_of_rank: Array,
    sort_keys: Array,
    shuffled: bool,
    items: Array,
    chances: Array,
) -> None:
    """Write distinct item codes of each display to items[offsets[i] : offsets[i + 1]], sorted by
    the keys of items, (n_items,), all different, or in an order that is drawn too, and after each
    display a number in [0, 1) to chances, (n_displays,).

    Popularity rank floor(n U^skew) has density ∝ rank^(1/skew − 1)."""
    n_items = len(code_of_rank)
    for event in range(len(offsets) - 1):
        shown = items[offsets[event] : offsets[event + 1]]
        held = 0
        while held < len(shown):
            code = code_of_rank[min(int(n_items * rng.random() ** skew), n_items - 1)]
            place = held
            while place > 0 and sort_keys[shown[place - 1]] > sort_keys[code]:
                place -= 1
            if place > 0 and shown[place - 1] == code:
                continue
            for i in range(held, place, -1):
                shown[i] = shown[i - 1]
            shown[place] = code
            held += 1
        for last in range(len(shown) - 1 if shuffled else 0, 0, -1):
            other = int(rng.random() * (last + 1))
            shown[last], shown[other] = shown[other], shown[last]
        chances[event] = rng.random()
