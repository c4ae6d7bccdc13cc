"""PPO with masks in one file, as CleanRL writes it: `python cleanrl_ppo.py RUN`."""

import sys

import torch
from torch import nn

from fastgaum.worlds.item_by_item import VectorCascadeWrapper
from fastgaum.worlds.vector_env import UserVectorEnv

K, STEPS, LAMBDA = 3, 30, 0.95
GAMMA = 0.9 ** (1 / K)  # per pick; K picks are one step of the user


def start(n, seed, **world):
    """Users, and what is seen of them; CleanRL's loop reads the next episode in the step that ends
    one: SAME_STEP."""
    envs = VectorCascadeWrapper(
        UserVectorEnv(n, slate_size=K, horizon=10, autoreset_mode="SAME_STEP", **world)
    )
    obs, info = envs.reset(seed=seed)
    return envs, (torch.as_tensor(obs), torch.as_tensor(info["action_mask"]))


def play(envs, seen, actor):
    """What is seen after STEPS picks; observations, masks, actions, log probabilities, rewards and
    ends until then."""
    rows = []
    for _ in range(STEPS):
        with torch.no_grad():
            logits = torch.where(seen[1], actor(seen[0]), -1e9)
            dist = torch.distributions.Categorical(logits=logits)
        obs, reward, terminated, truncated, info = envs.step((action := dist.sample()).numpy())
        ends = map(torch.as_tensor, (reward, terminated | truncated))
        rows.append((*seen, action, dist.log_prob(action), *ends))
        seen = torch.as_tensor(obs), torch.as_tensor(info["action_mask"])
    return seen, [torch.stack(part) for part in zip(*rows, strict=True)]


def main(updates=60, n=64, **world):
    """Train; return the mean return of random picks and of the agent."""
    torch.manual_seed(0)
    envs, seen = start(n, 0, **world)
    n_in, n_out = (part.shape[1] for part in seen)
    actor, critic = (
        nn.Sequential(nn.Linear(n_in, 64), nn.Tanh(), nn.Linear(64, out)) for out in (n_out, 1)
    )
    optimiser = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=3e-3)
    for _ in range(updates):
        seen, (*rows, reward, done) = play(envs, seen, actor)
        with torch.no_grad():
            target = (value := critic(torch.cat([rows[0], seen[0][None]]))[..., 0]).clone()
            for t in reversed(range(STEPS)):
                target[t] = reward[t] + GAMMA * ~done[t] * torch.lerp(
                    value[t + 1], target[t + 1], LAMBDA
                )
        rows += [target[:-1], (target - value)[:-1]]
        for batch in torch.randperm(STEPS * n).repeat(4).chunk(16):
            obs, mask, action, before, goal, gain = (part.flatten(0, 1)[batch] for part in rows)
            dist = torch.distributions.Categorical(logits=torch.where(mask, actor(obs), -1e9))
            ratio = (dist.log_prob(action) - before).exp()
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            clipped = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
            surrogate = clipped + 0.01 * dist.entropy()
            optimiser.zero_grad()
            ((critic(obs)[:, 0] - goal).square() - surrogate).mean().backward()
            optimiser.step()
    return [
        play(*start(512, 99, **world), one)[1][4].sum(0).mean().item()
        for one in (lambda o: o[:, :1] * 0, actor)
    ]


if __name__ == "__main__":
    print("random {:.2f}, PPO {:.2f}".format(*main(run=sys.argv[1])))
