"""What an approximation of another agent's policy says of an action, for the oracle.

The density of what a softmax head does is that of Maddison et al. 2017, arXiv 1611.00712, section 3.2.
"""

from __future__ import annotations

from math import e, lgamma, log, pi

import torch
from torch import Tensor

from reference.maddpg import Box, Discrete, Hyper, Kind, MultiDiscrete

SIGMA_MIN, SIGMA_MAX = 0.05, 1.0  # standard deviations of an approximation stay between these
SMALLEST_SHARE = 2.0**-24  # of a point of the simplex
SMALLEST_TEMPERATURE = 0.05  # at which what a softmax head did is explained
SMALLEST_TRUE_TEMPERATURE = 1e-3  # at which a categorical policy is compared


def standard_deviation(rho: Tensor) -> Tensor:
    return SIGMA_MIN + (SIGMA_MAX - SIGMA_MIN) * torch.sigmoid(rho)


def log_normal_cdf(x: Tensor) -> Tensor:
    """log Phi(x)."""
    return torch.special.log_ndtr(x)


def censored_normal_log_density(mu: Tensor, sigma: Tensor, action: Tensor) -> Tensor:
    """Of a normal variable that is clipped to [-1, 1], in each dimension: a density inside, a mass at each end."""
    inside = -0.5 * ((action - mu) / sigma) ** 2 - torch.log(sigma) - 0.5 * log(2 * pi)
    at_low_end = log_normal_cdf((-1.0 - mu) / sigma)
    at_high_end = log_normal_cdf((mu - 1.0) / sigma)  # Phi(-x) = 1 - Phi(x)
    return torch.where(action <= -1.0, at_low_end, torch.where(action >= 1.0, at_high_end, inside))


def concrete_log_density(log_alpha: Tensor, temperature: float, share: Tensor) -> Tensor:
    """Of softmax((log alpha + Gumbel noise) / temperature) at a point of the simplex, ``[B, n]`` -> ``[B]``."""
    n, lam = share.shape[1], temperature
    numerator = lgamma(n) + (n - 1) * log(lam) + (log_alpha - (lam + 1) * torch.log(share)).sum(dim=1)
    return numerator - n * torch.logsumexp(log_alpha - lam * torch.log(share), dim=1)


def categorical_entropy(logits: Tensor) -> Tensor:
    log_p = torch.log_softmax(logits, dim=1)
    return -(torch.exp(log_p) * log_p).sum(dim=1)


def acting_temperature(hyper: Hyper) -> float:
    return max(hyper.exploration_temperature, SMALLEST_TEMPERATURE)


def log_likelihood(kind: Kind, out: Tensor, rho: Tensor | None, action: Tensor, hyper: Hyper) -> Tensor:
    """log pi(action) of each row, ``[B]``.

    Args:
        kind: Of the agent that acted.
        out: Head output of the approximation, ``[B, a]``.
        rho: What its standard deviations follow from, ``[B, a]``; of a tanh head only.
        action: Code of what was done, ``[B, a]``.
        hyper: Of the module that has the approximation.
    """
    if isinstance(kind, Box) and kind.head == "tanh":
        return censored_normal_log_density(torch.tanh(out), standard_deviation(rho), action).sum(dim=1)
    if isinstance(kind, Box):
        # The runner does softmax(out + T g) = softmax((out / T + g) / (1 / T)).
        t = acting_temperature(hyper)
        share = torch.clamp((action + 1.0) / 2.0, min=SMALLEST_SHARE)
        return concrete_log_density(out / t, 1.0 / t, share)
    parts = zip(out.split(kind.parts, dim=1), action.split(kind.parts, dim=1), strict=True)
    return sum((code * torch.log_softmax(logits, dim=1)).sum(dim=1) for logits, code in parts)


def entropy(kind: Kind, out: Tensor, rho: Tensor | None, hyper: Hyper) -> Tensor:
    """What the loss calls the entropy, ``[B]``; arguments as in ``log_likelihood``."""
    if isinstance(kind, Box) and kind.head == "tanh":
        return (0.5 * torch.log(2 * pi * e * standard_deviation(rho) ** 2)).sum(dim=1)
    if isinstance(kind, Box):
        return categorical_entropy(out / acting_temperature(hyper))
    return sum(categorical_entropy(logits) for logits in out.split(kind.parts, dim=1))


def divergence(kind: Discrete | MultiDiscrete, out: Tensor, true_out: Tensor, hyper: Hyper) -> Tensor:
    """KL(approximation || true policy) of each row, ``[B]``."""
    t = max(hyper.exploration_temperature, SMALLEST_TRUE_TEMPERATURE)
    total = torch.zeros(len(out), dtype=out.dtype)
    for mine, true in zip(out.split(kind.parts, dim=1), true_out.split(kind.parts, dim=1), strict=True):
        log_p, log_q = torch.log_softmax(mine, dim=1), torch.log_softmax(true / t, dim=1)
        total = total + (torch.exp(log_p) * (log_p - log_q)).sum(dim=1)
    return total


def probabilities(kind: Discrete | MultiDiscrete, out: Tensor) -> Tensor:
    return torch.cat([torch.softmax(part, dim=1) for part in out.split(kind.parts, dim=1)], dim=1)
