"""A Gymnasium environment as a game of one agent."""

from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

AGENT_ID = "agent_0"


class SingleAgentGame(MultiAgentEnv):
    """Adapter for single-agent envs: with one agent MADDPG is DDPG.

    Args:
        env: The gymnasium env; it stays reachable as `.env`, the bare one underneath as `.unwrapped_env`.

    Attributes:
        agents: `["agent_0"]` while an episode runs (and before the first reset), then `[]`.
    """

    def __init__(self, env: gym.Env) -> None:
        self.env = env
        self.possible_agents = [AGENT_ID]
        self.agents = [AGENT_ID]
        super().__init__()

        self.observation_spaces = {AGENT_ID: env.observation_space}
        self.action_spaces = {AGENT_ID: env.action_space}
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)
        self.metadata = dict(env.metadata)  # a copy: vector envs write into it
        self.render_mode = env.render_mode

    @property
    def unwrapped_env(self) -> gym.Env:
        """The bare gymnasium env, below all of its wrappers."""
        return self.env.unwrapped

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns `{"agent_0": observation}`, `{"agent_0": info}`."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.agents = [AGENT_ID]
        return {AGENT_ID: observation}, {AGENT_ID: info}

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the env with `action_dict["agent_0"]`.

        Returns:
            observations, rewards, terminateds, truncateds, infos by agent. At the episode's end exactly one `__all__`
            is True; an env that terminates at its time limit has terminated.
        """
        observation, reward, terminated, truncated, info = self.env.step(action_dict[AGENT_ID])
        terminated, truncated = bool(terminated), bool(truncated)
        if terminated or truncated:
            self.agents = []
        return (
            {AGENT_ID: observation},
            {AGENT_ID: reward},
            {AGENT_ID: terminated, "__all__": terminated},
            {AGENT_ID: truncated, "__all__": truncated and not terminated},
            {AGENT_ID: info},
        )

    def render(self) -> Any:
        """Renders as the env's own `render_mode` says; for "rgb_array": uint8 `[height, width, 3]`."""
        return self.env.render()

    def close(self) -> None:
        """Closes the env."""
        self.env.close()
