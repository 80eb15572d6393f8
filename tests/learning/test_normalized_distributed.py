"""Moments of two Learners are those of one on all rows."""

from __future__ import annotations

import family_learners
import large_numbers
import learner_games
import numpy as np
import pytest
import ray
import reference.family
import reference.family_games
import reference.inferred_policies
import reference.maddpg
import torch
from family_learners import family_config, joint_batch
from large_numbers import enlarged
from learner_games import build_group, env_steps, load_weights, on_each, start_noise, weights_and_noise
from reference.family_games import random_family_game
from reference.maddpg import Discrete
from travel import travelling

UPDATES, ROWS = 8, 24
GAME = random_family_game(
    12,
    n_agents=3,
    kinds=[Discrete(3)],
    shared=True,
    dead=True,
    waiting=False,
    frozen=False,
    per_module={},
    hyper={"infer_other_policies": False, "grad_clip": 0.5, "grad_clip_by": "global_norm"},
)
TRAVELLERS = (
    learner_games,
    family_learners,
    large_numbers,
    reference.maddpg,
    reference.family,
    reference.family_games,
    reference.inferred_policies,
)


@pytest.fixture(scope="module", autouse=True)
def tests_travel(ray_session):
    """The Learners' processes do not know the tests' folder."""
    with travelling(TRAVELLERS):
        yield


def group_of(num_learners, request):
    settings = {"normalize_observations": True, "normalize_rewards": True}
    config = family_config(GAME, **settings).framework(torch_skip_nan_gradients=True).debugging(seed=None)
    group = build_group(config, num_learners)
    request.addfinalizer(group.shutdown)
    on_each(group, lambda learner: load_weights(learner, GAME.weights))
    on_each(group, start_noise)
    return group


def rows_of(schema, k):
    """Of which the second half has larger observations, and fewer agents that live."""
    joint = joint_batch(GAME, schema, enlarged(GAME, GAME.batch(ROWS, k)), None, double=False)
    joint.columns["obs"][ROWS // 2 :] *= 3.0
    return joint


def moments_of(group):
    def of(learner):
        modules = {m: learner.module[m].unwrapped() for m in learner.layout.modules}
        return {(m, name): value.clone() for m, own in modules.items() for name, value in own.named_buffers()}

    return on_each(group, of)


def halves(joint):
    return [joint.rows(part) for part in (slice(ROWS // 2), slice(ROWS // 2, None))]


def test_two_learners_are_one(request):
    """To the rounding of float64 sums; weights to that of float32 ones. Rows that are bad for one are skipped by both."""
    local, two = group_of(0, request), group_of(2, request)
    schema = local._learner.schema
    for k in range(UPDATES):
        joint = rows_of(schema, k)
        if k == 3:
            joint.columns["rewards"][-1, 0] = np.nan
        parts = halves(joint)
        living = [float(part.columns["alive"].sum()) for part in parts]
        assert living[0] != living[1]
        local.update(batch=joint, timesteps=env_steps(k))
        two.update(batch_refs=[ray.put(half) for half in parts], timesteps=env_steps(k))
    (expected,), ranks = moments_of(local), moments_of(two)
    assert len(expected) == 7 * len(GAME.modules)
    for key, value in expected.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        torch.testing.assert_close(ranks[0][key], value, rtol=1e-6 if "filter" in key[1] else 1e-12, atol=0.0)
    kept = [k for k in range(UPDATES) if k != 3]
    counted = sum(float(rows_of(schema, k).modules["m0"]["alive"].sum()) for k in kept)
    assert float(expected["m0", "moments.obs_count"]) == counted
    (weights,), others = weights_and_noise(local), weights_and_noise(two)
    for key, value in weights.items():
        assert torch.equal(others[0][key], others[1][key])
        assert float((others[0][key] - value).abs().max()) < 1e-5, key
