"""An exploration noise of your own: colored noise, whose values remember the last ones as 1/f^beta noise does.

    python examples/extending/exploration_noise.py
    python examples/extending/exploration_noise.py --beta 0 --env-steps 20000

`beta=0` is white (Gaussian) noise, 2 is a random walk, and 1 is pink noise, which explores well in many tasks (Eberhard et al.
2023, "Pink Noise Is All You Need"). Nothing in the package knows this class: `noise_type` takes any that has the interface of
`rllib_maddpg.sampling.noise.Noise`, or its path as a string, such as `"my_package.noises.ColoredNoise"`.
"""

import argparse
import functools

import numpy as np

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.sampling.noise import Noise


class ColoredNoise(Noise):
    """White noise through the filter of Kasdin (1995): `x_t = sum_k h_k n_(t-k)` with `h_k = h_(k-1) (beta/2 + k - 1) / k`.

    After `memory` steps of an episode its standard deviation is 1, before that it is less.
    """

    def __init__(self, num_envs, width, beta=1.0, memory=50):
        super().__init__(num_envs, width)
        k = np.arange(1, memory)
        h = np.cumprod([1.0, *(beta / 2 + k - 1) / k])
        self.filter = (h / np.linalg.norm(h)).astype(np.float32)
        self.past = np.zeros((num_envs, memory, width), np.float32)  # the white noise, newest first

    def begin_episode(self, env):
        self.past[env] = 0.0

    def next(self, envs, normal):
        past = np.concatenate([normal[:, None], self.past[envs][:, :-1]], 1)
        self.past[envs] = past
        return np.einsum("k,ekw->ew", self.filter, past)


def make_config(beta: float = 1.0, seed: int = 0) -> MADDPGConfig:
    """`simple_spread`, explored with colored noise."""
    return (
        MADDPGConfig()
        .environment("simple_spread", env_config={"continuous_actions": True})
        .env_runners(num_envs_per_env_runner=4)
        .training(
            noise_type=functools.partial(ColoredNoise, beta=beta),
            noise_scale=[[0, 0.5], [10_000, 0.1]],
            lr=0.003,
            num_env_steps_per_update=20,
            num_steps_sampled_before_learning_starts=400,
            train_batch_size_per_learner=256,
            replay_buffer_config={"capacity": 50_000},
        )
        .debugging(seed=seed)
    )


def main(arguments: list[str] | None = None) -> None:
    """The program; `arguments` as in the command line, None: those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beta", type=float, default=1.0, help="0: white, 1: pink, 2: red")
    parser.add_argument("--env-steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    algo = make_config(args.beta, args.seed).build_algo()
    env_steps = 0
    while env_steps < args.env_steps:
        result = algo.train()
        env_steps = int(result["num_env_steps_sampled_lifetime"])
        print(f"{env_steps:>7} env steps: return {result['env_runners']['episode_return_mean']:.1f}", flush=True)
    algo.stop()


if __name__ == "__main__":
    main()
