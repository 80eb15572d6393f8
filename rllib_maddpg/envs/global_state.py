"""The global state of an environment, which centralized critics may see: where it comes from, and what makes a vector of it.

An env has one if it has a method `state()`, as PettingZoo's envs do, also below wrappers that hand it on; or if it says it in
its infos under a key. It is read after `reset` and after each `step`, before anything else happens to the env: so the state at
an episode's end, terminated or truncated, is that of its last step and not that of the next episode.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rllib_maddpg.envs.adapted import AdaptedGame
from rllib_maddpg.envs.api import check_reset_result
from rllib_maddpg.envs.errors import EnvError, EnvFailure
from rllib_maddpg.envs.probe import probe_env
from rllib_maddpg.rows.schema import Column

# RLlib's key of what is said to all agents at once.
COMMON = "__common__"
_NUMBERS = (
    "It must be an array of numbers, or a list of them, of as many numbers at each step; arrays of any shape are flattened."
)


class StatedInfos(dict):
    """Infos by agent, beside which the global state stands, so that whoever reads infos finds them as the env gave them.

    Attributes:
        state: The numbers of the global state, `[width]`.
    """

    state: np.ndarray


class StatedEnv(gym.Wrapper):
    """A `MultiAgentEnv`, or a wrapper around one, whose infos are `StatedInfos`: `state()` is asked after each step."""

    def __init__(self, env: Any):
        super().__init__(env)
        self._state = state_method(env)

    def reset(self, **kwargs: Any) -> tuple[dict, dict]:
        result = self.env.reset(**kwargs)
        check_reset_result(result)
        return result[0], self._stated(result[1])

    def step(self, action: dict) -> tuple:
        result = self.env.step(action)
        # Anything else than five parts is refused by those who read them.
        return (*result[:4], self._stated(result[4])) if isinstance(result, tuple) and len(result) == 5 else result

    def _stated(self, infos: Mapping | None) -> StatedInfos:
        stated = StatedInfos(infos or {})
        stated.state = asked(self._state)
        return stated


def state_method(env: Any) -> Callable[[], Any] | None:
    """The `state()` of an env, of its wrappers, or of what was adapted to be one; None: there is none."""
    while True:
        # Some Gymnasium envs have an attribute of that name.
        if callable(getattr(env, "state", None)):
            return env.state
        # The last one is the env of RLlib's own adapter for PettingZoo.
        env = env.env if isinstance(env, gym.Wrapper | AdaptedGame) else getattr(env, "par_env", None)
        if env is None:
            return None


def asked(state: Callable[[], Any]) -> np.ndarray:
    """What `state()` says now, `[width]`, a copy.

    Raises:
        EnvFailure: If it fails, or gives no numbers.
    """
    try:
        given = state()
    except Exception as error:
        raise EnvFailure(f"The env's `state()` failed ({type(error).__name__}: {error})", "Fix that method.") from error
    return numbers_of(given, "The env's `state()`")


def numbers_of(given: Any, what: str) -> np.ndarray:
    """A state as a vector of numbers, a copy of it.

    Args:
        given: What the env gave.
        what: Where it did, for the message.

    Raises:
        EnvFailure: If these are no numbers.
    """
    try:
        state = np.array(given).reshape(-1)
    except ValueError as error:  # lists of different lengths
        raise EnvFailure(f"{what} gave no array of numbers ({error})", _NUMBERS, can_pass=False) from None
    if state.dtype.kind not in "biuf" or not state.size:
        shown = "no number at all" if not state.size else f"a {type(given).__name__} of {state.dtype}"
        raise EnvFailure(f"{what} gave {shown}", _NUMBERS, can_pass=False)
    return state


@dataclass(frozen=True)
class StateSource:
    """What fills the column of the global state: the `source` of a `Column`.

    Attributes:
        key: In the infos; None: they are `StatedInfos`.
        width: Numbers of a state; None: not known yet.
    """

    key: Hashable = None
    width: int | None = None

    @property
    def what(self) -> str:
        """Its name in errors."""
        return "The env's `state()`" if self.key is None else f"The global state in infos[...][{self.key!r}] (`state_key`)"

    def __call__(self, infos: Mapping[Any, Any]) -> np.ndarray:
        """The state, `[width]`.

        Raises:
            EnvFailure: If there is none, or it is not of this width.
        """
        state = infos.state if self.key is None else numbers_of(self._in(infos), self.what)
        if self.width not in (None, state.size):
            fix = f"The env began with {self.width}. Pad it, so that it is as wide at each step and with each `env_config`."
            raise EnvFailure(f"{self.what} gave {state.size} numbers", fix, can_pass=False)
        return state

    def _in(self, infos: Mapping[Any, Any]) -> Any:
        for owner in (COMMON, *infos):
            info = infos.get(owner)
            if isinstance(info, Mapping) and self.key in info:
                return info[self.key]
        keys = sorted({str(key) for info in infos.values() if isinstance(info, Mapping) for key in info})
        raise EnvFailure(
            f"No info has the key {self.key!r}, where `state_key` looks for the global state",
            f"`reset` and each `step` must give it in the infos of {COMMON!r} or of an agent. Their keys are {keys}.",
            can_pass=False,
        )


def state_column(name: str, key: Hashable, width: int) -> Column:
    """The column of the global state in joint rows, with its value at x'.

    Args:
        name: Of the column.
        key: As in `StateSource`.
        width: Numbers of a state.
    """
    return Column(name, "env", width=width, at_next=True, source=StateSource(key, width))


def probe_state_width(env: Any, env_config: dict | None, num_env_runners: int, key: Hashable) -> int:
    """Numbers of the global state: builds and resets the env once, as `probe_env` does; kept likewise.

    Args:
        env, env_config, num_env_runners: As in `probe_env`.
        key: As in `StateSource`.

    Raises:
        EnvError: If the env has no global state, or one that is no vector of numbers.
    """
    return probe_env(env, env_config, num_env_runners, read=_StateWidth(key))


@dataclass(frozen=True)
class _StateWidth:
    """Reads the width of the state of an env that has been built; a class, so that it can be pickled and compared."""

    key: Hashable

    def __call__(self, env: Any, name: str, config: Mapping[str, Any]) -> int:
        if self.key is None and state_method(env) is None:
            raise EnvError(f"env={name!r} has no method `state()`. {_FIX}")
        try:
            stated = StatedEnv(env) if self.key is None else env
            _, infos = stated.reset(seed=0)
            return StateSource(self.key)({} if infos is None else infos).size
        except EnvFailure as failure:
            if isinstance(failure.__cause__, NotImplementedError):
                raise EnvError(f"env={name!r} has no global state: {failure.__cause__}. {_FIX}") from failure
            raise EnvError(f"env={name!r}: {failure.what} after `reset`. {failure.fix}") from failure


_FIX = (
    "Give it one that returns an array of numbers; or put the state into the infos and name its key (`state_key`); or let "
    'critics see all observations (`critic_view="all"`).'
)
