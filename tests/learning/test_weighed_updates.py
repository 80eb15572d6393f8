"""Updates on rows with weights and several steps against the oracle, and against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from family_learners import family_config, next_update, oracle_weights, vector
from learner_games import build, weights_of
from reference.family_games import random_family_game
from reference.weighed import WeighedGame, weighed

from rllib_maddpg.learning.learner import MADDPGTorchLearner

REPLAY = {"n_step": 3, "replay_buffer_config": {"type": "PrioritizedJointReplayBuffer"}}
UPDATES = 20
KINDS = ("tanh", "discrete", "multi_discrete"), ("discrete", "tanh")


class Apart(MADDPGTorchLearner):
    """Computes each module by itself."""

    stacks_modules = False


def game_of(seed: int) -> WeighedGame:
    """One module has another gamma than the others; in every second game modules have other settings of their own, too."""
    given = {"per_module": {}} if seed % 2 else {}
    if seed % 3 == 2:
        given |= {"n_agents": 4, "shared": True}
    game = random_family_game(seed, kinds=KINDS[seed % 2], waiting=False, **given)
    game.per_module[game.modules[-1]] = {**game.per_module.get(game.modules[-1], {}), "gamma": 0.7}
    return weighed(game)


@pytest.mark.parametrize("seed", range(30, 38))
@pytest.mark.parametrize("apart", [False, True], ids=["", "apart"])
def test_twenty_updates_are_the_oracles_in_float64(seed, apart):
    """All losses, and all networks after 20 updates, to 1e-8 of the largest entry."""
    if apart and seed % 4:
        pytest.skip("by itself in every fourth game")
    game = game_of(seed)
    config = family_config(game, **REPLAY, minibatch_per_module=seed % 4 == 1)
    if apart:
        config.training(learner_class=Apart)
    learner, oracle = build(config, game, double=True), game.reference()
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, 10 * seed + k)
        record = oracle.update(**arguments)
        learner._updates_to_report = 0
        learner._uncompiled_update(joint)
        noted = learner._update_metrics.noted
        for (m, role), loss in record.losses.items():
            assert float(noted[m, f"{role}_loss"]) == pytest.approx(loss, rel=1e-8, abs=1e-8), (k, m, role)
    ours = weights_of(learner)
    for key, expected in oracle_weights(record.weights).items():
        assert (ours[key] - expected).abs().max() <= 1e-8 * max(1.0, float(expected.abs().max())), key
        if key[0] not in game.frozen:
            assert not torch.equal(ours[key], vector([t for layer in game.weights[key[0]][key[1]] for t in layer]))
