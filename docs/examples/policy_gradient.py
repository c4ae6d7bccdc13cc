"""A policy gradient in one file: a network draws whole slates and learns from what they earn.

Run it with `python policy_gradient.py RUN`."""

import sys

import torch
from torch import nn

from fastgaum.worlds.vector_env import UserVectorEnv

K, STEPS = 3, 10


def play(envs, actor, seed=None):
    """An episode of every user: what was seen, the slates, and what was earned from each step
    on."""
    seen, _ = envs.reset(seed=seed)
    rows = []
    for _ in range(STEPS):
        with torch.no_grad():
            scores = actor(torch.as_tensor(seen))
        # the k highest of scores with Gumbel noise are k draws without replacement
        slates = (scores - torch.empty_like(scores).exponential_().log()).topk(K).indices
        after, rewards, *_ = envs.step(slates.numpy())
        rows.append((torch.as_tensor(seen), slates, torch.as_tensor(rewards)))
        seen = after
    seen, slates, rewards = (torch.stack(part) for part in zip(*rows, strict=True))
    return seen, slates, rewards.flip(0).cumsum(0).flip(0)


def log_probability(scores, slates):
    """Of each slate: item by item, each among those that are left."""
    total = 0
    for place in slates.split(1, dim=-1):
        total = total + (scores.gather(-1, place) - scores.logsumexp(-1, keepdim=True))[..., 0]
        scores = scores.scatter(-1, place, -torch.inf)
    return total


def main(updates=80, n=1024, **world):
    """Train; return the mean return of random slates and of the policy's, to new users."""
    torch.manual_seed(0)
    envs = UserVectorEnv(n, slate_size=K, horizon=STEPS, **world)
    width, pool = envs.single_observation_space.shape[0], envs.pools.size
    actor, critic = (
        nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, out)) for out in (pool, 1)
    )
    optimiser = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=1e-2)
    for _ in range(updates):
        seen, slates, goal = play(envs, actor)
        value = critic(seen)[..., 0]
        gain = (goal - value).detach()
        optimiser.zero_grad()
        (
            (value - goal).square() - gain / gain.std() * log_probability(actor(seen), slates)
        ).mean().backward()
        optimiser.step()
    earned = [
        play(envs, one, 99)[2][0].mean().item()
        for one in (lambda s: torch.zeros(len(s), pool), actor)
    ]
    envs.close()
    return earned


if __name__ == "__main__":
    print("random {:.2f}, policy {:.2f}".format(*main(run=sys.argv[1])))
