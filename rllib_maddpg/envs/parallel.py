"""A PettingZoo parallel environment as an RLlib `MultiAgentEnv`."""

from collections.abc import Hashable
from typing import Any

import gymnasium as gym
from pettingzoo import ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.errors import EnvError


class ParallelPettingZoo(MultiAgentEnv):
    """Adapter with one agent order (sorted) and a right `__all__` also where agents end in different ways.

    Args:
        env: The parallel env; it stays reachable as `.env`, the bare one underneath as `.unwrapped_env`.

    Attributes:
        possible_agents: All agents, sorted by `str`.
        agents: The agents now alive, sorted likewise; all of them before the first reset, none after an episode.
        observation_spaces: agent -> space. `observation_space` is the same as a gymnasium `Dict`.
        action_spaces: agent -> space. `action_space` is the same as a gymnasium `Dict`.

    Raises:
        EnvError: If the env has no `possible_agents`: joint rows need a fixed set of agents.
    """

    def __init__(self, env: ParallelEnv) -> None:
        agents = getattr(env, "possible_agents", None)
        if not agents:
            raise EnvError(
                f"env={type(env).__name__} has no `possible_agents`: joint transitions need all agents known "
                "beforehand. Set `possible_agents` in the env's constructor."
            )
        self.env = env
        self.possible_agents = sorted(agents, key=str)
        self.agents = list(self.possible_agents)
        super().__init__()

        self.observation_spaces = {agent: env.observation_space(agent) for agent in self.possible_agents}
        self.action_spaces = {agent: env.action_space(agent) for agent in self.possible_agents}
        self.observation_space = gym.spaces.Dict(self.observation_spaces)
        self.action_space = gym.spaces.Dict(self.action_spaces)
        # A copy: vector envs write into it, and mpe2 shares one dict among all its scenarios.
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.render_mode = getattr(env, "render_mode", None)

        self._seen: set[Hashable] = set()  # agents that have been in this episode

    @property
    def unwrapped_env(self) -> Any:
        """The bare PettingZoo env, below all of its wrappers (an AEC env if it was converted from one)."""
        return self.env.unwrapped

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns agent -> observation and agent -> info, in sorted order."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.agents = sorted(self.env.agents, key=str)
        self._seen = set(self.agents)
        return self._pick(observations, self.agents), self._pick(infos or {}, self.agents)

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the living agents; actions of others are dropped, so are results of agents that ended before.

        Returns:
            observations, rewards, terminateds, truncateds, infos, each by agent in sorted order. An agent that terminates is
            not called truncated as well. At the episode's end (no agent left) exactly one `__all__` is True: that of
            terminateds if an agent terminates in this last step, else that of truncateds. RLlib marks every agent that ends in
            this step with that flag, too, so an agent's own end can be read back: it terminated if and only if its episode
            is terminated and not truncated.
        """
        actions = {agent: action_dict[agent] for agent in self.agents if agent in action_dict}
        observations, rewards, terminateds, truncateds, infos = self.env.step(actions)

        acting = set(self.agents).union(self.env.agents).difference(self._ended)
        present = [agent for agent in self.possible_agents if agent in acting]
        self._seen.update(present)
        terminated_now = {agent: bool(terminateds[agent]) for agent in present if agent in terminateds}
        truncated_now = {a: bool(truncateds[a]) and not terminated_now.get(a) for a in present if a in truncateds}

        # Flags count beside `env.agents`: not every env takes its finished agents out of that list.
        alive = set(self.env.agents).intersection(present)
        self.agents = [a for a in present if a in alive and not (terminated_now.get(a) or truncated_now.get(a))]
        is_over = not self.agents
        terminated_now["__all__"] = is_over and any(terminated_now.values())
        truncated_now["__all__"] = is_over and not terminated_now["__all__"]
        return (
            self._pick(observations, present),
            self._pick(rewards, present),
            terminated_now,
            truncated_now,
            self._pick(infos, present),
        )

    def render(self) -> Any:
        """Renders as the env's own `render_mode` says; for "rgb_array": uint8 `[height, width, 3]`."""
        return self.env.render()

    def close(self) -> None:
        """Closes the env."""
        self.env.close()

    @property
    def _ended(self) -> set[Hashable]:
        """Agents of this episode that are out of it already."""
        return self._seen.difference(self.agents)

    @staticmethod
    def _pick(values: dict, agents: list) -> dict:
        return {agent: values[agent] for agent in agents if agent in values}
