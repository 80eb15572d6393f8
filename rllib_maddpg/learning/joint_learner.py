"""Updates from joint rows, in stages, whatever their losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.rllib.utils.schedules.scheduler import Scheduler
from torch import Tensor

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.context import UpdateContext
from rllib_maddpg.learning.finite_checks import FiniteCheck, ImmediateCheck
from rllib_maddpg.learning.gradients import ClippedGradients, clipped_gradients
from rllib_maddpg.learning.groups import learning_in, of_role, once_each
from rllib_maddpg.learning.reported_learner import ReportedTorchLearner
from rllib_maddpg.learning.stages import Stage, check_losses, check_stages
from rllib_maddpg.learning.update_call import UpdateCall
from rllib_maddpg.learning.update_noise import CounterNoise, UpdateNoise
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.rows.joint_batch import JointBatch


class JointTorchLearner(ReportedTorchLearner):
    """A Learner whose losses need the rows of all modules at once.

    - It takes `JointBatch`es, and as many updates in one call as `minibatch_size` makes of a batch.
    - An update is a list of `stages`, which share an `UpdateContext`.
    - That of several Learners is that of one Learner on all rows.
    """

    @classmethod
    def stages(cls, config: Any) -> list[Stage]:
        """The steps of an update, in order.

        Args:
            config: The algorithm's config.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ setting up

    @override(ReportedTorchLearner)
    def build(self) -> None:
        super().build()
        self._stages = self.stages(self.config)
        networks = {m: self._networks(m).network_specs for m in self._learnable}
        roles = {m: {spec.role for spec in specs if spec.lr is not None} for m, specs in networks.items()}
        check_stages(self._stages, type(self).__name__, roles)
        self._temperature_schedule = Scheduler(self.config.exploration_temperature)
        self._temperature = torch.ones((), dtype=torch.float64, device=self._device)

    @override(ReportedTorchLearner)
    def stand_alone(self) -> None:
        super().stand_alone()
        self._temperature = self._temperature.clone()

    # ------------------------------------------------------------------------------------------ updates

    @override(Learner)
    def update(
        self,
        batch: JointBatch | MultiAgentBatch | Any = None,
        *,
        batch_refs: list | None = None,
        training_data: TrainingData | None = None,
        timesteps: Mapping[str, Any] | None = None,
        minibatch_size: int | None = None,
        _no_metrics_reduce: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """One update of all modules, or one after the other on parts of the batch.

        Args:
            batch: Joint rows, or what stands for them (`JointReplay.draw`); or per module columns `[B, n, dim]`, `[B, n]`.
            batch_refs: A Ray reference to one such batch instead.
            training_data: Either of these, as `LearnerGroup.update` wraps it.
            timesteps: `{"num_env_steps_sampled_lifetime": env steps}`, for schedules and target updates.
            minibatch_size: Rows of each update; None: all at once.
            _no_metrics_reduce: True: metrics are kept back until an update that reports them, which costs less.

        Returns:
            Metrics, or none if they are kept back.

        Raises:
            ValueError: For NaN or infinity in rows, losses or gradients. Updates before it have been made.
        """
        data = training_data or TrainingData(batch=batch, batch_refs=batch_refs)
        data.validate()
        data.solve_refs()
        call = self.begin_call(data.batch, timesteps, minibatch_size, _no_metrics_reduce)
        while call.updates_left:
            self._update(self.next_minibatch(call))
            self.has_made_update(call)
        return self.end_call(call)

    def begin_call(
        self,
        batch: JointBatch | MultiAgentBatch | Any,
        timesteps: Mapping[str, Any] | None = None,
        minibatch_size: int | None = None,
        keeps_metrics: bool = False,
    ) -> UpdateCall:
        """Begins a call of `update`, whose updates are then made one by one; arguments as there."""
        self._td_errors.clear()
        self.before_gradient_based_update(timesteps=dict(timesteps or {}))
        self._weights_seq_no += 1
        rows = self._to_device(batch)
        return UpdateCall(rows, minibatch_size or len(rows), dict(timesteps or {}), keeps_metrics)

    def next_minibatch(self, call: UpdateCall) -> JointBatch:
        """The rows of the next update of a call."""
        # RLlib shows the metrics of the last update only, so no other needs any.
        self._updates_to_report = None if call.keeps_metrics else call.updates_left - 1
        return call.minibatch

    def has_made_update(self, call: UpdateCall) -> None:
        """Goes on to the next update of a call."""
        self._rows_trained += call.next_rows
        call.made += 1

    def end_call(self, call: UpdateCall) -> dict[str, Any]:
        """Ends a call whose updates are made; returns what `update` does."""
        self.finish_updates()
        self.after_gradient_based_update(timesteps=dict(call.timesteps))
        if call.keeps_metrics:
            return {}
        self._log_metrics_of_updates(call.step)
        return self.metrics.reduce()

    def _to_device(self, batch: JointBatch | MultiAgentBatch | Any) -> JointBatch:
        if isinstance(batch, MultiAgentBatch):
            batch = JointBatch.from_modules(self.schema, batch.policy_batches)
        return batch.to(self._device, self.schema)

    @override(Learner)
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self._env_steps = int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self._env_steps))

    @override(TorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        if self._updates_to_report is not None or self._lr_schedulers:
            super().after_gradient_based_update(timesteps=timesteps)
        else:  # RLlib would log all learning rates, too
            for optimizer, schedule in self._optimizer_lr_schedules.items():
                self._set_optimizer_lr(optimizer, schedule.update(self._env_steps))

    @override(TorchLearner)
    def _uncompiled_update(self, batch: JointBatch, **kwargs: Any) -> tuple[dict, dict, dict]:
        self._tie()
        plan = self.begin_update(batch)
        self.end_update(self.run_update(batch, plan))
        return {}, {}, {}

    def end_update(self, results: UpdateResults) -> None:
        """Keeps what an update has left."""
        if not results.was_skipped:
            self._update_metrics.add(results.metrics)
        if results.td_sums is not None:
            self._td_errors.add(results.td_sums)
        if results.moved_targets:
            self._last_target_update = self._env_steps

    def begin_update(self, batch: JointBatch) -> UpdatePlan:
        """Whatever of the next update does not depend on numbers on the device."""
        self._num_updates += 1
        return UpdatePlan(
            # Asked once, so that all stages of this update are about the same modules.
            trained=tuple(m for m in self.layout.modules if self._is_trained(m, batch)),
            stages=tuple(k for k, stage in enumerate(self._stages) if not self._num_updates % stage.every),
            moves_targets=self._env_steps - self._last_target_update >= self.config.target_network_update_freq,
            reports=self._updates_to_report == 0,
            keeps_td_errors=self.collects_td_errors,
        )

    def _tell_device(self, number: int) -> None:
        if isinstance(self._noise, CounterNoise):
            self._noise.number.fill_(number)
        self._temperature.fill_(self.exploration_temperature)
        self.write_schedules()

    @property
    def exploration_temperature(self) -> float:
        """That of the env runners now."""
        return self._temperature_schedule.update(self._env_steps)

    def run_update(self, batch: JointBatch, plan: UpdatePlan) -> UpdateResults:
        """Makes an update.

        Args:
            batch: Its rows, on the device.
            plan: What is due in it.
        """
        self._tell_device(self._num_updates)
        return self._make_update(batch, plan, ImmediateCheck())

    def finish_updates(self) -> None:
        """Called after the last update of a call."""

    def _make_update(self, batch: JointBatch, plan: UpdatePlan, check: FiniteCheck) -> UpdateResults:
        return self.run_stages(self._context(batch, plan, check))

    def run_stages(self, ctx: UpdateContext) -> UpdateResults:
        """The stages of an update, one after the other."""
        batch, plan, check = ctx.batch, ctx.plan, ctx.check
        if plan.keeps_td_errors:
            ctx.results.td_sums = batch.joint_rows.new_zeros(3, *batch.joint_rows.shape[:-1])
        check.begin()
        for ctx.stage in plan.stages:
            stage = self._stages[ctx.stage]
            # The metrics of a stage that runs more rarely stay until it runs again.
            ctx.metrics_stay = stage.every > 1
            ctx.reports = ctx.metrics_stay or plan.reports
            if stage.run(self, ctx) is False:
                break
        else:
            if ctx.moments is not None:
                ctx.moments.keep(check.skip)
            self._note_total_losses(ctx)
        check.end()
        return ctx.results

    def _context(self, batch: JointBatch, plan: UpdatePlan, check: FiniteCheck) -> UpdateContext:
        moments = None
        if self._normalizer is not None:
            batch, moments = self._normalizer.normalized(batch, plan.trained)
        rows_of = self._minibatches(batch)
        return UpdateContext(
            batch,
            rows_of,
            plan,
            check,
            self._groups,
            {m: module for m, module in self._rules.items() if m not in plan.trained},
            UpdateNoise(self._noise, rows_of.values()),
            self._temperature,
            distributed=self._world > 1,
            smooths=any(config.target_policy_noise for config in self._configs.values()),
            moments=moments,
        )

    def _minibatches(self, batch: JointBatch) -> dict[str, JointBatch]:
        """Per module the joint rows it learns from.

        With `minibatch_per_module` the batch holds a draw of its own for each of the M modules, interleaved: module d learns
        from the rows d, d + M, d + 2M ... So a shard of the rows is a shard of each module's draw.
        """
        modules = self.layout.modules
        if not self.config.minibatch_per_module:
            return dict.fromkeys(modules, batch)
        return {module_id: batch.rows(slice(d, None, len(modules))) for d, module_id in enumerate(modules)}

    # ------------------------------------------------------------------------------------------ what stages do

    def descend(self, role: str, module_losses: Mapping[str, Tensor], ctx: UpdateContext) -> bool:
        """Gradients of the networks of a role, their sum over Learners, clipping, Adam.

        Args:
            role: That of the networks which learn.
            module_losses: Of each trained module a scalar, by its id.
            ctx: This update.

        Returns:
            False: not finite, so nothing was changed.

        Raises:
            ValueError: For losses of the wrong form, or such as do not depend on a network that is to learn from them.
        """
        found = self._gradients(role, module_losses, ctx)
        if found is None:
            return True
        if not ctx.check.passes(ctx.stage, found.are_finite(ctx.batch.layout)):
            self._skip_or_raise(role, found, ctx)
            return False
        for group, gradients, members in found.of_groups:
            group.optimizer.step(gradients, members, ctx.check.skip_of(group))
        ctx.has_changed(role)
        ctx.stepped.append(role)
        if ctx.reports:
            norms = {f"{network}_gradients_norm": own for network, own in found.norms.items()}
            values = {f"{role}_loss": found.losses, **norms}
            for name, of_modules in values.items():
                modules, numbers = zip(*of_modules.items(), strict=True)
                ctx.results.metrics.note(modules, {name: torch.stack(numbers)}, ctx.metrics_stay)
        return True

    def _gradients(self, role: str, module_losses: Mapping[str, Tensor], ctx: UpdateContext) -> ClippedGradients | None:
        """Of the networks of a role that learn; None: there are none."""
        learning = learning_in(ctx.all_groups(role), ctx.trained)
        check_losses(role, module_losses, learning)
        if not learning:
            return None
        groups = [group for group in ctx.groups(role) if group.is_trainable]
        return clipped_gradients(role, groups, module_losses, self._sum_over_learners)

    def _learning(self, role: str, trained: Sequence[str]) -> list[str]:
        """Those of the trained modules that have networks of a role which learn."""
        return learning_in(of_role(self._groups, role), trained)

    @torch.no_grad()
    def update_targets(self, ctx: UpdateContext) -> None:
        """theta' <- tau theta + (1 - tau) theta' of the trained modules, every `target_network_update_freq` env steps."""
        if not ctx.plan.moves_targets:
            return
        for group in once_each(ctx.learning_groups()):
            if group.target is not None:
                learns = ctx.learns(group) if group.common is None else 1.0  # weights in common are those of somebody who does
                tau = (group.settings.tau * learns).flatten()[: 1 if group.common else None]
                pairs = zip(group.target.parameters, group.network.parameters, strict=True)
                if not group.network.is_stacked:
                    pairs = ((target.unsqueeze(0), source.unsqueeze(0)) for target, source in pairs)
                losses.polyak_update(*zip(*pairs, strict=True), tau, ctx.check.skip_of(group))
        ctx.targets_have_changed()
        ctx.results.moved_targets = True
