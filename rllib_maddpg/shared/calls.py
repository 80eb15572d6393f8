"""What a trial asks of the shared learner, and what it is answered."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from ray import cloudpickle

from rllib_maddpg.shared.scheduler import Made


@dataclass(frozen=True)
class Draw:
    """Rows that are drawn where the replay buffer is, when they are learned from; see `draw_batches`.

    Attributes:
        updates: How many updates are made of them.
        rows: Of each update.
        shuffled: As of `JointReplay.draw`.
        newest: How many of the newest rows go along.
    """

    updates: int
    rows: int
    shuffled: bool = False
    newest: int = 0

    def __len__(self) -> int:
        return self.updates * self.rows


@dataclass
class UpdateRequest:
    """A call of `update`.

    Attributes:
        batch: A `Draw`, or a batch as the Learner's `update` takes it.
        rollouts: To be stored before.
        timesteps, minibatch_size, keeps_metrics: As of `JointTorchLearner.begin_call`.
    """

    batch: Any
    rollouts: Sequence[Any] = ()
    timesteps: dict[str, Any] = field(default_factory=dict)
    minibatch_size: int | None = None
    keeps_metrics: bool = False


@dataclass
class UpdateAnswer:
    """What a call of `update` has led to.

    Attributes:
        metrics: What the Learner's `update` returns.
        weights: The new actors, as `get_actor_weights` returns them.
        stored: Rows that the replay buffer holds.
        made: How the updates were made.
    """

    metrics: dict[str, Any]
    weights: tuple[int, np.ndarray]
    stored: int
    made: Made


@dataclass
class ReplayAnswer:
    """What a method of the replay buffer has returned.

    Attributes:
        value: That.
        stored: Rows that the replay buffer holds.
    """

    value: Any
    stored: int


def check_answer_can_travel(func: Any, value: Any) -> None:
    """That what a function of the Learner returned can be pickled.

    Raises:
        ValueError: If it cannot.
    """
    if value is None:
        return
    try:
        # Arrays are not copied.
        cloudpickle.dumps(value, protocol=5, buffer_callback=lambda buffer: None)
    except Exception as error:  # objects can raise anything when they are pickled
        func = getattr(func, "func", func)  # RLlib calls a `partial` of it
        raise ValueError(
            f"`{getattr(func, '__qualname__', func)}` returned a {type(value).__name__} that cannot be pickled, and so cannot "
            f"leave the shared learner: {error}. Return numbers, arrays or other plain data."
        ) from error


class RaisedThere(Exception):
    """The traceback of an error in the shared learner, as the cause of the one here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass
class Failed:
    """An error on the way to a trial: it is raised there as it would be without a shared learner.

    Attributes:
        error: What was raised.
        trace: Its traceback.
    """

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """The error, or one with its text where it cannot travel."""
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(cloudpickle.dumps(error))
        except Exception:  # of a user's class
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)

    def throw(self) -> NoReturn:
        """Raises the error."""
        raise self.error from RaisedThere(self.trace)
