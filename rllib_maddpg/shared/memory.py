"""Memory for the trials of a shared learner, known before they begin: who gets in, who waits, and who never fits."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from rllib_maddpg.replay.buffer import SMALLER_IMAGES
from rllib_maddpg.replay.choice import DEFAULTS

logger = logging.getLogger(__name__)

# Part of the memory that is left for what is not counted: batches, activations, graphs, and the trials' other processes.
RESERVE = 0.1
# Seconds after which one that waits looks again, because other processes may have freed memory.
LOOK_S = 5.0
# Seconds until somebody is told for the first time, and at most between two times, why a trial waits.
PATIENCE_S, LONGEST_PATIENCE_S = 10.0, 600.0
# How often a trial's networks count. They lie in a stack of as many slots as the next power of 2 (33 trials have 64); while it
# grows, there are the old one and the new one; and each has gradients and indices.
NETWORK_COPIES = 4


class Gone(RuntimeError):
    """The trial left while it waited for memory."""


@dataclass(frozen=True)
class SlotNeed:
    """Bytes that a trial needs.

    Attributes:
        capacity: Rows of its ring.
        bytes_per_row: Of its ring.
        networks: Bytes of parameters, targets and the optimizers' moments, and of what stacks of them take besides.
        has_images: Whether rows have images, which could be smaller.
    """

    capacity: int
    bytes_per_row: int
    networks: int
    has_images: bool = False

    @property
    def ring(self) -> int:
        """Bytes of the full ring."""
        return self.capacity * self.bytes_per_row

    @property
    def total(self) -> int:
        return self.ring + self.networks


def slot_need(config: AlgorithmConfig, module_spec: MultiRLModuleSpec) -> SlotNeed:
    """What a trial needs.

    Args:
        config: Its config, for `replay_buffer_config["capacity"]`.
        module_spec: Of all its modules, as `MADDPGConfig` makes it: they know the schema of the rows.
    """
    schema = next(iter(module_spec.rl_module_specs.values())).model_config["schema"]
    capacity = {**DEFAULTS, **config.replay_buffer_config}["capacity"]
    networks = NETWORK_COPIES * network_bytes(_modules(module_spec))
    return SlotNeed(int(capacity), schema.bytes_per_kept_row, networks, schema.layout.has_images)


def _modules(module_spec: MultiRLModuleSpec) -> Any:
    """All modules of a trial, only to be measured."""
    try:
        with torch.device("meta"):  # no numbers are made
            return copy.deepcopy(module_spec).build()
    except Exception:  # a network of the user's that computes while it is made
        with torch.random.fork_rng(devices=[]):
            return copy.deepcopy(module_spec).build()


def network_bytes(modules: Any) -> int:
    """Bytes of a MultiRLModule's parameters and buffers, targets among them, and of two moments for what is trained."""
    total = 0
    for _, module in modules.items():
        if isinstance(module, torch.nn.Module):
            total += sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
            total += 2 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return total


class Memory:
    """Gives memory to trials, in the order in which they came. All of it runs in the event loop of the actor."""

    def __init__(
        self,
        device: str | torch.device = "cpu",
        max_slots: int | None = None,
        budget: int | Callable[[], int] | None = None,
        written: Callable[[int], int] = lambda slot: 0,
        gpus: float = 1.0,
    ):
        """
        Args:
            device: Where rings and networks are.
            max_slots: Trials at the same time; None: as many as there is memory for.
            budget: Bytes for all trials. A function says how many are free now. None: on a GPU what is free there now, on
                the CPU what is free whenever somebody comes; each less a reserve.
            written: Of a slot that has memory, how many bytes of it are in use already, and so are not free any more. Rings
                on the CPU take memory as rows are written.
            gpus: Its share of the GPU: of a fraction, no more than that part of the GPU's memory is used.
        """
        self.device, self.max_slots = torch.device(device), max_slots
        self._budget, self._written = self._measured(gpus) if budget is None else budget, written
        self._held: dict[int, SlotNeed] = {}
        self._waiting: dict[int, SlotNeed] = {}  # in their order
        self._changed = asyncio.Event()

    def _measured(self, gpus: float) -> int | Callable[[], int]:
        if self.device.type == "cpu":
            return lambda: int((1 - RESERVE) * psutil.virtual_memory().available)
        free, has = torch.cuda.mem_get_info(self.device)
        return int((1 - RESERVE) * min(free, gpus * has))

    @property
    def room(self) -> int:
        """Bytes for all trials together."""
        if not callable(self._budget):
            return self._budget
        return self._budget() + sum(min(self._written(slot), need.total) for slot, need in self._held.items())

    @property
    def free(self) -> int:
        """Bytes that no trial may claim."""
        return self.room - sum(need.total for need in self._held.values())

    async def take(self, slot: int, need: SlotNeed) -> None:
        """Returns when the trial has its memory, after all who came before it.

        Raises:
            ValueError: If it needs more than there is for all trials.
            Gone: If it was given back meanwhile.
        """
        self._check(need)
        self._waiting[slot] = need
        reminder = _Reminder()
        try:
            while not self._fits(slot):
                if not self._held and next(iter(self._waiting)) == slot:
                    self._check(need)  # there is less than when it came, and nobody to wait for
                if reminder.is_due():
                    logger.warning("%s", self.why_waits(slot))
                await self._change()
                if slot not in self._waiting:
                    raise Gone(f"The trial for slot {slot} left while it waited for memory.")
            self._held[slot] = need
        finally:
            self._waiting.pop(slot, None)
            self._wake()

    def give(self, slot: int) -> None:
        """Takes a trial's memory back, or its place among those who wait. Nothing happens if it has none."""
        self._held.pop(slot, None)
        self._waiting.pop(slot, None)
        self._wake()

    def status(self) -> dict[str, Any]:
        """Bytes of all trials and of each, and who waits and why."""
        return {
            "max_slots": self.max_slots,
            "room_bytes": self.room,
            "free_bytes": self.free,
            "held_bytes": {slot: need.total for slot, need in self._held.items()},
            "waiting": {slot: self.why_waits(slot) for slot in self._waiting},
        }

    def why_waits(self, slot: int) -> str:
        """A line about a trial that waits."""
        need, before = self._waiting[slot], list(self._waiting).index(slot)
        held = ", ".join(f"slot {s} {_size(n.total)}" for s, n in self._held.items())
        if self._is_full:
            lack = f"all {self.max_slots} slots are taken (`max_slots`)"
        else:
            lack = f"{_size(max(0, self.free))} of {_size(self.room)} on {self._where} are free"
        queue = f" {before} came before it." if before else ""
        return (
            f"A trial waits for a place in the shared learner until others end: it needs {_size(need.total)} (a ring of "
            f"{need.capacity} rows of {need.bytes_per_row} bytes, networks of {_size(need.networks)}), and {lack}; "
            f"held: {held or 'nothing'}.{queue}"
        )

    @property
    def _is_full(self) -> bool:
        return self.max_slots is not None and len(self._held) >= self.max_slots

    @property
    def _where(self) -> str:
        return "this machine" if self.device.type == "cpu" else f"device '{self.device}'"

    def _fits(self, slot: int) -> bool:
        is_first = next(iter(self._waiting)) == slot
        return is_first and not self._is_full and self._waiting[slot].total <= self.free

    def _check(self, need: SlotNeed) -> None:
        room = self.room
        if need.total <= room:
            return
        rows = int(0.8 * (room - need.networks) / need.bytes_per_row)
        images = SMALLER_IMAGES if need.has_images else ""
        smaller = "Give the modules smaller networks, or the trial a Learner of its own: `shared_learner=None`."
        raise ValueError(
            f"`replay_buffer_config['capacity']`={need.capacity} rows of {need.bytes_per_row} bytes need {_size(need.ring)} "
            f"when full, and the networks {_size(need.networks)}, but a shared learner has {_size(room)} on {self._where} for "
            f"all its trials. {f'Set a capacity of at most {rows}{images}.' if rows > 0 else smaller}"
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _change(self) -> None:
        """Waits until somebody gave memory back, or until it is time to look again."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), LOOK_S)


class _Reminder:
    """Is due now, and then more and more rarely."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._next, self._pause = self._clock(), PATIENCE_S

    def is_due(self) -> bool:
        if self._clock() < self._next:
            return False
        self._pause = min(2 * self._pause, LONGEST_PATIENCE_S)
        self._next = self._clock() + self._pause
        return True


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:.2f} MiB"
