"""Episodes whose seeds follow from their numbers, so that an evaluation can be repeated episode by episode."""

import copy
from collections.abc import Callable, Sequence

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv


class SeededEpisodes(gym.Wrapper):
    """Resets episode number n with `seed_of_episode(n)`; may take the place of a sub-env in RLlib's vector env.

    Args:
        env: A `MultiAgentEnv`, or a wrapper around one.
        seed_of_episode: number of an episode -> seed.
        first_episode: The number of the first episode.
        on_reset: Called with the number of an episode before the env is reset for it.

    Attributes:
        episode: Number of the episode now running, -1 before the first reset.
        next_episode: Number that the next reset will take. May be set.
        first_observations: A copy of what the first reset gave; None before it.
    """

    def __init__(
        self,
        env: MultiAgentEnv,
        seed_of_episode: Callable[[int], int],
        first_episode: int = 0,
        on_reset: Callable[[int], None] = lambda episode: None,
    ) -> None:
        super().__init__(env)
        self._on_reset = on_reset
        self.seed_of_episode = seed_of_episode
        self.episode = -1
        self.next_episode = first_episode
        self.first_observations: dict | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Starts episode `next_episode`. `seed` is not used: RLlib gives one to the first reset only."""
        self.episode = self.next_episode
        self.next_episode += 1
        self._on_reset(self.episode)
        result = self.env.reset(seed=self.seed_of_episode(self.episode), options=options)
        if self.first_observations is None:
            self.first_observations = copy.deepcopy(result[0])
        return result


def episode_number(envs: Sequence[SeededEpisodes], env: int) -> int:
    """Number of the episode that one of several envs is playing, unlike those of all others that these envs have played."""
    # It is kept as int32, which so many episodes of a run would fill that the first ones are long forgotten.
    return (envs[env].episode * len(envs) + env) % 2**31
