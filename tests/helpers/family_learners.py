"""The oracle's random games of the whole family for the package's Learner: settings by module, newest rows, all noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from learner_games import NextNoise, build, columns_of, config_of, draw_noise, interleaved
from reference.family_games import FamilyGame
from reference.maddpg import Batch, Layers, Noise, flat
from torch import Tensor

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema

ROWS, NEWEST = 16, 12


def family_config(game: FamilyGame, config_class: type[MADDPGConfig] = MADDPGConfig, **settings: Any) -> MADDPGConfig:
    """As `config_of`, with what modules have for themselves."""
    own = {m: MADDPGConfig.overrides(**settings) for m, settings in game.per_module.items()}
    return config_of(game, config_class, **settings).multi_agent(algorithm_config_overrides_per_module=own)


def family_learner(
    game: FamilyGame, double: bool = True, learner_class: type | None = None, **settings: Any
) -> MADDPGTorchLearner:
    """A Learner in this process with the game's weights."""
    config = family_config(game, **settings)
    if learner_class is not None:
        config.training(learner_class=learner_class)
    return build(config, game, double=double)


def joint_batch(game: FamilyGame, schema: RowSchema, rows: Batch, newest: Batch | None, double: bool = True) -> JointBatch:
    """Drawn rows, with the newest ones beside them."""

    def as_joint(batch: Batch) -> JointBatch:
        columns = columns_of(game, batch)
        if not double:
            columns = {m: {name: values.float() for name, values in own.items()} for m, own in columns.items()}
        return JointBatch.from_modules(schema, columns)

    joint = as_joint(rows)
    joint.newest = None if newest is None else as_joint(newest)
    return joint


def draw_all_noise(game: FamilyGame, learner: MADDPGTorchLearner, sizes: list[int]) -> tuple[list[Noise], list[Noise]]:
    """What the Learner's next update will draw for some batches of so many rows: Gumbel noise, and that of target actions."""
    noise, of = NextNoise(learner), len(sizes)
    smooth = any(hyper.target_policy_noise > 0 for hyper in game.hypers.values())
    smoothing = [draw_noise(game, noise, rows, d, of, "normal") if smooth else None for d, rows in enumerate(sizes)]
    return [draw_noise(game, noise, rows, d, of) for d, rows in enumerate(sizes)], smoothing


def next_update(
    game: FamilyGame, learner: MADDPGTorchLearner, seed: int, size: int = ROWS, newest: int = NEWEST, double: bool = True
) -> tuple[JointBatch, dict[str, Any]]:
    """Rows for the Learner's next update, and the oracle's arguments: the same rows, and the noise the Learner will draw."""
    latest = game.newest(newest, seed)
    if not learner.config.minibatch_per_module:
        rows = game.batch(size, seed)
        (noise,), (smoothing,) = draw_all_noise(game, learner, [size])
        arguments = {"batches": rows, "noise": noise, "smoothing": smoothing}
    else:
        batches = {m: game.batch(size, seed + 1000 * (d + 1)) for d, m in enumerate(game.modules)}
        rows = interleaved(list(batches.values()))
        noises, smoothings = draw_all_noise(game, learner, [size] * len(batches))
        by_module = (dict(zip(batches, each, strict=True)) for each in (noises, smoothings))
        arguments = {"batches": batches, **dict(zip(("noise", "smoothing"), by_module, strict=True))}
    return joint_batch(game, learner.schema, rows, latest, double), {**arguments, "newest": latest}


def vector(tensors) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors])


def oracle_weights(weights: Mapping[str, Mapping[str, Layers]]) -> dict[tuple[str, str], Tensor]:
    """All nets of all modules, each as one vector."""
    return {(m, net): vector(flat(layers)) for m, nets in weights.items() for net, layers in nets.items()}
