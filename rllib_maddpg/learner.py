"""Algorithm 1 of Lowe et al. 2017: one update of all critics, actors and targets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
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
from torch import Tensor

from rllib_maddpg import losses
from rllib_maddpg.checks import PER_MODULE_KEYS
from rllib_maddpg.joint_batch import JointBatch
from rllib_maddpg.layout import JointLayout
from rllib_maddpg.module_groups import ModuleGroup, group_modules
from rllib_maddpg.rl_module import MADDPGTorchRLModule
from rllib_maddpg.stacking import SingleNetwork

ACTOR, CRITIC = "actor", "critic"


class MADDPGTorchLearner(TorchLearner):
    """Updates critics first, then actors, then targets, with one Adam for each actor and each critic.

    Modules with equal networks and settings are computed as one (`ModuleGroup`): shapes below are for a group of G modules of
    n agents each and B rows. Several Learners each take a shard of the rows and add up their gradients, so that their
    update is the one that a single Learner makes on all rows. Modules outside `policies_to_train` stay as they are; their
    actions still enter all critics.

    Override `compute_critic_losses` or `compute_actor_losses` to change a loss.
    """

    # ------------------------------------------------------------------------------------------ the update (Algorithm 1)

    @override(TorchLearner)
    def _uncompiled_update(self, batch: JointBatch, **kwargs: Any) -> tuple[dict, dict, dict]:
        self._tie()
        # Asked once, so that critics, actors and targets of this update are those of the same modules.
        trained = super().should_module_be_updated
        self._trained = [m for m in self.layout.modules if trained(m, batch)]
        minibatches = self._minibatches(batch)
        critic_losses = self.compute_critic_losses(minibatches)
        if self._step(CRITIC, critic_losses, batch):
            actor_losses = self.compute_actor_losses(minibatches)
            if self._step(ACTOR, actor_losses, batch):
                self._update_targets()
                self._note_total_losses()
        return {}, {}, {}

    def compute_critic_losses(self, minibatches: Mapping[str, JointBatch]) -> dict[str, Tensor]:
        """The critic loss of each trained module (paper, equation 6).

        Args:
            minibatches: Per module the joint rows that it learns from; one and the same batch unless
                `minibatch_per_module`.
        """
        result = {}
        for group in self._trained_groups():
            config, joint = self._configs[group.modules[0]], minibatches[group.modules[0]]
            reward, terminated, alive = (joint.stack(group.modules, c) for c in ("rewards", "terminateds", "alive"))
            with torch.no_grad():
                next_q = group.target_critic.q_values(self._next_inputs(joint))
                target = losses.td_target(reward, terminated, config.gamma, next_q)
            q = group.critic.q_values(joint.inputs)
            count = self._count(group, joint)
            loss = losses.critic_loss(q, target, alive, count, config.critic_loss, config.huber_delta)
            result.update(zip(group.modules, loss, strict=True))
            self._note_critics(group, q, target, alive)
        return {m: result[m] for m in self._trained}

    def compute_actor_losses(self, minibatches: Mapping[str, JointBatch]) -> dict[str, Tensor]:
        """The actor loss of each trained module (paper, equation 5): own action from its current actor.

        The others' actions are those of the row (`others_actions="replay"`, the paper) or of their current actors
        ("current"); in neither case does a gradient reach another agent's actor.
        """
        noise = {joint: self._gumbel_noise(joint) for joint in dict.fromkeys(minibatches.values())}
        result = {}
        for group in self._trained_groups():
            config, joint = self._configs[group.modules[0]], minibatches[group.modules[0]]
            gumbel = noise[joint]
            output = group.actor(joint.stack(group.modules, "obs"))
            mu = group.codec.sample(output, self._stacked_noise(group, gumbel), config.gumbel_softmax_temperature)
            inputs = joint.inputs
            if config.others_actions == "current":
                inputs = self._current_inputs(joint, gumbel)
            q = group.critic.q_values_with_own(inputs, mu)
            alive = joint.stack(group.modules, "alive")
            loss = losses.actor_loss(q, output, alive, self._count(group, joint), config.actor_output_reg)
            result.update(zip(group.modules, loss, strict=True))
            self._note_actors(group, output, alive)
        return {m: result[m] for m in self._trained}

    @torch.no_grad()
    def _next_inputs(self, joint: JointBatch) -> Tensor:
        """(x', mu'_1(o'_1) ... mu'_N(o'_N)) by the target actors; zeros for the dead."""
        if joint not in self._next_inputs_of:
            actions = {}
            for group in self._groups:
                output = group.target_actor(joint.stack(group.modules, "new_obs"))
                alive = joint.stack(group.modules, "next_alive").unsqueeze(-1)
                actions.update(zip(group.modules, group.codec.greedy(output) * alive, strict=True))
            # The same for all critics that learn from these rows.
            self._next_inputs_of[joint] = torch.cat([joint.next_obs, self._joint_actions(actions)], -1)
        return self._next_inputs_of[joint]

    @torch.no_grad()
    def _current_inputs(self, joint: JointBatch, gumbel: Mapping[str, Tensor]) -> Tensor:
        """(x, what the current actors do in x); zeros for the dead."""
        actions = {}
        for group in self._groups:
            temperature = self._configs[group.modules[0]].gumbel_softmax_temperature
            output = group.actor(joint.stack(group.modules, "obs"))
            code = group.codec.sample(output, self._stacked_noise(group, gumbel), temperature)
            actions.update(zip(group.modules, code * joint.stack(group.modules, "alive").unsqueeze(-1), strict=True))
        return torch.cat([joint.columns["obs"], self._joint_actions(actions)], -1)

    def _joint_actions(self, actions: Mapping[str, Tensor]) -> Tensor:
        """Per module codes `[n, B, code_dim]` -> `[B, code_dim of all agents]`."""
        return torch.cat([actions[m].transpose(0, 1).flatten(1) for m in self.layout.modules], -1)

    def _step(self, name: str, module_losses: Mapping[str, Tensor], batch: JointBatch) -> bool:
        """Gradients, their sum over Learners, clipping, Adam. False: not finite, so nothing was changed."""
        if not module_losses:
            return True
        networks = {group: getattr(group, name) for group in self._trained_groups()}
        stacked = [p for network in networks.values() for p in network.parameters]
        gradients = torch.autograd.grad(sum(module_losses.values()), stacked, allow_unused=True, materialize_grads=True)
        # The losses go along: they are logged, and all Learners must agree on whether they are finite.
        *gradients, totals = self._sum_over_learners([*gradients, torch.stack(list(module_losses.values())).detach()])
        norms, gradients = {}, iter(gradients)
        for group, network in networks.items():
            config = self._configs[group.modules[0]]
            own = [g if network.is_stacked else g.unsqueeze(0) for _, g in zip(network.parameters, gradients, strict=False)]
            norm = losses.clip_gradients(own, config.grad_clip, config.grad_clip_by)
            for k, module_id in enumerate(group.modules):
                if module_id in module_losses:
                    norms[module_id] = norm[k]
                    for param, gradient in zip(self._optimizer_params(module_id, name), own, strict=True):
                        param.grad = gradient[k]
        norm = torch.stack([norms[m] for m in module_losses])
        if not torch.isfinite(torch.cat([norm, totals])).all():
            self._on_not_finite(name, dict(zip(module_losses, totals, strict=True)), norms, batch)
            return False
        for module_id in module_losses:
            self.get_optimizer(module_id, name).step()
        self._note(module_losses, **{f"{name}_loss": totals, f"{name}_gradients_norm": norm})
        return True

    def _update_targets(self) -> None:
        """theta' <- tau theta + (1 - tau) theta' of the trained modules, every `target_network_update_freq` env steps."""
        freq, now = self.config.target_network_update_freq, self._env_steps
        if now - self._last_target_update < freq:
            return
        self._last_target_update = now
        for group in self._trained_groups():
            tau = self._configs[group.modules[0]].tau
            pairs = [(group.target_actor, group.actor), (group.target_critic, group.critic)]
            if not set(group.modules) <= set(self._trained):
                networks = [self._networks(m) for m in group.modules if m in self._trained]
                pairs = [(SingleNetwork(t), SingleNetwork(s)) for m in networks for s, t in m.get_target_network_pairs()]
            for target, source in pairs:
                losses.polyak_update(target.parameters, source.parameters, tau)

    # ------------------------------------------------------------------------------------------ rows and noise

    def _minibatches(self, batch: JointBatch) -> dict[str, JointBatch]:
        """Per module the joint rows it learns from.

        With `minibatch_per_module` the batch holds a draw of its own for each of the M modules, interleaved: module d learns
        from the rows d, d + M, d + 2M ... So a shard of the rows is a shard of each module's draw.
        """
        modules = self.layout.modules
        if not self.config.minibatch_per_module:
            return dict.fromkeys(modules, batch)
        return {module_id: batch.rows(slice(d, None, len(modules))) for d, module_id in enumerate(modules)}

    def _count(self, group: ModuleGroup, joint: JointBatch) -> Tensor:
        """Number of living agent rows of each module over all Learners, at least 1, `[G]`."""
        if (group, joint) not in self._counts:
            count = joint.stack(group.modules, "alive").sum((1, 2))
            if self._world > 1:
                dist.all_reduce(count)
            self._counts[group, joint] = count.clamp(min=1.0)
        return self._counts[group, joint]

    def _gumbel_noise(self, joint: JointBatch) -> dict[str, Tensor]:
        """Gumbel noise `[B, n, code_dim]` for each module with categorical actions.

        Every Learner draws for the rows of all Learners and takes its own, so that the noise of a row does not depend on how
        many Learners there are.
        """
        rank, world = self._rank, self._world
        noise = {}
        for module_id in self.layout.modules:
            if self.layout.codec_of(module_id).categorical:
                code = joint.modules[module_id]["actions"]
                drawn = losses.gumbel_noise((world * len(joint), *code.shape[1:]), self._rng, code.device, code.dtype)
                noise[module_id] = drawn[rank * len(joint) : (rank + 1) * len(joint)]
        return noise

    @staticmethod
    def _stacked_noise(group: ModuleGroup, noise: Mapping[str, Tensor]) -> Tensor | None:
        """`[G, n, B, code_dim]`; None for modules that draw none."""
        return torch.stack([noise[m].transpose(0, 1) for m in group.modules]) if group.codec.categorical else None

    def _sum_over_learners(self, tensors: Collection[Tensor]) -> list[Tensor]:
        if self._world == 1:
            return list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]

    # ------------------------------------------------------------------------------------------ RLlib's hooks

    @override(TorchLearner)
    def build(self) -> None:
        super().build()
        self._configs = {m: self.config.get_config_for_module(m) for m in self.module.keys()}  # noqa: SIM118
        self.layout: JointLayout = self._networks(next(iter(self._configs))).layout
        self._env_steps = 0
        self._last_target_update = 0
        self._trained: list[str] = list(self.layout.modules)
        self._groups: list[ModuleGroup] = []
        # What several modules need of the rows of an update.
        self._next_inputs_of: dict[JointBatch, Tensor] = {}
        self._counts: dict[tuple[ModuleGroup, JointBatch], Tensor] = {}
        # Metrics of the last update, and what was trained since they were reported.
        self._reports = True
        self._noted: dict[tuple[str, str], Tensor] = {}
        self._rows_trained = 0
        seed = self.config.seed if self.config.seed is not None else int(np.random.SeedSequence().entropy % 2**62)
        # On the device, because NCCL knows no other tensors.
        seed = torch.tensor([seed], device=self._device)
        distributed = self.config.num_learners > 1
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        if distributed:
            self._start_alike(seed)
        self._rng = torch.Generator().manual_seed(int(seed))

    def _start_alike(self, seed: Tensor) -> None:
        """Takes seed and initial weights from the first Learner."""
        dist.broadcast(seed, 0)
        for module_id in sorted(self._configs):
            for tensor in self._networks(module_id).state_dict().values():
                dist.broadcast(tensor, 0)

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        """No DDP: its hooks see one backward pass per forward pass, and this update has two; the Learners would drift apart."""

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module = self._networks(module_id)
        for name, lr in ((CRITIC, config.learning_rate(CRITIC)), (ACTOR, config.learning_rate(ACTOR))):
            params = list(getattr(module, name).parameters())
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(params, fused=True),
                params=params,
                lr_or_lr_schedule=lr,
            )

    @override(Learner)
    def should_module_be_updated(self, module_id: str, multi_agent_batch: Any = None) -> bool:
        """True: RLlib would drop the rows of frozen modules from the batch, which all critics need."""
        return True

    @override(Learner)
    def update(
        self,
        batch: JointBatch | MultiAgentBatch | None = None,
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
            batch: Joint rows; or per module their columns `[B, n, dim]`, `[B, n]`.
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
        step = minibatch_size or len(rows)
        for start in range(0, len(rows), step):
            minibatch = rows.rows(slice(start, start + step)) if step < len(rows) else rows
            # RLlib shows the metrics of the last update only, so no other needs any.
            self._reports = not _no_metrics_reduce and start + step >= len(rows)
            self._update(minibatch)
            self._rows_trained += len(minibatch)
        self.after_gradient_based_update(timesteps=dict(timesteps or {}))
        if _no_metrics_reduce:
            return {}
        self._log_metrics_of_updates(step)
        return self.metrics.reduce()

    def _to_device(self, batch: JointBatch | MultiAgentBatch) -> JointBatch:
        if isinstance(batch, MultiAgentBatch):
            batch = JointBatch.from_modules(self.layout, batch.policy_batches)
        return batch.to(self._device, self.layout)

    @override(Learner)
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self._env_steps = int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self._env_steps))

    def _log_metrics_of_updates(self, batch_size: int) -> None:
        """Gives RLlib the metrics of the last update, and the counts of all since the last report."""
        log, rows = self.metrics.log_value, self._rows_trained
        if self._noted:
            # One transfer from the device for all metrics.
            values = torch.stack([v.float() for v in self._noted.values()]).tolist()
            self.metrics.log_dict(dict(zip(self._noted, values, strict=True)), window=1)
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
    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        raise NotImplementedError(
            "MADDPG's critics need the rows of all modules: override `compute_critic_losses` or `compute_actor_losses`."
        )

    @torch.no_grad()
    def get_actor_weights(self) -> tuple[int, np.ndarray]:
        """What remote env runners need: the number of these weights, and the state of all actors as one vector."""
        # One transfer from the device.
        return self._weights_seq_no, torch.cat([t.flatten() for t in self.actor_state()]).cpu().numpy()

    def actor_state(self) -> list[Tensor]:
        """All tensors that env runners have, module by module in layout order."""
        return [t for m in self.layout.modules for t in self._networks(m).actor_state()]

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
        state["last_target_update"] = self._last_target_update
        return state

    @override(Learner)
    def set_state(self, state: dict[str, Any]) -> None:
        # RLlib skips weights that are older than its own, but a checkpoint is restored whole. What comes out of it is new
        # to the env runners, even if they have seen later updates.
        before, self._weights_seq_no = self._weights_seq_no, 0
        super().set_state(state)
        self._weights_seq_no = max(before + 1, self._weights_seq_no)
        if "gumbel_rng" in state:
            self._rng.set_state(torch.from_numpy(state["gumbel_rng"].copy()))
            self._last_target_update = state["last_target_update"]

    # ------------------------------------------------------------------------------------------ small helpers

    def _networks(self, module_id: str) -> MADDPGTorchRLModule:
        return self.module[module_id].unwrapped()

    def _optimizer_params(self, module_id: str, name: str) -> list[Tensor]:
        return self._optimizer_parameters[self.get_optimizer(module_id, name)]

    def _trained_groups(self) -> list[ModuleGroup]:
        return [group for group in self._groups if not set(self._trained).isdisjoint(group.modules)]

    def _tie(self) -> None:
        """Makes the groups, or makes them anew where somebody has changed a module's networks."""
        self._next_inputs_of.clear()
        self._counts.clear()
        if self._groups and all(group.is_tied() for group in self._groups):
            return
        networks = {m: self._networks(m) for m in self.layout.modules}
        settings = {m: tuple(repr(getattr(c, key)) for key in PER_MODULE_KEYS) for m, c in self._configs.items()}
        if self.config.minibatch_per_module:
            settings = {m: m for m in networks}  # no two modules have the same rows
        # A loss that somebody overrode may depend on a module's own parameters, so these must be the ones that learn.
        losses_are_ours = all(
            getattr(type(self), name) is getattr(MADDPGTorchLearner, name)
            for name in ("compute_critic_losses", "compute_actor_losses")
        )
        self._groups = group_modules(self.layout, networks, settings, stacked=losses_are_ours)

    @torch.no_grad()
    def _note_critics(self, group: ModuleGroup, q: Tensor, target: Tensor, alive: Tensor) -> None:
        if self._reports:
            living = alive.sum((1, 2)).clamp(min=1.0)
            mean, td_error = (q * alive).sum((1, 2)) / living, ((q - target).abs() * alive).sum((1, 2)) / living
            q = torch.where(alive > 0, q, mean[:, None, None]).flatten(1)
            self._note(group.modules, qf_mean=mean, qf_min=q.amin(1), qf_max=q.amax(1), td_error_mean=td_error)

    @torch.no_grad()
    def _note_actors(self, group: ModuleGroup, output: Tensor, alive: Tensor) -> None:
        if self._reports:
            living = alive.sum((1, 2)).clamp(min=1.0)
            metrics = group.codec.head_metrics(output)
            self._note(group.modules, **{name: (value * alive).sum((1, 2)) / living for name, value in metrics.items()})

    def _note_total_losses(self) -> None:
        if self._reports:
            for m in self._trained:
                self._noted[m, self.TOTAL_LOSS_KEY] = self._noted[m, "critic_loss"] + self._noted[m, "actor_loss"]

    def _note(self, modules: Iterable[str], **values: Tensor) -> None:
        """Keeps one number for each of the modules, `[G]`, for the metrics of this update."""
        if self._reports:
            for name, value in values.items():
                self._noted.update({(m, name): v for m, v in zip(modules, value.detach().unbind(), strict=False)})

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
        if name == CRITIC:
            done = "This update was not made; the weights are those before it"
        raise ValueError(
            f"NaN or infinity in {bad[0]} (in all: {', '.join(bad)}). {done}. Look for "
            "extreme rewards or a learning rate that is too high, set `grad_clip`, or set `torch_skip_nan_gradients=True` "
            "to skip such updates and count them."
        )


def _is_finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or bool(torch.isfinite(x).all())
