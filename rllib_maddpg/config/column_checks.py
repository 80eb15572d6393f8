"""Checks of `extra_columns`, the users' columns of joint rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray import cloudpickle
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rllib_maddpg.config.kinds import is_number
from rllib_maddpg.config.replay_checks import drawn_columns
from rllib_maddpg.config.require import is_whole, near, require
from rllib_maddpg.rows.schema import ALIASES, BUILT_IN, DTYPES, NEXT, PER, Column
from rllib_maddpg.sampling.recording import TAKEN

KEY = "extra_columns"


def check_columns(config: AlgorithmConfig) -> None:
    """Each is a `Column` with a name of its own, and all that it needs to be filled.

    Raises:
        ValueError: Naming the column, what it has and what is allowed.
    """
    own = {column.name for column in drawn_columns(config)}
    taken = {column.name for column in BUILT_IN} | {*ALIASES, *TAKEN} | own
    for place, column in enumerate(config.extra_columns):
        _check_name(config, place, column, taken)
        _check_kind(config, column)
        _check_fill(config, column)
        _require(config, column, "source", callable(column.source), "a function of the infos by agent", "It fills the column.")
        problem = why_not_sent(column.source)
        _require(config, column, "source", not problem, "a function that can be sent to env runners", problem)


def why_not_sent(value: Any) -> str:
    """Why a value cannot be pickled for other processes; empty: it can."""
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # pickling runs code of the value's class
        return f"It cannot be pickled ({type(error).__name__}: {error})."
    return ""


def _check_name(config: AlgorithmConfig, place: int, column: Column, taken: set[str]) -> None:
    name, key = column.name, f"{KEY}[{place}].name"
    fix = "Letters, digits and _ make one, such as 'context'."
    require(config, key, isinstance(name, str) and name.isidentifier(), "a name", fix, name)
    _require(config, column, "at_next", isinstance(column.at_next, bool), "True or False", f"True: with `{NEXT}{name}`.")
    for own in [name, NEXT + name] if column.at_next else [name]:
        require(config, key, own not in taken, "a name that no other column has", f"Rows have a {own!r} already.", name)
        taken.add(own)


def _check_kind(config: AlgorithmConfig, column: Column) -> None:
    for attribute, allowed in (("per", PER), ("dtype", DTYPES)):
        value = getattr(column, attribute)
        ok = isinstance(value, str) and value in allowed
        _require(config, column, attribute, ok, f"one of {list(allowed)}", near(value, allowed) if not ok else "")
    _require(
        config, column, "width", is_whole(column.width, 1), "a whole number > 0", "It is the numbers for each agent or row."
    )
    if column.per in ("obs", "actions"):
        fix = f"It has the numbers that {column.per} have. For others use per='agents'."
        _require(config, column, "width", column.width == 1, f"1 with per={column.per!r}", fix)
    _require(config, column, "finite", isinstance(column.finite, bool), "True or False", "False: it may be NaN.")


def _check_fill(config: AlgorithmConfig, column: Column) -> None:
    fill, fix = column.fill, "It is the value in rows in which nobody has written the column."
    if column.dtype == "float32":
        ok = is_number(fill) and abs(fill) <= float(np.finfo(np.float32).max)
        allowed = "a number that float32 can hold"
    else:
        limits = np.iinfo(column.dtype)
        ok = is_number(fill) and fill == int(fill) and limits.min <= fill <= limits.max
        allowed = f"a whole number from {limits.min} to {limits.max}"
    _require(config, column, "fill", ok, allowed, fix)


def _require(config: AlgorithmConfig, column: Column, attribute: str, ok: bool, allowed: str, fix: str) -> None:
    require(config, f"{KEY}[{column.name!r}].{attribute}", ok, allowed, fix, getattr(column, attribute))
