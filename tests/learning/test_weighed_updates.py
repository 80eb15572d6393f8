"""Updates on rows with weights and several steps against the oracle, and against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_learners import family_config, joint_batch, next_update, oracle_weights, vector
from learner_games import build, env_steps, weights_of
from reference.family_games import random_family_game
from reference.maddpg import Discrete
from reference.weighed import WeighedGame, weighed

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.group_rows import GroupRows
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_stack import SlotStack
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates

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


@pytest.mark.parametrize(("seed", "apart"), [*((seed, False) for seed in (31, 32, 33, 35, 36)), (32, True)])
def test_twenty_updates_are_the_oracles_in_float64(seed, apart):
    """All losses, and all networks after 20 updates, to 1e-8 of the largest entry."""
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


def plain_game(**given):
    """Three agents that may die, with a module each, whose networks are computed together."""
    hyper = {"twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False, "grad_clip": 0.5}
    shape = {"n_agents": 3, "shared": False, "frozen": False, "dead": True, "waiting": False, "obs_dim": 4}
    hyper |= {"grad_clip_by": "global_norm", "critic_view": "all"}
    return weighed(random_family_game(1, kinds=[Discrete(3)], activation="relu", per_module={}, hyper=hyper, **shape, **given))


def test_losses_and_returns_by_hand():
    """Of two rows of one agent: weights 1 and 4 over the largest, 4; gamma 0.5 and three steps, one of which has ended."""
    gamma = torch.tensor([[[0.5]]])
    columns = {
        "rewards": [[[1.0, 2.0]]],
        "later_rewards": [[[[4.0, 8.0], [16.0, 0.0]]]],
        "steps": [[[[3.0], [2.0]]]],
        "weights": [[[[1.0], [4.0]]]],
        "alive": [[[1.0, 1.0]]],
        "terminateds": [[[0.0, 1.0]]],
    }

    class Schema(dict):
        def real_name(self, name):
            return name

    class Joint:
        schema = Schema(columns)

        def stack(self, modules, column):
            return torch.tensor(columns[column])

    rows = GroupRows(Joint(), ("m",), False, {})
    # 1 + 0.5 * 4 + 0.25 * 8, and 2 + 0.5 * 16.
    assert rows.returns(gamma).tolist() == [[[5.0, 10.0]]] and rows.discount(gamma).tolist() == [[[0.125, 0.25]]]
    y = losses.td_target(rows.returns(gamma), rows["terminateds"], rows.discount(gamma), torch.tensor([[[8.0, 8.0]]]))
    assert y.tolist() == [[[6.0, 10.0]]]
    error = torch.tensor([[[3.0, 5.0]]])
    assert losses.critic_loss(error, rows.weighted("alive"), rows.count("alive")).tolist() == [(0.25 * 3 + 5) / 2]


def test_a_gamma_that_is_changed_holds_for_rows_that_were_stored_before():
    """As population based training does; the sum of rewards is made with the new one."""
    game, other = plain_game(), plain_game()
    other.hyper = replace(other.hyper, gamma=0.5)
    learner = build(family_config(game, **REPLAY), game, double=True)
    changed = build(family_config(other, **REPLAY), other, double=True)
    changed.set_state(learner.get_state())
    joint, arguments = next_update(other, changed, 1)
    record = other.reference().update(**arguments)
    changed._updates_to_report = 0
    changed._uncompiled_update(joint)
    for (m, role), loss in record.losses.items():
        assert float(changed._update_metrics.noted[m, f"{role}_loss"]) == pytest.approx(loss, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("per_module", [False, True])
def test_errors_of_rows_are_means_or_the_largest(per_module):
    game = plain_game()
    learner = build(family_config(game, **REPLAY, minibatch_per_module=per_module), game, double=True)
    joint, arguments = next_update(game, learner, 3)
    record = game.reference().update(**arguments)
    batches = arguments["batches"] if per_module else dict.fromkeys(game.modules, arguments["batches"])
    agents = [(m, i) for m in game.modules for i in game.agents if game.module_of[i] == m]
    errors = torch.stack([(record.q[m][i] - record.targets[m][i]).abs() * batches[m][i].alive for m, i in agents])
    alive = torch.stack([batches[m][i].alive for m, i in agents])
    largest, mean = errors.amax(0), errors.sum(0) / alive.sum(0).clamp(min=1.0)
    if per_module:  # row r * 3 + d is row r of module d
        largest = mean = errors.T.flatten()
    learner.collect_td_errors("max")
    learner.update(batch=joint, timesteps=env_steps(1))
    torch.testing.assert_close(torch.from_numpy(learner.take_td_errors()).double(), largest, rtol=1e-6, atol=1e-6)
    learner.td_errors_of = "mean"
    torch.testing.assert_close(torch.from_numpy(learner.take_td_errors()).double(), mean, rtol=1e-6, atol=1e-6)
    assert per_module or (largest - mean).abs().max() > 0.1


# Several games in one pass.


class Trial:
    """A Learner of a stack and its calls; `k` says which."""

    def __init__(self, k):
        self.k, self.game = k, plain_game(hidden=[8, 8])
        config = family_config(self.game, **REPLAY, gamma=0.9 - 0.1 * k, lr=0.01 / (k + 1)).debugging(seed=10 + k)
        self.learner = build(config, double=False)
        for module_id in self.game.modules:
            self.learner.module[module_id].double()
        self.learner.collect_td_errors("max" if k == 1 else "mean")

    def begin(self, number):
        batch = joint_batch(self.game, self.learner.schema, self.game.batch(16, 100 * self.k + number), None)
        return SlotCall(self.learner, self.learner.begin_call(batch, env_steps(number), 16))


def test_several_games_in_one_pass_are_each_alone(monkeypatch):
    """Each has its own largest weight, gamma and errors; to 1e-10 of a network's weights."""
    monkeypatch.setattr(SlotStack, "pays", lambda self, due, rows: True)
    trials, others = [Trial(k) for k in range(3)], [Trial(k) for k in range(3)]
    slots = SlotUpdates()
    for trial in trials:
        slots.add(trial.learner)
    for number in range(6):
        calls = {trial: trial.begin(number) for trial in trials}
        slots.make(list(calls.values()))
        for other, trial in zip(others, trials, strict=True):
            trial.learner.end_call(calls[trial].call)
            other.learner.update(batch=other.begin(number).call.minibatch, timesteps=env_steps(number))
            np.testing.assert_allclose(trial.learner.take_td_errors(), other.learner.take_td_errors(), rtol=1e-6)
    assert slots.passes == 6 and slots.updates == 18
    for trial, other in zip(trials, others, strict=True):
        expected = weights_of(other.learner)
        for key, weights in weights_of(trial.learner).items():
            assert (weights - expected[key]).norm() <= 1e-10 * expected[key].norm(), key
