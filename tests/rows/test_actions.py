"""Codecs: round trips, greedy actions in torch and NumPy, straight-through samples, exploration."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from rllib_maddpg.rows.actions import make_codec

SPACES = {
    "tanh": (gym.spaces.Box(np.float32([-2, 0]), np.float32([6, 1])), "tanh"),
    "matrix": (gym.spaces.Box(-1.0, 1.0, (2, 3)), "tanh"),
    "softmax": (gym.spaces.Box(0.0, 1.0, (4,)), "softmax"),
    "discrete": (gym.spaces.Discrete(3, start=5), "tanh"),
    "multi": (gym.spaces.MultiDiscrete([2, 4]), "tanh"),
    "multi_2d": (gym.spaces.MultiDiscrete([[2, 3], [4, 2]]), "tanh"),
}


@pytest.fixture(params=SPACES)
def codec(request):
    return make_codec(*SPACES[request.param])


def outputs(codec, n=6):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, codec.dim)).astype(np.float32)) * 2


def test_widths():
    assert {name: make_codec(*s).dim for name, s in SPACES.items()} == {
        "tanh": 2, "matrix": 6, "softmax": 4, "discrete": 3, "multi": 6, "multi_2d": 11,
    }  # fmt: skip


def test_decoded_actions_encode_to_the_same_code(codec):
    code = codec.greedy(outputs(codec))
    actions = codec.decode(code.numpy())
    assert actions.shape[1:] == codec.space.shape
    np.testing.assert_array_equal(codec.encode(actions), code.numpy())
    assert (codec.decode(code).numpy() == actions).all(), "tensors and arrays decode alike"
    if codec.categorical:
        assert all(codec.space.contains(np.asarray(a, codec.space.dtype)) or codec.space.contains(int(a)) for a in actions)


def test_discrete_codes_by_hand():
    codec = make_codec(*SPACES["discrete"])
    np.testing.assert_array_equal(codec.encode(np.array([5, 7])), [[1, 0, 0], [0, 0, 1]])
    codec = make_codec(*SPACES["multi"])
    np.testing.assert_array_equal(codec.encode(np.array([[1, 3], [0, 0]])), [[0, 1, 0, 0, 0, 1], [1, 0, 1, 0, 0, 0]])


def test_numpy_and_torch_act_alike(codec):
    output = outputs(codec, 500)
    np.testing.assert_allclose(codec.greedy_numpy(output.numpy()), codec.greedy(output).numpy(), atol=3e-7)


def test_softmax_head_lies_on_the_simplex():
    code = make_codec(*SPACES["softmax"]).greedy(outputs(make_codec(*SPACES["softmax"])))
    torch.testing.assert_close(((code + 1) / 2).sum(-1), torch.ones(6))


def test_straight_through_sample_is_hard_forward_and_soft_backward():
    codec = make_codec(*SPACES["multi"])
    logits = outputs(codec).double().requires_grad_()
    gumbel = torch.from_numpy(np.random.default_rng(1).gumbel(size=(6, 6)))
    weight = torch.arange(6.0, dtype=torch.float64)
    sample = codec.sample(logits, gumbel, 0.7)
    hard = torch.cat([torch.eye(n)[p.argmax(-1)] for n, p in zip((2, 4), (logits + gumbel).split((2, 4), -1), strict=True)], -1)
    torch.testing.assert_close(sample.detach(), hard.double(), atol=1e-15, rtol=0)
    (sample * weight).sum().backward()
    grad, logits.grad = logits.grad.clone(), None
    soft = torch.cat([torch.softmax(p, -1) for p in ((logits + gumbel) / 0.7).split((2, 4), -1)], -1)
    (soft * weight).sum().backward()
    torch.testing.assert_close(grad, logits.grad, atol=1e-15, rtol=0)


def test_exploration_of_categorical_actions_draws_from_softmax_of_output_over_temperature():
    codec = make_codec(gym.spaces.Discrete(3))
    output = np.tile(np.float32([1.0, 0.0, -1.0]), (200_000, 1))
    gumbel = np.random.default_rng(0).gumbel(size=output.shape).astype(np.float32)
    shares = codec.explore(output, gumbel, 2.0).mean(0)
    expected = np.exp([0.5, 0, -0.5]) / np.exp([0.5, 0, -0.5]).sum()
    np.testing.assert_allclose(shares, expected, atol=0.005)  # 4 standard errors


def test_additive_noise_is_clipped_to_the_box():
    codec = make_codec(*SPACES["tanh"])
    code = codec.explore(np.float32([[0.0, 0.0], [5.0, -5.0]]), np.float32([[1.0, -1.0], [1.0, 1.0]]), 0.3)
    np.testing.assert_allclose(code, [[0.3, -0.3], [1.0, np.tanh(-5) + 0.3]], atol=1e-6)


def test_head_metrics_by_hand():
    saturation = make_codec(*SPACES["tanh"]).head_metrics(torch.tensor([[5.0, 0.0], [0.1, -5.0]]))["action_saturation"]
    assert saturation.tolist() == [0.5, 0.5]
    entropy = make_codec(gym.spaces.MultiDiscrete([2, 4])).head_metrics(torch.zeros(3, 6))["action_entropy"]
    assert entropy.tolist() == pytest.approx([(np.log(2) + np.log(4)) / 2] * 3)


def test_env_actions_are_rllibs_to_the_bit(codec):
    from ray.rllib.utils.spaces.space_utils import unsquash_action

    codes = codec.explore(outputs(codec, 300).numpy(), np.zeros((300, codec.dim), np.float32), 1.0)
    expected = [unsquash_action(action, codec.space) for action in codec.decode(codes)]
    np.testing.assert_array_equal(codec.to_env(codes), np.stack(expected), strict=True)
