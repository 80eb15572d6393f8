"""Random games of all members of the family, for the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from reference.family import ReferenceFamily
from reference.maddpg import TARGET, Batch, Box, Game, Hyper, Layers, Noise, random_game, random_layers


@dataclass
class FamilyGame(Game):
    """A random game in which modules may have settings and nets of their own."""

    per_module: dict[str, dict[str, object]] = field(default_factory=dict)  # what differs from ``hyper``

    @property
    def hypers(self) -> dict[str, Hyper]:
        return {m: replace(self.hyper, **self.per_module.get(m, {})) for m in self.modules}

    def reference(self) -> ReferenceFamily:
        return ReferenceFamily(self.agents, self.module_of, self.kinds, self.weights, self.hypers, self.activation, self.frozen)

    def newest(self, size: int, seed: int) -> Batch:
        """Rows as the newest in the replay buffer may be: also with actions at the ends of boxes."""
        rng = np.random.default_rng([seed, 3])
        batch = self.batch(size, seed + 500_000)
        for agent, rows in batch.items():
            kind = self.kinds[agent]
            if isinstance(kind, Box):
                code = explored_code(rng, kind, size)
                batch[agent] = replace(rows, action=torch.tensor(code) * rows.acting[:, None])
        return batch

    def smoothing(self, size: int, seed: int) -> Noise:
        rng = np.random.default_rng([seed, 2])
        return {a: torch.tensor(rng.normal(size=(size, self.kinds[a].code_dim))) for a in self.agents}


def explored_code(rng: np.random.Generator, kind: Box, size: int) -> np.ndarray:
    if kind.head == "tanh":
        return np.clip(1.7 * rng.uniform(-1, 1, size=(size, kind.dim)), -1.0, 1.0)
    scores = np.exp(3.0 * rng.normal(size=(size, kind.dim)))
    shares = scores / scores.sum(axis=1, keepdims=True)
    shares[::5] = np.round(shares[::5] / shares[::5].max(axis=1, keepdims=True))  # some of them at corners
    return 2.0 * shares / shares.sum(axis=1, keepdims=True) - 1.0


# What modules may have for themselves, drawn for a random game.
OWN_SETTINGS = (
    "twin_q",
    "target_policy_noise",
    "target_noise_clip",
    "infer_other_policies",
    "inferred_policy_entropy",
    "inferred_lr",
    "inferred_target",
    "critic_view",
)


def random_family_game(
    seed: int,
    *,
    hyper: Mapping[str, object] | None = None,
    per_module: Mapping[str, Mapping[str, object]] | None = None,
    **given: object,
) -> FamilyGame:
    """A random game of ``random_game`` whose members' settings are drawn, too.

    Args:
        seed: Seed of everything drawn.
        hyper: Hyper-parameters, over those drawn.
        per_module: Over these for some modules; drawn if it is None, of ``OWN_SETTINGS`` that ``hyper`` does not give.
        **given: Of ``random_game``.
    """
    rng = np.random.default_rng([seed, 4])
    drawn = {
        **drawn_settings(rng),
        "policy_delay": int(rng.integers(1, 4)),
        "exploration_temperature": float(rng.choice([0.02, 0.4, 1.0, 1.7])),
    }
    hyper = {**drawn, **(hyper or {})}
    game = random_game(seed, hyper=hyper, **given)
    if per_module is None:
        per_module = {}
        for m in game.modules:
            own = drawn_settings(rng)
            if rng.random() < 0.4:
                per_module[m] = {key: own[key] for key in OWN_SETTINGS if key in own}
    per_module = {m: dict(own) for m, own in per_module.items()}
    game = FamilyGame(**{**vars(game), "per_module": per_module})
    if not any(game.reference().inferred_modules(m) for m in game.modules):  # settings that mean nothing are refused
        game.hyper = replace(game.hyper, infer_other_policies=False)
        for own in per_module.values():
            own.pop("infer_other_policies", None)
    game.weights = family_weights(game, rng)
    return game


def drawn_settings(rng: np.random.Generator) -> dict[str, object]:
    return {
        "twin_q": bool(rng.random() < 0.6),
        "target_policy_noise": float(rng.choice([0.0, 0.2, 0.8])),
        "target_noise_clip": float(rng.uniform(0.1, 0.6)),
        "infer_other_policies": bool(rng.random() < 0.7),
        "inferred_policy_entropy": float(rng.choice([0.0, 0.001, 0.2])),
        "inferred_lr": float(rng.uniform(0.001, 0.02)),
        "inferred_target": str(rng.choice(["greedy", "probabilities"])),
        "critic_view": str(rng.choice(["all", "all", "all", "own"])),
    }


def family_weights(game: FamilyGame, rng: np.random.Generator) -> dict[str, dict[str, Layers]]:
    """All nets that the modules' settings ask for, each drawn by itself; those that the game has are kept where they fit."""
    weights = {}
    shape = game.reference()  # what the nets are is said there
    for m in game.modules:
        hidden = [len(b) for _, b in game.weights[m]["actor"][:-1]]
        sharers = shape.agents_of(m)
        seen = game.agents if shape.hyper[m].critic_view == "all" else sharers[:1]
        critic = sum(game.obs_dims[a] + game.kinds[a].code_dim for a in seen) + (len(sharers) if len(sharers) > 1 else 0)
        nets = {net: game.weights[m][net] for net in ("actor", "target_actor")}
        for net in shape.critics(m):
            for name in (net, TARGET + net):
                nets[name] = random_layers(rng, [critic, *hidden, 1])
        for other in shape.inferred_modules(m):
            theirs = shape.agents_of(other)
            inputs = game.obs_dims[theirs[0]] + (len(theirs) if len(theirs) > 1 else 0)
            code = game.kinds[theirs[0]].code_dim
            net, *deviation = shape.inferred_nets(m, other)
            for name in (net, TARGET + net):
                nets[name] = random_layers(rng, [inputs, *hidden, code])
            for name in deviation:
                nets[name] = [(torch.zeros(code, 0, dtype=torch.float64), torch.tensor(rng.normal(size=code)))]
        weights[m] = nets
    return weights
