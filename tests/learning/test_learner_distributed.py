"""Learners in processes of their own: two of them are one, and so is a remote one."""

from __future__ import annotations

import learner_games
import numpy as np
import pytest
import reference.maddpg
import torch
from learner_games import (
    build_group,
    config_of,
    env_steps,
    load_weights,
    multi_agent_batch,
    on_each,
    start_noise,
    weights_and_noise,
)
from ray import cloudpickle
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from reference.maddpg import Box, Discrete, Game, random_game
from torch import nn

UPDATES, ROWS = 20, 24
# A module that two Discrete agents share, and a box agent; agents die. Gradients are clipped, as by default.
GAME = random_game(
    2,
    n_agents=3,
    kinds=[Discrete(3), Box(2)],
    shared=True,
    dead=True,
    waiting=False,
    frozen=False,
    hyper={"grad_clip": 0.5, "grad_clip_by": "global_norm", "others_actions": "current"},
)


@pytest.fixture(scope="module", autouse=True)
def tests_travel(ray_session):
    """The Learners' processes do not know the tests' folder."""
    modules = (learner_games, reference.maddpg)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


def group_of(num_learners: int, request) -> LearnerGroup:
    config = config_of(GAME).framework(torch_skip_nan_gradients=num_learners != 1)
    # Without a seed each process draws its own, so that only what the Learners tell each other makes them alike.
    group = build_group(config.debugging(seed=None), num_learners)
    request.addfinalizer(group.shutdown)
    return group


@pytest.fixture(scope="module")
def local(request) -> LearnerGroup:
    return group_of(0, request)


@pytest.fixture(scope="module")
def one(request) -> LearnerGroup:
    return group_of(1, request)


@pytest.fixture(scope="module")
def two(request) -> LearnerGroup:
    return group_of(2, request)


def train(group: LearnerGroup, updates: int, first_seed: int = 0, start_over: bool = True) -> MetricsLogger:
    """Updates on rows that depend on their number only; returns the metrics as the Algorithm keeps them."""
    if start_over:
        on_each(group, lambda learner: load_weights(learner, GAME.weights))
        on_each(group, start_noise)
    logger = MetricsLogger(root=True)
    for k in range(first_seed, first_seed + updates):
        batch = multi_agent_batch(GAME, GAME.batch(ROWS, k))
        logger.aggregate(group.update(batch=batch, timesteps=env_steps(k)))
    return logger


def largest_difference(a: dict, b: dict) -> float:
    return max(float((a[key] - b[key]).abs().max()) for key in a if key != "noise")


def assert_ranks_equal(group: LearnerGroup) -> None:
    first, second = weights_and_noise(group)
    for key in first:
        assert torch.equal(first[key], second[key]), key


def test_two_learners_start_alike(two):
    assert_ranks_equal(two)


def test_two_learners_start_with_the_same_rule(request):
    class Drawn(TorchRLModule):
        """Acts by weights that every process draws itself."""

        def setup(self):
            self.net = nn.Linear(8, 8)

    rule, *others = GAME.modules
    config = config_of(GAME).debugging(seed=None).multi_agent(policies_to_train=others)
    specs = {rule: RLModuleSpec(module_class=Drawn)}
    group = build_group(config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs)), 2)
    request.addfinalizer(group.shutdown)
    first, second = on_each(group, lambda learner: learner.module[rule].unwrapped().net.weight.detach().clone())
    assert torch.equal(first, second)


def test_two_learners_are_one(local, two):
    """On the same rows, and the ranks are equal to the bit.

    The order of float32 sums is all that differs from one Learner: 1e-7 is what is seen after 20 updates, which move
    weights by 0.1 and more.
    """
    expected, metrics = train(local, UPDATES), train(two, UPDATES)
    (reference_weights,) = weights_and_noise(local)
    assert_ranks_equal(two)
    for weights in weights_and_noise(two):
        assert largest_difference(weights, reference_weights) < 1e-6
        assert torch.equal(weights["noise"], reference_weights["noise"])
    # The metrics are those of all rows, not of a Learner's share.
    for m in GAME.modules:
        for name in ("critic_loss", "actor_loss", "critic_gradients_norm", "actor_gradients_norm", "total_loss"):
            assert metrics.peek((m, name)) == pytest.approx(expected.peek((m, name)), rel=1e-4, abs=1e-6), (m, name)
        assert metrics.peek((m, "num_module_steps_trained_lifetime")) == UPDATES * ROWS


def test_two_learners_are_one_with_rows_of_their_own_for_each_module(local, two):
    for group in (local, two):
        on_each(group, lambda learner: setattr(learner, "config", learner.config.copy(copy_frozen=False)))
        on_each(group, lambda learner: setattr(learner.config, "minibatch_per_module", True))
        train(group, 5)
        on_each(group, lambda learner: setattr(learner.config, "minibatch_per_module", False))
    assert_ranks_equal(two)
    assert largest_difference(weights_and_noise(two)[0], weights_and_noise(local)[0]) < 1e-6


def test_bad_rows_of_one_learner_are_skipped_by_both_and_counted_once(two):
    before = weights_and_noise(two)
    batch = multi_agent_batch(GAME, GAME.batch(ROWS, 0))
    batch.policy_batches["m0"]["rewards"][-1, 0] = np.nan
    logger = MetricsLogger(root=True)
    logger.aggregate(two.update(batch=batch, timesteps=env_steps(0)))
    for then, now in zip(before, weights_and_noise(two), strict=True):
        assert all(torch.equal(then[key], now[key]) for key in then if key != "noise")
    assert [logger.peek((m, "num_updates_skipped_lifetime")) for m in GAME.modules] == [1] * len(GAME.modules)


def test_state_of_two_learners_goes_on_in_one(local, two):
    local.set_state(two.get_state())
    assert largest_difference(weights_and_noise(local)[0], weights_and_noise(two)[0]) == 0.0
    for group in (local, two):
        train(group, 3, first_seed=100, start_over=False)
    assert largest_difference(weights_and_noise(local)[0], weights_and_noise(two)[0]) < 1e-6


def test_remote_learner_is_the_local_one(request, one):
    """The same program on the same rows, to rounding (batched products are not bound to one order of summation in every
    process). A bad row's ValueError reaches the caller."""
    local = group_of(0, request)
    for group in (local, one):
        train(group, UPDATES)
    (expected,), (weights,) = weights_and_noise(local), weights_and_noise(one)
    assert torch.equal(weights["noise"], expected["noise"])
    assert largest_difference(weights, expected) < 1e-6
    batch = multi_agent_batch(GAME, GAME.batch(ROWS, 0))
    batch.policy_batches["m0"]["rewards"][0, 0] = np.nan
    with pytest.raises(ValueError, match="column 'rewards' of module 'm0'"):
        one.update(batch=batch, timesteps=env_steps(0))


def test_the_game_has_what_these_tests_are_about():
    assert isinstance(GAME, Game)
    assert {type(kind) for kind in GAME.kinds.values()} == {Discrete, Box}
    shared = [m for m in GAME.modules if sum(of == m for of in GAME.module_of.values()) > 1]
    assert len(shared) == 1
    batch = GAME.batch(ROWS, 0)
    # Neither half of the rows has as many living agents as the other.
    halves = [[float(part.sum()) for part in batch[a].alive.chunk(2)] for a in GAME.agents]
    assert any(first != second for first, second in halves)
