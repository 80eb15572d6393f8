"""Checks of what a member of the family brings: its networks, and the stages that train them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.agent_mapping import module_of_agent
from rllib_maddpg.config.model_checks import given_specs, has_own_networks
from rllib_maddpg.envs import EnvSpaces
from rllib_maddpg.learning.stages import check_stages
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.modules.specs import ACTOR, CRITIC, NetworkSpec
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema


def check_members(config: AlgorithmConfig, env: EnvSpaces) -> None:
    """The stages of the Learner find their networks in every module.

    Raises:
        ValueError: Naming module or class, network or stage.
    """
    roles = {}
    for module_id, spec in given_specs(config, config.policies).items():
        cls = spec.module_class if spec else None
        if cls is not None and not has_networks(cls):
            continue
        roles[module_id] = {ACTOR, CRITIC}
        # Only what somebody else has written is tried; and not where connectors of the user's say what networks get to see.
        if has_own_networks(cls) and not config.has_own_connectors:
            networks = _networks(config, env, module_id, cls, spec.model_config)
            roles[module_id] = {network.role for network in networks if network.lr is not None}
    learner = config.learner_class
    check_stages(learner.stages(config), learner.__name__, roles)


def _networks(config: AlgorithmConfig, env: EnvSpaces, module_id: str, cls: Any, model: Any) -> Sequence[NetworkSpec]:
    """Those of a module that is made for this."""
    boxes = {
        agent: gym.spaces.Box(-np.inf, np.inf, (gym.spaces.flatdim(space),), np.float32)
        for agent, space in env.observation_spaces.items()
    }
    layout = JointLayout(boxes, env.action_spaces, partial(module_of_agent, config), config.actor_head, env.observation_spaces)
    agent = layout.slots_of(module_id)[0].agent
    added = config.added_to_model(module_id, RowSchema(layout, config.extra_columns))
    model_config = {**config.model_config, **(model or {}), **added}
    try:
        module = cls(observation_space=boxes[agent], action_space=env.action_spaces[agent], model_config=model_config)
        return module.network_specs
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"`rl_module_spec`: module {module_id!r} of class {cls.__name__} could not be made ({type(error).__name__}: "
            f"{error}). Fix its `setup`, `networks` or the methods that build its networks."
        ) from error
