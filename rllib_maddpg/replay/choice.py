"""Which class of replay buffer `replay_buffer_config` asks for, and how it is made."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.class_path import load_class
from rllib_maddpg.replay.prioritized import PrioritizedJointReplayBuffer
from rllib_maddpg.replay.prioritized_shards import PrioritizedShardedReplayBuffer
from rllib_maddpg.replay.protocol import JointReplay
from rllib_maddpg.replay.sharded import ShardedReplayBuffer
from rllib_maddpg.rows.schema import RowSchema

DEFAULTS: dict[str, Any] = {"type": "JointReplayBuffer", "capacity": 1_000_000, "device": "cpu", "num_shards": 0}
# Rings, and what they become where there are shards.
_SHARDED: dict[type[JointReplay], type[JointReplay]] = {
    JointReplayBuffer: ShardedReplayBuffer,
    PrioritizedJointReplayBuffer: PrioritizedShardedReplayBuffer,
}
OURS = {cls.__name__: cls for pair in _SHARDED.items() for cls in pair}
# Keys that other classes need not know.
_OPTIONAL = "device", "num_shards"


def replay_class(config: Mapping[str, Any]) -> type[JointReplay]:
    """The class that a `replay_buffer_config` names.

    Raises:
        ValueError: If it cannot be imported, is no class, or lacks a part of `JointReplay`.
    """
    kind = config.get("type", DEFAULTS["type"])
    cls = kind
    if isinstance(kind, str):
        cls = OURS[kind] if kind in OURS else load_class(kind)
    if not isinstance(cls, type):
        raise ValueError(f"It is no class, but of type {type(cls).__name__}.")
    if not issubclass(cls, JointReplay):
        raise ValueError(f"{cls.__qualname__} is no subclass of rllib_maddpg.replay.JointReplay.")
    if cls.__abstractmethods__:
        raise ValueError(f"{cls.__qualname__} lacks {sorted(cls.__abstractmethods__)} of rllib_maddpg.replay.JointReplay.")
    # The number of shards alone says that there shall be some.
    return _SHARDED.get(cls, cls) if config.get("num_shards") else cls


def replay_arguments(cls: type[JointReplay], config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the class, but for `seed`.

    Raises:
        ValueError: If it does not take them.
    """
    arguments = {key: value for key, value in {**DEFAULTS, **config}.items() if key != "type"}
    signature = inspect.signature(cls)
    takes = signature.parameters
    for key in _OPTIONAL:
        if key not in takes and arguments[key] == DEFAULTS[key]:
            del arguments[key]
    if "seed" in arguments:
        raise ValueError("The seed is that of the config: `config.debugging(seed=...)`.")
    try:
        signature.bind(None, seed=None, **arguments)
    except TypeError as error:
        raise ValueError(f"{cls.__qualname__} takes {list(takes)[1:]}, and {error}.") from error
    return arguments


def make_replay(schema: RowSchema, seed: Any, config: Mapping[str, Any]) -> JointReplay:
    """The replay buffer that a `replay_buffer_config` asks for.

    Raises:
        ValueError: As `replay_class` and `replay_arguments`, and if it has no `schema` or no `capacity` when it is made.
    """
    cls = replay_class(config)
    replay = cls(schema, seed=seed, **replay_arguments(cls, config))
    for name in ("schema", "capacity"):
        if not hasattr(replay, name):
            raise ValueError(
                f"A {cls.__qualname__} has no `{name}`: call `super().__init__(schema, capacity, seed)` in its `__init__`."
            )
    return replay


def takes_state_of(cls: type[JointReplay], name: str) -> bool:
    """Whether `cls.set_state` takes the states of the class of that name. All of ours take each other's."""
    own = cls.__qualname__
    others = (cls.restores,) if isinstance(cls.restores, str) else cls.restores
    return name == own or {name, own} <= OURS.keys() or name in others
