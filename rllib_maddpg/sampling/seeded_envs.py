"""The envs of an env runner: how they are made, wrapped, seeded, and made again after a failure."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.annotations import override

from rllib_maddpg.envs import ParallelPettingZoo, ReadableEndings, SeededEpisodes, resolve_env
from rllib_maddpg.envs.global_state import StatedEnv
from rllib_maddpg.envs.seed_check import are_alike, plays_alike
from rllib_maddpg.sampling.seeds import EpisodeSeeds
from rllib_maddpg.sampling.stock_loop import StockLoop

logger = logging.getLogger(__name__)


class SeededEnvsLoop(StockLoop):
    """RLlib's loop over envs whose episodes have numbers, and seeds made of these."""

    _seeds: EpisodeSeeds  # made by the subclass before RLlib's constructor, which makes the envs

    @override(MultiAgentEnvRunner)
    def make_env(self) -> None:
        # This runner's own copy of the config: RLlib then finds our envs by the names that it does not know.
        self.config.env = resolve_env(self.config.env)
        # Rebuilt after a failure, the envs go on with other games: the old ones might fail again.
        first_episodes = self.episode_numbers or [0] * self.config.num_envs_per_env_runner
        super().make_env()
        for e, env in enumerate(self.env.envs):
            self.env.envs[e] = self._wrapped(env, e, first_episodes[e])

    @property
    def episode_numbers(self) -> list[int]:
        """Per env the number of the episode that its next reset begins."""
        return [env.next_episode for env in self.env.envs] if self.env is not None else []

    def _compare_seeds(self) -> None:
        """Warns if parallel envs play the same games. Only where all have begun alike others are made to find that out."""
        firsts = [getattr(env, "first_observations", None) for env in self.env.envs]
        context = EnvContext(self.config.env_config, self.worker_index or 0, num_workers=self.config.num_env_runners)
        try:
            is_alike = None not in firsts and are_alike(firsts) and plays_alike(lambda: self.config.env(context))
        except Exception as error:  # an env that cannot be made twice, or fails: sampling says so where it matters
            logger.debug("Seeds were not compared: %s", error)
            return
        if is_alike:
            logger.warning(
                "env=%r plays the same game whatever its seed: two copies with different seeds and the same actions observed "
                "and earned the same. So the %d parallel envs are duplicates apart from exploration noise, and the "
                "confidence intervals of evaluations do not hold. Draw what is random from the `seed` that `reset` is given "
                "(Gymnasium: `super().reset(seed=seed)`, then `self.np_random`).",
                self.config.env.source.name,
                self.num_envs * max(1, self.config.num_env_runners),
            )

    def _rebuild_sub_env(self, number: int) -> None:
        """Replaces one sub-env that has failed; the new one goes on with the next episode."""
        vector, envs, size, needs_reset = self.env, self.env.envs, self.num_envs, self._needs_initial_reset
        try:
            envs[number].close()
        except Exception as error:
            logger.warning("Env %d could not be closed: %s", number, error)
        # RLlib's own way to an env, for a vector of one.
        self.env, self.config.num_envs_per_env_runner = None, 1
        try:
            super().make_env()
            fresh = self.env.envs.pop()  # out of the vector, which closes its envs when it is deleted
        finally:
            self.env, self.num_envs, self._needs_initial_reset = vector, size, needs_reset
            self.config.num_envs_per_env_runner = size
        envs[number] = self._wrapped(fresh, number, envs[number].next_episode)

    def _wrapped(self, env: Any, number: int, first_episode: int) -> SeededEpisodes:
        if self.config.asks_for_state:
            env = StatedEnv(env)
        # Our adapter for PettingZoo reports endings in that form already.
        if not isinstance(env.unwrapped, ParallelPettingZoo):
            env = ReadableEndings(env)
        return SeededEpisodes(env, partial(self._seeds.of_env, number), first_episode, partial(self._begin_episode, number))

    def _begin_episode(self, env: int, episode: int) -> None:
        """Env number `env` begins the episode of that number."""
