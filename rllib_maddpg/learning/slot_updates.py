"""The updates of several Learners in one process, in as few passes as can be. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rllib_maddpg.learning.update_call import UpdateCall


@dataclass
class SlotCall:
    """A call of the `update` of one of several Learners.

    Attributes:
        learner: Whose it is.
        call: Its updates (`JointTorchLearner.begin_call`).
        error: What an update raised, which ends the call.
    """

    learner: Any
    call: UpdateCall
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do but `end_call`, or to raise the error."""
        return self.error is not None or not self.call.updates_left


class SlotUpdates:
    """Makes the updates of several Learners.

    Attributes:
        passes: How many passes were made.
        updates: How many updates were made in them.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.updates = 0

    def add(self, learner: Any) -> None:
        """Takes in a Learner, after its `build`."""

    def remove(self, learner: Any) -> None:
        """Lets a Learner go; its weights stay its own."""

    def make(self, due: Sequence[SlotCall]) -> None:
        """Makes the next update of each call. An error is kept in its call, and does not touch the others."""
        for slot in due:
            self._make_alone(slot)

    def _make_alone(self, slot: SlotCall) -> None:
        self.passes += 1
        self.updates += 1
        learner, call = slot.learner, slot.call
        try:
            learner._update(learner.next_minibatch(call))
            learner.has_made_update(call)
        except Exception as error:
            slot.error = error
