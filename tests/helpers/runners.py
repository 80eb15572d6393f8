"""Env runners without an algorithm."""

import numpy as np
from ledger_env import LEDGERS

from rllib_maddpg import MADDPGConfig


def make_runner(env, env_config=None, num_envs=1, worker_index=0, seed=3, fast=True, change=None, **training):
    """A runner of this process. `change` is called with the config before it is validated."""
    config = MADDPGConfig().environment(env, env_config=env_config or {}, disable_env_checking=True)
    config.env_runners(num_envs_per_env_runner=num_envs, env_runner_fast_path=fast)
    config.debugging(seed=seed).training(**training)
    if change is not None:
        change(config)
    config.validate()
    LEDGERS.clear()
    return config.env_runner_cls(config=config.copy(copy_frozen=False), worker_index=worker_index, num_workers=0)


def rows_of(rollouts):
    """Columns of several rollouts, one after the other."""
    return {name: np.concatenate([r.columns[name] for r in rollouts]) for name in rollouts[0].columns}
