"""The networks of a Learner: what becomes of modules' declarations, whatever is learned. Groups, optimizers, state, weights."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ray.rllib.core import COMPONENT_OPTIMIZER
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from rllib_maddpg.learning.common_groups import CommonOptimizer, start_alike
from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.learning.groups import ModuleSettings, NetworkGroup, group_networks, once_each
from rllib_maddpg.learning.normalizer import Normalizer
from rllib_maddpg.learning.process_speedups import speed_up_process
from rllib_maddpg.learning.update_noise import CounterNoise, GeneratorNoise
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule, actor_state_of
from rllib_maddpg.modules.rule_modules import acts_by_rule, check_stateless, has_networks
from rllib_maddpg.ray_compat import restore_optimizers, without_counted
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

logger = logging.getLogger(__name__)


class GroupedTorchLearner(TorchLearner):
    """A Learner of modules that declare their networks (`MADDPGTorchRLModule.networks`).

    - Each network has an optimizer of its own; networks that are alike are computed as one (`NetworkGroup`).
    - Several Learners start alike and add up their gradients, without DDP.
    - Its state is whole: a restored Learner goes on bit for bit.
    """

    # False: each module is computed by itself and learns by its own parameters.
    stacks_modules = True

    # ------------------------------------------------------------------------------------------ setting up

    @override(TorchLearner)
    def build(self) -> None:
        super().build()
        self._configs = {m: self.config.get_config_for_module(m) for m in self.module.keys()}  # noqa: SIM118
        self._has_schedules = any(config.module_schedules(0) for config in self._configs.values())
        modules = {m: self._networks(m) for m in self._configs}
        model_config = next(iter(modules.values())).model_config
        self.layout: JointLayout = model_config["layout"]
        self.schema: RowSchema = model_config["schema"]
        check_stateless(modules.items())
        # Those that can be trained, and those that act by a rule of their own while they are not.
        self._learnable = [m for m in self.layout.modules if has_networks(modules[m])]
        self._rules = {m: modules[m] for m in self.layout.modules if acts_by_rule(modules[m])}
        self._groups: dict[str, list[NetworkGroup]] = {}
        self._normalizer: Normalizer | None = None
        self._env_steps = 0
        self._num_updates = 0
        self._last_target_update = 0  # env steps
        if self.config.process_wide_speedups:
            speed_up_process()
        seed = self.config.seed if self.config.seed is not None else int(np.random.SeedSequence().entropy % 2**62)
        # On the device, because NCCL knows no other tensors.
        seed = torch.tensor([seed], device=self._device)
        distributed = self.config.num_learners > 1
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        if distributed:
            self._start_alike(seed)
        if start_alike({m: modules[m] for m in self._learnable}) and self.why_not_stacked():
            raise ValueError(
                f"`critic_type`='attention' needs modules that are computed together, but {self.why_not_stacked()}. Set "
                "'mlp', or another `learner_class`."
            )
        # Every Learner draws the same numbers.
        self._noise: CounterNoise | GeneratorNoise = CounterNoise(
            CounterNoise.keys_of(int(seed)), self._rank, self._device, self._world
        )

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

    @staticmethod
    @override(TorchLearner)
    def _set_optimizer_lr(optimizer: torch.optim.Optimizer, lr: float | Tensor) -> None:
        # Of a schedule RLlib gives a tensor first, which would lie on the Learner's device in checkpoints, too.
        TorchLearner._set_optimizer_lr(optimizer, float(lr))

    # ------------------------------------------------------------------------------------------ groups

    def _networks(self, module_id: str) -> MADDPGTorchRLModule | RLModule:
        return self.module[module_id].unwrapped()

    def _tie(self) -> None:
        """Makes the groups, or rebuilds them where somebody has changed a module's networks."""
        if self._groups and all(tied.is_tied() for tied in (*self._all_groups(), *filter(None, [self._normalizer]))):
            return
        networks = {m: self._networks(m) for m in self._learnable}
        alone = self.why_not_stacked()
        if alone and not self._groups:
            logger.info("Modules are not computed together, which takes longer: %s.", alone)
        self._groups = group_networks(self.schema, networks, {m: self._module_settings(m) for m in networks}, not alone)
        for module_id, module in networks.items():
            self._check_optimizers(module_id, module)
        self._make_normalizer(networks)
        for groups in self._groups.values():
            for group in once_each(groups):
                if group.is_trainable:
                    self._make_optimizer(group, [other for other in groups if other.common and other.common is group.common])

    def _make_optimizer(self, group: NetworkGroup, with_its_weights: Sequence[NetworkGroup]) -> None:
        modules = [m for other in with_its_weights or [group] for m in other.modules]
        optimizers = [self.get_optimizer(m, group.name) for m in modules]
        parameters = [list(getattr(self._networks(m), group.name).parameters()) for m in modules]
        if with_its_weights:
            common = CommonOptimizer(optimizers, parameters)
            for other in with_its_weights:
                other.optimizer = common
            return
        stacked = group.network.parameters if group.network.is_stacked else None
        group.optimizer = GroupOptimizer(optimizers, parameters, stacked)

    def _make_normalizer(self, networks: dict[str, MADDPGTorchRLModule]) -> None:
        observations, rewards = self.config.normalize_observations, self.config.normalize_rewards
        if observations or rewards:
            like = self._all_groups()[0].network.parameters[0]
            distributed, old = self._world > 1, self._normalizer
            self._normalizer = Normalizer(self.schema, networks, observations, rewards, like, distributed, old)

    def stand_alone(self) -> None:
        """Lets all that it has on the device lie in tensors of its own, where it has lain beside other Learners."""
        self._groups = {}
        self._tie()
        if isinstance(self._noise, CounterNoise):
            self._noise.stand_alone()

    def _all_groups(self) -> list[NetworkGroup]:
        return [group for groups in self._groups.values() for group in groups]

    def _check_optimizers(self, module_id: str, module: MADDPGTorchRLModule) -> None:
        """Somebody may have put another network into a module, of which its optimizer knows nothing."""
        for spec in module.network_specs:
            if spec.lr is not None:
                groups = self.get_optimizer(module_id, spec.name).param_groups
                known = {id(p) for group in groups for p in group["params"]}
                if known.isdisjoint(map(id, getattr(module, spec.name).parameters())):
                    raise ValueError(
                        f"The optimizer of network {spec.name!r} of module {module_id!r} has none of the network's parameters: "
                        "there is another network than when the Learner was made. Copy weights into the one that was there "
                        "(`load_state_dict`), or give the module's class in `rl_module_spec`."
                    )

    def _module_settings(self, module_id: str) -> ModuleSettings:
        config = self._configs[module_id]
        # With rows of their own no two modules can be computed as one.
        apart = module_id if self.config.minibatch_per_module else None
        return ModuleSettings(config.module_numbers(self._env_steps), config.module_words(), apart)

    def write_schedules(self) -> None:
        """Tells the device the present values of modules' numbers that change with env steps."""
        if not self._has_schedules:
            return
        now = {m: config.module_numbers(self._env_steps) for m, config in self._configs.items()}
        for group in self._all_groups():
            for key in {key for m in group.modules for key in self._configs[m].module_schedules(0)}:
                group.settings.write(key, [now[m][key] for m in group.modules])

    @classmethod
    def why_not_stacked(cls) -> str:
        """Why each module must learn by its own parameters; empty: the losses depend on modules by their groups only."""
        return "" if cls.stacks_modules else f"{cls.__name__} has `stacks_modules = False`"

    def _sum_over_learners(self, tensors: Collection[Tensor]) -> list[Tensor]:
        if self._world == 1:
            return list(tensors)
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]

    # ------------------------------------------------------------------------------------------ weights and state

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

    @override(Learner)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        noise = self._noise
        if isinstance(noise, CounterNoise):
            state["noise_keys"] = noise.keys()
        else:
            state["gumbel_rng"] = noise.generator.get_state().numpy()
        state["env_steps"] = self._env_steps
        state["num_updates"] = self._num_updates
        state["last_target_update"] = self._last_target_update
        if self._normalizer is not None and (left_out := self._normalizer.left_out()):
            state["moments"] = left_out
        return state

    @override(Learner)
    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what was learned; every setting, such as learning rates and who is trained, stays this Learner's own."""
        state = {key: value for key, value in state.items() if key != "should_module_be_updated"}
        # RLlib skips weights that are older than its own, but a checkpoint is restored whole. What comes out of it is new
        # to the env runners, even if they have seen later updates.
        before, self._weights_seq_no = self._weights_seq_no, 0
        super().set_state(without_counted(self, state))
        restore_optimizers(self, state.get(COMPONENT_OPTIMIZER, {}))
        # RLlib lets Adam go on in the very arrays of the state, which may be those of another Learner, too.
        for optimizer in self._named_optimizers.values():
            for own in optimizer.state.values():
                own.update({name: value.clone() for name, value in own.items() if isinstance(value, Tensor)})
        for group in self._all_groups():
            if group.optimizer is not None:
                group.optimizer.tie()
        self._weights_seq_no = max(before + 1, self._weights_seq_no)
        if "noise_keys" in state:
            if not isinstance(self._noise, CounterNoise):
                self._noise = CounterNoise(state["noise_keys"], self._rank, self._device, self._world)
            self._noise.set_keys(state["noise_keys"])
        elif "gumbel_rng" in state:  # of a version that drew from a generator
            generator = torch.from_numpy(state["gumbel_rng"].copy())
            self._noise = GeneratorNoise(generator, self._rank, self._world)
        self._env_steps = state.get("env_steps", self._env_steps)
        self._num_updates = state.get("num_updates", self._num_updates)
        self._last_target_update = state.get("last_target_update", self._last_target_update)
        if "moments" in state:  # of modules that have no place for them
            self._tie()
            if self._normalizer is not None:
                self._normalizer.set_left_out(state["moments"])
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
