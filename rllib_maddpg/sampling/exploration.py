"""Exploration: noise on the joint actions of several environments.

Each environment draws from a generator of its own, which is rebuilt at every episode's start from the seed, the runner, the
env and the episode's number. So an episode's noise does not depend on which other environments run beside it, and a
restored run meets the same noise without any generator state in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.schedules.scheduler import Scheduler

from rllib_maddpg.rows.layout import JointLayout

NOISE_TYPES = ("gaussian", "ornstein_uhlenbeck", "none")
BLOCK = 32  # env steps of an episode whose random numbers are drawn at once


def greedy(layout: JointLayout, outputs: np.ndarray) -> np.ndarray:
    """Noise-free action codes of head outputs, `[E, action_dim]` float32 both."""
    codes = np.empty_like(outputs)
    for group in layout.action_groups():
        codes[:, group.actions] = group.codec.greedy_numpy(group.part(outputs)).reshape(len(codes), -1)
    return codes


def exploration_settings(config: AlgorithmConfig) -> dict[str, Any]:
    """What `JointExploration` takes from the config, beside layout and number of envs, by the names that checkpoints have."""
    names = {"exploration_temperature": "temperature", "num_steps_sampled_before_learning_starts": "random_steps"}
    return {names.get(key, key): value for key, value in config.part("exploration").items()}


class JointExploration:
    """Turns the head outputs of all agents into noisy action codes.

    - Box with tanh head: mu(o) + noise, clipped to [-1, 1]; the noise is Gaussian or Ornstein-Uhlenbeck (Lillicrap et
      al. 2016, section 7).
    - Discrete, MultiDiscrete, Box with softmax head: Gumbel noise on the head output, a draw at `temperature`.
    - In the first `random_steps` env steps of the run: uniform actions of the same kind.
    """

    def __init__(
        self,
        layout: JointLayout,
        num_envs: int,
        noise_type: str = "gaussian",
        noise_scale: float | list = 0.1,
        ou_theta: float = 0.15,
        ou_sigma: float = 0.2,
        temperature: float | list = 1.0,
        random_steps: int = 0,
    ):
        """
        Args:
            layout: Order of agents in the joint action.
            num_envs: Number of environments that step side by side.
            noise_type: One of `NOISE_TYPES`.
            noise_scale: Factor of the noise, in action-code units (a box is 2 wide); float or RLlib schedule over env steps.
            ou_theta: Pull of the OU process to zero, per env step.
            ou_sigma: Standard deviation of its increments, per env step.
            temperature: Of Gumbel noise; float or RLlib schedule over env steps.
            random_steps: Lifetime env steps (of all runners together) with uniform actions.
        """
        self.layout = layout
        self.noise_type = noise_type
        self.ou_theta, self.ou_sigma = ou_theta, ou_sigma
        self.random_steps = random_steps
        self._noise_scale = Scheduler(noise_scale)
        self._temperature = Scheduler(temperature)
        self._groups = layout.action_groups()
        self._draws_gumbel = any(group.codec.noise == "gumbel" for group in self._groups)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        # Random numbers of all envs, a block of rows each, and per env the row of its block that comes next.
        shape = num_envs * BLOCK, layout.action_dim
        self._uniform, self._normal, self._gumbel = (np.zeros(shape, np.float32) for _ in range(3))
        self._at = [BLOCK] * num_envs
        self._ou_state = np.zeros((num_envs, layout.action_dim), np.float32)

    def begin_episode(self, env: int, rng: np.random.Generator) -> None:
        """Resets the noise of env number `env`, which draws from `rng` until its next episode."""
        self._rngs[env] = rng
        self._at[env] = BLOCK
        self._ou_state[env] = 0.0

    def act(self, envs: Sequence[int], outputs: np.ndarray, env_steps: int, random: bool = False) -> np.ndarray:
        """Noisy joint action codes.

        Args:
            envs: Numbers of the E envs that act now.
            outputs: Head outputs of all agents, `[E, action_dim]` float32; anything for absent agents.
            env_steps: Lifetime env steps of the run, for the schedules.
            random: True: uniform actions, whatever the schedules say.

        Returns:
            Action codes `[E, action_dim]` float32.
        """
        rows = self._next_rows(envs)
        additive = self._additive(envs, rows)
        random = random or env_steps < self.random_steps
        codes = []
        for group in self._groups:
            output = group.part(outputs)
            if group.codec.noise == "gumbel":
                temperature = 1.0 if random else self._temperature.update(env_steps)
                output = np.zeros_like(output) if random else output
                code = group.codec.explore(output, group.part(self._gumbel.take(rows, 0)), temperature)
            elif random:
                code = 2.0 * group.part(self._uniform.take(rows, 0)) - 1.0
            elif additive is None:
                code = group.codec.greedy_numpy(output)
            else:
                code = group.codec.explore(output, group.part(additive), self._noise_scale.update(env_steps))
            codes.append(code.reshape(len(code), -1))
        return codes[0] if len(codes) == 1 else np.concatenate(codes, -1)

    def _next_rows(self, envs: Sequence[int]) -> list[int]:
        """Number of each env's next row of random numbers; those of a block are drawn again when they are used up."""
        rows = []
        for e in envs:
            if self._at[e] == BLOCK:
                self._draw(e)
            rows.append(e * BLOCK + self._at[e])
            self._at[e] += 1
        return rows

    def _draw(self, env: int) -> None:
        block = slice(env * BLOCK, (env + 1) * BLOCK)
        # Both kinds for every agent, whether needed or not: an env's stream stays the same whoever is alive.
        uniform = self._rngs[env].random(out=self._uniform[block], dtype=np.float32)
        self._rngs[env].standard_normal(out=self._normal[block], dtype=np.float32)
        if self._draws_gumbel:
            self._gumbel[block] = -np.log(-np.log(np.clip(uniform, 1e-20, 1.0 - 2.0**-24)))
        self._at[env] = 0

    def _additive(self, envs: Sequence[int], rows: list[int]) -> np.ndarray | None:
        """Noise before its scale, `[E, action_dim]`; None if there is none."""
        if self.noise_type == "none":
            return None
        normal = self._normal.take(rows, 0)
        if self.noise_type == "gaussian":
            return normal
        state = self._ou_state[envs]
        self._ou_state[envs] = state = state - self.ou_theta * state + self.ou_sigma * normal
        return state
