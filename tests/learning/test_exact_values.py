"""What the Learner's critics converge to, on games whose values are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from exact_games import GAMMA, POLICIES, chain_rows, critic_values, fix_policies, joint_batch
from learner_games import build, env_steps
from reference.markov_games import CLIMBING_PAYOFF, ClimbingGame, TwoAgentChain, chain_game, exact_q

from rllib_maddpg import MADDPGConfig


@pytest.mark.parametrize(("slip", "copies"), [(0.0, 1), (0.2, 5)])
def test_critics_of_fixed_policies_reach_the_exact_values(slip, copies):
    """Both critics, in every state and for every joint action, also those that the policies never choose.

    Within 2 % of the range of values (0.3 % is what is seen). A critic that took any other next action, or that looked
    beyond the game's end or not beyond a step, would be off by tens of percents.
    """
    updates, game = 450, chain_game(slip)
    config = (
        MADDPGConfig()
        .environment(TwoAgentChain, env_config={"slip": slip})
        .rl_module(model_config={"fcnet_hiddens": [], "critic_fcnet_hiddens": [64]})
        .training(
            gamma=GAMMA,
            tau=0.1,
            actor_lr=0.0,
            critic_lr=[[0, 0.01], [updates // 2, 0.01], [updates, 0.0002]],
            grad_clip=None,
        )
        .debugging(seed=1)
    )
    learner = build(config)
    fix_policies(learner, POLICIES)
    rows = chain_rows(game, copies)
    for k in range(1, updates + 1):
        learner.update(batch=rows, timesteps=env_steps(k))
    values = critic_values(learner, np.eye(game.n_states), game.n_actions)
    for ours, exact in zip(values, exact_q(game, POLICIES, GAMMA), strict=True):
        assert np.abs(ours - exact).max() < 0.02 * (exact.max() - exact.min())


def test_joint_critics_of_the_climbing_game_rank_joint_actions():
    """Joint critics know the payoff of each joint action, where critics of an agent's own action cannot see the best.

    The actors learn at the same time; the rows are uniformly random joint actions.
    """
    updates, n = 200, CLIMBING_PAYOFF.shape
    spread = CLIMBING_PAYOFF.max() - CLIMBING_PAYOFF.min()
    config = (
        MADDPGConfig()
        .environment(ClimbingGame)
        .rl_module(model_config={"fcnet_hiddens": [64]})
        .training(
            actor_lr=0.001,
            critic_lr=[[0, 0.03], [updates // 2, 0.03], [updates, 0.0005]],
            grad_clip=None,
        )
        .debugging(seed=1)
    )
    learner = build(config)
    rng = np.random.default_rng(0)
    for k in range(1, updates + 1):
        actions = rng.integers(3, size=(128, 2))
        payoff = CLIMBING_PAYOFF[actions[:, 0], actions[:, 1]]
        ones = np.ones((len(actions), 1))
        rows = joint_batch(ones, actions, np.stack([payoff, payoff], 1), ones, np.ones(len(actions)), n)
        learner.update(batch=rows, timesteps=env_steps(k))
    for values in critic_values(learner, np.ones((1, 1)), n)[:, 0]:
        assert np.abs(values - CLIMBING_PAYOFF).max() < 0.02 * spread
        for better, worse in zip(*np.nonzero(CLIMBING_PAYOFF.ravel()[:, None] > CLIMBING_PAYOFF.ravel()), strict=True):
            assert values.ravel()[better] > values.ravel()[worse]

    # What a critic of the own action alone learns from the same rows: the mean over what the other does.
    assert np.unravel_index(CLIMBING_PAYOFF.argmax(), n) == (0, 0)
    assert CLIMBING_PAYOFF.mean(1) == pytest.approx([-19 / 3, -17 / 3, 5 / 3])
    assert CLIMBING_PAYOFF.mean(0) == pytest.approx([-19 / 3, -23 / 3, 11 / 3])
    assert CLIMBING_PAYOFF.mean(1).argmax() == CLIMBING_PAYOFF.mean(0).argmax() == 2
