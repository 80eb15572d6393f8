"""A critic that looks at other agents by attention, and does not grow with the square of their number. No Ray here.

After MAAC's critic (Iqbal and Sha 2019, arXiv 1810.02912, section 3.2): one network judges all agents of a game,

    e_j = act(W_kind(j) [o_j, a_j] + b_j)                       what agent j sees and does
    w_ij = softmax over others j in the game of (W_q e_i) . (W_k e_j) / sqrt(d)         in each head, of width d
    x_i = sum_j w_ij W_v e_j                                    heads side by side; zeros if nobody else is in the game
    Q_i = MLP([e_i, x_i, whatever else is shown]).

Agents whose observations and action codes are equally wide are of one kind, and share W; b_j tells them apart. Unlike there, an
agent's own action stands in e_i, where MAAC has a Q for each action; so actions of any kind will do, and the actor's gradient
goes through e_i: others' keys and values do not depend on it.

Shapes: B rows, N agents of the game, M that are judged; E is the width of e.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from rllib_maddpg.modules.networks import ACTIVATIONS, MLP
from rllib_maddpg.rows.layout import JointLayout

HEADS = 4


class AttentionCritic(nn.Module):
    """Judges any agents of a game.

    Attributes:
        embeddings: W of each kind of agents, `[E, obs_dim + code_dim]`.
        agent_bias: b of each agent, `[N, E]`.
        queries, keys, values: `[E, E]`, the heads one below the other.
        norm: Normalizes what goes into the activation of e; None without layer norm.
        head: The MLP.
    """

    def __init__(
        self,
        layout: JointLayout,
        columns_dim: int = 0,
        hiddens: Sequence[int] = (64, 64),
        activation: str = "relu",
        heads: int = HEADS,
        layer_norm: bool = False,
    ):
        """
        Args:
            layout: Of the game.
            columns_dim: Width of what else it is shown of a row, such as the env's global state.
            hiddens: E, and the widths of the MLP's hidden layers.
            activation: One of `ACTIVATIONS`.
            heads: A divisor of E.
            layer_norm: Whether all that goes into an activation is normalized.

        Raises:
            ValueError: If the heads do not share E equally.
        """
        super().__init__()
        if not hiddens or hiddens[0] % heads:
            raise ValueError(f"An attention critic with hiddens={list(hiddens)} cannot have {heads} heads of equal width.")
        width, *later = hiddens
        self.num_heads, self.columns_dim, self.num_agents = heads, columns_dim, len(layout)
        sizes = [(slot.obs.stop - slot.obs.start, slot.actions.stop - slot.actions.start) for slot in layout.slots]
        kinds = sorted(set(sizes))
        # Agents of one kind side by side in a row: number of the kind, and of the first agent, and how many.
        runs = [[k for k, _ in run] for _, run in groupby(enumerate(sizes), key=lambda item: item[1])]
        self._runs = [(kinds.index(sizes[run[0]]), run[0], len(run)) for run in runs]
        self._sizes = sizes
        self.embeddings = nn.ParameterList()
        for kind in kinds:
            self.embeddings.append(nn.Parameter(nn.Linear(sum(kind), width, bias=False).weight.detach()))
        bounds = torch.tensor([1 / math.sqrt(max(1, sum(size))) for size in sizes])  # as `nn.Linear` begins
        self.agent_bias = nn.Parameter((2 * torch.rand(len(layout), width) - 1) * bounds[:, None])
        self.queries, self.keys, self.values = (
            nn.Parameter(nn.Linear(width, width, bias=False).weight.detach()) for _ in range(3)
        )
        self.norm = nn.LayerNorm(width) if layer_norm else None
        self.head = MLP(2 * width + columns_dim, 1, later, activation, layer_norm=layer_norm)
        # Not in place, as that of an MLP: what it gets is needed again.
        self._activation = nn.ReLU() if activation == "relu" else ACTIVATIONS[activation]()

    @property
    def activation(self) -> nn.Module:
        """That of all hidden layers."""
        return self.head.activation

    def seen(self, obs: Tensor, actions: Tensor) -> Tensor:
        """W [o_j, a_j] + b_j of all agents, before the activation: `[N, B, E]`.

        Args:
            obs: `[B, obs_dim of all agents]`.
            actions: `[B, code_dim of all agents]`.
        """
        parts, obs_at, action_at = [], 0, 0
        for kind, first, agents in self._runs:
            obs_dim, code_dim = self._sizes[first]
            weight, bias = self.embeddings[kind], self.agent_bias[first : first + agents]
            part = bias.unsqueeze(1)
            # Agent by agent, since their columns of all rows need no copy.
            for values, at, dim, own in (
                (obs, obs_at, obs_dim, weight[:, :obs_dim]),
                (actions, action_at, code_dim, weight[:, obs_dim:]),
            ):
                each = values[:, at : at + agents * dim].unflatten(1, (agents, dim)).transpose(0, 1)
                part = torch.baddbmm(part, each, own.t().expand(agents, -1, -1))
            parts.append(part)
            obs_at, action_at = obs_at + agents * obs_dim, action_at + agents * code_dim
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def action_weight(self, agent: int) -> Tensor:
        """W of the agent's action code, `[code_dim, E]`."""
        kind = next(kind for kind, first, agents in self._runs if first <= agent < first + agents)
        return self.embeddings[kind][:, self._sizes[agent][0] :].t()

    def embedded(self, seen: Tensor) -> Tensor:
        """e of some agents, `[M, B, E]`, of what `seen` says of them."""
        return self._activation(seen if self.norm is None else self.norm(seen))

    def looked_at(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all agents, `[N, B, E]` each, of their e."""
        return functional.linear(embedded, self.keys), functional.linear(embedded, self.values)

    def judge(self, own: Tensor, others: tuple[Tensor, Tensor], attends: Tensor, columns: Tensor | None = None) -> Tensor:
        """Q of some agents, `[M, B]`.

        Args:
            own: Their e, `[M, B, E]`.
            others: `looked_at` of all agents.
            attends: Of which agents each of them may take notice in a row, bool `[B, M, N]` (`others_in_game`).
            columns: Whatever else is shown, `[B, columns_dim]`.
        """
        attended = self._attended(own, others, attends)
        first = self.head.layers[0]
        widths = [own.shape[-1], own.shape[-1], self.columns_dim]
        of_own, of_others, of_columns = first.weight.split(widths, 1)
        x = torch.addmm(first.bias, own.flatten(0, 1), of_own.t())
        x = torch.addmm(x, attended.flatten(0, 1), of_others.t()).unflatten(0, own.shape[:2])
        if self.columns_dim:
            x = x + functional.linear(columns, of_columns)
        return self.head.layers[1:](x).squeeze(-1)

    def _attended(self, own: Tensor, others: tuple[Tensor, Tensor], attends: Tensor) -> Tensor:
        """x of some agents, `[M, B, E]`."""
        (agents, rows, width), heads = own.shape, self.num_heads
        query = functional.linear(own, self.queries) * math.sqrt(heads / width)
        # Each row and head is a product of its own: `[B * heads, M, d]` and `[B * heads, N, d]`.
        query, key, value = (x.unflatten(-1, (heads, -1)).flatten(1, 2).transpose(0, 1) for x in (query, *others))
        fit = torch.bmm(query, key.transpose(1, 2)).unflatten(0, (rows, heads))
        # Not minus infinity: where nobody is in the game, that would be NaN.
        fit = fit.masked_fill(~attends.unsqueeze(1), torch.finfo(fit.dtype).min)
        attended = torch.bmm(torch.softmax(fit, -1).flatten(0, 1), value)
        attended = attended.transpose(0, 1).reshape(agents, rows, width)
        return attended * attends.any(-1).t().unsqueeze(-1)


def others_in_game(present: Tensor, judged: Tensor) -> Tensor:
    """Which agents each of those that are judged may take notice of: all others that are in the game, bool `[B, M, N]`.

    Args:
        present: Above 0 for agents in the game, `[B, N]`.
        judged: Numbers of the agents, `[M]`.
    """
    everybody = torch.arange(present.shape[-1], device=present.device)
    return (present > 0).unsqueeze(1) & (judged.unsqueeze(1) != everybody)
