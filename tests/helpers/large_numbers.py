"""The oracle's random games in numbers of other sizes than 1, and what the oracle gets of them: normalized from plain sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from reference.family import ReferenceFamily
from reference.maddpg import AgentRows, Batch, Game
from torch import Tensor

REWARD_SIZE = 1e-3


def sizes_of(game: Game) -> dict[str, tuple[Tensor, Tensor]]:
    """Agent -> offset and width of each of its observation's numbers; agents of a module have the same."""
    sizes = {}
    for k, m in enumerate(game.modules):
        rng = np.random.default_rng([k, 5])
        agents = [a for a in game.agents if game.module_of[a] == m]
        dim = game.obs_dims[agents[0]]
        size = torch.tensor(rng.normal(size=dim) * 30.0), torch.tensor(10.0 ** rng.uniform(-2, 3, size=dim))
        sizes.update(dict.fromkeys(agents, size))
    return sizes


def enlarged(game: Game, batch: Batch) -> Batch:
    """The rows as an env of large observations and small rewards would give them; what is not there is still zero."""
    sizes, result = sizes_of(game), {}
    for agent, rows in batch.items():
        offset, width = sizes[agent]
        there = torch.maximum(rows.alive, rows.next_acting)[:, None]
        result[agent] = replace(
            rows,
            obs=(offset + width * rows.obs) * rows.alive[:, None],
            next_obs=(offset + width * rows.next_obs) * there,
            reward=REWARD_SIZE * rows.reward,
        )
    return result


class PlainSums:
    """All rows that were drawn so far, kept one by one."""

    def __init__(self, game: Game, observations: bool = True, rewards: bool = True):
        self.game, self.observations, self.rewards = game, observations, rewards
        self.seen: dict[str, list[np.ndarray]] = {m: [] for m in game.modules}
        self.earned: dict[str, list[np.ndarray]] = {m: [] for m in game.modules}

    def add(self, batch: Batch) -> None:
        for agent, rows in batch.items():
            living = rows.alive.numpy() > 0
            self.seen[self.game.module_of[agent]].append(rows.obs.numpy()[living])
            self.earned[self.game.module_of[agent]].append(rows.reward.numpy()[living])

    def mean(self, module: str) -> Tensor:
        return torch.tensor(np.concatenate(self.seen[module]).mean(0))

    def std(self, module: str) -> Tensor:
        return torch.tensor(np.concatenate(self.seen[module]).std(0))

    def root_mean_square(self, module: str) -> float:
        return float(np.sqrt(np.square(np.concatenate(self.earned[module])).mean()))

    def observed(self, module: str, obs: Tensor, there: Tensor) -> Tensor:
        """Observations `[B, o]` where the agent is in the game."""
        return ((obs - self.mean(module)) / self.std(module)).clamp(-10.0, 10.0) * there[:, None]

    def normalized(self, batch: Batch) -> Batch:
        result: dict[str, AgentRows] = {}
        for agent, rows in batch.items():
            m = self.game.module_of[agent]
            if self.observations:
                there = torch.maximum(rows.alive, rows.next_acting)
                rows = replace(
                    rows,
                    obs=self.observed(m, rows.obs, rows.alive),
                    next_obs=self.observed(m, rows.next_obs, there),
                )
            if self.rewards:
                rows = replace(rows, reward=rows.reward / self.root_mean_square(m))
            result[agent] = rows
        return result


class ActsOnRawObservations(ReferenceFamily):
    """Actors of frozen modules see what the env gives, though critics see it normalized.

    Attributes:
        sums: By which the rows are normalized.
    """

    sums: PlainSums

    def head_output(self, agent, obs, net="actor", actor=None):
        m = self.module_of[agent]
        if m in self.frozen:
            obs = (obs * self.sums.std(m) + self.sums.mean(m)).clamp(-10.0, 10.0)
        return super().head_output(agent, obs, net, actor)
