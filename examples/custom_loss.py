"""Losses of your own: a target that stays within the returns that can be, and a critic loss that spares it from outliers.

    python examples/custom_loss.py
    python examples/custom_loss.py --env simple_spread --lowest -100 --highest 0

Three methods of the Learner are made to be overridden: `td_target`, `critic_loss` and `actor_loss`. They are functions of the
tensors of G modules that are computed as one; they need no network, so that it goes on as fast as before.
"""

import argparse

import torch.nn.functional as F

from rllib_maddpg import MADDPGConfig, MADDPGTorchLearner


class BoundedLearner(MADDPGTorchLearner):
    """Whose critics know the lowest and the highest return there can be."""

    def td_target(self, next_q, rows, settings):
        """The paper's target, within the bounds: `[G, n, B]`."""
        bounds = self.config.learner_config_dict
        return super().td_target(next_q, rows, settings).clamp(bounds["lowest"], bounds["highest"])

    def critic_loss(self, q, target, rows, settings):
        """Mean of log cosh(error) over the agents that act, `[G]`: a square near 0, and linear far from it."""
        error = q - target
        log_cosh = error + F.softplus(-2.0 * error) - F.softplus(error.new_zeros(()))
        return (rows["acts"] * log_cosh).sum((-2, -1)) / rows.count("acts")


def make_config(env: str, lowest: float, highest: float) -> MADDPGConfig:
    """Trains `env` with these losses."""
    return (
        MADDPGConfig()
        .environment(env)
        .env_runners(num_envs_per_env_runner=8)
        .training(learner_class=BoundedLearner, learner_config_dict={"lowest": lowest, "highest": highest})
        .training(lr=0.001, num_env_steps_per_update=25)
    )


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="simple_spread")
    parser.add_argument("--lowest", type=float, default=-100.0, help="return from any state on")
    parser.add_argument("--highest", type=float, default=0.0)
    parser.add_argument("--iterations", type=int, default=20, help="of 1,000 env steps")
    args = parser.parse_args(argv)
    algo = make_config(args.env, args.lowest, args.highest).build_algo()
    for _ in range(args.iterations):
        result = algo.train()
        learners = {m: own for m, own in result["learners"].items() if "critic_loss" in own}
        losses = ", ".join(f"{m} {own['critic_loss']:.3f}" for m, own in learners.items())
        print(f"return {result['env_runners']['episode_return_mean']:.1f}; critic loss: {losses or 'no update yet'}")
    algo.stop()


if __name__ == "__main__":
    main()
