"""MADDPG's family with attention critics, written agent by agent and head by head, to test against (after Iqbal and Sha 2019).

All modules have one critic (and with ``twin_q`` one twin): its gradient is that of the mean of their losses. Nothing here comes
from the package under test.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reference.family import FamilyRecord, ReferenceFamily
from reference.family_games import FamilyGame
from reference.maddpg import BETA1, BETA2, EPS, TARGET, Batch, Layers, clip_gradients

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def attention_q(
    weights: Mapping[str, Tensor],
    kinds: Sequence[int],
    seen: Sequence[Tensor],
    present: Sequence[Tensor],
    judged: int,
    heads: int,
    activation: str = "relu",
    columns: Tensor | None = None,
) -> Tensor:
    """Q of one agent, [B].

    Args:
        weights: "embeddings.<kind>" [E, dim], "agent_bias" [N, E], "queries", "keys", "values" [E, E], and of the k-th layer of
            the MLP "W<k>" and "b<k>".
        kinds: For each agent the number of its embedding.
        seen: Of each agent [observation, action's code], [B, dim].
        present: 1 where the agent is in the game, else 0, [B].
        judged: Number of the agent.
        heads: How many.
        activation: "relu" or "tanh".
        columns: What else is shown, [B, dim].
    """
    act, others = ACTIVATIONS[activation], [j for j in range(len(kinds)) if j != judged]
    embedded = [
        act(x @ weights[f"embeddings.{kind}"].T + weights["agent_bias"][j])
        for j, (x, kind) in enumerate(zip(seen, kinds, strict=True))
    ]
    width = embedded[0].shape[1] // heads
    attended = []
    for h in range(heads):
        mine = slice(h * width, (h + 1) * width)
        query = embedded[judged] @ weights["queries"][mine].T
        shares = []
        for j in others:
            fit = (query * (embedded[j] @ weights["keys"][mine].T)).sum(1) / math.sqrt(width)
            shares.append(torch.exp(fit) * present[j])
        total = sum(shares)
        somebody = total > 0
        found = torch.zeros_like(query)
        for j, share in zip(others, shares, strict=True):
            share = torch.where(somebody, share / torch.where(somebody, total, 1.0), 0.0)
            found = found + share[:, None] * (embedded[j] @ weights["values"][mine].T)
        attended.append(found)
    x = torch.cat([embedded[judged], *attended, *([] if columns is None else [columns])], 1)
    layers = sum(name.startswith("W") for name in weights)
    for k in range(layers):
        x = (act(x) if k else x) @ weights[f"W{k}"].T + weights[f"b{k}"]
    return x[:, 0]


class ReferenceAttention(ReferenceFamily):
    """As ReferenceFamily, but for the critics.

    Attributes:
        common: The critics' weights by net, "critic" and "target_critic", with ``twin_q`` "twin_critic" and its target, too.
        critic_grads: By net, of the last update, before clipping.
    """

    def __init__(self, *args, common: Mapping[str, Mapping[str, Tensor]], kinds_of: Sequence[int], heads: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.common = {net: {name: w.double().clone() for name, w in own.items()} for net, own in common.items()}
        self.kinds_of, self.heads = list(kinds_of), heads
        self.moments = {
            net: [{name: torch.zeros_like(w) for name, w in own.items()} for _ in range(2)] for net, own in self.common.items()
        }
        self.clocks = dict.fromkeys(self.common, 0)
        self.critic_grads: dict[str, dict[str, Tensor]] = {}
        self.present: list[Tensor] = []

    def update(self, batches: Batch, *args, **kwargs) -> FamilyRecord:
        self.present = [batches[j].alive for j in self.agents]
        record = super().update(batches, *args, **kwargs)
        record.common = copy.deepcopy(self.common)
        return record

    def q_value(self, agent, obs, actions, net="critic", critic=None):
        weights = self.common[net] if critic is None else critic
        seen = [torch.cat([obs[j], actions[j]], 1) for j in self.agents]
        judged = self.agents.index(agent)
        return attention_q(weights, self.kinds_of, seen, self.present, judged, self.heads, self.activation)

    def target(self, agent, batch, smoothing=None):
        now, self.present = self.present, [batch[j].next_acting for j in self.agents]
        try:
            return super().target(agent, batch, smoothing)
        finally:
            self.present = now

    def learn(
        self,
        record: FamilyRecord,
        role: str,
        nets: Mapping[str, Sequence[str]],
        loss: Callable[[str, dict[str, Layers]], Tensor],
    ) -> None:
        if role != "critic":
            super().learn(record, role, nets, loss)
            return
        leaves = {
            net: {name: w.clone().requires_grad_() for name, w in self.common[net].items()}
            for net in sorted({net for own in nets.values() for net in own})
        }
        losses = {m: loss(m, {net: leaves[net] for net in own}) for m, own in nets.items()}
        record.losses |= {(m, role): float(value.detach()) for m, value in losses.items()}
        for net, own in leaves.items():
            having = [m for m, names in nets.items() if net in names]
            mean = sum(losses[m] for m in having) / len(having)
            found = torch.autograd.grad(mean, list(own.values()), retain_graph=True, allow_unused=True)
            grads = [torch.zeros_like(w) if g is None else g for w, g in zip(own.values(), found, strict=True)]
            self.critic_grads[net] = dict(zip(own, grads, strict=True))
            hyper = self.hyper[self.modules[0]]
            self.step_common(net, dict(zip(own, clip_gradients(grads, hyper.grad_clip, hyper.grad_clip_by), strict=True)))

    def step_common(self, net: str, grads: Mapping[str, Tensor]) -> None:
        """Adam."""
        self.clocks[net] += 1
        t, (means, squares) = self.clocks[net], self.moments[net]
        for name, g in grads.items():
            means[name] = BETA1 * means[name] + (1 - BETA1) * g
            squares[name] = BETA2 * squares[name] + (1 - BETA2) * g**2
            step = means[name] / (1 - BETA1**t) / ((squares[name] / (1 - BETA2**t)).sqrt() + EPS)
            self.common[net][name] = self.common[net][name] - self.hyper[self.modules[0]].critic_lr * step

    def move_targets(self) -> None:
        super().move_targets()
        tau = self.hyper[self.modules[0]].tau
        for net in [net for net in self.common if not net.startswith(TARGET)]:
            if any(net in self.critics(m) for m in self.trained):
                target, source = self.common[TARGET + net], self.common[net]
                self.common[TARGET + net] = {name: tau * source[name] + (1 - tau) * w for name, w in target.items()}


@dataclass
class AttentionGame(FamilyGame):
    """A random game whose modules have attention critics."""

    common: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    hiddens: tuple[int, ...] = (6, 5)
    heads: int = 2

    @property
    def kinds_of(self) -> list[int]:
        """For each agent the number of its embedding: by width of observation, then of the action's code."""
        sizes = [(self.obs_dims[a], self.kinds[a].code_dim) for a in self.agents]
        return [sorted(set(sizes)).index(size) for size in sizes]

    def reference(self) -> ReferenceAttention:
        return ReferenceAttention(
            self.agents,
            self.module_of,
            self.kinds,
            self.weights,
            self.hypers,
            self.activation,
            self.frozen,
            common=self.common,
            kinds_of=self.kinds_of,
            heads=self.heads,
        )


def attention_game(game: FamilyGame, seed: int) -> AttentionGame:
    """A game with attention critics instead of those that it has."""
    rng = np.random.default_rng([seed, 11])
    new = AttentionGame(**vars(game))
    new.weights = {m: {net: w for net, w in nets.items() if "critic" not in net} for m, nets in game.weights.items()}
    sizes = sorted({(new.obs_dims[a], new.kinds[a].code_dim) for a in new.agents})
    width, *later = new.hiddens

    def drawn(*shape: int) -> Tensor:
        return torch.tensor(rng.normal(size=shape) / math.sqrt(shape[-1]))

    twins = any(hyper.twin_q for hyper in new.hypers.values())
    for net in ["critic", "twin_critic"] if twins else ["critic"]:
        for name in (net, TARGET + net):
            weights = {f"embeddings.{k}": drawn(width, sum(size)) for k, size in enumerate(sizes)}
            weights |= {"agent_bias": drawn(len(new.agents), width)}
            weights |= {name: 2 * drawn(width, width) for name in ("queries", "keys", "values")}
            dims = [2 * width, *later, 1]
            for k in range(len(dims) - 1):
                weights |= {f"W{k}": drawn(dims[k + 1], dims[k]), f"b{k}": drawn(dims[k + 1])}
            new.common[name] = weights
    return new
