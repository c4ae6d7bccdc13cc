"""Episodes of simulated users as a data set of Minari, for offline reinforcement learning:
`python minari_episodes.py RUN`. Needs `pip install 'minari[create,hdf5]'`, which keeps data sets in
~/.minari, or in the folder MINARI_DATASETS_PATH."""

import sys
from typing import Any

from minari import DataCollector, MinariDataset

from fastgaum.worlds.single_env import UserEnv


def main(episodes: int = 100, **world: Any) -> MinariDataset:
    """Show random slates to a new user in each episode; return the data set."""
    env = DataCollector(UserEnv(slate_size=3, horizon=10, **world))
    env.action_space.seed(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, left, cut_off, _ = env.step(env.action_space.sample())
            over = left or cut_off
    data = env.create_dataset("fastgaum/episodes-v0", algorithm_name="random")
    env.close()
    return data


if __name__ == "__main__":
    print(f"{main(run=sys.argv[1]).total_steps} steps")
