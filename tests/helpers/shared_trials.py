"""A trial that learns for itself, and its twin in a shared learner."""

import numpy as np
import ray
import tree
from tiny_algorithm import tiny_config

SHARED = "tests"
# What differs from run to run.
_CLOCKS = ("time", "throughput", "/sample", "connector", "duration")


def twin_config(name=SHARED, seed=0, config=None):
    """The tiny algorithm in the shared learner of a name."""
    return tiny_config(seed, config).learners(shared_learner=name)


def in_twins(build, change=lambda config: config, **made):
    """The same trial twice: for itself, and in the shared learner of the tests."""
    return build(change(tiny_config(**made))), build(change(twin_config(**made)))


def numbers_of(result):
    """All numbers of a result but clocks, by their paths."""
    parts = {key: result[key] for key in ("env_runners", "learners", "replay_buffer", "training_iteration")}
    parts |= {key: value for key, value in result.items() if key.startswith("num_")}
    paths = tree.flatten_with_path(parts)
    named = {"/".join(map(str, path)): value for path, value in paths}
    return {name: value for name, value in named.items() if not any(clock in name for clock in _CLOCKS)}


def assert_same_results(one, other):
    """Bit-equal numbers under the same keys."""
    one, other = numbers_of(one), numbers_of(other)
    assert one.keys() == other.keys() and len(one) > 40
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def status_of(algo):
    """What the shared learner of a trial says of itself."""
    return ray.get(algo.learner_group.client.actor.status.remote())
