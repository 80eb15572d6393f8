"""Step 4: DQN. A network in place of the weighted sum, and what keeps it from diverging: replay, a target network, Huber loss.

    loss = Huber(r + gamma max over a' of Q_target(s', a') - Q(s, a))

Replay breaks the correlation of steps that follow each other; the target network stands still while Q learns; the Huber loss
keeps single large errors from dominating. This is RLlib's own DQN on CartPole-v1, until 20 greedy episodes have a mean return
of 475, at which the task counts as solved.
"""

from __future__ import annotations

import time

import numpy as np
import ray
from pictures import parse, picture
from ray.rllib.algorithms.dqn import DQNConfig

SOLVED = 475.0


def dqn_config(short: bool) -> DQNConfig:
    """RLlib's DQN: one-step targets, uniform replay; Huber is its loss."""
    return (
        DQNConfig()
        .environment("CartPole-v1")
        .training(
            lr=0.0005,
            gamma=0.99,
            train_batch_size_per_learner=64,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 50_000},
            num_steps_sampled_before_learning_starts=1_000,
            target_network_update_freq=500,
            epsilon=[(0, 1.0), (20_000, 0.02)],
            n_step=1,
            double_q=True,
            dueling=False,
        )
        .rl_module(model_config={"fcnet_hiddens": [128, 128], "fcnet_activation": "relu", "head_fcnet_hiddens": []})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=1)
        .evaluation(
            evaluation_interval=1,
            evaluation_duration=5 if short else 20,
            evaluation_num_env_runners=0,
            evaluation_config={"explore": False},
        )
        .reporting(min_sample_timesteps_per_iteration=500 if short else 2_500)
        .debugging(seed=0)
    )


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    most = 1_000 if options.short else 300_000
    was_running, begun = ray.is_initialized(), time.monotonic()
    algo = dqn_config(options.short).build_algo()
    steps, returns = [], []
    try:
        while not returns or (steps[-1] < most and returns[-1] < SOLVED):
            result = algo.train()
            steps.append(int(result["num_env_steps_sampled_lifetime"]))
            returns.append(float(result["evaluation"]["env_runners"]["episode_return_mean"]))
    finally:
        algo.stop()
        if not was_running:
            ray.shutdown()
    with picture("step_4_dqn", options, "env steps", "return of greedy episodes") as axes:
        axes.plot(steps, returns, marker=".", label="DQN")
        axes.axhline(SOLVED, ls="--", c="gray", label="solved")
    best = int(np.argmax(returns))
    seconds = time.monotonic() - begun
    print(f"Greedy return {returns[best]:.0f} after {steps[best]:,} env steps; the script took {seconds:.0f} s.")


if __name__ == "__main__":
    main()
