"""The algorithm and its replay buffer: what is stored, drawn for the Learners and told back to it."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import REPLAY_BUFFER_UPDATE_PRIOS_TIMER
from ray.tune.execution.placement_groups import PlacementGroupFactory

from rllib_maddpg.algorithm.timers import Timers
from rllib_maddpg.config.replay_checks import replay_resources
from rllib_maddpg.replay.answers import check_stored
from rllib_maddpg.replay.choice import make_replay
from rllib_maddpg.replay.drawing import draw_batches
from rllib_maddpg.replay.protocol import JointReplay
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.sampling.collecting import Collected
from rllib_maddpg.shared.learner_group import SharedLearnerGroup
from rllib_maddpg.shared.replay import SharedReplay


class ReplayAlgorithm(Algorithm):
    """An algorithm that learns from a `JointReplay`.

    Attributes:
        replay_buffer: Made by `_make_replay_buffer`.
        schema, _durations, _env_steps, _episode_numbers: Set by the subclass.
    """

    replay_buffer: JointReplay
    schema: RowSchema
    _durations: Timers
    _env_steps: int
    _episode_numbers: dict[int, list[int]]

    @override(Algorithm)
    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """None: ours needs to know the env runners' spaces, and is made later."""

    def _make_replay_buffer(self) -> None:
        if isinstance(self.learner_group, SharedLearnerGroup):
            self.replay_buffer = SharedReplay(self.learner_group.client, self.schema, self.config.replay_buffer_config)
        else:
            self.replay_buffer = make_replay(self.schema, self.config.seed, self.config.replay_buffer_config)
        if self.replay_buffer.wants_feedback:
            of = self.replay_buffer.feedback_of
            self.learner_group.foreach_learner(lambda learner: learner.collect_td_errors(of))

    def _store(self, collected: Collected) -> int:
        """Keeps all rows that are sound, and raises what went wrong with others; returns the env steps of those that it keeps.

        Raises:
            ValueError: If a rollout has an error, or the replay buffer does not say what it has stored.
        """
        errors = [collected.error] if collected.error else []
        before = self._env_steps
        answers = self.replay_buffer.store(collected.rollouts)
        check_stored(self.replay_buffer, answers, len(collected.rollouts))
        for rollout, stored in zip(collected.rollouts, answers, strict=True):
            if stored.error:
                errors.append(ValueError(stored.error))
            if stored.error or stored.lost:
                continue
            # Rows are env steps, but in games of turns.
            self._env_steps += rollout.env_steps() if self.config.turn_based else stored.rows
            self._episode_numbers[rollout.worker_index] = rollout.episode_numbers
            if rollout.error:
                errors.append(ValueError(rollout.error))
        if errors:
            raise errors[0]
        return self._env_steps - before

    def _draw(self, updates: int, rows: int) -> dict[str, Any]:
        """Rows of so many updates, `rows` of each for every Learner, as `LearnerGroup.update` takes them.

        Raises:
            ValueError: If the replay buffer does not draw what it is asked for.
        """
        newest = self.config.total_train_batch_size if self.config.needs_newest_rows else 0
        shuffled = self.config.minibatch_per_module
        if isinstance(self.replay_buffer, SharedReplay):  # which draws where the Learner is
            return {"batch": self.replay_buffer.ask(updates, rows, shuffled, newest)}
        batches = draw_batches(self.replay_buffer, self.config.num_learners or 1, updates, rows, shuffled, newest)
        return {"batch_refs": [ray.put(batch) for batch in batches]} if self.config.num_learners else {"batch": batches[0]}

    def _give_feedback(self) -> None:
        """Tells the replay buffer what its last draw taught, if it wants to know."""
        if not self.replay_buffer.wants_feedback:
            return
        with self._durations(REPLAY_BUFFER_UPDATE_PRIOS_TIMER):
            answers = self.learner_group.foreach_learner(lambda learner: learner.take_td_errors())
            # A local Learner has no id.
            in_order = sorted(answers, key=lambda answer: answer.actor_id or 0)
            self.replay_buffer.feedback([answer.get() for answer in in_order])

    @classmethod
    @override(Algorithm)
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """RLlib's, and a bundle for each actor of the replay buffer."""
        request = super().default_resource_request(config)
        own = cls.get_default_config().update_from_dict(config)
        return PlacementGroupFactory([*request.bundles, *replay_resources(own)], strategy=request.strategy)

    @override(Algorithm)
    def cleanup(self) -> None:
        super().cleanup()
        # There is none yet if the setup has failed.
        if hasattr(self, "replay_buffer"):
            self.replay_buffer.stop()
