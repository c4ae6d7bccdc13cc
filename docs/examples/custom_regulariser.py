"""A regulariser of one's own: users between softmax and sparsemax: `python custom_regulariser.py`.

Ω is any convex, differentiable function of an event's choice distribution. Here it is half entropy,
half ½‖φ‖²: users explore less than softmax has it, and rule out less than sparsemax does."""

from typing import Any

from torch import Tensor

import fastgaum as fg
from fastgaum.nets.regularisers import SMALLEST_PROB, Custom
from fastgaum.nets.segments import segment_sum


def half_and_half(probs: Tensor, no_click_prob: Tensor, offsets: Tensor) -> Tensor:
    """Ω of each event, (n_events,): of its candidates, (n_candidates,), and of no click,
    (n_events,)."""

    def of(prob: Tensor) -> Tensor:
        return 0.5 * prob * prob.clamp(min=SMALLEST_PROB).log() + 0.25 * prob.square()

    return segment_sum(of(probs), offsets) + of(no_click_prob)


def main(n_events: int = 1500, **settings: Any) -> dict[str, float]:
    """Train one model with it and one without; return their NLL on the test split."""
    log, _ = fg.synthesise(n_events, n_items=40, no_click=0.2, seed=3)
    own = Custom(
        half_and_half, steps=40, step_size=0.5
    )  # the best response has no closed form: mirror ascent finds it
    nll = {}
    for name, regulariser in (("half and half", own), ("shannon", None)):
        model = fg.UserModel.from_preset(
            "fastgaum", regulariser=regulariser, players="exact", **settings
        )
        model.fit(log)
        reward = model.evaluate(log).heads["reward"]
        nll[name] = reward.nll.mean
        print(f"{name}: prec@1 {reward.precision[1].mean:.1f}, NLL {nll[name]:.3f}")
        model.save(f"{name}.safetensors")

    # a file holds no code: it names the regulariser, and you pass the same one to load it
    again = fg.UserModel.load("half and half.safetensors", regulariser=own)
    print(f"loaded: NLL {again.evaluate(log).heads['reward'].nll.mean:.3f}")
    return nll


if __name__ == "__main__":
    main()
