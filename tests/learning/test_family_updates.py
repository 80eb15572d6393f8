"""Updates of all members of the family, in any combination, against the oracle."""

from __future__ import annotations

import pytest
import torch
from family_learners import family_learner, next_update, oracle_weights, vector
from learner_games import env_steps, weights_of
from reference.family_games import FamilyGame, random_family_game
from reference.maddpg import Box

from rllib_maddpg.learning.learner import MADDPGTorchLearner

# A game has boxes of one head only, because `actor_head` is one setting for all agents.
KINDS = (
    ("tanh", "discrete", "multi_discrete"),
    ("softmax", "multi_discrete", "discrete"),
    ("discrete", "tanh"),
    ("multi_discrete", "softmax"),
)
SEEDS = range(64, 88)  # of which the games have everything, see below
UPDATES = 4


class Apart(MADDPGTorchLearner):
    """Computes each module by itself."""

    stacks_modules = False


def game_of(seed: int) -> FamilyGame:
    """In every third game no module has settings of its own, so that modules are computed together."""
    given = {"per_module": {}} if seed % 3 == 1 else {}
    if seed % 3 == 2:
        given |= {"n_agents": 4, "shared": True}
    return random_family_game(seed, kinds=KINDS[seed % len(KINDS)], waiting=False, **given)


def has_rows_per_module(seed: int) -> bool:
    """Whether the seed's Learner runs with `minibatch_per_module`."""
    return seed % 5 == 2


def test_the_random_games_have_everything():
    """Each setting of a module that learns, also beside those that change what it means."""
    seen = {name: set() for name in ("twin", "noise", "view", "probabilities", "kinds", "others", "trained", "delay", "dead")}
    for seed in SEEDS:
        game = game_of(seed)
        reference = game.reference()
        seen["delay"].add(game.hyper.policy_delay)
        seen["dead"].add((game.dead, bool(reference.trained) and bool(game.frozen)))
        for m in reference.trained:
            hyper, sharers = game.hypers[m], len(reference.agents_of(m))
            others = reference.inferred_modules(m)
            seen["twin"].add((hyper.twin_q, sharers > 1, bool(others)))
            seen["noise"].add((hyper.target_policy_noise > 0, bool(others)))
            seen["view"].add((hyper.critic_view, hyper.infer_other_policies))
            seen["others"].add((hyper.others_actions, bool(others), has_rows_per_module(seed)))
            for other in others:
                theirs = reference.agents_of(other)
                kind = game.kinds[theirs[0]]
                seen["kinds"].add((getattr(kind, "head", type(kind).__name__), len(theirs) > 1))
                seen["trained"].add(other in game.frozen)
                seen["probabilities"].add((hyper.inferred_target, isinstance(kind, Box)))
    sizes = {name: len(values) for name, values in seen.items()}
    assert sizes["kinds"] >= 7, seen["kinds"]
    assert {kind for kind, _ in seen["kinds"]} == {"tanh", "softmax", "Discrete", "MultiDiscrete"}
    del sizes["kinds"]
    # A critic of its own agent alone without inferred policies is in test_module_settings.py.
    expected = {"twin": 8, "noise": 4, "view": 3, "probabilities": 4, "others": 8, "trained": 2, "delay": 3, "dead": 4}
    assert sizes == expected, seen


@pytest.mark.parametrize(
    ("seed", "stacked"),
    [
        *(pytest.param(seed, True, id=f"{seed}") for seed in SEEDS),
        *(pytest.param(s, False, id=f"{s}-apart") for s in SEEDS[::4]),
    ],
)
def test_update_is_the_oracles_in_float64(seed, stacked):
    """Losses, norms of gradients and all networks, over four updates; as in test_learner.py to 1e-10 of the largest entry."""

    def same(ours, expected, what):
        error = float((ours - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-10, f"update {k}: {what} is off by {error}"

    game = game_of(seed)
    settings = {"minibatch_per_module": has_rows_per_module(seed), "learner_class": None if stacked else Apart}
    learner, oracle = family_learner(game, **settings), game.reference()
    assert weights_of(learner).keys() == oracle_weights(game.weights).keys()
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, 10 * seed + k)
        record = oracle.update(**arguments)
        learner._updates_to_report = 0
        learner._uncompiled_update(joint)
        noted = learner._update_metrics.noted
        for (m, role), loss in record.losses.items():
            same(noted[m, f"{role}_loss"], torch.tensor(loss, dtype=torch.float64), f"{role} loss of {m}")
        for (m, net), grads in record.grads.items():
            same(noted[m, f"{net}_gradients_norm"], vector(grads).norm(), f"gradient norm of {net} of {m}")
        for m, reports in record.reports.items():
            for name, value in reports.items():
                same(noted[m, name], torch.tensor(value, dtype=torch.float64), f"{name} of {m}")
        ours = weights_of(learner)
        for (m, net), weights in oracle_weights(record.weights).items():
            same(ours[m, net], weights, f"{net} of {m}")
    # Actors and targets have moved, too, at least once.
    for key, start in oracle_weights(game.weights).items():
        assert torch.equal(ours[key], start) == (key[0] in game.frozen), key


@pytest.mark.parametrize("seed", SEEDS[1::3])
def test_update_through_rllib_is_the_oracles_in_float32(seed):
    """The whole way of a batch and its newest rows through `Learner.update`.

    To 1e-5 of a network's weights, as rounding of float32 moves them: errors are large beside a small move where Adam divides
    a gradient that is nearly nothing by itself.
    """
    game = game_of(seed)
    learner = family_learner(game, double=False, minibatch_per_module=has_rows_per_module(seed))
    oracle = game.reference()
    start = weights_of(learner)
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, 10 * seed + k, double=False)
        expected = oracle_weights(oracle.update(**arguments).weights)
        learner.update(batch=joint, timesteps=env_steps(k))
        for (m, net), ours in weights_of(learner).items():
            if m in game.frozen:
                assert torch.equal(ours, start[m, net])
                continue
            error = (ours - expected[m, net]).norm() / expected[m, net].norm()
            assert error < 1e-5, f"update {k}: {net} of {m} is off by {error} of its size"


def test_updates_of_one_call_share_the_newest_rows():
    """Several minibatches, one after the other."""
    game = random_family_game(
        1,
        kinds=KINDS[0],
        waiting=False,
        frozen=False,
        per_module={},
        hyper={"infer_other_policies": True, "critic_view": "all"},
    )
    together, one_by_one = (family_learner(game, double=False) for _ in range(2))
    joint, _ = next_update(game, together, 0, size=24, double=False)
    together.update(batch=joint, minibatch_size=8, timesteps=env_steps(0))
    for k in range(3):
        part = joint.rows(slice(8 * k, 8 * k + 8))
        assert part.newest is joint.newest
        one_by_one.update(batch=part, timesteps=env_steps(0))
    ours, expected = weights_of(together), weights_of(one_by_one)
    assert any("inferred" in net for _, net in ours) and all(torch.equal(ours[key], expected[key]) for key in ours)


def test_a_batch_without_newest_rows_stands_for_itself():
    game = random_family_game(
        1,
        kinds=KINDS[0],
        waiting=False,
        frozen=False,
        per_module={},
        hyper={"infer_other_policies": True, "critic_view": "all"},
    )
    without, with_itself = (family_learner(game) for _ in range(2))
    joint, _ = next_update(game, without, 0)
    joint.newest = None
    without._uncompiled_update(joint)
    joint.newest = joint.rows(slice(None))
    with_itself._uncompiled_update(joint)
    ours, expected = weights_of(without), weights_of(with_itself)
    assert all(torch.equal(ours[key], expected[key]) for key in ours)
    joint.newest = joint.rows(slice(8))
    other = family_learner(game)
    other._uncompiled_update(joint)
    changed = {net for (m, net), value in weights_of(other).items() if not torch.equal(value, ours[m, net])}
    assert any(net.startswith("inferred") for net in changed)
