"""States of replay buffers with any number of shards made into those of another number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rllib_maddpg.replay.update_stream import KEY

SHARDS = "shards"


def num_rows(columns: dict[str, np.ndarray]) -> int:
    """Rows that columns of a state have; an empty ring may have none of them."""
    return len(next(iter(columns.values()), ()))


def merged(state: dict[str, Any]) -> dict[str, Any]:
    """The state of one `JointReplayBuffer` with the rows of all shards, the oldest of each shard first.

    Args:
        state: Of a `ShardedReplayBuffer`; that of a `JointReplayBuffer` is returned as it is.
    """
    if SHARDS not in state:
        return state
    blocks = [_in_order(shard) for shard in filter(None, state[SHARDS])]
    order = by_age([num_rows(columns) for columns in blocks])
    columns = {name: np.concatenate([block[name] for block in blocks])[order] for name in (blocks[0] if blocks else ())}
    return _state_of(columns, state)


def by_age(lengths: Sequence[int]) -> np.ndarray:
    """The order, oldest first, of rows that lie one shard after the other, in each of them oldest first.

    Args:
        lengths: Rows of each shard. Rows of several shards are equally old where they are equally far from the newest; such
            rows stay in the order of the shards.
    """
    ages = [np.arange(length, 0, -1) for length in lengths]
    return np.argsort(-np.concatenate(ages), kind="stable") if ages else np.arange(0)


def dealt(state: dict[str, Any], num_shards: int) -> list[dict[str, Any]]:
    """States of so many shards that hold together the rows of a buffer's state, each of them once."""
    whole = merged(state)
    columns = _in_order(whole)
    return [_state_of({name: values[k::num_shards] for name, values in columns.items()}, whole) for k in range(num_shards)]


def _in_order(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """The rows of one ring, oldest first."""
    columns = state["columns"]
    rows = num_rows(columns)
    # A ring that is not full yet has its oldest row at the front.
    first = state["next"] if rows == state["capacity"] else 0
    return {name: np.roll(values, -first, axis=0) for name, values in columns.items()}


def _state_of(columns: dict[str, np.ndarray], state: dict[str, Any]) -> dict[str, Any]:
    # Of no ring's size, so that whoever takes it deals with the rows by their age. No generator draws as several did, and no
    # key gives their numbers; updates are counted on.
    ring = {"columns": columns, "next": 0, "capacity": num_rows(columns), "rng": None}
    # What is said of the rows is true of these, too.
    return {key: value for key, value in state.items() if key not in (SHARDS, KEY)} | ring
