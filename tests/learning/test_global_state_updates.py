"""Critics that see the env's global state: against the oracle, alone and in company, and what they do not see."""

from __future__ import annotations

import pytest
import torch
from fake_graph import FakeGraph
from family_learners import oracle_weights
from learner_games import env_steps, weights_of
from reference.global_state import random_state_game
from reference.maddpg import Discrete
from state_games import next_state_update, state_config, state_learner

from rllib_maddpg.learning import slot_stack
from rllib_maddpg.learning.finite_checks import ImmediateCheck
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.modules.critic_inputs import SeparateInputs

PLAIN = {"twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False, "critic_view": "all"}
TWINS = {**PLAIN, "twin_q": True, "policy_delay": 2, "target_policy_noise": 0.2}
INFERRED = {**PLAIN, "infer_other_policies": True}
MIXED = {"m0": "state", "m1": "state+all", "m2": "all"}
ALIKE = {"n_agents": 3, "shared": False, "dead": True, "obs_dim": 4, "hidden": [8, 8]}
FIXED = {"waiting": False, "frozen": False, "per_module": {}}
STATE = dict.fromkeys(("m0", "m1", "m2", "m3"), "state")


class Apart(MADDPGTorchLearner):
    """Computes each module by itself."""

    stacks_modules = False


class Graphed(MADDPGTorchLearner):
    """As on a GPU."""

    graph_class = FakeGraph


CASES = {
    "plain": (3, STATE, PLAIN, {"shared": False}, {}),
    "mixed views": (4, MIXED, PLAIN, {"shared": False, "dead": True}, {}),
    "shared modules": (5, dict.fromkeys(("m0", "m1", "m2"), "state+all"), PLAIN, {"n_agents": 4, "shared": True}, {}),
    "one-hots behind the state": (6, STATE, TWINS, {"n_agents": 4, "shared": True, "dead": True}, {}),
    "MATD3": (7, MIXED, TWINS, {"shared": False, "dead": True}, {}),
    "inferred": (8, STATE, INFERRED, {"n_agents": 3, "shared": False, "dead": True}, {}),
    "inferred, mixed, twins": (9, MIXED, {**TWINS, "infer_other_policies": True}, {"n_agents": 4, "shared": True}, {}),
    "apart": (10, MIXED, TWINS, {"n_agents": 4, "shared": True, "dead": True}, {"learner_class": Apart}),
    "rows per module": (11, MIXED, INFERRED, {"n_agents": 3, "shared": False}, {"minibatch_per_module": True}),
    "graphs": (12, STATE, TWINS, {"shared": False, "dead": True}, {"learner_class": Graphed}),
    "others now": (13, STATE, {**PLAIN, "others_actions": "current"}, {"n_agents": 3, "shared": False}, {}),
}


def game_of(seed, views, hyper, shape):
    kinds = ["discrete", "multi_discrete"] if seed % 2 else ["tanh", "discrete"]
    return random_state_game(seed, views, kinds=kinds, hyper=hyper, **FIXED, **shape)


@pytest.mark.parametrize("case", CASES)
def test_twenty_updates_are_the_oracles_in_float64(case):
    """To 1e-8 of each network's largest weight: float64 has 1e-16, and the updates carry a difference on."""
    seed, views, hyper, shape, settings = CASES[case]
    game = game_of(seed, views, hyper, shape)
    learner, oracle = state_learner(game, **settings), game.reference()
    for k in range(20):
        joint, arguments, now, then = next_state_update(game, learner, 100 * seed + k)
        oracle.now, oracle.then = now, then
        own = "minibatch_per_module" in settings  # each module has the states of its own rows
        record = per_module(oracle, arguments, now, then) if own else oracle.update(**arguments)
        learner._updates_to_report = None
        learner._uncompiled_update(joint)
    learner.finish_updates()
    ours = weights_of(learner)
    for (m, net), expected in oracle_weights(record.weights).items():
        error = float((ours[m, net] - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-8, f"{net} of {m} is off by {error}"
        start = oracle_weights(game.weights)[m, net]
        assert not torch.equal(expected, start)


def per_module(oracle, arguments, now, then):
    """One update in which module d has the rows d, d + M, ...; the losses of each ask for its own states."""
    critics_loss, target, actor_loss = oracle.critics_loss, oracle.target, oracle.actor_loss

    def with_states(function, module_of_first):
        def call(first, *rest, **named):
            d = oracle.modules.index(module_of_first(first))
            oracle.now, oracle.then = (x[d :: len(oracle.modules)] for x in (now, then))
            return function(first, *rest, **named)

        return call

    q_value = oracle.q_value
    oracle.critics_loss, oracle.actor_loss = (with_states(f, lambda m: m) for f in (critics_loss, actor_loss))
    oracle.target, oracle.q_value = (with_states(f, oracle.module_of.get) for f in (target, q_value))
    try:
        return oracle.update(**arguments)
    finally:
        oracle.critics_loss, oracle.actor_loss, oracle.target, oracle.q_value = critics_loss, actor_loss, target, q_value


def test_a_critic_of_the_state_does_not_depend_on_observations():
    """Neither its loss nor its gradient; one that sees all observations, too, does."""
    for views, depends in ((STATE, False), (dict.fromkeys(STATE, "state+all"), True)):
        # Actors and others see observations: with fixed ones no target moves.
        found = []
        for scale in (1.0, 3.0):
            game = game_of(3, views, PLAIN, {"shared": False, "n_agents": 3})
            learner = state_learner(game, actor_lr=0.0)
            joint, *_ = next_state_update(game, learner, 1)
            joint.columns["obs"][:] *= scale  # the targets' observations stay
            learner._updates_to_report = 0
            learner._uncompiled_update(joint)
            found.append({key: value for key, value in weights_of(learner).items() if key[1] == "critic"})
        assert all(torch.equal(found[0][key], found[1][key]) != depends for key in found[0])


def test_targets_see_the_next_state_only_and_losses_the_present_one():
    game = game_of(3, STATE, PLAIN, {"shared": False, "n_agents": 3})
    losses = {}
    for changed in ("", "state", "new_state", "new_obs"):
        learner = state_learner(game)
        joint, *_ = next_state_update(game, learner, 1)
        if changed:
            joint.columns[changed][:] += 1.0
        ctx = context_of(learner, joint)
        critic = ctx.groups("critic")[0]
        losses[changed] = ctx.inputs(critic).values, ctx.next_inputs(critic).values
    now, then = losses[""]
    # A change of x' reaches targets by the others' next actions only.
    assert not torch.equal(losses["state"][0], now) and torch.equal(losses["state"][1], then)
    assert torch.equal(losses["new_state"][0], now) and not torch.equal(losses["new_state"][1], then)
    assert torch.equal(losses["new_obs"][1][:, : game.STATE_DIM], then[:, : game.STATE_DIM])
    assert now.shape[1] == game.STATE_DIM + learner.layout.action_dim


def context_of(learner, joint):
    learner._tie()
    return learner._context(joint, learner.begin_update(joint), ImmediateCheck())


def test_approximations_stand_beside_one_state():
    """The critics of several modules see one state, and each what its module takes the others to do."""
    game = random_state_game(2, STATE, kinds=[Discrete(3)], hyper=INFERRED, **FIXED, **ALIKE)
    learner = state_learner(game)
    joint, _, _, then = next_state_update(game, learner, 1)
    ctx = context_of(learner, joint)
    (critic,) = ctx.groups("critic")
    inputs = ctx.next_inputs(critic)
    assert isinstance(inputs, SeparateInputs) and torch.equal(inputs.obs.values, then)
    assert inputs.actions.shape == (3, len(joint), 9)


@pytest.mark.parametrize("hyper", [PLAIN, TWINS, INFERRED], ids=["MADDPG", "MATD3", "inferred"])
def test_in_slots_it_is_that_of_each_alone(hyper, monkeypatch):
    """To 1e-9 in float64: products of several games are added up in another order."""
    monkeypatch.setattr(slot_stack.SlotStack, "pays", lambda self, due, rows: True)
    game = random_state_game(2, {**STATE, "m1": "state+all"}, kinds=[Discrete(3)], hyper=hyper, **FIXED, **ALIKE)
    slots, pairs = SlotUpdates(), []
    for seed in (1, 2, 3):
        pairs.append([state_learner(game, lr=0.01 * seed) for _ in range(2)])
        slots.add(pairs[-1][0])
    for k in range(4):
        calls = []
        for number, (ours, alone) in enumerate(pairs):
            joint, *_ = next_state_update(game, alone, 10 * number + k)
            calls.append(SlotCall(ours, ours.begin_call(joint, env_steps(k), len(joint), True)))
            alone.update(batch=joint, timesteps=env_steps(k))
        slots.make(calls)
        assert all(call.error is None for call in calls)
    for ours, alone in pairs:
        expected = weights_of(alone)
        for key, weights in weights_of(ours).items():
            assert (weights - expected[key]).norm() <= 1e-9 * expected[key].norm(), key


def test_modules_of_other_views_ask_for_no_state():
    game = game_of(3, {}, PLAIN, {"shared": False})
    config = state_config(game)
    config.validate()
    assert not config.asks_for_state and config._global_state_width is None
    assert "state" not in state_learner(game).schema
