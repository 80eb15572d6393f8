"""A shared learner that learns nothing: who is there and what memory they have is real. And scripts that use it."""

import asyncio
import os
import re
import time

import ray

from rllib_maddpg.shared import life
from rllib_maddpg.shared.memory import Memory, SlotNeed
from rllib_maddpg.shared.presence import Presence


class TinyShared:
    """As `SharedLearnerActor`, for trials that only come and go. "x:grace-0.5" has a grace period of 0.5 s."""

    def __init__(self, name, max_wait_ms=None, max_slots=None):
        said = dict(re.findall(r"(\w+)-([\d.]+)", name))
        self.dead = []
        self.presence = Presence(self._gone, grace_s=float(said.get("grace", 60)), look_s=0.1)
        self.memory = Memory(max_slots=max_slots, budget=int(said.get("budget", 1000)))
        self.next = 0

    async def _gone(self, slot):
        self.dead.append(slot)
        self.memory.give(slot)

    async def register(self, num_bytes, anchor):
        slot, self.next = self.next, self.next + 1
        self.presence.come(slot, anchor)
        try:
            await self.memory.take(slot, SlotNeed(num_bytes, 1, 0))
        except BaseException:
            self.memory.give(slot)
            self.presence.go(slot)
            raise
        return {"slot": slot, "pid": os.getpid()}

    async def release(self, slot):
        self.memory.give(slot)
        self.presence.go(slot)

    async def hold(self, holder, anchor):
        self.presence.hold(holder, anchor)

    async def unhold(self, holder):
        self.presence.unhold(holder)

    async def wait(self):
        await asyncio.Event().wait()

    async def block(self, seconds):
        time.sleep(seconds)

    async def status(self):
        return {
            **self.memory.status(),
            "pid": os.getpid(),
            "slots": self.presence.slots,
            "holders": self.presence.num_holders,
            "dead": self.dead,
        }


def use_it():
    """This process makes this one from now on."""
    life.SharedLearnerActor = TinyShared


@ray.remote(num_cpus=0)
class Trial:
    """A trial in a process of its own, which sleeps instead of training."""

    def __init__(self):
        use_it()

    def join(self, name, num_bytes=1, **options):
        self.seat = life.join(name, num_bytes, **options)
        return self.seat.answer

    def train(self, seconds):
        time.sleep(seconds)

    def leave(self):
        self.seat.leave()

    def pid(self):
        return os.getpid()


def until(condition, seconds=60):
    """Waits for what the condition returns, if it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return value


def found(name):
    """The actor of this name, or None."""
    try:
        return ray.get_actor(life.actor_name(name), namespace=life.NAMESPACE)
    except ValueError:
        return None


def status(name):
    """Of the shared learner of this name; {} if there is none."""
    try:
        return ray.get(found(name).status.remote())
    except (AttributeError, ray.exceptions.RayActorError):
        return {}


def is_alive(pid):
    """Whether there is a process, and it is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
