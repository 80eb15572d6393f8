"""Black death: an agent that is out stays in the game with a black (zero) observation until the episode's end."""

from collections.abc import Hashable

import gymnasium as gym
import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from rllib_maddpg.envs.api import check_reset_result, check_step_result
from rllib_maddpg.envs.errors import EnvError


class BlackDeath(BaseParallelWrapper):
    """Stands in for `supersuit.black_death_v3`, which in 3.11 misses the end of an episode at a time limit.

    That one waits until every agent has terminated *and* truncated: after a time limit it goes on for one more,
    all-black step and then reports a termination.

    Here the episode ends with the last living agent. On that step each agent's flag says how it went out itself;
    before it no flag is set. An agent that is out may still be given rewards, and may come back.

    Args:
        env: A parallel env with `Box` observations.

    Raises:
        EnvError: If an agent's observation space is not a `Box`.
    """

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__(env)
        for agent in env.possible_agents:
            space = env.observation_space(agent)
            if not isinstance(space, gym.spaces.Box):
                raise EnvError(
                    f'env_config["wrappers"]: black_death_v3 needs Box observations, but agent {agent!r} has {space}. '
                    "Take it out, or put a wrapper that makes a Box before it."
                )
        self.agents: list[Hashable] = []
        self._ended: dict[Hashable, bool] = {}  # agents that are out: did they terminate?
        self._gone: set[Hashable] = set()  # those of them that the env has taken out of its list, so that they can be back

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode with all possible agents in it."""
        result = self.env.reset(seed=seed, options=options)
        check_reset_result(result)
        observations, infos = result
        self.agents = list(self.env.possible_agents)
        self._ended, self._gone = {}, set()
        return self._fill_in(observations, self.agents), {agent: (infos or {}).get(agent, {}) for agent in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the living agents; the others get a zero observation, their reward if the env has one, and an empty info."""
        living = [agent for agent in self.env.agents if agent not in self._ended]
        result = self.env.step({agent: actions[agent] for agent in living})
        check_step_result(result)
        observations, rewards, terminateds, truncateds, infos = result
        for agent in self._gone.intersection(self.env.agents):
            if agent in observations and not (terminateds.get(agent) or truncateds.get(agent)):
                del self._ended[agent]  # it is back
        for agent in living:
            if terminateds.get(agent) or truncateds.get(agent):
                self._ended[agent] = bool(terminateds.get(agent))
        self._gone = self._ended.keys() - set(self.env.agents)

        in_game = self.agents
        # Some envs go on to report agents that are out.
        seen = {agent: value for agent, value in observations.items() if agent not in self._ended or agent in living}
        is_over = not any(agent not in self._ended for agent in self.env.agents)
        if is_over:
            self.agents = []
        return (
            self._fill_in(seen, in_game),
            {agent: rewards.get(agent, 0.0) for agent in in_game},
            {agent: is_over and self._ended.get(agent, False) for agent in in_game},
            {agent: is_over and not self._ended.get(agent, False) for agent in in_game},
            {agent: (infos or {}).get(agent, {}) for agent in in_game},
        )

    def _fill_in(self, observations: dict, agents: list) -> dict:
        return {agent: observations[agent] if agent in observations else self._black(agent) for agent in agents}

    def _black(self, agent: Hashable) -> np.ndarray:
        space = self.observation_space(agent)
        return np.zeros(space.shape, space.dtype)
