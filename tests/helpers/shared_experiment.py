"""Trials of Tune in one shared learner, in a process that a test stops or kills: `python shared_experiment.py JSON`.

Two trials train until there is a file `FOLDER/stop`. Every iteration adds a line to `FOLDER/trained.txt`: trial, its process,
the shared learner's process, updates. At the end it says "over", and waits until its standard input is closed.
"""

import json
import os
import sys
from pathlib import Path

import ray
from paths import PYTHONPATH
from ray import tune
from tiny_shared import found, until

from rllib_maddpg import SharedLearner

DEFAULTS = {"address": "local", "held": True, "max_slots": None, "failures": 0, "gpus": 0}
NAME = "experiment"


class WriteDown:
    """Adds a line for each iteration."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, algorithm, result, **kwargs):
        there = algorithm.learner_group.foreach_learner(lambda learner: os.getpid())
        updates = result["learners"]["__all_modules__"].get("num_updates_lifetime", 0)
        line = f"{algorithm.config.seed} {os.getpid()} {next(iter(there)).get()} {updates:.0f}\n"
        with (self.folder / "trained.txt").open("a") as file:
            file.write(line)


def run(folder, options):
    config = {
        "env": "simple_adversary",
        "env_config": {"max_cycles": 5},
        "seed": tune.grid_search([1, 2]),
        "shared_learner": NAME,
        "num_steps_sampled_before_learning_starts": 10,
        "train_batch_size_per_learner": 8,
        "num_env_steps_per_update": 10,
        "replay_buffer_config": {"capacity": 60},
        "min_sample_timesteps_per_iteration": 200,
        "callbacks_on_train_result": WriteDown(folder),
    }
    tune.run(
        "MADDPG",
        config=config,
        name="experiment",
        storage_path=str(folder),
        stop=lambda trial, result: (folder / "stop").exists(),
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2),
        max_failures=options["failures"],
        raise_on_failed_trial=False,
        verbose=1,
    )


def main(folder, options):
    ray.init(
        options["address"],
        runtime_env={"env_vars": {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}},
        **({"num_cpus": 2, "num_gpus": options["gpus"], "include_dashboard": False} if options["address"] == "local" else {}),
    )
    if options["held"]:
        with SharedLearner(NAME, max_slots=options["max_slots"]):
            run(folder, options)
    else:
        run(folder, options)
    until(lambda: found(NAME) is None)
    print("over", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    given = {**DEFAULTS, **json.loads(sys.argv[1])}
    main(Path(given["folder"]), given)
