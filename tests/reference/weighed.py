"""Rows with weights and with several steps from x to x', for the oracle, to test against.

- Weights (Schaul et al. 2016, arXiv 1511.05952, section 3.4): each term of a loss times its row's weight over the largest one.
- n-step targets: y = sum over k < n of gamma^k r_k + gamma^n (1 - terminated) Q'(x_n, a').
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reference.family import ReferenceFamily
from reference.family_games import FamilyGame
from reference.maddpg import AgentRows, Batch, Box, Layers, Noise, greedy_action, pointwise_loss, straight_through


@dataclass
class WeighedRows(AgentRows):
    """As AgentRows, where next_obs, next_acting and terminated are those of the last of some steps.

    Attributes:
        later: Rewards of the steps after the first one, [B, n - 1]; 0 where there is none.
        steps: How many there are, [B].
        weight: Of the row, [B].
    """

    later: Tensor
    steps: Tensor
    weight: Tensor

    def over_largest(self) -> Tensor:
        return self.weight / max(float(w) for w in self.weight)


class ReferenceWeighed(ReferenceFamily):
    """ReferenceFamily for WeighedRows."""

    def target(self, agent: str, batch: Batch, smoothing: Noise | None = None) -> Tensor:
        rows, gamma = batch[agent], self.hyper[self.module_of[agent]].gamma
        # What it makes of one step tells Q'.
        one_step = super().target(agent, batch, smoothing)
        y = []
        for b in range(len(rows.reward)):
            ends, n = float(rows.terminated[b]), int(rows.steps[b])
            after = float(one_step[b] - rows.reward[b]) / gamma if not ends else 0.0
            total = float(rows.reward[b])
            for k in range(1, n):
                total += gamma**k * float(rows.later[b, k - 1])
            y.append(total + gamma**n * after)
        return torch.tensor(y, dtype=torch.float64)

    def critics_loss(self, module: str, batch: Batch, targets: Mapping[str, Tensor], nets: Mapping[str, Layers]) -> Tensor:
        obs, actions = ({j: getattr(rows, name) for j, rows in batch.items()} for name in ("obs", "action"))
        total = torch.zeros((), dtype=torch.float64)
        for layers in nets.values():
            own, count = torch.zeros((), dtype=torch.float64), 0.0
            for i in self.agents_of(module):
                error = self.q_value(i, obs, actions, critic=layers) - targets[i]
                each = batch[i].over_largest() * pointwise_loss(self.hyper[module], error)
                own, count = own + (batch[i].alive * each).sum(), count + float(batch[i].alive.sum())
            total = total + own / max(1.0, count)
        return total

    def actor_loss(self, module: str, batch: Batch, noise: Noise, actor: Layers | None = None) -> Tensor:
        obs, hyper = {j: rows.obs for j, rows in batch.items()}, self.hyper[module]
        total, count = torch.zeros((), dtype=torch.float64), 0.0
        for i in self.agents_of(module):
            kind, rows = self.kinds[i], batch[i]
            out = self.head_output(i, obs[i], actor=actor)
            if isinstance(kind, Box):
                own = greedy_action(kind, out)
            else:
                own = straight_through(kind, out, noise[i], hyper.gumbel_softmax_temperature)
            others = {j: self.others_action(j, batch, noise, hyper.others_actions, i) for j in self.agents if j != i}
            each = -self.q_value(i, obs, {i: own, **others}) + hyper.policy_reg * (out**2).mean(dim=1)
            total = total + (rows.acting * rows.over_largest() * each).sum()
            count += float(rows.acting.sum())
        return total / max(1.0, count)


class WeighedGame(FamilyGame):
    """A random game whose rows have weights, and up to three steps from x to x'."""

    def reference(self) -> ReferenceWeighed:
        return ReferenceWeighed(
            self.agents, self.module_of, self.kinds, self.weights, self.hypers, self.activation, self.frozen
        )

    def batch(self, size: int, seed: int) -> Batch:
        rng = np.random.default_rng([seed, 6])
        steps = rng.integers(1, 4, size)
        weight = torch.tensor(rng.uniform(0.05, 3.0, size))
        result = {}
        for agent, rows in super().batch(size, seed).items():
            later = rng.normal(size=(size, 2)) * (np.arange(1, 3) < steps[:, None]) * rows.alive.numpy()[:, None]
            result[agent] = WeighedRows(
                **vars(rows), later=torch.tensor(later), steps=torch.tensor(steps, dtype=torch.float64), weight=weight
            )
        return result

    def newest(self, size: int, seed: int) -> Batch:
        """The newest rows are not drawn, and so have no weights."""
        return {a: replace(rows, weight=torch.ones_like(rows.weight)) for a, rows in super().newest(size, seed).items()}


def weighed(game: FamilyGame) -> WeighedGame:
    """The same game with such rows."""
    return WeighedGame(**vars(game))
