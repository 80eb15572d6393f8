"""Updates with action masks: they are the oracle's, and what is masked learns nothing and teaches nothing."""

from __future__ import annotations

import math

import pytest
import torch
from fake_graph import FakeGraph
from family_learners import joint_batch, next_update, oracle_weights, vector
from learner_games import env_steps, parameters, weights_of
from masked_learners import masked_learner
from reference.maddpg import Discrete, MultiDiscrete
from reference.masks import masked_game

from rllib_maddpg.learning import slot_stack
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.rows.actions import MASKED

KINDS = (
    ("discrete", "tanh", "multi_discrete"),
    ("multi_discrete", "softmax", "discrete"),
    ("discrete", "multi_discrete"),
)
SEEDS = range(100, 107)
UPDATES = 20


class Apart(MADDPGTorchLearner):
    """Computes each module by itself."""

    stacks_modules = False


class Counted(FakeGraph):
    replayed = 0

    def replay(self):
        Counted.replayed += 1
        super().replay()


class Graphed(MADDPGTorchLearner):
    graph_class = Counted


def game_of(seed):
    """Every third game has modules that are computed together, every third a shared one."""
    given = {"per_module": {}} if seed % 3 == 1 else {}
    if seed % 3 == 2:
        given |= {"n_agents": 4, "shared": True}
    return masked_game(seed, kinds=KINDS[seed % len(KINDS)], **given)


def test_the_random_games_have_everything():
    seen = set()
    for game in map(game_of, SEEDS):
        reference = game.reference()
        assert game.masks
        for m in reference.trained:
            hyper = game.hypers[m]
            names = ("twin_q", "infer_other_policies", "others_actions", "inferred_target")
            seen.update((name, getattr(hyper, name)) for name in names)
            seen.add(("smooth", hyper.target_policy_noise > 0))
            seen.add(("masked", reference.agents_of(m)[0] in game.masks))
            seen.add(("regularized", hyper.policy_reg > 0))
        seen.add(("shared", len(game.modules) < len(game.agents)))
        seen.add(("dead", game.dead))
        seen.update(("kind", type(game.kinds[agent])) for agent in game.masks)
    assert len(seen) == 10 * 2, sorted(map(str, seen))


@pytest.mark.parametrize(
    ("seed", "stacked"),
    [
        *(pytest.param(seed, True, marks=() if k < 4 else pytest.mark.slow) for k, seed in enumerate(SEEDS)),
        pytest.param(SEEDS[0], False, id="100-apart"),
    ],
)
def test_twenty_updates_are_the_oracles_in_float64(seed, stacked):
    """All networks, losses and reports; to 1e-8 of the largest entry, as rounding alone makes 1e-13 of it."""

    def same(ours, expected, what):
        error = float((ours - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-8, f"update {k}: {what} is off by {error}"

    game = game_of(seed)
    per_module = seed % 4 == 2
    learner = masked_learner(game, minibatch_per_module=per_module, learner_class=None if stacked else Apart)
    oracle = game.reference()
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, 100 * seed + k, size=6, newest=5)
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
    for key, start in oracle_weights(game.weights).items():
        assert torch.equal(ours[key], start) == (key[0] in game.frozen), key


HYPER = {
    "infer_other_policies": True,
    "critic_view": "all",
    "policy_reg": 0.1,
    "policy_delay": 1,
    "others_actions": "current",
    **dict.fromkeys(("actor_lr", "critic_lr", "inferred_lr"), 2.0**-6),  # the same in single precision, as graphs have them
}


def game_that_forbids(**given):
    """The first action of each agent is never allowed, and rows have agents that are dead."""
    shape = {"n_agents": 3, "shared": False, "frozen": False, "dead": True, "per_module": {}}
    return masked_game(1, forbids=True, kinds=[Discrete(3), MultiDiscrete((3, 2))], hyper=HYPER, **{**shape, **given})


def test_no_gradient_reaches_what_is_never_allowed():
    """Neither by Q nor by the regularizer, in actors and approximations: these weights stay as they are, bit for bit."""
    game = game_that_forbids()
    learner = masked_learner(game, double=False)
    start = weights_of(learner)

    def ends(m, net):  # weights and bias of the last layer, by action
        weight, bias = parameters(learner, m, net)[-2:]
        return torch.cat([weight, bias[:, None]], 1).detach().clone()

    # Agents that do not act allow everything, and count in no loss.
    nets = [(m, net) for m in game.modules for net in ("actor", *(f"inferred_{k}" for k in range(3) if game.modules[k] != m))]
    before = {key: ends(*key) for key in nets}
    for k in range(5):
        joint, _ = next_update(game, learner, k, double=False)
        learner.update(batch=joint, timesteps=env_steps(k))
    for key in nets:
        change = (ends(*key) - before[key]).abs().amax(1)
        assert change[0] == 0.0 and (change[1:] > 1e-4).all(), (key, change)
    assert all(torch.isfinite(w).all() and not torch.equal(w, start[key]) for key, w in weights_of(learner).items())


def test_the_regularizer_is_the_mean_over_allowed_actions():
    """By hand: head outputs 1, 2, 3 of which the first is not allowed, weight 0.5, Q = 0: 0.5 (4 + 9) / 2."""
    from rllib_maddpg.learning.losses import actor_loss, without_masked

    output, allowed = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[False, True, True]]]])
    q = acts = torch.zeros(1, 1, 1)
    count, weight = torch.ones(1), torch.tensor([[[0.5]]])
    loss = actor_loss(q, without_masked(output, allowed), acts + 1, count, weight, allowed)
    assert loss.item() == 0.5 * 13 / 2
    assert actor_loss(q, without_masked(output, None), acts + 1, count, weight).item() == pytest.approx(0.5 * 14 / 3)


def test_what_is_masked_is_in_no_action():
    """Neither in target actions nor in the actor loss, whatever the noise; and the entropy is that of what is allowed."""
    game = game_that_forbids()
    game = masked_game(
        1,
        forbids=True,
        kinds=[Discrete(3), MultiDiscrete((3, 2))],
        hyper={**HYPER, "target_policy_noise": 50.0, "target_noise_clip": 100.0},
        n_agents=3,
        shared=False,
        frozen=False,
        dead=True,
        per_module={},
    )
    learner = masked_learner(game)
    learner._updates_to_report = 0
    found = []

    class Looking(MADDPGTorchLearner):
        def compute_actor_losses(self, ctx):
            joint = ctx.batch
            for group in ctx.all_groups("actor"):
                output, code = ctx.policy(group)
                allowed = ctx.rows(group).allowed
                found.append(float(code.detach()[~allowed].abs().sum()))
                assert (output[~allowed] == MASKED).all() and (output[allowed] > MASKED / 2).all()
            codes = ctx._actions.next_codes(joint, joint.layout.modules)
            beliefs = ctx._beliefs.next_actions(joint.layout.modules, joint)
            for m, code in codes.items():
                there = joint.allowed((m,), "new_obs")[0]
                found.append(float(code[~there].abs().sum()))
            for slot in joint.layout.slots:
                there = joint.allowed((slot.module,), "new_obs")[0, 0]
                found.append(float(beliefs[:, :, slot.actions][:, ~there].abs().sum()))
            return super().compute_actor_losses(ctx)

    learner = masked_learner(game, learner_class=Looking)
    joint, _ = next_update(game, learner, 3)
    learner._updates_to_report = 0
    learner._uncompiled_update(joint)
    assert len(found) >= 7 and set(found) == {0.0}
    noted = learner._update_metrics.noted
    assert all(math.isfinite(float(value)) for value in noted.values())
    # Two allowed actions at most of the Discrete's three: log 2; of the MultiDiscrete two and two.
    for m in game.modules:
        assert 0.0 < float(noted[m, "action_entropy"]) <= math.log(2.0) + 1e-12


def test_updates_as_graphs_are_the_eager_ones_bit_for_bit():
    game = game_that_forbids()
    eager, graphed = masked_learner(game, double=False), masked_learner(game, double=False, learner_class=Graphed)
    Counted.replayed = 0
    for k in range(8):
        joint, _ = next_update(game, eager, k, double=False)
        for learner in (eager, graphed):
            learner.update(batch=joint, timesteps=env_steps(k))
    assert Counted.replayed >= 4
    ours, expected = weights_of(graphed), weights_of(eager)
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_trials_in_one_pass_are_each_alone(seed, monkeypatch):
    """To 1e-12 of a network's norm in float64: only sums are in another order."""
    monkeypatch.setattr(slot_stack.SlotStack, "pays", lambda self, due, rows: True)
    game = masked_game(seed, kinds=[Discrete(3), MultiDiscrete((3, 2))], hyper=HYPER, per_module={}, frozen=False)
    rates = (0.01, 0.02, 0.005)
    alone, together = ([masked_learner(game, actor_lr=rate) for rate in rates] for _ in range(2))
    slots = SlotUpdates()
    for learner in together:
        slots.add(learner)
    for k in range(4):
        calls = []
        for i, (one, other) in enumerate(zip(alone, together, strict=True)):
            for learner in (one, other):
                batch = joint_batch(game, learner.schema, game.batch(16, 10 * k + i), game.newest(12, 10 * k + i))
                if learner is one:
                    one.update(batch=batch, timesteps=env_steps(60 * k))
                else:
                    calls.append(SlotCall(other, other.begin_call(batch, env_steps(60 * k), 16, False)))
        slots.make(calls)
        for call in calls:
            assert call.error is None and call.is_over
            call.learner.end_call(call.call)
    for one, other in zip(alone, together, strict=True):
        for key, expected in weights_of(one).items():
            assert (weights_of(other)[key] - expected).norm() <= 1e-12 * expected.norm(), key
