"""An algorithm that trains in a moment, and all that it has learnt, to compare."""

import numpy as np
import tree

from rllib_maddpg import MADDPGConfig


def tiny_config(seed=0, config=None):
    config = MADDPGConfig() if config is None else config
    config.environment("simple_adversary", env_config={"max_cycles": 5}).debugging(seed=seed)
    config.training(
        train_batch_size_per_learner=8,
        num_env_steps_per_update=10,
        num_steps_sampled_before_learning_starts=10,
        replay_buffer_config={"capacity": 60},
    )
    return config.rl_module(model_config={"fcnet_hiddens": [4]}).reporting(min_sample_timesteps_per_iteration=40)


def state_of(algo):
    """All that learns and counts, as arrays: networks, targets, Adam, generators, replay rows, lifetime counts."""
    learner = algo.learner_group.get_state()["learner"]
    own = algo.get_state(components=[])
    state = {
        "learner": {key: learner[key] for key in ("rl_module", "optimizer", "noise_keys", "env_steps", "last_target_update")},
        "rows": algo.replay_buffer.get_state(),
        "counts": [own[key] for key in ("counts", "training_iteration", "env_steps_since_update", "episode_numbers")],
    }
    return [np.array(leaf) for leaf in tree.flatten(state) if leaf is not None]


def same(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))
