"""Whether the state of a replay buffer can be restored, before anything of it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_maddpg.replay.resharding import SHARDS
from rllib_maddpg.rows.joint_batch import COLUMNS, column_width
from rllib_maddpg.rows.layout import JointLayout


def check_buffer_state(state: Any, layout: JointLayout) -> None:
    """Refuses a state that is damaged or of another layout.

    Args:
        state: `get_state()` of a `JointReplayBuffer` or a `ShardedReplayBuffer`.
        layout: That of the buffer that is to take it.

    Raises:
        ValueError: Naming what is wrong with it.
    """
    try:
        layout.check_same(state["layout"], "The replay buffer of the checkpoint")
        for part in state.get(SHARDS, [state]):
            if part is not None:
                _check_ring(part, layout)
        _check_counts(state)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"The state of the replay buffer is damaged ({type(error).__name__}: {error}).") from error


def _check_ring(state: dict[str, Any], layout: JointLayout) -> None:
    columns = state["columns"]
    if columns and set(columns) != set(COLUMNS):
        raise ValueError(f"The replay buffer of the checkpoint has the columns {sorted(columns)}, not {sorted(COLUMNS)}.")
    rows = len(columns["rewards"]) if columns else 0
    for name, values in columns.items():
        shape = rows, column_width(layout, name)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or values.shape != shape:
            raise ValueError(
                f"Column {name!r} of the checkpoint's replay buffer has type {getattr(values, 'dtype', type(values).__name__)} "
                f"and shape {getattr(values, 'shape', None)}, not numbers of shape {shape}."
            )
    if rows > state["capacity"] or not 0 <= state["next"] <= state["capacity"]:
        raise ValueError(
            f"The replay buffer of the checkpoint has {rows} rows and its next one at {state['next']}, but a capacity of "
            f"{state['capacity']}."
        )
    _check_counts(state)


def _check_counts(state: dict[str, Any]) -> None:
    for name in ("num_rows_added", "capacity"):
        if not isinstance(state[name], int) or state[name] < 0:
            raise ValueError(f"The replay buffer of the checkpoint has {name}={state[name]!r}.")
    if state["rng"] is not None:
        np.random.default_rng().bit_generator.state = state["rng"]
