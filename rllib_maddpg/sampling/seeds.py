"""Seeds of episodes: a pure function of the run's seed and an episode's numbers."""

from __future__ import annotations

import numpy as np


class EpisodeSeeds:
    """Seeds of the episodes of one env runner: `SeedSequence(seed, spawn_key=(*key, env, episode))`."""

    def __init__(self, seed: int | None, *key: int):
        """
        Args:
            seed: Of the run; None: any.
            key: What tells this runner from the others of the run.
        """
        seed = int(np.random.SeedSequence(seed).entropy)
        self._words = [seed >> bit & 0xFFFFFFFF for bit in range(0, max(128, seed.bit_length()), 32)]
        self._words += key

    def of_env(self, env: int, episode: int) -> int:
        """What env number `env` is reset with for its episode number `episode`."""
        return int(self.sequence(env, episode).generate_state(1)[0] >> 1)

    def of_noise(self, env: int, episode: int) -> np.random.Generator:
        """Where the exploration noise of that episode comes from."""
        # The first child of the episode's own seed.
        return np.random.default_rng(self.sequence(env, episode, 0))

    def of_sub_policies(self, env: int, episode: int, agents: int) -> np.ndarray:
        """Numbers in [0, 1), one for each agent, by which it is drawn who plays which sub-policy in that episode, `[N]`."""
        # The second child, so that noise is the same with ensembles and without them.
        return np.random.default_rng(self.sequence(env, episode, 1)).random(agents)

    def sequence(self, env: int, episode: int, *child: int) -> np.random.SeedSequence:
        """NumPy's sequence, whose words are put together here in a third of the time."""
        return np.random.SeedSequence(np.array([*self._words, env, episode, *child], np.uint32))
