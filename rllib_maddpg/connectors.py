"""RLlib's connectors where a game of unlike agents needs more of them than they do."""

from __future__ import annotations

from typing import Any

from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module.env_to_module_pipeline import EnvToModulePipeline
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.utils.annotations import override


class AgentMeanStdFilter(MeanStdFilter):
    """RLlib's `MeanStdFilter(multi_agent=True)`, also for agents whose observations differ in size.

    RLlib's own merges the statistics of remote env runners with an assertion that all agents' observations have one shape.
    """

    @classmethod
    def like(cls, other: MeanStdFilter) -> AgentMeanStdFilter:
        """A filter with the settings of RLlib's."""
        same = cls(
            multi_agent=True,
            de_mean_to_zero=other.de_mean_to_zero,
            de_std_to_one=other.de_std_to_one,
            clip_by_value=other.clip_by_value,
            update_stats=other._update_stats,
        )
        # Not by the constructor: RLlib's asks for the settings when it gets the spaces.
        same.input_action_space = other.input_action_space
        same.input_observation_space = other.input_observation_space
        return same

    @override(ConnectorV2)
    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        merged = self.get_state()
        for agent in states[0]:
            merged = super().merge_states([{agent: state[agent]} for state in states])
        return merged


def use_agent_filters(pipeline: EnvToModulePipeline) -> None:
    """Puts `AgentMeanStdFilter` in the place of RLlib's own."""
    for i, piece in enumerate(pipeline.connectors):
        if type(piece) is MeanStdFilter and piece._multi_agent:
            pipeline.connectors[i] = AgentMeanStdFilter.like(piece)
