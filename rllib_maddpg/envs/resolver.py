"""From what a user gives as `env` to a creator of RLlib `MultiAgentEnv`s."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.env.wrappers.pettingzoo_env import PettingZooEnv

from rllib_maddpg.envs.errors import EnvError
from rllib_maddpg.envs.joint_gym import REWARDS_KEY, JointGymGame, agents_in_spaces
from rllib_maddpg.envs.masks import MASKS_KEY, MasksFromInfos
from rllib_maddpg.envs.names import find_source
from rllib_maddpg.envs.parallel import ParallelPettingZoo
from rllib_maddpg.envs.single_agent import SingleAgentGame
from rllib_maddpg.envs.sources import CallableSource, ConfigSource, Source
from rllib_maddpg.envs.turns import TurnBasedPettingZoo
from rllib_maddpg.envs.wrappers import WRAPPERS_KEY, apply_wrappers

DIRECT_STEPPING_KEY = "direct_stepping"


@dataclass(frozen=True)
class EnvCreator:
    """Makes the env: `creator(env_config) -> MultiAgentEnv`. Fit for `ray.tune.register_env`, and for cloudpickle.

    `env_config` is a dict (or RLlib's `EnvContext`), of which each env gets a deep copy of its own. Four keys are taken out of
    it, all others go to the env:

    - "wrappers" names SuperSuit wrappers; `apply_wrappers` says how.
    - "direct_stepping": False has an mpe2 scenario stepped turn by turn, as its `parallel_env` does it. By default (True) all
      agents step at once, with the same results in half of the time or less; below wrappers it is always turn by turn. Only
      mpe2 scenarios have this key.
    - "rewards_from" says where the rewards of a Gymnasium env of several agents are; `JointGymGame` has the values.
    - "action_masks" lists the agents whose action masks are in their infos; `MasksFromInfos` has them observed. Without the
      key `MADDPGConfig.validate()` finds them out.

    Raises:
        EnvError: On a keyword that the env does not take, wrappers that do not fit, a "direct_stepping", "rewards_from" or
            "action_masks" that is not allowed or has nothing to say here, or an env that cannot be adapted.
    """

    source: Source

    def __call__(self, env_config: dict | None = None) -> MultiAgentEnv:
        config = _deep_copy({} if env_config is None else env_config)
        wrappers = config.pop(WRAPPERS_KEY, None)
        direct_stepping = None  # not given
        if DIRECT_STEPPING_KEY in config:
            direct_stepping = config.pop(DIRECT_STEPPING_KEY)
            if not isinstance(direct_stepping, bool):
                raise EnvError(f'env_config["{DIRECT_STEPPING_KEY}"]={direct_stepping!r} is not a bool. Give True or False.')
        rewards_from = config.pop(REWARDS_KEY, None)
        masked = config.pop(MASKS_KEY, None)
        if not isinstance(masked, list | tuple | None):
            raise EnvError(
                f'env_config["{MASKS_KEY}"]={masked!r} is not a list. Give the agents whose infos have masks, or [].'
            )
        env = _adapt(self.source(config), self.source.name, [] if wrappers is None else wrappers, direct_stepping, rewards_from)
        if rewards_from is not None and not isinstance(env, JointGymGame):
            raise EnvError(
                f'env_config["{REWARDS_KEY}"]={rewards_from!r}: env={self.source.name!r} is not a Gymnasium env with one '
                "entry per agent, so it already reports rewards per agent. Take the key out."
            )
        return MasksFromInfos(env, masked) if masked else env


def _deep_copy(env_config: dict) -> dict:
    """A copy of the same type, since a user's creator may read `worker_index` off RLlib's `EnvContext`; values that cannot be
    copied, such as open files, stay the same."""
    copied = copy.copy(env_config)
    for key, value in env_config.items():
        try:
            copied[key] = copy.deepcopy(value)
        except Exception:
            continue
    return copied


def resolve_env(env: str | type | Callable[..., Any]) -> EnvCreator:
    """Returns the creator of the `MultiAgentEnv` that `env` stands for.

    Args:
        env: A name (looked up in this order: `ray.tune.register_env`, mpe2 such as "simple_adversary", PettingZoo such
            as "sisl/pursuit_v5", Gymnasium such as "Pendulum-v1", "package.module:callable"), or a class or callable.
            A callable is given `env_config` as its one argument or as keywords, as `CallableSource` says.
            It may make a `MultiAgentEnv` (taken as it is, but for RLlib's `PettingZooEnv`), a PettingZoo parallel env, an AEC
            env (made parallel where it is parallelizable, else played in turns), a single-agent gymnasium env or one with a
            Tuple or Dict entry for each agent.

    Raises:
        EnvError: (a ValueError) if the name is unknown, a package it needs is missing, or `env` is of another type.
    """
    if isinstance(env, EnvCreator):
        return env
    if isinstance(env, str):
        source = find_source(env)
        # `register_env(name, resolve_env(name))` must not lead to adapting twice.
        if isinstance(source, CallableSource | ConfigSource) and isinstance(source.make, EnvCreator):
            return source.make
    elif callable(env):
        source = CallableSource(getattr(env, "__qualname__", repr(env)), env)
    else:
        raise EnvError(f"env={env!r} is a {type(env).__name__}. Give a name, an env class or a callable that makes an env.")
    return EnvCreator(source)


def _adapt(env: Any, name: str, wrappers: Sequence, direct_stepping: bool | None, rewards_from: str | None) -> MultiAgentEnv:
    is_parallelizable = isinstance(env, AECEnv) and env.metadata.get("is_parallelizable", False)
    if is_parallelizable:
        env = aec_to_parallel(env)
    make_direct = _find_direct(env)
    if direct_stepping is not None and make_direct is None:
        raise EnvError(
            f'env_config["{DIRECT_STEPPING_KEY}"]={direct_stepping!r}: env={name!r} is not a bare mpe2 scenario (or mpe2\'s '
            "version is not known here), so there is only one way to step it. Take the key out."
        )
    if isinstance(env, gym.Env) and isinstance(env.unwrapped, MultiAgentEnv):
        if wrappers:
            raise EnvError(
                f'env_config["wrappers"]={wrappers!r}: env={name!r} is an RLlib MultiAgentEnv, which SuperSuit cannot '
                "wrap. Take the key out, or let the creator return the PettingZoo env itself."
            )
        # RLlib's adapter for AEC envs misses the ends of agents that end differently; ours takes its place.
        return TurnBasedPettingZoo(env.env) if type(env) is PettingZooEnv else env
    if wrappers and isinstance(env, ParallelEnv | AECEnv | gym.Env):
        env = apply_wrappers(env, wrappers)
    elif make_direct is not None and direct_stepping is not False:
        env = make_direct(env)
    if isinstance(env, ParallelEnv):
        return ParallelPettingZoo(env)
    if isinstance(env, AECEnv):
        return TurnBasedPettingZoo(env)
    if isinstance(env, gym.Env):
        return JointGymGame(env, rewards_from) if agents_in_spaces(env) else SingleAgentGame(env)
    raise EnvError(
        f"env={name!r} makes a {type(env).__name__}. It must make an RLlib MultiAgentEnv, a PettingZoo ParallelEnv or "
        "AECEnv, or a gymnasium Env."
    )


def _find_direct(env: Any) -> Callable[[ParallelEnv], ParallelEnv] | None:
    """Returns what makes `env` step without turns; None if it has none, or if nothing is known that does."""
    if not (isinstance(env, ParallelEnv) and type(env.unwrapped).__module__.startswith("mpe2.")):
        return None
    from rllib_maddpg.envs import mpe  # needs mpe2, which is optional

    return mpe.DirectMPE if mpe.can_step_directly(env) else None
