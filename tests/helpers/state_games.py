"""The oracle's games with a global state, for the package's Learner."""

from __future__ import annotations

import numpy as np
from family_learners import family_config, next_update
from learner_games import SpacesEnv, build
from reference.global_state import StateGame

from rllib_maddpg.learning.learner import MADDPGTorchLearner


class StatedSpaces(SpacesEnv):
    """Has a state, too."""

    def state(self):
        return np.zeros(StateGame.STATE_DIM)


def state_config(game: StateGame, **settings):
    """As `family_config`."""
    config = family_config(game, **settings)
    return config.environment(StatedSpaces, env_config=dict(config.env_config))


def state_learner(game: StateGame, double: bool = True, **settings) -> MADDPGTorchLearner:
    """As `family_learner`."""
    return build(state_config(game, **settings), game, double=double)


def next_state_update(game: StateGame, learner: MADDPGTorchLearner, seed: int, double: bool = True):
    """As `next_update`, with states in the rows; and these states."""
    joint, arguments = next_update(game, learner, seed, double=double)
    now, then = game.states(len(joint), seed)
    joint.columns["state"][:], joint.columns["new_state"][:] = now, then
    return joint, arguments, now, then
