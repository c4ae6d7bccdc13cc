"""A history encoder of one's own: the mean of the last few choices: `python custom_encoder.py`.

One method is needed, the state after each choice. Saving, simulated users and environments come
with the base class."""

from typing import Any

import torch
from torch import Tensor

import fastgaum as fg
from fastgaum.nets.bags import BagLinear
from fastgaum.nets.histories import HistoryEncoder
from fastgaum.nets.tensors import Bags


class MeanOfChoices(HistoryEncoder):
    """The mean of the last choices' embeddings."""

    window = 5

    def __init__(self, config: fg.Config, n_ids: int, n_numbers: int) -> None:
        super().__init__()
        self.state_dim = config.history_dim
        self.embedding = BagLinear(n_ids, n_numbers, self.state_dim, init_std=0.1)

    def after_tokens(self, tokens: Bags, offsets: Tensor) -> Tensor:
        """Tokens are choices, session after session; session i's are those from offsets[i] to
        offsets[i + 1]."""
        embedded = self.embedding(tokens)
        sums = torch.cat([embedded.new_zeros(1, self.state_dim), embedded.cumsum(0)])
        ends = torch.arange(1, tokens.n_bags + 1, device=offsets.device)
        begins = torch.repeat_interleave(
            offsets[:-1], offsets.diff()
        )  # of the session that each choice belongs to
        starts = torch.maximum(begins, ends - self.window)
        return torch.tanh((sums[ends] - sums[starts]) / (ends - starts)[:, None])


def main(n_events: int = 1500, **settings: Any) -> float:
    """Train with it, load the file again, and let its users choose; return prec@1 on the test
    split, in percent."""
    log, _ = fg.synthesise(n_events, n_items=40, no_click=0.2, seed=4)
    model = fg.UserModel.from_preset("fastgaum", history=MeanOfChoices, **settings)
    model.fit(log)
    prec1 = model.evaluate(log).heads["reward"].precision[1].mean
    print(f"prec@1 {prec1:.1f} with {MeanOfChoices.__name__}")

    model.save("mean.safetensors")
    again = fg.UserModel.load(
        "mean.safetensors", history=MeanOfChoices
    )  # a file holds no code, only its name
    world = fg.LearnedWorld(again)
    envs = fg.UserVectorEnv(64, world=world, slate_size=3)
    envs.reset(seed=0)
    _, rewards, *_ = envs.step(envs.action_space.sample())
    print(
        f"{len(rewards)} users with states of {world.state_dim} numbers chose for "
        f"{rewards.mean():.2f} each"
    )
    return prec1


if __name__ == "__main__":
    main()
