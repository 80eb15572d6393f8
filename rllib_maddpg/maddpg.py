"""`MADDPG`: the algorithm as RLlib runs it. `training_step` reads as sample, store, update, sync."""

from __future__ import annotations

import math
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    REPLAY_BUFFER_ADD_DATA_TIMER,
    REPLAY_BUFFER_RESULTS,
    REPLAY_BUFFER_SAMPLE_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from rllib_maddpg.checkpoints import FOLDERS, LAYOUT, damaged, module_folders, read_metadata
from rllib_maddpg.config import MADDPGConfig
from rllib_maddpg.env_runner import EPISODE_NUMBERS
from rllib_maddpg.layout import JointLayout
from rllib_maddpg.replay import JointReplayBuffer, JointRollout

REPLAY_BUFFER = "replay_buffer"
STEPS_SINCE_UPDATE = "env_steps_since_update"


class MADDPG(Algorithm):
    """Multi-Agent Deep Deterministic Policy Gradient (Lowe et al. 2017) on RLlib's new API stack."""

    config: MADDPGConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> MADDPGConfig:
        return MADDPGConfig()

    @override(Algorithm)
    def setup(self, config: MADDPGConfig) -> None:
        super().setup(config)
        spec = next(iter(self._module_specs().values()))
        self.layout: JointLayout = spec.model_config["layout"]
        self.replay_buffer = JointReplayBuffer(
            self.layout, capacity=self.config.replay_buffer_config["capacity"], seed=self.config.seed
        )
        # Env steps sampled for which no update has been made yet.
        self._env_steps_since_update = 0.0
        # Per runner the numbers of its envs' next episodes, so that resumed and restarted runners do not repeat games.
        self._episode_numbers: dict[int, list[int]] = {}

    @override(Algorithm)
    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """None: ours is made at the end of `setup`, when the env runners have told their spaces."""

    def _module_specs(self) -> dict[str, Any]:
        spaces = self.env_runner_group.get_spaces() if self.env_runner_group else None
        return self.config.get_multi_rl_module_spec(spaces=spaces).rl_module_specs

    @override(Algorithm)
    def training_step(self) -> None:
        """Samples, stores, makes the updates that are due, and gives the new actors to the env runners."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, env_runner_results = synchronous_parallel_sample(
                worker_set=self.env_runner_group, concat=True, _uses_new_env_runners=True, _return_metrics=True
            )
        self.metrics.aggregate(env_runner_results, key=ENV_RUNNER_RESULTS)
        with self.metrics.log_time((TIMERS, REPLAY_BUFFER_ADD_DATA_TIMER)):
            self._store(rollouts)
        updates = self._num_updates_due(sum(len(rollout) for rollout in rollouts))
        for _ in range(updates):
            self._update()
        if updates:
            with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)

    def _store(self, rollouts: list[JointRollout]) -> None:
        for rollout in rollouts:
            rollout.check_finite(self.layout)
        for rollout in rollouts:
            self.replay_buffer.add(rollout)
            self._episode_numbers[rollout.worker_index] = rollout.episode_numbers
        for rollout in rollouts:
            if rollout.error:
                raise ValueError(rollout.error)
        self.metrics.log_dict(
            {
                (REPLAY_BUFFER_RESULTS, "num_rows"): len(self.replay_buffer),
                (REPLAY_BUFFER_RESULTS, "fill"): len(self.replay_buffer) / self.replay_buffer.capacity,
            },
            window=1,
        )

    def _num_updates_due(self, new_env_steps: int) -> int:
        """Whole updates owed for the env steps sampled since the last one; the rest is kept for next time.

        An accumulator and not `step % n == 0`, so that the ratio of updates to env steps is the one asked for, whatever number
        of env steps the runners return at once.
        """
        enough = len(self.replay_buffer) >= self.config.total_train_batch_size
        if self._env_steps_sampled() < self.config.num_steps_sampled_before_learning_starts or not enough:
            return 0
        self._env_steps_since_update += new_env_steps
        updates = math.floor(self._env_steps_since_update / self.config.num_env_steps_per_update)
        self._env_steps_since_update -= updates * self.config.num_env_steps_per_update
        return updates

    def _update(self) -> None:
        """One update of all modules from one joint batch."""
        rows = self.config.total_train_batch_size
        if self.config.minibatch_per_module:
            rows *= len(self.layout.modules)
        with self.metrics.log_time((TIMERS, REPLAY_BUFFER_SAMPLE_TIMER)):
            batch = self.replay_buffer.sample(rows)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            learner_results = self.learner_group.update(
                batch=batch, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps_sampled()}
            )
        self.metrics.aggregate(learner_results, key=LEARNER_RESULTS)

    @override(Algorithm)
    def _evaluate_on_local_env_runner(self, env_runner: Any) -> tuple:
        """Noise-free also where RLlib evaluates on the runner that samples for training, having no other."""
        explore, clock = env_runner.config.explore, env_runner.num_env_steps_sampled_lifetime
        env_runner.config.explore = self.evaluation_config.explore
        try:
            results = super()._evaluate_on_local_env_runner(env_runner)
        finally:
            env_runner.config.explore, env_runner.num_env_steps_sampled_lifetime = explore, clock
        if env_runner.sampling_error:
            raise ValueError(env_runner.sampling_error)
        return results

    def _env_steps_sampled(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    @override(Algorithm)
    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        restored = super().restore_env_runners(env_runner_group)
        if restored and env_runner_group is self.env_runner_group:
            self._push_episode_numbers()
        return restored

    def _push_episode_numbers(self) -> None:
        """Tells every runner which episodes it has already played."""
        state = {EPISODE_NUMBERS: self._episode_numbers}
        self.env_runner_group.foreach_env_runner(lambda runner: runner.set_state(state))

    # ------------------------------------------------------------------------------------------ checkpoints

    @override(Algorithm)
    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        components = super().get_checkpointable_components()
        if self.config.store_buffer_in_checkpoints:
            components.append((REPLAY_BUFFER, self.replay_buffer))
        return components

    @override(Algorithm)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self.config.store_buffer_in_checkpoints and self._check_component(REPLAY_BUFFER, components, not_components):
            state[REPLAY_BUFFER] = self.replay_buffer.get_state()
        state[STEPS_SINCE_UPDATE] = self._env_steps_since_update
        state[EPISODE_NUMBERS] = self._episode_numbers
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if REPLAY_BUFFER in state:
            self.replay_buffer.set_state(state[REPLAY_BUFFER])
        self._env_steps_since_update = state.get(STEPS_SINCE_UPDATE, self._env_steps_since_update)
        if EPISODE_NUMBERS in state:
            self._episode_numbers = dict(state[EPISODE_NUMBERS])
            self._push_episode_numbers()

    @override(Algorithm)
    def get_metadata(self) -> dict[str, Any]:
        folders = module_folders(self.layout.modules)
        if self.config.store_buffer_in_checkpoints:
            folders.append(REPLAY_BUFFER)
        return {**super().get_metadata(), LAYOUT: self.layout.description(), FOLDERS: folders}

    @override(Algorithm)
    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restores a checkpoint.

        Raises:
            ValueError: If it is missing, incomplete or of another environment or layout, with nothing changed; or if a file in
                it is damaged, in which case parts may have been restored.
        """
        # Cloud storage and single components are RLlib's own affair.
        if kwargs.get("filesystem") is None and kwargs.get("component") is None:
            metadata = read_metadata(path)
            if LAYOUT in metadata:
                self.layout.check_same(metadata[LAYOUT], f"Checkpoint {path}")
        try:
            super().restore_from_path(path, *args, **kwargs)
        except (OSError, EOFError, KeyError, ImportError, pickle.UnpicklingError) as error:
            raise damaged(path, error) from error

    @classmethod
    @override(Algorithm)
    def from_checkpoint(cls, path: Any, filesystem: Any = None, **kwargs: Any) -> MADDPG:
        """A new algorithm in the state of a checkpoint; errors as in `restore_from_path`."""
        if filesystem is None and isinstance(path, (str, Path)) and "://" not in str(path):
            read_metadata(path)
        return super().from_checkpoint(path, filesystem=filesystem, **kwargs)
