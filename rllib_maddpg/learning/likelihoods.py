"""How likely an approximation holds actions that were observed, and how sure it is. No Ray here.

Each kind of action is taken for what the env runners make of an actor's head output, with exploration:

- Discrete, MultiDiscrete: a draw from a categorical distribution.
- Box, tanh head: a normal distribution around the actor's action, clipped to [-1, 1]. So what lies at a bound has the
  probability of all that was clipped to it (a censored likelihood).
- Box, softmax head: softmax(output + T * Gumbel noise), which has the density of the Gumbel-softmax (Maddison et al. 2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rllib_maddpg.rows.actions import ActionCodec, CategoricalCodec

# Below it the density of the Gumbel-softmax is nearly a point.
MIN_TEMPERATURE = 0.05
# Codes are float32 near -1, so smaller shares of the simplex are rounded to none.
MIN_SHARE = 2.0**-24
_LOG_2_PI = math.log(2.0 * math.pi)


def log_likelihood(codec: ActionCodec, output: Tensor, code: Tensor, std: Tensor | None, temperature: Tensor) -> Tensor:
    """Log-probability, or log-density, of actions, `[...]`.

    Args:
        codec: Of the actions.
        output: Head output of the approximation, `[..., dim]`.
        code: Action codes, `[..., dim]`.
        std: Standard deviation, to be broadcast over `[..., dim]`; for tanh boxes only.
        temperature: Of the runners' exploration, without dimensions or to be broadcast over `[..., dim]`; for softmax boxes
            only.
    """
    if isinstance(codec, CategoricalCodec):
        return (code * codec.log_probabilities(output)).sum(-1)
    if std is not None:
        return censored_normal(codec.greedy(output), std, code).sum(-1)
    return gumbel_softmax(output, (code + 1.0) / 2.0, temperature.clamp(min=MIN_TEMPERATURE))


def entropy(codec: ActionCodec, output: Tensor, std: Tensor | None, temperature: Tensor) -> Tensor:
    """Entropy of an approximation in nats, `[...]`; arguments as in `log_likelihood`.

    For tanh boxes that of the normal distribution before clipping; for softmax boxes, whose density has none in closed form,
    that of which share is the largest.
    """
    if isinstance(codec, CategoricalCodec):
        logs = codec.log_probabilities(output)
        return -(logs.exp() * logs).sum(-1)
    if std is not None:
        return (std.log() + 0.5 * (1.0 + _LOG_2_PI)).sum(-1).expand(output.shape[:-1])
    logs = torch.log_softmax(output / temperature.clamp(min=MIN_TEMPERATURE), -1)
    return -(logs.exp() * logs).sum(-1)


def censored_normal(mean: Tensor, std: Tensor, code: Tensor) -> Tensor:
    """Log-density of a normal distribution within (-1, 1), log-probability of what is clipped to -1 or 1; elementwise."""
    density = -0.5 * (((code - mean) / std).square() + _LOG_2_PI) - std.log()
    # The tail beyond the bound that the code is at; no NaN arises where it is at none.
    tail = torch.special.log_ndtr(-(1.0 - torch.sign(code) * mean) / std)
    return torch.where(code.abs() < 1.0, density, tail)


def gumbel_softmax(output: Tensor, shares: Tensor, temperature: Tensor) -> Tensor:
    """Log-density of softmax(output + T * Gumbel noise), `[...]`.

    Maddison et al. 2017, appendix C.2, of a Gumbel-softmax with log alpha = output / T and the temperature 1 / T.

    Args:
        output: `[..., n]`.
        shares: Points of the simplex, `[..., n]`.
        temperature: T, without dimensions or to be broadcast over `[..., n]`.
    """
    n = output.shape[-1]
    log_shares = shares.clamp(min=MIN_SHARE).log()
    exponents = (output - log_shares) / temperature
    constant = math.lgamma(n) - (n - 1) * temperature.log().squeeze(-1)
    return constant + (exponents - log_shares).sum(-1) - n * torch.logsumexp(exponents, -1)


def kl(codec: CategoricalCodec, output: Tensor, true_output: Tensor, temperature: Tensor) -> Tensor:
    """KL divergence of an approximation from the policy of an actor that explores at a temperature, `[...]` nats."""
    logs, true_logs = codec.log_probabilities(output), codec.log_probabilities(true_output / temperature.clamp(min=1e-3))
    return (logs.exp() * (logs - true_logs)).sum(-1)
