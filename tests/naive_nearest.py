"""The slow twin of kernels/nearest.py: every distance written out, every row looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence


def walk(n: int, draws: Sequence[int]) -> list[int]:
    """0 … n - 1 in the order of a walk around them; its stride is the first number from 1 + draw %
    n coprime with n."""
    stride = next(s for s in range(1 + draws[1] % n, n + 2) if math.gcd(s, n) == 1)
    return [(draws[0] % n + step * stride) % n for step in range(n)]


def nearest_others(
    choices: Sequence[tuple[int, int, int]],
    events: Sequence[int],
    draws: Sequence[Sequence[int]],
    size: int,
    unseen: bool,
) -> list[list[int]]:
    """Display sets of `events`, rows of `choices` (time, user, item), ended by -1 up to `size`."""
    displays = []
    for place, row in enumerate(events):
        time, user, item = choices[row]
        earlier = (
            {choices[r][2] for r in events[:place] if choices[r][1] == user} if unseen else set()
        )
        display = [item]
        for distance in sorted({abs(t - time) for t, _, _ in choices}):
            rows = [r for r, (t, _, _) in enumerate(choices) if abs(t - time) == distance]
            for i in walk(len(rows), draws[place]):
                _, other, found = choices[rows[i]]
                if (
                    other != user
                    and found not in display
                    and found not in earlier
                    and len(display) < size
                ):
                    display.append(found)
        displays.append(display + [-1] * (size - len(display)))
    return displays
