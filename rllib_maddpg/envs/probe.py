"""Reading an environment's agents and spaces before any runner is started."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import gymnasium as gym
import ray
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_maddpg.envs.adapted import AdaptedGame
from rllib_maddpg.envs.api import check_reset_result
from rllib_maddpg.envs.errors import EnvError, EnvFailure
from rllib_maddpg.envs.masks import MASKS_KEY, MasksFromInfos, masks_in_infos
from rllib_maddpg.envs.resolver import EnvCreator, resolve_env
from rllib_maddpg.envs.step_checks import check_first_turn
from rllib_maddpg.envs.turns import acts_in_turns


@dataclass(frozen=True)
class EnvSpaces:
    """What the networks must know of an env.

    Attributes:
        agents: All agents that can ever be in the game, sorted by `str`.
        observation_spaces: agent -> space, in that order.
        action_spaces: agent -> space, in that order.
        info_masks: Agents whose action masks were found in their infos, and stand in their observation spaces here; their env
            has to be made with `env_config["action_masks"]`.
        has_turns: Whether agents were found to act in turns.
    """

    agents: tuple[Hashable, ...]
    observation_spaces: dict[Hashable, gym.Space]
    action_spaces: dict[Hashable, gym.Space]
    info_masks: tuple[Hashable, ...] = ()
    has_turns: bool = False


class NotBuiltError(EnvError):
    """The env's constructor has failed, which it may not do in another process."""


_MAX_CACHED = 64
_cache: dict[tuple, tuple[Any, Any]] = {}


def read_spaces(env: Any, name: str, config: Mapping[str, Any]) -> EnvSpaces:
    """Agents and spaces of an env, or of a wrapper around one.

    An env whose agents choose among actions is reset once, to see whether there are action masks in its infos, unless
    `env_config["action_masks"]` says so. A user's own `MultiAgentEnv` is reset once more, and stepped where that leaves agents
    out, to see whether they act in turns (`acts_in_turns`).

    Raises:
        EnvError: If it names none.
    """
    spaces = replace(_read(env.unwrapped, name), has_turns=_has_turns(env, name))
    masked = () if MASKS_KEY in config else tuple(masks_in_infos(env))
    return (
        replace(_read(MasksFromInfos(env, masked), name), info_masks=masked, has_turns=spaces.has_turns) if masked else spaces
    )


def _has_turns(env: Any, name: str) -> bool:
    """Whether agents act in turns; of such a game also that it can be begun, and its agents keep their spaces then."""
    try:
        has_turns = bool(acts_in_turns(env))
        if has_turns and isinstance(env.unwrapped, AdaptedGame):
            check_first_turn(env.reset(seed=0)[0])
        return has_turns
    except EnvFailure as failure:
        raise EnvError(f"env={name!r}: {failure.what} after `reset`. {failure.fix}") from failure


def probe_env(
    env: str | type | Callable[..., Any],
    env_config: dict | None = None,
    num_env_runners: int = 0,
    read: Callable[[Any, str, Mapping[str, Any]], Any] = read_spaces,
) -> Any:
    """Builds the env once, reads its agents and spaces, and closes it.

    The env gets an `EnvContext` as on the local env runner. If it cannot be built there and remote runners are to have it, it
    is built in another process, as on the first of them. The result is kept for this process: asking again for the same env
    and config builds nothing.

    Args:
        env: As `resolve_env` takes it.
        env_config: What the env is made with.
        num_env_runners: Number of remote env runners.
        read: What reads the env: function of it, its name and `env_config`, which can be pickled. By default its `EnvSpaces`.

    Returns:
        What `read` does.

    Raises:
        EnvError: (a ValueError) whatever `resolve_env` and its creator raise; if the env's constructor fails (its error
            is chained); or if the env names no agents or no spaces.
    """
    creator = resolve_env(env)
    config = {} if env_config is None else env_config
    key = _cache_key(env, creator, config, read)
    if key is not None and key in _cache:
        return _cache[key][1]

    try:
        found = _build_and_read(creator, EnvContext(config, worker_index=0, num_workers=num_env_runners), read)
    except NotBuiltError as error:
        if not num_env_runners:
            raise
        found = _read_on_a_runner(creator, config, num_env_runners, error, read)
    if key is not None:
        if len(_cache) >= _MAX_CACHED:
            _cache.clear()
        _cache[key] = (env, found)
    return found


def _read_on_a_runner(creator: EnvCreator, config: dict, num_env_runners: int, here: EnvError, read: Callable) -> Any:
    """Builds the env in a Ray task, since an env may refuse to live in the process of the algorithm."""
    if not ray.is_initialized():
        raise EnvError(
            f"{here} If only remote env runners may have it, call `ray.init()` first: it is then built in another process."
        ) from here.__cause__
    context = EnvContext(config, worker_index=1, num_workers=num_env_runners)
    try:
        return ray.get(ray.remote(num_cpus=0, max_retries=0)(_build_and_read).remote(creator, context, read))
    except Exception as error:
        cause = getattr(error, "cause", error)
        text = str(cause).strip().partition("\n")[0]
        kind = "" if isinstance(cause, EnvError) else f"{type(cause).__name__}: "
        raise EnvError(f"{here} In another process, as on env runner 1: {kind}{text}") from here.__cause__


def _cache_key(env: Any, creator: EnvCreator, config: dict, read: Callable) -> tuple | None:
    # Pickles, not reprs: the repr of a large array leaves most of it out. The id tells a class that was defined again
    # from the old one of the same name; the cache holds `env` itself, so that no other object can get its id.
    try:
        return (None if isinstance(env, str) else id(env), cloudpickle.dumps((creator, dict(config), read)))
    except Exception:  # what cannot be pickled is not kept
        return None


def _build_and_read(creator: EnvCreator, config: EnvContext, read: Callable[[Any, str, Mapping[str, Any]], Any]) -> Any:
    name = creator.source.name
    try:
        env = creator(config)
    except EnvError:
        raise
    except Exception as error:
        raise NotBuiltError(
            f"env={name!r} could not be built with env_config={dict(config)!r}: {type(error).__name__}: {error}. "
            "Fix env_config or the env's constructor."
        ) from error
    try:
        return read(env, name, config)
    finally:
        env.close()


def _read(env: MultiAgentEnv, name: str) -> EnvSpaces:
    agents = sorted(_agents(env), key=str)
    if not agents:
        raise EnvError(f"env={name!r} names no agents. Set `possible_agents` in its constructor.")
    spaces = EnvSpaces(
        agents=tuple(agents),
        observation_spaces={agent: env.get_observation_space(agent) for agent in agents},
        action_spaces={agent: env.get_action_space(agent) for agent in agents},
    )
    for kind in ("observation_spaces", "action_spaces"):
        for agent, space in getattr(spaces, kind).items():
            if not isinstance(space, gym.Space):
                raise EnvError(
                    f"env={name!r} has {space!r} for agent {agent!r} in its {kind}. Set `{kind}` (agent -> gymnasium "
                    "space) in its constructor."
                )
    return spaces


def _agents(env: MultiAgentEnv) -> list[Hashable]:
    """Returns the agents from the first place that names any; a reset is the last resort."""
    if env.possible_agents:
        return list(env.possible_agents)
    for spaces in (env.observation_spaces, env.observation_space):
        if isinstance(spaces, dict | gym.spaces.Dict):
            return list(spaces.keys())
    result = env.reset()
    check_reset_result(result)
    return list(env.agents or result[0])
