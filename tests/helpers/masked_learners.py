"""The oracle's random games with action masks for the package's Learner."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from family_learners import family_config
from learner_games import build
from reference.masks import MaskedFamilyGame

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner


def masked_config(game: MaskedFamilyGame, **settings: Any) -> MADDPGConfig:
    """As `family_config`; agents with masks observe Dicts."""
    config = family_config(game, **settings)
    spaces = config.env_config["obs_spaces"]
    for agent, columns in game.masks.items():
        mask = gym.spaces.Box(0, 1, (columns.stop,), np.int8)
        seen = gym.spaces.Box(-np.inf, np.inf, (game.obs_dims[agent] - columns.stop,), np.float32)
        spaces[agent] = gym.spaces.Dict({"action_mask": mask, "observation": seen})
    return config


def masked_learner(
    game: MaskedFamilyGame, double: bool = True, learner_class: type | None = None, **settings: Any
) -> MADDPGTorchLearner:
    """A Learner in this process with the game's weights."""
    config = masked_config(game, **settings)
    if learner_class is not None:
        config.training(learner_class=learner_class)
    learner = build(config, game, double=double)
    assert {slot.agent: slot.mask for slot in learner.layout.slots if slot.mask is not None} == game.masks
    return learner
