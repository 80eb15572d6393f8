"""Two Learners are one for all members at once: inferred policies, twin critics, delay, smoothing."""

from __future__ import annotations

import family_learners
import learner_games
import numpy as np
import pytest
import ray
import reference.ensembles
import reference.family
import reference.family_games
import reference.inferred_policies
import reference.maddpg
import torch
from family_learners import family_config, joint_batch
from learner_games import build_group, env_steps, load_weights, on_each, start_noise, weights_and_noise
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from reference.ensembles import random_ensemble_game
from reference.maddpg import Box, Discrete
from travel import travelling

from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema

UPDATES, ROWS, NEWEST = 12, 24, 20
# A module that two agents share, and three more of both kinds; agents die, and have several sub-policies.
GAME = random_ensemble_game(
    12,
    numbers=(2,),
    n_agents=4,
    kinds=[Discrete(3), Box(2)],
    shared=True,
    dead=True,
    waiting=False,
    frozen=False,
    per_module={},
    hyper={
        "grad_clip": 0.5,
        "grad_clip_by": "global_norm",
        "others_actions": "current",
        "critic_view": "all",
        "twin_q": True,
        "policy_delay": 2,
        "target_policy_noise": 0.3,
        "target_noise_clip": 0.4,
        "infer_other_policies": True,
        "inferred_policy_entropy": 0.1,
        "inferred_target": "probabilities",
    },
)
TRAVELLERS = (
    learner_games,
    family_learners,
    reference.maddpg,
    reference.ensembles,
    reference.family,
    reference.family_games,
    reference.inferred_policies,
)


@pytest.fixture(scope="module", autouse=True)
def tests_travel(ray_session):
    """The Learners' processes do not know the tests' folder."""
    with travelling(TRAVELLERS):
        yield


def group_of(num_learners: int, request) -> LearnerGroup:
    group = build_group(family_config(GAME).debugging(seed=None), num_learners)
    request.addfinalizer(group.shutdown)
    return group


@pytest.fixture(scope="module")
def local(request) -> LearnerGroup:
    return group_of(0, request)


@pytest.fixture(scope="module")
def two(request) -> LearnerGroup:
    return group_of(2, request)


def rows_of(schema: RowSchema, k: int) -> JointBatch:
    return joint_batch(GAME, schema, GAME.batch(ROWS, k), GAME.newest(NEWEST, k), double=False)


def halves(joint: JointBatch) -> list[JointBatch]:
    """A share of the drawn and of the newest rows for each Learner."""
    parts = [joint.rows(part) for part in (slice(ROWS // 2), slice(ROWS // 2, None))]
    for part, share in zip(parts, (slice(NEWEST // 2), slice(NEWEST // 2, None)), strict=True):
        part.newest = joint.newest.rows(share)
    return parts


def test_two_learners_are_one(local, two):
    """On the same rows, and the ranks are equal to the bit; 1e-6 is for the order of float32 sums."""
    schema = local._learner.schema
    for group in (local, two):
        on_each(group, lambda learner: load_weights(learner, GAME.weights))
        on_each(group, start_noise)
    (start,) = weights_and_noise(local)
    metrics = [MetricsLogger(root=True) for _ in range(2)]
    for k in range(UPDATES):
        joint = rows_of(schema, k)
        metrics[0].aggregate(local.update(batch=joint, timesteps=env_steps(k)))
        metrics[1].aggregate(two.update(batch_refs=[ray.put(half) for half in halves(joint)], timesteps=env_steps(k)))
    (expected,), ranks = weights_and_noise(local), weights_and_noise(two)
    assert len(expected) > 30 and ("m0", "target_inferred_1") in expected
    for key, value in expected.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        if key == "noise":
            assert torch.equal(ranks[0][key], value)
            continue
        assert float((ranks[0][key] - value).abs().max()) < 1e-6, key
        assert float((start[key] - value).abs().max()) > 1e-4, key
    # The metrics are those of all rows, not of a Learner's share.
    for m in GAME.modules:
        others = [a for a in GAME.agents if GAME.module_of[a] != m]
        pairs = [f"inferred_{a}_{name}" for a in others for name in ("log_likelihood", "entropy")]
        pairs += [f"inferred_{a}_{'rmse' if isinstance(GAME.kinds[a], Box) else 'kl'}" for a in others]
        for name in ("critic_loss", "actor_loss", "inferred_loss", "total_loss", "twin_critic_gradients_norm"):
            assert metrics[1].peek((m, name)) == pytest.approx(metrics[0].peek((m, name)), rel=1e-4, abs=1e-6), (m, name)
        for name in pairs:
            # Of each Learner's own mean RLlib makes the average, and its halves have not as many living agents each.
            assert np.isfinite([each.peek((m, name)) for each in metrics]).all(), (m, name)


def test_the_game_has_what_this_is_about():
    reference = GAME.reference()
    assert {type(kind) for kind in GAME.kinds.values()} == {Discrete, Box}
    assert sorted(len(reference.agents_of(m)) for m in GAME.modules) == [1, 1, 2]
    # The two halves of the newest rows have not as many living agents each.
    newest = GAME.newest(NEWEST, 0)
    shares = [[float(part.sum()) for part in newest[a].alive.chunk(2)] for a in GAME.agents]
    assert any(first != second for first, second in shares)
