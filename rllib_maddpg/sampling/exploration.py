"""Exploration: noise on the joint actions of several environments.

Each environment draws from a generator of its own, which is rebuilt at every episode's start from the seed, the runner, the
env and the episode's number. So an episode's noise does not depend on which other environments run beside it, and a
restored run meets the same noise without any generator state in the checkpoint.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.schedules.scheduler import Scheduler

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.sampling.noise import NoiseType, make_noise

BLOCK = 32  # env steps of an episode whose random numbers are drawn at once
# An env's number and its episode -> where that episode's random numbers come from.
Generators = Callable[[int, Hashable], np.random.Generator]


def greedy(layout: JointLayout, outputs: np.ndarray) -> np.ndarray:
    """Noise-free action codes of head outputs, `[E, action_dim]` float32 both."""
    codes = np.empty_like(outputs)
    for group in layout.action_groups():
        codes[:, group.actions] = group.codec.greedy_numpy(group.part(outputs)).reshape(len(codes), -1)
    return codes


def exploration_settings(config: AlgorithmConfig) -> dict[str, Any]:
    """What `JointExploration` takes from the config, beside layout and number of envs, by the names that checkpoints have."""
    names = {"exploration_temperature": "temperature", "num_steps_sampled_before_learning_starts": "random_steps"}
    settings = {names.get(key, key): value for key, value in config.part("exploration").items()}
    # Settings of a subclass of the config are for an exploration of its own.
    takes = inspect.signature(config.env_runner_cls.exploration_class).parameters
    return {key: value for key, value in settings.items() if key in takes}


def unseeded(env: int, episode: Hashable) -> np.random.Generator:
    """Noise that nobody has asked to meet twice."""
    return np.random.default_rng()


class JointExploration:
    """Turns the head outputs of all agents into noisy action codes.

    - Box with tanh head: mu(o) + noise, clipped to [-1, 1]; see `Noise`.
    - Discrete, MultiDiscrete, Box with softmax head: Gumbel noise on the head output, a draw at `temperature`.
    - In the first `random_steps` env steps of the run: uniform actions of the same kind.

    Actions whose head output is `MASKED` are never chosen.

    Attributes:
        env_steps: The clock of the schedules: lifetime env steps of all runners. `act` moves it on; may be set.
        random: True: uniform actions, whatever the schedules say. May be set.
        noise: The noise of boxes.
    """

    def __init__(
        self,
        layout: JointLayout,
        num_envs: int,
        *,
        generators: Generators = unseeded,
        env_steps: int = 0,
        env_steps_per_act: int = 1,
        noise_type: NoiseType = "gaussian",
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
            generators: Where the random numbers of an episode come from.
            env_steps: Where the clock stands at first.
            env_steps_per_act: Env steps by which it goes on for each env that acts.
            noise_type: One of `NOISES`, or a class with the interface of `Noise`, or its path.
            noise_scale: Factor of the noise, in action-code units (a box is 2 wide); float or RLlib schedule over env steps.
            ou_theta: Pull of the OU process to zero, per env step.
            ou_sigma: Standard deviation of its increments, per env step.
            temperature: Of Gumbel noise; float or RLlib schedule over env steps.
            random_steps: Lifetime env steps (of all runners together) with uniform actions.

        Raises:
            NoiseError: If `noise_type` cannot be used.
        """
        self.layout = layout
        self.env_steps, self.env_steps_per_act = env_steps, env_steps_per_act
        self.random, self.random_steps = False, random_steps
        self._generators = generators
        self._noise_type, self._noise_settings = noise_type, {"ou_theta": ou_theta, "ou_sigma": ou_sigma}
        self._noise_scale = Scheduler(noise_scale)
        self._temperature = Scheduler(temperature)
        self._groups = layout.action_groups()
        self._draws_gumbel = any(group.codec.noise == "gumbel" for group in self._groups)
        self._make_room(num_envs)

    def _make_room(self, num_envs: int) -> None:
        """For another number of envs, of which none has begun an episode."""
        width = self.layout.action_dim
        self._episodes: list[Hashable] = [0] * num_envs
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        # Random numbers of all envs, a block of rows each, and per env the row of its block that comes next.
        self._uniform, self._normal, self._gumbel = (np.zeros((num_envs * BLOCK, width), np.float32) for _ in range(3))
        self._at = [BLOCK] * num_envs
        self.noise = make_noise(self._noise_type, num_envs, width, self._noise_settings)

    def begin_episode(self, env: int, episode: Hashable) -> None:
        """Takes note that env number `env` begins an episode: its noise begins when it first acts there."""
        self._episodes[env] = episode
        self._rngs[env] = None
        self._at[env] = BLOCK

    def follow(self, episodes: Sequence[Hashable]) -> None:
        """Begins those episodes that are other ones than at the last call.

        Args:
            episodes: Per env its episode. Where there are more or fewer of them than before, all begin.
        """
        if len(episodes) != len(self._episodes):
            self._make_room(len(episodes))
        for env, episode in enumerate(episodes):
            if self._episodes[env] != episode:
                self.begin_episode(env, episode)

    def act(self, envs: Sequence[int], outputs: np.ndarray) -> np.ndarray:
        """Noisy joint action codes.

        Args:
            envs: Numbers of the E envs that act now.
            outputs: Head outputs of all agents, `[E, action_dim]` float32; anything for absent agents.

        Returns:
            Action codes `[E, action_dim]` float32.

        Raises:
            NoiseError: If the noise is a user's and fails.
        """
        rows = self._next_rows(envs)
        additive = self.noise.next(envs, self._normal.take(rows, 0))
        env_steps = self.env_steps
        random = self.random or env_steps < self.random_steps
        codes = []
        for group in self._groups:
            output = group.part(outputs)
            if group.codec.noise == "gumbel":
                temperature = 1.0 if random else self._temperature.update(env_steps)
                output = group.codec.uniform(output) if random else output
                code = group.codec.explore(output, group.part(self._gumbel.take(rows, 0)), temperature)
            elif random:
                code = 2.0 * group.part(self._uniform.take(rows, 0)) - 1.0
            elif additive is None:
                code = group.codec.greedy_numpy(output)
            else:
                code = group.codec.explore(output, group.part(additive), self._noise_scale.update(env_steps))
            codes.append(code.reshape(len(code), -1))
        self.env_steps += len(envs) * self.env_steps_per_act
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
        if self._rngs[env] is None:
            self._rngs[env] = self._generators(env, self._episodes[env])
            self.noise.begin_episode(env)
        block = slice(env * BLOCK, (env + 1) * BLOCK)
        # Both kinds for every agent, whether needed or not: an env's stream stays the same whoever is alive.
        uniform = self._rngs[env].random(out=self._uniform[block], dtype=np.float32)
        self._rngs[env].standard_normal(out=self._normal[block], dtype=np.float32)
        if self._draws_gumbel:
            self._gumbel[block] = -np.log(-np.log(np.clip(uniform, 1e-20, 1.0 - 2.0**-24)))
        self._at[env] = 0
