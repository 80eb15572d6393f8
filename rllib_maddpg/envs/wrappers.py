"""SuperSuit wrappers named in `env_config["wrappers"]`."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from pettingzoo import AECEnv

from rllib_maddpg.envs.black_death import BlackDeath
from rllib_maddpg.envs.errors import EnvError, did_you_mean

WRAPPERS_KEY = "wrappers"
_KEY = f'env_config["{WRAPPERS_KEY}"]'
_EXAMPLE = '[["frame_stack_v2", {"stack_size": 4}], "black_death_v3"]'


def apply_wrappers(env: Any, wrappers: Sequence) -> Any:
    """Wraps a PettingZoo env (or, where SuperSuit can, a gymnasium env); the first wrapper is the innermost.

    Args:
        env: The env.
        wrappers: Items are a name, `"black_death_v3"`, or name and keywords, `["frame_stack_v2", {"stack_size": 4}]`.

    Raises:
        EnvError: On an item of another form, an unknown name, or keywords or an env that the wrapper refuses.
    """
    if isinstance(wrappers, str) or not isinstance(wrappers, Sequence):
        raise EnvError(f"{_KEY}={wrappers!r} is not a list. Give a list such as {_EXAMPLE}.")
    for item in wrappers:
        name, kwargs = _name_and_kwargs(item)
        make = _find_wrapper(name)
        try:
            env = make(env, **kwargs)
        except EnvError:
            raise
        # SuperSuit refuses with assertions, TypeErrors, ValueErrors and (a slip of its own) AttributeErrors.
        except Exception as error:
            raise EnvError(
                f"{_KEY}: {name} with {kwargs} cannot wrap {type(env).__name__}: {error}. "
                f"Its arguments are {_signature(make)}; fix these or take the wrapper out."
            ) from error
    return env


def _name_and_kwargs(item: Any) -> tuple[str, dict]:
    match [item] if isinstance(item, str) else item:
        case [str(name)]:
            return name, {}
        case [str(name), dict(kwargs)]:
            return name, kwargs
    raise EnvError(f"{_KEY}: {item!r} is neither a name nor [name, {{keywords}}]. Write for example {_EXAMPLE}.")


def _find_wrapper(name: str) -> Callable:
    try:
        import supersuit
    except ImportError as error:
        raise EnvError(f"{_KEY} needs SuperSuit ({error}). Fix: pip install supersuit") from error

    # Those with "vec" in their name make vector envs, of which RLlib makes its own.
    known = [other for other in dir(supersuit) if re.search(r"_v\d+$", other) and "vec" not in other]
    if name not in known:
        raise EnvError(f"{_KEY}: SuperSuit has no wrapper {name!r}.{did_you_mean(name, known)} Allowed: {known}.")
    return _black_death if name == "black_death_v3" else getattr(supersuit, name)


def _black_death(env: Any) -> BlackDeath:
    if isinstance(env, AECEnv):
        raise EnvError(f"{_KEY}: black_death_v3 wraps parallel envs, and in {env} agents act in turns. Take it out.")
    return BlackDeath(env)


def _signature(make: Callable) -> str:
    try:
        return str(inspect.signature(make))
    except (TypeError, ValueError):
        return "not known"
