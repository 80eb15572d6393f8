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
        kind: With whom it can lie side by side (`kind_of`).
        tensors: What of the Learner lies there; if it has others by now, it has to be placed again.
    """

    stack: SlotStack | None
    slot: int
    kind: Hashable
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
        self._places[learner] = _Place(None, 0, kind, _tensors(learner))
        if kind is None:
            return
        stack = self._stacks.get(kind)
        if stack is None or None not in stack.learners:
            stack = self._resized(learner, kind, stack, 2 * len(stack.learners) if stack else 1)
        self._put(learner, kind, stack, stack.learners.index(None))

    def remove(self, learner: Any) -> None:
        """Lets a Learner go, which keeps what it has learned; others may take its place."""
        place = self._places.pop(learner, None)
        stack = place and place.stack
        if stack is None:
            return
        try:
            learner.stand_alone()
        finally:
            stack.leave(place.slot)
            self._make_smaller(place.kind, stack)

    def look_again(self, learner: Any) -> None:
        """Puts a Learner of which anything may have been changed to where it belongs now."""
        learner._tie()
        place = self._places[learner]
        if not place.is_of(learner) or place.kind != kind_of(learner):
            self.remove(learner)
            self.add(learner)

    def _make_smaller(self, kind: Hashable, stack: SlotStack) -> None:
        """All slots of a stack are computed: where few are left in it, they move to a smaller one."""
        left = [learner for learner in stack.learners if learner]
        if not left:
            stack.close()
            self._stacks = {kind: own for kind, own in self._stacks.items() if own is not stack}
        elif 4 * len(left) <= len(stack.learners):
            self._resized(left[0], kind, stack, len(stack.learners) // 2)

    def _resized(self, like: Any, kind: Hashable, stack: SlotStack | None, slots: int) -> SlotStack:
        """A stack of so many slots, with the same Learners."""
        new = SlotStack(like, slots)
        for slot, learner in enumerate(filter(None, stack.learners if stack else ())):
            self._put(learner, kind, new, slot)
        if stack is not None:
            stack.close()
        self._stacks[kind] = new
        return new

    def _put(self, learner: Any, kind: Hashable, stack: SlotStack, slot: int) -> None:
        stack.take(learner, slot)
        self._places[learner] = _Place(stack, slot, kind, _tensors(learner))

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
            if not slot.call.made:
                learner._tie()
                if not self._places[learner].is_of(learner):
                    self.look_again(learner)
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
            learner.end_update(learner.run_update(begun.rows, begun.plan))
            learner.has_made_update(begun.slot.call)
            # Its next update may be made with others, who could not know whether this one was sound.
            learner.finish_updates()
        except Exception as error:
            begun.slot.error = error
        self._count(1)

    def _make_as_one(self, stack: SlotStack, together: Sequence[_Begun]) -> None:
        slots = {self._places[begun.slot.learner].slot: begun for begun in together}
        try:
            results = stack.update({slot: (begun.rows, begun.plan) for slot, begun in slots.items()})
        except Exception as error:
            for begun in together:
                begun.slot.error = error
            return
        for slot, begun in slots.items():
            try:
                self._end(begun, results[slot])
            except Exception as error:
                begun.slot.error = error
        self._count(len(together))

    def _end(self, begun: _Begun, results: UpdateResults) -> None:
        learner = begun.slot.learner
        learner.end_update(results)
        if results.bad_stage is not None:
            learner.was_not_finite(begun.rows, begun.plan, results.bad_stage)
        learner.has_made_update(begun.slot.call)

    def _count(self, updates: int) -> None:
        self.passes += 1
        self.updates += updates
