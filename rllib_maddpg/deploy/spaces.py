"""Gymnasium spaces as plain data, of which an exported actor can be made and checked without Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_maddpg.actions import ActionCodec, BoxCodec

NAME = "observation"


def describe_observation(space: gym.Space, agent: str) -> list[dict[str, Any]]:
    """The inputs of an agent's actor, in the order in which RLlib's `FlattenObservations` lines them up.

    Args:
        space: What the agent observes.
        agent: Named in errors.

    Returns:
        Per input `name`, `path` (keys that lead to it in a nested observation), `kind`, `shape` and `dtype`. Discrete ones also
        have `choices` (their numbers), `start`, and `columns`: per number the value that each column of its one-hot stands for.

    Raises:
        ValueError: For a space that cannot be flattened.
    """
    return [_describe_part(part, path, agent) for path, part in _parts(space, ())]


def _parts(space: gym.Space, path: tuple) -> list[tuple[tuple, gym.Space]]:
    if isinstance(space, gym.spaces.Dict):
        # Sorted, as RLlib flattens dicts.
        return [leaf for key in sorted(space.spaces) for leaf in _parts(space[key], (*path, key))]
    if isinstance(space, gym.spaces.Tuple):
        return [leaf for i, part in enumerate(space.spaces) for leaf in _parts(part, (*path, i))]
    return [(path, space)]


def _describe_part(space: gym.Space, path: tuple, agent: str) -> dict[str, Any]:
    name = ".".join([NAME, *map(str, path)])
    part = {"name": name, "path": list(path), "kind": type(space).__name__, "shape": list(space.shape or ())}
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
        return {**part, "dtype": "float32"}
    if isinstance(space, gym.spaces.Discrete):
        n, start = int(space.n), int(space.start)
        # RLlib's one-hot of a Discrete takes the value for the index, so that negative ones count from the end.
        values = sorted(range(start, start + n), key=lambda value: value % n)
        return {**part, "dtype": "int64", "choices": [n], "start": [start], "columns": [values]}
    if isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
        choices = [int(n) for n in space.nvec]
        columns = [list(range(n)) for n in choices]
        return {**part, "dtype": "int64", "choices": choices, "start": [0] * len(choices), "columns": columns}
    raise ValueError(
        f"Agent {agent!r}: {part['name']} is a {space}, which cannot be exported. Wrap the env so that the agent observes Box, "
        "Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
    )


def describe_action(codec: ActionCodec) -> dict[str, Any]:
    """What an agent's action looks like.

    Returns:
        `kind`, `shape` and `dtype`; boxes also have `low`, `high` and `head`, others `choices` (how many there are for each
        number) and `start`.
    """
    space = codec.space
    action = {"kind": type(space).__name__, "shape": list(space.shape), "dtype": np.dtype(space.dtype).name}
    if isinstance(codec, BoxCodec):
        return {**action, "low": space.low.tolist(), "high": space.high.tolist(), "head": codec.head}
    return {**action, "choices": list(codec.nvec), "start": codec.starts.tolist()}
