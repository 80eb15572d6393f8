"""A game of three agents whose modules are computed as one, and Learners that learn it."""

from __future__ import annotations

from learner_games import env_steps, multi_agent_batch
from reference.maddpg import Discrete, random_game


def small_game(**settings):
    """Three discrete agents with a module each."""
    return random_game(
        3, n_agents=3, kinds=[Discrete(3)], obs_dim=2, shared=False, frozen=False, dead=False, waiting=False, **settings
    )


def updates(learner, game, numbers):
    """Updates on the batches of these numbers; returns the results of the last one."""
    results = None
    for k in numbers:
        results = learner.update(batch=multi_agent_batch(game, game.batch(16, k)), timesteps=env_steps(k))
    return results
