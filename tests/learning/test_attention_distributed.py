"""Two Learners are one with attention critics: the gradient of weights in common is that of all rows."""

from __future__ import annotations

import attention_learners
import family_learners
import learner_games
import pytest
import ray
import reference.attention
import reference.family
import reference.family_games
import reference.inferred_policies
import reference.maddpg
import torch
from attention_learners import attention_config, load_common
from family_learners import joint_batch
from learner_games import build_group, env_steps, load_weights, on_each, start_noise, weights_and_noise
from reference.attention import attention_game
from reference.family_games import random_family_game
from travel import travelling

UPDATES, ROWS = 6, 24
# Three modules, one of which serves two agents; agents die, so that halves of the rows have not as many living agents each.
GAME = attention_game(
    random_family_game(
        12,
        n_agents=4,
        kinds=["discrete", "tanh"],
        shared=True,
        dead=True,
        waiting=False,
        frozen=False,
        per_module={},
        hyper={"critic_view": "all", "twin_q": True, "policy_delay": 1, "infer_other_policies": False, "grad_clip": 0.5},
    ),
    12,
)
TRAVELLERS = (
    learner_games,
    family_learners,
    attention_learners,
    reference.maddpg,
    reference.family,
    reference.family_games,
    reference.inferred_policies,
    reference.attention,
)


@pytest.fixture(scope="module", autouse=True)
def tests_travel(ray_session):
    """The Learners' processes do not know the tests' folder."""
    with travelling(TRAVELLERS):
        yield


def groups_of(learner) -> dict[str, list[tuple[str, ...]]]:
    learner._tie()
    return {name: [group.modules for group in groups] for name, groups in learner._groups.items()}


@pytest.mark.slow
def test_two_learners_are_one(request):
    """On the same rows, and the ranks are equal to the bit; 1e-6 is for the order of float32 sums."""
    groups = [build_group(attention_config(GAME).debugging(seed=None), learners) for learners in (0, 2)]
    for group in groups:
        request.addfinalizer(group.shutdown)
        on_each(group, lambda learner: load_weights(learner, GAME.weights))
        on_each(group, lambda learner: load_common(learner, GAME.common))
        on_each(group, start_noise)
    local, two = groups
    (start,) = weights_and_noise(local)
    # In other processes modules are computed together, too.
    (groups_here,), groups_there = on_each(local, groups_of), on_each(two, groups_of)
    assert groups_there == [groups_here] * 2
    assert on_each(two, lambda learner: learner.why_not_stacked()) == ["", ""]
    for k in range(UPDATES):
        joint = joint_batch(GAME, local._learner.schema, GAME.batch(ROWS, k), None, double=False)
        local.update(batch=joint, timesteps=env_steps(k))
        halves = [joint.rows(part) for part in (slice(ROWS // 2), slice(ROWS // 2, None))]
        two.update(batch_refs=[ray.put(half) for half in halves], timesteps=env_steps(k))
    (expected,), ranks = weights_and_noise(local), weights_and_noise(two)
    for key, value in expected.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        if key != "noise":
            assert float((ranks[0][key] - value).abs().max()) < 1e-6, key
            assert float((start[key] - value).abs().max()) > 1e-4, key
