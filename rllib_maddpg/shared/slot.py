"""One trial in the shared learner: its Learner, its replay buffer, and a call of its `update`. All of it in one thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.replay.answers import check_can_travel, check_own_state, check_stored
from rllib_maddpg.replay.choice import make_replay, replay_class
from rllib_maddpg.replay.drawing import draw_batches
from rllib_maddpg.shared.calls import Draw, Failed, ReplayAnswer, UpdateAnswer, UpdateRequest
from rllib_maddpg.shared.scheduler import Made


def config_there(config: AlgorithmConfig, device: str) -> AlgorithmConfig:
    """A trial's config as its Learner in the shared learner has it: one Learner in one process, on that one's device.

    Args:
        config: The trial's.
        device: "cpu" or "cuda".
    """
    config = config.copy(copy_frozen=False)
    config.shared_learner = None
    config.num_gpus_per_learner = int(device != "cpu")
    config.local_gpu_idx = 0
    config.process_wide_speedups = True  # the process is the shared learner's alone
    # Rows lie beside the Learner, unless their class knows no devices.
    replay = dict(config.replay_buffer_config)
    knows_devices = "device" in inspect.signature(replay_class(replay)).parameters
    config.replay_buffer_config = {**replay, "device": device if knows_devices else "cpu"}
    return config


class Slot:
    """A trial's Learner and replay buffer, as they would be in its own process.

    Attributes:
        learner: A real Learner.
        replay: A real replay buffer.
        rows: That it held after the last call.
    """

    def __init__(self, config: AlgorithmConfig, module_spec: MultiRLModuleSpec, updates: SlotUpdates):
        """
        Args:
            config: As `config_there` makes it.
            module_spec: Of the trial's modules.
            updates: What makes the updates of all trials.
        """
        self.config = config
        self.learner = config.learner_class(config=config, module_spec=module_spec)
        self.learner.build()
        self.replay = make_replay(self.learner.schema, config.seed, config.replay_buffer_config)
        self.learner.collects_td_errors = self.replay.wants_feedback
        self.rows = 0
        self._updates = updates
        updates.add(self.learner)

    def close(self) -> None:
        """Ends what the trial has here."""
        self._updates.remove(self.learner)
        self.replay.stop()

    def apply(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What a function of the Learner returns, or how it failed."""
        try:
            return func(self.learner, *args, **kwargs)
        except Exception as error:
            return Failed.of(error)

    def call_replay(self, rollouts: Sequence[Any], method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Stores rollouts, and calls a method of the replay buffer; "" for none. How it failed, if it did."""
        try:
            self.store(rollouts)
            value = getattr(self.replay, method)(*args, **kwargs) if method else None
            if method == "store":
                check_stored(self.replay, value, len(args[0]))
            elif method == "get_state":
                check_own_state(self.replay, value)
                check_can_travel(self.replay, value)
            return ReplayAnswer(value, self.count())
        except Exception as error:
            return Failed.of(error)

    def count(self) -> int:
        """Rows that the replay buffer holds."""
        self.rows = len(self.replay)
        return self.rows

    def store(self, rollouts: Sequence[Any]) -> None:
        """Keeps rollouts that the trial has found sound, and counted."""
        if rollouts:
            check_stored(self.replay, self.replay.store(rollouts), len(rollouts))

    def begin(self, request: UpdateRequest) -> SlotCall:
        """Stores and draws what the trial asks for, and begins the call."""
        self.store(request.rollouts)
        batch = request.batch
        if isinstance(batch, Draw):
            (batch,) = draw_batches(self.replay, 1, batch.updates, batch.rows, batch.shuffled, batch.newest)
        call = self.learner.begin_call(batch, request.timesteps, request.minibatch_size, request.keeps_metrics)
        return SlotCall(self.learner, call)

    def end(self, call: SlotCall) -> tuple[dict[str, Any], tuple[int, Any]]:
        """Ends the call; metrics, and the new actors."""
        if call.error is not None:
            raise call.error
        metrics = self.learner.end_call(call.call)
        if self.replay.wants_feedback:
            self.replay.feedback([self.learner.take_td_errors()])
        return metrics, self.learner.get_actor_weights()


class UpdateWork:
    """A call of `update`, from its first pass to its last."""

    def __init__(self, slot: Slot, request: UpdateRequest):
        self._slot, self._request = slot, request
        self._call: SlotCall | None = None
        self._failed: Failed | None = None
        self._done: tuple[dict[str, Any], tuple[int, Any]] | None = None
        self._stored = 0

    @property
    def is_over(self) -> bool:
        """Whether it has an answer."""
        return self._failed is not None or self._done is not None

    def answer(self, made: Made) -> UpdateAnswer | Failed:
        """What the trial gets."""
        if self._failed is not None:
            return self._failed
        metrics, weights = self._done
        return UpdateAnswer(metrics, weights, self._stored, made)

    def _begin(self) -> SlotCall | None:
        """What is to be made in this pass; None: nothing."""
        try:
            if self._call is None:
                self._call = self._slot.begin(self._request)
        except Exception as error:
            self._failed = Failed.of(error)
        return None if self._failed is not None or self._call.is_over else self._call

    def _end(self) -> None:
        try:
            if not self.is_over and self._call.is_over:
                self._done = self._slot.end(self._call)
                self._stored = self._slot.count()
        except Exception as error:
            self._failed = Failed.of(error)

    @staticmethod
    def make(works: Sequence[UpdateWork], updates: SlotUpdates) -> int:
        """Makes one update of each call, and says in how many passes; what goes wrong in one call stays in it."""
        before = updates.passes
        calls = [call for work in works if (call := work._begin()) is not None]
        if calls:
            updates.make(calls)
        for work in works:
            work._end()
        return updates.passes - before
