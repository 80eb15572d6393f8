"""Games in which agents act in turns: PettingZoo's AEC environments, and how others are found out."""

import random
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from pettingzoo import AECEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.adapted import AdaptedGame, spaces_of_pettingzoo
from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.envs.masks import MasksFromInfos, allowed_action, chooses
from rllib_maddpg.envs.step_checks import check_first_turn, check_known
from rllib_maddpg.rows.observations import MASK

# Random steps by which an env shows whether its agents act in turns.
_STEPS = 20


class TurnBasedPettingZoo(AdaptedGame):
    """A PettingZoo AEC env as a `MultiAgentEnv` in which whoever is observed acts at the next step.

    An agent is observed when its turn comes, and once more when its part ends. Its reward then is that of AEC's `last()`: all
    that it was paid since it acted last, whoever acted. The steps of agents whose part is over, `step(None)`, are made here.

    Args:
        env: The AEC env; it stays reachable as `.env`, the bare one underneath as `.unwrapped_env`.

    Attributes:
        possible_agents: All agents, sorted by `str`.
        agents: The agents in the game; all of them before the first reset, none after an episode.

    Raises:
        EnvError: If the env has no `possible_agents`: joint rows need a fixed set of agents.
    """

    has_turns = True

    def __init__(self, env: AECEnv) -> None:
        super().__init__(env, *spaces_of_pettingzoo(env))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts an episode. Returns observation and info of the agent that acts first."""
        self.env.reset(seed=seed, options=options)
        check_known(self.possible_agents, self.env.agents)
        self.check_spaces()
        observations, _, _, _, infos = self._turn()
        return observations, infos

    def step(self, action_dict: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Steps the agent whose turn it is.

        Returns:
            observations, rewards, terminateds, truncateds, infos of the agent that acts next, and of those whose part has
            ended. An agent that terminates is not called truncated as well. At the episode's end exactly one `__all__` is True.

        Raises:
            EnvFailure: If an agent that has ended stays in the game, or has a turn that is not one of `possible_agents`.
        """
        self.env.step(action_dict[self.env.agent_selection])
        return self._turn()

    def _turn(self) -> tuple[dict, dict, dict, dict, dict]:
        """From the present state to the next one in which somebody acts, or to the episode's end."""
        env = self.env
        observations, rewards, terminateds, truncateds, infos = ({} for _ in range(5))
        while env.agents:
            agent = env.agent_selection
            if agent not in self.observation_spaces:
                check_known(self.possible_agents, [agent])
            observation, reward, terminated, truncated, info = env.last()
            observations[agent], infos[agent] = observation, info
            rewards[agent] = rewards.get(agent, 0.0) + reward
            terminateds[agent], truncateds[agent] = bool(terminated), bool(truncated and not terminated)
            if not (terminated or truncated):
                break
            env.step(None)
            if agent in env.agents:
                fix = "Let `step(None)` take it out of `agents`, as PettingZoo's `_was_dead_step` does."
                raise EnvFailure(f"Agent {agent!r} has ended and still has turns,", fix, can_pass=False)
        self.agents = list(env.agents)
        over = not self.agents
        terminateds["__all__"] = over and any(terminateds.values())
        truncateds["__all__"] = over and not terminateds["__all__"]
        return observations, rewards, terminateds, truncateds, infos


def acts_in_turns(env: MultiAgentEnv) -> bool | None:
    """Whether the agents of an env act in turns: known, or found out by a reset and a few random steps.

    An env is taken to have turns if its first reset leaves agents out, and then one that acts and goes on is not observed.

    Returns:
        None: It does not look so. An env that observes all agents at its first reset is not stepped.

    Raises:
        EnvFailure: If it has turns, and nobody has the first one.
    """
    game = env.unwrapped
    if isinstance(game, MasksFromInfos):
        game = game.env.unwrapped
    if isinstance(game, AdaptedGame):
        return getattr(game, "has_turns", None)
    states = random.getstate(), np.random.get_state()
    try:
        first, _ = env.reset(seed=0)
        if not _shows_turns(env, first):
            return None
    except Exception:  # which is told where it is played in earnest
        return None
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    check_first_turn(first)
    return True


def _shows_turns(env: MultiAgentEnv, observations: Mapping[Hashable, Any]) -> bool:
    """The same of an env that has been reset, by what it observed then."""
    game = env.unwrapped
    agents = list(game.possible_agents or game.observation_spaces or ())
    if len(observations) == len(agents):
        return False
    for number in range(_STEPS):
        actions = {agent: _action(game, agent, observation, number) for agent, observation in observations.items()}
        observations, _, terminateds, truncateds, _ = env.step(actions)
        if terminateds.get("__all__") or truncateds.get("__all__"):
            return False
        ended = {agent for flags in (terminateds, truncateds) for agent, ends in flags.items() if ends}
        if any(agent not in observations and agent not in ended for agent in actions):
            return True
        observations = {agent: observation for agent, observation in observations.items() if agent not in ended}
    return False


def _action(game: MultiAgentEnv, agent: Hashable, observation: Any, number: int) -> Any:
    space = game.get_action_space(agent)
    if chooses(space) and isinstance(observation, dict) and MASK in observation:
        return allowed_action(space, observation[MASK], number)
    space.seed(number)
    return space.sample()
