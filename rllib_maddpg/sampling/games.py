"""The running episodes of several environments: who is in the game, what was last observed, and what a step writes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.envs.step_checks import check_known, check_step, fitting, is_sound
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.observations import Part
from rllib_maddpg.rows.rollout import is_finite
from rllib_maddpg.sampling.masks import JointMasks


@dataclass
class FinishedEpisode:
    """What the metrics need of an episode.

    Attributes:
        length: Env steps.
        returns: Undiscounted return by agent, of those that were in the game.
        agent_steps: Actions taken, by agent.
        seconds: Time spent sampling it.
    """

    length: int
    returns: dict[str, float]
    agent_steps: dict[str, int]
    seconds: float


class Games:
    """The episodes of E envs, side by side in arrays.

    Attributes:
        obs: What the agents act on next, `[E, obs_dim]` float32; zeros for those that are not in the game.
        alive: Who is in the game, `[E, N]` bool.
        whole: Per env whether all agents are in the game, a list of bool.
        numbers: Per env the number of its episode, `[E, 1]` int32.
        lengths: Per env the steps of its episode, `[E, 1]` int32.
    """

    def __init__(self, layout: JointLayout, num_envs: int):
        self.layout = layout
        self._agents, n = layout.agents, len(layout)
        self._pick = itemgetter(*layout.agents) if n > 1 else lambda values: (values[layout.agents[0]],)
        self._widths = [slot.obs.stop - slot.obs.start for slot in layout.slots]
        self._all_widths = self._widths * num_envs
        self._masks = JointMasks(layout)
        self._parts = [Part((), "Box", (width,)) for width in self._widths]
        # Per column the agent that it belongs to.
        self._agent_of_obs = np.repeat(np.arange(n), self._widths)
        self._agent_of_action = np.repeat(np.arange(n), [slot.codec.dim for slot in layout.slots])
        self.obs = np.zeros((num_envs, layout.obs_dim), np.float32)
        self.alive, self._seen, self._ended = (np.zeros((num_envs, n), bool) for _ in range(3))
        self._returns, self._agent_steps = np.zeros((num_envs, n)), np.zeros((num_envs, n))
        self.whole = [False] * num_envs
        self.numbers, self.lengths = np.zeros((num_envs, 1), np.int32), np.zeros((num_envs, 1), np.int32)
        self._seconds, self._since = np.zeros(num_envs), np.zeros(num_envs)

    def living(self, env: int) -> list[str]:
        """The agents of an env that act now."""
        return [agent for agent, alive in zip(self._agents, self.alive[env], strict=True) if alive]

    def ended(self, env: int) -> list[str]:
        """The agents of an env whose part in the episode is over."""
        return [agent for agent, ended in zip(self._agents, self._ended[env], strict=True) if ended]

    def observations_of(self, env: int) -> list[np.ndarray]:
        """What each agent of an env acts on next, as views of `obs`."""
        return [self.obs[env, slot.obs] for slot in self.layout.slots]

    def mask(self, codes: np.ndarray) -> np.ndarray:
        """Action codes `[E, action_dim]` with zeros for the agents that are not in the game."""
        return codes if all(self.whole) else np.where(self.alive[:, self._agent_of_action], codes, np.float32(0.0))

    def resume_clock(self) -> None:
        """Time counts for the running episodes from now."""
        self._since[:] = time.perf_counter()

    def pause_clock(self) -> None:
        """Time no longer counts for the running episodes."""
        self._seconds += time.perf_counter() - self._since

    def begin(self, env: int, number: int, observations: Mapping[str, Any]) -> None:
        """Starts an episode, of that number, of an env with what its `reset` gave.

        Raises:
            EnvFailure: If that is not what the spaces say.
        """
        for column in (self.obs, self.alive, self._seen, self._ended, self._returns, self._agent_steps, self.lengths):
            column[env] = 0
        self.numbers[env] = number
        self._seconds[env], self._since[env] = 0.0, time.perf_counter()
        check_known(self._agents, observations)
        for i, slot in enumerate(self.layout.slots):
            if slot.agent in observations:
                self.obs[env, slot.obs] = fitting(observations[slot.agent], slot.agent, self._parts[i])
                self.alive[env, i] = True
        self._seen[env] = self.alive[env]
        self.whole[env] = bool(self.alive[env].all())
        if not is_finite(self.obs[env]):
            self._check_finite(self.obs[env])
        self._check_masks(env)

    def write_plain(self, results: list[list | tuple], columns: dict[str, np.ndarray]) -> bool:
        """Writes a step in which in every env all agents were and stay in the game, as in nearly all.

        Args:
            results: What the `step` of each env gave; or a list of the rewards of all agents, in order, from one that has
                written into `observations_of` it.
            columns: The rows of this step, `[E, width]` each; as if all agents were in the game and none ended.

        Returns:
            Whether it was such a step, all numbers are finite, and all agents have something to choose; if not, call `write`
            for each env.
        """
        if not all(self.whole):
            return False
        arrays, numbers = [], []
        try:
            for result in results:
                if isinstance(result, list):
                    numbers += result
                    continue
                observations, rewards, terminateds, truncateds, _ = result
                if True in terminateds.values() or True in truncateds.values():
                    return False
                if len(observations) != len(self._agents) or len(rewards) != len(self._agents):
                    return False
                arrays += self._pick(observations)
                numbers += self._pick(rewards)
            if arrays:
                if [*map(len, arrays)] != self._all_widths:
                    return False
                np.concatenate(arrays, out=self.obs.reshape(-1))
            columns["rewards"][:] = np.array(numbers, float).reshape(columns["rewards"].shape)
            if not (math.isfinite(sum(numbers)) and is_finite(self.obs)):
                return False
            if self._masks and not self._masks.all_can_act(self.obs):
                return False
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            return False
        columns["new_obs"][:] = self.obs
        return True

    def write(self, env: int, result: list | tuple, columns: dict[str, np.ndarray]) -> bool:
        """Writes what a step of one env gave, and takes note of who comes and goes.

        Args:
            env: Number of the env.
            result: As one of those of `write_plain`.
            columns: As in `write_plain`.

        Returns:
            Whether the episode is over.

        Raises:
            EnvFailure: If that makes no joint row.
        """
        row = {name: column[env] for name, column in columns.items()}
        if isinstance(result, list):
            values = self.observations_of(env), result
            result = (*(dict(zip(self._agents, v, strict=True)) for v in values), {}, {}, {})
        living = self.living(env)
        if not is_sound(living, result):
            check_step(self._agents, living, self.ended(env), result)
        observations, rewards, terminateds, truncateds, _ = result
        for name in ("new_obs", "rewards", "alive", "next_alive"):
            row[name][:] = 0.0
        all_terminated, all_truncated = terminateds.get("__all__", False), truncateds.get("__all__", False)
        for i, slot in enumerate(self.layout.slots):
            agent = slot.agent
            # As `ReadableEndings` has it: who is marked as both was truncated.
            truncated = bool(truncateds.get(agent, False) or all_truncated)
            terminated = bool(terminateds.get(agent, False) or all_terminated) and not truncated
            if self.alive[env, i]:
                self.alive[env, i] = not (terminated or truncated)
                self._ended[env, i] = terminated or truncated
                row["alive"][i], row["next_alive"][i] = True, not terminated
                row["terminateds"][i], row["truncateds"][i] = terminated, truncated
                row["rewards"][i] = float(rewards[agent])
            elif agent in observations and not (self._ended[env, i] or terminated or truncated):
                self.alive[env, i] = self._seen[env, i] = True
                row["next_alive"][i] = True
            else:
                continue
            row["new_obs"][slot.obs] = fitting(observations[agent], agent, self._parts[i])
        self.whole[env] = bool(self.alive[env].all())
        self.obs[env] = row["new_obs"]
        self._check_masks(env)
        return bool(all_terminated or all_truncated)

    def advance(self, columns: dict[str, np.ndarray], was_plain: bool) -> dict[int, EnvFailure]:
        """Goes on to the next step after all envs have written their rows.

        Args:
            columns: As in `write_plain`.
            was_plain: What that has returned.

        Returns:
            Envs with a number in their rows that is not finite, and what is wrong with it.
        """
        self.lengths += 1
        self._returns += columns["rewards"]
        self._agent_steps += self._acting(columns)
        failed = {}
        if not (was_plain or (is_finite(self.obs) and is_finite(self._returns))):
            for env, (obs, rewards) in enumerate(zip(columns["new_obs"], columns["rewards"], strict=True)):
                try:
                    self._check_finite(obs, rewards)
                except EnvFailure as failure:
                    failed[env] = failure
        if not (was_plain or all(self.whole)):
            self.obs[~self.alive[:, self._agent_of_obs]] = 0.0
        return failed

    @staticmethod
    def _acting(columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Who acts in the rows of a step."""
        return columns["alive"]

    def finished(self, env: int) -> FinishedEpisode:
        """Summary of an env's episode, which is over."""
        seen = [i for i in range(len(self._agents)) if self._seen[env, i]]
        return FinishedEpisode(
            length=int(self.lengths[env, 0]),
            returns={self._agents[i]: float(self._returns[env, i]) for i in seen},
            agent_steps={self._agents[i]: int(self._agent_steps[env, i]) for i in seen},
            seconds=float(self._seconds[env] + time.perf_counter() - self._since[env]),
        )

    def _check_masks(self, env: int) -> None:
        if self._masks:
            self._masks.check(self.obs[env], self.alive[env])

    def _check_finite(self, obs: np.ndarray, rewards: np.ndarray | None = None) -> None:
        for i, slot in enumerate(self.layout.slots):
            values = {"observation": obs[slot.obs], "reward": np.zeros(1) if rewards is None else rewards[i : i + 1]}
            for what, numbers in values.items():
                bad = numbers[~np.isfinite(numbers)]
                if len(bad):
                    fix = "Fix the environment, or wrap it so that its observations and rewards are finite."
                    raise EnvFailure(f"The {what} of agent {slot.agent!r} is {bad[0]}", fix)
