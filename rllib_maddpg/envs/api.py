"""What an environment's `reset` and `step` must return, and what is said of those that return something else.

`step` is looked at only after its result could not be used, so that good environments pay nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllib_maddpg.envs.errors import EnvFailure

_RESET = "`reset` must return two dicts by agent, (observations, infos)."
_STEP = (
    "`step` must return five dicts by agent, (observations, rewards, terminateds, truncateds, infos); the flags may have "
    '"__all__", too.'
)
_PARTS = ("observations", "rewards", "terminateds", "truncateds", "infos")


def check_reset_result(result: Any) -> None:
    """Looks at what the `reset` of a multi-agent env has returned.

    Raises:
        EnvFailure: If that is not `(observations, infos)`.
    """
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise _wrong("reset", f"{_described(result)} and not (observations, infos)", _RESET)
    for name, part in zip(("observations", "infos"), result, strict=True):
        if not isinstance(part, Mapping) and not (name == "infos" and part is None):
            raise _wrong("reset", f"{_described(part)} as {name}", _RESET)


def check_step_result(result: Any) -> None:
    """Looks at what the `step` of a multi-agent env has returned.

    Raises:
        EnvFailure: If that is not five dicts; an old `(observations, rewards, dones, infos)` is recognised.
    """
    check_five(result, _STEP)
    for name, part in zip(_PARTS, result, strict=True):
        if not isinstance(part, Mapping) and not (name == "infos" and part is None):
            raise _wrong("step", f"{_described(part)} as {name}", _STEP)


def check_gym_reset(result: Any) -> None:
    """Looks at what the `reset` of a Gymnasium env has returned.

    Raises:
        EnvFailure: If that is not `(observation, info)`.
    """
    fix = "`reset` must return (observation, info), the info a dict."
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise _wrong("reset", f"{_described(result)} and not (observation, info)", fix)
    if not isinstance(result[1], Mapping | None):
        raise _wrong("reset", f"{_described(result[1])} as info", fix)


def check_gym_step(result: Any) -> None:
    """Looks at what the `step` of a Gymnasium env has returned.

    Raises:
        EnvFailure: If that is not five values, or if its flags are dicts by agent.
    """
    check_five(result, "`step` must return (observation, reward, terminated, truncated, info).")
    for name, part in (("terminated", result[2]), ("truncated", result[3])):
        if isinstance(part, Mapping):
            raise by_agent("step", name)


def check_five(result: Any, fix: str) -> None:
    """Looks at how much a `step` has returned.

    Raises:
        EnvFailure: If that is not five values, with what to do.
    """
    if not isinstance(result, tuple | list):
        raise _wrong("step", f"{_described(result)} and not 5 values", fix)
    if len(result) != 5:
        old = " Gym's old `done` is now two flags: terminated, and truncated (a time limit)." if len(result) == 4 else ""
        raise _wrong("step", f"{len(result)} values and not 5", fix + old)


def by_agent(method: str, part: str) -> EnvFailure:
    """The failure of a plain Gymnasium env that returns a dict by agent."""
    return _wrong(
        method,
        f"a dict as {part}, which a plain gymnasium.Env does not",
        "A game that gives dicts by agent is an RLlib MultiAgentEnv: derive its class from "
        "`ray.rllib.env.multi_agent_env.MultiAgentEnv`.",
    )


def _wrong(method: str, returned: str, fix: str) -> EnvFailure:
    return EnvFailure(f"`{method}` returned {returned}", fix, can_pass=False)


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return f"{value!r}"
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"
