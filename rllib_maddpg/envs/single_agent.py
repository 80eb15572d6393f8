"""A Gymnasium environment as a game of one agent."""

import gymnasium as gym

from rllib_maddpg.envs.adapted import AdaptedGame
from rllib_maddpg.envs.api import by_agent, check_gym_reset, check_gym_step

AGENT_ID = "agent_0"


class SingleAgentGame(AdaptedGame):
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
