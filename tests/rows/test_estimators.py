"""Estimators of gradients through discrete actions: values, gradients by hand, expectations by integration, variances."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from reference.estimators import estimated
from scipy import integrate

from rllib_maddpg.rows.actions import CategoricalCodec
from rllib_maddpg.rows.estimators import gapped_straight_through, gumbel_rao, straight_through, temperature_at

ESTIMATORS = ("straight_through", "gapped_straight_through", "gumbel_rao")
SPACES = [gym.spaces.Discrete(4), gym.spaces.MultiDiscrete([2, 3, 2])]


def gumbel(rng, *shape):
    return torch.tensor(rng.gumbel(size=shape))


def sampled(codec, name, output, noise, temperature, gap=1.0, more=None):
    """The code by an estimator, as Learners ask for it."""
    temperature, gap = (torch.as_tensor(number, dtype=output.dtype) for number in (temperature, gap))
    estimates = {
        "straight_through": None,
        "gapped_straight_through": lambda logits, g, t, _: gapped_straight_through(
            logits, g, t, torch.tensor(gap, dtype=t.dtype)
        ),
        "gumbel_rao": gumbel_rao,
    }
    return codec.sample(output, noise, temperature, estimates[name], more if name == "gumbel_rao" else None)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_values_and_gradients_are_those_by_hand(name, space, temperature):
    """To 1e-12: one-hots of the same draw, and the same gradient of any weighted sum of the code."""
    codec, rng = CategoricalCodec(space), np.random.default_rng(3)
    logits = 2.0 * torch.tensor(rng.normal(size=(40, codec.dim)))
    noise, more, weights = gumbel(rng, 40, codec.dim), gumbel(rng, 7, 40, codec.dim), gumbel(rng, 40, codec.dim)
    ours, theirs = (logits.clone().requires_grad_(True) for _ in range(2))
    code = sampled(codec, name, ours, noise, temperature, 0.8, more)
    expected = estimated(name, codec.nvec, theirs, noise, temperature, 0.8, more)
    torch.testing.assert_close(code, expected, rtol=0, atol=1e-12)
    assert torch.equal(code.detach().round(), sampled(codec, "straight_through", logits, noise, temperature).round())
    assert float((code.detach() - code.detach().round()).abs().max()) < 1e-15
    for output, of in ((ours, code), (theirs, expected)):
        (of * weights).sum().backward()
        assert output.grad.abs().sum(-1).min() > 0
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)


def test_the_gap_stands_between_the_drawn_action_and_all_others():
    """theta = (2, 1, -3), gap 1.5. Drawn 0: only 1 is moved, down by 0.5. Drawn 1: it is lifted by 1, 0 pushed by 1.5."""
    logits, one = torch.tensor([[2.0, 1.0, -3.0]] * 2).double(), torch.ones(())
    noise = torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]]).double()
    code = gapped_straight_through(logits.requires_grad_(True), noise, one, 1.5 * one)
    assert code.detach().round().tolist() == [[1, 0, 0], [0, 1, 0]]
    moved = torch.tensor([[2.0, 0.5, -3.0], [0.5, 2.0, -3.0]]).double()
    soft = torch.softmax(moved, 1)
    (code * torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    expected = soft[:, :1] * (torch.tensor([1.0, 0.0, 0.0]) - soft)  # a row of softmax's Jacobian
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-14)


def jacobian_product(scores, weights, temperature):
    """d (weights . softmax(scores / T)) / d scores, over the last axis of arrays."""
    soft = np.exp((scores - scores.max(-1, keepdims=True)) / temperature)
    soft /= soft.sum(-1, keepdims=True)
    return soft * (weights - (soft * weights).sum(-1, keepdims=True)) / temperature


def rao_gradients(theta, d, weights, temperature, draws, batches=50):
    """Gradients of gumbel_rao given that d is drawn, one for each of so many batches of draws, `[batches, n]`."""
    rng = np.random.default_rng(5)
    logits = torch.tensor(np.tile(theta, (batches, 1)), requires_grad=True)
    noise = torch.zeros(batches, len(theta), dtype=torch.float64)
    noise[:, d] = 50.0
    code = gumbel_rao(logits, noise, torch.tensor(temperature), gumbel(rng, draws, batches, len(theta)))
    (code * torch.tensor(weights)).sum().backward()
    return logits.grad.numpy()


def assert_mean(values, expected):
    """To four standard errors, which must be small beside what is expected."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (error < 0.02 * np.abs(expected).max()).all()
    assert (np.abs(values.mean(0) - expected) < 4 * error).all(), (values.mean(0), expected, error)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("d", [0, 1])
def test_rao_of_two_actions_is_the_conditional_expectation(d, temperature):
    """Y_d - Y_other is a logistic variable, of which only u > 0 is left: an integral over u."""
    theta, weights = np.array([0.4, -0.9]), np.array([1.0, -0.5])
    mean = theta[d] - theta[1 - d]

    def integrand(u, k):
        scores = np.zeros(2)
        scores[d] = u
        density = np.exp(-(u - mean)) / (1 + np.exp(-(u - mean))) ** 2
        return density * jacobian_product(scores, weights, temperature)[k]

    probability = 1 / (1 + np.exp(-mean))
    expected = [integrate.quad(integrand, 0, 60, args=(k,), epsabs=1e-10)[0] / probability for k in range(2)]
    assert_mean(rao_gradients(theta, d, weights, temperature, 2000), np.array(expected))


@pytest.mark.parametrize("d", [0, 1, 2])
def test_rao_of_three_actions_is_the_conditional_expectation(d):
    """The density of u = Y_d - Y_j and v = Y_d - Y_k, of which both are positive given d, is 2 e^(sum theta + u + v) / A^3 with
    A = e^theta_d + e^(theta_j + u) + e^(theta_k + v): the integral over Y_d is that of a gamma density.
    """
    theta, weights, temperature = np.array([0.5, -0.3, 0.2]), np.array([1.0, -1.0, 0.4]), 0.7
    j, k = (i for i in range(3) if i != d)
    # Midpoints of x = u / (1 + u).
    x = (np.arange(1500) + 0.5) / 1500
    u, v = np.meshgrid(x / (1 - x), x / (1 - x), indexing="ij")
    area = 1 / (1 - x[:, None]) ** 2 / (1 - x[None]) ** 2 / 1500**2
    a, b = theta[j] + u, theta[k] + v
    top = np.maximum(np.maximum(a, b), theta[d])
    logs = theta.sum() + u + v - 3 * (top + np.log(np.exp(theta[d] - top) + np.exp(a - top) + np.exp(b - top)))
    density = 2 * np.exp(logs) * area
    probability = np.exp(theta[d]) / np.exp(theta).sum()
    assert density.sum() == pytest.approx(probability, abs=1e-6)
    scores = np.zeros((*u.shape, 3))
    scores[..., j], scores[..., k] = -u, -v
    expected = (density[..., None] * jacobian_product(scores, weights, temperature)).sum((0, 1)) / probability
    assert_mean(rao_gradients(theta, d, weights, temperature, 2000), expected)


def test_rao_has_the_mean_of_straight_through_and_less_variance():
    """Of f(D) = w . D + (c . D)^2, whose gradient by D depends on D; the more draws the less variance."""
    rng, rows = np.random.default_rng(1), 40_000
    theta = torch.tensor([0.5, -0.3, 0.2, -1.0], dtype=torch.float64).expand(rows, 4)
    w, c = torch.tensor([1.0, -1.0, 0.4, 2.0]).double(), torch.tensor([0.3, 1.0, -1.2, 0.6]).double()
    noise, temperature, found = gumbel(rng, rows, 4), torch.tensor(0.5), {}
    for draws in (0, 2, 20):
        logits = theta.clone().requires_grad_(True)
        more = gumbel(rng, draws, rows, 4)
        code = gumbel_rao(logits, noise, temperature, more) if draws else straight_through((logits + noise) / temperature)
        (code @ w + (code @ c).square()).sum().backward()
        found[draws] = logits.grad
    variances = {draws: float(g.var(0).sum()) for draws, g in found.items()}
    assert variances[20] < variances[2] < variances[0] and variances[20] < 0.7 * variances[0]
    # The draws are the same in all three, so that the difference of means has little but the variance given D.
    for draws in (2, 20):
        difference = found[draws] - found[0]
        error = difference.std(0) / rows**0.5
        assert (difference.mean(0).abs() < 4 * error).all() and (error < 0.01).all()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("temperature", [1e-6, 0.1, 1.0, 100.0])
def test_masked_logits_are_not_drawn_and_have_no_gradient(name, temperature):
    """As they come from action masks: large finite negatives, in single precision; also if one action is left."""
    codec, rng = CategoricalCodec(gym.spaces.MultiDiscrete([4, 3])), np.random.default_rng(2)
    logits = torch.tensor(rng.normal(size=(500, 7)), dtype=torch.float32)
    masked = torch.tensor(rng.random((500, 7)) < 0.6)
    masked[:, [1, 4]] = False
    output = logits.masked_fill(masked, -1e9).requires_grad_(True)
    noise, more = gumbel(rng, 500, 7).float(), gumbel(rng, 5, 500, 7).float()
    code = sampled(codec, name, output, noise, temperature, more=more)
    assert torch.isfinite(code).all() and not code[masked].any()
    (code * torch.tensor(rng.normal(size=(500, 7)), dtype=torch.float32)).sum().backward()
    assert torch.isfinite(output.grad).all() and not output.grad[masked].any()
    if temperature == 1.0:
        assert output.grad[~masked].abs().mean() > 0.01


def test_boxes_are_not_drawn():
    from rllib_maddpg.rows.actions import BoxCodec

    codec, output = BoxCodec(gym.spaces.Box(-1, 1, (2,), np.float32)), torch.tensor([[0.3, -2.0]])
    estimate = partial(gapped_straight_through, gap=1.0)
    assert torch.equal(codec.sample(output, None, 1.0, estimate), torch.tanh(output))


def test_temperatures_over_env_steps():
    """Linear between points; for "tags" by a constant factor a step, where a number falls to its tenth over 10^6."""
    schedule = [[0, 4.0], [100, 1.0], [300, 0.25]]
    assert [temperature_at(schedule, n) for n in (0, 50, 100, 200, 300, 10**9)] == [4.0, 2.5, 1.0, 0.625, 0.25, 0.25]
    falls = [temperature_at(schedule, n, falls=True) for n in (0, 50, 100, 200, 300, 10**9)]
    assert falls == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25, 0.25], rel=1e-14)
    assert temperature_at(0.7, 10**6) == 0.7
    tags = [temperature_at(2.0, n, falls=True) for n in (0, 500_000, 1_000_000, 2_000_000)]
    assert tags == pytest.approx([2.0, 2.0 / 10**0.5, 0.2, 0.2], rel=1e-14)
