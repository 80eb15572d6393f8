"""Whether the methods of a replay buffer, which may be a user's, return what they must; the errors name class and method."""

from __future__ import annotations

import numbers
import reprlib
from typing import Any

import torch
from ray import cloudpickle

from rllib_maddpg.replay.protocol import JointReplay, Stored, cannot_be_saved
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema

_short = reprlib.Repr()
_short.maxother = 60  # a whole `Stored`


def check_stored(replay: JointReplay, stored: Any, rollouts: int) -> None:
    """What `store` returned for so many rollouts.

    Raises:
        ValueError: If it is no list of `Stored`, one for each rollout, with whole `rows` >= 0.
    """
    if isinstance(stored, (list, tuple)) and len(stored) == rollouts and all(map(_is_stored, stored)):
        return
    raise ValueError(
        f"`{type(replay).__qualname__}.store` returned {_short.repr(stored)} for {rollouts} rollouts. It must return a list of "
        "rllib_maddpg.replay.Stored, one for each rollout, whose `rows` are whole numbers >= 0. Correct its `store`."
    )


def check_drawn(replay: JointReplay, batches: Any, learners: int, updates: int, rows: int) -> None:
    """What `draw(learners, updates, rows)` returned.

    Raises:
        ValueError: If it is no list of batches of `updates * rows` rows, one for each Learner.
    """
    call, due = (
        f"`{type(replay).__qualname__}.draw({learners}, {updates}, {rows})`",
        f"for each of the {learners} Learners",
    )
    if not isinstance(batches, (list, tuple)) or len(batches) != learners:
        got = f"{len(batches)} batches" if isinstance(batches, (list, tuple)) else f"a {type(batches).__name__}"
        raise ValueError(f"{call} gave {got}, not a list with one batch {due}. Correct its `draw`.")
    for batch in batches:
        wrong = _what_is_wrong(batch, replay.schema)
        if wrong:
            raise ValueError(f"{call} gave {wrong}. Correct its `draw`.")
    drawn = [len(batch) for batch in batches]
    if drawn != [updates * rows] * learners:
        raise ValueError(f"{call} gave batches of {drawn} rows, not one of {updates * rows} {due}. Correct its `draw`.")


def check_latest(replay: JointReplay, batch: Any, rows: int) -> None:
    """What `latest(rows)` returned.

    Raises:
        ValueError: If it is no JointBatch of at most so many rows.
    """
    call = f"`{type(replay).__qualname__}.latest({rows})`"
    wrong = _what_is_wrong(batch, replay.schema)
    if not wrong and not isinstance(batch, JointBatch):
        wrong = f"a {type(batch).__name__}, not a JointBatch"
    if not wrong and len(batch) > rows:
        wrong = f"{len(batch)} rows, not {rows} at most"
    if wrong:
        raise ValueError(f"{call} gave {wrong}. Correct its `latest`.")


def check_own_state(replay: JointReplay, state: Any) -> None:
    """What `get_state` returned.

    Raises:
        ValueError: If it is no dict.
    """
    if not isinstance(state, dict):
        raise ValueError(
            f"`{type(replay).__qualname__}.get_state` returned {_short.repr(state)}, from which nothing can be restored. It "
            "must return a dict that can be pickled. Correct its `get_state`, or set `store_buffer_in_checkpoints=False`."
        )


def check_can_travel(replay: JointReplay, state: dict[str, Any]) -> None:
    """That what `get_state` returned can be pickled.

    Raises:
        ValueError: As `save_to_path` does.
    """
    try:
        # Arrays are not copied.
        cloudpickle.dumps(state, protocol=5, buffer_callback=lambda buffer: None)
    except Exception as error:  # objects can raise anything when they are pickled
        raise cannot_be_saved(replay, error) from error


def _is_stored(stored: Any) -> bool:
    if not isinstance(stored, Stored):
        return False
    rows = stored.rows
    return isinstance(rows, numbers.Integral) and not isinstance(rows, bool) and rows >= 0


def _what_is_wrong(batch: Any, schema: RowSchema) -> str:
    """Empty if nothing is."""
    if not isinstance(batch, JointBatch):
        is_batch = hasattr(batch, "__len__") and callable(getattr(batch, "to", None)) and not isinstance(batch, torch.Tensor)
        return "" if is_batch else f"a {type(batch).__name__}, not a JointBatch, nor anything with `len(batch)` and `batch.to`"
    rows, width = batch.joint_rows, schema.row_width
    if isinstance(rows, torch.Tensor) and rows.dtype == torch.float32 and rows.dim() == 2 and rows.shape[1] == width:
        return ""
    got = f"{rows.dtype} {[*rows.shape]}" if isinstance(rows, torch.Tensor) else f"a {type(rows).__name__}"
    return f"a JointBatch of {got}, not of a tensor of torch.float32 [rows, {width}], the schema's `row_width`"
