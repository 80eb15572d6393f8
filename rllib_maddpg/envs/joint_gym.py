"""A Gymnasium environment that several agents play through Tuples or Dicts, one entry for each of them."""

from collections.abc import Hashable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_maddpg.envs.adapted import AdaptedGame
from rllib_maddpg.envs.api import by_agent, check_five, check_gym_reset
from rllib_maddpg.envs.errors import EnvError, EnvFailure

REWARDS_KEY = "rewards_from"
_KEY = f'env_config["{REWARDS_KEY}"]'
_INFOS = "infos:"
_ALLOWED = (
    f'Set {_KEY} to "list" (`step` returns one reward for each agent), "shared" (it returns one number, which each agent '
    f'gets) or "{_INFOS}KEY" (its info has a list of rewards under KEY).'
)


def agents_in_spaces(env: gym.Env) -> list[Hashable]:
    """The agents of an env whose observations and actions have one entry for each; none for other envs.

    Tuples of one length have `agent_0`, `agent_1`, ...; Dicts with the same keys have these.
    """
    observed, acted = env.observation_space, env.action_space
    if isinstance(observed, gym.spaces.Tuple) and isinstance(acted, gym.spaces.Tuple):
        n = len(observed.spaces)
        return [f"agent_{i}" for i in range(n)] if n == len(acted.spaces) else []
    if isinstance(observed, gym.spaces.Dict) and isinstance(acted, gym.spaces.Dict):
        return list(observed.spaces) if observed.spaces.keys() == acted.spaces.keys() else []
    return []


class JointGymGame(AdaptedGame):
    """Adapter for such an env, like those of lbforaging, rware and highway-env.

    The episode ends when `terminated` or `truncated` is True, or True for every agent. An agent whose own flag is set before
    is out of the game; the env, which wants an action of each, is given its last one again.

    Args:
        env: An env for which `agents_in_spaces` names agents.
        rewards_from: "list", "shared" or "infos:KEY"; None: what the first reward is, if that is clear,
            as one number is for one agent.

    Raises:
        EnvError: On another `rewards_from`.
    """

    def __init__(self, env: gym.Env, rewards_from: str | None = None) -> None:
        is_key = isinstance(rewards_from, str) and rewards_from.startswith(_INFOS) and rewards_from != _INFOS
        if not (rewards_from in (None, "list", "shared") or is_key):
            raise EnvError(f"{_KEY}={rewards_from!r} is not known. {_ALLOWED}")
        agents = agents_in_spaces(env)
        self._is_tuple = isinstance(env.observation_space, gym.spaces.Tuple)
        self._rewards_from = rewards_from
        self._actions: dict[Hashable, Any] = {}  # the last ones
        super().__init__(env, self._split(env.observation_space, agents), self._split(env.action_space, agents))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns agent -> observation and agent -> info.

        Raises:
            EnvFailure: If the env's own `reset` returns something else than an observation of each agent and an info.
        """
        result = self.env.reset(seed=seed, options=options)
        check_gym_reset(result)
        observation, info = result
        self.agents = list(self.possible_agents)
        return self._by_agent(observation, "observations"), self._infos(info or {})

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the env with the actions of all agents.

        Returns:
            observations, rewards, terminateds, truncateds, infos by agent.

        Raises:
            EnvFailure: If the env's own `step` returns something else than five values with an entry for each agent, or if it
                is not clear whose its reward is.
        """
        self._actions.update(action_dict)
        actions = [self._actions[agent] for agent in self.possible_agents]
        result = self.env.step(tuple(actions) if self._is_tuple else dict(zip(self.possible_agents, actions, strict=True)))
        check_five(result, "`step` must return (observations, rewards, terminated, truncated, info).")
        observation, reward, terminated, truncated, info = result
        info = info or {}
        rewards = self._rewards(reward, info)
        terminateds, truncateds = self._flags(terminated, "terminated"), self._flags(truncated, "truncated")
        observations = self._by_agent(observation, "observations")
        playing = self.agents
        self.agents = [agent for agent in playing if not (terminateds[agent] or truncateds[agent])]
        is_over, all_terminated = not self.agents, any(terminateds[agent] for agent in playing)
        return (
            {agent: observations[agent] for agent in playing},
            # Also of those that are out: whoever reads them refuses what would be lost.
            {agent: reward for agent, reward in rewards.items() if agent in playing or reward},
            {**{agent: terminateds[agent] for agent in playing}, "__all__": is_over and all_terminated},
            {**{agent: truncateds[agent] for agent in playing}, "__all__": is_over and not all_terminated},
            self._infos(info),
        )

    def _split(self, space: gym.Space, agents: list[Hashable]) -> dict[Hashable, gym.Space]:
        return {agent: space.spaces[i if self._is_tuple else agent] for i, agent in enumerate(agents)}

    def _by_agent(self, values: Any, what: str) -> dict[Hashable, Any]:
        """One entry for each agent, from a list, tuple, array or dict of them."""
        agents = self.possible_agents
        if isinstance(values, Mapping) and values.keys() == set(agents):
            return {agent: values[agent] for agent in agents}
        if _length(values) == len(agents):
            return dict(zip(agents, values, strict=True))
        raise EnvFailure(
            f"The env gave {what} {values!r:.80}",
            f"Its spaces have an entry for each of {agents}, so its {what} must have these, too.",
            can_pass=False,
        )

    def _rewards(self, reward: Any, info: Mapping) -> dict[Hashable, Any]:
        if self._rewards_from is None:
            is_number = _length(reward) is None and not isinstance(reward, Mapping)
            if is_number and len(self.possible_agents) > 1:
                lists = [key for key, value in info.items() if _length(value) == len(self.possible_agents)]
                hint = f" Its info has lists of that length under {lists}." if lists else ""
                what = f"The reward {reward!r:.80} does not say which of {self.possible_agents} gets what,"
                raise EnvFailure(what, _ALLOWED + hint, can_pass=False)
            self._rewards_from = "shared" if is_number else "list"
        if self._rewards_from == "shared":
            return dict.fromkeys(self.agents, reward)  # of those still playing
        if self._rewards_from == "list":
            return self._by_agent(reward, "rewards")
        key = self._rewards_from.removeprefix(_INFOS)
        if key not in info:
            fix = f"The keys are {sorted(map(str, info))}. {_ALLOWED}"
            raise EnvFailure(f"The info has no {key!r}, where {_KEY} looks for rewards,", fix, can_pass=False)
        return self._by_agent(info[key], f"rewards in info[{key!r}]")

    def _flags(self, flag: Any, name: str) -> dict[Hashable, bool]:
        if isinstance(flag, Mapping) and "__all__" in flag:
            raise by_agent("step", name)
        if _length(flag) is not None or isinstance(flag, Mapping):
            return {agent: bool(value) for agent, value in self._by_agent(flag, name).items()}
        return dict.fromkeys(self.possible_agents, bool(flag))

    def _infos(self, info: Any) -> dict[Hashable, Any]:
        return dict.fromkeys(self.possible_agents, info)


def _length(values: Any) -> int | None:
    """Number of entries of a list, tuple or array; None for anything else."""
    is_array = isinstance(values, np.ndarray) and values.ndim > 0
    return len(values) if is_array or isinstance(values, tuple | list) else None
