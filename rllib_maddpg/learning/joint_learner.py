"""What MADDPG needs of an RLlib Learner, whatever its losses: joint rows, groups of networks, gradients of several Learners."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ray.rllib.core import COMPONENT_OPTIMIZER
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    WEIGHTS_SEQ_NO,
)
from torch import Tensor, nn

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.context import UpdateContext, gumbel_noise_of
from rllib_maddpg.learning.gradients import ClippedGradients, clipped_gradients
from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.learning.groups import ModuleSettings, NetworkGroup, group_networks
from rllib_maddpg.learning.metrics import UpdateMetrics
from rllib_maddpg.learning.process_speedups import speed_up_process
from rllib_maddpg.learning.stages import LossStage, Stage, check_stages
from rllib_maddpg.learning.td_errors import TDErrors
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule, actor_state_of
from rllib_maddpg.modules.rule_modules import acts_by_rule, check_stateless, has_networks
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

logger = logging.getLogger(__name__)


class JointTorchLearner(TorchLearner):
    """A Learner whose losses need the rows of all modules at once.

    - It takes `JointBatch`es, and as many updates in one call as `minibatch_size` makes of a batch.
    - An update is a list of `stages`, which share an `UpdateContext`.
    - Networks that are alike are computed as one (`NetworkGroup`).
    - Several Learners add up their gradients, without DDP, so that their update is that of one Learner on all rows.
    - Metrics are taken of the last update before a report only, and leave the device in one transfer.
    """

    # Whether it keeps what `take_td_errors` returns.
    collects_td_errors = False

    @classmethod
    def stages(cls, config: Any) -> list[Stage]:
        """The steps of an update, in order.

        Args:
            config: The algorithm's config.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ setting up

    @override(TorchLearner)
    def build(self) -> None:
        super().build()
        self._configs = {m: self.config.get_config_for_module(m) for m in self.module.keys()}  # noqa: SIM118
        modules = {m: self._networks(m) for m in self._configs}
        model_config = next(iter(modules.values())).model_config
        self.layout: JointLayout = model_config["layout"]
        self.schema: RowSchema = model_config["schema"]
        check_stateless(modules.items())
        # Those that can be trained, and those that act by a rule of their own while they are not.
        self._learnable = [m for m in self.layout.modules if has_networks(modules[m])]
        self._rules = {m: modules[m] for m in self.layout.modules if acts_by_rule(modules[m])}
        self._stages = self.stages(self.config)
        roles = {m: {spec.role for spec in modules[m].network_specs if spec.lr is not None} for m in self._learnable}
        check_stages(self._stages, type(self).__name__, roles)
        self._env_steps = 0
        self._num_updates = 0
        self._last_target_update = 0
        self._groups: dict[str, list[NetworkGroup]] = {}
        self._optimizers_of: dict[NetworkGroup, GroupOptimizer] = {}
        # Metrics of the last update, and what was trained since they were reported.
        self._update_metrics = UpdateMetrics()
        self._updates_to_report: int | None = 0  # how many come after this one; None: nobody will look
        self._rows_trained = 0
        self._td_errors = TDErrors()
        if self.config.process_wide_speedups:
            speed_up_process()
        seed = self.config.seed if self.config.seed is not None else int(np.random.SeedSequence().entropy % 2**62)
        # On the device, because NCCL knows no other tensors.
        seed = torch.tensor([seed], device=self._device)
        distributed = self.config.num_learners > 1
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        if distributed:
            self._start_alike(seed)
        # Every Learner's generator draws the same numbers.
        self._rng = torch.Generator().manual_seed(int(seed))

    def _start_alike(self, seed: Tensor) -> None:
        """Takes seed and initial weights from the first Learner."""
        dist.broadcast(seed, 0)
        # Also those that are not trained: targets depend on what they do.
        for module_id in sorted(self._configs):
            module = self._networks(module_id)
            for tensor in module.state_dict().values() if isinstance(module, nn.Module) else ():
                dist.broadcast(tensor, 0)

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        """No DDP: its hooks see one backward pass per forward pass, and this update has two; the Learners would drift apart."""

    @override(Learner)
    def should_module_be_updated(self, module_id: str, multi_agent_batch: Any = None) -> bool:
        """True: RLlib would drop the rows of frozen modules from the batch, which all critics need."""
        return True

    def _is_trained(self, module_id: str, batch: JointBatch) -> bool:
        """Whether the module is one of `policies_to_train`, and has networks."""
        return module_id in self._learnable and super().should_module_be_updated(module_id, batch)

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module = self._networks(module_id)
        for spec in module.network_specs if has_networks(module) else ():
            if spec.lr is not None:
                params = list(getattr(module, spec.name).parameters())
                self.register_optimizer(
                    module_id=module_id,
                    optimizer_name=spec.name,
                    optimizer=torch.optim.Adam(params, fused=True),
                    params=params,
                    lr_or_lr_schedule=config.learning_rate(spec.lr),
                )

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
            ValueError: For NaN or infinity in rows, losses or gradients.
        """
        self._td_errors.clear()
        data = training_data or TrainingData(batch=batch, batch_refs=batch_refs)
        data.validate()
        data.solve_refs()
        self.before_gradient_based_update(timesteps=dict(timesteps or {}))
        self._weights_seq_no += 1
        rows = self._to_device(data.batch)
        step = minibatch_size or len(rows)
        for start in range(0, len(rows), step):
            minibatch = rows.rows(slice(start, start + step)) if step < len(rows) else rows
            # RLlib shows the metrics of the last update only, so no other needs any.
            self._updates_to_report = None if _no_metrics_reduce else math.ceil((len(rows) - start) / step) - 1
            self._update(minibatch)
            self._rows_trained += len(minibatch)
        self.after_gradient_based_update(timesteps=dict(timesteps or {}))
        if _no_metrics_reduce:
            return {}
        self._log_metrics_of_updates(step)
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
        ctx = self._begin(batch)
        self._num_updates += 1
        roles = []
        for stage in self._stages:
            if self._num_updates % stage.every:
                continue
            # The metrics of a stage that runs more rarely stay until it runs again.
            ctx.metrics_stay = stage.every > 1
            ctx.reports = ctx.metrics_stay or self._updates_to_report == 0
            if not stage.run(self, ctx):
                break
            roles += [stage.role] if isinstance(stage, LossStage) else []
        else:
            self._note_total_losses(ctx, roles)
        return {}, {}, {}

    def _begin(self, batch: JointBatch) -> UpdateContext:
        # Asked once, so that all stages of this update are about the same modules.
        trained = [m for m in self.layout.modules if self._is_trained(m, batch)]
        return UpdateContext(
            batch,
            self._minibatches(batch),
            trained,
            self._groups,
            {m: module for m, module in self._rules.items() if m not in trained},
            lambda joint: gumbel_noise_of(joint, self._rank, self._world, self._rng),
            self._update_metrics,
            distributed=self._world > 1,
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
        """
        if not module_losses:
            return True
        found = clipped_gradients(ctx.groups(role), module_losses, self._sum_over_learners)
        if not found.are_finite():
            self._on_not_finite(role, found, ctx.batch)
            return False
        for group, gradients, members in found.of_groups:
            self._optimizers_of[group].step(gradients, members)
        ctx.has_changed(role)
        if ctx.reports:
            values = {f"{role}_loss": found.losses, **found.norms}
            for name, of_modules in values.items():
                modules, numbers = zip(*of_modules.items(), strict=True)
                self._update_metrics.note(modules, {name: torch.stack(numbers)}, ctx.metrics_stay)
        return True

    @torch.no_grad()
    def update_targets(self, ctx: UpdateContext) -> None:
        """theta' <- tau theta + (1 - tau) theta' of the trained modules, every `target_network_update_freq` env steps."""
        freq, now = self.config.target_network_update_freq, self._env_steps
        if now - self._last_target_update < freq:
            return
        self._last_target_update = now
        for group in ctx.learning_groups():
            if group.target is not None:
                tau = group.settings.tau.flatten() * ctx.learns(group)
                pairs = zip(group.target.parameters, group.network.parameters, strict=True)
                if not group.network.is_stacked:
                    pairs = ((target.unsqueeze(0), source.unsqueeze(0)) for target, source in pairs)
                losses.polyak_update(*zip(*pairs, strict=True), tau)
        ctx.targets_have_changed()

    def _sum_over_learners(self, tensors: Collection[Tensor]) -> list[Tensor]:
        if self._world == 1:
            return list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]

    # ------------------------------------------------------------------------------------------ modules and their groups

    def _networks(self, module_id: str) -> MADDPGTorchRLModule | RLModule:
        return self.module[module_id].unwrapped()

    def _tie(self) -> None:
        """Makes the groups, or rebuilds them where somebody has changed a module's networks."""
        if self._groups and all(group.is_tied() for groups in self._groups.values() for group in groups):
            return
        networks = {m: self._networks(m) for m in self._learnable}
        alone = self._why_not_stacked()
        if alone and not self._groups:
            logger.info("Modules are not computed together, which takes longer: %s.", alone)
        self._groups = group_networks(self.schema, networks, {m: self._module_settings(m) for m in networks}, not alone)
        self._optimizers_of = {
            group: GroupOptimizer(
                [self.get_optimizer(m, group.name) for m in group.modules],
                [list(getattr(self._networks(m), group.name).parameters()) for m in group.modules],
                group.network.parameters if group.network.is_stacked else None,
            )
            for groups in self._groups.values()
            for group in groups
            if group.is_trainable
        }

    def _module_settings(self, module_id: str) -> ModuleSettings:
        config = self._configs[module_id]
        # With rows of their own no two modules can be computed as one.
        apart = module_id if self.config.minibatch_per_module else None
        return ModuleSettings(config.module_numbers(), config.module_words(), apart)

    def _why_not_stacked(self) -> str:
        """Why each module must learn by its own parameters; empty: the losses depend on modules by their groups only."""
        return ""

    @torch.no_grad()
    def get_actor_weights(self) -> tuple[int, np.ndarray]:
        """What remote env runners need: the number of these weights, and the state of all actors as one vector."""
        # One transfer from the device.
        return self._weights_seq_no, torch.cat([t.flatten() for t in self.actor_state()]).cpu().numpy()

    def count_weights(self) -> None:
        """Makes the present weights newer than all that env runners have."""
        self._weights_seq_no += 1

    def actor_state(self) -> list[Tensor]:
        """All tensors that env runners have, module by module in layout order."""
        return actor_state_of(self.module, self.layout)

    def optimizer_shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Shapes of the parameters of each optimizer, in its order."""
        return {
            name: [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self._named_optimizers.items()
        }

    # ------------------------------------------------------------------------------------------ metrics and state

    def _note_total_losses(self, ctx: UpdateContext, roles: list[str]) -> None:
        """RLlib's total loss: the sum over the stages that ran."""
        if self._updates_to_report == 0:
            noted = self._update_metrics.noted
            totals = [sum(noted[m, f"{role}_loss"] for role in roles) for m in ctx.trained]
            if roles and totals:
                self._update_metrics.note(ctx.trained, {self.TOTAL_LOSS_KEY: torch.stack(totals)})

    def _keep_td_errors(self, ctx: UpdateContext, group: NetworkGroup, q: Tensor, target: Tensor, alive: Tensor) -> None:
        """Adds a group's TD errors to those of the update's rows, for whoever wants them (`collects_td_errors`)."""
        if self.collects_td_errors:
            # With rows of its own for each module, those of module d.
            modules = self.layout.modules
            own = (
                slice(modules.index(group.modules[0]), None, len(modules)) if self.config.minibatch_per_module else slice(None)
            )
            self._td_errors.add(ctx.batch, own, ((q - target).abs() * alive).sum((0, 1)), alive.sum((0, 1)))

    def take_td_errors(self) -> np.ndarray:
        """Mean |TD error| of the trained modules' living agents in each row of the last call of `update`, float32."""
        return self._td_errors.take()

    def _log_metrics_of_updates(self, batch_size: int) -> None:
        """Gives RLlib the metrics of the last update, and the counts of all since the last report."""
        log, rows = self.metrics.log_value, self._rows_trained
        self._update_metrics.report(self.metrics)
        for module_id in self.layout.modules:
            log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)
            log((module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), batch_size, reduce="mean")
            for key in (module_id, ALL_MODULES):
                log((key, NUM_MODULE_STEPS_TRAINED), rows, reduce="sum")
                log((key, NUM_MODULE_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), rows, reduce="sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        self._rows_trained = 0

    @override(Learner)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        state["gumbel_rng"] = self._rng.get_state().numpy()
        state["env_steps"] = self._env_steps
        state["num_updates"] = self._num_updates
        state["last_target_update"] = self._last_target_update
        return state

    @override(Learner)
    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what was learned; every setting, such as learning rates and who is trained, stays this Learner's own."""
        state = {key: value for key, value in state.items() if key != "should_module_be_updated"}
        # RLlib skips weights that are older than its own, but a checkpoint is restored whole. What comes out of it is new
        # to the env runners, even if they have seen later updates.
        before, self._weights_seq_no = self._weights_seq_no, 0
        super().set_state(state)
        # RLlib lets Adam go on in the very arrays of the state, which may be those of another Learner, too.
        for optimizer in self._named_optimizers.values():
            for own in optimizer.state.values():
                own.update({name: value.clone() for name, value in own.items() if isinstance(value, Tensor)})
        for group_optimizer in self._optimizers_of.values():
            group_optimizer.tie()
        self._weights_seq_no = max(before + 1, self._weights_seq_no)
        if "gumbel_rng" in state:
            self._rng.set_state(torch.from_numpy(state["gumbel_rng"].copy()))
        self._env_steps = state.get("env_steps", self._env_steps)
        self._num_updates = state.get("num_updates", self._num_updates)
        self._last_target_update = state.get("last_target_update", self._last_target_update)
        if COMPONENT_OPTIMIZER in state:
            self._set_learning_rates()

    def _set_learning_rates(self) -> None:
        """Rates of this config at the present env step.

        RLlib restores those of the checkpoint with the optimizers, and would make one update with them.
        """
        for optimizer, schedule in self._optimizer_lr_schedules.items():
            lr = schedule.update(self._env_steps)
            # Before the first update RLlib has a schedule's value in single precision: a resumed run must not differ.
            self._set_optimizer_lr(optimizer, lr if self._env_steps else schedule.get_current_value())

    def _on_not_finite(self, role: str, found: ClippedGradients, batch: JointBatch) -> None:
        """Raises, or counts the skipped update where `torch_skip_nan_gradients` is set."""
        self._update_metrics.clear()
        if self.config.torch_skip_nan_gradients:
            # All Learners skip alike; one counts.
            for module_id in found.losses if self._rank == 0 else ():
                self.metrics.log_value((module_id, "num_updates_skipped_lifetime"), 1, reduce="lifetime_sum")
            return
        bad = found.what_is_not_finite(role, batch)
        before = [stage.role for stage in self._stages if isinstance(stage, LossStage)]
        before = before[: before.index(role)]
        done = "This update was not made; the weights are those before it"
        if before:
            done = f"No {role} and no target was changed; the {' and '.join(f'{name}s' for name in before)} made their step"
        raise ValueError(
            f"NaN or infinity in {bad[0]} (in all: {', '.join(bad)}). {done}. Look for "
            "extreme rewards or a learning rate that is too high, set `grad_clip`, or set `torch_skip_nan_gradients=True` "
            "to skip such updates and count them."
        )
