"""A small experiment in a process of its own, which a test may kill: `python tune_experiment.py run|tuner FOLDER [resume]`.

Three trials of 3,000 env steps one after the other, each with a checkpoint every 250. Every iteration adds a line to
`FOLDER/trained.txt`: process, lr, env steps, updates.
"""

import os
import sys
from pathlib import Path

import ray
from ray import tune

import rllib_maddpg  # noqa: F401  makes "MADDPG" known

STEPS = "num_env_steps_sampled_lifetime"
RATES = [0.001, 0.002, 0.003]


class WriteDown:
    """Adds a line for each iteration."""

    def __init__(self, file):
        self.file = file

    def __call__(self, algorithm, result, **kwargs):
        updates = result["learners"]["__all_modules__"].get("num_updates_lifetime", 0)
        with self.file.open("a") as file:
            file.write(f"{os.getpid()} {algorithm.config.lr} {result[STEPS]:.0f} {updates:.0f}\n")


def main(how: str, folder: Path, resume: bool) -> None:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    config = {
        "env": "simple_adversary",
        "env_config": {"continuous_actions": True},
        "lr": tune.grid_search(RATES),
        "seed": 0,
        "num_steps_sampled_before_learning_starts": 50,
        "train_batch_size_per_learner": 32,
        "num_env_steps_per_update": 50,
        "replay_buffer_config": {"capacity": 3000},
        "min_sample_timesteps_per_iteration": 250,
        "callbacks_on_train_result": WriteDown(folder / "trained.txt"),
    }
    # `num_to_keep` also makes Tune write down the state of the experiment at every second checkpoint of a trial.
    checkpoints = tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True, num_to_keep=2)
    stop = {STEPS: 3000}
    if how == "run":
        settings = {"config": config, "stop": stop, "checkpoint_config": checkpoints, "verbose": 0, "reuse_actors": True}
        tune.run("MADDPG", name="experiment", storage_path=str(folder), resume=resume or None, **settings)
    elif resume:
        tune.Tuner.restore(str(folder / "experiment"), trainable="MADDPG", param_space=config).fit()
    else:
        run = tune.RunConfig("experiment", str(folder), stop=stop, checkpoint_config=checkpoints, verbose=0)
        tune.Tuner("MADDPG", param_space=config, run_config=run, tune_config=tune.TuneConfig(reuse_actors=True)).fit()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] == ["resume"])
