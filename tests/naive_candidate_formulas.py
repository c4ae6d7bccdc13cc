"""Numbers of one user's displayed places, written down as they are defined: the twin of
kernels/candidate_formulas.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fastgaum.features.relations import WINDOW
from fastgaum.kernels.pairs import PairCounts
from fastgaum.kernels.relations import PairTables


@dataclass
class NaiveUser:
    """What a session has been so far, in lists."""

    displayed: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    events: int = 0

    def count(self, items: Sequence[int], choice: int) -> None:
        """One event: what was shown, and the choice or -1."""
        self.displayed += items
        self.chosen += [choice] if choice >= 0 else []
        self.events += 1


def counted(user: NaiveUser, items: Sequence[int], set_size: int) -> np.ndarray:
    """displayed_before, chosen_before, log_set_size and event_number of each item, shape
    (len(items), 4)."""
    values = [
        [
            np.log1p(user.displayed.count(item)),
            np.log1p(user.chosen.count(item)),
            np.log(set_size or len(items)),
            np.log1p(user.events),
        ]
        for item in items
    ]
    return np.array(values)


def relations(
    user: NaiveUser,
    items: Sequence[int],
    tables: PairTables,
    set_size: int,
) -> np.ndarray:
    """The six numbers of pairs of each item, shape (len(items), 6)."""
    rival, follow = _pairs(tables.rivals), _pairs(tables.follows)
    most, ranks = tables.rule
    n_others = min(len(items) - 1, most)
    share = min(set_size - 1, most) / max(n_others, 1) if set_size else 1.0
    result = []
    for a in items:
        others = [b for b in items if b != a]
        if len(others) > most:
            known = [b for b in others if b < len(ranks)]
            others = sorted(known, key=lambda b: ranks[b])[:most]
        met = [rival[a, b] for b in others if (a, b) in rival]
        odds = sum(np.log((won + 0.5) / (lost + 0.5)) for _, won, lost in met)
        shown, taken = np.sum(
            [(0, 0)] + [follow[h, a] for h in user.chosen[-WINDOW:] if (h, a) in follow], axis=0
        )
        all_of = np.sum([(0, 0, 0), *met], axis=0) * share
        share_met = sum(count > 0 for count, _, _ in met) / max(n_others, 1)
        result.append(
            [
                np.log1p(all_of[0]),
                share_met,
                np.log((all_of[1] + 0.5) / (all_of[2] + 0.5)),
                share * odds,
                np.log1p(shown),
                np.log1p(taken),
            ]
        )
    return np.array(result)


def related(numbers: np.ndarray, varying: Sequence[int], set_size: int) -> np.ndarray:
    """The numbers, and what they differ by from the display set's mean.

    With a set_size: from the mean over the item and set_size - 1 others, which are as the others
    are on average."""
    size = len(numbers)
    relative = []
    for i in range(size):
        others = np.delete(numbers[:, varying], i, axis=0)
        rest = others.mean(axis=0) if size > 1 else numbers[i, varying]
        k = set_size or size
        relative.append(numbers[i, varying] - (numbers[i, varying] + (k - 1) * rest) / k)
    return np.concatenate([numbers, np.reshape(relative, (size, len(varying)))], axis=1)


def _pairs(table: PairCounts) -> dict[tuple[int, int], tuple[int, ...]]:
    return {
        (int(key) // table.n_items, int(key) % table.n_items): tuple(map(int, counts))
        for key, counts in zip(table.keys, table.counts, strict=True)
    }
