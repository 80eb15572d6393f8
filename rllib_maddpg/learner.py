"""Algorithm 1 of Lowe et al. 2017: one update of all critics, actors and targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from rllib_maddpg import losses
from rllib_maddpg.layout import JointLayout
from rllib_maddpg.rl_module import MADDPGTorchRLModule

ACTOR, CRITIC = "actor", "critic"


@dataclass(eq=False)
class JointBatch:
    """B joint rows as the equations want them; agents in layout order.

    Attributes:
        modules: Per module its columns: obs `[B, n, obs_dim]`, actions `[B, n, code_dim]`, rewards, terminateds, alive,
            next_alive `[B, n]`.
        joint_obs: x, `[B, obs_dim of all agents]`.
        joint_actions: a_1 ... a_N as codes, `[B, code_dim of all agents]`.
        joint_next_obs: x', `[B, obs_dim of all agents]`, zeros for agents that are dead by then.
    """

    modules: Mapping[str, Mapping[str, Tensor]]
    joint_obs: Tensor
    joint_actions: Tensor
    joint_next_obs: Tensor

    @classmethod
    def from_columns(cls, modules: Mapping[str, Mapping[str, Tensor]]) -> JointBatch:
        """Joins the module columns; `modules` in layout order."""

        def join(column: str, mask: str | None = None) -> Tensor:
            parts = [m[column] if mask is None else m[column] * m[mask].unsqueeze(-1) for m in modules.values()]
            return torch.cat([p.flatten(1) for p in parts], -1)

        return cls(modules, join(Columns.OBS), join(Columns.ACTIONS), join(Columns.NEXT_OBS, "next_alive"))

    def __len__(self) -> int:
        return len(self.joint_obs)


class MADDPGTorchLearner(TorchLearner):
    """Updates critics first, then actors, then targets, with one Adam for each actor and each critic.

    Several Learners each take a shard of the rows and add up their gradients, so that their update is the one that a single
    Learner makes on all rows. Modules outside `policies_to_train` stay as they are; their actions still enter all critics.

    Override `compute_critic_losses` or `compute_actor_losses` to change a loss.
    """

    # ------------------------------------------------------------------------------------------ the update (Algorithm 1)

    @override(TorchLearner)
    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[dict, dict, dict]:
        # Asked once, so that critics, actors and targets of this update are those of the same modules.
        trained = super().should_module_be_updated
        self._trained = [m for m in self.layout.modules if trained(m, batch)]
        minibatches = self._minibatches(batch)
        critic_losses = self.compute_critic_losses(minibatches)
        if not self._step(CRITIC, critic_losses, batch):
            return {}, {}, {}
        actor_losses = self.compute_actor_losses(minibatches)
        if not self._step(ACTOR, actor_losses, batch):
            return {}, {}, {}
        self._update_targets()
        return {}, {m: self._noted[m, "critic_loss"] + self._noted[m, "actor_loss"] for m in critic_losses}, {}

    def compute_critic_losses(self, minibatches: Mapping[str, JointBatch]) -> dict[str, Tensor]:
        """The critic loss of each trained module (paper, equation 6).

        Args:
            minibatches: Per module the joint rows that it learns from; one and the same batch unless
                `minibatch_per_module`.
        """
        counts = self._counts(minibatches)
        # One set of rows for each module or one for all: the next actions are the same for all critics that share it.
        distinct = {id(minibatches[m]): minibatches[m] for m in self._trained}
        next_actions = {key: self._next_actions(joint) for key, joint in distinct.items()}
        result = {}
        for module_id in self._trained:
            module, config, joint = self._networks(module_id), self._configs[module_id], minibatches[module_id]
            own = joint.modules[module_id]
            with torch.no_grad():
                next_q = module.q_values(module.target_critic, joint.joint_next_obs, next_actions[id(joint)])
                target = losses.td_target(own[Columns.REWARDS], own[Columns.TERMINATEDS], config.gamma, next_q)
            q = module.q_values(module.critic, joint.joint_obs, joint.joint_actions)
            result[module_id] = losses.critic_loss(
                q, target, own["alive"], counts[module_id], config.critic_loss, config.huber_delta
            )
            with torch.no_grad():
                alive = own["alive"]
                living = alive.sum().clamp(min=1.0)
                td_error, mean = ((q - target).abs() * alive).sum() / living, (q * alive).sum() / living
                q = torch.where(alive > 0, q, mean)
            self._note(module_id, qf_mean=mean, qf_min=q.min(), qf_max=q.max(), td_error_mean=td_error)
        return result

    def compute_actor_losses(self, minibatches: Mapping[str, JointBatch]) -> dict[str, Tensor]:
        """The actor loss of each trained module (paper, equation 5): own action from its current actor.

        The others' actions are those of the row (`others_actions="replay"`, the paper) or of their current actors
        ("current"); in neither case does a gradient reach another agent's actor.
        """
        counts = self._counts(minibatches)
        distinct = {id(joint): joint for joint in minibatches.values()}
        noise = {key: self._gumbel_noise(joint) for key, joint in distinct.items()}
        result = {}
        for module_id in self._trained:
            module, config, joint = self._networks(module_id), self._configs[module_id], minibatches[module_id]
            own, gumbel = joint.modules[module_id], noise[id(joint)]
            output = module.actor(own[Columns.OBS])
            mu = module.codec.sample(output, gumbel.get(module_id), config.gumbel_softmax_temperature)
            others = joint.joint_actions
            if config.others_actions == "current":
                others = self._current_actions(joint, gumbel)
            q = module.q_values(module.critic, joint.joint_obs, self._with_own_actions(module_id, others, mu))
            result[module_id] = losses.actor_loss(q, output, own["alive"], counts[module_id], config.actor_output_reg)
            with torch.no_grad():
                self._note(module_id, **module.codec.head_metrics(output))
        return result

    @torch.no_grad()
    def _next_actions(self, joint: JointBatch) -> Tensor:
        """a' = (mu'_1(o'_1) ... mu'_N(o'_N)) of the target actors, `[B, code_dim of all agents]`; zeros for the dead."""
        actions = []
        for module_id, columns in joint.modules.items():
            module = self._networks(module_id)
            code = module.codec.greedy(module.target_actor(columns[Columns.NEXT_OBS]))
            actions.append((code * columns["next_alive"].unsqueeze(-1)).flatten(1))
        return torch.cat(actions, -1)

    @torch.no_grad()
    def _current_actions(self, joint: JointBatch, gumbel: Mapping[str, Tensor]) -> Tensor:
        """What the current actors do in x, `[B, code_dim of all agents]`; zeros for the dead."""
        actions = []
        for module_id, columns in joint.modules.items():
            module, temperature = self._networks(module_id), self._configs[module_id].gumbel_softmax_temperature
            code = module.codec.sample(module.actor(columns[Columns.OBS]), gumbel.get(module_id), temperature)
            actions.append((code * columns["alive"].unsqueeze(-1)).flatten(1))
        return torch.cat(actions, -1)

    def _with_own_actions(self, module_id: str, joint_actions: Tensor, own: Tensor) -> Tensor:
        """For each agent i of a module the joint action with a_i replaced: `[B, n, code_dim of all agents]`.

        Args:
            joint_actions: `[B, code_dim of all agents]`.
            own: New actions of the module's agents, `[B, n, code_dim]`.
        """
        slots = self.layout.slots_of(module_id)
        actions = joint_actions.unsqueeze(1).repeat(1, len(slots), 1)
        for k, slot in enumerate(slots):
            actions[:, k, slot.actions] = own[:, k]
        return actions

    def _step(self, name: str, module_losses: Mapping[str, Tensor], batch: Mapping[str, Any]) -> bool:
        """Gradients, their sum over Learners, clipping, Adam. False: not finite, so nothing was changed."""
        if not module_losses:
            return True
        params = {m: self._optimizer_params(m, name) for m in module_losses}
        flat = [p for ps in params.values() for p in ps]
        grads = torch.autograd.grad(sum(module_losses.values()), flat, allow_unused=True, materialize_grads=True)
        # The losses go along: they are logged, and all Learners must agree on whether they are finite.
        *grads, totals = self._sum_over_learners([*grads, torch.stack(list(module_losses.values())).detach()])
        for param, grad in zip(flat, grads, strict=True):
            param.grad = grad
        norms = {}
        for module_id, ps in params.items():
            config = self._configs[module_id]
            norms[module_id] = losses.clip_gradients([p.grad for p in ps], config.grad_clip, config.grad_clip_by)
        total = dict(zip(module_losses, totals, strict=True))
        if not torch.isfinite(torch.stack([*norms.values(), *total.values()])).all():
            self._on_not_finite(name, total, norms, batch)
            return False
        for module_id in module_losses:
            self.get_optimizer(module_id, name).step()
            self._note(module_id, **{f"{name}_loss": total[module_id], f"{name}_gradients_norm": norms[module_id]})
        return True

    def _update_targets(self) -> None:
        """theta' <- tau theta + (1 - tau) theta' of the trained modules, every `target_network_update_freq` env steps."""
        freq, now = self.config.target_network_update_freq, self._env_steps
        if now - self._last_target_update < freq:
            return
        self._last_target_update = now
        for module_id in self._trained:
            for source, target in self._networks(module_id).get_target_network_pairs():
                tau = self._configs[module_id].tau
                losses.polyak_update(list(target.parameters()), list(source.parameters()), tau)

    # ------------------------------------------------------------------------------------------ rows and noise

    def _minibatches(self, batch: Mapping[str, Any]) -> dict[str, JointBatch]:
        """Per module the joint rows it learns from.

        With `minibatch_per_module` the batch holds a draw of its own for each of the M modules, interleaved: module d learns
        from the rows d, d + M, d + 2M ... So a shard of the rows is a shard of each module's draw.
        """
        columns = {m: batch[m] for m in self.layout.modules}
        if not self.config.minibatch_per_module:
            return dict.fromkeys(columns, JointBatch.from_columns(columns))
        num_draws = len(columns)

        def draw(d: int) -> JointBatch:
            return JointBatch.from_columns(
                {m: {name: values[d::num_draws] for name, values in c.items()} for m, c in columns.items()}
            )

        return {module_id: draw(d) for d, module_id in enumerate(columns)}

    def _counts(self, minibatches: Mapping[str, JointBatch]) -> dict[str, Tensor]:
        """Number of living agent rows of each module over all Learners, at least 1."""
        counts = torch.stack([joint.modules[m]["alive"].sum() for m, joint in minibatches.items()])
        if self._world > 1:
            dist.all_reduce(counts)
        return dict(zip(minibatches, counts.clamp(min=1.0), strict=True))

    def _gumbel_noise(self, joint: JointBatch) -> dict[str, Tensor]:
        """Gumbel noise `[B, n, code_dim]` for each module with categorical actions.

        Every Learner draws for the rows of all Learners and takes its own, so that the noise of a row does not depend on how
        many Learners there are.
        """
        rank, world = self._rank, self._world
        noise = {}
        for module_id, columns in joint.modules.items():
            if self._networks(module_id).codec.categorical:
                code = columns[Columns.ACTIONS]
                drawn = losses.gumbel_noise((world * len(joint), *code.shape[1:]), self._rng, code.device, code.dtype)
                noise[module_id] = drawn[rank * len(joint) : (rank + 1) * len(joint)]
        return noise

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
        self._noted: dict[tuple[str, str], Tensor] = {}
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
                optimizer=torch.optim.Adam(params),
                params=params,
                lr_or_lr_schedule=lr,
            )

    @override(Learner)
    def should_module_be_updated(self, module_id: str, multi_agent_batch: Any = None) -> bool:
        """True: RLlib would drop the rows of frozen modules from the batch, which all critics need."""
        return True

    @override(Learner)
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self._env_steps = int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self._env_steps))

    @override(TorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        if self._noted:
            # One transfer from the device for all metrics.
            values = torch.stack([v.float() for v in self._noted.values()]).tolist()
            self.metrics.log_dict(dict(zip(self._noted, values, strict=True)), window=1)
            self._noted.clear()

    @override(Learner)
    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        raise NotImplementedError(
            "MADDPG's critics need the rows of all modules: override `compute_critic_losses` or `compute_actor_losses`."
        )

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

    def _note(self, module_id: str, **values: Tensor) -> None:
        """Keeps scalar tensors for the metrics of this update."""
        self._noted.update({(module_id, name): value.detach() for name, value in values.items()})

    def _on_not_finite(
        self, name: str, module_losses: Mapping[str, Tensor], norms: Mapping[str, Tensor], batch: Mapping[str, Any]
    ) -> None:
        """Raises, or counts the skipped update where `torch_skip_nan_gradients` is set."""
        self._noted.clear()
        if self.config.torch_skip_nan_gradients:
            # All Learners skip alike; one counts.
            for module_id in module_losses if self._rank == 0 else ():
                self.metrics.log_value((module_id, "num_updates_skipped_lifetime"), 1, reduce="lifetime_sum")
            return
        bad = [f"column {c!r} of module {m!r}" for m in batch for c in batch[m] if not _is_finite(batch[m][c])]
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
