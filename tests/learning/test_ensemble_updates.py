"""Updates of policy ensembles against the oracle, which takes the rows of each sub-policy apart (paper, equation 9)."""

from __future__ import annotations

import pytest
import torch
from family_learners import family_learner, next_update, oracle_weights, vector
from learner_games import build, config_of, weights_of
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from reference.ensembles import EnsembleGame, random_ensemble_game
from reference.maddpg import Discrete

from rllib_maddpg.learning.finite_checks import ImmediateCheck
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.rl_module import MADDPGTorchRLModule

UPDATES = 20
KINDS = (("tanh", "discrete", "multi_discrete"), ("softmax", "multi_discrete"), ("discrete", "tanh"))


class Apart(MADDPGTorchLearner):
    """Computes each module by itself."""

    stacks_modules = False


PLAIN = {"twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False, "critic_view": "all"}
ALIKE = {"per_module": {}, "numbers": (3,), "kinds": (Discrete(3),), "obs_dim": 2, "frozen": False}
# Of each the game, and what the Learner is given.
CASES = {
    "plain": ({"hyper": PLAIN, **ALIKE, "n_agents": 3, "shared": False}, {}),
    "plain-apart": ({"hyper": PLAIN, **ALIKE, "n_agents": 3, "shared": False}, {"learner_class": Apart}),
    "shared-dead": ({"hyper": PLAIN, "n_agents": 4, "shared": True, "dead": True, "frozen": False}, {}),
    "frozen": ({"hyper": PLAIN, "n_agents": 4, "shared": True, "dead": True, "frozen": True}, {}),
    "matd3": (
        {"hyper": {**PLAIN, "twin_q": True, "policy_delay": 2, "target_policy_noise": 0.3}, "n_agents": 3, "per_module": {}},
        {},
    ),
    "current": ({"hyper": {**PLAIN, "others_actions": "current"}, "n_agents": 3, "per_module": {}}, {}),
    "inferred": (
        {"hyper": {**PLAIN, "infer_other_policies": True, "others_actions": "current"}, "n_agents": 3, "shared": False},
        {},
    ),
    "own-rows": ({"hyper": {**PLAIN, "others_actions": "current"}, "n_agents": 3}, {"minibatch_per_module": True}),
    "anything": ({"n_agents": 4}, {}),
}


def game_of(name: str) -> EnsembleGame:
    seed = 30 + list(CASES).index(name)
    given = dict(CASES[name][0])
    return random_ensemble_game(seed, **{"kinds": KINDS[seed % len(KINDS)], "waiting": False, **given})


@pytest.mark.parametrize("name", CASES)
def test_twenty_updates_are_the_oracles_in_float64(name):
    """Losses, norms of gradients and all networks, to 1e-8 of the largest entry: 20 steps of Adam enlarge rounding errors."""

    def same(ours, expected, what):
        error = float((ours - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-8, f"update {k}: {what} is off by {error}"

    game = game_of(name)
    learner, oracle = family_learner(game, **CASES[name][1]), game.reference()
    assert weights_of(learner).keys() == oracle_weights(game.weights).keys()
    assert max(game.number_of(a) for a in game.agents) == 3
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, 1000 + k)
        record = oracle.update(**arguments)
        learner._updates_to_report = 0
        learner._uncompiled_update(joint)
        noted = learner._update_metrics.noted
        for (m, role), loss in record.losses.items():
            same(noted[m, f"{role}_loss"], torch.tensor(loss, dtype=torch.float64), f"{role} loss of {m}")
        for (m, net), grads in record.grads.items():
            same(noted[m, f"{net}_gradients_norm"], vector(grads).norm(), f"gradient norm of {net} of {m}")
        for m, reports in record.reports.items():
            for report, value in reports.items():
                same(noted[m, report], torch.tensor(value, dtype=torch.float64), f"{report} of {m}")
        ours = weights_of(learner)
        for (m, net), weights in oracle_weights(record.weights).items():
            same(ours[m, net], weights, f"{net} of {m}")
    # All networks of those who learn have moved, those of all sub-policies too.
    for key, start in oracle_weights(game.weights).items():
        assert torch.equal(ours[key], start) == (key[0] in game.frozen), key


def test_a_sub_policy_without_rows_has_no_gradient():
    """Exactly zero; the others' are not, and what acted has those of an update in which it is alone."""
    game = game_of("plain")
    learner, alone = family_learner(game), family_learner(game)
    joint, _ = next_update(game, learner, 7)
    for k, own in ((1, learner), (0, alone)):
        joint.columns["sub_policies"].fill_(k)
        own._updates_to_report = 0
        own._uncompiled_update(joint)
    for m in game.modules:
        norms, others = (
            {net: float(own._update_metrics.noted[m, f"{net}_gradients_norm"]) for net in ("actor", "actor_1", "actor_2")}
            for own in (learner, alone)
        )
        assert norms["actor"] == norms["actor_2"] == 0.0 and norms["actor_1"] > 0.0
        assert others["actor_1"] == others["actor_2"] == 0.0 and others["actor"] > 0.0
        # Adam's first step is one of zero where there is no gradient.
        start = oracle_weights(game.weights)
        assert torch.equal(weights_of(learner)[m, "actor"], start[m, "actor"])
        assert not torch.equal(weights_of(learner)[m, "actor_1"], start[m, "actor_1"])


class Unlike(MADDPGTorchRLModule):
    """The second sub-policy of module m1 is wider than those of the others, so that it cannot be computed with theirs."""

    def build_actor(self, obs_dim, output_dim):
        self.made = getattr(self, "made", 0) + 1
        return MLP(obs_dim, output_dim, [5 if (self.module_id, self.made) == ("m1", 2) else 4])


def test_sub_policies_that_are_unlike_in_one_module_are_selected_all_the_same():
    """Groups of "actor_1" are others than those of "actor"; by hand, from the modules' own forwards."""
    game = game_of("plain")
    config = config_of(game).rl_module(rl_module_spec=RLModuleSpec(module_class=Unlike))
    learner = build(config)
    learner._tie()
    assert [len(group) for group in learner._groups["actor"]] == [3]
    assert sorted(len(group) for group in learner._groups["actor_1"]) == [1, 2]
    joint, _ = next_update(game, learner, 3, double=False)
    ctx = learner._context(joint, learner.begin_update(joint), ImmediateCheck())
    output, _ = ctx.policy(learner._groups["actor"][0])
    for k, m in enumerate(learner._groups["actor"][0].modules):
        own = joint.modules[m]
        expected = learner.module[m].unwrapped().head_output(own["obs"], own["sub_policies"])
        torch.testing.assert_close(output[k].transpose(0, 1), expected, rtol=1e-6, atol=1e-6)
