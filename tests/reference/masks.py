"""The oracle with action masks: row by row, whatever is asked of an actor is asked of its allowed actions alone.

An agent that has a mask sees it in its observation, one number for each action. Where it allows no action of a part at all, as
that of an agent that does not act, all of the part are allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from reference import inferred_policies
from reference.family import ReferenceFamily
from reference.family_games import FamilyGame, family_weights, random_family_game
from reference.inferred_policies import SMALLEST_TRUE_TEMPERATURE
from reference.maddpg import TARGET, Batch, Box, Kind, Layers, Noise, greedy_action, random_code, random_weights


def open_actions(kind: Kind, mask: Tensor) -> list[list[int]]:
    """By part of an action the places in its code that a mask `[a]` allows."""
    places, start = [], 0
    for n in kind.parts:
        part = range(start, start + n)
        places.append([i for i in part if mask[i] == 1] or list(part))
        start += n
    return places


def row_by_row(kind: Kind, masks: Tensor, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Codes `[B, a]` made part by part of the allowed places of `values` `[B, a]`; zeros elsewhere."""
    codes = []
    for b, mask in enumerate(masks):
        code = torch.zeros_like(values[0][b])
        for places in open_actions(kind, mask):
            at = torch.tensor(places)
            code = code.index_put((at,), function(*(value[b][at] for value in values)))
        codes.append(code)
    return torch.stack(codes)


def summed(kind: Kind, masks: Tensor, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """As ``row_by_row``, a number of each part, and of these the sum: `[B]`."""
    totals = []
    for b, mask in enumerate(masks):
        parts = [function(*(value[b][torch.tensor(places)] for value in values)) for places in open_actions(kind, mask)]
        totals.append(torch.stack(parts).sum())
    return torch.stack(totals)


def one_hot(scores: Tensor) -> Tensor:
    return (torch.arange(len(scores)) == int(scores.argmax())).double()


def softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, 0)


def entropy_of(scores: Tensor) -> Tensor:
    log_p = torch.log_softmax(scores, 0)
    return -(log_p.exp() * log_p).sum()


class ReferenceMasked(ReferenceFamily):
    """As ReferenceFamily.

    Attributes:
        masks: By agent that has a mask the columns of its observation that are one.
    """

    masks: Mapping[str, slice]

    def greedy(self, agent: str, out: Tensor, obs: Tensor) -> Tensor:
        kind = self.kinds[agent]
        if agent not in self.masks:
            return greedy_action(kind, out)
        return row_by_row(kind, obs[:, self.masks[agent]], one_hot, out)

    def sampled(self, agent: str, out: Tensor, obs: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Straight-through Gumbel-Softmax among what is allowed."""
        masks, scores = obs[:, self.masks[agent]], (out + noise) / temperature
        soft = row_by_row(self.kinds[agent], masks, softmax, scores)
        return row_by_row(self.kinds[agent], masks, one_hot, scores.detach()) + soft - soft.detach()

    def others_action(self, agent: str, batch: Batch, noise: Noise, others_actions: str, to: str = "") -> Tensor:
        if agent not in self.masks or others_actions == "replay":
            return super().others_action(agent, batch, noise, others_actions, to)
        obs = batch[agent].obs
        temperature = self.hyper[self.module_of[agent]].gumbel_softmax_temperature
        action = self.sampled(agent, self.known_output(agent, obs, to), obs, noise[agent], temperature)
        return (action * batch[agent].acting[:, None]).detach()

    def actor_loss(self, module: str, batch: Batch, noise: Noise, actor: Layers | None = None) -> Tensor:
        obs, hyper = {j: batch[j].obs for j in self.agents}, self.hyper[module]
        if self.agents_of(module)[0] not in self.masks:
            return super().actor_loss(module, batch, noise, actor)
        total, count = torch.zeros((), dtype=torch.float64), 0.0
        for i in self.agents_of(module):
            out, masks, acting = self.head_output(i, obs[i], actor=actor), obs[i][:, self.masks[i]], batch[i].acting
            own = self.sampled(i, out, obs[i], noise[i], hyper.gumbel_softmax_temperature)
            others = {j: self.others_action(j, batch, noise, hyper.others_actions, i) for j in self.agents if j != i}
            total = total - (acting * self.q_value(i, obs, {i: own, **others})).sum()
            for b in range(len(out)):
                places = [place for part in open_actions(self.kinds[i], masks[b]) for place in part]
                total = total + hyper.policy_reg * acting[b] * (out[b][torch.tensor(places)] ** 2).mean()
            count += float(acting.sum())
        return total / max(1.0, count)

    def target_action(self, agent: str, obs: Tensor, to: str, z: Tensor) -> Tensor:
        if agent not in self.masks:
            return super().target_action(agent, obs, to, z)
        owner, inferred = self.module_of[agent], self.inferred_modules(self.module_of[to])
        if owner in inferred:
            net, owner = TARGET + self.inferred_net(owner), self.module_of[to]
            out = self.inferred_output(agent, obs, self.weights[owner][net])
            as_probabilities = self.hyper[owner].inferred_target == "probabilities"
        else:
            out, as_probabilities = self.head_output(agent, obs, "target_actor"), False
        clip = self.hyper[owner].target_noise_clip
        out = out + torch.clamp(self.hyper[owner].target_policy_noise * z, -clip, clip)
        return row_by_row(self.kinds[agent], obs[:, self.masks[agent]], softmax if as_probabilities else one_hot, out)

    def inferred_loss(self, module: str, newest: Batch, nets: Mapping[str, Layers]) -> Tensor:
        hyper, total = self.hyper[module], torch.zeros((), dtype=torch.float64)
        for other in self.inferred_modules(module):
            gain, count = torch.zeros((), dtype=torch.float64), 0.0
            for j in self.agents_of(other):
                rows = newest[j]
                out, rho = self.inferred_head(module, j, rows, nets)
                likely, entropy = self.told(j, rows, out, rho, hyper)
                gain = gain + (rows.acting * (likely + hyper.inferred_policy_entropy * entropy)).sum()
                count += float(rows.acting.sum())
            total = total - gain / max(1.0, count)
        return total

    def told(self, agent: str, rows, out: Tensor, rho: Tensor | None, hyper) -> tuple[Tensor, Tensor]:
        """Log-likelihood of what an agent did, and entropy, `[B]`; the former is 0 where it did nothing."""
        kind = self.kinds[agent]
        if agent not in self.masks:
            return (
                inferred_policies.log_likelihood(kind, out, rho, rows.action, hyper),
                inferred_policies.entropy(kind, out, rho, hyper),
            )
        masks = rows.obs[:, self.masks[agent]]
        likely = summed(kind, masks, lambda scores, code: (code * torch.log_softmax(scores, 0)).sum(), out, rows.action)
        return likely, summed(kind, masks, entropy_of, out)

    def inferred_reports(self, module: str, newest: Batch) -> dict[str, float]:
        hyper, reports = self.hyper[module], super().inferred_reports(module, newest)
        true_temperature = max(hyper.exploration_temperature, SMALLEST_TRUE_TEMPERATURE)

        def divergence(mine: Tensor, true: Tensor) -> Tensor:
            log_p, log_q = torch.log_softmax(mine, 0), torch.log_softmax(true / true_temperature, 0)
            return (log_p.exp() * (log_p - log_q)).sum()

        for j in [j for other in self.inferred_modules(module) for j in self.agents_of(other) if j in self.masks]:
            rows, masks = newest[j], newest[j].obs[:, self.masks[j]]
            out, rho = self.inferred_head(module, j, rows, self.weights[module])
            likely, entropy = self.told(j, rows, out, rho, hyper)
            kl = summed(self.kinds[j], masks, divergence, out, self.head_output(j, rows.obs))
            count = max(1.0, float(rows.acting.sum()))
            for name, values in {"log_likelihood": likely, "entropy": entropy, "kl": kl}.items():
                reports[f"inferred_{j}_{name}"] = float((rows.acting * values).sum() / count)
        return reports


@dataclass
class MaskedFamilyGame(FamilyGame):
    """A random game in which some agents observe masks, which come first in their observations.

    Attributes:
        masks: By agent.
        forbidden: By agent a place in its code that no mask ever allows.
    """

    masks: dict[str, slice] = field(default_factory=dict)
    forbidden: dict[str, int] = field(default_factory=dict)

    def reference(self) -> ReferenceMasked:
        reference = ReferenceMasked(
            self.agents, self.module_of, self.kinds, self.weights, self.hypers, self.activation, self.frozen
        )
        reference.masks = self.masks
        return reference

    def batch(self, size: int, seed: int) -> Batch:
        """Random rows, whose actions are allowed; a fifth of the masks at x' allow nothing."""
        rng = np.random.default_rng([seed, 5])
        batch = super().batch(size, seed)
        for agent, columns in self.masks.items():
            rows, kind = batch[agent], self.kinds[agent]
            obs, next_obs, action = rows.obs.clone(), rows.next_obs.clone(), rows.action.clone()
            for b in range(size):
                code = self._allowed_code(rng, agent) * rows.acting[b].numpy()
                action[b] = torch.tensor(code)
                obs[b, columns] = torch.tensor(self._mask(rng, agent, code)) * rows.acting[b]
                mask = self._mask(rng, agent, self._allowed_code(rng, agent)) * (rng.random() < 0.8)
                next_obs[b, columns] = torch.tensor(mask) * rows.alive[b]
            assert isinstance(kind, Box) is False
            batch[agent] = replace(rows, obs=obs, next_obs=next_obs, action=action)
        return batch

    def _allowed_code(self, rng: np.random.Generator, agent: str) -> np.ndarray:
        while True:
            code = random_code(rng, self.kinds[agent])
            if agent not in self.forbidden or not code[self.forbidden[agent]]:
                return code

    def _mask(self, rng: np.random.Generator, agent: str, code: np.ndarray) -> np.ndarray:
        """One that allows an action, and others."""
        mask = np.maximum(code, rng.random(len(code)) < 0.4)
        if agent in self.forbidden:
            mask[self.forbidden[agent]] = 0.0
        return mask.astype(float)


def masked_game(seed: int, forbids: bool = False, **given: object) -> MaskedFamilyGame:
    """A random game of the family in which all agents that choose, but those of every fourth module, have masks.

    Args:
        seed: Seed of everything drawn.
        forbids: Whether the first action of each mask is never allowed.
        **given: Of ``random_family_game``.
    """
    rng = np.random.default_rng([seed, 6])
    game = random_family_game(seed, waiting=False, **given)
    masks = {
        agent: slice(0, kind.code_dim)
        for agent, kind in game.kinds.items()
        if not isinstance(kind, Box) and game.modules.index(game.module_of[agent]) % 4 != 3
    }
    widths = {agent: n + (masks[agent].stop if agent in masks else 0) for agent, n in game.obs_dims.items()}
    hidden = [len(b) for _, b in game.weights[game.modules[0]]["actor"][:-1]]
    game = MaskedFamilyGame(
        **{**vars(game), "obs_dims": widths}, masks=masks, forbidden=dict.fromkeys(masks, 0) if forbids else {}
    )
    game.weights = random_weights(rng, game.agents, game.module_of, game.kinds, widths, hidden)
    game.weights = family_weights(game, rng)
    return game
