"""Which trials' updates are made together, and how long one waits for others. No Ray and no torch here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# How long an update that is due waits for those of other trials, in ms, unless somebody says otherwise. On a CPU nothing is
# gained by making updates of 1,024 rows together, and waiting costs.
CPU_WAIT_MS = 0.0
# On a GPU a pass of many trials costs about what one of a single trial costs, of which this is a part.
GPU_WAIT_MS = 2.0
# Nobody waits for a trial that has not asked for an update for so many seconds: it evaluates, is paused, or is dead.
LATELY_S = 1.0


class Work(Protocol):
    """A call of `update`.

    Attributes:
        is_over: Whether all of its updates are made.
        is_alone: Whether nothing is gained by making its updates together with others': then these do not hold its answer.
    """

    is_over: bool
    is_alone: bool


class Dropped(RuntimeError):
    """Whose call it was has left."""


@dataclass(eq=False)
class _Due:
    """A call that waits for its next pass.

    Attributes:
        slot: Whose it is.
        work: The call.
        done: Is set when the call is over.
        since: When it began to wait.
        updates, slots, waited: As of `Made`.
    """

    slot: int
    work: Work
    done: asyncio.Future
    since: float
    updates: int = 0
    slots: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class Made:
    """How a call was made.

    Attributes:
        updates: How many it was.
        slots: With how many trials' updates, itself included, each of them was made as one; added up.
        waited: Seconds that each has waited for its turn; added up.
    """

    updates: int
    slots: float
    waited: float


class Scheduler:
    """Lets updates of several trials be made together.

    While some are made, calls gather. The next ones begin when all trials that have asked lately are due, or when the first
    that is due has waited long enough. So nobody waits for a trial that is slow, paused or dead.

    Attributes:
        max_wait: Seconds that the first update of a call waits for others.
        passes: How many were made: updates that are alike are one pass.
        updates: How many updates were made in them.
        waited: Seconds that all these have waited, added up.
    """

    def __init__(self, make: Callable[[Sequence[Any]], Awaitable[int]], max_wait_ms: float):
        """
        Args:
            make: Makes one update of each of several calls, and says in how many passes; errors of a call are kept in it.
            max_wait_ms: Milliseconds that an update waits for those of other trials.
        """
        self._make = make
        self.max_wait = max_wait_ms / 1000
        self.passes = self.updates = 0
        self.waited = 0.0
        self._due: list[_Due] = []
        self._in_pass: list[_Due] = []
        self._asked: dict[int, float] = {}  # when the trials have had their last answers
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task | None = None

    async def make(self, slot: int, work: Work) -> Made:
        """Makes a call of a trial, of which one at a time may be under way.

        Raises:
            Dropped: If the trial leaves meanwhile.
        """
        loop = asyncio.get_running_loop()
        due = _Due(slot, work, loop.create_future(), loop.time())
        self._due.append(due)
        self._look()
        await due.done
        return Made(due.updates, due.slots, due.waited)

    def drop(self, slot: int) -> None:
        """Forgets a trial, and the call that it waits for; one that is being made is not begun again."""
        self._asked.pop(slot, None)
        for due in (*self._due, *self._in_pass):
            if due.slot == slot and not due.done.done():
                due.done.set_exception(Dropped(f"Slot {slot} was given back during an update."))
        self._due = [due for due in self._due if due.slot != slot]
        self._look()

    def status(self) -> dict[str, float]:
        """Counts, and means over all passes."""
        return {
            "passes": self.passes,
            "updates": self.updates,
            "slots_per_pass_mean": self.updates / max(1, self.passes),
            "wait_ms_mean": 1000 * self.waited / max(1, self.updates),
        }

    def _look(self) -> None:
        """Begins a pass if it is time, or sees to it that somebody looks again when it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._in_pass or not self._due:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        first = min(self._due, key=lambda due: due.since)
        until = min(first.since + self.max_wait, self._others_may_come_until(now))
        # Who has waited for a call's first update is not held up again before each of the others.
        if now < until and not first.work.is_alone and not any(due.updates for due in self._due):
            self._timer = loop.call_at(until, self._look)
            return
        self._in_pass = [first] if first.work.is_alone else [due for due in self._due if not due.work.is_alone]
        self._due = [due for due in self._due if due not in self._in_pass]
        # The loop itself holds tasks weakly.
        self._task = loop.create_task(self._make_due(now))

    def _others_may_come_until(self, now: float) -> float:
        """When the last trial that is not due will not have asked lately any more."""
        due = {due.slot for due in self._due}
        return max((at + LATELY_S for slot, at in self._asked.items() if slot not in due), default=now)

    async def _make_due(self, now: float) -> None:
        dues = self._in_pass
        try:
            await self._make_pass(dues, now)
        except BaseException:  # such as the end of the loop
            for due in dues:
                due.done.cancel()
            raise
        finally:
            self._in_pass = []
            self._look()

    async def _make_pass(self, dues: Sequence[_Due], now: float) -> None:
        passes = 0
        error: Exception | None = None
        try:
            passes = await self._make([due.work for due in dues])
        except Exception as failure:  # of no single trial
            error = failure
        self.passes += passes
        self.updates += len(dues)
        for due in dues:
            due.updates += 1
            due.slots += len(dues) / max(1, passes)
            due.waited += now - due.since
            self.waited += now - due.since
        now = asyncio.get_running_loop().time()
        for due in dues:
            if due.done.done():  # it was dropped
                continue
            if error is not None:
                due.done.set_exception(error)
            elif due.work.is_over:
                due.done.set_result(None)
                self._asked[due.slot] = now
            else:
                due.since = now
                self._due.append(due)
