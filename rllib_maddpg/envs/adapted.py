"""What all adapters of other libraries' environments have in common."""

from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.errors import EnvError, EnvFailure


class AdaptedGame(MultiAgentEnv):
    """An env of another library as a `MultiAgentEnv` of fixed agents; subclasses step it.

    Args:
        env: The env; it stays reachable as `.env`, the bare one underneath as `.unwrapped_env`.
        observation_spaces: agent -> space, in the order of the agents. `observation_space` is the same as a gymnasium `Dict`.
        action_spaces: agent -> space. `action_space` is the same as a gymnasium `Dict`.
    """

    def __init__(self, env: Any, observation_spaces: dict, action_spaces: dict) -> None:
        self.env = env
        self.possible_agents = list(observation_spaces)
        self.agents = list(observation_spaces)
        super().__init__()

        self.observation_spaces = observation_spaces
        self.action_spaces = action_spaces
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)
        # A copy: vector envs write into it, and mpe2 shares one dict among all its scenarios.
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.render_mode = getattr(env, "render_mode", None)

    @property
    def unwrapped_env(self) -> Any:
        """The bare env, below all of its wrappers (an AEC env if it was converted from one)."""
        return self.env.unwrapped

    def check_spaces(self) -> None:
        """The agents of a PettingZoo env still have the spaces that they had first.

        Raises:
            EnvFailure: Naming the first agent that has another one.
        """
        kinds = (
            ("observation", self.observation_spaces, self.env.observation_space),
            ("action", self.action_spaces, self.env.action_space),
        )
        for kind, spaces, space_of in kinds:
            for agent, first in spaces.items():
                space = space_of(agent)
                if space is not first and space != first:
                    raise EnvFailure(
                        f"The {kind} space of agent {agent!r} was {first} and is {space} now,",
                        "An agent keeps its spaces: make them as large as they ever get, and pad what is smaller.",
                        can_pass=False,
                    )

    def render(self) -> Any:
        """Renders as the env's own `render_mode` says; for "rgb_array": uint8 `[height, width, 3]`."""
        return self.env.render()

    def close(self) -> None:
        """Closes the env."""
        self.env.close()


def spaces_of_pettingzoo(env: Any) -> tuple[dict, dict]:
    """Observation and action spaces of a PettingZoo env's agents, sorted by `str`: agent -> space.

    Raises:
        EnvError: If the env has no `possible_agents`: joint rows need a fixed set of agents.
    """
    agents = getattr(env, "possible_agents", None)
    if not agents:
        raise EnvError(
            f"env={type(env).__name__} has no `possible_agents`: joint transitions need all agents known "
            "beforehand. Set `possible_agents` in the env's constructor."
        )
    agents = sorted(agents, key=str)
    return {agent: env.observation_space(agent) for agent in agents}, {agent: env.action_space(agent) for agent in agents}
