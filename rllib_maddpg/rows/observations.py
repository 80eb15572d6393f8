"""How an observation becomes a vector: the order of its parts, and which column stands for what.

The vector is that of `gymnasium.spaces.flatten`: the parts of a Dict in the order of its `spaces`, one-hots for whole numbers
that choose (a value of `start` has the first column), everything else row by row. The env runners' connector and the exported
actors derive from the description here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np

NAME = "observation"
# Key under which an agent that observes a Dict finds which of its actions are allowed.
MASK = "action_mask"
KINDS = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"


class ObservationError(ValueError):
    """An observation that does not fit its space.

    Attributes:
        what: The agent, the part and what is wrong with it, to be followed by where it happened.
        fix: What to do about it.
    """

    def __init__(self, what: str):
        self.what, self.fix = what, "Let the env observe what its `observation_spaces` say."
        super().__init__(f"{self.what}. {self.fix}")

    @classmethod
    def of(cls, agent: Any, part: Part, error: ValueError) -> ObservationError:
        """The error of `Part.numbers` as one of an agent's observation."""
        return cls(f"Agent {agent!r}: {part.name} {error}")


@dataclass(frozen=True)
class Part:
    """One array or number of an observation.

    Attributes:
        path: Keys that lead to it in a nested observation; empty if it is the observation itself.
        kind: "Box", "MultiBinary", "Discrete" or "MultiDiscrete".
        shape: Of its value.
        choices: How many values each of its numbers can have, in the order of the raveled value; empty where numbers are taken
            as they are.
        starts: The smallest value of each of these numbers.
    """

    path: tuple
    kind: str
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """ "observation", or with the path "observation.a.0"."""
        return part_name(self.path)

    @property
    def chooses(self) -> bool:
        """Whether its numbers become one-hots."""
        return self.kind in ("Discrete", "MultiDiscrete")

    @cached_property
    def is_mask(self) -> bool:
        """Whether it says which actions are allowed."""
        return self.path[:1] == (MASK,)

    @cached_property
    def width(self) -> int:
        """Columns of the vector that it takes."""
        return sum(self.choices) if self.chooses else math.prod(self.shape)

    @property
    def columns(self) -> list[list[int]]:
        """Per number that chooses, the value that each column of its one-hot stands for."""
        return [list(range(start, start + n)) for start, n in zip(self.starts, self.choices, strict=True)]

    def numbers(self, value: Any) -> np.ndarray:
        """The part's value, checked, as the numbers of an array `[size]`: whole ones that choose as int64.

        Raises:
            ValueError: What is wrong with it, to follow the part's name.
        """
        try:
            array = np.asarray(value)
        except ValueError:  # lists of unequal lengths
            array = np.empty((), object)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"is {_short(value)}, not an array of numbers")
        # One number is one number, however it is wrapped.
        if array.shape != self.shape and not array.size == math.prod(self.shape) == 1:
            raise ValueError(f"has shape {array.shape}, not {self.shape}")
        numbers = array.reshape(-1)
        if self.is_mask and not ((numbers == 0) | (numbers == 1)).all():
            raise ValueError(f"is {_short(value)}: a mask of actions has only 1 (allowed) and 0 (not allowed)")
        return self._indices(numbers, value) if self.chooses else numbers

    def _indices(self, array: np.ndarray, value: Any) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # of infinities
            if array.dtype.kind == "f" and not (array % 1 == 0).all():
                raise ValueError(f"is {_short(value)}, not whole numbers")
            indices = array.astype(np.int64) - self._starts
        if ((indices < 0) | (indices >= self._choices)).any():
            low, high = self._starts, self._starts + self._choices - 1
            if self.kind == "Discrete":
                low, high = low[0], high[0]
            raise ValueError(f"is {_short(value)}, outside of its space: whole numbers from {low} to {high}")
        return indices

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.array(self.starts, np.int64)

    @cached_property
    def _choices(self) -> np.ndarray:
        return np.array(self.choices, np.int64)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.cumsum([0, *self.choices[:-1]])

    def write(self, value: Any, out: np.ndarray) -> None:
        """Writes the columns of a value into `out`, `[width]` zeros; errors as in `numbers`."""
        numbers = self.numbers(value)
        if not self.chooses:
            with np.errstate(over="ignore"):  # infinite then, which is found where all infinities are
                out[:] = numbers
        elif len(numbers):
            out[self._offsets + numbers] = 1.0


def part_name(path: tuple) -> str:
    """What messages and exported actors call the part of an observation to which a path of keys leads."""
    return ".".join([NAME, *map(str, path)])


class Flattener:
    """Makes vectors of the observations of one agent.

    Attributes:
        parts: In the order of the vector.
        width: Of the vector.
    """

    def __init__(self, space: gym.Space, agent: Any):
        """
        Args:
            space: What the agent observes.
            agent: Its id, for errors.

        Raises:
            ValueError: If the space, or a part of it, has no vector of one length.
        """
        self.agent = agent
        self.parts = _parts(space, (), agent)
        self.width = sum(part.width for part in self.parts)
        ends = np.cumsum([part.width for part in self.parts], dtype=int)
        self._slices = [slice(int(end) - part.width, int(end)) for part, end in zip(self.parts, ends, strict=True)]

    @property
    def mask(self) -> slice | None:
        """Columns of the action mask; None: there is none."""
        columns = [own for part, own in zip(self.parts, self._slices, strict=True) if part.is_mask]
        return slice(columns[0].start, columns[-1].stop) if columns else None

    def __call__(self, observation: Any) -> np.ndarray:
        """Observation -> vector `[width]` float32, that of `gymnasium.spaces.flatten`.

        Lists and tuples do for arrays. Numbers outside of a Box's bounds are left as they are.

        Raises:
            ObservationError: If a part is missing, has another shape, is not made of numbers, or chooses a value that its space
                does not have; or if an action mask has others than 0 and 1.
        """
        vector = np.zeros(self.width, np.float32)
        for part, columns in zip(self.parts, self._slices, strict=True):
            try:
                part.write(self._find(observation, part), vector[columns])
            except ValueError as error:
                raise ObservationError.of(self.agent, part, error) from None
        return vector

    def read_mask(self, observation: Any) -> np.ndarray:
        """The action mask in an observation, `[width of the mask]`; errors as of a call."""
        numbers = []
        for part in self.parts:
            try:
                if part.is_mask:
                    numbers.append(part.numbers(self._find(observation, part)))
            except ValueError as error:
                raise ObservationError.of(self.agent, part, error) from None
        return np.concatenate(numbers)

    def _find(self, observation: Any, part: Part) -> Any:
        try:
            for key in part.path:
                observation = observation[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"is missing: the agent observes {[p.name for p in self.parts]}") from None
        return observation


def _parts(space: gym.Space, path: tuple, agent: Any) -> list[Part]:
    spaces = gym.spaces
    if isinstance(space, spaces.Dict):
        return [leaf for key, inner in space.spaces.items() for leaf in _parts(inner, (*path, key), agent)]
    if isinstance(space, spaces.Tuple):
        return [leaf for i, inner in enumerate(space.spaces) for leaf in _parts(inner, (*path, i), agent)]
    if isinstance(space, spaces.Box):
        return [Part(path, "Box", space.shape)]
    if isinstance(space, spaces.MultiBinary):
        return [Part(path, "MultiBinary", space.shape)]
    if isinstance(space, spaces.Discrete):
        return [Part(path, "Discrete", (), (int(space.n),), (int(space.start),))]
    if isinstance(space, spaces.MultiDiscrete):
        choices, starts = (tuple(map(int, np.ravel(x))) for x in (space.nvec, space.start))
        return [Part(path, "MultiDiscrete", space.shape, choices, starts)]
    what = f"its part {'.'.join(map(str, path))!r}, a {type(space).__name__}," if path else f"a {type(space).__name__},"
    raise ValueError(
        f"Agent {agent!r}: observation space {space}: {what} cannot be flattened to a vector of one length. Wrap the env so "
        f"that the agent observes {KINDS}."
    )


def differs_from_rllib(space: gym.Space, order_matters: bool = True) -> bool:
    """Whether RLlib's `FlattenObservations` has other columns for a space, or fails on it.

    It sorts the keys of a Dict, takes a Discrete's value itself for the column of its one-hot (so that negative ones count from
    the end), passes over the `start` of a MultiDiscrete, and knows MultiDiscretes of one dimension only.

    Args:
        space: What an agent observes.
        order_matters: False: look at the one-hots alone, not at the order of the parts.
    """
    if isinstance(space, gym.spaces.Dict):
        keys = list(space.spaces)
        sorts = order_matters and len({type(key) for key in keys}) == 1 and keys != sorted(keys)
        return sorts or any(differs_from_rllib(inner, order_matters) for inner in space.spaces.values())
    if isinstance(space, gym.spaces.Tuple):
        return any(differs_from_rllib(inner, order_matters) for inner in space.spaces)
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start) != 0
    if isinstance(space, gym.spaces.MultiDiscrete):
        return len(space.shape) != 1 or bool(np.any(space.start))
    return False


def is_flat_box(space: Any) -> bool:
    """Whether a space's observations are vectors already."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1


def image_shape(space: gym.Space | None) -> tuple[int, int, int] | None:
    """Height, width and channels of what an agent observes, if it is an image: a Box of rank 3; else None."""
    return space.shape if isinstance(space, gym.spaces.Box) and len(space.shape) == 3 else None


def is_byte_image(space: gym.Space | None) -> bool:
    """Whether it is an image whose numbers are bytes."""
    return image_shape(space) is not None and space.dtype == np.uint8


def mask_columns(space: gym.Space | None, agent: Any) -> slice | None:
    """Columns of the action mask in the vector of an agent that observes a space; None: there is none."""
    return Flattener(space, agent).mask if isinstance(space, gym.spaces.Dict) and MASK in space.spaces else None


def flatteners(spaces: Mapping[Any, gym.Space]) -> dict[Any, Flattener]:
    """Agent -> what makes vectors of its observations."""
    return {agent: Flattener(space, agent) for agent, space in spaces.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
