"""The updates of several Learners in one process, in as few passes as can be. No Ray here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_stack import SlotStack, kind_of
from rllib_maddpg.learning.update_call import UpdateCall
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.rows.joint_batch import JointBatch


@dataclass
class SlotCall:
    """A call of the `update` of one of several Learners.

    Attributes:
        learner: Whose it is.
        call: Its updates (`JointTorchLearner.begin_call`).
        error: What an update raised, which ends the call.
    """

    learner: MADDPGTorchLearner
    call: UpdateCall
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do but `end_call`, or to raise the error."""
        return self.error is not None or not self.call.updates_left


@dataclass
class _Begun:
    """An update that is to be made now: whose, on which rows, and what is due in it."""

    slot: SlotCall
    rows: JointBatch
    plan: UpdatePlan


@dataclass
class _Place:
    """Where a Learner lies.

    Attributes:
        stack: With whom; None: by itself, since nobody can be like it.
        slot: Its place there.
        tensors: What of the Learner lies there; if it has others by now, it has to be placed again.
    """

    stack: SlotStack | None
    slot: int
    tensors: tuple[Any, Any]

    def is_of(self, learner: MADDPGTorchLearner) -> bool:
        """Whether the Learner still lies there."""
        return all(old is new for old, new in zip(self.tensors, _tensors(learner), strict=True))


def _tensors(learner: MADDPGTorchLearner) -> tuple[Any, Any]:
    return learner._groups, learner._noise


class SlotUpdates:
    """Makes the updates of several Learners.

    Attributes:
        passes: How many passes were made.
        updates: How many updates were made in them.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.updates = 0
        self._stacks: dict[Hashable, SlotStack] = {}
        self._places: dict[Any, _Place] = {}

    def add(self, learner: Any) -> None:
        """Takes in a Learner, after its `build`."""
        learner._tie()
        kind = kind_of(learner)
        if kind is None:
            self._places[learner] = _Place(None, 0, _tensors(learner))
            return
        stack = self._stacks.get(kind)
        if stack is None or None not in stack.learners:
            stack = self._stacks[kind] = self._grown(learner, stack)
        self._put(learner, stack, stack.learners.index(None))

    def _grown(self, like: Any, stack: SlotStack | None) -> SlotStack:
        """A stack of twice as many slots, with the same Learners."""
        new = SlotStack(like, 2 * len(stack.learners) if stack else 1)
        for slot, learner in enumerate(stack.learners if stack else ()):
            self._put(learner, new, slot)
        return new

    def _put(self, learner: Any, stack: SlotStack, slot: int) -> None:
        stack.take(learner, slot)
        self._places[learner] = _Place(stack, slot, _tensors(learner))

    def remove(self, learner: Any) -> None:
        """Lets a Learner go, which is not used any more: others may take its place."""
        place = self._places.pop(learner)
        if place.stack is not None:
            place.stack.leave(place.slot)
            if not any(place.stack.learners):
                self._stacks = {kind: stack for kind, stack in self._stacks.items() if stack is not place.stack}

    def make(self, due: Sequence[SlotCall]) -> None:
        """Makes the next update of each call, at most one of each Learner. An error stays in its call."""
        together: dict[Hashable, list[_Begun]] = {}
        for slot in due:
            begun = self._begin(slot)
            if begun is not None:
                together.setdefault(self._kind(begun), []).append(begun)
        for begun in together.values():
            stack = self._places[begun[0].slot.learner].stack
            if stack is not None and stack.pays(len(begun), len(begun[0].rows)):
                self._make_as_one(stack, begun)
            else:
                for each in begun:
                    self._make_alone(each)

    def _begin(self, slot: SlotCall) -> _Begun | None:
        learner = slot.learner
        try:
            learner._tie()
            if not self._places[learner].is_of(learner):
                self.remove(learner)
                self.add(learner)
            rows = learner.next_minibatch(slot.call)
            return _Begun(slot, rows, learner.begin_update(rows))
        except Exception as error:
            slot.error = error
            return None

    def _kind(self, begun: _Begun) -> Hashable:
        """Equal for updates that can be made in one pass."""
        plan, newest = begun.plan, begun.rows.newest
        given = [rows.joint_rows for rows in (begun.rows, newest) if rows is not None]
        stack = self._places[begun.slot.learner].stack or begun.slot.learner
        return stack, plan.trained, plan.stages, plan.moves_targets, *((rows.shape, rows.dtype) for rows in given)

    def _make_alone(self, begun: _Begun) -> None:
        learner = begun.slot.learner
        try:
            self._end(begun, learner.run_update(begun.rows, begun.plan))
        except Exception as error:
            begun.slot.error = error
        self._count(1)

    def _make_as_one(self, stack: SlotStack, together: Sequence[_Begun]) -> None:
        slots = {self._places[begun.slot.learner].slot: begun for begun in together}
        try:
            found = stack.update({slot: (begun.rows, begun.plan) for slot, begun in slots.items()})
        except Exception as error:
            for begun in together:
                begun.slot.error = error
            return
        for slot, begun in slots.items():
            results = found[slot]
            if isinstance(results, UpdateResults):
                self._end(begun, results)
            else:
                self._end_badly(begun, results)
        self._count(len(together))

    def _end(self, begun: _Begun, results: UpdateResults) -> None:
        begun.slot.learner.end_update(results)
        begun.slot.learner.has_made_update(begun.slot.call)

    def _end_badly(self, begun: _Begun, stage: int) -> None:
        """Of an update a stage was not finite."""
        learner = begun.slot.learner
        try:
            learner.was_not_finite(begun.rows, begun.plan, stage)
        except Exception as error:
            begun.slot.error = error
        else:
            learner.has_made_update(begun.slot.call)

    def _count(self, updates: int) -> None:
        self.passes += 1
        self.updates += updates
