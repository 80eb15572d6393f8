"""Updates with attention critics against the oracle, and what holds of weights that modules have in common."""

from __future__ import annotations

import pytest
import torch
from attention_learners import attention_learner, common_of
from fake_graph import FakeGraph
from family_learners import next_update, oracle_weights, vector
from learner_games import env_steps, weights_of
from reference.attention import AttentionGame, attention_game
from reference.family_games import random_family_game

from rllib_maddpg.learning.common_groups import CommonOptimizer
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_stack import kind_of
from rllib_maddpg.modules.common_weights import CommonWeights

KINDS = (("tanh", "discrete", "multi_discrete"), ("softmax", "discrete"), ("discrete", "tanh"), ("discrete",))
SEEDS = range(30, 42)
UPDATES = 20


class Graphed(MADDPGTorchLearner):
    """Whose updates are recorded on the CPU, too."""

    graph_class = FakeGraph


def game_of(seed: int) -> AttentionGame:
    """In half of the games modules have settings for themselves, so that several groups have one critic."""
    given = {"per_module": {}} if seed % 2 else {}
    if seed % 3 == 0:
        given |= {"n_agents": 4, "shared": True}
    given |= {
        "kinds": KINDS[seed % len(KINDS)],
        "waiting": False,
        "hyper": {"critic_view": "all", "policy_delay": 1 + seed % 2},
    }
    drawn = random_family_game(seed, **given).per_module
    own = {m: {key: value for key, value in own.items() if key != "critic_view"} for m, own in drawn.items()}
    return attention_game(random_family_game(seed, **{**given, "per_module": own}), seed)


def test_the_random_games_have_everything():
    seen = {name: set() for name in ("groups", "kinds", "frozen", "dead", "shared", "twin", "infers", "others")}
    for seed in SEEDS:
        game = game_of(seed)
        reference = game.reference()
        seen["kinds"].add(len(set(game.kinds_of)) > 1)
        seen["frozen"].add(bool(game.frozen))
        seen["dead"].add(game.dead)
        seen["shared"].add(any(len(reference.agents_of(m)) > 1 for m in game.modules))
        seen["twin"].add(tuple(sorted({game.hypers[m].twin_q for m in game.modules})))
        for m in reference.trained:
            seen["infers"].add((game.hypers[m].others_actions, bool(reference.inferred_modules(m))))
    assert all(seen[name] == {False, True} for name in ("frozen", "dead", "shared")), seen
    assert len(seen["infers"]) == 4 and (False, True) in seen["twin"] and True in seen["kinds"], seen


@pytest.mark.parametrize("seed", SEEDS)
def test_update_is_the_oracles_in_float64(seed):
    """Losses, norms of gradients and all networks over 20 updates, to 1e-8 of the largest entry."""

    def same(ours, expected, what):
        error = float((ours - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert error < 1e-8, f"update {k}: {what} is off by {error}"

    game = game_of(seed)
    learner, oracle = attention_learner(game), game.reference()
    for k in range(UPDATES):
        joint, arguments = next_update(game, learner, 100 * seed + k)
        record = oracle.update(**arguments)
        learner._updates_to_report = 0
        learner._uncompiled_update(joint)
        noted = learner._update_metrics.noted
        for (m, role), loss in record.losses.items():
            same(noted[m, f"{role}_loss"], torch.tensor(loss, dtype=torch.float64), f"{role} loss of {m}")
        for m in oracle.trained:
            for net in oracle.critics(m):
                norm = vector(oracle.critic_grads[net].values()).norm()
                same(noted[m, f"{net}_gradients_norm"], norm, f"gradient norm of {net} of {m}")
        ours = weights_of(learner)
        for (m, net), weights in oracle_weights(record.weights).items():
            same(ours[m, net], weights, f"{net} of {m}")
        for m in game.modules:
            for net in oracle.critics(m):
                for name in (net, f"target_{net}"):
                    for key, own in common_of(learner, m, name).items():
                        same(own, record.common[name][key], f"{key} of {name} of {m}")
    assert not torch.equal(record.common["target_critic"]["keys"], game.common["target_critic"]["keys"])


@pytest.mark.parametrize("seed", [30, 33])
def test_recorded_updates_are_the_same(seed):
    """Up to rounding: fused Adam takes rates in single precision from the device, which is some 1e-8 of a step each time."""
    game = game_of(seed)
    plain = attention_learner(game, double=False)
    graphed = attention_learner(game, double=False, learner_class=Graphed)
    for k in range(6):
        joint, _ = next_update(game, plain, 7 * seed + k, double=False)
        for learner in (plain, graphed):
            learner.update(batch=joint, timesteps=env_steps(k))
    assert graphed._graphs is not None
    for key, weights in weights_of(plain).items():
        torch.testing.assert_close(weights, weights_of(graphed)[key], rtol=0, atol=2e-6)


def test_modules_have_one_set_of_weights_and_optimizers_one_state():
    game = game_of(31)
    learner = attention_learner(game, double=False)
    for k in range(3):
        learner.update(batch=next_update(game, learner, k, double=False)[0], timesteps=env_steps(k))
    critics = [learner.module[m].unwrapped().critic for m in game.modules]
    optimizers = [learner.get_optimizer(m, "critic") for m in game.modules]
    for critic, optimizer in zip(critics, optimizers, strict=True):
        for p, first in zip(critic.parameters(), critics[0].parameters(), strict=True):
            assert p.data_ptr() == first.data_ptr()
            mine, theirs = optimizer.state[p], optimizers[0].state[first]
            assert float(mine["step"]) == 3.0
            assert all(mine[name].data_ptr() == theirs[name].data_ptr() for name in ("exp_avg", "exp_avg_sq", "step"))
    assert kind_of(learner) is None  # in a shared learner its updates are made by themselves


def test_a_restored_learner_goes_on_bit_for_bit():
    game = game_of(36)
    first, second = (attention_learner(game, double=False) for _ in range(2))
    rows = [next_update(game, first, k, double=False)[0] for k in range(6)]
    for k in range(3):
        first.update(batch=rows[k], timesteps=env_steps(k))
    second.update(batch=rows[5], timesteps=env_steps(0))  # it has learned something else
    second.set_state(first.get_state())
    for k in range(3, 6):
        for learner in (first, second):
            learner.update(batch=rows[k], timesteps=env_steps(k))
    for key, weights in weights_of(first).items():
        assert torch.equal(weights, weights_of(second)[key]), key


def test_new_learners_begin_with_one_critic():
    """Also before the first update, and in a checkpoint of then."""
    from attention_learners import attention_config
    from learner_games import build

    learner = build(attention_config(game_of(31)))
    weights = weights_of(learner)
    first = learner.layout.modules[0]
    for m in learner.layout.modules:
        for net in ("critic", "target_critic"):
            assert torch.equal(weights[m, net], weights[first, "critic"])
    # What is restored of a single module before the first update is for all.
    last = learner.module[learner.layout.modules[-1]].unwrapped()
    given = {key: values + 1.0 for key, values in last.critic.state_dict().items()}
    last.critic.load_state_dict(given)
    learner._tie()
    for m in learner.layout.modules:
        for key, values in learner.module[m].unwrapped().critic.state_dict().items():
            assert torch.equal(values, given[key])


def test_replaced_parameters_are_noticed():
    """What a module is given after an update becomes that of all."""
    game = game_of(31)
    learner = attention_learner(game, double=False)
    learner.update(batch=next_update(game, learner, 0, double=False)[0], timesteps=env_steps(0))
    groups = learner._groups
    first = learner.module[learner.layout.modules[0]].unwrapped()
    first.critic.queries.data = torch.zeros_like(first.critic.queries)
    learner._tie()
    assert learner._groups is not groups
    for m in learner.layout.modules:
        assert not learner.module[m].unwrapped().critic.queries.any()


def test_optimizers_of_any_kind_have_the_state_of_the_first_one():
    """Also those whose moments are not Adam's."""
    networks = [torch.nn.Linear(2, 1, bias=False) for _ in range(2)]
    CommonWeights(networks)
    parameters = [list(network.parameters()) for network in networks]
    optimizers = [torch.optim.SGD(own, lr=0.5, momentum=0.9) for own in parameters]
    common = CommonOptimizer(optimizers, parameters)
    before = networks[1].weight.detach().clone()
    common.step([torch.tensor([[[1.0, -2.0]]])], [0])
    assert torch.equal(networks[1].weight, before - 0.5 * torch.tensor([[1.0, -2.0]]))
    common.tie()
    first, second = (optimizer.state[own[0]] for optimizer, own in zip(optimizers, parameters, strict=True))
    assert torch.equal(first["momentum_buffer"], torch.tensor([[1.0, -2.0]]))
    assert second["momentum_buffer"] is first["momentum_buffer"]


def test_losses_that_need_single_modules_are_refused():
    class Apart(MADDPGTorchLearner):
        stacks_modules = False

    with pytest.raises(ValueError, match=r"`critic_type`='attention' is not allowed: .*: Apart has `stacks_modules = False`"):
        attention_learner(game_of(31), learner_class=Apart)
