"""Whether the state of a replay buffer can be restored, before anything of it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_maddpg.replay.resharding import (
    AHEAD,
    ALONE,
    BESIDE,
    FOLLOWERS,
    LARGEST,
    NEW_OBS,
    PRIORITIES,
    SHARDS,
    num_rows,
)
from rllib_maddpg.replay.update_stream import KEY, NUMBER
from rllib_maddpg.rows.schema import RowSchema, described

# Where a state has the description of its rows; without one they are of version 1.
SCHEMA = "schema"


def check_buffer_state(state: Any, schema: RowSchema) -> None:
    """Refuses a state that is damaged, or whose rows do not fit.

    Args:
        state: `get_state()` of a `JointReplayBuffer` or a `ShardedReplayBuffer`.
        schema: That of the buffer that is to take it.

    Raises:
        ValueError: Naming what is wrong with it.
    """
    try:
        schema.layout.check_same(state["layout"], "The replay buffer of the checkpoint")
        schema.check_same(state.get(SCHEMA), "The replay buffer of the checkpoint")
        for part in state.get(SHARDS, [state]):
            if part is not None:
                _check_ring(part, schema)
        _check_counts(state)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"The state of the replay buffer is damaged ({type(error).__name__}: {error}).") from error


def _check_ring(state: dict[str, Any], schema: RowSchema) -> None:
    columns, names = state["columns"], described(state.get(SCHEMA))[1].keys()
    if schema.observes_bytes:
        names = names - {NEW_OBS}
    if columns and columns.keys() != names:
        raise ValueError(f"The replay buffer of the checkpoint has the columns {sorted(columns)}, not {sorted(names)}.")
    rows = num_rows(columns)
    for name, values in columns.items():
        shape, dtype = (rows, schema.width(name)), np.dtype(schema.columns[name].dtype)
        if not isinstance(values, np.ndarray) or values.dtype != dtype or values.shape != shape:
            raise ValueError(
                f"Column {name!r} of the checkpoint's replay buffer has type {getattr(values, 'dtype', type(values).__name__)} "
                f"and shape {getattr(values, 'shape', None)}, not {dtype} numbers of shape {shape}."
            )
    if rows > state["capacity"] or not 0 <= state["next"] <= state["capacity"]:
        raise ValueError(
            f"The replay buffer of the checkpoint has {rows} rows and its next one at {state['next']}, but a capacity of "
            f"{state['capacity']}."
        )
    _check_beside(state, rows)
    if schema.observes_bytes and columns:
        _check_next_obs(state, rows, schema.width(NEW_OBS))
    _check_counts(state)


def _check_beside(state: dict[str, Any], rows: int) -> None:
    """What is kept beside the rows: priorities above 0, and links to younger rows."""
    beside = state.get(BESIDE, {})
    for name, dtype, least in ((PRIORITIES, "float32", np.float32(1e-30)), (AHEAD, "int32", 0)):
        values = beside.get(name)
        if values is None:
            continue
        right = isinstance(values, np.ndarray) and values.dtype == dtype and values.shape == (rows,)
        most = np.finfo(np.float32).max if dtype == "float32" else max(state["capacity"] - 1, 0)
        if not right or (rows and not (least <= values.min() and values.max() <= most)):
            raise ValueError(f"The replay buffer of the checkpoint has {name} that are none of {rows} rows.")
    if AHEAD in beside and rows and rows < state["capacity"] and (np.arange(rows) + beside[AHEAD]).max() >= rows:
        raise ValueError(f"The replay buffer of the checkpoint has {AHEAD} that lead beyond its {rows} rows.")
    if LARGEST in state and not 0 < state[LARGEST] < np.inf:
        raise ValueError(f"The replay buffer of the checkpoint has {LARGEST}={state[LARGEST]!r}.")


def _check_next_obs(state: dict[str, Any], rows: int, width: int) -> None:
    """Each x' is the x of a younger row, or stands by itself."""
    ahead, alone = state[BESIDE][FOLLOWERS], state[ALONE][NEW_OBS]
    right = isinstance(ahead, np.ndarray) and ahead.dtype == np.int32 and ahead.shape == (rows,)
    if right:
        # Places from the oldest row on.
        ages = (np.arange(rows) - (state["next"] if rows == state["capacity"] else 0)) % max(rows, 1)
        right = bool(((ahead >= 0) & (ages + ahead < rows)).all())
    if not right:
        raise ValueError(f"The replay buffer of the checkpoint has {FOLLOWERS} that lead to none of its {rows} rows.")
    shape = int((ahead == 0).sum()), width
    if not isinstance(alone, np.ndarray) or alone.dtype != np.uint8 or alone.shape != shape:
        kind = getattr(alone, "dtype", type(alone).__name__)
        raise ValueError(
            f"The replay buffer of the checkpoint has next observations of type {kind} and shape "
            f"{getattr(alone, 'shape', None)}, not uint8 numbers of shape {shape}."
        )


def _check_counts(state: dict[str, Any]) -> None:
    for name in ("num_rows_added", "capacity"):
        if not isinstance(state[name], int) or state[name] < 0:
            raise ValueError(f"The replay buffer of the checkpoint has {name}={state[name]!r}.")
    for name, allowed in ((KEY, range(-(2**63), 2**63)), (NUMBER, range(2**53))):
        if name in state and (type(state[name]) is not int or state[name] not in allowed):
            raise ValueError(f"The replay buffer of the checkpoint has {name}={state[name]!r}.")
    if KEY in state and NUMBER not in state:
        raise ValueError(f"The replay buffer of the checkpoint has {KEY}, but no {NUMBER}.")
    if state["rng"] is not None:
        np.random.default_rng().bit_generator.state = state["rng"]
