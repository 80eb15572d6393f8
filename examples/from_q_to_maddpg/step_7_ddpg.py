"""Step 7: DDPG. A critic as in DQN, and an actor that climbs it: so actions may be continuous.

    actor: gradient of Q(s, mu(s)) by the actor's weights; critic: r + gamma Q_target(s', mu_target(s'))

In a game of one agent MADDPG is DDPG, so this is this package on Pendulum-v1. The actor explores with Gaussian noise or with an
Ornstein-Uhlenbeck process, whose noise drifts; what is drawn is played without noise.
"""

from __future__ import annotations

import time

import ray
from pictures import parse, picture

from rllib_maddpg import MADDPGConfig

NOISES = {
    "Gaussian": {"noise_type": "gaussian", "noise_scale": 0.1},
    "Ornstein-Uhlenbeck": {"noise_type": "ornstein_uhlenbeck", "noise_scale": 1.0, "ou_sigma": 0.2, "ou_theta": 0.15},
}


def ddpg_config(noise: dict, short: bool) -> MADDPGConfig:
    """Settings of tune_configs/pendulum.yaml."""
    return (
        MADDPGConfig()
        .environment("Pendulum-v1")
        .training(
            lr=0.001,
            gamma=0.98,
            num_env_steps_per_update=1,
            train_batch_size_per_learner=32 if short else 256,
            num_steps_sampled_before_learning_starts=200 if short else 1_000,
            grad_clip=None,
            **noise,
        )
        .evaluation(evaluation_interval=1, evaluation_duration=2 if short else 20, evaluation_num_env_runners=0)
        .reporting(min_sample_timesteps_per_iteration=300 if short else 1_500)
        .debugging(seed=0)
    )


def main(args: list[str] | None = None) -> None:
    options = parse(__doc__, args)
    most = 600 if options.short else 30_000
    was_running = ray.is_initialized()
    try:
        with picture("step_7_ddpg", options, "env steps", "return without noise") as axes:
            for name, noise in NOISES.items():
                begun, steps, returns = time.monotonic(), [], []
                algo = ddpg_config(noise, options.short).build_algo()
                try:
                    while not steps or steps[-1] < most:
                        result = algo.train()
                        steps.append(int(result["num_env_steps_sampled_lifetime"]))
                        returns.append(float(result["evaluation"]["env_runners"]["episode_return_mean"]))
                finally:
                    algo.stop()
                axes.plot(steps, returns, marker=".", label=f"{name} noise in training")
                seconds = time.monotonic() - begun
                print(f"{name}: return {returns[-1]:.0f} without noise after {steps[-1]:,} env steps, in {seconds:.0f} s.")
    finally:
        if not was_running:
            ray.shutdown()


if __name__ == "__main__":
    main()
