"""Groups while somebody changes networks, or who learns: what is no longer alike is no longer computed as one."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_games import build, config_of, env_steps, multi_agent_batch, weights_of
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from small_games import small_game, updates
from torch import nn

from rllib_maddpg import MADDPGTorchLearner, MADDPGTorchRLModule
from rllib_maddpg.learning.stages import LossStage, TargetStage
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.specs import ACTOR, CRITIC
from rllib_maddpg.modules.stacking import is_plain_mlp, shape_of

TURNS = {1: ("m0",), 2: ("m1",), 3: ("m2",)}


class Turns:
    """`policies_to_train`: each module by itself, one after the other; then all of them."""

    turn = 0

    def __call__(self, module_id, batch):
        return module_id in TURNS.get(Turns.turn, ("m0", "m1", "m2"))


def test_modules_that_take_turns_go_on_bit_for_bit_from_a_checkpoint():
    """While their clocks differ, and when they have caught up: the same program steps them before and after."""
    game = small_game()
    config = config_of(game).multi_agent(policies_to_train=Turns())

    def train(learner, numbers):
        for k in numbers:
            Turns.turn = k
            updates(learner, game, [k])

    learner = build(config, game)
    train(learner, range(1, 4))
    state = pickle.loads(pickle.dumps(learner.get_state()))
    train(learner, range(4, 9))
    restored = build(config.copy(copy_frozen=False).debugging(seed=11))
    restored.set_state(state)
    train(restored, range(4, 9))
    one, other = weights_of(learner), weights_of(restored)
    assert all(torch.equal(one[key], other[key]) for key in one)
    (optimizer,) = {group.optimizer for group in learner._groups["actor"]}
    assert optimizer._steps.unique().tolist() == [6.0]  # each has had one turn of three, and five with the others


def test_setting_a_state_keeps_the_storage():
    """Groups, moments and weights stay where they are, as whoever has captured an update needs them to."""
    game = small_game()
    learner = build(config_of(game), game)
    updates(learner, game, [1, 2])
    state = pickle.loads(pickle.dumps(learner.get_state()))
    places = [p.data_ptr() for groups in learner._groups.values() for g in groups for p in g.network.parameters]
    (optimizer,) = {group.optimizer for group in learner._groups["critic"]}
    moments = [m.data_ptr() for kind in optimizer._moments for m in kind]
    groups = {name: list(own) for name, own in learner._groups.items()}
    updates(learner, game, [3])
    learner.set_state(state)
    updates(learner, game, [3])
    assert {name: list(own) for name, own in learner._groups.items()} == groups
    assert [p.data_ptr() for own in groups.values() for g in own for p in g.network.parameters] == places
    assert [m.data_ptr() for kind in optimizer._moments for m in kind] == moments


def changed_mlps():
    plain = MLP(3, 2, [4])

    def appended(mlp):
        mlp.layers.append(nn.Tanh())

    def another_activation(mlp):
        mlp.layers[1] = nn.Tanh()

    def hooked(mlp):
        mlp.layers[0].register_forward_hook(lambda module, inputs, output: output + 1)

    def normed(mlp):
        nn.utils.parametrizations.spectral_norm(mlp.layers[0])

    def another_layer(mlp):
        mlp.layers[0] = nn.Bilinear(3, 3, 4)

    for change in (appended, another_activation, hooked, normed, another_layer):
        mlp = MLP(3, 2, [4])
        change(mlp)
        yield pytest.param(mlp, plain, id=change.__name__)


@pytest.mark.parametrize(("changed", "plain"), changed_mlps())
def test_an_mlp_that_somebody_changed_is_not_plain(changed, plain):
    assert is_plain_mlp(plain) and not is_plain_mlp(changed)


def test_mlps_of_other_types_or_frozen_layers_have_another_shape():
    plain, double, frozen = (MLP(3, 2, [4]) for _ in range(3))
    frozen.layers[0].requires_grad_(False)
    assert shape_of(plain) == shape_of(MLP(3, 2, [4]))
    assert len({shape_of(plain), shape_of(double.double()), shape_of(frozen)}) == 3


class FrozenFirstLayer(MADDPGTorchRLModule):
    """As with layers that come from elsewhere."""

    def build_critic(self, input_dim):
        critic = super().build_critic(input_dim)
        critic.layers[0].requires_grad_(False)
        return critic


def test_frozen_layers_of_a_network_stay_and_the_others_learn():
    game = small_game()
    config = config_of(game).rl_module(rl_module_spec=RLModuleSpec(module_class=FrozenFirstLayer))
    learner = build(config, game)
    before = {m: [p.detach().clone() for p in learner.module[m].unwrapped().critic.parameters()] for m in game.modules}
    updates(learner, game, [1, 2, 3])
    for m in game.modules:
        same = [torch.equal(a, b) for a, b in zip(before[m], learner.module[m].unwrapped().critic.parameters(), strict=True)]
        assert same == [True, True] + [False] * (len(same) - 2)


@pytest.mark.parametrize("way", ["assign", "data of a later layer"])
def test_new_storage_is_noticed(way):
    """The next update is that of the weights that somebody has put there."""
    game = small_game()
    learner, known = build(config_of(game), game), build(config_of(game), game)
    updates(learner, game, [1])
    updates(known, game, [1])
    critic, other = (own.module["m1"].unwrapped().critic for own in (learner, known))
    new = {name: torch.randn_like(value) for name, value in critic.state_dict().items()}
    if way == "assign":
        # RLlib's optimizers have the old parameters.
        critic.load_state_dict({name: nn.Parameter(value) for name, value in new.items()}, assign=True)
        with pytest.raises(ValueError, match="The optimizer of network 'critic' of module 'm1' has none of the network's"):
            updates(learner, game, [2])
        return
    critic.linears[-1].weight.data = new["layers.2.weight" if len(critic.linears) == 2 else "layers.4.weight"].clone()
    with torch.no_grad():
        other.linears[-1].weight.copy_(critic.linears[-1].weight)
    updates(learner, game, [2])
    updates(known, game, [2])
    one, two = weights_of(learner), weights_of(known)
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("stacks", [True, False])
def test_td_errors_are_those_of_modules_that_learn(stacks):
    """Where a frozen module stands in the group, too: the mean |Q - y| of m0 alone."""
    game = small_game()
    config = config_of(game).multi_agent(policies_to_train=["m0"])
    learner = build(config, game)
    learner.stacks_modules, learner.collects_td_errors = stacks, True
    updates(learner, game, [1])
    errors = learner.take_td_errors()
    batch = game.batch(16, 1)
    oracle = game.reference()
    (agent,) = (a for a in game.agents if game.module_of[a] == "m0")
    q = oracle.q_value(agent, {a: batch[a].obs for a in game.agents}, {a: batch[a].action for a in game.agents})
    np.testing.assert_allclose(errors, (q - oracle.target(agent, batch)).abs().numpy(), rtol=1e-4, atol=1e-5)


def test_td_errors_of_skipped_updates_are_zero():
    game = small_game()
    learner = build(config_of(game).framework(torch_skip_nan_gradients=True), game)
    learner.collects_td_errors = True
    batch = multi_agent_batch(game, game.batch(16, 0))
    batch.policy_batches["m1"]["rewards"][3, 0] = np.nan
    learner.update(batch=batch, timesteps=env_steps(0))
    errors = learner.take_td_errors()
    assert len(errors) == 16 and np.isfinite(errors).all() and errors[3] == 0.0


class NoTargets(MADDPGTorchRLModule):
    def networks(self):
        actor, critic = super().networks()
        return [replace(actor, has_target=False), critic]


def test_actors_without_targets_are_asked_again_when_they_have_learned():
    """A second critic stage after the actors' sees what they do then."""
    game = small_game()
    seen = []

    class Mine(MADDPGTorchLearner):
        @classmethod
        def stages(cls, config):
            critics = LossStage(role=CRITIC, losses=cls.compute_critic_losses)
            return [critics, LossStage(role=ACTOR, losses=cls.compute_actor_losses), critics, TargetStage()]

        def td_target(self, next_q, rows, settings):
            seen.append(next_q.clone())
            return super().td_target(next_q, rows, settings)

    spec = RLModuleSpec(module_class=NoTargets)
    config = config_of(game, actor_lr=0.5).rl_module(rl_module_spec=spec).training(learner_class=Mine)
    learner = build(config)
    updates(learner, game, [1])
    assert len(seen) == 2 and not torch.equal(*seen)
