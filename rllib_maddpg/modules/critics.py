"""Networks that judge agents, Q_i(x, a_1 ... a_N), of several modules, with the work that they share done once. No Ray here.

All critics with the view `ALL` see the same x and a, and an actor's loss changes one agent's action only. So an MLP's first
layer is taken apart into a sum over blocks of its input,

    W [x, a_1 ... a_N, id_i] + b  =  W_xa [x, a_1 ... a_N]  +  W_id[:, i]  +  b,

with one product W_xa [x, a] for the critics of all agents of a module, and for the actor loss

    W_xa [x, a_1 ... mu_i ... a_N]  =  W_xa [x, a_1 ... a_N]  +  W_i (mu_i - a_i),

of which only the last term has a gradient. With many agents nearly all work is in the first layer.

Shapes: G modules of n agents each, B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rllib_maddpg.modules.critic_inputs import CriticInputs, SeparateInputs, SlotInputs
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.stacking import SingleNetwork, StackedMLP
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.schema import RowSchema


class StackedCritics(StackedMLP):
    """Critics of G modules whose networks are MLPs of one shape, which all see the same."""

    def __init__(
        self, schema: RowSchema, modules: Sequence[str], critics: Sequence[MLP], view: View, obs_dim: int | None = None
    ):
        """
        Args:
            schema: Of the rows.
            modules: Ids of the G modules.
            critics: Their networks.
            view: What they see.
            obs_dim: Width of what they see beside actions; None: of what the view shows.
        """
        super().__init__(critics)
        slots = [schema.layout.slots_of(m) for m in modules]
        self._agents, self._code_dim = len(slots[0]), slots[0][0].codec.dim
        obs_dim = view.obs_dim(schema, modules[0]) if obs_dim is None else obs_dim
        self._shared_inputs = obs_dim + view.action_dim(schema, modules[0])
        # Where each agent's own action lies in the inputs, [G, n * code_dim].
        own = [[obs_dim + c for s in group for c in range(s.actions.start, s.actions.stop)] for group in slots]
        self._own_columns = torch.tensor(own, device=self.parameters[0].device)

    def repeated(self, times: int) -> StackedCritics:
        """As in `StackedMLP`."""
        new = super().repeated(times)
        new._own_columns = self._own_columns.repeat(times, 1)
        return new

    def q_values(self, inputs: CriticInputs | SlotInputs | SeparateInputs) -> Tensor:
        """Q_i(x, a) of each agent i: `[G, n, B]`."""
        return self._q_values(self._first_layer(inputs))

    def q_values_with_own(self, inputs: CriticInputs | SlotInputs | SeparateInputs, own: Tensor) -> Tensor:
        """Q_i(x, a) with a_i replaced, to be differentiated by it: `[G, n, B]`.

        Args:
            inputs: (x, a), no gradient goes there.
            own: New action a_i of each agent, `[G, n, B, code_dim]`.
        """
        modules, agents, code_dim = len(self._own_columns), self._agents, self._code_dim
        with torch.no_grad():
            first = self._first_layer(inputs).flatten(0, 1) if agents > 1 else self._first_layer(inputs)
            weight = self.parameters[0]
            at = self._own_columns.unsqueeze(1).expand(-1, weight.shape[1], -1)
            own_weight = weight.gather(2, at).unflatten(2, (agents, code_dim)).permute(0, 2, 3, 1).flatten(0, 1)
            own_weight = own_weight.contiguous()  # for the product of the backward pass
            old = inputs.at(self._own_columns).unflatten(2, (agents, code_dim)).transpose(1, 2).flatten(0, 1)
        first = torch.baddbmm(first, own.flatten(0, 1) - old, own_weight)
        return self._q_values(first, detach=True).view(modules, agents, -1)

    def _q_values(self, first: Tensor, detach: bool = False) -> Tensor:
        q = self.after_first_layer(first, detach=detach)
        return q.view(len(q), self._agents, -1)

    def _first_layer(self, inputs: CriticInputs | SlotInputs | SeparateInputs) -> Tensor:
        """Before the activation: `[G, B, width]` for one agent a module, else `[G, n, B, width]`."""
        weight, bias = self.parameters[:2]
        if weight.shape[2] == self._shared_inputs:
            return inputs.times(weight, bias)
        shared, agent_id = weight.split([self._shared_inputs, weight.shape[2] - self._shared_inputs], -1)
        first = inputs.times(shared, bias)
        return first.unsqueeze(1) + agent_id.transpose(1, 2).unsqueeze(2)


class StackedOwnCritics(StackedMLP):
    """Critics of G modules whose networks are MLPs of one shape, each of which sees its own agents only."""

    def q_values(self, inputs: Tensor) -> Tensor:
        """Q_i(o_i, a_i) of each agent i: `[G, n, B, dim]` -> `[G, n, B]`."""
        return self(_with_agent_ids(inputs)).squeeze(-1)

    def q_values_with_own(self, inputs: Tensor, own: Tensor) -> Tensor:
        """As in `StackedCritics`; the agent's action is the last part of `inputs` `[G, n, B, dim]`."""
        replaced = torch.cat([inputs[..., : -own.shape[-1]], own], -1)
        return self(_with_agent_ids(replaced), detach=True).squeeze(-1)


def _with_agent_ids(inputs: Tensor) -> Tensor:
    """`[G, n, B, dim]` with a one-hot of the agent behind, if there are several in a module."""
    modules, agents, rows, _ = inputs.shape
    if agents == 1:
        return inputs
    eye = torch.eye(agents, dtype=inputs.dtype, device=inputs.device)
    return torch.cat([inputs, eye.unsqueeze(1).expand(modules, agents, rows, agents)], -1)


class SingleCritic(SingleNetwork):
    """The critic of one module, whatever network it is and whatever its module makes of the inputs."""

    def __init__(self, schema: RowSchema, module: Any, critic: nn.Module, view: View):
        super().__init__(critic)
        self._module, self._is_shared = module, view.is_shared
        self._slots = schema.layout.slots_of(module.module_id)
        self._dims = [view.obs_dim(schema, module.module_id), view.action_dim(schema, module.module_id)]

    def q_values(self, inputs: CriticInputs | SeparateInputs | Tensor) -> Tensor:
        """As in `StackedCritics` or `StackedOwnCritics`; G is 1."""
        obs, actions = self._parts(inputs)
        return self._module.q_values(self.network, obs, actions).t().unsqueeze(0)

    def q_values_with_own(self, inputs: CriticInputs | SeparateInputs | Tensor, own: Tensor) -> Tensor:
        """As in `StackedCritics` or `StackedOwnCritics`; G is 1."""
        obs, actions = self._parts(inputs)
        if self._is_shared:
            actions = actions.unsqueeze(1).repeat(1, len(self._slots), 1)
            for k, slot in enumerate(self._slots):
                actions[:, k, slot.actions] = own[0, k]
        else:
            actions = own[0].transpose(0, 1)
        return self._module.q_values(self.network, obs, actions).t().unsqueeze(0)

    def _parts(self, inputs: CriticInputs | SeparateInputs | Tensor) -> tuple[Tensor, ...]:
        values = inputs.values if self._is_shared else inputs[0].transpose(0, 1)
        return values.split(self._dims, -1)
