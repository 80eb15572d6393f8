"""What a trial has instead of Learners of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.utils.annotations import override

from rllib_maddpg.shared.calls import UpdateRequest
from rllib_maddpg.shared.client import SlotClient, SlotManager
from rllib_maddpg.shared.life import join
from rllib_maddpg.shared.replay import DrawnThere
from rllib_maddpg.shared.scheduler import Made


class SharedLearnerGroup(LearnerGroup):
    """RLlib's group of Learners, for one Learner in the shared learner. All but `update` is RLlib's.

    Attributes:
        client: The trial's place in the shared learner.
        actor_weights: The actors after the last update, as `get_actor_weights` returns them; they come with its answer.
    """

    def __init__(self, *, config: AlgorithmConfig, module_spec: MultiRLModuleSpec, name: str):
        """Asks the shared learner for a place, and waits until it has one.

        Args:
            config: The trial's.
            module_spec: Of its modules.
            name: Of the shared learner, which is made if there is none.

        Raises:
            ValueError: If the trial can never fit, or a setting is found to be wrong only there.
        """
        self._is_shut_down = True  # there is nothing to give back yet
        self.config = config.copy(copy_frozen=False)
        self._module_spec = module_spec
        seat = join(name, config, module_spec)
        self._is_shut_down = False
        self.client = SlotClient(name, seat)
        self.actor_weights: tuple[int, np.ndarray] | None = None
        self._made: list[Made] = []
        self._learner = None
        self._worker_manager = SlotManager(self.client)
        self._workers = [self.client]
        self._ts_dropped = 0

    @property
    @override(LearnerGroup)
    def is_remote(self) -> bool:
        return True

    @override(LearnerGroup)
    def update(
        self,
        *,
        batch: Any = None,
        batch_refs: list | None = None,
        training_data: TrainingData | None = None,
        timesteps: dict[str, Any] | None = None,
        minibatch_size: int | None = None,
        _no_metrics_reduce: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """As the Learner's `update`, in one call of the shared learner; also of what its replay buffer shall draw.

        Raises:
            ValueError: As that one's.
            SharedLearnerDied: If the shared learner has.
        """
        if kwargs.get("async_update"):
            raise ValueError("`update(async_update=True)`: a trial in a shared learner waits for its updates. Leave it out.")
        data = training_data or TrainingData(batch=batch, batch_refs=batch_refs)
        data.validate()
        data.solve_refs()
        rows, rollouts = data.batch, ()
        replay = rows.replay if isinstance(rows, DrawnThere) else None
        if replay is not None:
            rows, rollouts = rows.draw, replay.waiting()
        request = UpdateRequest(rows, rollouts, dict(timesteps or {}), minibatch_size, _no_metrics_reduce)
        try:
            answer = self.client.update(request)
        finally:
            if replay is not None:
                replay.have_gone()
        if replay is not None:
            replay.note(answer.stored)
        self.actor_weights = answer.weights
        self._made.append(answer.made)
        return [answer.metrics]

    def take_metrics(self) -> dict[str, float]:
        """How the updates since the last time were made; nothing where there were none."""
        calls, self._made = self._made, []
        updates = sum(call.updates for call in calls)
        if not updates:
            return {}
        return {
            "slot": self.client.slot,
            "slots_per_pass_mean": sum(call.slots for call in calls) / updates,
            "wait_ms_mean": 1000 * sum(call.waited for call in calls) / updates,
        }

    @override(LearnerGroup)
    def set_state(self, state: dict[str, Any]) -> None:
        # RLlib has Learners fetch it, for which an async actor would have to wait.
        if COMPONENT_LEARNER in state:
            set_it = lambda learner, state: learner.set_state(state)  # noqa: E731
            self._worker_manager.foreach_actor(set_it, kwargs={"state": state[COMPONENT_LEARNER]})

    @override(LearnerGroup)
    def get_stats(self) -> dict[str, Any]:
        return {"learner_group_ts_dropped_lifetime": 0, "actor_manager_num_outstanding_async_reqs": 0}

    @override(LearnerGroup)
    def shutdown(self) -> None:
        """Gives the trial's place back. Waits for nobody who is dead."""
        if not self._is_shut_down:
            self._is_shut_down = True
            if ray.is_initialized():
                self.client.leave()

    def __del__(self) -> None:
        # RLlib's would wait for an answer of Ray while Python collects garbage. `Seat` and the line end by themselves.
        pass
