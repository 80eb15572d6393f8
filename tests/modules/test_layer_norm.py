"""Layer norm in networks: by itself, of several at once, with the work that critics share, and in NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fake_graph import FakeGraph
from family_learners import family_config, joint_batch
from learner_games import build, config_of, weights_of
from reference.family_games import random_family_game
from reference.maddpg import Box, Discrete, random_game
from torch import nn

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.modules.networks import ACTIVATIONS, MLP
from rllib_maddpg.modules.stacking import StackedMLP, is_plain_mlp, shape_of
from rllib_maddpg.sampling.actors import NUMPY_ACTIVATIONS, StackedMLPs, numpy_can_compute


def drawn_mlp(seed: int, in_dim: int = 3, out_dim: int = 2, activation: str = "relu", hiddens=(5, 4)) -> MLP:
    """With gains and shifts that are not 1 and 0."""
    torch.manual_seed(seed)
    mlp = MLP(in_dim, out_dim, hiddens, activation, layer_norm=True)
    for norm in mlp.norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return mlp


def by_hand(mlp: MLP, x: np.ndarray) -> np.ndarray:
    """W x + b, minus its mean, over its standard deviation, times the gain, plus the shift, through the activation ..."""
    arrays = [p.detach().numpy().astype(np.float64) for p in mlp.parameters()]
    *hidden, (w, b) = [arrays[k : k + 4] for k in range(0, len(arrays), 4)]
    for weight, bias, gain, shift in hidden:
        x = x @ weight.T + bias
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + shift
        x = np.maximum(x, 0.0)
    return x @ w.T + b


def test_it_is_what_the_paper_says():
    mlp, x = drawn_mlp(0).double(), np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(mlp(torch.from_numpy(x)).detach().numpy(), by_hand(mlp, x), rtol=1e-12, atol=1e-12)
    assert [tuple(p.shape) for p in mlp.parameters()] == [(5, 3), (5,), (5,), (5,), (4, 5), (4,), (4,), (4,), (2, 4), (2,)]


def test_without_it_networks_are_as_they_were():
    """Names, and all numbers that are drawn."""
    torch.manual_seed(1)
    plain = MLP(3, 2, (5, 4))
    torch.manual_seed(1)
    normed = MLP(3, 2, (5, 4), layer_norm=True)
    assert list(plain.state_dict()) == [f"layers.{k}.{name}" for k in (0, 2, 4) for name in ("weight", "bias")]
    assert not plain.norms and len(normed.norms) == 2 and not MLP(3, 2, (), layer_norm=True).norms
    for one, other in zip(plain.linears, normed.linears, strict=True):
        assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_stack_computes_each_and_its_gradients(activation):
    """In float64, to rounding; also with a gradient to the input only, and on one input for all."""
    mlps = [drawn_mlp(k, activation=activation).double() for k in range(3)]
    alone = copy.deepcopy(mlps)
    stack = StackedMLP(mlps)
    x = torch.randn(3, 2, 6, 3, dtype=torch.float64, requires_grad=True)
    output, expected = stack(x), torch.stack([mlp(own) for mlp, own in zip(alone, x, strict=True)])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(output)
    ours = torch.autograd.grad((output * direction).sum(), [x, *stack.parameters])
    theirs = torch.autograd.grad((expected * direction).sum(), [x, *(p for mlp in alone for p in mlp.parameters())])
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-11, atol=1e-11)
    per_network = [theirs[1 + k :: len(stack.parameters)] for k in range(len(stack.parameters))]
    for own, each in zip(ours[1:], per_network, strict=True):
        torch.testing.assert_close(own, torch.stack(each), rtol=1e-11, atol=1e-11)
    (detached,) = torch.autograd.grad((stack(x, detach=True) * direction).sum(), [x])
    torch.testing.assert_close(detached, ours[0], rtol=1e-12, atol=1e-12)
    rows = x[0, 0].detach()
    torch.testing.assert_close(stack.of_all(rows), torch.stack([mlp(rows) for mlp in alone]), rtol=1e-12, atol=1e-12)
    assert stack.is_tied() and torch.equal(mlps[1].norms[0].weight, stack.parameters[2][1])


def test_what_may_be_stacked():
    plain, normed = MLP(3, 2, [4]), MLP(3, 2, [4], layer_norm=True)
    assert is_plain_mlp(normed) and shape_of(normed) == shape_of(drawn_mlp(0, hiddens=[4])) != shape_of(plain)
    for change in (nn.LayerNorm(4, eps=1e-3), nn.LayerNorm(4, bias=False), nn.BatchNorm1d(4)):
        other = MLP(3, 2, [4], layer_norm=True)
        other.layers[1] = change
        assert not is_plain_mlp(other), change
    hooked = MLP(3, 2, [4], layer_norm=True)
    hooked.layers[1].register_forward_hook(lambda module, inputs, output: output + 1)
    assert not is_plain_mlp(hooked)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if type(ACTIVATIONS[name]()) in NUMPY_ACTIVATIONS])
def test_numpys_forward_is_torchs(activation):
    """In float32, to its rounding."""
    mlps = [drawn_mlp(k, activation=activation) for k in range(2)]
    assert all(map(numpy_can_compute, mlps))
    actors = StackedMLPs(mlps, agents=2)
    obs = np.random.default_rng(0).normal(size=(5, 2 * 2 * 3)).astype(np.float32)
    for _ in range(2):
        with torch.no_grad():
            seen = torch.from_numpy(obs).view(5, 2, 2, 3)
            expected = torch.stack([mlp(seen[:, k]) for k, mlp in enumerate(mlps)], 1).flatten(1)
            np.testing.assert_allclose(actors(obs), expected.numpy(), rtol=1e-5, atol=1e-5)
            for p in (*mlps[0].parameters(), *mlps[1].parameters()):
                p.mul_(1.5)  # new weights, of which it is not told
    assert actors.is_current()


class Apart(MADDPGTorchLearner):
    """Computes each module by itself."""

    stacks_modules = False


GAMES = {
    "plain": random_family_game(1, n_agents=3, kinds=[Discrete(3)], shared=False, frozen=False, waiting=False, per_module={}),
    "shared": random_family_game(2, n_agents=4, kinds=[Box(2)], shared=True, frozen=False, waiting=False, per_module={}),
    "own": random_family_game(
        5, n_agents=3, kinds=[Box(2)], shared=True, frozen=True, waiting=False, hyper={"critic_view": "own"}, per_module={}
    ),
    "inferred": random_family_game(
        7, n_agents=3, kinds=[Discrete(2), Box(2)], shared=True, waiting=False, hyper={"infer_other_policies": True}
    ),
}


@pytest.mark.parametrize("game", GAMES)
def test_updates_of_stacked_networks_are_those_of_each_alone(game):
    """Critics with the trick of the first layer, actors, approximations; 1e-10 after six updates in float64."""
    game = GAMES[game]
    learners = []
    for learner_class in (MADDPGTorchLearner, Apart):
        config = family_config(game).training(learner_class=learner_class)
        config.rl_module(model_config={**config._model_config, "use_layer_norm": True})
        learner = build(config)
        for module_id in game.modules:
            learner.module[module_id].double()
        learners.append(learner)
    start = weights_of(learners[0])
    for k in range(6):
        for learner in learners:
            batch = joint_batch(game, learner.schema, game.batch(16, k), game.newest(12, k))
            learner._uncompiled_update(batch)
    ours, theirs = map(weights_of, learners)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-10, atol=1e-10)
        moved = not torch.equal(value, start[key])
        assert moved == (key[0] not in game.frozen), key
    stacked = [group.network for group in learners[0]._all_groups()]
    assert all(network.is_stacked for network in stacked) and any(network._has_norms for network in stacked)


def test_a_graph_can_be_made_of_it():
    x, graph = torch.zeros(2, 1, 7, 3), FakeGraph()
    stack = StackedMLP([drawn_mlp(k) for k in range(2)])

    def work():
        loss = stack(x).square().sum()
        return loss.detach(), torch.autograd.grad(loss, stack.parameters)

    graph.warm_up(work)
    loss, gradients = graph.capture(work)
    x.copy_(torch.linspace(-1, 1, x.numel()).view(x.shape))
    graph.replay()
    expected_loss, expected = work()
    assert torch.equal(loss, expected_loss) and all(map(torch.equal, gradients, expected))


def norms(config, module: str, network: str) -> int:
    return len(getattr(build(config).module[module].unwrapped(), network).norms)


@pytest.mark.parametrize(
    ("model", "actor", "critic"),
    [
        ({}, 0, 0),
        ({"use_layer_norm": True}, 2, 2),
        ({"use_layer_norm": True, "critic_use_layer_norm": False}, 2, 0),
        ({"critic_use_layer_norm": True}, 0, 2),
        ({"use_layer_norm": True, "critic_use_layer_norm": None, "critic_fcnet_hiddens": [4]}, 2, 1),
    ],
)
def test_the_critic_follows_unless_it_is_told_otherwise(model, actor, critic):
    game = random_game(3, n_agents=2, kinds=[Discrete(2)], shared=False, frozen=False, waiting=False, hidden=[5, 5])
    config = config_of(game).training(infer_other_policies=True)
    config.rl_module(model_config={**config._model_config, **model})
    assert norms(config, "m0", "actor") == norms(config, "m0", "inferred_1") == actor
    assert norms(config, "m0", "critic") == norms(config, "m0", "target_critic") == critic


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"use_layer_norm": 1}, r"`model_config\['use_layer_norm'\]`=1 is not allowed.*True or False"),
        ({"use_layer_norm": None}, r"`model_config\['use_layer_norm'\]`=None is not allowed.*True or False"),
        (
            {"critic_use_layer_norm": "yes"},
            r"`model_config\['critic_use_layer_norm'\]`='yes' is not allowed.*None: as the actor",
        ),
        ({"use_layernorm": True}, r"`model_config\['use_layernorm'\]`.*'use_layer_norm'"),
    ],
)
def test_other_values_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        MADDPGConfig().environment("simple_spread").rl_module(model_config=model).validate()
