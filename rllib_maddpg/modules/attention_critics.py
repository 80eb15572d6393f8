"""Attention critics of several modules, computed as the one network that they are. No Ray here.

Shapes: G modules of n agents each, B rows, N agents of the game; E is the width of what becomes of an agent's observation and
action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rllib_maddpg.modules.attention import AttentionCritic, others_in_game
from rllib_maddpg.modules.common_weights import CommonWeights
from rllib_maddpg.modules.critic_inputs import PresentInputs
from rllib_maddpg.rows.layout import JointLayout


class AttentionCritics:
    """The critics of G modules, which have one set of weights (`CommonWeights`), with other modules' of the same game.

    Keys and values of all agents are computed once, whoever is judged; for the actor loss without a gradient, since an agent
    takes no notice of itself.

    Attributes:
        parameters: Those of the network, without a leading dimension.
    """

    is_stacked = False

    def __init__(self, layout: JointLayout, modules: Sequence[str], common: CommonWeights):
        self._common = common
        self.network: AttentionCritic = common.network
        self.parameters = common.parameters
        self._modules = len(modules)
        agents = [layout.index(slot.agent) for m in modules for slot in layout.slots_of(m)]
        device = self.parameters[0].device
        self._judged = torch.tensor(agents, device=device)
        # None: they are all agents of the game.
        self._picked = None if agents == list(range(len(layout))) else self._judged
        self._slots = [slot for m in modules for slot in layout.slots_of(m)]
        self._agents = agents

    def is_tied(self) -> bool:
        """Whether the modules' networks still have one set of weights."""
        return self._common.is_tied()

    def q_values(self, inputs: PresentInputs) -> Tensor:
        """Q_i(x, a) of each agent i: `[G, n, B]`."""
        if inputs.actions.dim() == 3:
            return self._of_each_module(inputs, None)
        embedded = self.network.embedded(self.network.seen(inputs.obs, inputs.actions))
        own = embedded if self._picked is None else embedded.index_select(0, self._picked)
        return self._judge(own, self.network.looked_at(embedded), inputs, self._judged).unflatten(0, (self._modules, -1))

    def q_values_with_own(self, inputs: PresentInputs, own: Tensor) -> Tensor:
        """Q_i(x, a) with a_i replaced, to be differentiated by it: `[G, n, B]`.

        Args:
            inputs: (x, a), no gradient goes there.
            own: New action a_i of each agent, `[G, n, B, code_dim]`.
        """
        if inputs.actions.dim() == 3:
            return self._of_each_module(inputs, own)
        return self._with_own(inputs, own.flatten(0, 1), list(range(len(self._agents)))).unflatten(0, (self._modules, -1))

    def _of_each_module(self, inputs: PresentInputs, own: Tensor | None) -> Tensor:
        """Q where each module has its own idea of what all agents do: `[G, n, B]`."""
        each = len(self._agents) // self._modules
        q = []
        for k, actions in enumerate(inputs.actions):
            members, one = list(range(k * each, (k + 1) * each)), inputs.with_actions(actions)
            if own is not None:
                q.append(self._with_own(one, own[k], members))
                continue
            embedded = self.network.embedded(self.network.seen(one.obs, actions))
            judged = self._judged[members[0] : members[-1] + 1]
            q.append(self._judge(embedded.index_select(0, judged), self.network.looked_at(embedded), one, judged))
        return torch.stack(q)

    def _with_own(self, inputs: PresentInputs, own: Tensor, members: Sequence[int]) -> Tensor:
        """Q of some of the agents with new actions `[M, B, code_dim]`: `[M, B]`."""
        network, judged = self.network, self._judged[members[0] : members[-1] + 1]
        with torch.no_grad():
            seen = network.seen(inputs.obs, inputs.actions)
            others = network.looked_at(network.embedded(seen))
            mine = seen if len(members) == len(seen) and self._picked is None else seen.index_select(0, judged)
            old = torch.stack([inputs.actions[:, self._slots[k].actions] for k in members])
        # Of agents of several kinds each has its own weights here.
        weight = torch.stack([network.action_weight(self._agents[k]) for k in members])
        mine = torch.baddbmm(mine, own - old, weight)
        return self._judge(network.embedded(mine), others, inputs, judged)

    def _judge(self, own: Tensor, others: tuple[Tensor, Tensor], inputs: PresentInputs, judged: Tensor) -> Tensor:
        return self.network.judge(own, others, others_in_game(inputs.present, judged), inputs.columns)
