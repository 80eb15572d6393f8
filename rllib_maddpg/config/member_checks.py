"""Checks of what a member of the family brings: its networks, the stages that train them, and its noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.agent_mapping import module_of_agent
from rllib_maddpg.config.kinds import RATE
from rllib_maddpg.config.model_checks import has_own_networks, model_config_of, module_classes, specs_of
from rllib_maddpg.config.noise_check import check_noise_type
from rllib_maddpg.config.own_columns import own_columns
from rllib_maddpg.envs import EnvSpaces
from rllib_maddpg.envs.errors import did_you_mean
from rllib_maddpg.learning.stages import Stage, check_stages
from rllib_maddpg.modules.rule_modules import has_networks
from rllib_maddpg.modules.specs import ACTOR, CRITIC, INFERRED, NetworkSpec
from rllib_maddpg.modules.views import VIEWS, View
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema


def check_members(config: AlgorithmConfig, env: EnvSpaces) -> None:
    """The stages of the Learner find their networks in every module, and the exploration its noise in this game.

    Raises:
        ValueError: Naming module or class, network or stage.
    """
    boxes = {
        agent: gym.spaces.Box(-np.inf, np.inf, (gym.spaces.flatdim(space),), np.float32)
        for agent, space in env.observation_spaces.items()
    }
    layout = JointLayout(boxes, env.action_spaces, partial(module_of_agent, config), config.actor_head, env.observation_spaces)
    schema = RowSchema(layout, config.extra_columns, own_columns(config))
    check_noise_type(config, num_envs=config.num_envs_per_env_runner, width=layout.action_dim)
    roles, classes = {}, module_classes(config, config.policies)
    for module_id, spec in specs_of(config, config.policies).items():
        cls = classes[module_id]
        if not has_networks(cls):
            continue
        added = config.added_to_model(module_id, schema)
        _check_view(added["critic_view"], schema, module_id)
        inferring = config.of_module(module_id, "infer_other_policies") and _sees_others(added["critic_view"])
        roles[module_id] = {ACTOR, CRITIC, INFERRED} if inferring and len(layout.modules) > 1 else {ACTOR, CRITIC}
        # Only what somebody else has written is tried; and not where connectors of the user's say what networks get to see.
        if has_own_networks(cls) and not config.has_own_connectors:
            agent = layout.slots_of(module_id)[0].agent
            model = {**config.model_config, **model_config_of(spec), **added}
            networks = _networks(cls, boxes[agent], env.action_spaces[agent], model)
            roles[module_id] = {network.role for network in networks if network.lr is not None}
            for network in networks:
                _check_rate(config, network, f"Module {module_id!r} of class {cls.__name__}")
    _check_inference(config, layout, roles)
    learner = config.learner_class
    try:
        stages = learner.stages(config)
    except Exception as error:  # code of the user's
        raise ValueError(
            f"`learner_class`: `stages` of {learner.__name__} failed ({type(error).__name__}: {error}). It is a class method "
            "of the config: `@classmethod def stages(cls, config)`."
        ) from error
    check_stages(stages, learner.__name__, roles)
    _check_trained(config, learner.__name__, stages)


def _sees_others(view: View | str) -> bool:
    return (VIEWS[view] if isinstance(view, str) else view).is_shared


def _check_inference(config: AlgorithmConfig, layout: JointLayout, roles: Mapping[str, Collection[str]]) -> None:
    """Where policies are to be approximated there are some, and a critic that asks for them."""
    if not config.infers or any(INFERRED in of_module for of_module in roles.values()):
        return
    what = "`infer_other_policies`=True is not allowed"  # of all modules, or of some for themselves
    if len(layout.modules) == 1:
        raise ValueError(
            f"{what}: it must be False where there is one module only; {layout.modules[0]!r} serves all agents, which are "
            f"{list(layout.agents)}. Set it to False, or map agents to different modules (`policy_mapping_fn`)."
        )
    wanted = [m for m in layout.modules if config.of_module(m, "infer_other_policies")]
    raise ValueError(
        f"{what}: of the modules that are to approximate others, {wanted}, none has a critic that asks what these "
        "do. Set `critic_view='all'` for one of them at least, or `infer_other_policies=False`."
    )


def _check_trained(config: AlgorithmConfig, learner: str, stages: Sequence[Stage]) -> None:
    """A Learner with stages of its own does what the settings of the family say."""
    if config.infers and not any(getattr(stage, "role", "") == INFERRED for stage in stages):
        raise ValueError(
            f"`infer_other_policies` is set, but `stages()` of {learner} has no stage that trains approximations. Begin it "
            "with those of MADDPGTorchLearner (`*super().stages(config)`), or set `infer_other_policies=False`."
        )
    actors = [stage for stage in stages if getattr(stage, "role", "") == ACTOR]
    if config.policy_delay > 1 and not any(stage.every == config.policy_delay for stage in actors):
        raise ValueError(
            f"`policy_delay`={config.policy_delay} is not allowed: it must be 1, because `stages()` of {learner} has no stage "
            "of actors with `every=config.policy_delay`. Take MADDPGTorchLearner's (`*super().stages(config)`), or set it to 1."
        )


def _check_rate(config: AlgorithmConfig, network: NetworkSpec, module: str) -> None:
    """`lr` is a rate, a setting that is one, or None."""
    lr, rates = network.lr, [key for key, setting in type(config).table().items() if setting.is_rate]
    if lr is None or (not isinstance(lr, str) and RATE.accepts(lr)) or (isinstance(lr, str) and lr in rates):
        return
    hint = did_you_mean(lr, rates) if isinstance(lr, str) else ""
    raise ValueError(
        f"{module}: network {network.name!r} has lr={lr!r}. It must be {RATE.allowed}, one of the settings {rates}, or None: "
        f"the network is not trained.{hint}"
    )


def _check_view(view: Any, schema: RowSchema, module_id: str) -> None:
    if isinstance(view, View):
        try:
            view.check(schema)
        except ValueError as error:
            raise ValueError(f"`critic_view` of module {module_id!r}: {error}") from None


def _networks(cls: Any, observation_space: gym.Space, action_space: gym.Space, model: dict[str, Any]) -> Sequence[NetworkSpec]:
    """Those of a module that is made for this."""
    try:
        module = cls(observation_space=observation_space, action_space=action_space, model_config=model)
        return module.network_specs
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"`rl_module_spec`: module {model['module_id']!r} of class {cls.__name__} could not be made "
            f"({type(error).__name__}: {error}). Fix its `setup`, `networks` or the methods that build its networks."
        ) from error
