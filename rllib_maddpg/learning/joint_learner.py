"""What MADDPG needs of an RLlib Learner, whatever its losses: joint rows, groups of modules, gradients of several Learners."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Collection, Iterable, Mapping
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

from rllib_maddpg.config.checks import PER_MODULE_KEYS
from rllib_maddpg.learning import losses
from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.learning.groups import ACTOR, CRITIC, NetworkGroup, group_networks
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule, actor_state_of
from rllib_maddpg.modules.rule_modules import acts_by_rule, check_stateless, has_networks
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout

# How a metric of several Learners becomes one, where that is not its mean.
OVER_LEARNERS = {"qf_min": {"reduce": "min"}, "qf_max": {"reduce": "max"}}


class JointTorchLearner(TorchLearner):
    """A Learner whose losses need the rows of all modules at once.

    - It takes `JointBatch`es, and as many updates in one call as `minibatch_size` makes of a batch.
    - Modules that are alike are computed as one (`NetworkGroup`).
    - Several Learners add up their gradients, without DDP, so that their update is that of one Learner on all rows.
    - Metrics are taken of the last update before a report only, and leave the device in one transfer.

    Attributes:
        collects_td_errors: Whether to keep TD errors for `take_td_errors`.
    """

    collects_td_errors = False

    # ------------------------------------------------------------------------------------------ setting up

    @override(TorchLearner)
    def build(self) -> None:
        super().build()
        self._configs = {m: self.config.get_config_for_module(m) for m in self.module.keys()}  # noqa: SIM118
        modules = {m: self._networks(m) for m in self._configs}
        self.layout: JointLayout = next(iter(modules.values())).model_config["layout"]
        check_stateless(modules.items())
        # Those that can be trained, and those that act by a rule of their own while they are not.
        self._learnable = [m for m in self.layout.modules if has_networks(modules[m])]
        self._with_rules = [m for m in self.layout.modules if acts_by_rule(modules[m])]
        self._env_steps = 0
        self._trained: list[str] = list(self._learnable)
        self._groups: dict[str, list[NetworkGroup]] = {}
        self._optimizers_of: dict[NetworkGroup, GroupOptimizer] = {}
        # Metrics of the last update, and what was trained since they were reported.
        self._reports = True
        self._noted: dict[tuple[str, str], Tensor] = {}
        self._rows_trained = 0
        _keep_freed_memory()
        # RLlib makes torch deterministic where there is a seed, and torch then fills all fresh memory with NaN, lest somebody
        # reads it unwritten. It takes a tenth of an update.
        torch.utils.deterministic.fill_uninitialized_memory = False
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
            batch: Joint rows, or what stands for them (see `JointReplay.draw`); or per module their columns `[B, n, dim]`,
                `[B, n]`.
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
        data = training_data or TrainingData(batch=batch, batch_refs=batch_refs)
        data.validate()
        data.solve_refs()
        self.before_gradient_based_update(timesteps=dict(timesteps or {}))
        self._weights_seq_no += 1
        rows = self._to_device(data.batch)
        self._td_errors: list[Tensor] = []  # for each update and row the sum of |TD error|, and of how many agents
        step = minibatch_size or len(rows)
        for start in range(0, len(rows), step):
            minibatch = rows.rows(slice(start, start + step)) if step < len(rows) else rows
            # RLlib shows the metrics of the last update only, so no other needs any.
            self._reports = not _no_metrics_reduce and start + step >= len(rows)
            if self.collects_td_errors:
                self._td_errors.append(torch.zeros(2, len(minibatch), device=self._device))
            self._update(minibatch)
            self._rows_trained += len(minibatch)
        self.after_gradient_based_update(timesteps=dict(timesteps or {}))
        if _no_metrics_reduce:
            return {}
        self._log_metrics_of_updates(step)
        return self.metrics.reduce()

    def take_td_errors(self) -> np.ndarray:
        """The mean |TD error| of the agents that act in each row of the last call of `update`, `[rows]`, float32; 0 where
        none acts that is trained. Needs `collects_td_errors`."""
        total, count = torch.cat(self._td_errors, -1)
        self._td_errors = []
        return (total / count.clamp(min=1.0)).cpu().numpy()

    def _to_device(self, batch: JointBatch | MultiAgentBatch | Any) -> JointBatch:
        if isinstance(batch, MultiAgentBatch):
            batch = JointBatch.from_modules(self.layout, batch.policy_batches)
        return batch.to(self._device, self.layout)

    @override(Learner)
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self._env_steps = int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self._env_steps))

    @override(TorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        if self._reports or self._lr_schedulers:
            super().after_gradient_based_update(timesteps=timesteps)
        else:  # RLlib would log all learning rates, too
            for optimizer, schedule in self._optimizer_lr_schedules.items():
                self._set_optimizer_lr(optimizer, schedule.update(self._env_steps))

    # ------------------------------------------------------------------------------------------ gradients

    def _step(self, name: str, module_losses: Mapping[str, Tensor], batch: JointBatch) -> bool:
        """Gradients, their sum over Learners, clipping, Adam. False: not finite, so nothing was changed."""
        if not module_losses:
            return True
        groups = self._trained_groups(name)
        stacked = [p for group in groups for p in group.network.parameters]
        gradients = torch.autograd.grad(sum(module_losses.values()), stacked, allow_unused=True, materialize_grads=True)
        # Fused Adam reads them in the order of memory, whatever their strides.
        gradients = [gradient.contiguous() for gradient in gradients]
        # The losses go along: they are logged, and all Learners must agree on whether they are finite.
        *gradients, totals = self._sum_over_learners([*gradients, torch.stack(list(module_losses.values())).detach()])
        steps, norms, gradients = [], {}, iter(gradients)
        for group in groups:
            network, config = group.network, self._configs[group.modules[0]]
            own = [g if network.is_stacked else g.unsqueeze(0) for _, g in zip(network.parameters, gradients, strict=False)]
            norm = losses.clip_gradients(own, config.grad_clip, config.grad_clip_by)
            members = [k for k, module_id in enumerate(group.modules) if module_id in module_losses]
            norms.update({group.modules[k]: norm[k] for k in members})
            steps.append((self._optimizers_of[group], own, members))
        norm = torch.stack([norms[m] for m in module_losses])
        # NaN and infinity make the sum so, too; float64, so that nothing else does.
        if not math.isfinite(torch.cat([norm, totals]).sum(dtype=torch.float64)):
            self._on_not_finite(name, dict(zip(module_losses, totals, strict=True)), norms, batch)
            return False
        for optimizer, own, members in steps:
            optimizer.step(own, members)
        self._note(module_losses, **{f"{name}_loss": totals, f"{name}_gradients_norm": norm})
        return True

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

    def _trained_groups(self, name: str) -> list[NetworkGroup]:
        """The groups of actors, or of critics, in which somebody learns."""
        return [group for group in self._groups[name] if not set(self._trained).isdisjoint(group.modules)]

    def _tie(self) -> None:
        """Makes the groups, or rebuilds them where somebody has changed a module's networks."""
        if self._groups and all(group.is_tied() for groups in self._groups.values() for group in groups):
            return
        networks = {m: self._networks(m) for m in self._learnable}
        # Learning rates are no matter of the losses.
        keys = [key for key in PER_MODULE_KEYS if not key.endswith("lr")]
        settings = {m: tuple(repr(getattr(c, key)) for key in keys) for m, c in self._configs.items()}
        if self.config.minibatch_per_module:
            settings = {m: m for m in networks}  # no two modules have the same rows
        stacked = self._may_stack()
        self._groups = {name: group_networks(name, self.layout, networks, settings, stacked) for name in (CRITIC, ACTOR)}
        self._optimizers_of = {
            group: GroupOptimizer(
                [self.get_optimizer(m, name) for m in group.modules],
                [list(getattr(self._networks(m), name).parameters()) for m in group.modules],
                group.network.parameters if group.network.is_stacked else None,
            )
            for name, groups in self._groups.items()
            for group in groups
        }

    def _may_stack(self) -> bool:
        """Whether the losses depend on modules by their groups only; else each module must learn by its own parameters."""
        return True

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

    def _note(self, modules: Iterable[str], **values: Tensor) -> None:
        """Keeps one number for each of the modules, `[G]`, for the metrics of this update."""
        if self._reports:
            for name, value in values.items():
                self._noted.update({(m, name): v for m, v in zip(modules, value.detach().unbind(), strict=False)})

    def _log_metrics_of_updates(self, batch_size: int) -> None:
        """Gives RLlib the metrics of the last update, and the counts of all since the last report."""
        log, rows = self.metrics.log_value, self._rows_trained
        if self._noted:
            # One transfer from the device for all metrics.
            values = torch.stack([v.float() for v in self._noted.values()]).tolist()
            for key, value in zip(self._noted, values, strict=True):
                log(key, value, **OVER_LEARNERS.get(key[1], {"reduce": "mean", "window": 1}))
        for module_id in self.layout.modules:
            log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)
            log((module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), batch_size, reduce="mean")
            for key in (module_id, ALL_MODULES):
                log((key, NUM_MODULE_STEPS_TRAINED), rows, reduce="sum")
                log((key, NUM_MODULE_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), rows, reduce="sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        self._noted.clear()
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
        self._groups = {}  # to be rebuilt with that state
        self._weights_seq_no = max(before + 1, self._weights_seq_no)
        if "gumbel_rng" in state:
            self._rng.set_state(torch.from_numpy(state["gumbel_rng"].copy()))
        self._env_steps = state.get("env_steps", self._env_steps)
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

    def _on_not_finite(
        self, name: str, module_losses: Mapping[str, Tensor], norms: Mapping[str, Tensor], batch: JointBatch
    ) -> None:
        """Raises, or counts the skipped update where `torch_skip_nan_gradients` is set."""
        self._noted.clear()
        if self.config.torch_skip_nan_gradients:
            # All Learners skip alike; one counts.
            for module_id in module_losses if self._rank == 0 else ():
                self.metrics.log_value((module_id, "num_updates_skipped_lifetime"), 1, reduce="lifetime_sum")
            return
        bad = [f"column {c!r} of module {m!r}" for m, own in batch.modules.items() for c in own if not _is_finite(own[c])]
        bad += [f"the {name} loss of module {m!r}" for m, loss in module_losses.items() if not _is_finite(loss)]
        bad += [f"the {name} gradient of module {m!r}" for m, norm in norms.items() if not _is_finite(norm)]
        done = "No actor and no target was changed; the critics made their step"
        if name == "critic":
            done = "This update was not made; the weights are those before it"
        raise ValueError(
            f"NaN or infinity in {bad[0]} (in all: {', '.join(bad)}). {done}. Look for "
            "extreme rewards or a learning rate that is too high, set `grad_clip`, or set `torch_skip_nan_gradients=True` "
            "to skip such updates and count them."
        )


def _is_finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or bool(torch.isfinite(x).all())


def _keep_freed_memory() -> None:
    """Has glibc keep the memory of one update for the next, instead of giving it back and getting zeroed pages again.

    Only blocks over 32 MiB, and what is free beyond 1 GiB, still go back. With other C libraries it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
        mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**30)
