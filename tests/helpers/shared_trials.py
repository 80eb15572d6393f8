"""A trial that learns for itself, and its twin in a shared learner."""

import numpy as np
import ray
import tree
from tiny_algorithm import state_of, tiny_config

SHARED = "tests"
# Updates of several trials are other sums than those of one trial; no more than rounding may differ.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
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
    """Equal numbers under the same keys."""
    one, other = numbers_of(one), numbers_of(other)
    assert one.keys() == other.keys() and len(one) > 40
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], **CLOSE, err_msg=name)


def assert_same_states(one, other):
    """Equal in all that learns, counts and is stored; NaN equals NaN."""
    for mine, theirs in zip(state_of(one), state_of(other), strict=True):
        if mine.dtype.kind == "f":
            np.testing.assert_allclose(mine, theirs, **CLOSE)
        else:
            np.testing.assert_array_equal(mine, theirs)


def status_of(algo):
    """What the shared learner of a trial says of itself."""
    return ray.get(algo.learner_group.client.actor.status.remote())
