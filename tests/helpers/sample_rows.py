"""Joint rows of a small layout, with columns of all types, whose numbers say which row they belong to."""

import gymnasium as gym
import numpy as np

from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import Column, RowSchema

LAYOUT = JointLayout(
    {a: gym.spaces.Box(-1, 1, (n,)) for a, n in {"a": 2, "b": 3, "c": 2}.items()},
    {"a": gym.spaces.Discrete(3), "b": gym.spaces.Box(-1, 1, (2,)), "c": gym.spaces.Discrete(3)},
    {"a": "m", "c": "m", "b": "n"}.get,
)
# With columns of all types.
SCHEMA = RowSchema(
    LAYOUT,
    [
        Column("lives", "agents", width=2, dtype="int32"),
        Column("pixels", "env", width=7, dtype="uint8", at_next=True, fill=9),
        Column("context", "env", width=3, fill=0.5, at_next=True),
        Column("maybe", "obs", finite=False),
    ],
)


def rows(first, last):
    """Rollout whose every number is row + its place / 100 + (number of the column) / 1000; whole numbers see `whole`."""
    rollout = JointRollout.empty(SCHEMA, last - first)
    for k, values in enumerate(rollout.columns.values()):
        place = np.arange(values.shape[1])
        number = np.arange(first, last)[:, None]
        values[:] = number + place / 100 + 0.001 * k if values.dtype == np.float32 else whole(number, place, k, values.dtype)
    return rollout


def whole(number, place, k, dtype):
    """All bits of them matter: as floats many would be NaN or too small to be told from zero."""
    return (-1 - number * 7 - place * 2**24 - k).astype(np.int64).astype(dtype)


def check_rows(columns, number, atol=1e-4):
    """Columns, as arrays, are those of rows with these numbers."""
    assert columns.keys() == SCHEMA.columns.keys()
    number = np.asarray(number)[:, None]
    for k, (name, values) in enumerate(columns.items()):
        assert values.dtype == SCHEMA.columns[name].dtype, name
        place = np.arange(values.shape[1])
        if values.dtype == np.float32:
            np.testing.assert_allclose(values, number + place / 100 + 0.001 * k, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(values, whole(number, place, k, values.dtype), err_msg=name)


def arrays(batch):
    """The columns of a batch, without their aliases."""
    return {name: batch.columns[name].numpy() for name in SCHEMA.columns}
