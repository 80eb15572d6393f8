"""The table of bias and variance of discrete estimators: its exact gradient, and what it says of known estimates."""

import numpy as np
import pytest
import torch

from benchmarks import estimators


def test_the_exact_gradient_is_that_of_finite_differences():
    game = estimators.Game(seed=3, actions=3, policies=2)
    eye, value = torch.eye(3, dtype=torch.float64), np.zeros((2, 3))

    def expected(own):
        return [
            sum(
                float(own[p].softmax(0)[i] * game.other[p].softmax(0)[j] * game.q(eye[i], eye[j]))
                for i in range(3)
                for j in range(3)
            )
            for p in range(2)
        ]

    for k in range(3):
        step = torch.zeros(2, 3, dtype=torch.float64)
        step[:, k] = 1e-5
        up, down = expected(game.own + step), expected(game.own - step)
        value[:, k] = [(a - b) / 2e-5 for a, b in zip(up, down, strict=True)]
    np.testing.assert_allclose(game.gradient().numpy(), value, atol=1e-9)


def test_quality_of_known_estimates():
    """exact = (3, 4) and (0, 5), both of length 5; off by (1, 0), and by +-1 in one number."""
    exact = torch.tensor([[3.0, 4.0], [0.0, 5.0]]).double()
    found = torch.stack([exact + torch.tensor([1.0, s]).double() for s in (1.0, -1.0)])
    quality = estimators.quality(found, exact)
    assert quality.bias == pytest.approx(1 / 5) and quality.variance == pytest.approx(2 / 25)
    assert quality.cosine == pytest.approx(((4 * 3 + 16) / 32**0.5 / 5 + 5 / 26**0.5) / 2)


def test_the_table_has_each_estimator_at_each_temperature():
    lines = estimators.table(draws=200).splitlines()
    assert len(lines) == 2 + 3 * len(estimators.TEMPERATURES)
    variances = [float(line.split("|")[4]) for line in lines[2:]]
    assert variances[0] < variances[1] < variances[2] and all(np.array(variances[6:]) < variances[:3])
