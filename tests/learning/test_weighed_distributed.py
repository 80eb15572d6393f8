"""Two Learners are one on rows with weights and several steps: each divides by the largest weight of both."""

from __future__ import annotations

import family_learners
import learner_games
import numpy as np
import pytest
import ray
import reference.family
import reference.family_games
import reference.maddpg
import reference.weighed
import torch
from family_learners import family_config, joint_batch
from learner_games import build_group, env_steps, load_weights, on_each, start_noise, weights_and_noise
from reference.family_games import random_family_game
from reference.maddpg import Box, Discrete
from reference.weighed import weighed
from travel import travelling

ROWS, UPDATES = 24, 8
REPLAY = {"n_step": 3, "replay_buffer_config": {"type": "PrioritizedJointReplayBuffer"}}
HYPER = {"critic_view": "all", "twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False}
GAME = weighed(
    random_family_game(
        12,
        n_agents=4,
        kinds=[Discrete(3), Box(2)],
        shared=True,
        dead=True,
        waiting=False,
        frozen=False,
        per_module={},
        hyper=HYPER,
    )
)
TRAVELLERS = (learner_games, family_learners, reference.maddpg, reference.family, reference.family_games, reference.weighed)


@pytest.fixture(scope="module", autouse=True)
def tests_travel(ray_session):
    """The Learners' processes do not know the tests' folder."""
    with travelling(TRAVELLERS):
        yield


def test_two_learners_are_one(request):
    """On the same rows, to 1e-6 for the order of float32 sums; ranks are equal to the bit, and each tells of its own rows."""
    groups = []
    for num_learners in (0, 2):
        groups.append(build_group(family_config(GAME, **REPLAY).debugging(seed=None), num_learners))
        request.addfinalizer(groups[-1].shutdown)
        on_each(groups[-1], lambda learner: load_weights(learner, GAME.weights))
        on_each(groups[-1], start_noise)
        on_each(groups[-1], lambda learner: learner.collect_td_errors("max"))
    local, two = groups
    for k in range(UPDATES):
        joint = joint_batch(GAME, local._learner.schema, GAME.batch(ROWS, k), None, double=False)
        parts = [joint.rows(part) for part in (slice(ROWS // 2), slice(ROWS // 2, None))]
        largest = [float(part.columns["weights"].max()) for part in parts]
        assert largest[0] != largest[1]
        local.update(batch=joint, timesteps=env_steps(k))
        two.update(batch_refs=[ray.put(part) for part in parts], timesteps=env_steps(k))
        errors = np.concatenate(on_each(two, lambda learner: learner.take_td_errors()))
        np.testing.assert_allclose(errors, local._learner.take_td_errors(), rtol=1e-4, atol=1e-4)
    (expected,), ranks = weights_and_noise(local), weights_and_noise(two)
    for key, value in expected.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        assert float((ranks[0][key] - value).abs().max()) < 1e-6, key
