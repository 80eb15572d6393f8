"""A Gymnasium environment as a game of one agent."""

from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.api import by_agent, check_gym_reset, check_gym_step

AGENT_ID = "agent_0"


class GymGame(MultiAgentEnv):
    """A Gymnasium env as a `MultiAgentEnv` of the agents that subclasses see in it.

    Args:
        env: The gymnasium env; it stays reachable as `.env`, the bare one underneath as `.unwrapped_env`.
        observation_spaces: agent -> space.
        action_spaces: agent -> space.
    """

    def __init__(self, env: gym.Env, observation_spaces: dict, action_spaces: dict) -> None:
        self.env = env
        self.possible_agents = list(observation_spaces)
        self.agents = list(observation_spaces)
        super().__init__()

        self.observation_spaces = observation_spaces
        self.action_spaces = action_spaces
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)
        self.metadata = dict(env.metadata)  # a copy: vector envs write into it
        self.render_mode = env.render_mode

    @property
    def unwrapped_env(self) -> gym.Env:
        """The bare gymnasium env, below all of its wrappers."""
        return self.env.unwrapped

    def render(self) -> Any:
        """Renders as the env's own `render_mode` says; for "rgb_array": uint8 `[height, width, 3]`."""
        return self.env.render()

    def close(self) -> None:
        """Closes the env."""
        self.env.close()


class SingleAgentGame(GymGame):
    """Adapter for single-agent envs: with one agent MADDPG is DDPG.

    Args:
        env: The gymnasium env.

    Attributes:
        agents: `["agent_0"]` while an episode runs (and before the first reset), then `[]`.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env, {AGENT_ID: env.observation_space}, {AGENT_ID: env.action_space})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns `{"agent_0": observation}`, `{"agent_0": info}`.

        Raises:
            EnvFailure: If the env's own `reset` does not return an observation and an info.
        """
        result = self.env.reset(seed=seed, options=options)
        check_gym_reset(result)
        observation, info = result
        if isinstance(observation, dict) and not isinstance(self.env.observation_space, gym.spaces.Dict):
            raise by_agent("reset", "observation")
        self.agents = [AGENT_ID]
        return {AGENT_ID: observation}, {AGENT_ID: info}

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the env with `action_dict["agent_0"]`.

        Returns:
            observations, rewards, terminateds, truncateds, infos by agent. At the episode's end exactly one `__all__`
            is True; an env that terminates at its time limit has terminated.

        Raises:
            EnvFailure: If the env's own `step` does not return five values, or returns dicts by agent.
        """
        result = self.env.step(action_dict[AGENT_ID])
        try:
            observation, reward, terminated, truncated, info = result
        except (TypeError, ValueError):
            check_gym_step(result)
            raise
        if terminated or truncated:
            check_gym_step(result)  # a dict of flags looks like an end
            self.agents = []
        terminated, truncated = bool(terminated), bool(truncated)
        return (
            {AGENT_ID: observation},
            {AGENT_ID: reward},
            {AGENT_ID: terminated, "__all__": terminated},
            {AGENT_ID: truncated, "__all__": truncated and not terminated},
            {AGENT_ID: info},
        )
