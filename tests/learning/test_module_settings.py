"""Settings that a module has for itself: numbers do not split a group, and every critic sees what its view says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_games import NextNoise, build, columns_of, config_of, draw_noise, env_steps, multi_agent_batch, weights_of
from reference.maddpg import NETS, Box, Discrete, Game, Hyper, ReferenceMADDPG, flat, random_game

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.rows.joint_batch import JointBatch

# By number the range from which the tests draw it.
RANGES = {
    "gamma": (0.5, 1.0),
    "tau": (0.01, 0.9),
    "actor_lr": (1e-4, 0.02),
    "critic_lr": (1e-4, 0.02),
    "grad_clip": (0.1, 2.0),
    "policy_reg": (0.0, 0.1),
    "huber_delta": (0.1, 2.0),
    "gumbel_softmax_temperature": (0.3, 3.0),
}
SEEDS = range(8)


def numbers_of(seed: int, hyper: Hyper) -> Hyper:
    """The same words, with other numbers."""
    rng = np.random.default_rng(seed)
    return replace(hyper, **{key: float(rng.uniform(*RANGES[key])) for key in RANGES})


def overrides(hypers: dict[str, Hyper], base: Hyper) -> dict:
    """What each module has for itself, by our keys."""
    changed = {m: {k: v for k, v in vars(own).items() if v != getattr(base, k)} for m, own in hypers.items()}
    ours = {m: {"actor_output_reg" if k == "policy_reg" else k: v for k, v in own.items()} for m, own in changed.items()}
    return {m: MADDPGConfig.overrides(**own) for m, own in ours.items()}


def assert_updates_are_the_oracles(game: Game, hypers: dict[str, Hyper], seed: int, updates: int = 4, learner_class=None):
    """In float64, to rounding: 1e-10 of the weights' size, as in test_learner.py. Returns the Learner."""
    config = config_of(game).multi_agent(algorithm_config_overrides_per_module=overrides(hypers, game.hyper))
    if learner_class is not None:
        config.training(learner_class=learner_class)
    learner = build(config, game, double=True)
    oracle = ReferenceMADDPG(game.agents, game.module_of, game.kinds, game.weights, hypers, game.activation, game.frozen)
    for k in range(updates):
        rows = game.batch(16, 10 * seed + k)
        record = oracle.update(rows, draw_noise(game, NextNoise(learner), 16))
        learner._uncompiled_update(JointBatch.from_modules(learner.schema, columns_of(game, rows)))
        ours = weights_of(learner)
        for m in game.modules:
            for net in NETS:
                expected = torch.cat([p.flatten() for p in flat(record.weights[m][net])])
                assert float((ours[m, net] - expected).abs().max()) < 1e-10 * max(1.0, float(expected.abs().max())), (k, m, net)
    return learner


def alike(seed: int) -> Game:
    """Four agents of one kind with a module each, all trained: they are computed as one. Some die."""
    kind = (Box(2), Discrete(3))[seed % 2]
    return random_game(seed, n_agents=4, kinds=[kind], obs_dim=3, shared=False, frozen=False, dead=True, waiting=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_do_not_split_a_group(seed):
    """All numbers differ from module to module, also the learning rates; the update is the oracle's, of one group."""
    by = ("global_norm", "norm", "value")[seed % 3]
    words = {
        "critic_loss": ("mse", "huber")[seed // 2 % 2],
        "others_actions": ("replay", "current")[seed // 4],
        "grad_clip_by": by,
    }
    game = alike(seed).with_hyper(**words)
    hypers = {m: numbers_of(100 * seed + k, game.hyper) for k, m in enumerate(game.modules)}
    learner = assert_updates_are_the_oracles(game, hypers, seed)
    assert {name: [group.modules for group in groups] for name, groups in learner._groups.items()} == {
        "actor": [tuple(game.modules)],
        "critic": [tuple(game.modules)],
    }


def test_one_module_may_leave_its_gradients_unclipped():
    """`grad_clip=None` stands beside a number."""
    game = alike(1).with_hyper(grad_clip=0.01)
    hypers = dict.fromkeys(game.modules, game.hyper) | {game.modules[1]: replace(game.hyper, grad_clip=None)}
    assert len(assert_updates_are_the_oracles(game, hypers, 1)._groups["critic"]) == 1


def test_words_split_a_group():
    game = alike(0)
    first, *others = game.modules
    hypers = dict.fromkeys(others, game.hyper) | {first: replace(game.hyper, critic_loss="huber", huber_delta=0.3)}
    if game.hyper.critic_loss == "huber":
        hypers[first] = replace(game.hyper, critic_loss="mse")
    learner = assert_updates_are_the_oracles(game, hypers, 0)
    assert [group.modules for group in learner._groups["critic"]] == [(first,), tuple(others)]


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_own_views_are_the_oracles(seed, stacked):
    """Critics of the agent's own observation and action, in all modules or in every other one; some modules are shared."""
    kinds = ("tanh", "discrete", "multi_discrete")
    game = random_game(seed, kinds=kinds, frozen=False, waiting=False)
    own = {m for k, m in enumerate(game.modules) if seed % 2 or k % 2 == 0}
    rng = np.random.default_rng(seed)
    for m in own:
        sharers = [a for a in game.agents if game.module_of[a] == m]
        dim = game.obs_dims[sharers[0]] + game.kinds[sharers[0]].code_dim + (len(sharers) if len(sharers) > 1 else 0)
        for net in ("critic", "target_critic"):
            (w, b), *rest = game.weights[m][net]
            game.weights[m][net] = [(torch.tensor(rng.normal(size=(len(w), dim))) / dim**0.5, b), *rest]
    hypers = {m: replace(game.hyper, critic_view="own" if m in own else "all") for m in game.modules}
    learner_class = None if stacked else SingleLearner
    learner = assert_updates_are_the_oracles(game, hypers, seed, learner_class=learner_class)
    assert stacked == any(group.network.is_stacked for groups in learner._groups.values() for group in groups)


class SingleLearner(MADDPGTorchLearner):
    """Computes each module by itself."""

    @classmethod
    def why_not_stacked(cls):
        return "the test wants it"


def test_a_view_is_that_of_a_module():
    game = random_game(1, n_agents=3, kinds=("tanh", "discrete"), shared=False, frozen=False, waiting=False)
    learner = build(config_of(game).multi_agent(algorithm_config_overrides_per_module={"m1": {"critic_view": "own"}}))
    widths = {m: learner.module[m].unwrapped().critic.linears[0].in_features for m in game.modules}
    agent = next(a for a in game.agents if game.module_of[a] == "m1")
    joint = sum(game.obs_dims.values()) + sum(kind.code_dim for kind in game.kinds.values())
    assert widths == {"m0": joint, "m1": game.obs_dims[agent] + game.kinds[agent].code_dim, "m2": joint}
    learner.update(batch=multi_agent_batch(game, game.batch(16, 0)), timesteps=env_steps(0))


@pytest.mark.parametrize("view", ["al", 3, None, ["all"]])
def test_views_are_checked(view):
    allowed = r"one of \['all', 'own', 'state', 'state\+all'\], or a View\."
    with pytest.raises(ValueError, match=rf"^`critic_view`=.* is not allowed: it must be {allowed}"):
        MADDPGConfig().environment("simple_spread").training(critic_view=view).validate()
