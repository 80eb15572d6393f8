"""Many trials on one GPU (or on a CPU) with plain `tune.Tuner`: their updates are made together by one shared Learner.

    python examples/shared_learner.py --env-steps 5000 --out results/shared_learner
    python examples/shared_learner.py --env-steps 5000 --out results/shared_learner --resume

Each trial stays an ordinary one, with its own settings, env runners, results and checkpoints; ASHA stops the poorer ones.
"""

import argparse
from pathlib import Path

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from rllib_maddpg import MADDPGConfig, SharedLearner
from rllib_maddpg.runs.reporting import MADDPGReporter

ENV_STEPS = "num_env_steps_sampled_lifetime"
RETURN = "env_runners/episode_return_mean"
NAME = "example"
CONFIG = (
    MADDPGConfig()
    .environment("simple_spread", env_config={"continuous_actions": True})
    .env_runners(num_envs_per_env_runner=8)
    .learners(shared_learner=NAME)  # no `num_gpus_per_learner`: the shared Learner has the GPU
    .debugging(seed=0)
    .training(
        tau=tune.loguniform(0.005, 0.2),
        lr=tune.loguniform(1e-4, 1e-2),
        train_batch_size_per_learner=tune.choice([512, 1024]),
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-steps", type=int, default=100_000, help="of the trials that are not stopped early")
    parser.add_argument("--num-samples", type=int, default=16, help="trials")
    parser.add_argument("--out", type=Path, default=Path("results/shared_learner"))
    parser.add_argument("--resume", action="store_true", help="go on with the experiment in --out")
    args = parser.parse_args()
    out = args.out.resolve()
    if out.exists() != args.resume:
        parser.error(f"{out} {'is there already: go on with --resume' if out.exists() else 'has no experiment to go on with'}")

    if args.resume:
        tuner = tune.Tuner.restore(str(out), trainable="MADDPG", param_space=CONFIG, resume_errored=True)
    else:
        scheduler = ASHAScheduler(ENV_STEPS, RETURN, "max", max_t=args.env_steps, grace_period=args.env_steps // 4)
        tuner = tune.Tuner(
            "MADDPG",
            param_space=CONFIG,
            tune_config=tune.TuneConfig(num_samples=args.num_samples, scheduler=scheduler, reuse_actors=True),
            run_config=tune.RunConfig(
                name=out.name,
                storage_path=str(out.parent),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2, checkpoint_at_end=True),
                # If the shared Learner dies, all trials go on from their last checkpoints in another one.
                failure_config=tune.FailureConfig(max_failures=3),
                progress_reporter=MADDPGReporter(),
            ),
        )
    ray.init()  # before the shared Learner, which lives in it
    with SharedLearner(NAME) as shared:
        results = tuner.fit()
        print(f"Shared Learner: {shared.status()}")

    best = results.get_best_result(RETURN, "max")
    # A config object keeps the batch size under a name of its own.
    swept = {key: best.config[key] for key in ("tau", "lr", "_train_batch_size_per_learner")}
    print(f"Best of {len(results)}: {swept}, team return {best.metrics['env_runners']['episode_return_mean']:.1f}")
    print(f"rllib-maddpg evaluate '{best.checkpoint.path}'")


if __name__ == "__main__":
    main()
