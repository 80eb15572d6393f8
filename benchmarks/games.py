"""The games that are measured: ours with this package, and the bare environment that nothing can be faster than."""

from __future__ import annotations

import contextlib
import itertools
from importlib import import_module
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from benchmarks.options import FRAGMENT, known_scenarios
from rllib_maddpg.algorithm.maddpg import MADDPG
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.runs.built import stopped_after

# Key of `env_config` that makes mpe2 envs go through PettingZoo's AEC conversion.
DIRECT_STEPPING = "direct_stepping"
_DRAWN_ACTIONS = 1000


def make_config(
    scenario: str,
    *,
    num_envs: int,
    batch: int = 1024,
    rows: int | None = None,
    device: str = "cpu",
    num_env_runners: int = 0,
    env_config: dict[str, Any] | None = None,
) -> MADDPGConfig:
    """Our algorithm with default settings, but without the random actions at the start: the policy is part of the work.

    Args:
        scenario: Of mpe2, with continuous actions.
        num_envs: Environments of the runner.
        batch: Joint rows of an update.
        rows: Capacity of the replay buffer; None: one batch, but at least a fragment of all envs.
        device: "cpu" or "cuda", of the Learner.
        num_env_runners: Remote runners; 0: this process samples.
        env_config: More settings of the environment.
    """
    return (
        MADDPGConfig()
        .environment(scenario, env_config={"continuous_actions": True, **(env_config or {})})
        .env_runners(num_env_runners=num_env_runners, num_envs_per_env_runner=num_envs)
        .learners(num_gpus_per_learner=int(device == "cuda"))
        .training(
            train_batch_size_per_learner=batch,
            num_steps_sampled_before_learning_starts=0,
            process_wide_speedups=True,  # as the command line has it
            replay_buffer_config={"capacity": max(batch, 1000, FRAGMENT * num_envs) if rows is None else rows},
        )
        .debugging(seed=0)
    )


def built(config: AlgorithmConfig) -> contextlib.AbstractContextManager[Algorithm]:
    """The algorithm of a config, stopped at the end."""
    return stopped_after(config.build_algo())


def takes_direct_stepping(scenario: str) -> bool:
    """Whether this version of the package has a way of its own to step the scenario that can be turned off."""
    try:
        make_config(scenario, num_envs=1, env_config={DIRECT_STEPPING: False}).validate()
    except ValueError:
        return False
    return True


def fill(algo: MADDPG, rows: int) -> None:
    """Puts at least `rows` rows into the algorithm's replay buffer: one real fragment, again and again."""
    rollouts = algo.env_runner_group.local_env_runner.sample()
    while algo.replay_buffer.num_rows_added < rows:
        for rollout in rollouts:
            algo.replay_buffer.add(rollout)


# ------------------------------------------------------------------------------------------ the bare environment


def make_bare_env(scenario: str, env_config: dict[str, Any] | None = None) -> ParallelEnv:
    """mpe2's own `parallel_env` with continuous actions."""
    module = import_module(f"mpe2.{known_scenarios()[scenario]}")
    return module.parallel_env(continuous_actions=True, **(env_config or {}))


class BareLoop:
    """One bare `parallel_env` that is stepped with actions drawn beforehand; resets count as work, not as steps."""

    does = "one bare mpe2 parallel_env, actions drawn beforehand, resets included: no policy, nothing is stored"

    def __init__(self, scenario: str, env_config: dict[str, Any] | None = None):
        self._env = make_bare_env(scenario, env_config)
        spaces = {agent: self._env.action_space(agent) for agent in self._env.possible_agents}
        rng = np.random.default_rng(0)
        drawn = [{a: rng.uniform(s.low, s.high).astype(s.dtype) for a, s in spaces.items()} for _ in range(_DRAWN_ACTIONS)]
        self._actions = itertools.cycle(drawn)
        self._env.reset(seed=0)

    def run(self, env_steps: int = 4 * FRAGMENT) -> int:
        """Makes `env_steps` env steps and returns their number."""
        env, actions = self._env, self._actions
        for _ in range(env_steps):
            if not env.agents:
                env.reset()
            env.step(next(actions))
        return env_steps
