"""The life of a shared learner: found or made by its name, held around a sweep, joined by trials."""

from __future__ import annotations

import logging
import math
import time
import uuid
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rllib_maddpg.shared.actor import SharedLearnerActor
from rllib_maddpg.shared.memory import LONGEST_PATIENCE_S, PATIENCE_S
from rllib_maddpg.shared.names import DEFAULT_NAME, NAME_WORDS, NAMESPACE, actor_name, is_name
from rllib_maddpg.shared.presence import Anchor, Going

logger = logging.getLogger(__name__)

# Seconds that a shared learner may need to start: for a free GPU, and for its imports.
START_S = 300.0
# Calls that one shared learner holds at the same time: of several hundred trials.
_MAX_CALLS = 10_000
# Seconds that somebody who leaves waits for the answer.
_LEAVE_S = 30.0
# How often a trial tries again where the shared learner dies while the trial comes in.
_TRIES = 3


def check_options(name: Any, num_gpus: Any = None, max_wait_ms: Any = None, max_slots: Any = None) -> None:
    """Raises a ValueError unless `SharedLearner` can be made with these."""
    if not is_name(name):
        raise ValueError(f"`name`={name!r} is not allowed: it must be {NAME_WORDS}. Give a word, such as {DEFAULT_NAME!r}.")

    def require(key: str, value: Any, ok: bool, allowed: str, fix: str) -> None:
        if value is not None and not ok:
            raise ValueError(f"`{key}`={value!r} is not allowed: it must be {allowed}, or None. {fix}")

    share = "Give 1 for a whole GPU, a fraction to leave the rest to others, or 0 to learn on the CPU."
    require("num_gpus", num_gpus, _is_number(num_gpus) and 0 <= num_gpus <= 1, "a number from 0 to 1", share)
    wait = "0 never waits for other trials."
    require("max_wait_ms", max_wait_ms, _is_number(max_wait_ms) and max_wait_ms >= 0, "a number of at least 0", wait)
    is_whole = isinstance(max_slots, int) and not isinstance(max_slots, bool) and max_slots >= 1
    require("max_slots", max_slots, is_whole, "a whole number of at least 1", "None sets no limit but the memory.")


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def shared_learner(
    name: str = DEFAULT_NAME,
    *,
    num_gpus: float | None = None,
    max_wait_ms: float | None = None,
    max_slots: int | None = None,
    start_s: float = START_S,
) -> ActorHandle:
    """The shared learner of a name: the one that there is, or a new one. It may be about to go.

    Args:
        name: Its name; one per sweep and GPU.
        num_gpus: Of a new one; None: 1 if the cluster has a GPU, else 0. One that there is stays as it was made, also in what
            follows.
        max_wait_ms: Milliseconds that an update waits for those of other trials; None: a measured default.
        max_slots: Trials at the same time; more wait. None: as many as there is memory for.
        start_s: Seconds that it may take to start.

    Raises:
        ValueError: For a bad name or value, or if there is no Ray.
        RuntimeError: If it does not start in time.
    """
    check_options(name, num_gpus, max_wait_ms, max_slots)
    if not ray.is_initialized():
        raise ValueError("A shared learner lives in Ray, and there is none: call `ray.init()` first.")
    has = ray.cluster_resources().get("GPU", 0)
    if num_gpus is None:
        num_gpus = min(1, has)
    if num_gpus > has:
        raise ValueError(
            f"`num_gpus`={num_gpus!r} is not allowed: Ray's cluster has {has:g} GPUs. Give 0 to learn on the CPU, or start Ray "
            "where it sees a GPU."
        )
    actor = (
        ray.remote(SharedLearnerActor)
        .options(
            name=actor_name(name),
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            num_gpus=num_gpus,
            max_restarts=0,
            max_concurrency=_MAX_CALLS,
            # Not in the placement group of the trial that happens to make it.
            scheduling_strategy="DEFAULT",
        )
        .remote(name, max_wait_ms, max_slots)
    )
    _wait_for_start(actor, name, num_gpus, start_s)
    return actor


def _wait_for_start(actor: ActorHandle, name: str, num_gpus: float, start_s: float) -> None:
    asked, deadline, patience = actor.status.remote(), time.monotonic() + start_s, PATIENCE_S
    while not ray.wait([asked], timeout=min(patience, max(0.0, deadline - time.monotonic())))[0]:
        why = "it has not answered yet"
        if num_gpus:
            free, has = (resources().get("GPU", 0) for resources in (ray.available_resources, ray.cluster_resources))
            why += f", and needs num_gpus={num_gpus:g}, where {free:g} of the cluster's {has:g} GPUs are free"
        if time.monotonic() < deadline:
            logger.warning("Waiting for the shared learner %r to start: %s.", name, why)
            patience = min(2 * patience, LONGEST_PATIENCE_S)
            continue
        # It is not killed: it may be at work for others. One that starts some day for nobody goes after its grace period.
        fix = (
            "Let nothing else ask for GPUs (`num_gpus_per_learner=0`, `num_gpus_per_env_runner=0`, no GPU in "
            "`tune.with_resources`), end what uses them, or give one of another name a fraction, or 0 for the CPU: "
            f"`SharedLearner({name + '.cpu'!r}, num_gpus=0)`. This one keeps waiting for its GPU."
        )
        raise RuntimeError(
            f"The shared learner {name!r} did not start within {start_s:g} s: {why}. {fix if num_gpus else 'See its log.'}"
        )


class Seat:
    """A trial's place in a shared learner.

    Attributes:
        actor: The shared learner's actor.
        answer: What its `register` returned.
    """

    def __init__(self, name: str, actor: ActorHandle, answer: dict[str, Any], anchor: Anchor):
        self.name, self.actor, self.answer = name, actor, answer
        self._anchor: Anchor | None = anchor  # for as long as there is this object, or its process
        self._forgotten = weakref.finalize(self, _dropped.append, (actor, self.slot))
        self._forgotten.atexit = False

    @property
    def slot(self) -> int:
        """Number of the slot."""
        return self.answer["slot"]

    def leave(self) -> None:
        """Gives the slot back, once; never fails, also where the shared learner is gone."""
        if self._anchor is None:
            return
        self._forgotten.detach()
        _say_goodbye(self.actor, "release", self.slot)
        self._anchor = None


# Places that were dropped without a goodbye, by a driver that goes on. No remote call is made while Python collects garbage.
_dropped: deque[tuple[ActorHandle, int]] = deque()


def _give_back_dropped() -> None:
    while _dropped:
        actor, slot = _dropped.popleft()
        with suppress(Exception):  # it is gone, perhaps with the Ray that it lived in
            actor.release.remote(slot)


def _say_goodbye(actor: ActorHandle, method: str, *arguments: Any) -> None:
    """Calls a last method, for a while; a shared learner that is gone has no need of it."""
    try:
        if ray.is_initialized():
            ray.get(getattr(actor, method).remote(*arguments), timeout=_LEAVE_S)
    except Exception as error:
        logger.debug("%s of a shared learner had no answer: %s", method, error)


def join(name: str, *arguments: Any, **options: Any) -> Seat:
    """A place for a trial, in the shared learner that there is or in a new one. Waits, with a line in the log, for memory.

    Args:
        name: Of the shared learner.
        arguments: Of the actor's `register`, but for the anchor: the trial's config and the spec of its modules.
        options: Of `shared_learner`, where a new one has to be made.

    Raises:
        ValueError: As `shared_learner` and `register`: among others if the trial can never fit.
        RuntimeError: If the shared learner does not start, or dies again and again while the trial comes in.
    """
    check_options(name, **{key: value for key, value in options.items() if key != "start_s"})
    if not ray.is_initialized():
        ray.init()  # as RLlib does
    _give_back_dropped()
    anchor = Anchor()
    actor, answer = _enter(name, options, lambda actor: actor.register.remote(*arguments, anchor.handle))
    return Seat(name, actor, answer, anchor)


def _enter(name: str, options: dict[str, Any], ask: Any) -> tuple[ActorHandle, Any]:
    """The shared learner and its answer to a client that comes; tries again where it was about to go.

    Args:
        ask: Of an actor the reference to its answer.
    """
    deaths, pause = 0, 0.1
    while True:
        try:
            actor = shared_learner(name, **options)
            return actor, _patient_get(ask(actor), actor, name)
        except Going:
            pass
        except RayActorError as error:
            # The one that is found may have ended a moment ago. One that ends each time is broken.
            deaths += 1
            if deaths > _TRIES:
                raise RuntimeError(
                    f"The shared learner {name!r} died again and again when a client came in: {error}"
                ) from error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, Going):
                pass
            else:
                raise cause from error
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _patient_get(asked: ray.ObjectRef, actor: ActorHandle, name: str) -> Any:
    """An answer, and lines in the log so long as it has to wait for memory."""
    patience = PATIENCE_S
    try:
        while not ray.wait([asked], timeout=patience)[0]:
            try:
                waiting = ray.get(actor.status.remote(), timeout=PATIENCE_S)["waiting"]
            except (RayActorError, GetTimeoutError):
                continue
            if waiting:
                logger.warning(
                    "Waiting for the shared learner %r, where %d trials wait: %s",
                    name,
                    len(waiting),
                    next(iter(waiting.values())),
                )
                patience = min(2 * patience, LONGEST_PATIENCE_S)
        return ray.get(asked)
    except BaseException as error:
        if not isinstance(error, Exception):  # such as Ctrl-C: nobody is to come in any more
            ray.cancel(asked)
        raise


class SharedLearner:
    """One learner for many trials, held for as long as a sweep lasts:

        with SharedLearner() as shared:
            tune.run("MADDPG", config={..., "shared_learner": shared.name})

    It learns on one GPU of the Ray cluster if there is one, and trials ask for none. At the end of the block, also after
    Ctrl-C, it goes as soon as no trial is left. Without a holder the first trial makes it, and it goes when there was no trial
    for some seconds. It also ends with the process that holds it and its trials, however those end.

    Attributes:
        name: For the setting `shared_learner` of the trials.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        num_gpus: float | None = None,
        max_wait_ms: float | None = None,
        max_slots: int | None = None,
    ):
        """
        Args:
            name: Its name; sweeps of different names share nothing.
            num_gpus: GPUs that it takes, 0 to 1. None: 1 if the Ray cluster has one, else 0.
            max_wait_ms: Milliseconds that an update waits for those of other trials. None: a measured default.
            max_slots: Trials at the same time; more wait. None: as many as there is memory for.

        Raises:
            ValueError: For a value that is not allowed.
        """
        check_options(name, num_gpus, max_wait_ms, max_slots)
        self.name = name
        self._options = {"num_gpus": num_gpus, "max_wait_ms": max_wait_ms, "max_slots": max_slots}
        self._holder = uuid.uuid4().hex
        self._anchor: Anchor | None = None

    def __enter__(self) -> SharedLearner:
        """Starts it, unless there is one of this name, and holds it.

        Raises:
            ValueError: If there is no Ray, or no GPU in its cluster and one is asked for.
            RuntimeError: If it does not start, for example because all GPUs are taken.
        """
        if not ray.is_initialized():
            raise ValueError("A shared learner lives in Ray, and there is none: call `ray.init()` first.")
        anchor = Anchor()
        _enter(self.name, self._options, lambda actor: actor.hold.remote(self._holder, anchor.handle))
        self._anchor = anchor
        return self

    def __exit__(self, *exception: Any) -> None:
        """Gives the hold up; never fails."""
        try:
            # By its name: another one may have come after one that died.
            if ray.is_initialized():
                _say_goodbye(self._actor(), "unhold", self._holder)
        except RuntimeError as error:
            logger.debug("%s", error)
        self._anchor = None

    def status(self) -> dict[str, Any]:
        """Who is there, memory, and how many updates were made in how many passes.

        Raises:
            RuntimeError: If there is none now.
        """
        try:
            return ray.get(self._actor().status.remote())
        except RayActorError as error:
            raise RuntimeError(f"The shared learner {self.name!r} is gone: {error}") from error

    def _actor(self) -> ActorHandle:
        try:
            return ray.get_actor(actor_name(self.name), namespace=NAMESPACE)
        except ValueError as error:
            raise RuntimeError(f"There is no shared learner {self.name!r} now.") from error
