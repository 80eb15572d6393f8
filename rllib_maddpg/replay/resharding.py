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

# Of images, which are kept once: how far ahead the row is whose x is the x' of each row, as `NextObservations` has it.
FOLLOWERS = "followers"
# Where a state has the x' of the other rows, in the order of the rows: not for each row.
ALONE = "alone"
NEW_OBS = "new_obs"
# Where an x' is another row's x, so many rows come to the same shard, one after the other.
_RUN = 64

# All arrays of a state that belong to its rows, by where they are in it; one with a number for each, unless it is in `ALONE`.
_Rows = dict[tuple[str, str], np.ndarray]
_PARTS = ("columns", BESIDE, ALONE)
_OBS, _FOLLOWERS, _ALONE = ("columns", "obs"), (BESIDE, FOLLOWERS), (ALONE, NEW_OBS)


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
    rows = _picked({key: np.concatenate([block[key] for block in blocks]) for key in (blocks[0] if blocks else ())}, order)
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
    owner = _owners(num_rows(whole["columns"]), num_shards, _RUN if _FOLLOWERS in rows else 1)
    return [_state_of(_picked(rows, np.flatnonzero(owner == k)), whole) for k in range(num_shards)]


def _owners(rows: int, num_shards: int, run: int) -> np.ndarray:
    """For each row its shard: whole runs of rows in turn, and an equal share of what is left at the end."""
    left = rows % (run * num_shards)
    shares = [left // num_shards + (k < left % num_shards) for k in range(num_shards)]
    return np.append(np.arange(rows - left) // run % num_shards, np.repeat(np.arange(num_shards), shares))


def next_obs_of(state: Mapping[str, Any], order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `NextObservations.set_state` takes of rows of one buffer's state that are put into an order.

    Args:
        state: Of the buffer.
        order: For each place the row of the state that lies there now; each at most once.
    """
    if not len(order):
        return np.zeros(0, np.int32), state.get(ALONE, {}).get(NEW_OBS, np.zeros((0, 0), np.uint8))[:0]
    rows = {_OBS: state["columns"]["obs"], _FOLLOWERS: state[BESIDE][FOLLOWERS], _ALONE: state[ALONE][NEW_OBS]}
    return _followers_of(rows, order)


def _picked(rows: _Rows, order: np.ndarray) -> _Rows:
    """Some of the rows of one ring, in an order in which none comes before an older one of its episode."""
    picked = {key: values[order] for key, values in rows.items() if key not in (_FOLLOWERS, _ALONE)}
    if _FOLLOWERS in rows:
        picked[_FOLLOWERS], picked[_ALONE] = _followers_of(rows, order)
    return picked


def _followers_of(rows: _Rows, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`FOLLOWERS` and `ALONE` of rows in an order; an x' is by itself now if the row that had it as its x is not there."""
    obs, ahead, alone = rows[_OBS], rows[_FOLLOWERS], rows[_ALONE]
    count = len(ahead)
    now = np.full(count, -1)
    now[order] = np.arange(len(order))
    follower = (order + ahead[order]) % max(count, 1)  # round the end, where the ring is full
    is_there = (ahead[order] > 0) & (now[follower] >= 0)
    followers = np.where(is_there, (now[follower] - np.arange(len(order))) % max(count, 1), 0).astype(np.int32)
    values = obs[follower[~is_there]]
    was_alone = ahead[order[~is_there]] == 0
    values[was_alone] = alone[(np.cumsum(ahead == 0) - 1)[order[~is_there][was_alone]]]
    return followers, values


def _in_order(state: dict[str, Any]) -> _Rows:
    """The rows of one ring, oldest first."""
    rows = num_rows(state["columns"])
    # A ring that is not full yet has its oldest row at the front.
    first = state["next"] if rows == state["capacity"] else 0
    arrays = {(where, name): values for where in _PARTS for name, values in state.get(where, {}).items()}
    if _FOLLOWERS in arrays:
        return _picked(arrays, (first + np.arange(rows)) % max(rows, 1))
    return {key: np.roll(values, -first, axis=0) for key, values in arrays.items()}


def _state_of(rows: _Rows, state: dict[str, Any]) -> dict[str, Any]:
    # Of no ring's size, so that whoever takes it deals with the rows by their age. No generator draws as several did, and no
    # key gives their numbers; updates are counted on.
    parts = {where: {name: values for (at, name), values in rows.items() if at == where} for where in _PARTS}
    ring = {"columns": parts.pop("columns"), "next": 0, "rng": None}
    ring["capacity"] = num_rows(ring["columns"])
    beside = {where: arrays for where, arrays in parts.items() if arrays}
    # What is said of the rows is true of these, too.
    return {key: value for key, value in state.items() if key not in (SHARDS, KEY)} | ring | beside
