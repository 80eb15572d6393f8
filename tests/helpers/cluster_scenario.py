"""Trains on a Ray cluster of several nodes, of which one goes and another comes; prints what happened as one line of JSON.

A script of its own, because a process can be connected to one Ray only:
`python tests/helpers/cluster_scenario.py '{"mode": "async"}'`.
"""

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

# Ray notes the newest cluster of a machine in its folder, and any `ray.init()` without an address would join it.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray_", dir="/tmp")
os.environ["OMP_NUM_THREADS"] = "1"
PATHS = [str(path) for path in Path(__file__).parents[:3]]
os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)
sys.path[:0] = PATHS

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from tally_env import TallyEnv, broken_rows  # noqa: E402

from rllib_maddpg import MADDPGConfig  # noqa: E402
from rllib_maddpg.replay.resharding import merged  # noqa: E402
from rllib_maddpg.sampling.env_runner import MADDPGEnvRunner  # noqa: E402

DEFAULTS = {
    "per_node": 1,  # runners on each of the two nodes
    "mode": "pipelined",
    "learners": 0,
    "shards": 0,
    "sleep": 0.002,
    "fragment": 10,
    "iterations": 2,  # of each phase: before, without and with the other node
    "seconds": 0.0,  # of each phase, if longer
    "wait_for_new_node": True,  # whether the new node comes after a phase without it
}


class PlacedRunner(MADDPGEnvRunner):
    """Tells where it lives."""

    def node(self):
        return ray.get_runtime_context().get_node_id()


def config_for(options):
    config = MADDPGConfig().environment(TallyEnv, env_config={"sleep": options["sleep"]}).debugging(seed=3)
    config.env_runners(
        num_env_runners=2 * options["per_node"],
        rollout_fragment_length=options["fragment"],
        sample_mode=options["mode"],
        env_runner_cls=PlacedRunner,
        custom_resources_per_env_runner={"runner": 1},
        sample_timeout_s=20,
    )
    config.fault_tolerance(delay_between_env_runner_restarts_s=0)
    config.learners(num_learners=options["learners"])
    if options["learners"]:
        config.learners(custom_resources_per_learner={"learner": 1})
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    buffer = {"capacity": 100_000}
    if options["shards"]:
        buffer["num_shards"] = options["shards"]
    config.training(num_steps_sampled_before_learning_starts=40, train_batch_size_per_learner=16, lr=1e-3)
    config.training(num_env_steps_per_update=50, replay_buffer_config=buffer)
    return config.reporting(min_sample_timesteps_per_iteration=200)


class Run:
    """An algorithm on a cluster: a head node for the driver, one for Learners and shards, two with half of the runners each."""

    def __init__(self, options):
        self.options, self.report = options, {}
        # Nothing has room on the head node.
        self.cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        others = options["learners"] + options["shards"]
        if others:
            self.cluster.add_node(num_cpus=others, resources={"learner": max(1, options["learners"])})
        self.nodes = [self.add_runner_node() for _ in range(2)]
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        self.algo = config_for(options).build_algo()

    def add_runner_node(self):
        return self.cluster.add_node(num_cpus=self.options["per_node"], resources={"runner": self.options["per_node"]})

    @property
    def group(self):
        return self.algo.env_runner_group

    def homes(self):
        """Runner -> node."""
        ids = self.group.healthy_env_runner_ids()
        nodes = self.group.foreach_env_runner("node", local_env_runner=False, remote_worker_ids=ids)
        return dict(zip(ids, nodes, strict=True))

    def train(self, name, until=None):
        """Some iterations, then more until the condition holds; notes env steps per second."""
        start, before, iterations = time.monotonic(), self.algo._env_steps, 0
        longest = 0.0
        while True:
            began = time.monotonic()
            result = self.algo.train()
            longest = max(longest, time.monotonic() - began)
            iterations += 1
            elapsed = time.monotonic() - start
            done = iterations >= self.options["iterations"] and elapsed >= self.options["seconds"]
            if (until is None and done) or (until is not None and until()):
                break
            if elapsed > 90:
                raise TimeoutError(f"{name}: {self.group.num_healthy_remote_env_runners()} runners are there")
        env_steps = self.algo._env_steps - before
        self.report[name] = {
            "env_steps": env_steps,
            "rate": env_steps / elapsed,
            "seconds": elapsed,
            "longest_iteration": longest,
            "runners": self.group.num_healthy_remote_env_runners(),
        }
        return result

    def run(self):
        self.train("warm_up", until=lambda: self.algo._num_updates > 0)
        self.train("before")
        homes = self.homes()
        lost, kept = self.nodes
        lost_runners = sorted(runner for runner, node in homes.items() if node == lost.node_id)
        self.cluster.remove_node(lost, allow_graceful=False)
        self.train("removed", until=lambda: self.group.num_healthy_remote_env_runners() == self.options["per_node"])
        if self.options["wait_for_new_node"]:
            self.train("without")
        new = self.add_runner_node()
        self.train("back", until=lambda: self.group.num_healthy_remote_env_runners() == 2 * self.options["per_node"])
        result = self.train("after")
        self.report["loss"] = self.loss("removed", "without") if self.options["wait_for_new_node"] else None
        self.report["moved"] = all(self.homes()[runner] == new.node_id for runner in lost_runners)
        self.report["stayed"] = all(self.homes()[r] == kept.node_id for r in homes if r not in lost_runners)
        self.report["lost_runners"] = len(lost_runners)
        self.count(result)
        return self.report

    def loss(self, *phases):
        """Share of the throughput of all runners that is missing in these phases, from the moment the node was gone."""
        sums = [sum(self.report[phase][key] for phase in phases) for key in ("env_steps", "seconds")]
        return 1 - sums[0] / sums[1] / ((self.report["before"]["rate"] + self.report["after"]["rate"]) / 2)

    def count(self, result):
        algo = self.algo
        columns = merged(algo.replay_buffer.get_state())["columns"]
        self.report |= {
            "result_env_steps": result["num_env_steps_sampled_lifetime"],
            "runners_env_steps": result["env_runners"]["num_env_steps_sampled_lifetime"],
            "env_steps": algo._env_steps,
            "rows": len(columns["rewards"]),
            "rows_added": algo.replay_buffer.num_rows_added,
            "updates": algo._num_updates,
            "trained_rows": result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"],
            "owed": algo._env_steps_since_update,
            "broken": broken_rows(columns),
            "learner_nodes": len(self.cluster.worker_nodes),
        }

    def stop(self):
        self.algo.stop()
        ray.shutdown()
        self.cluster.shutdown()


def main(options):
    run = Run({**DEFAULTS, **options})
    try:
        print(json.dumps(run.run()), flush=True)
    finally:
        run.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
