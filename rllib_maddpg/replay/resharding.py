"""States of replay buffers with any number of shards made into those of another number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllib_maddpg.replay.update_stream import KEY

SHARDS = "shards"
# Where a state has arrays with a number for each row that are no columns of the rows: what a buffer keeps beside them.
BESIDE = "beside"
# The priority of each row, and the largest one so far.
PRIORITIES, LARGEST = "priorities", "largest"
# How far ahead the next row of each row's episode is, as `EpisodeLinks` has it.
AHEAD = "ahead"

# All arrays of a state with a number for each row, by where they are in it.
_Rows = dict[tuple[str, str], np.ndarray]


def num_rows(columns: Mapping[Any, np.ndarray]) -> int:
    """Rows that columns of a state have; an empty ring may have none of them."""
    return len(next(iter(columns.values()), ()))


def merged(state: dict[str, Any]) -> dict[str, Any]:
    """The state of one `JointReplayBuffer` with the rows of all shards, the oldest of each shard first.

    Args:
        state: Of a `ShardedReplayBuffer`; that of a `JointReplayBuffer` is returned as it is.
    """
    if SHARDS not in state:
        return state
    shards = [shard for shard in state[SHARDS] if shard is not None]
    blocks = [_in_order(shard) for shard in shards]
    lengths = [num_rows(block) for block in blocks]
    order = by_age(lengths)
    rows = {key: np.concatenate([block[key] for block in blocks])[order] for key in (blocks[0] if blocks else ())}
    if (BESIDE, AHEAD) in rows:
        rows[BESIDE, AHEAD] = _moved(rows[BESIDE, AHEAD], order)
    largest = [shard[LARGEST] for shard in shards if LARGEST in shard]
    return _state_of(rows, {**state, **({LARGEST: max(largest)} if largest else {})})


def _moved(ahead: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Links of rows that were put into an order; those of a shard are still in theirs."""
    now = np.empty_like(order)
    now[order] = np.arange(len(order))
    moved = now[order + ahead] - np.arange(len(order))
    return np.where(ahead > 0, moved, 0).astype(ahead.dtype)


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
    rows = _in_order(whole)
    if (BESIDE, AHEAD) in rows:
        # Rows that follow each other come to different shards.
        rows[BESIDE, AHEAD] = np.zeros_like(rows[BESIDE, AHEAD])
    return [_state_of({key: values[k::num_shards] for key, values in rows.items()}, whole) for k in range(num_shards)]


def _in_order(state: dict[str, Any]) -> _Rows:
    """The rows of one ring, oldest first."""
    rows = num_rows(state["columns"])
    # A ring that is not full yet has its oldest row at the front.
    first = state["next"] if rows == state["capacity"] else 0
    arrays = {(where, name): values for where in ("columns", BESIDE) for name, values in state.get(where, {}).items()}
    return {key: np.roll(values, -first, axis=0) for key, values in arrays.items()}


def _state_of(rows: _Rows, state: dict[str, Any]) -> dict[str, Any]:
    # Of no ring's size, so that whoever takes it deals with the rows by their age. No generator draws as several did, and no
    # key gives their numbers; updates are counted on.
    parts = {where: {name: values for (at, name), values in rows.items() if at == where} for where in ("columns", BESIDE)}
    ring = {"columns": parts["columns"], "next": 0, "capacity": num_rows(rows), "rng": None}
    beside = {BESIDE: parts[BESIDE]} if parts[BESIDE] else {}
    # What is said of the rows is true of these, too.
    return {key: value for key, value in state.items() if key not in (SHARDS, KEY)} | ring | beside
