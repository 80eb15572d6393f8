"""A grid over tau, learning rate and batch size with plain `tune.run`.

    python examples/tune_run.py --env-steps 5000 --out results/tune_run
    python examples/tune_run.py --env-steps 5000 --out results/tune_run --resume

`--resume` after Ctrl-C, a crash or a power cut: finished trials are not repeated, the others go on from their last checkpoints.
"""

import argparse
from pathlib import Path

from ray import tune

import rllib_maddpg  # noqa: F401  makes "MADDPG" known

ENV_STEPS = "num_env_steps_sampled_lifetime"
SPACE = {
    "env": "simple_spread",
    "env_config": {"continuous_actions": True},
    "num_envs_per_env_runner": 8,
    "seed": 0,
    "tau": tune.grid_search([0.01, 0.1]),
    "lr": tune.grid_search([1e-2, 1e-3]),
    "train_batch_size_per_learner": tune.grid_search([256, 1024]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-steps", type=int, default=100_000, help="of each trial")
    parser.add_argument("--out", type=Path, default=Path("results/tune_run"))
    parser.add_argument("--resume", action="store_true", help="go on with the experiment in --out")
    args = parser.parse_args()
    out = args.out.resolve()
    if out.exists() != args.resume:
        parser.error(f"{out} {'is there already: go on with --resume' if out.exists() else 'has no experiment to go on with'}")

    analysis = tune.run(
        "MADDPG",
        config=SPACE,
        stop={ENV_STEPS: args.env_steps},
        storage_path=str(out.parent),
        name=out.name,
        # Every iteration (1,000 env steps or more); also makes Tune write down the experiment's state at every second one.
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2, checkpoint_at_end=True),
        reuse_actors=True,
        resume=args.resume or None,
    )

    best = analysis.get_best_trial("env_runners/episode_return_mean", "max")
    swept = {key: best.config[key] for key in ("tau", "lr", "train_batch_size_per_learner")}
    print(f"Best of {len(analysis.trials)}: {swept}, team return {best.last_result['env_runners']['episode_return_mean']:.1f}")
    print(f"rllib-maddpg evaluate '{best.checkpoint.path}'")


if __name__ == "__main__":
    main()
