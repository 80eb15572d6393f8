"""Algorithm 1 of Lowe et al. 2017: one update of all critics, actors and targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from torch import Tensor

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.groups import ACTOR, CRITIC, NetworkGroup
from rllib_maddpg.learning.joint_learner import JointTorchLearner
from rllib_maddpg.modules.critic_inputs import CriticInputs
from rllib_maddpg.modules.rule_modules import has_networks, rule_codes
from rllib_maddpg.modules.stacking import SingleNetwork
from rllib_maddpg.rows.joint_batch import JointBatch


class MADDPGTorchLearner(JointTorchLearner):
    """Updates critics first, then actors, then targets, with one Adam for each actor and each critic.

    Modules with equal networks and settings are computed as one (`NetworkGroup`): shapes below are for a group of G modules of
    n agents each and B rows. Modules outside `policies_to_train` stay as they are; their actions still enter all critics. One
    that acts by a rule of its own, which may have no networks at all, is asked what it does next.

    Override `compute_critic_losses` or `compute_actor_losses` to change a loss.
    """

    # ------------------------------------------------------------------------------------------ the update (Algorithm 1)

    @override(TorchLearner)
    def _uncompiled_update(self, batch: JointBatch, **kwargs: Any) -> tuple[dict, dict, dict]:
        self._tie()
        self._next_inputs_of.clear()
        self._counts.clear()
        # Asked once, so that critics, actors and targets of this update are those of the same modules.
        self._trained = [m for m in self.layout.modules if self._is_trained(m, batch)]
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
        for group in self._trained_groups(CRITIC):
            config, joint = self._configs[group.modules[0]], minibatches[group.modules[0]]
            reward, terminated, alive = (joint.stack(group.modules, c) for c in ("rewards", "terminateds", "alive"))
            with torch.no_grad():
                next_q = group.target.q_values(self._next_inputs(joint))
                target = losses.td_target(reward, terminated, config.gamma, next_q)
            q = group.network.q_values(joint.inputs)
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
        outputs, mu, q, result = {}, {}, {}, {}
        for group in self._groups[ACTOR]:
            config, joint = self._configs[group.modules[0]], minibatches[group.modules[0]]
            outputs[group] = group.network(joint.stack(group.modules, "obs"))
            gumbel = self._stacked_noise(group, noise[joint])
            code = group.codec.sample(outputs[group], gumbel, config.gumbel_softmax_temperature)
            mu.update(zip(group.modules, code, strict=True))
        # A frozen module may stand beside trained ones in a group of actors, and alone in one of critics.
        judged = {m for group in self._trained_groups(ACTOR) for m in group.modules}
        for group in self._groups[CRITIC]:
            if judged.isdisjoint(group.modules):
                continue
            config, joint = self._configs[group.modules[0]], minibatches[group.modules[0]]
            inputs = self._current_inputs(joint, noise[joint]) if config.others_actions == "current" else joint.inputs
            values = group.network.q_values_with_own(inputs, torch.stack([mu[m] for m in group.modules]))
            q.update(zip(group.modules, values, strict=True))
        for group in self._trained_groups(ACTOR):
            config, joint = self._configs[group.modules[0]], minibatches[group.modules[0]]
            values, alive = torch.stack([q[m] for m in group.modules]), joint.stack(group.modules, "alive")
            loss = losses.actor_loss(values, outputs[group], alive, self._count(group, joint), config.actor_output_reg)
            result.update(zip(group.modules, loss, strict=True))
            self._note_actors(group, outputs[group], alive)
        return {m: result[m] for m in self._trained}

    @torch.no_grad()
    def _next_inputs(self, joint: JointBatch) -> CriticInputs:
        """(x', mu'_1(o'_1) ... mu'_N(o'_N)) by the target actors, or by a module's own rule; zeros for the dead."""
        if joint not in self._next_inputs_of:
            actions = {}
            for group in self._groups[ACTOR]:
                output = group.target(joint.stack(group.modules, "new_obs"))
                alive = joint.stack(group.modules, "next_alive").unsqueeze(-1)
                actions.update(zip(group.modules, group.codec.greedy(output) * alive, strict=True))
            actions.update(self._rule_actions(joint, "new_obs", "next_alive"))
            # The same for all critics that learn from these rows.
            self._next_inputs_of[joint] = CriticInputs(torch.cat([joint.next_obs, self._joint_actions(actions)], -1))
        return self._next_inputs_of[joint]

    @torch.no_grad()
    def _current_inputs(self, joint: JointBatch, gumbel: Mapping[str, Tensor]) -> CriticInputs:
        """(x, what the current actors do in x); zeros for the dead."""
        actions = {}
        for group in self._groups[ACTOR]:
            temperature = self._configs[group.modules[0]].gumbel_softmax_temperature
            output = group.network(joint.stack(group.modules, "obs"))
            code = group.codec.sample(output, self._stacked_noise(group, gumbel), temperature)
            actions.update(zip(group.modules, code * joint.stack(group.modules, "alive").unsqueeze(-1), strict=True))
        actions.update(self._rule_actions(joint, "obs", "alive"))
        return CriticInputs(torch.cat([joint.columns["obs"], self._joint_actions(actions)], -1))

    def _rule_actions(self, joint: JointBatch, obs: str, alive: str) -> dict[str, Tensor]:
        """Codes `[n, B, code_dim]` of the modules that act by a rule and are not trained; networks they have do not say it.

        Args:
            joint: The rows.
            obs: The column of what they see, "obs" or "new_obs".
            alive: That of who acts on it, "alive" or "next_alive".
        """
        return {
            m: rule_codes(m, self._networks(m), self.layout.codec_of(m), joint.modules[m][obs], joint.modules[m][alive])
            for m in self._with_rules
            if m not in self._trained
        }

    def _joint_actions(self, actions: Mapping[str, Tensor]) -> Tensor:
        """Per module codes `[n, B, code_dim]` -> `[B, code_dim of all agents]`."""
        return torch.cat([actions[m].transpose(0, 1).flatten(1) for m in self.layout.modules], -1)

    def _update_targets(self) -> None:
        """theta' <- tau theta + (1 - tau) theta' of the trained modules, every `target_network_update_freq` env steps."""
        freq, now = self.config.target_network_update_freq, self._env_steps
        if now - self._last_target_update < freq:
            return
        self._last_target_update = now
        for group in (*self._trained_groups(CRITIC), *self._trained_groups(ACTOR)):
            pairs = [(group.target, group.network)]
            if not set(group.modules) <= set(self._trained):
                networks = [self._networks(m) for m in group.modules if m in self._trained]
                pairs = [
                    (SingleNetwork(getattr(m, f"target_{group.name}")), SingleNetwork(getattr(m, group.name))) for m in networks
                ]
            for target, source in pairs:
                losses.polyak_update(target.parameters, source.parameters, self._configs[group.modules[0]].tau)

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

    def _count(self, group: NetworkGroup, joint: JointBatch) -> Tensor:
        """Number of living agent rows of each module over all Learners, at least 1, `[G]`."""
        key = group.modules, joint
        if key not in self._counts:
            count = joint.stack(group.modules, "alive").sum((1, 2))
            if self._world > 1:
                dist.all_reduce(count)
            self._counts[key] = count.clamp(min=1.0)
        return self._counts[key]

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
    def _stacked_noise(group: NetworkGroup, noise: Mapping[str, Tensor]) -> Tensor | None:
        """`[G, n, B, code_dim]`; None for modules that draw none."""
        return torch.stack([noise[m].transpose(0, 1) for m in group.modules]) if group.codec.categorical else None

    # ------------------------------------------------------------------------------------------ RLlib's hooks

    @override(JointTorchLearner)
    def build(self) -> None:
        super().build()
        self._last_target_update = 0
        # What several modules need of the rows of an update.
        self._next_inputs_of: dict[JointBatch, CriticInputs] = {}
        self._counts: dict[tuple[tuple[str, ...], JointBatch], Tensor] = {}

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module = self._networks(module_id)
        if not has_networks(module):
            return
        for name, lr in ((CRITIC, config.learning_rate(CRITIC)), (ACTOR, config.learning_rate(ACTOR))):
            params = list(getattr(module, name).parameters())
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(params, fused=True),
                params=params,
                lr_or_lr_schedule=lr,
            )

    @override(JointTorchLearner)
    def _may_stack(self) -> bool:
        # A loss that somebody overrode may depend on a module's own parameters, so these must be the ones that learn.
        names = ("compute_critic_losses", "compute_actor_losses")
        return all(getattr(type(self), name) is getattr(MADDPGTorchLearner, name) for name in names)

    @override(Learner)
    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        raise NotImplementedError(
            "MADDPG's critics need the rows of all modules: override `compute_critic_losses` or `compute_actor_losses`."
        )

    @override(JointTorchLearner)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        return {**state, "last_target_update": self._last_target_update}

    @override(JointTorchLearner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._last_target_update = state.get("last_target_update", self._last_target_update)

    # ------------------------------------------------------------------------------------------ metrics

    @torch.no_grad()
    def _note_critics(self, group: NetworkGroup, q: Tensor, target: Tensor, alive: Tensor) -> None:
        if self.collects_td_errors:
            # The rows of this group, as `_minibatches` deals them out.
            step = len(self.layout.modules) if self.config.minibatch_per_module else 1
            own = self._td_errors[-1][:, self.layout.modules.index(group.modules[0]) % step :: step]
            own += torch.stack([((q - target).abs() * alive).sum((0, 1)), alive.sum((0, 1))])
        if self._reports:
            living = alive.sum((1, 2)).clamp(min=1.0)
            mean, td_error = (q * alive).sum((1, 2)) / living, ((q - target).abs() * alive).sum((1, 2)) / living
            q = torch.where(alive > 0, q, mean[:, None, None]).flatten(1)
            self._note(group.modules, qf_mean=mean, qf_min=q.amin(1), qf_max=q.amax(1), td_error_mean=td_error)

    @torch.no_grad()
    def _note_actors(self, group: NetworkGroup, output: Tensor, alive: Tensor) -> None:
        if self._reports:
            living = alive.sum((1, 2)).clamp(min=1.0)
            metrics = group.codec.head_metrics(output)
            self._note(group.modules, **{name: (value * alive).sum((1, 2)) / living for name, value in metrics.items()})

    def _note_total_losses(self) -> None:
        if self._reports:
            for m in self._trained:
                self._noted[m, self.TOTAL_LOSS_KEY] = self._noted[m, "critic_loss"] + self._noted[m, "actor_loss"]
