"""What the places of packed displays add to scores: e(place), the last for all further ones."""

from __future__ import annotations

from ._jit import Array, jit


@jit
def examine(display_offsets: Array, by_place: Array, scores: Array) -> None:
    """Add e of its place to each candidate's score; by_place (n_places,)."""
    furthest = len(by_place) - 1
    for event in range(len(display_offsets) - 1):
        start = display_offsets[event]
        for candidate in range(start, display_offsets[event + 1]):
            scores[candidate] += by_place[min(candidate - start, furthest)]


@jit
def examination_gradient(display_offsets: Array, grad_scores: Array, grad: Array) -> None:
    """Write the sum of the gradients of the scores at each place, (n_places,)."""
    furthest = len(grad) - 1
    grad[:] = 0
    for event in range(len(display_offsets) - 1):
        start = display_offsets[event]
        for candidate in range(start, display_offsets[event + 1]):
            grad[min(candidate - start, furthest)] += grad_scores[candidate]
