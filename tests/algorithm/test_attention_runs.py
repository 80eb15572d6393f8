"""Whole runs with attention critics: resumed bit for bit, with frozen modules, with other settings after a restart."""

import numpy as np
import pytest
from pairs import config_of
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

from rllib_maddpg import MADDPGConfig


def small(critic_type="attention", **settings):
    config = MADDPGConfig().environment("simple_adversary").env_runners(num_envs_per_env_runner=2)
    config.training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=64, num_env_steps_per_update=10)
    config.training(critic_type=critic_type, **settings).reporting(min_sample_timesteps_per_iteration=100)
    return config.debugging(seed=1)


def weights_of(algo):
    state = algo.learner_group.get_state(f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}")
    return state[COMPONENT_LEARNER][COMPONENT_RL_MODULE]


def critics_of(weights):
    return [{name: w for name, w in own.items() if "critic" in name} for own in weights.values()]


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("ray_session")
def test_a_resumed_run_goes_on_bit_for_bit(build, tmp_path):
    """Where it was saved all episodes have just ended: 50 env steps of 2 envs, whose episodes have 25."""
    algo = build(small())
    algo.train()
    path = algo.save_to_path(str(tmp_path))
    algo.train()
    again = build(small())
    again.restore_from_path(path)
    again.train()
    first, second = weights_of(algo), weights_of(again)
    assert all(same(first[m], second[m]) for m in first)
    assert all(same(own, critics_of(first)[0]) for own in critics_of(first))

    # As population based training does it: all modules' critics go on with the new rate and tau.
    other = build(small(critic_lr=0.1, tau=0.5))
    other.restore_from_path(path)
    other.train()
    learner = other.learner_group._learner
    assert {learner.get_optimizer(m, "critic").param_groups[0]["lr"] for m in first} == {0.1}
    assert all(same(own, critics_of(weights_of(other))[0]) for own in critics_of(weights_of(other)))

    with pytest.raises(ValueError, match="_critic' has"):
        build(small("mlp")).restore_from_path(path)


@pytest.mark.usefixtures("ray_session")
def test_the_critic_of_a_frozen_module_moves_with_the_others(build):
    """Even if that module comes first; its actor stays."""
    algo = build(config_of(("attention", "dead agents")).multi_agent(policies_to_train=["c"]))
    before = weights_of(algo)
    for _ in range(2):
        algo.train()
    after = weights_of(algo)
    assert all(same(own, critics_of(after)[0]) for own in critics_of(after))
    assert not same(critics_of(before)[0], critics_of(after)[0])
    assert np.array_equal(before["a"]["actor.layers.0.weight"], after["a"]["actor.layers.0.weight"])
    assert not np.array_equal(before["c"]["actor.layers.0.weight"], after["c"]["actor.layers.0.weight"])
