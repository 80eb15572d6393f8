"""Learners on the GPU and on the CPU that start alike, and rows for both.

Tests in `tests/cuda` compare them. With `MADDPG_CUDA_TESTS_ON=cpu` these tests run without a GPU: the Learner that they look at
is on the CPU, too, with `FakeGraph` in place of CUDA's graphs. That proves the tests, and all of the update but its arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from fake_graph import FakeGraph
from family_learners import family_config, joint_batch
from learner_games import env_steps, spaces_of, weights_of
from reference.ensembles import random_ensemble_game
from reference.family_games import FamilyGame, random_family_game
from reference.maddpg import Box, Discrete
from torch import Tensor

from rllib_maddpg import IDDPGConfig, InferredMADDPGConfig, MADDPGConfig, MATD3Config
from rllib_maddpg.learning.cuda_graph import CudaGraph
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.replay.buffer import JointReplayBuffer
from rllib_maddpg.replay.newest import with_newest
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import RowSchema

ON = os.environ.get("MADDPG_CUDA_TESTS_ON", "cuda")
DEVICE = torch.device(ON)
ROWS, NEWEST = 16, 12

PLAIN = {
    "twin_q": False,
    "policy_delay": 1,
    "target_policy_noise": 0.0,
    "infer_other_policies": False,
    "critic_view": "all",
    "grad_clip": 0.5,
    "grad_clip_by": "global_norm",
}
# Of each member of the family: the class of its config, and what it asks of a game.
MEMBERS: dict[str, tuple[type[MADDPGConfig], dict[str, object]]] = {
    "MADDPG": (MADDPGConfig, {}),
    "MATD3": (MATD3Config, {"twin_q": True, "policy_delay": 2, "target_policy_noise": 0.2}),
    "IDDPG": (IDDPGConfig, {"critic_view": "own"}),
    "InferredMADDPG": (InferredMADDPGConfig, {"infer_other_policies": True}),
    "ensembles": (MADDPGConfig, {"num_sub_policies": 3}),
}
KINDS = {"discrete": [Discrete(3)], "continuous": [Box(2)]}


# Runs a test with eager updates and with graphs.
GRAPH = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])


class CountedGraph(FakeGraph if ON == "cpu" else CudaGraph):
    """The graph of `DEVICE`, which counts."""

    captured = replayed = 0

    def capture(self, work: Callable[[], Any]) -> Any:
        CountedGraph.captured += 1
        return super().capture(work)

    def replay(self) -> None:
        CountedGraph.replayed += 1
        super().replay()


class GraphLearner(MADDPGTorchLearner):
    """The Learner with such graphs."""

    graph_class = CountedGraph


def game_of(member: str, kind: str, **given: Any) -> FamilyGame:
    """Three agents, which may die, with a module each, whose networks are computed together."""
    hyper = {**PLAIN, **MEMBERS[member][1], **given.pop("hyper", {})}
    shape = {"n_agents": 3, "shared": False, "frozen": False, "dead": True, "obs_dim": 4, "hidden": [16, 16]} | given
    make = random_ensemble_game if "num_sub_policies" in hyper else random_family_game
    numbers = {"numbers": (hyper["num_sub_policies"],)} if "num_sub_policies" in hyper else {}
    given = {"kinds": KINDS[kind], "waiting": False, "activation": "relu", "per_module": {}, "hyper": hyper}
    return make(1, **given, **shape, **numbers)


def config_of_member(member: str, game: FamilyGame, **settings: Any) -> MADDPGConfig:
    """The member's config for the game; `settings` go to `training()`."""
    config = family_config(game, MEMBERS[member][0], **settings)
    for key in ("lr", "actor_lr", "critic_lr", "inferred_lr"):
        # A graph has them in single precision.
        if isinstance(getattr(config, key), float):
            setattr(config, key, float(np.float32(getattr(config, key))))
    return config


def on_device(config: MADDPGConfig, graph: bool = False) -> MADDPGConfig:
    """The config of a Learner on `DEVICE`, whose updates are graphs or are not."""
    config = config.copy(copy_frozen=False)
    config.training(cuda_graph=(True if ON == "cuda" else "auto") if graph else False)
    if graph:
        config.training(learner_class=GraphLearner)
    return config.learners(num_gpus_per_learner=1) if ON == "cuda" else config


def learner_of(config: MADDPGConfig, double: bool = False) -> MADDPGTorchLearner:
    """A Learner in this process; with `double` its networks are float64."""
    config.validate()
    learner = config.build_learner(spaces=spaces_of(config))
    for module_id in list(learner.module.keys()) if double else ():
        learner.module[module_id].double()
    return learner


def both(config: MADDPGConfig, graph: bool = False, double: bool = False) -> tuple[MADDPGTorchLearner, MADDPGTorchLearner]:
    """An eager Learner on the CPU, and one on `DEVICE`, with equal weights."""
    cpu, device = learner_of(config, double), learner_of(on_device(config, graph), double)
    assert device._device.type == ON and cpu._device.type == "cpu"
    assert difference(cpu, device) == 0.0
    return cpu, device


def rows_of(
    game: FamilyGame, schema: RowSchema, k: int, double: bool = False, size: int = ROWS, newest: int = NEWEST
) -> JointBatch:
    """The rows of update k, on the CPU, which depend on their number only."""
    return joint_batch(game, schema, game.batch(size, k), game.newest(newest, k), double)


def update(
    learner: MADDPGTorchLearner, game: FamilyGame, numbers: Iterable[int], double: bool = False, size: int = ROWS
) -> Mapping[str, Any]:
    """Updates on the rows of these numbers; returns the metrics of the last one."""
    results = {}
    for k in numbers:
        results = learner.update(batch=rows_of(game, learner.schema, k, double, size), timesteps=env_steps(60 * k))
    return results


def ring_of(game: FamilyGame, schema: RowSchema, device: str, rows: int = 64) -> JointReplayBuffer:
    """A full replay buffer on a device."""
    ring = JointReplayBuffer(schema, capacity=rows, seed=5, device=device)
    joint = joint_batch(game, schema, game.batch(rows, 99), None, double=False)
    ring.add(JointRollout(joint.joint_rows.numpy(), schema.places))
    return ring


def doubled(schema: RowSchema, rows: Tensor) -> JointBatch:
    """Rows in float64; as a whole those would lose the bits of whole numbers."""
    result = rows.double()
    for ours, theirs in zip(schema.split(result).values(), schema.split(rows).values(), strict=True):
        ours.copy_(theirs)
    return JointBatch(schema, result)


def update_from(
    learner: MADDPGTorchLearner, ring: JointReplayBuffer, calls: Iterable[int], updates: int, double: bool = False
) -> Mapping[str, Any]:
    """Calls of these numbers, of so many updates each, on rows that the ring draws; returns the metrics of the last one."""
    results = {}
    for k in calls:
        drawn = ring.draw(1, updates, ROWS)
        if learner.config.needs_newest_rows:
            drawn = with_newest(drawn, ring.latest(NEWEST))
        batch = drawn[0]
        if double:
            joint = batch.to(learner._device, learner.schema)
            batch = doubled(learner.schema, joint.joint_rows)
            batch.newest = None if joint.newest is None else doubled(learner.schema, joint.newest.joint_rows)
        results = learner.update(batch=batch, minibatch_size=ROWS, timesteps=env_steps(60 * k))
    return results


def on_cpu(weights: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
    return {key: value.cpu() for key, value in weights.items()}


def difference(one: MADDPGTorchLearner, other: MADDPGTorchLearner) -> float:
    """The largest difference of a network's weights, as a share of their norm."""
    ours, theirs = (on_cpu(weights_of(learner)) for learner in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[key] - theirs[key]).norm() / theirs[key].norm()) for key in theirs)


def same(one: Mapping[Any, Tensor], other: Mapping[Any, Tensor]) -> bool:
    """Whether all tensors are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key].cpu(), other[key].cpu()) for key in one)
