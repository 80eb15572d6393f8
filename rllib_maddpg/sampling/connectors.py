"""RLlib's connectors where a game of unlike agents needs more of them than they do."""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium as gym
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module.env_to_module_pipeline import EnvToModulePipeline
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.utils import force_list
from ray.rllib.utils.annotations import override
from ray.rllib.utils.filter import RunningStat

from rllib_maddpg.envs import EnvSpaces
from rllib_maddpg.ray_compat import FlattenObservations, keys_to_remove
from rllib_maddpg.rows.observations import differs_from_rllib, mask_columns
from rllib_maddpg.sampling.flatten_connector import check_rllibs_flattening


class AgentMeanStdFilter(MeanStdFilter):
    """RLlib's `MeanStdFilter(multi_agent=True)`, also for agents whose observations differ in size.

    RLlib's own merges the statistics of remote env runners with an assertion that all agents' observations have one shape.
    """

    @classmethod
    def like(cls, other: MeanStdFilter) -> AgentMeanStdFilter:
        """A filter with the settings of RLlib's."""
        same = cls(**cls._settings(other))
        # Not by the constructor: RLlib's asks for the settings when it gets the spaces.
        same.input_action_space = other.input_action_space
        same.input_observation_space = other.input_observation_space
        return same

    @staticmethod
    def _settings(piece: MeanStdFilter) -> dict[str, Any]:
        return {
            "multi_agent": piece._multi_agent,
            "de_mean_to_zero": piece.de_mean_to_zero,
            "de_std_to_one": piece.de_std_to_one,
            "clip_by_value": piece.clip_by_value,
            "update_stats": piece._update_stats,
        }

    @override(ConnectorV2)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        # RLlib knows the settings only of classes that have a constructor themselves.
        return (), self._settings(self)

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuses statistics of other agents or observations, of which RLlib would take a part, or all.

        Raises:
            ValueError: Naming the first agent that differs.
        """
        if self._filters is None:
            self._init_new_filters()
        mine = {agent: tree.flatten(own.running_stats) for agent, own in self._filters.items()}
        theirs = {agent: [RunningStat.from_state(s) for s in own["running_stats"]] for agent, own in state.items()}
        for agent in sorted(mine.keys() | theirs.keys(), key=str):
            here, there = ([s.mean_array.shape for s in own[agent]] if agent in own else None for own in (mine, theirs))
            if here != there:
                raise ValueError(f"the filter's statistics of agent {agent!r} have shapes {there} there and {here} here")

    @override(ConnectorV2)
    def set_state(self, state: dict[str, Any]) -> None:
        self.check_state(state)
        super().set_state(state)

    @override(ConnectorV2)
    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        merged = self.get_state()
        for agent in states[0]:
            merged = super().merge_states([{agent: state[agent]} for state in states])
        return merged


class MergingPipeline(EnvToModulePipeline):
    """RLlib's, whose remote states are merged by the connectors that they are of.

    RLlib's own has the i-th connector merge the i-th state, also where connectors before it have none.
    """

    @override(EnvToModulePipeline)
    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        pieces = {type(piece).__name__: piece for piece in self.connectors}
        return {name: pieces[name].merge_states([state[name] for state in states]) for name in (states[0] if states else ())}


def with_agent_filters(pipeline: EnvToModulePipeline) -> EnvToModulePipeline:
    """The pipeline with `AgentMeanStdFilter` in the place of RLlib's own, which is merged right wherever it stands."""
    pieces = [
        AgentMeanStdFilter.like(piece) if type(piece) is MeanStdFilter and piece._multi_agent else piece
        for piece in pipeline.connectors
    ]
    if pieces == pipeline.connectors:
        return pipeline
    return MergingPipeline(pipeline.input_observation_space, pipeline.input_action_space, connectors=pieces)


def check_connectors(config: AlgorithmConfig, env: EnvSpaces) -> None:
    """The user's connectors fit what is observed, and MADDPG's episodes, which are multi-agent also where there is one agent.

    Raises:
        ValueError: Naming the connector, or an agent with an action mask, which connectors might change.
    """
    make, made = config._env_to_module_connector, None
    # One that wants to see the env itself is made later, on the runners.
    with contextlib.suppress(Exception):
        if make is not None:
            spaces = gym.spaces.Dict(env.observation_spaces), gym.spaces.Dict(env.action_spaces)
            made = make(None, {INPUT_ENV_SPACES: spaces, INPUT_ENV_SINGLE_SPACES: spaces}, None)
    masked = [agent for agent, space in env.observation_spaces.items() if mask_columns(space, agent) is not None]
    if masked and make is not None and not (made and all(flattens_alike(piece, env) for piece in force_list(made))):
        raise ValueError(
            f"`env_to_module_connector` is set, and agent {masked[0]!r} has an action mask, which must reach its actor as the "
            "env gives it. Do the connectors' work in the env (a wrapper), or in the network (`build_actor`); observations "
            "are made flat without one."
        )
    for piece in force_list(made):
        if getattr(piece, "_multi_agent", None) is False:
            name = type(piece).__name__
            raise ValueError(
                f"`env_to_module_connector`: {name} is made for single-agent episodes, but MADDPG's are multi-agent ones, also "
                f"those of an env of one agent. Give `{name}(multi_agent=True)`."
            )
        if isinstance(piece, FlattenObservations):
            check_rllibs_flattening(piece, env.observation_spaces)


def flattens_alike(piece: ConnectorV2, env: EnvSpaces) -> bool:
    """Whether a connector is RLlib's that flattens, and makes the vectors that `FlattenAgentObservations` would."""
    if not isinstance(piece, FlattenObservations) or keys_to_remove(piece) or piece._agent_ids:
        return False
    return not any(map(differs_from_rllib, env.observation_spaces.values()))
