"""From an action, places of a pool, to a slate, items."""

from __future__ import annotations

from ._jit import Array, jit


@jit
def slates_of(actions: Array, pools: Array, active: Array, strict: bool, slates: Array) -> int:
    """Write slates[i, j] = pools[i, actions[i, j]] of active users; one pool may stand for all.

    Returns -1 if every action is allowed, otherwise the flat place of the first one that is not:
    outside the pool, or, if strict, equal to an earlier one of the same slate."""
    n_users, width = actions.shape
    size, shared = pools.shape[1], len(pools) == 1
    for i in range(n_users):
        if not active[i]:
            continue
        row = 0 if shared else i
        for j in range(width):
            action = actions[i, j]
            if action < 0 or action >= size:
                return int(i * width + j)
            slates[i, j] = pools[row, action]
        if strict:
            for j in range(1, width):
                for h in range(j):
                    if actions[i, h] == actions[i, j]:
                        return int(i * width + j)
    return -1
