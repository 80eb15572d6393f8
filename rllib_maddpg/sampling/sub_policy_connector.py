"""The sub-policies of ensembles as a piece of RLlib's env-to-module pipeline, for sampling in RLlib's own loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import AddObservationsFromEpisodesToBatch
from ray.rllib.connectors.env_to_module.env_to_module_pipeline import EnvToModulePipeline
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.annotations import override

from rllib_maddpg.modules.sub_policies import SUB_POLICIES

Drawn = Callable[[str], Mapping[Any, int]]


class SelectSubPolicies(ConnectorV2):
    """Env-to-module connector: says which sub-policy each agent plays in its episode, `{"sub_policies": [B]}`.

    An env runner sets `drawn`. Without it, as in a pipeline that is restored without a runner, modules play the sub-policy that
    their attribute `sub_policy` says.

    Attributes:
        drawn: Episode's id -> agent -> number of the sub-policy.
    """

    def __init__(
        self, input_observation_space: gym.Space | None = None, input_action_space: gym.Space | None = None, **kwargs: Any
    ):
        super().__init__(input_observation_space, input_action_space, **kwargs)
        # No constructor argument, because RLlib pickles those into checkpoints.
        self.drawn: Drawn | None = None

    @override(ConnectorV2)
    def __call__(self, *, rl_module: MultiRLModule, batch: dict[str, Any], episodes: list, **kwargs: Any) -> dict[str, Any]:
        if self.drawn is None:
            return batch
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=True):
            if getattr(rl_module[episode.module_id].unwrapped(), "num_sub_policies", 1) > 1:
                number = self.drawn(episode.multi_agent_episode_id)[episode.agent_id]
                self.add_batch_item(batch, SUB_POLICIES, number, single_agent_episode=episode)
        return batch


def add_selection(pipeline: EnvToModulePipeline, drawn: Drawn) -> None:
    """Puts the connector into a runner's pipeline, unless it is there already.

    Args:
        pipeline: The runner's.
        drawn: What the runner has drawn.
    """
    pieces = [piece for piece in pipeline.connectors if isinstance(piece, SelectSubPolicies)]
    if not pieces:
        pieces = [SelectSubPolicies()]
        pipeline.insert_after(AddObservationsFromEpisodesToBatch, *pieces)
    pieces[0].drawn = drawn
