"""One trial in the shared learner: its Learner, its replay buffer, and a call of its `update`. All of it in one thread."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

from rllib_maddpg.learning.slot_stack import MAX_ROWS_ON_CPU
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.replay.answers import check_can_travel, check_own_state, check_stored
from rllib_maddpg.replay.choice import make_replay, replay_class
from rllib_maddpg.replay.drawing import draw_batches
from rllib_maddpg.shared.calls import Draw, Failed, ReplayAnswer, UpdateAnswer, UpdateRequest, check_answer_can_travel
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
        if self.replay.wants_feedback:
            self.learner.collect_td_errors(self.replay.feedback_of)
        self.rows = 0
        self._updates = updates
        updates.add(self.learner)

    def close(self) -> None:
        """Ends what the trial has here: nothing else is called any more."""
        is_on_gpu = self.learner._device.type == "cuda"
        try:
            self._updates.remove(self.learner)
        finally:
            try:
                self.replay.stop()
            finally:
                del self.learner, self.replay
                if is_on_gpu:
                    gc.collect()  # Learners hold themselves in circles, and with them memory that was promised to others

    def apply(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What a function of the Learner returns, or how it failed."""
        try:
            try:
                value = func(self.learner, *args, **kwargs)
            finally:
                self._updates.look_again(self.learner)
            check_answer_can_travel(func, value)
            return value
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

    def end(self, call: SlotCall) -> dict[str, Any]:
        """Ends the call; its metrics."""
        if call.error is not None:
            raise call.error
        metrics = self.learner.end_call(call.call)
        if self.replay.wants_feedback:
            self.replay.feedback([self.learner.take_td_errors()])
        self.count()
        return metrics


class UpdateWork:
    """A call of `update`, from its first pass to its last.

    Attributes:
        is_alone: As of `Work`: on a CPU larger batches are learned from one after the other.
    """

    def __init__(self, slot: Slot, request: UpdateRequest):
        self._slot, self._request = slot, request
        rows = request.minibatch_size or len(request.batch)
        self.is_alone = slot.learner._device.type == "cpu" and rows > MAX_ROWS_ON_CPU
        self._call: SlotCall | None = None
        self._failed: Failed | None = None
        self._metrics: dict[str, Any] | None = None
        self._weights: tuple[int, np.ndarray] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has an answer."""
        return self._failed is not None or self._weights is not None

    def answer(self, made: Made) -> UpdateAnswer | Failed:
        """What the trial gets."""
        return self._failed or UpdateAnswer(self._metrics, self._weights, self._slot.rows, made)

    @staticmethod
    def make(works: Sequence[UpdateWork], updates: SlotUpdates) -> int:
        """Makes one update of each call, and says in how many passes; what goes wrong in one call stays in it."""
        before = updates.passes
        calls = [call for work in works if (call := work._begin()) is not None]
        if calls:
            updates.make(calls)
        ended = [work for work in works if work._has_ended()]
        if ended:
            _fetch_weights(ended)
        return updates.passes - before

    def _begin(self) -> SlotCall | None:
        """What is to be made in this pass; None: nothing."""
        try:
            if self._call is None:
                self._call = self._slot.begin(self._request)
        except Exception as error:
            self._failed = Failed.of(error)
        return None if self._failed is not None or self._call.is_over else self._call

    def _has_ended(self) -> bool:
        """Whether all updates are made, and only the weights are missing."""
        try:
            if self._failed is None and self._call.is_over:
                self._metrics = self._slot.end(self._call)
                return True
        except Exception as error:
            self._failed = Failed.of(error)
        return False


@torch.no_grad()
def _fetch_weights(works: Sequence[UpdateWork]) -> None:
    """The new actors, in one transfer from the device."""
    learners = [work._slot.learner for work in works]
    vectors = [torch.cat([t.flatten() for t in learner.actor_state()]) for learner in learners]
    flat = torch.cat(vectors).cpu().numpy()
    ends = np.cumsum([len(vector) for vector in vectors])[:-1]
    for work, learner, own in zip(works, learners, np.split(flat, ends), strict=True):
        work._weights = learner._weights_seq_no, own
