"""Which sub-policy of an ensemble each agent plays in an episode (Lowe et al. 2017, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping

import numpy as np
from ray.rllib.core.rl_module.rl_module import RLModule

from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule
from rllib_maddpg.rows.layout import JointLayout

# Numbers in [0, 1) for an episode of an env, one for each agent: a pure function of the env's number and the episode's.
EpisodeNumbers = Callable[[int, int, int], np.ndarray]


class SubPolicyDraws:
    """The sub-policies that all agents play in the running episodes of E envs.

    Each episode has a draw of its own, which depends on nothing but the run's seed, the runner, the env and the number of the
    episode: a restored run meets the same ones. Noise is not drawn from there, and is as without ensembles.

    Attributes:
        now: The number of the sub-policy, `[E, N]` uint8. The array stays the same.
    """

    def __init__(
        self,
        layout: JointLayout,
        counts: Mapping[Hashable, int],
        teams: Collection[Collection[Hashable]],
        numbers: EpisodeNumbers,
        num_envs: int,
    ):
        """
        Args:
            layout: Order of agents.
            counts: Agent -> K.
            teams: Agents that draw together.
            numbers: Of (env, episode, N).
            num_envs: E.
        """
        self._counts = np.array([counts[agent] for agent in layout.agents])
        # For each agent the one whose number counts.
        self._leaders = np.arange(len(layout))
        for team in teams:
            members = sorted(layout.index(agent) for agent in team)
            self._leaders[members] = members[0]
        self._numbers = numbers
        self.now = np.zeros((num_envs, len(layout)), np.uint8)

    def begin_episode(self, env: int, episode: int, chosen: int | None = None) -> None:
        """Draws for an episode that begins.

        Args:
            env: Number of the env.
            episode: Number of its episode.
            chosen: Instead of a draw: the sub-policy that all agents play; those of modules with one policy play that.
        """
        if chosen is None:
            self.now[env] = self.drawn(self._numbers(env, episode, len(self._counts)))
        else:
            self.now[env] = np.where(self._counts > 1, chosen, 0)

    def drawn(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers `[N]` in [0, 1) -> sub-policies `[N]`, each of the K of an agent with the same probability."""
        return np.floor(numbers[self._leaders] * self._counts)


def sub_policy_counts(layout: JointLayout, modules: Mapping[str, RLModule]) -> dict[Hashable, int]:
    """Agent -> K; modules that choose by other means than MADDPG's networks have one policy."""
    own = {m: modules[m].unwrapped() for m in layout.modules}
    counts = {m: module.num_sub_policies if isinstance(module, MADDPGTorchRLModule) else 1 for m, module in own.items()}
    return {slot.agent: counts[slot.module] for slot in layout.slots}
