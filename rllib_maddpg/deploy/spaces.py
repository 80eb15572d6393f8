"""Gymnasium spaces as plain data, of which an exported actor can be made and checked without Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_maddpg.rows.actions import ActionCodec, BoxCodec
from rllib_maddpg.rows.observations import NAME, Flattener, Part, is_byte_image


def describe_observation(space: gym.Space, agent: Any) -> list[dict[str, Any]]:
    """The inputs of an agent's actor, in the order in which the env runners line them up.

    Args:
        space: What the agent observes.
        agent: Named in errors.

    Returns:
        Per input `name`, `path` (keys that lead to it in a nested observation), `kind`, `shape` and `dtype`. Discrete ones also
        have `choices` (how many values each of their numbers has), `start`, and `columns`: per number the value that each
        column of its one-hot stands for. Those that say which actions are allowed have `mask`. Images of bytes are "uint8", all
        else that does not choose is "float32".

    Raises:
        ValueError: For a space that cannot be flattened, or whose keys JSON does not have.
    """
    if is_byte_image(space):
        return [{"name": NAME, "path": [], "kind": "Box", "shape": list(space.shape), "dtype": "uint8"}]
    inputs: list[dict[str, Any]] = []
    for part in Flattener(space, agent).parts:
        for key in part.path:
            if type(key) not in (str, int):
                raise ValueError(
                    f"Agent {agent!r}: the key {key!r} of its observation cannot be written into a manifest. Wrap the env so "
                    "that keys are text or whole numbers."
                )
        inputs.append(_describe_part(part, [spec["name"] for spec in inputs]))
    return inputs


def _describe_part(part: Part, taken: list[str]) -> dict[str, Any]:
    name, number = part.name, 2
    while name in taken:  # keys may have dots in them, or differ in type only
        name, number = f"{part.name}-{number}", number + 1
    spec = {"name": name, "path": list(part.path), "kind": part.kind, "shape": list(part.shape)}
    if part.is_mask:
        spec["mask"] = True
    if not part.chooses:
        return {**spec, "dtype": "float32"}
    return {**spec, "dtype": "int64", "choices": list(part.choices), "start": list(part.starts), "columns": part.columns}


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
