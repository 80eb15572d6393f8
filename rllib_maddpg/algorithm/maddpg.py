"""`MADDPG`: the algorithm as RLlib runs it. `training_step` reads as sample, store, update, sync."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    REPLAY_BUFFER_ADD_DATA_TIMER,
    REPLAY_BUFFER_RESULTS,
    REPLAY_BUFFER_SAMPLE_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
)
from ray.tune.result import TIMESTEPS_TOTAL

from rllib_maddpg.algorithm.joint_algorithm import JointAlgorithm
from rllib_maddpg.algorithm.replaying import ReplayAlgorithm
from rllib_maddpg.algorithm.saving import SavedAlgorithm
from rllib_maddpg.algorithm.timers import Timers
from rllib_maddpg.algorithm.tunable import TunableAlgorithm
from rllib_maddpg.config.maddpg_config import MADDPGConfig
from rllib_maddpg.modules.rule_modules import warn_of_trained_rules
from rllib_maddpg.ray_compat import StockAlgorithm, log_value
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema
from rllib_maddpg.sampling.collecting import Collected, RolloutCollector
from rllib_maddpg.sampling.env_runner import EPISODE_NUMBERS
from rllib_maddpg.shared.client import SharedLearnerDied
from rllib_maddpg.shared.learner_group import SharedLearnerGroup

# Where results say how updates in a shared learner were made.
SHARED_LEARNER = "shared_learner"
# More would need too much memory for their rows.
MAX_UPDATES_PER_CALL = 16


class MADDPG(SavedAlgorithm, ReplayAlgorithm, JointAlgorithm, TunableAlgorithm, StockAlgorithm):
    """Multi-Agent Deep Deterministic Policy Gradient (Lowe et al. 2017) on RLlib's new API stack."""

    config: MADDPGConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> MADDPGConfig:
        return MADDPGConfig()

    @override(Algorithm)
    def _set_up_metrics(self) -> None:
        """RLlib's, and the rest of the setup: the last step before `on_algorithm_init`, which gets a whole algorithm."""
        super()._set_up_metrics()
        specs = self._module_specs()
        warn_of_trained_rules(self.config, {m: spec.module_class for m, spec in specs.items()})
        self.schema: RowSchema = next(iter(specs.values())).model_config["schema"]
        self.layout: JointLayout = self.schema.layout
        self._make_replay_buffer()
        self.collector = RolloutCollector(self.env_runner_group, self.config)
        if self.config.num_env_runners and self.env_runner is not None:
            # RLlib leaves the local runner out, where `get_module()` looks.
            module = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
            self.env_runner.set_state(self.learner_group.get_state(module, inference_only=True)[COMPONENT_LEARNER])
        # RLlib's own would wait for a dead runner, and the others with it.
        self.env_runner_group.probe_unhealthy_env_runners = lambda: self.collector.probe()
        # New actors for the remote env runners.
        self._new_weights: tuple[int, np.ndarray] | None = None
        self._durations = Timers()
        # Lifetime counts, and the env steps at which metrics were reported last.
        self._env_steps = 0
        self._num_updates = 0
        self._reported_at = 0
        self._iteration_began: tuple[int, int] | None = None  # number of the iteration, env steps at its start
        # Env steps sampled for which no update has been made yet.
        self._env_steps_since_update = 0.0
        # Per runner the numbers of its envs' next episodes, so that resumed and restarted runners do not repeat games.
        self._episode_numbers: dict[int, list[int]] = {}

    def _module_specs(self) -> dict[str, Any]:
        spaces = self.env_runner_group.get_spaces() if self.env_runner_group else None
        return self.config.get_multi_rl_module_spec(spaces=spaces).rl_module_specs

    @override(Algorithm)
    def training_step(self) -> None:
        """Samples, stores, makes the updates that are due, and gives the new actors to the env runners.

        Before an error leaves it, a checkpoint is written: nothing that was trained or stored is lost.
        """
        try:
            self._sample_store_update_sync()
        except SharedLearnerDied:
            raise  # with all that could be saved
        except Exception as error:
            self._save_before_raising(error)
            raise

    def _sample_store_update_sync(self) -> None:
        if self._iteration_began is None or self._iteration_began[0] != self.iteration:
            self._iteration_began = self.iteration, self._env_steps
        with self._durations(ENV_RUNNER_SAMPLING_TIMER):
            collected = self.collector.collect(self._new_weights, want_metrics=self._report_is_near())
        with self._durations(REPLAY_BUFFER_ADD_DATA_TIMER):
            new_env_steps = self._store(collected)
        self._new_weights = None
        updates = self._num_updates_due(new_env_steps)
        if updates:
            self._update(updates)
            with self._durations(SYNCH_WORKER_WEIGHTS_TIMER):
                self._sync_weights()
        self._report_sampling(collected)

    def _num_updates_due(self, new_env_steps: int) -> int:
        """Whole updates owed for the env steps sampled since the last one; the rest is kept for next time.

        An accumulator and not `step % n == 0`, so that the ratio of updates to env steps is the one asked for, whatever number
        of env steps the runners return at once.
        """
        enough = len(self.replay_buffer) >= self.config.total_train_batch_size
        if self._env_steps < self.config.num_steps_sampled_before_learning_starts or not enough:
            return 0
        self._env_steps_since_update += new_env_steps
        updates = math.floor(self._env_steps_since_update / self.config.num_env_steps_per_update)
        self._env_steps_since_update -= updates * self.config.num_env_steps_per_update
        return updates

    def _update(self, updates: int = 1) -> None:
        """Updates of all modules, each from a joint batch of its own; several of them in one call of the Learners."""
        rows = self.config.train_batch_size_per_learner
        if self.config.minibatch_per_module:
            rows *= len(self.layout.modules)
        while updates > 0:
            now = min(updates, MAX_UPDATES_PER_CALL)
            updates -= now
            with self._durations(REPLAY_BUFFER_SAMPLE_TIMER):
                batches = self._draw(now, rows)
            report = not updates and self._learner_report_is_due()
            with self._durations(LEARNER_UPDATE_TIMER):
                results = self.learner_group.update(
                    **batches,
                    timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps},
                    minibatch_size=rows,
                    _no_metrics_reduce=not report,
                )
            self._num_updates += now
            self._give_feedback()
        if report:
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def _sync_weights(self) -> None:
        """Gives the new actors to the local env runner, which also is where `get_module()` looks; the others get them with
        what they are asked for next."""
        runner, learners = self.env_runner, self.learner_group
        # From another process, and from a GPU, all of them come in one piece.
        is_beside = learners.is_local and learners._learner._device.type == "cpu"
        if isinstance(learners, SharedLearnerGroup):
            self._new_weights = learners.actor_weights  # came with the answer
        elif self.config.num_env_runners or not is_beside:
            results = learners.foreach_learner(lambda learner: learner.get_actor_weights())
            self._new_weights = next(iter(results)).get()
        if runner is None:
            return
        if is_beside:
            runner.set_actors(learners._learner._weights_seq_no, learners._learner.actor_state())
        else:
            number, vector = self._new_weights
            runner.set_actors(number, runner.split_weights(vector))

    # ------------------------------------------------------------------------------------------ reporting

    # Metrics are collected towards the end of an iteration and not for each fragment: reducing them costs as much as an update.

    def _report_is_near(self) -> bool:
        """Whether the fragments that are asked for now may complete the iteration."""
        pipelined = self.config.num_env_runners and self.config.sample_mode == "pipelined"
        # What is being sampled now comes first.
        return self._may_end_within(self._env_steps_per_round() * (2 if pipelined else 1))

    def _learner_report_is_due(self) -> bool:
        """Whether the next update may come after the end of the iteration."""
        # An iteration may also be said to last so many trained rows.
        by_training = bool(self.config.min_train_timesteps_per_iteration)
        missing = self.config.num_env_steps_per_update - self._env_steps_since_update
        rounds = math.ceil(missing / self._env_steps_per_round())
        # Remote runners may bring less than they were asked for.
        rounds += bool(self.config.num_env_runners)
        return by_training or self._may_end_within(self._env_steps_per_round() * (rounds - 1))

    def _may_end_within(self, env_steps: float) -> bool:
        began = self._iteration_began[1]
        return self._env_steps - began + env_steps >= (self.config.min_sample_timesteps_per_iteration or 0)

    def _env_steps_per_round(self) -> int:
        config = self.config
        return max(1, config.num_env_runners) * config.num_envs_per_env_runner * config.get_rollout_fragment_length()

    def _report_sampling(self, collected: Collected) -> None:
        if not collected.metrics:
            return
        for metrics in collected.metrics:
            # Counted here, since a runner that dies takes its counts with it.
            metrics.pop(NUM_ENV_STEPS_SAMPLED, None)
            metrics.pop(NUM_ENV_STEPS_SAMPLED_LIFETIME, None)
        self.metrics.aggregate(collected.metrics, key=ENV_RUNNER_RESULTS)
        new = self._env_steps - self._reported_at
        log = partial(log_value, self.metrics)
        log((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED), new, reduce="sum", with_throughput=True)
        log((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), new, reduce="lifetime_sum", with_throughput=True)
        self._reported_at = self._env_steps
        self._durations.log(self.metrics)
        buffer = self.replay_buffer
        self.metrics.log_dict(
            {
                (REPLAY_BUFFER_RESULTS, "num_rows"): len(buffer),
                (REPLAY_BUFFER_RESULTS, "fill"): len(buffer) / buffer.capacity,
                (LEARNER_RESULTS, ALL_MODULES, "num_updates_lifetime"): self._num_updates,
            },
            window=1,
        )
        if isinstance(self.learner_group, SharedLearnerGroup):
            self.metrics.log_dict(self.learner_group.take_metrics(), key=SHARED_LEARNER, window=1)

    # ------------------------------------------------------------------------------------------ RLlib's hooks

    @override(Algorithm)
    def _evaluate_on_local_env_runner(self, env_runner: Any) -> tuple:
        """Noise-free also where RLlib evaluates on the runner that samples for training, having no other."""
        config, clock = env_runner.config, env_runner.num_env_steps_sampled_lifetime
        own = config.explore, config.sub_policy
        config.explore, config.sub_policy = self.evaluation_config.explore, self.evaluation_config.sub_policy
        try:
            results = super()._evaluate_on_local_env_runner(env_runner)
        finally:
            (config.explore, config.sub_policy), env_runner.num_env_steps_sampled_lifetime = own, clock
        if env_runner.sampling_error:
            raise ValueError(env_runner.sampling_error)
        return results

    @override(Algorithm)
    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        restored = super().restore_env_runners(env_runner_group)
        if restored and env_runner_group is self.env_runner_group:
            self.collector.forget(restored)
            self._push_episode_numbers(restored)
        return restored

    def _push_episode_numbers(self, runners: list[int] | None = None) -> None:
        """Tells runners (None: all of them) which episodes they have already played, and at which env step training is."""
        state = {EPISODE_NUMBERS: self._episode_numbers, NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps}
        self.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_state(state),
            local_env_runner=runners is None,
            remote_worker_ids=runners,
            timeout_seconds=self.config.env_runner_restore_timeout_s,
        )

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        result = super().step()
        # Tune's loggers (TensorBoard, MLflow, Aim) draw over this; without it, over iterations.
        result[TIMESTEPS_TOTAL] = self._env_steps
        # RLlib asks each runner for the state of its connectors, and waits for the slowest.
        if self.config.has_own_connectors:
            self.env_runner_group.sync_env_runner_states(
                config=self.config, env_to_module=self.env_to_module_connector, module_to_env=self.module_to_env_connector
            )
        # RLlib's own way of telling the clock differs from Ray to Ray.
        state = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps}
        self.collector.tell(state)
        if self.env_runner is not None:
            self.env_runner.set_state(state)
        return result
