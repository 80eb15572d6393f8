"""What the Learner's critics converge to, on games whose values are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_games import GAMMA, POLICIES, chain_rows, critic_values, fix_policies, joint_batch
from learner_games import build, env_steps
from reference.markov_games import AGENTS, CLIMBING_PAYOFF, ClimbingGame, TwoAgentChain, chain_game, exact_q

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


def climbing_learner(updates: int, **settings):
    """Learns the climbing game from uniformly random joint actions, while the actors learn, too."""
    config = (
        MADDPGConfig()
        .environment(ClimbingGame)
        .rl_module(model_config={"fcnet_hiddens": [64]})
        .training(actor_lr=0.001, critic_lr=[[0, 0.03], [updates // 2, 0.03], [updates, 0.0005]], grad_clip=None, **settings)
        .debugging(seed=1)
    )
    learner, n = build(config), CLIMBING_PAYOFF.shape
    rng = np.random.default_rng(0)
    for k in range(1, updates + 1):
        actions = rng.integers(3, size=(128, 2))
        payoff = CLIMBING_PAYOFF[actions[:, 0], actions[:, 1]]
        ones = np.ones((len(actions), 1))
        rows = joint_batch(ones, actions, np.stack([payoff, payoff], 1), ones, np.ones(len(actions)), n)
        learner.update(batch=rows, timesteps=env_steps(k))
    return learner


def test_joint_critics_of_the_climbing_game_rank_joint_actions():
    """Joint critics know the payoff of each joint action, where critics of an agent's own action cannot see the best."""
    n, spread = CLIMBING_PAYOFF.shape, CLIMBING_PAYOFF.max() - CLIMBING_PAYOFF.min()
    learner = climbing_learner(updates=200)
    for values in critic_values(learner, np.ones((1, 1)), n)[:, 0]:
        assert np.abs(values - CLIMBING_PAYOFF).max() < 0.02 * spread
        for better, worse in zip(*np.nonzero(CLIMBING_PAYOFF.ravel()[:, None] > CLIMBING_PAYOFF.ravel()), strict=True):
            assert values.ravel()[better] > values.ravel()[worse]


def test_own_critics_of_the_climbing_game_learn_means_and_miss_the_best():
    """With `critic_view="own"` (independent DDPG) a critic sees its agent's action only, and the rows' mean over the other's.

    Within a tenth of the range of values: payoffs of 11 to -30 scatter around a mean, of 43 rows in each batch.
    """
    spread = CLIMBING_PAYOFF.max() - CLIMBING_PAYOFF.min()
    learner = climbing_learner(updates=400, critic_view="own")
    for axis, agent in ((1, AGENTS[0]), (0, AGENTS[1])):
        module = learner.module[agent].unwrapped()
        with torch.no_grad():
            values = module.q_values(module.critic, torch.ones(3, 1, 1), torch.eye(3).unsqueeze(1))[:, 0].numpy()
        assert np.abs(values - CLIMBING_PAYOFF.mean(axis)).max() < 0.1 * spread
        assert values.argmax() == 2
    assert np.unravel_index(CLIMBING_PAYOFF.argmax(), CLIMBING_PAYOFF.shape) == (0, 0)
