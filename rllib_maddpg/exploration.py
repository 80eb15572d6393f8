"""Exploration: noise on the joint actions of several environments.

Each environment draws from a generator of its own, which is made anew at every episode's start from the seed, the runner, the
env and the episode's number. So an episode's noise does not depend on which other environments run beside it, and a
restored run meets the same noise without any generator state in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ray.rllib.utils.schedules.scheduler import Scheduler

from rllib_maddpg.layout import JointLayout

NOISE_TYPES = ("gaussian", "ornstein_uhlenbeck", "none")


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
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._ou_state = np.zeros((num_envs, layout.action_dim), np.float32)

    def begin_episode(self, env: int, rng: np.random.Generator) -> None:
        """Resets the noise of env number `env`, which draws from `rng` until its next episode."""
        self._rngs[env] = rng
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
        # Every env always draws both kinds for every agent: its stream stays the same whoever is alive.
        uniform = np.stack([self._rngs[e].random(self.layout.action_dim, np.float32) for e in envs])
        normal = np.stack([self._rngs[e].standard_normal(self.layout.action_dim, np.float32) for e in envs])
        gumbel = -np.log(-np.log(np.clip(uniform, 1e-20, 1.0 - 2.0**-24)))
        additive = self._additive(envs, normal)
        random = random or env_steps < self.random_steps
        scale = self._noise_scale.update(env_steps)
        temperature = self._temperature.update(env_steps)
        codes = np.empty_like(outputs)
        for slot in self.layout.slots:
            at = slot.actions
            if slot.codec.noise == "gumbel":
                output = np.zeros_like(outputs[:, at]) if random else outputs[:, at]
                codes[:, at] = slot.codec.explore(output, gumbel[:, at], 1.0 if random else temperature)
            elif random:
                codes[:, at] = 2.0 * uniform[:, at] - 1.0
            else:
                codes[:, at] = slot.codec.explore(outputs[:, at], additive[:, at], scale)
        return codes

    def _additive(self, envs: Sequence[int], normal: np.ndarray) -> np.ndarray:
        if self.noise_type == "none":
            return np.zeros_like(normal)
        if self.noise_type == "gaussian":
            return normal
        state = self._ou_state[envs]
        self._ou_state[envs] = state = state - self.ou_theta * state + self.ou_sigma * normal
        return state
