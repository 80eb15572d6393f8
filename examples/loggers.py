"""Trains with Tune and logs to Weights & Biases, MLflow or Aim: through the callbacks of Ray, all on this machine.

    pip install -c constraints.txt -e ".[mpe2,loggers]"
    python examples/loggers.py --logger mlflow

Each logs every number of every result, so also `env_runners/agent_episode_returns_mean/agent_0` and
`learners/agent_0/critic_loss`. MLflow and Aim draw over env steps, W&B over iterations; there, choose
`num_env_steps_sampled_lifetime` as the axis.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from ray import tune

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.runs.reporting import MADDPGReporter

PROJECT = "maddpg"


def wandb_callback(folder: Path) -> tune.Callback:
    """Weights & Biases; with `WANDB_MODE=offline` runs lie in `<folder>/wandb` until `wandb sync`."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    folder.joinpath("wandb").mkdir(parents=True, exist_ok=True)
    # Said once more, since the actor that logs does not see this process's environment.
    return WandbLoggerCallback(project=PROJECT, dir=str(folder), mode=os.environ.get("WANDB_MODE", "online"))


def mlflow_callback(folder: Path) -> tune.Callback:
    """MLflow, into a file store; give the address of a server as `tracking_uri` to use one."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    # MLflow 3 refuses its file store unless told so; other stores need the whole `mlflow` (here: `mlflow-skinny`) or a server.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return MLflowLoggerCallback(tracking_uri=(folder / "mlruns").as_uri(), experiment_name=PROJECT)


def aim_callback(folder: Path) -> tune.Callback:
    """Aim, into a repository in the folder; `aim storage --repo <folder> reindex` before its SDK reads the runs."""
    from ray.tune.logger.aim import AimLoggerCallback

    return AimLoggerCallback(repo=str(folder), experiment_name=PROJECT)


CALLBACKS = {"wandb": wandb_callback, "mlflow": mlflow_callback, "aim": aim_callback}


def train(logger: str, folder: Path, env_steps: int) -> Any:
    """Two trials, which differ in their learning rate; returns Tune's results."""
    config = (
        MADDPGConfig()
        .environment("simple_spread", env_config={"continuous_actions": True})
        .training(lr=tune.grid_search([0.01, 0.001]), train_batch_size_per_learner=256, num_env_steps_per_update=50)
        .debugging(seed=0)
    )
    tuner = tune.Tuner(
        "MADDPG",
        param_space=config,
        run_config=tune.RunConfig(
            name=logger,
            storage_path=str(folder / "tune"),
            stop={"num_env_steps_sampled_lifetime": env_steps},
            callbacks=[CALLBACKS[logger](folder)],
            progress_reporter=MADDPGReporter(),
        ),
    )
    return tuner.fit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logger", choices=sorted(CALLBACKS), required=True)
    parser.add_argument("--out", type=Path, default=Path("results/loggers"), help="folder of the logs and of Tune's results")
    parser.add_argument("--env-steps", type=int, default=5000)
    parser.add_argument("--online", action="store_true", help="W&B only: send the runs, with the key of `wandb login`")
    args = parser.parse_args()
    if not args.online:
        os.environ["WANDB_MODE"] = "offline"
    train(args.logger, args.out.resolve(), args.env_steps)
    print(f"Logged by {args.logger} in {args.out}")


if __name__ == "__main__":
    main()
