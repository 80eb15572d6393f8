"""A cluster that says it has one GPU, and who gets it; prints what happened as one line of JSON. A process of its own."""

import json
import logging

import ray
from paths import PYTHONPATH
from tiny_shared import found, until, use_it

from rllib_maddpg.shared import life

told = []


class Told(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())


def main():
    use_it()
    life.PATIENCE_S = 0.5
    life.logger.addHandler(Told())
    env = {"env_vars": {"PYTHONPATH": PYTHONPATH}}
    ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False, runtime_env=env)
    report = {}
    with life.SharedLearner("first"):
        report["free"] = ray.available_resources().get("GPU", 0)
        try:
            life.shared_learner("second:grace-0.2", start_s=2)
        except RuntimeError as error:
            report["error"] = str(error)
        report["told"] = told
        with life.SharedLearner("on.CPU", num_gpus=0) as shared:
            report["on the CPU"] = shared.status()["holders"]
    # The GPU is free as soon as the first one has gone, and the second one has found that nobody is there any more.
    until(lambda: found("second:grace-0.2") is None)
    with life.SharedLearner("third"):
        report["then"] = ray.available_resources().get("GPU", 0)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
