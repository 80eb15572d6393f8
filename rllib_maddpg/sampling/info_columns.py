"""Users' columns of joint rows: what their sources make of the infos that envs give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllib_maddpg.envs.errors import EnvFailure
from rllib_maddpg.rows.schema import NEXT, Column, RowSchema


class InfoColumns:
    """The values of users' columns in the present states of E envs."""

    def __init__(self, schema: RowSchema, num_envs: int):
        """
        Args:
            schema: Whose extra columns are meant, those that have a source.
            num_envs: E.
        """
        self._schema = schema
        self._columns = sourced(schema)
        self._now = {column.name: np.zeros((num_envs, schema.width(column.name)), column.dtype) for column in self._columns}

    def __bool__(self) -> bool:
        """Whether there is anything to fill."""
        return bool(self._columns)

    def begin(self, env: int, infos: Mapping[Any, Any] | None) -> None:
        """Takes what an env's `reset` gave.

        Raises:
            EnvFailure: Naming the column that cannot be filled of it.
        """
        for column in self._columns:
            self._now[column.name][env] = read(column, self._schema, infos)

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Writes the present values, as those at x, into the rows `[E, width]` of a step."""
        for name, values in self._now.items():
            columns[name][:] = values

    def step(self, env: int, infos: Mapping[Any, Any] | None, columns: Mapping[str, np.ndarray]) -> None:
        """Takes what an env's `step` gave, and writes it as the values at x' where there are any.

        Raises:
            EnvFailure: As in `begin`.
        """
        for column in self._columns:
            values = read(column, self._schema, infos)
            self._now[column.name][env] = values
            if column.at_next:
                columns[NEXT + column.name][env] = values


def sourced(schema: RowSchema) -> list[Column]:
    """The columns that are filled from infos."""
    return [column for column in (*schema.extra, *schema.own) if column.source is not None]


def read(column: Column, schema: RowSchema, infos: Mapping[Any, Any] | None) -> np.ndarray:
    """A column's value, checked: `[width of the column in a row]`, of its own type.

    Args:
        column: One with a source.
        schema: That has it.
        infos: By agent, as the env gave them; None: it gave none.

    Raises:
        EnvFailure: Naming the column and what is wrong with it.
    """
    # Our own sources have a name of their own.
    what = getattr(column.source, "what", f"The `source` of column {column.name!r}")
    fix = "Fix that function or the infos of the env."
    try:
        given = np.asarray(column.source({} if infos is None else infos))
    except EnvFailure:
        raise
    except Exception as error:
        raise EnvFailure(f"{what} failed ({type(error).__name__}: {error})", fix, can_pass=False) from error
    shape = _shape(column, schema)
    # Where each has one number, the axis for it may be left out.
    if given.shape != shape and not (column.width == 1 and given.shape == shape[:-1] and column.per in ("agents", "env")):
        raise EnvFailure(
            f"{what} gave an array of shape {given.shape}, not {shape}",
            f"Change it, or `width`={column.width} or `per`={column.per!r} of that column in `extra_columns`.",
            can_pass=False,
        )
    if given.dtype.kind not in ("biuf" if column.dtype == "float32" else "biu"):
        raise EnvFailure(
            f"{what} gave {given.dtype}, which is not {column.dtype}",
            "Change it, or the `dtype` of that column in `extra_columns`.",
            can_pass=False,
        )
    return _cast(given.reshape(-1), column, what, fix)


def _shape(column: Column, schema: RowSchema) -> tuple[int, ...]:
    if column.per == "agents":
        return len(schema.layout), column.width
    return (schema.width(column.name),)


def _cast(numbers: np.ndarray, column: Column, what: str, fix: str) -> np.ndarray:
    if column.dtype == "float32":
        with np.errstate(over="ignore"):
            values = numbers.astype(np.float32)
        if column.finite and not np.isfinite(values).all():
            at = np.flatnonzero(~np.isfinite(values))[0]
            raise EnvFailure(f"{what} gave {numbers[at]} as number {at}", fix)
        return values
    limits = np.iinfo(column.dtype)
    wrong = (numbers < limits.min) | (numbers > limits.max)
    if wrong.any():
        fix = f"A column of {column.dtype} has whole numbers from {limits.min} to {limits.max}."
        raise EnvFailure(f"{what} gave {numbers[wrong][0]}", fix, can_pass=False)
    return numbers.astype(column.dtype)
