"""The networks of one module: a decentralized actor and a centralized critic, with their targets."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from rllib_maddpg.modules.attention import HEADS, AttentionCritic, others_in_game
from rllib_maddpg.modules.critic_types import ATTENTION_CRITIC, MLP_CRITIC
from rllib_maddpg.modules.images import encoder_settings, images_of_agent, images_of_view, with_images
from rllib_maddpg.modules.inferred import check_inferred, inferred_specs
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.normalizing import (
    FILTER,
    MOMENTS,
    OBSERVATIONS,
    REWARDS,
    Moments,
    ObservationFilter,
    check_same_normalization,
)
from rllib_maddpg.modules.specs import ACTOR, CRITIC, NetworkSpec, check_network, check_specs
from rllib_maddpg.modules.sub_policies import SUB_POLICIES, check_sub_policies, select, sub_policy_names
from rllib_maddpg.modules.views import VIEWS, View
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

# Column that carries the raw head output from `forward_exploration` to the env runner's exploration.
HEAD_OUTPUT = "actor_head_output"


class MADDPGTorchRLModule(TorchRLModule, InferenceOnlyAPI):
    """Actor mu(o) and critic Q(x, a_1 ... a_N) of one module, which serves n >= 1 agents.

    The critic of a shared module (n > 1) also gets a one-hot of the agent that it judges, because agents with one actor
    may still have different rewards. On env runners only the actor exists.

    `model_config` keys: `fcnet_hiddens`, `fcnet_activation`, `use_layer_norm` (actor, and critic unless `critic_fcnet_hiddens`,
    `critic_fcnet_activation`, `critic_use_layer_norm` are set); `critic_attention_heads`. `MADDPGConfig` adds `layout`
    (`JointLayout`), `schema` (`RowSchema`), `module_id` and the settings that say which networks there are, and what they see:
    `critic_view`, `critic_type`, `twin_q`, `infer_other_policies`, `num_sub_policies`, `normalize_observations`,
    `normalize_rewards`.

    To bring other networks, subclass and override `build_actor`, `build_critic` and `build_inferred`; to have more of them,
    `networks`.

    Attributes:
        sub_policy: Number of the sub-policy that acts where nobody says which one does. May be set.
    """

    sub_policy: int = 0

    @override(TorchRLModule)
    def setup(self) -> None:
        missing = {"layout", "module_id"} - self.model_config.keys()
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs {sorted(missing)} in its `model_config`: build its spec with "
                "`MADDPGConfig.get_multi_rl_module_spec()`, which knows all agents of the game."
            )
        self.layout: JointLayout = self.model_config["layout"]
        # Modules of old checkpoints know no schema.
        self.schema: RowSchema = self.model_config.get("schema") or RowSchema(self.layout)
        self.module_id: str = self.model_config["module_id"]
        self.codec = self.layout.codec_of(self.module_id)
        self.num_agents = len(self.layout.slots_of(self.module_id))
        self._actor_state: list[Tensor] | None = None
        observations, rewards = (self.model_config.get(key, False) for key in (OBSERVATIONS, REWARDS))
        if observations:
            setattr(self, FILTER, ObservationFilter(self.layout.obs_dim_of(self.module_id)))
        if (observations or rewards) and not self.inference_only:
            setattr(self, MOMENTS, Moments(self.layout.obs_dim_of(self.module_id), observations, rewards))
        name = f"Module {self.module_id!r} of class {type(self).__name__}"
        specs = self.networks()
        check_specs(specs, self.schema, dir(self), name)
        check_sub_policies(specs, self.num_sub_policies, name)
        if self.model_config.get("twin_q", False) and sum(spec.role == CRITIC for spec in specs) < 2:
            raise ValueError(
                f"{name}: `twin_q` is set, and `networks()` has one network of the role 'critic'. Declare a second one with "
                "the same view, or set `twin_q=False` for this module."
            )
        if self._infers:
            check_inferred(specs, self.layout, self.module_id, name)
        self.network_specs = tuple(specs)
        mine = [spec for spec in self.network_specs if spec.on_runners or not self.inference_only]
        for spec in mine:
            network = spec.build()
            check_network(spec, network, name)
            setattr(self, spec.name, network)
        if not self.inference_only:
            for spec in mine:
                if spec.has_target:
                    setattr(self, spec.target, copy.deepcopy(getattr(self, spec.name)).requires_grad_(False))

    @override(TorchRLModule)
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network_specs" not in vars(self):  # a module that was pickled before there were such
            self.schema = RowSchema(self.layout)
            self.network_specs = tuple(self.networks())

    def networks(self) -> list[NetworkSpec]:
        """All networks of this module. Optimizers, targets, checkpoints and metrics follow from it."""
        if self._has_attention:
            critic = self.build_attention_critic
        else:
            critic = partial(self.build_critic, self.input_dim(self.critic_view))
        names = ["critic", "twin_critic"] if self.model_config.get("twin_q", False) else ["critic"]
        return [
            *self.actor_networks(),
            *(NetworkSpec(name, CRITIC, critic, lr="critic_lr", view=self.critic_view) for name in names),
            *self.inferred_networks(),
        ]

    def actor_networks(self) -> list[NetworkSpec]:
        """What chooses actions: an actor, or with `num_sub_policies` as many."""
        build = partial(self.build_actor, self.layout.obs_dim_of(self.module_id), self.codec.dim)
        names = sub_policy_names(self.num_sub_policies)
        return [NetworkSpec(name, ACTOR, build, lr="actor_lr", on_runners=True) for name in names]

    def inferred_networks(self) -> list[NetworkSpec]:
        """Approximations of the other modules' policies, with `infer_other_policies`."""
        return inferred_specs(self.layout, self.module_id, self.build_inferred) if self._infers else []

    @property
    def _infers(self) -> bool:
        # A critic that sees its own agent only does not ask what others do.
        return self.model_config.get("infer_other_policies", False) and self.critic_view.is_shared

    def build_actor(self, obs_dim: int, output_dim: int) -> nn.Module:
        """Network `[..., obs_dim]` -> head output `[..., output_dim]` (logits, or values before tanh or softmax)."""
        images = images_of_agent(self.layout, self.module_id)
        return with_images(self._head(output_dim), obs_dim, images, encoder_settings(self.model_config, critic=False))

    def build_critic(self, input_dim: int, view: View | None = None) -> nn.Module:
        """Network `[..., input_dim]` -> `[..., 1]`.

        Args:
            input_dim: As `input_dim(view)` says.
            view: What it sees; None: what the module's critics see.
        """
        head = partial(MLP, out_dim=1, **self._critic_layers)
        images = images_of_view(self.layout, self.module_id, self.critic_view if view is None else view)
        return with_images(head, input_dim, images, encoder_settings(self.model_config, critic=True))

    def build_attention_critic(self) -> AttentionCritic:
        """With `critic_type="attention"`: the network that judges agents of all modules whose critics are like it."""
        columns = sum(self.schema.width(name) for name in self.critic_view.columns)
        heads = self.model_config.get("critic_attention_heads") or HEADS
        return AttentionCritic(self.layout, columns, heads=heads, **self._critic_layers)

    @property
    def _critic_layers(self) -> dict[str, Any]:
        layer_norm = self.model_config.get("critic_use_layer_norm")
        return {
            "hiddens": self.model_config.get("critic_fcnet_hiddens") or self.model_config["fcnet_hiddens"],
            "activation": self.model_config.get("critic_fcnet_activation") or self.model_config["fcnet_activation"],
            "layer_norm": self._has_layer_norm if layer_norm is None else layer_norm,
        }

    def build_inferred(self, input_dim: int, output_dim: int, about: str | None = None) -> nn.Module:
        """Approximation of another module's actor: `[..., input_dim]`, its agent's observation, and behind it a one-hot of the
        agent if the module serves several, -> head output `[..., output_dim]`.

        Args:
            input_dim, output_dim: The widths.
            about: Id of the other module, where its agents observe images.
        """
        images = [] if about is None else images_of_agent(self.layout, about)
        return with_images(self._head(output_dim), input_dim, images, encoder_settings(self.model_config, critic=False))

    def _head(self, output_dim: int) -> Callable[[int], MLP]:
        """Makes, from the width of its input, the MLP of a network that chooses actions."""
        hiddens, activation = self.model_config["fcnet_hiddens"], self.model_config["fcnet_activation"]
        layer_norm = self._has_layer_norm
        return partial(MLP, out_dim=output_dim, hiddens=hiddens, activation=activation, final_scale=0.1, layer_norm=layer_norm)

    @property
    def _has_layer_norm(self) -> bool:
        return self.model_config.get("use_layer_norm", False)

    @property
    def num_sub_policies(self) -> int:
        """K, by the setting of that name; 1: there is no ensemble."""
        return self.model_config.get("num_sub_policies", 1)

    @property
    def acting_networks(self) -> tuple[nn.Module, ...]:
        """The networks that choose actions, those of the role "actor": one for each sub-policy."""
        return tuple(getattr(self, spec.name) for spec in self.network_specs if spec.role == ACTOR)

    @property
    def acting_network(self) -> nn.Module:
        """The network that chooses actions; of several sub-policies the one that `sub_policy` says."""
        return self.acting_networks[self.sub_policy]

    @property
    def obs_filter(self) -> ObservationFilter | None:
        """What normalizes observations for the actor; None without `normalize_observations`."""
        return self._modules.get(FILTER)

    @property
    def moments(self) -> Moments | None:
        """What the Learner has counted of observations and rewards; None on env runners, and without normalization."""
        return self._modules.get(MOMENTS)

    def head_output(self, obs: Tensor, sub_policies: Tensor | None = None) -> Tensor:
        """What the actor makes of observations as the env gives them: `[..., obs_dim]` -> `[..., code_dim]`.

        It is `MASKED` where an observation says that an action is not allowed.

        Args:
            obs: The observations.
            sub_policies: Which sub-policy acts on each of them, `[...]`; None: the one that `sub_policy` says acts on all.
        """
        seen = obs if self.obs_filter is None else self.obs_filter(obs)
        if sub_policies is None or self.num_sub_policies == 1:
            output = self.acting_network(seen)
        else:
            output = select([network(seen) for network in self.acting_networks], sub_policies)
        mask = self.layout.slots_of(self.module_id)[0].mask
        return output if mask is None else self.codec.masked(output, self.codec.allowed(obs[..., mask]))

    @property
    def critic_view(self) -> View:
        """What the critic sees: the setting `critic_view`; and who is in the game, if it is an attention critic."""
        view = self.model_config.get("critic_view", "all")
        view = VIEWS[view] if isinstance(view, str) else view
        return dataclasses.replace(view, presence=True) if self._has_attention else view

    @property
    def _has_attention(self) -> bool:
        return self.model_config.get("critic_type", MLP_CRITIC) == ATTENTION_CRITIC

    def input_dim(self, view: View) -> int:
        """Width of the input of a network with this view: what it shows, and the one-hot of a shared module's agent."""
        agent_id_dim = self.num_agents if self.num_agents > 1 else 0
        return view.obs_dim(self.schema, self.module_id) + view.action_dim(self.schema, self.module_id) + agent_id_dim

    @property
    def has_plain_values(self) -> bool:
        """Whether `q_values` is the one below, so that the Learner may compute it in another order."""
        return type(self).q_values is MADDPGTorchRLModule.q_values

    def q_values(self, critic: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
        """Q_i(x, a) for each agent i of this module.

        Args:
            critic: `self.critic`, `self.target_critic`, or another network with a view.
            obs: What the view shows beside actions: x `[B, obs_dim of all agents]`, or `[B, n, dim]` where it differs by i.
            actions: The action codes that it shows: `[B, code_dim of all agents]`, or `[B, n, dim]` where they differ by i.

        Returns:
            `[B, n]`.
        """
        if isinstance(critic, AttentionCritic):
            return self._attention_values(critic, obs, actions)
        batch, n = len(obs), self.num_agents
        parts = [part.unsqueeze(1).expand(batch, n, -1) if part.dim() == 2 else part for part in (obs, actions)]
        if n > 1:
            eye = torch.eye(n, dtype=obs.dtype, device=obs.device)
            parts.append(eye.expand(batch, n, n))
        return critic(torch.cat(parts, -1)).squeeze(-1)

    def _attention_values(self, critic: AttentionCritic, obs: Tensor, actions: Tensor) -> Tensor:
        """As `q_values`; if `obs` does not end with who is in the game, all are."""
        judged = [self.layout.index(slot.agent) for slot in self.layout.slots_of(self.module_id)]
        widths = [self.layout.obs_dim, critic.columns_dim, len(self.layout)]
        if obs.shape[-1] == sum(widths[:2]):
            obs = torch.cat([obs, obs.new_ones(*obs.shape[:-1], widths[2])], -1)
        seen, columns, present = obs.split(widths, -1)
        embedded = critic.embedded(critic.seen(seen, actions))
        attends = others_in_game(present, torch.tensor(judged, device=obs.device))
        return critic.judge(embedded[judged], critic.looked_at(embedded), attends, columns).t()

    def actor_state(self) -> list[Tensor]:
        """All parameters and buffers that an env runner's copy of this module has; in the same order here and there."""
        if self._actor_state is None:
            hidden = [FILTER, *(() if self.inference_only else self.get_non_inference_attributes())]
            state = self.state_dict(keep_vars=True)
            self._actor_state = [t for name, t in state.items() if name.split(".")[0] not in hidden]
        if self.obs_filter is None:
            return self._actor_state
        # `.double()` and its like give a module other buffers, but the same parameters.
        return [*self._actor_state, *self.obs_filter.buffers()]

    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Greedy actions `[B, ...]` in RLlib's episode format (Box in [-1, 1])."""
        with torch.no_grad():
            output = self.head_output(batch[Columns.OBS], batch.get(SUB_POLICIES))
            return {Columns.ACTIONS: self.codec.decode(self.codec.greedy(output))}

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Head output `[B, dim]`; `MADDPGEnvRunner` adds the noise, which has a state for each env and agent."""
        with torch.no_grad():
            return {HEAD_OUTPUT: self.head_output(batch[Columns.OBS], batch.get(SUB_POLICIES))}

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Head output `[B, n, dim]`. The Learner calls the networks themselves, since critics need all agents' rows."""
        return {HEAD_OUTPUT: self.head_output(batch[Columns.OBS], batch.get(SUB_POLICIES))}

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        hidden = [n for spec in self.network_specs for n in spec.attributes if not (spec.on_runners and n == spec.name)]
        return hidden if self.moments is None else [*hidden, MOMENTS]

    @override(TorchRLModule)
    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(*args, **kwargs)
        for name, value in self._moments_state().items():
            if name in state:  # in float32
                state[name] = value.detach().cpu().numpy().copy()
        return state

    @override(TorchRLModule)
    def set_state(self, state: dict[str, Any]) -> None:
        """RLlib's.

        Raises:
            ValueError: If the state has learned with normalization and this module does without, or the reverse.
        """
        settings = (OBSERVATIONS,) if self.inference_only else (OBSERVATIONS, REWARDS)
        check_same_normalization(state, self.state_dict(), settings if state else (), f"The weights for {self.module_id!r}")
        super().set_state(state)
        with torch.no_grad():
            for name, value in self._moments_state().items():
                if name in state:
                    value.copy_(torch.as_tensor(np.array(state[name])))

    def _moments_state(self) -> dict[str, Tensor]:
        """What RLlib would make float32 of, by its name in a state."""
        return {} if self.moments is None else dict(self.moments.named_buffers(prefix=MOMENTS))


def actor_state_of(modules: Mapping[str, RLModule], layout: JointLayout) -> list[Tensor]:
    """The actor states of all modules in layout order, as Learner and env runners exchange them.

    Modules without actors of ours have none: nobody trains them.
    """
    networks = [modules[m].unwrapped() for m in layout.modules]
    return [t for module in networks if isinstance(module, MADDPGTorchRLModule) for t in module.actor_state()]
