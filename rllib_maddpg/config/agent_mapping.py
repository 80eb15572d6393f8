"""Which module acts for which agent: `policy_mapping_fn` as a dict, and its check against the environment's agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_POLICY_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.policy import PolicySpec

from rllib_maddpg.config.checks import check_module_overrides
from rllib_maddpg.config.critic_checks import check_critics
from rllib_maddpg.config.image_checks import check_images
from rllib_maddpg.config.model_checks import check_spec_modules, module_classes
from rllib_maddpg.config.module_ids import check_module_ids
from rllib_maddpg.config.own_columns import own_columns
from rllib_maddpg.config.replay_checks import check_replay_memory
from rllib_maddpg.config.require import same, shown
from rllib_maddpg.config.space_checks import check_action_mask, check_agents, check_observation_space
from rllib_maddpg.config.state_columns import resolve_state
from rllib_maddpg.config.sub_policy_checks import check_ensembles
from rllib_maddpg.envs import EnvSpaces
from rllib_maddpg.modules.rule_modules import check_not_trained
from rllib_maddpg.rows.actions import make_codec
from rllib_maddpg.rows.layout import check_shared_modules
from rllib_maddpg.rows.observations import image_shape, is_byte_image
from rllib_maddpg.rows.schema import bytes_per_kept_row


class AgentMapping:
    """A `policy_mapping_fn` made from a dict of agent ids to module ids; without a dict each agent has its own module."""

    def __init__(self, module_of: Mapping[str, str] | None = None):
        self.module_of = dict(module_of) if module_of is not None else None

    def __call__(self, agent_id: str, episode: Any = None, **kwargs: Any) -> str:
        return str(agent_id) if self.module_of is None else self.module_of[agent_id]

    def __repr__(self) -> str:
        return "AgentMapping()" if self.module_of is None else f"AgentMapping({self.module_of})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentMapping) and other.module_of == self.module_of

    def __hash__(self) -> int:
        return hash(repr(self.module_of))


def resolve_agents(config: AlgorithmConfig, env: EnvSpaces) -> None:
    """Completes `policies` of a config, and checks mapping, modules and spaces against the env."""
    check_agents(env.agents)
    if config.policy_mapping_fn in (AlgorithmConfig.DEFAULT_POLICY_MAPPING_FN, None):
        config.policy_mapping_fn = AgentMapping()
    # Both as Tune and YAML may give them.
    if isinstance(config.policy_mapping_fn, Mapping):
        config.policy_mapping_fn = AgentMapping(config.policy_mapping_fn)
    if not isinstance(config.policies, Mapping):
        config.policies = {module: PolicySpec() for module in config.policies}
    mapping = config.policy_mapping_fn
    if isinstance(mapping, AgentMapping) and mapping.module_of is not None:
        strangers = sorted(set(mapping.module_of) - set(env.agents), key=str)
        missing = sorted(set(env.agents) - set(mapping.module_of), key=str)
        if strangers or missing:
            raise ValueError(
                f"`policy_mapping_fn` maps agents {strangers} that env {config.env!r} does not have, and leaves out "
                f"{missing}. The env's agents are {list(env.agents)}."
            )
    module_of = {agent: module_of_agent(config, agent) for agent in env.agents}
    # A mapping that draws lots shows it sooner or later; asked a few times, sooner.
    if any(module_of[agent] != module_of_agent(config, agent) for agent in env.agents for _ in range(20)):
        raise ValueError(
            "`policy_mapping_fn` maps an agent to one module now and to another then. MADDPG needs a static mapping."
        )
    check_module_ids(module_of)
    used = dict.fromkeys(sorted(module_of.values()))
    if list(config.policies) == [DEFAULT_POLICY_ID] and DEFAULT_POLICY_ID not in used:
        config.policies = {module: PolicySpec() for module in used}
    for module in config.policies:
        if module not in used:
            raise ValueError(
                f"`policies` has {module!r}, but `policy_mapping_fn` maps no agent of env {config.env!r} to it: {module_of}. "
                "A centralized critic needs each module's agents; remove it or map an agent to it."
            )
    for agent, module in module_of.items():
        if module not in config.policies:
            raise ValueError(
                f"`policy_mapping_fn` maps agent {agent!r} to {module!r}, which is not in `policies` "
                f"{sorted(config.policies)}. Add it to `policies` or change the mapping."
            )
    check_spec_modules(config, used)
    check_not_trained(config, module_classes(config, used))
    if isinstance(config._rl_module_spec, MultiRLModuleSpec):
        # RLlib tells env spaces to the modules of this spec only, so the user's has to have all of them.
        for module in used:
            config._rl_module_spec.rl_module_specs.setdefault(module, RLModuleSpec())
    # Sorted, because a set of policies has another order in each process.
    config.policies = {module: config.policies[module] or PolicySpec() for module in used}
    codes = [make_codec(env.action_spaces[agent], config.actor_head, agent).dim for agent in env.agents]
    check_shared_modules(module_of, env.observation_spaces, env.action_spaces)
    for agent in env.agents:
        check_observation_space(env.observation_spaces[agent], agent)
        check_action_mask(env.observation_spaces[agent], env.action_spaces[agent], agent)
    for agent, module in module_of.items():
        _check_spec_spaces(config.policies[module], module, agent, env)
    check_module_overrides(config, used)
    check_images(config, env.observation_spaces, module_of)
    resolve_state(config)
    spaces = env.observation_spaces.values()
    has_images = any(map(image_shape, spaces))
    check_critics(config, has_images)
    check_ensembles(config, module_of)
    widths = [gym.spaces.flatdim(space) for space in spaces]
    beside = [*config.extra_columns, *(column for column in own_columns(config) if column.stored)]
    size = bytes_per_kept_row(sum(widths), sum(codes), len(env.agents), beside, all(map(is_byte_image, spaces)))
    check_replay_memory(config, size, has_images)


def _check_spec_spaces(spec: PolicySpec | tuple, module: str, agent: Any, env: EnvSpaces) -> None:
    """Spaces in `policies` are those of the agents: others would be passed over, or make networks of a wrong size."""
    spec = spec if isinstance(spec, PolicySpec) else PolicySpec(*spec)
    for name, given, space in (
        ("observation_space", spec.observation_space, env.observation_spaces[agent]),
        ("action_space", spec.action_space, env.action_spaces[agent]),
    ):
        if given is not None and not same(given, space):
            raise ValueError(
                f"`policies[{module!r}]` has the {name} {shown(given)}, but its agent {agent!r} has {space}. Leave it out: the "
                "spaces are those of the environment. Change them there, or with a wrapper."
            )


def module_of_agent(config: AlgorithmConfig, agent: str) -> str:
    """The module of an agent, by the config's `policy_mapping_fn`.

    Raises:
        ValueError: If the mapping fails.
    """
    try:
        module = config.policy_mapping_fn(agent, None)
    except Exception as error:
        raise ValueError(
            f"`policy_mapping_fn` failed for agent {agent!r} ({type(error).__name__}: {error}). MADDPG needs a static "
            "mapping from agent id to module id, which may not look at the episode."
        ) from error
    if not isinstance(module, str):
        raise ValueError(
            f"`policy_mapping_fn` maps agent {agent!r} to {shown(module)}, which is no module's name. It must return a string."
        )
    return module
