"""Networks that see images: their encoder by hand, what becomes of rows, and several of them as one."""

from __future__ import annotations

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from fake_graph import FakeGraph
from learner_games import SpacesEnv, build, weights_of
from ray.rllib.core.models.configs import CNNEncoderConfig
from ray.rllib.models.utils import get_filter_config

from rllib_maddpg import MADDPGConfig
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.modules.critic_inputs import SlotInputs
from rllib_maddpg.modules.image_filters import default_filters, layers
from rllib_maddpg.modules.image_stack import ImageStack
from rllib_maddpg.modules.images import (
    ImageEncoder,
    ImageFeatures,
    ImageNetwork,
    ImagePlace,
    image_kind_of,
    is_plain_image_network,
)
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import Column

FILTERS = [[2, 3, 2], [3, [2, 3], [1, 2], "valid"]]
SHAPE = (5, 7, 2)


def image(shape=SHAPE, low=0, high=255, dtype=np.uint8):
    return gym.spaces.Box(low, high, shape, dtype)


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: tuple[int, int], same: bool) -> np.ndarray:
    """A convolution as TensorFlow documents its paddings, pixel by pixel: `[H, W, in]` -> `[H', W', out]`, before ReLU."""
    sides, kernel = x.shape[:2], weight.shape[2:]
    if same:
        out = [math.ceil(side / s) for side, s in zip(sides, stride, strict=True)]
        lacking = [max((o - 1) * s + k - side, 0) for o, s, k, side in zip(out, stride, kernel, sides, strict=True)]
        x = np.pad(x, [(n // 2, n - n // 2) for n in lacking] + [(0, 0)])
    else:
        out = [math.ceil((side - k + 1) / s) for side, s, k in zip(sides, stride, kernel, strict=True)]
    y = np.zeros((*out, len(weight)))
    for i in range(out[0]):
        for j in range(out[1]):
            patch = x[i * stride[0] : i * stride[0] + kernel[0], j * stride[1] : j * stride[1] + kernel[1]]
            for c in range(len(weight)):
                y[i, j, c] = (patch * weight[c].transpose(1, 2, 0)).sum() + bias[c]
    return y


@pytest.mark.parametrize(("low", "high", "dtype"), [(0, 255, np.uint8), (-1.0, 3.0, np.float32)])
def test_an_encoder_is_what_its_filters_say(low, high, dtype):
    """Scaled to 0 ... 1, convolved, flattened row by row; 1e-12 in float64."""
    torch.manual_seed(0)
    encoder = ImageEncoder(ImagePlace(0, image(SHAPE, low, high, dtype)), {"conv_filters": FILTERS}).double()
    pixels = np.random.default_rng(0).uniform(low, high, (3, 4, *SHAPE))
    arrays = [p.detach().numpy() for p in encoder.parameters()]
    expected = []
    for x in pixels.reshape(-1, *SHAPE):
        x = (x - low) / (high - low)
        x = np.maximum(convolved(x, *arrays[:2], (2, 2), same=True), 0.0)
        x = np.maximum(convolved(x, *arrays[2:], (1, 2), same=False), 0.0)
        expected.append(x.reshape(-1))
    found = encoder(torch.from_numpy(pixels).flatten(2)).detach().numpy()
    assert found.shape == (3, 4, encoder.width) == (3, 4, 2 * 1 * 3)
    np.testing.assert_allclose(found.reshape(12, -1), expected, rtol=1e-12, atol=1e-12)


def test_settings_reach_the_encoder():
    settings = {
        "conv_filters": FILTERS,
        "conv_activation": "tanh",
        "conv_kernel_initializer": "constant_",
        "conv_kernel_initializer_kwargs": {"val": 0.01},
        "conv_bias_initializer": "ones_",
    }
    encoder = ImageEncoder(ImagePlace(0, image()), settings)
    assert [float(p.detach().unique()) for p in encoder.parameters()] == [pytest.approx(0.01), 1.0] * 2
    assert float(encoder(torch.zeros(1, 70)).detach().max()) == pytest.approx(math.tanh(1 + 2 * 3 * 2 * 0.01 * math.tanh(1.0)))


def test_default_filters():
    """RLlib's for the sizes that it knows; all others end small, and each kernel fits what it sees."""
    for side in (10, 42, 64, 84, 96):
        found, rllibs = default_filters((side, side, 3)), get_filter_config((side, side, 3))
        assert [layer[:3] for layer in found] == rllibs
    for side in (42, 84, 96):
        config = CNNEncoderConfig(input_dims=[side, side, 3], cnn_filter_specifiers=default_filters((side, side, 3)))
        assert config.output_dims == (256,)
    for height in (*range(1, 70), 457):
        for width in (*range(1, 40, 3), 120):
            shape, filters = (height, width, 1), default_filters((height, width, 1))
            for sides, kernel in layers(shape, filters):
                assert all(k <= side for k, side in zip(kernel, sides, strict=True)), shape
            if (height, width) != (10, 10):
                assert CNNEncoderConfig(input_dims=list(shape), cnn_filter_specifiers=filters).output_dims[0] <= 1024


def test_features_take_the_place_of_images():
    """Those of all images first, by kind, then the rest in its order."""
    small, large = image((3, 3, 1)), image((4, 3, 1))
    places = [ImagePlace(2, small), ImagePlace(11, large), ImagePlace(23, small)]
    features = ImageFeatures(35, places, {"conv_filters": [[2, 2, 1]]}).double()
    x = torch.rand(6, 35, dtype=torch.float64)
    of_small, of_large = features.encoders
    parts = [of_small(x[:, 2:11]), of_small(x[:, 23:32]), of_large(x[:, 11:23]), x[:, :2], x[:, 32:]]
    assert torch.equal(features(x), torch.cat(parts, -1)) and features.width == 2 * 18 + 24 + 5
    assert features.width_of(33) == features.width - 2
    side_by_side = ImageFeatures(18, [ImagePlace(0, small), ImagePlace(9, small)], {})
    assert torch.equal(side_by_side(x[:, :18].float()), side_by_side(x[None, :, :18].float())[0])


def drawn(seed: int, places=None, out: int = 2, hiddens=(5, 4), settings=None) -> ImageNetwork:
    torch.manual_seed(seed)
    places = [ImagePlace(0, image())] if places is None else places
    features = ImageFeatures(73, places, settings or {"conv_filters": FILTERS})
    return ImageNetwork(features, MLP(features.width, out, hiddens)).double()


def test_a_stack_computes_each_and_its_gradients():
    """In float64, to rounding: one input of each, and the same for all."""
    networks = [drawn(k) for k in range(3)]
    alone = copy.deepcopy(networks)
    stack = ImageStack.of_actors(networks)
    x = torch.rand(3, 2, 6, 73, dtype=torch.float64) * 255
    output, expected = stack(x), torch.stack([network(own) for network, own in zip(alone, x, strict=True)])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(output)
    ours = torch.autograd.grad((output * direction).sum(), stack.parameters)
    theirs = torch.autograd.grad((expected * direction).sum(), [p for network in alone for p in network.parameters()])
    for k, own in enumerate(ours):
        torch.testing.assert_close(own, torch.stack(theirs[k :: len(ours)]), rtol=1e-11, atol=1e-11)
    rows = x[0, 0]
    torch.testing.assert_close(stack.of_all(rows), torch.stack([n(rows) for n in alone]), rtol=1e-12, atol=1e-12)
    assert stack.is_tied()
    with torch.no_grad():
        for p in stack.parameters:
            p.mul_(0.5)
    assert torch.equal(next(networks[1].parameters()), 0.5 * next(alone[1].parameters()))
    networks[2].features.double().requires_grad_(False)
    networks[2].features.encoders[0].net[0].cnn[1].weight.data = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    assert not stack.is_tied()


def test_what_may_be_stacked():
    plain = drawn(0)
    assert is_plain_image_network(plain) and image_kind_of(plain) == image_kind_of(drawn(1))
    for other in (
        drawn(0, settings={"conv_filters": [[2, 3, 2], [3, [2, 3], [1, 2]]]}),
        drawn(0, settings={"conv_filters": FILTERS, "conv_activation": "tanh"}),
        drawn(0, places=[ImagePlace(0, image(SHAPE, 0, 254))]),
        drawn(0, places=[ImagePlace(3, image())]),
        drawn(0, hiddens=(5, 5)),
    ):
        assert image_kind_of(other) != image_kind_of(plain)
    hooked = drawn(0)
    hooked.features.encoders[0].register_forward_hook(lambda module, inputs, output: output + 1)
    assert not is_plain_image_network(hooked)


def test_a_graph_can_be_made_of_it():
    x, graph = torch.zeros(2, 1, 7, 73, dtype=torch.float64), FakeGraph()
    stack = ImageStack.of_actors([drawn(k) for k in range(2)])

    def work():
        loss = stack(x).square().sum()
        return loss.detach(), torch.autograd.grad(loss, stack.parameters)

    graph.warm_up(work)
    loss, gradients = graph.capture(work)
    x.copy_(torch.linspace(0, 255, x.numel()).view(x.shape))
    graph.replay()
    expected_loss, expected = work()
    assert torch.equal(loss, expected_loss) and all(map(torch.equal, gradients, expected))


# ---------------------------------------------------------------------------------------------------------------------
# In the Learner.

PIXELS = gym.spaces.Box(-1.0, 3.0, (4, 3, 2), np.float32)
TALL = gym.spaces.Box(0.0, 1.0, (6, 3, 1), np.float32)
VECTOR = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
OBSERVED = {"a": PIXELS, "b": PIXELS, "c": TALL, "d": VECTOR, "e": PIXELS}


class Apart(MADDPGTorchLearner):
    """Computes each module by itself, and all images of a row for each agent that it judges."""

    stacks_modules = False


def learner_of(learner_class=MADDPGTorchLearner, **settings) -> MADDPGTorchLearner:
    """Agents "a" and "b" share a module, "e" sees what they see, "c" sees another image, and "d" none."""
    config = (
        MADDPGConfig()
        .environment(SpacesEnv, env_config={"obs_spaces": OBSERVED, "action_spaces": dict.fromkeys(OBSERVED, BOX)})
        .multi_agent(
            policies={"ab", "c", "d", "e"},
            policy_mapping_fn=lambda agent, episode=None, **kwargs: "ab" if agent in "ab" else agent,
        )
        .rl_module(
            model_config={"fcnet_hiddens": [8, 7], "conv_filters": [[3, 3, 2]], "critic_conv_filters": [[2, 2, 1], [3, 2, 2]]}
        )
        .learners(learner_class=learner_class)
        .training(**settings)
        .debugging(seed=3)
    )
    return build(config)


def rows_of(schema, number: int, seed: int, dtype=torch.float64) -> JointBatch:
    """Some agents are out of the game in some rows, and have zeros there."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(number, schema.row_width, generator=generator, dtype=torch.float64)
    columns = schema.split(rows)
    columns["obs"] *= 2.0
    columns["new_obs"] *= 2.0
    for name in ("alive", "next_alive", "terminateds"):
        columns[name].copy_((columns[name] < (0.2 if name == "terminateds" else 0.8)).double())
    return JointBatch(schema, rows.to(dtype))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"twin_q": True, "others_actions": "current"},
        {"critic_view": "own"},
        {"infer_other_policies": True},
    ],
    ids=str,
)
def test_updates_of_stacked_networks_are_those_of_each_alone(settings):
    """Each encoder once a row and agent, against all images for each judged agent; 1e-10 after four updates in float64."""
    learners = [learner_of(learner_class, **settings) for learner_class in (MADDPGTorchLearner, Apart)]
    for learner in learners:
        for module_id in learner.module.keys():  # noqa: SIM118
            learner.module[module_id].double()
    start = weights_of(learners[0])
    for k in range(4):
        for learner in learners:
            batch = rows_of(learner.schema, 12, k)
            batch.newest = rows_of(learner.schema, 8, 100 + k)
            learner._uncompiled_update(batch)
    ours, theirs = map(weights_of, learners)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-10, atol=1e-10)
        assert not torch.equal(value, start[key]), key
    stacked, alone = ([group.network for group in learner._all_groups()] for learner in learners)
    assert all(network.is_stacked for network in stacked) and not any(network.is_stacked for network in alone)
    assert any(isinstance(network, ImageStack) for network in stacked)


def test_an_image_is_encoded_once_for_all_judges(monkeypatch):
    """Of each critic five agents' four images a row, whichever of its agents it judges; and no gradient in the actor loss."""
    learner = learner_of()
    encoded, forward = [], ImageEncoder.forward

    def counted(self, x):
        encoded.append((x.numel() // math.prod(self._shape), torch.is_grad_enabled()))
        return forward(self, x)

    monkeypatch.setattr(ImageEncoder, "forward", counted)
    learner._tie()
    (group,) = [g for g in learner._groups["critic"] if g.modules == ("ab",)]
    inputs = group.view.inputs(rows_of(learner.schema, 6, 0, torch.float32), group.modules)
    assert group.network.q_values(inputs).shape == (1, 2, 6)
    assert encoded == [(3 * 6, True), (6, True)]  # of "a", "b" and "e", and of "c"
    encoded.clear()
    own = torch.rand(1, 2, 6, 2, requires_grad=True)
    q = group.network.q_values_with_own(inputs, own)
    assert encoded == [(3 * 6, False), (6, False)]
    (gradient,) = torch.autograd.grad(q.sum(), own)
    assert (gradient != 0).any(-1).all()


def test_slots_compute_what_each_learner_computes():
    """Two Learners' networks as one stack of both, each on its own rows; 1e-12 in float64."""
    groups, rows = [], []
    for seed in range(2):
        learner = learner_of()
        for module_id in learner.module.keys():  # noqa: SIM118
            module = learner.module[module_id].double()
            with torch.no_grad():
                for p in module.parameters():
                    p.add_(0.1 * seed)
        learner._tie()
        groups.append(next(g for g in learner._groups["critic"] if g.modules == ("ab",)))
        rows.append(rows_of(learner.schema, 6, seed).obs_and_actions)
    both = groups[0].network.repeated(2)
    both.parameters = [
        torch.cat([p.detach(), q.detach()]) for p, q in zip(*(g.network.parameters for g in groups), strict=True)
    ]
    own = torch.rand(2, 2, 6, 2, dtype=torch.float64)
    inputs = SlotInputs(torch.stack(rows))
    for k, group in enumerate(groups):
        alone = SlotInputs(rows[k].unsqueeze(0))
        torch.testing.assert_close(both.q_values(inputs)[k : k + 1], group.network.q_values(alone), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            both.q_values_with_own(inputs, own)[k : k + 1],
            group.network.q_values_with_own(alone, own[k : k + 1]),
            rtol=1e-12,
            atol=1e-12,
        )
    moved = [torch.empty_like(p) for p in groups[1].network.parameters]
    groups[1].network.move_to(moved)
    assert groups[1].network.is_tied() and groups[1].network.parameters[0] is not both.parameters[0]


def test_critics_that_see_the_state_only_have_no_encoder():
    column = Column("state", "env", width=3, at_next=True, source=lambda infos: np.zeros(3))
    learner = learner_of(extra_columns=[column], critic_view="state")
    critics = {m: type(learner.module[m].unwrapped().critic) for m in ("ab", "c", "d")}
    actors = {m: type(learner.module[m].unwrapped().actor) for m in ("ab", "c", "d")}
    assert set(critics.values()) == {MLP} and actors == {"ab": ImageNetwork, "c": ImageNetwork, "d": MLP}
