"""Who uses a shared learner: trials, each in its slot, and the holders around them. It goes when nobody is there."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError

logger = logging.getLogger(__name__)

# Seconds without anybody after which it goes, so long as nobody has held it: trials of one sweep may follow each other.
GRACE_S = 20.0
# Seconds between two looks at one client. A look lasts as long as the client's actor is busy, and ends when that dies.
LOOK_S = 1.0
# Seconds between the decision to go and the end of the process, in which the last answers get out.
_LAST_WORDS_S = 0.1


class Going(RuntimeError):
    """Nobody was there, and the shared learner is about to end: make a new one."""


class Anchor:
    """An actor that dies with the process of a client: what a shared learner watches.

    Within an actor, as Tune's trials are, it is that one. Else it is a tiny one, which lives until the process, or the last of
    its anchors, is gone.

    Attributes:
        handle: Keeps nobody alive, so that a shared learner may have it.
    """

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self._attendant = None
        if context.get_actor_id() is not None:
            self.handle: ActorHandle = context.current_actor  # a weak one
        else:
            self._attendant, self.handle = _attendant(context.get_worker_id())


# The one of this process, for the Ray that it is connected to; gone when no anchor has it any more.
_attendants: weakref.WeakValueDictionary[str, ActorHandle] = weakref.WeakValueDictionary()
_one_at_a_time = threading.Lock()


def _attendant(worker_id: str) -> tuple[ActorHandle, ActorHandle]:
    """The tiny actor of this process: a handle that keeps it alive, and a weak one."""
    with _one_at_a_time:
        own = _attendants.get(worker_id)
        try:
            if own is not None:
                return own, ray.get(own.me.remote())
        except RayActorError:
            pass  # somebody ended it
        own = _attendants[worker_id] = _new_attendant()
        return own, ray.get(own.me.remote())


def _new_attendant() -> ActorHandle:
    # A class of a function is pickled with its code: the actor imports nothing of this package, and starts within moments.
    class Attendant:
        def me(self) -> ActorHandle:
            return ray.get_runtime_context().current_actor

    return ray.remote(num_cpus=0)(Attendant).options(scheduling_strategy="DEFAULT").remote()


def end_this_actor() -> None:
    """Ends the actor of this process, whatever it waits for."""
    ray.kill(ray.get_runtime_context().current_actor)


class Presence:
    """Keeps the list of who is there. All of it runs in the event loop of the shared learner's actor.

    A client is there from `come` or `hold` until `go` or `unhold`, or until its anchor dies. That is noticed without the
    client's help: a call of the anchor waits in its queue while it trains, and fails in the moment in which it dies.
    """

    def __init__(
        self,
        on_gone: Callable[[int], Awaitable[None] | None],
        leave: Callable[[], None] = end_this_actor,
        grace_s: float = GRACE_S,
        look_s: float = LOOK_S,
    ):
        """To be made in the running event loop.

        Args:
            on_gone: Called with the slot of a trial that died, once; not for one that left by itself.
            leave: Called when nobody is left.
            grace_s: Seconds that it waits before it leaves, so long as no holder has left.
            look_s: Seconds between two looks at one client.
        """
        self._on_gone, self._leave = on_gone, leave
        self._grace_s, self._look_s = grace_s, look_s
        self._trials: dict[int, asyncio.Task] = {}
        self._holders: dict[str, asyncio.Task] = {}
        self._was_held = self._is_going = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._look_around()

    @property
    def slots(self) -> list[int]:
        """Slots of the trials that are there."""
        return sorted(self._trials)

    @property
    def num_holders(self) -> int:
        return len(self._holders)

    def come(self, slot: int, anchor: ActorHandle) -> None:
        """A trial is there.

        Raises:
            Going: If it is too late.
        """
        self._somebody_comes()
        self._trials[slot] = self._loop.create_task(self._watch_trial(slot, anchor))

    def go(self, slot: int) -> None:
        """A trial has left. Nothing happens if it was not there."""
        if (watch := self._trials.pop(slot, None)) is not None:
            watch.cancel()
            self._look_around()

    def hold(self, holder: str, anchor: ActorHandle) -> None:
        """Somebody is there who starts trials: without any, too.

        Raises:
            Going: If it is too late.
        """
        self._somebody_comes()
        self.unhold_quietly(holder)
        self._holders[holder] = self._loop.create_task(self._watch_holder(holder, anchor))

    def unhold(self, holder: str) -> None:
        """A holder has left, also one that held an earlier shared learner of this name: no more trials are to be expected."""
        self.unhold_quietly(holder)
        self._was_held = True
        self._look_around()

    def unhold_quietly(self, holder: str) -> None:
        if (watch := self._holders.pop(holder, None)) is not None:
            watch.cancel()

    async def _watch_trial(self, slot: int, anchor: ActorHandle) -> None:
        why = await self._death_of(anchor)
        # From here on nobody cancels this task, which frees the slot.
        del self._trials[slot]
        logger.warning("The trial in slot %d died; its slot is free. %s", slot, why)
        try:
            answer = self._on_gone(slot)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            logger.exception("The slot %d of a trial that died could not be freed.", slot)
        self._look_around()

    async def _watch_holder(self, holder: str, anchor: ActorHandle) -> None:
        await self._death_of(anchor)
        del self._holders[holder]
        self._was_held = True
        self._look_around()

    async def _death_of(self, anchor: ActorHandle) -> str:
        """Waits until it is dead; why it is."""
        while True:
            try:
                await anchor.__ray_ready__.remote()
            except ActorUnavailableError:
                pass  # a trouble of the network, which passes
            except RayActorError as error:
                return str(error).splitlines()[-1]
            except Exception:
                logger.debug("A client could not be asked whether it is there", exc_info=True)
            await asyncio.sleep(self._look_s)

    def _somebody_comes(self) -> None:
        if self._is_going:
            raise Going("This shared learner is going, because nobody was there.")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_around(self) -> None:
        if self._trials or self._holders or self._is_going:
            return
        if self._was_held:
            self._go()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._grace_s, self._go)

    def _go(self) -> None:
        self._is_going = True
        logger.info("Nobody is there: the shared learner goes.")
        self._loop.call_later(_LAST_WORDS_S, self._leave)
