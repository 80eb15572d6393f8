"""Notices environments whose seed changes nothing."""

import copy
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.masks import allowed_action, chooses
from rllib_maddpg.rows.observations import MASK

STEPS = 10
SLOW = 0.5  # seconds


def are_alike(games: list[Any]) -> bool:
    """Whether all are equal, arrays and all."""
    return len({pickle.dumps(game) for game in games}) == 1


def plays_alike(make: Callable[[], MultiAgentEnv]) -> bool:
    """Whether two new envs with different seeds, given the same actions, play the same game for up to `STEPS` steps.

    Args:
        make: Makes an env. One that takes over half a second to make is let off: the answer is False.
    """
    games = []
    for seed in (1, 2):
        started = time.perf_counter()
        env = make()
        try:
            if time.perf_counter() - started > SLOW:
                return False
            games.append(_play(env, seed))
        finally:
            env.close()
    return are_alike(games)


def _play(env: MultiAgentEnv, seed: int) -> list[tuple]:
    """What is observed and earned in the episode of this seed; the actions are always the same."""
    spaces = {agent: copy.deepcopy(env.get_action_space(agent)) for agent in env.possible_agents}
    for number, space in enumerate(spaces.values()):
        space.seed(number)
    observations, _ = env.reset(seed=seed)
    game = [copy.deepcopy(observations)]
    for step in range(STEPS):
        result = env.step({agent: _action(spaces[agent], observation, step) for agent, observation in observations.items()})
        observations, rewards, terminateds, truncateds, _ = result
        game.append(copy.deepcopy((observations, rewards, terminateds, truncateds)))
        if terminateds.get("__all__") or truncateds.get("__all__"):
            break
    return game


def _action(space: gym.Space, observation: Any, step: int) -> Any:
    drawn = space.sample()
    if chooses(space) and isinstance(observation, Mapping) and MASK in observation:
        return allowed_action(space, observation[MASK], step)
    return drawn
