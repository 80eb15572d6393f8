"""Policy ensembles (Lowe et al. 2017, section 4.3, equation 9), transcribed as plainly as the family, and random games of them.

Each sub-policy is a net of its own, and its loss is a sum over the rows in which it has acted; those rows are taken apart here,
sub-policy by sub-policy, where the package computes all of them on all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reference.family import ReferenceFamily
from reference.family_games import FamilyGame, random_family_game
from reference.maddpg import TARGET, AgentRows, Batch, Box, Layers, Noise, greedy_action, random_layers, straight_through


@dataclass
class EnsembleRows(AgentRows):
    """One agent's share of B joint rows, in which it plays one of its sub-policies, also in x'."""

    sub_policy: Tensor  # [B], 0 ... K-1

    def of(self, rows: Tensor) -> EnsembleRows:
        return EnsembleRows(**{name: values[rows] for name, values in vars(self).items()})


class ReferenceEnsembles(ReferenceFamily):
    """As ReferenceFamily, with nets "actor_1", "actor_2" ... beside "actor", and their targets."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.playing: dict[str, int] = {}  # who plays which of its sub-policies in what is computed now

    def actors(self, module: str) -> list[str]:
        return ["actor", *(f"actor_{k}" for k in range(1, self.hyper[module].num_sub_policies))]

    def head_output(self, agent: str, obs: Tensor, net: str = "actor", actor: Layers | None = None) -> Tensor:
        number = self.playing.get(agent, 0)
        return super().head_output(agent, obs, net if number == 0 else f"{net}_{number}", actor)

    def rows_of(self, agent: str, rows: EnsembleRows) -> list[Tensor]:
        """D_i^(k) for each k: the numbers of the rows in which the agent plays that sub-policy."""
        return [(rows.sub_policy == k).nonzero()[:, 0] for k in range(self.hyper[self.module_of[agent]].num_sub_policies)]

    def by_sub_policy(self, agent: str, rows: EnsembleRows, make: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``make`` gives for some rows while the agent plays the sub-policy of these, for all rows in their order."""
        found, places = [], []
        for k, own in enumerate(self.rows_of(agent, rows)):
            self.playing[agent] = k
            found.append(make(own))
            places.append(own)
        del self.playing[agent]
        return torch.cat(found)[torch.argsort(torch.cat(places))]

    def true_output(self, agent: str, rows: EnsembleRows) -> Tensor:
        return self.by_sub_policy(agent, rows, lambda own: self.head_output(agent, rows.obs[own]))

    def others_action(self, agent: str, batch: Batch, noise: Noise, others_actions: str, to: str = "") -> Tensor:
        def act(own: Tensor) -> Tensor:
            some = {j: z[own] for j, z in noise.items()}
            return super(ReferenceEnsembles, self).others_action(agent, {agent: batch[agent].of(own)}, some, others_actions, to)

        return self.by_sub_policy(agent, batch[agent], act)

    def target(self, agent: str, batch: Batch, smoothing: Noise | None = None) -> Tensor:
        """y_i, with the next action of each agent by the target of the sub-policy that it plays in the row's episode."""
        next_obs, next_actions = {}, {}
        for j in self.agents:
            rows = batch[j]
            there = rows.next_acting[:, None]
            z = torch.zeros_like(rows.action) if smoothing is None else smoothing[j]
            next_obs[j] = rows.next_obs * there

            def act(own: Tensor, j: str = j, rows: EnsembleRows = rows, z: Tensor = z) -> Tensor:
                return self.target_action(j, rows.next_obs[own], agent, z[own])

            next_actions[j] = self.by_sub_policy(j, rows, act) * there
        hyper = self.hyper[self.module_of[agent]]
        q = self.q_value(agent, next_obs, next_actions, "target_critic")
        if hyper.twin_q:
            q = torch.minimum(q, self.q_value(agent, next_obs, next_actions, "target_twin_critic"))
        return (batch[agent].reward + hyper.gamma * (1.0 - batch[agent].terminated) * q).detach()

    def actors_loss(self, module: str, batch: Batch, noise: Noise, nets: Mapping[str, Layers]) -> Tensor:
        """The sum over k of equation 9's losses: that of sub-policy k over D_i^(k), with 1/K as the share of all rows.

        The others' actions are those of the row, or their present actors' (``others_actions="current"``).
        """
        hyper = self.hyper[module]
        total, count = torch.zeros((), dtype=torch.float64), 0.0
        for i in self.agents_of(module):
            kind = self.kinds[i]
            others = {j: self.others_action(j, batch, noise, hyper.others_actions, i) for j in self.agents if j != i}
            for net, own in zip(self.actors(module), self.rows_of(i, batch[i]), strict=True):
                rows = batch[i].of(own)
                out = ReferenceFamily.head_output(self, i, rows.obs, actor=nets[net])
                if isinstance(kind, Box):
                    action = greedy_action(kind, out)
                else:
                    action = straight_through(kind, out, noise[i][own], hyper.gumbel_softmax_temperature)
                obs = {j: batch[j].obs[own] for j in self.agents}
                q = self.q_value(i, obs, {i: action, **{j: a[own] for j, a in others.items()}})
                total = total + (rows.acting * (hyper.policy_reg * (out**2).mean(dim=1) - q)).sum()
            count += float(batch[i].acting.sum())
        return total / max(1.0, count)


@dataclass
class EnsembleGame(FamilyGame):
    """A random game in which agents have sub-policies."""

    def reference(self) -> ReferenceEnsembles:
        return ReferenceEnsembles(
            self.agents, self.module_of, self.kinds, self.weights, self.hypers, self.activation, self.frozen
        )

    def number_of(self, agent: str) -> int:
        return self.hypers[self.module_of[agent]].num_sub_policies

    def batch(self, size: int, seed: int) -> Batch:
        rng = np.random.default_rng([seed, 5])
        drawn = {a: torch.tensor(rng.integers(self.number_of(a), size=size)) for a in self.agents}
        return {a: EnsembleRows(**vars(rows), sub_policy=drawn[a].double()) for a, rows in super().batch(size, seed).items()}


def random_ensemble_game(seed: int, numbers: tuple[int, ...] = (3, 2, 3, 1), **given: object) -> EnsembleGame:
    """A random game of ``random_family_game``, whose k-th module has so many sub-policies, all drawn by themselves."""
    game = random_family_game(seed, **given)
    rng = np.random.default_rng([seed, 6])
    per_module = {
        m: {**game.per_module.get(m, {}), "num_sub_policies": numbers[k % len(numbers)]} for k, m in enumerate(game.modules)
    }
    game = EnsembleGame(**{**vars(game), "per_module": per_module})
    if len(set(numbers)) == 1:  # said of all modules, which may then be computed together
        game.hyper = replace(game.hyper, num_sub_policies=numbers[0])
        for own in per_module.values():
            del own["num_sub_policies"]
    shape = game.reference()
    for m, nets in game.weights.items():
        sizes = [nets["actor"][0][0].shape[1], *(len(b) for _, b in nets["actor"])]
        for net in shape.actors(m)[1:]:
            nets[net], nets[TARGET + net] = random_layers(rng, sizes), random_layers(rng, sizes)
    return game
