"""Kinds of values that settings can have: how each is told, and what is of it. NumPy's scalars are as good as Python's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from rllib_maddpg.config.require import is_whole, near, same


@dataclass(frozen=True)
class Kind:
    """Values that a setting may have.

    Attributes:
        allowed: Completes "it must be ...".
        accepts: Whether a value is of the kind; takes any object and raises nothing.
        fix: What else to say where it does not accept a value.
        words: Those that are allowed, to find the one that was meant.
        schedules: Whether RLlib's schedules are among them.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    fix: str = ""
    words: tuple[str, ...] = ()
    schedules: bool = False

    def hint(self, value: Any) -> str:
        """What to do instead of `value`."""
        return self.fix or (near(value, self.words) if self.words else "")

    def or_none(self, meaning: str = "") -> Kind:
        """This kind or None, which means what is said."""
        allowed = f"{self.allowed}, or None"
        return replace(self, allowed=allowed, accepts=lambda x: x is None or self.accepts(x), fix=meaning or self.fix)

    def but(self, fix: str) -> Kind:
        """This kind with another hint."""
        return replace(self, fix=fix)


def is_number(x: Any) -> bool:
    """Whether `x` is a finite number and no bool."""
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool) and _is_finite(x)


def python_scalars(value: Any, depth: int = 4) -> Any:
    """The value with Python's numbers instead of NumPy's scalars, down to so many dicts and lists in each other."""
    if isinstance(value, np.generic):
        return value.item()
    if depth and type(value) is dict:
        new = {key: python_scalars(item, depth - 1) for key, item in value.items()}
        return new if any(new[key] is not value[key] for key in value) else value
    if depth and type(value) in (list, tuple):
        items = [python_scalars(item, depth - 1) for item in value]
        return type(value)(items) if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def is_schedule(x: Any, most: float) -> bool:
    """Whether `x` is a number >= 0 or RLlib's `[[0, v0], [t1, v1], ...]` with rising times and values from 0 to `most`."""
    if is_number(x):
        return 0 <= x <= most
    if not isinstance(x, (list, tuple)) or len(x) < 2:
        return False
    if not all(isinstance(p, (list, tuple)) and len(p) == 2 and is_number(p[0]) and is_number(p[1]) for p in x):
        return False
    return x[0][0] == 0 and all(a[0] < b[0] for a, b in pairwise(x)) and all(0 <= value <= most for _, value in x)


def whole(least: int, most: int = 2**53) -> Kind:
    """Whole numbers from `least` on. Far beyond 10^15 no count makes sense, and floats cannot tell two of them apart."""
    return Kind(f"a whole number {_from(least)}", lambda x: is_whole(x, least) and x <= most)


def between(least: float, most: float) -> Kind:
    """Numbers within bounds; from 0 on, or above it."""
    if least == 0:
        return Kind(f"a number >= 0, at most {most:g}", lambda x: is_number(x) and 0 <= x <= most)
    return Kind(f"a number > 0, from {least:g} to {most:g}", lambda x: is_number(x) and least <= x <= most)


def one_of(*words: str) -> Kind:
    """One of a few words."""
    return Kind(f"one of {list(words)}", lambda x: isinstance(x, str) and x in words, words=words)


def only(value: Any, fix: str) -> Kind:
    """The one value that a setting may have."""
    return Kind(repr(value), lambda x: same(x, value), fix)


def dict_of_words(example: str) -> Kind:
    """Dicts with words as keys."""
    fix = f"For example {example}."
    return Kind("a dict", lambda x: isinstance(x, Mapping) and all(isinstance(word, str) for word in x), fix)


def _from(least: int) -> str:
    return "> 0" if least == 1 else f">= {least}"


def _is_finite(x: float) -> bool:
    try:
        return math.isfinite(x)
    except OverflowError:  # a whole number that no float can hold
        return False


def _is_resources(x: Any) -> bool:
    return isinstance(x, Mapping) and all(isinstance(key, str) and key and is_number(x[key]) and x[key] >= 0 for key in x)


def _is_gpus(x: Any) -> bool:
    return is_number(x) and x >= 0 and (x < 1 or x == int(x))


def _is_teams(x: Any) -> bool:
    if isinstance(x, (bool, np.bool_)):
        return True
    teams = isinstance(x, (list, tuple)) and all(isinstance(team, (list, tuple)) for team in x)
    return teams and all(isinstance(agent, (str, int, np.integer)) for team in x for agent in team)


def _is_callbacks(x: Any) -> bool:
    return callable(x) or (isinstance(x, (list, tuple)) and all(map(callable, x)))


AUTO = Kind("'auto', True or False", lambda x: x == "auto" if isinstance(x, str) else isinstance(x, (bool, np.bool_)))
TEAMS = Kind("True, False or lists of agents", _is_teams)
BOOL = Kind("True or False", lambda x: isinstance(x, (bool, np.bool_)))
NUMBER = Kind("a number >= 0", lambda x: is_number(x) and x >= 0)
POSITIVE = Kind("a number > 0", lambda x: is_number(x) and x > 0)
STEPS = Kind("a whole number >= 0", lambda x: is_number(x) and x >= 0 and x == int(x))
SECONDS = Kind("a number of seconds from 0 to 1e9", lambda x: is_number(x) and 0 <= x <= 1e9)  # 32 years; Ray's clocks end
# Losses and noise are float32, whose ends are 1e-38 and 1e38; Adam moves each weight by about the rate in each update.
RATE = Kind(
    "a rate >= 0 or a schedule [[0, rate], [env_steps, rate], ...], with rates of at most 100",
    lambda x: is_schedule(x, 100),
    "The paper uses 0.01.",
    schedules=True,
)
SCHEDULE = Kind(
    "a number >= 0 or a schedule [[0, v], [t, v], ...], with values of at most 1e10",
    lambda x: is_schedule(x, 1e10),
    "Try 0.1 or 1.",
    schedules=True,
)
# Not by `schedules`, which is for rates: a temperature is a number of its module, whose value changes.
TEMPERATURE = Kind(
    "a number > 0, from 1e-06 to 1e+06, or a schedule [[0, v], [env_steps, v], ...] of such numbers",
    lambda x: is_schedule(x, 1e6) and min([x] if is_number(x) else [v for _, v in x]) >= 1e-6,
    "The default is 1; [[0, 1.0], [500000, 0.3]] falls.",
)
CPUS = Kind("a number of CPUs >= 0", lambda x: is_number(x) and x >= 0)
GPUS = Kind("a number of GPUs: a share below 1, or a whole number >= 0", _is_gpus)
RESOURCES = Kind("a dict of resources' names and numbers >= 0", _is_resources)
DICT = Kind("a dict", lambda x: isinstance(x, Mapping))
FUNCTION = Kind("a function", callable)
CALLBACKS = Kind("a function or a list of functions", _is_callbacks)
TEXT = Kind("a word", lambda x: isinstance(x, str) and bool(x))
