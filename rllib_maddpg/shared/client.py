"""A trial's place in the shared learner, as the trial sees it."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError
from ray.rllib.utils.actor_manager import FaultTolerantActorManager, RemoteCallResults
from ray.rllib.utils.annotations import override

from rllib_maddpg.shared.calls import Draw, Failed, UpdateAnswer, UpdateRequest
from rllib_maddpg.shared.life import Seat
from rllib_maddpg.shared.line import line_to

# Seconds after a lost call in which a shared learner is asked whether it is there.
_LOST_S = 60.0


class SharedLearnerDied(RuntimeError):
    """There is nobody any more to learn for a trial, and nothing that could be saved."""


class SlotClient:
    """Calls the shared learner for one trial, and waits for what it answers.

    Attributes:
        name: Of the shared learner.
        slot: The trial's number there.
        actor: The shared learner.
    """

    def __init__(self, name: str, seat: Seat):
        """
        Args:
            name: Of the shared learner.
            seat: The trial's place there.
        """
        self.name, self.slot, self.actor = name, seat.slot, seat.actor
        self._seat = seat
        self._line = line_to(seat.answer.get("line"))

    def update(self, request: UpdateRequest) -> UpdateAnswer:
        """Has updates made; errors as in `call`."""
        # Whatever else than a draw is learned from may be of a user's class, which Ray knows how to send.
        if self._line is None or not isinstance(request.batch, Draw):
            return self.call("update", request)
        try:
            answer = self._line.ask(self.slot, request)
        except (OSError, EOFError) as error:
            raise self._lost() from error
        if isinstance(answer, Failed):
            answer.throw()
        return answer

    def _lost(self) -> RuntimeError:
        """What has become of the shared learner, whose line is dead."""
        if self.has_died():
            return self.died()
        return RuntimeError(f"The line to the shared learner {self.name!r} broke. The trial goes on from its last checkpoint.")

    def has_died(self) -> bool:
        """Whether it has, after a call that was lost; for a moment Ray may not know."""
        deadline = time.monotonic() + _LOST_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                ray.get(self.actor.status.remote(), timeout=left)
                return False
            except ActorUnavailableError:
                time.sleep(0.5)
            except RayActorError:
                return True
            except GetTimeoutError:
                pass
        return False

    def call(self, method: str, *args: Any) -> Any:
        """What a method of the actor answers.

        Raises:
            SharedLearnerDied: If it has.
            ActorUnavailableError: If it cannot be reached for now; whether the call was made is not known.
            Exception: That of the Learner or the replay buffer, as if these were here.
        """
        try:
            answer = ray.get(self.begin(method, *args))
        except RayActorError as error:
            if not self.has_died():
                raise
            raise self.died() from error
        if isinstance(answer, Failed):
            answer.throw()
        return answer

    def begin(self, method: str, *args: Any, **kwargs: Any) -> ray.ObjectRef:
        """Calls a method of the actor."""
        return getattr(self.actor, method).remote(self.slot, *args, **kwargs)

    def died(self) -> SharedLearnerDied:
        """What is raised where the shared learner is dead."""
        return SharedLearnerDied(
            f"The shared learner {self.name!r} died, and with it what this trial has learned since its last checkpoint. Ray's "
            "logs say why. The trial goes on from that checkpoint, in a new shared learner, where Tune tries it again: "
            "`FailureConfig(max_failures=3)`."
        )

    def leave(self) -> None:
        """Gives the place back, if anybody is there to take it; raises nothing."""
        if self._line is not None:
            self._line.close()
        self._seat.leave()


class _Apply:
    """`.remote(func)` of a trial's Learner, as RLlib calls an actor's `apply`."""

    def __init__(self, client: SlotClient):
        self._client = client

    def remote(self, func: Any, **kwargs: Any) -> ray.ObjectRef:
        """Calls a function of the Learner."""
        return self._client.begin("apply", func, **kwargs)


class _LearnerHandle:
    """What RLlib takes for the handle of a Learner's actor."""

    def __init__(self, client: SlotClient):
        self.apply = _Apply(client)


class SlotManager(FaultTolerantActorManager):
    """RLlib's manager of remote Learners, for the one of a trial. Errors are raised, as those of a local Learner are."""

    def __init__(self, client: SlotClient):
        """
        Args:
            client: Of the trial.
        """
        super().__init__([_LearnerHandle(client)])
        self._client = client

    @override(FaultTolerantActorManager)
    def healthy_actor_ids(self) -> list[int]:
        ids = super().healthy_actor_ids()
        if not ids:
            raise self._client.died()
        return ids

    @override(FaultTolerantActorManager)
    def foreach_actor(self, *args: Any, **kwargs: Any) -> RemoteCallResults:
        self.healthy_actor_ids()
        results = super().foreach_actor(*args, **kwargs)
        for result in results:
            value = result.get()
            if not result.ok:
                if isinstance(value, RayActorError) and self._client.has_died():
                    raise self._client.died() from value
                # RLlib takes it out of service for any error of Ray, also for an answer that cannot travel.
                self.set_actor_state(result.actor_id, healthy=True)
                raise value
            if isinstance(value, Failed):
                value.throw()
        return results
