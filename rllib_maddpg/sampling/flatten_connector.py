"""Vectors of observations as a part of RLlib's pipeline from the env to the module."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import AddObservationsFromEpisodesToBatch
from ray.rllib.connectors.env_to_module.env_to_module_pipeline import EnvToModulePipeline
from ray.rllib.utils.annotations import override

from rllib_maddpg.ray_compat import FlattenObservations
from rllib_maddpg.rows.observations import ObservationError, differs_from_rllib, flatteners, is_flat_box


class FlattenAgentObservations(ConnectorV2):
    """Writes the vector of `gymnasium.spaces.flatten` over each agent's last observation.

    In the place of RLlib's `FlattenObservations(multi_agent=True)`, whose one-hots are wrong for spaces with a `start`. It has
    no constructor, because RLlib would rebuild it from a checkpoint with the arguments of that.
    """

    @override(ConnectorV2)
    def recompute_output_observation_space(
        self, input_observation_space: gym.Space, input_action_space: gym.Space
    ) -> gym.Space:
        self._flatteners = flatteners(input_observation_space.spaces)
        # Without bounds, as RLlib's: numbers outside of a Box's bounds pass.
        return gym.spaces.Dict(
            {agent: gym.spaces.Box(-np.inf, np.inf, (f.width,), np.float32) for agent, f in self._flatteners.items()}
        )

    @override(ConnectorV2)
    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        for episode in episodes:
            for agent in episode.get_agents_that_stepped():
                agent_episode = episode.agent_episodes[agent]
                try:
                    vector = self._flatteners[agent](agent_episode.get_observations(-1))
                except ObservationError as error:
                    raise ObservationError(f"{error.what} at step {episode.env_t} of the episode") from None
                agent_episode.set_observations(at_indices=-1, new_data=vector)
                # As RLlib's does, so that the episode takes the new data for what it observes.
                agent_episode.observation_space = self.observation_space
        return batch


def flatten_where_needed(pipeline: EnvToModulePipeline) -> None:
    """Adds the connector where an agent does not observe a vector, unless the user's own connectors flatten.

    Raises:
        ValueError: If they do so with RLlib's `FlattenObservations` where its one-hots are wrong.
    """
    for piece in pipeline.connectors:
        if isinstance(piece, FlattenObservations) and isinstance(piece.input_observation_space, gym.spaces.Dict):
            check_rllibs_flattening(piece, piece.input_observation_space.spaces)
    observed = pipeline.observation_space
    if observed is not None and not all(map(is_flat_box, observed.spaces.values())):
        pipeline.insert_before(AddObservationsFromEpisodesToBatch, FlattenAgentObservations())


def check_rllibs_flattening(piece: FlattenObservations, spaces: Mapping[Hashable, gym.Space]) -> None:
    """RLlib's own connector flattens right what the agents observe.

    Args:
        piece: The user's connector.
        spaces: What each agent observes before it.

    Raises:
        ValueError: Naming the agent for which it does not.
    """
    for agent, space in spaces.items():
        if (piece._agent_ids is None or agent in piece._agent_ids) and differs_from_rllib(space, order_matters=False):
            raise ValueError(
                f"`env_to_module_connector`: RLlib's FlattenObservations makes wrong one-hots of agent {agent!r}'s observation "
                f"space {space}, in which values do not start at 0 or have two dimensions. Leave it out: MADDPG flattens such "
                "observations itself."
            )
