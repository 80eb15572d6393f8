"""The Ray actor that learns for many trials."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from rllib_maddpg.learning.process_speedups import speed_up_process
from rllib_maddpg.learning.slot_updates import SlotUpdates
from rllib_maddpg.shared.calls import Failed, ReplayAnswer, UpdateAnswer, UpdateRequest
from rllib_maddpg.shared.line import Line
from rllib_maddpg.shared.memory import Memory, slot_need
from rllib_maddpg.shared.presence import Presence, end_this_actor
from rllib_maddpg.shared.scheduler import CPU_WAIT_MS, GPU_WAIT_MS, Dropped, Scheduler
from rllib_maddpg.shared.slot import Slot, UpdateWork, config_there

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SharedLearnerActor:
    """Learners and replay buffers of many trials, each in a slot of its own.

    Methods only schedule. Whatever touches Learners, rows or torch is done in one thread, one thing after the other.
    """

    def __init__(self, name: str, max_wait_ms: float | None = None, max_slots: int | None = None):
        """
        Args:
            name: That of the shared learner.
            max_wait_ms: How long an update that is due waits for those of other trials. None: as is best on the device.
            max_slots: Trials at a time; others wait. None: as many as fit the memory.
        """
        # Nothing else lives in this process.
        speed_up_process()
        self.name = name
        gpus = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
        self.device = device_of(name, gpus)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="learner")
        self._updates = SlotUpdates()
        wait_ms = (CPU_WAIT_MS if self.device == "cpu" else GPU_WAIT_MS) if max_wait_ms is None else max_wait_ms
        self._scheduler = Scheduler(self._make, wait_ms)
        self._presence = Presence(on_gone=self._free, leave=self._end)
        self._line = Line(self.update)
        self._memory = Memory(self.device, max_slots, written=self._written, gpus=gpus)
        self._numbers = itertools.count()
        self._slots: dict[int, Slot] = {}
        # A trial's calls come one after the other, but Ray keeps no order among those of an async actor.
        self._turns: dict[int, asyncio.Lock] = {}

    # ------------------------------------------------------------------------------------------ who is there

    async def register(self, config: AlgorithmConfig, module_spec: MultiRLModuleSpec, anchor: Any) -> dict[str, Any]:
        """Makes a trial's Learner and replay buffer, as soon as there is memory for them.

        Args:
            config: The trial's.
            module_spec: Of its modules.
            anchor: An actor that lives as long as the trial does.

        Returns:
            `{"slot": its number, "device": where it learns, "line": where it has a `Line`, or None}`.

        Raises:
            ValueError: If it can never fit, or a setting is found to be wrong only here.
        """
        slot = next(self._numbers)
        self._presence.come(slot, anchor)
        try:
            line = await self._line.address()
            config = config_there(config, self.device)
            await self._memory.take(slot, await self._do(slot_need, config, module_spec))
            self._turns[slot] = asyncio.Lock()
            building = asyncio.ensure_future(self._do(Slot, config, module_spec, self._updates))
            try:
                made = await asyncio.shield(building)
            except asyncio.CancelledError:  # Ctrl-C in the trial; the thread goes on all the same
                await self._do((await building).close)
                raise
            if slot not in self._presence.slots:  # the trial has died meanwhile
                await self._do(made.close)
                raise RuntimeError(f"The trial in slot {slot} of the shared learner {self.name!r} is dead.")
            self._slots[slot] = made
        except BaseException:
            self._turns.pop(slot, None)
            self._memory.give(slot)
            self._presence.go(slot)
            raise
        return {"slot": slot, "device": self.device, "line": line}

    def _end(self) -> None:
        self._line.close()
        end_this_actor()

    async def release(self, slot: int) -> None:
        """Gives a slot back; nothing if that has been done."""
        await self._free(slot)
        self._presence.go(slot)

    async def _free(self, slot: int) -> None:
        """Ends what a trial has here."""
        self._scheduler.drop(slot)
        self._turns.pop(slot, None)
        own = self._slots.pop(slot, None)
        try:
            if own is not None:
                await self._do(own.close)
        except Exception:  # a replay buffer of the user's
            logger.exception("Slot %d of the shared learner %r could not be closed.", slot, self.name)
        finally:
            del own
            self._memory.give(slot)

    def _written(self, slot: int) -> int:
        """Bytes of a trial's rows so far."""
        own = self._slots.get(slot)
        return own.rows * own.learner.schema.bytes_per_kept_row if own is not None else 0

    async def hold(self, holder: str, anchor: Any) -> None:
        """Stays until `unhold`, or until the anchor is dead, also without any trial."""
        self._presence.hold(holder, anchor)

    async def unhold(self, holder: str) -> None:
        """The end of `hold`."""
        self._presence.unhold(holder)

    async def status(self) -> dict[str, Any]:
        """What is going on: slots, memory, and how updates were made."""
        own = {"name": self.name, "device": self.device, "trials": sorted(self._slots)}
        return {**own, **self._memory.status(), **self._scheduler.status()}

    # ------------------------------------------------------------------------------------------ what trials ask for

    async def update(self, slot: int, request: UpdateRequest) -> UpdateAnswer | Failed:
        """Stores rollouts, draws rows, and makes updates, beside those of other trials."""
        return await self._in_turn(slot, self._update, slot, request)

    async def apply(self, slot: int, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`func(learner, *args, **kwargs)`."""
        return await self._in_turn(slot, lambda: self._do(self._slots[slot].apply, func, args, kwargs))

    async def replay(
        self, slot: int, rollouts: Sequence[Any], method: str, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> ReplayAnswer | Failed:
        """Stores rollouts, and calls a method of the replay buffer; "" for none."""
        own = lambda: self._do(self._slots[slot].call_replay, rollouts, method, args, kwargs or {})  # noqa: E731
        return await self._in_turn(slot, own)

    async def _in_turn(self, slot: int, do: Callable[..., Any], *args: Any) -> Any:
        """What comes of it when the trial's earlier calls are done."""
        turn = self._turns.get(slot)
        if turn is not None:
            async with turn:
                if slot in self._slots:
                    return await do(*args)
        gone = f"Slot {slot} of the shared learner {self.name!r} was given back: the trial that had it has ended, or died."
        return Failed.of(RuntimeError(gone))

    async def _update(self, slot: int, request: UpdateRequest) -> UpdateAnswer | Failed:
        work = UpdateWork(self._slots[slot], request)
        try:
            made = await self._scheduler.make(slot, work)
        except Dropped as error:
            return Failed.of(error)
        return work.answer(made)

    # ------------------------------------------------------------------------------------------ in the one thread

    async def _make(self, works: Sequence[UpdateWork]) -> int:
        return await self._do(UpdateWork.make, works, self._updates)

    async def _do(self, func: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _raising_errors, func, *args)


def device_of(name: str, gpus: float) -> str:
    """Where a shared learner of this name learns, to which Ray has assigned so many GPUs."""
    if gpus and not torch.cuda.is_available():
        logger.warning(
            "The shared learner %r has num_gpus=%g, but torch sees no CUDA GPU there: it learns on the CPU, and nobody else "
            "can use that GPU. Install torch with CUDA for this driver (`torch.cuda.is_available()`), or give it none: "
            "`SharedLearner(%r, num_gpus=0)`.",
            name,
            gpus,
            name,
        )
    return "cuda" if gpus and torch.cuda.is_available() else "cpu"


def _raising_errors(func: Callable[..., T], *args: Any) -> T:
    """What a function returns. A future cannot hold a StopIteration: whoever awaits it would wait for ever."""
    try:
        return func(*args)
    except StopIteration as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
