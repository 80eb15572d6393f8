"""How a gradient passes through the draw of a discrete action: estimators of d E[f(D)] / d theta. No Ray here.

An action is drawn by the Gumbel-max trick: D = one_hot(argmax(theta + g)) with logits theta and standard Gumbel noise g, so
that it is an exact draw from softmax(theta). All estimators give D itself, so that critics see what they see in replay; they
differ in what is differentiated in its place, S: code = D + S - stop_gradient(S).

Tilbury et al. 2023 ("Revisiting the Gumbel-Softmax in MADDPG", arXiv 2302.11793) compare them. What "tags" adds to
"straight_through" is its temperature (`temperature_at`).

Shapes: `[..., n]` for n actions; temperatures and gaps broadcast over that. Logits of actions that are not allowed may be large
finite negatives: such an action is not drawn, and has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# A number as the temperature of "tags" stands for a fall to a tenth of it over so many env steps.
TAGS_FALL, TAGS_ENV_STEPS = 0.1, 1_000_000

Estimate = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


def one_hot_of_largest(x: Tensor) -> Tensor:
    """One-hot of the largest of the last dimension, of the first one of several."""
    # `F.one_hot` looks at the numbers first, for which a GPU would have to be waited for.
    return torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)


def straight_through(scores: Tensor) -> Tensor:
    """S = softmax((theta + g) / T) (Jang et al. 2017, section 2.2).

    Args:
        scores: (theta + g) / T.
    """
    soft = torch.softmax(scores, -1)
    hard = one_hot_of_largest(soft.detach())
    return hard + soft - soft.detach()


def gapped_straight_through(logits: Tensor, gumbel: Tensor, temperature: Tensor, gap: Tensor) -> Tensor:
    """S = softmax((theta + m1 - m2) / T), where m1 lifts the drawn action to the largest logit and m2 pushes all others below
    it, by `gap` at least (Fan et al. 2022, section 4):

        m1 = (max_k theta_k - theta_D) D,    m2_j = max(0, theta_j + gap - max_k theta_k) for j != D.

    Both are constants. Given D nothing of S is random.
    """
    with torch.no_grad():
        hard = one_hot_of_largest(logits + gumbel)
        below = logits.amax(-1, keepdim=True) - logits
        move = hard * below - (1.0 - hard) * (gap - below).clamp(min=0.0)
    return _with_gradient_of(hard, torch.softmax((logits + move) / temperature, -1))


def gumbel_rao(logits: Tensor, gumbel: Tensor, temperature: Tensor, more: Tensor) -> Tensor:
    """S = mean over K of softmax((theta + G^k) / T) with G^k drawn from g given D (Paulus et al. 2021, equations 7 and 9), so
    that the gradient is the expectation of straight-through's given D, but for what K draws leave of its variance.

    With E_j exponential and Z = sum exp(theta): theta_D + G_D = log Z - log E_D, and for all others
    theta_j + G_j = -log(E_j / exp(theta_j) + E_D / Z). The draws are constants, as g is.

    Args:
        logits, gumbel, temperature: theta, g, T.
        more: Other standard Gumbel noise, -log E, `[K, ..., n]`.
    """
    with torch.no_grad():
        hard = one_hot_of_largest(logits + gumbel)
        largest = (more * hard).sum(-1, keepdim=True) + logits.logsumexp(-1, keepdim=True)
        others = -torch.logaddexp(-more - logits, -largest)
        move = torch.where(hard > 0.0, largest, others) - logits
    return _with_gradient_of(hard, torch.softmax((logits + move) / temperature, -1).mean(0))


def _with_gradient_of(hard: Tensor, soft: Tensor) -> Tensor:
    return hard + soft - soft.detach()


def temperature_at(temperature: float | Sequence[Sequence[float]], env_steps: int, falls: bool = False) -> float:
    """The temperature after so many env steps.

    Args:
        temperature: A number, or a schedule [[0, v0], [t1, v1], ...] over env steps, whose last value stays.
        env_steps: Sampled so far.
        falls: As with "tags": between points of a schedule it changes by a constant factor in each env step (Tilbury et al.
            2023), and not by a constant difference; and a number v stands for [[0, v], [1,000,000, v / 10]].
    """
    if isinstance(temperature, (int, float, np.number)):
        if not falls:
            return float(temperature)
        temperature = [[0, temperature], [TAGS_ENV_STEPS, TAGS_FALL * temperature]]
    times, values = zip(*temperature, strict=True)
    if falls:
        return math.exp(np.interp(env_steps, times, np.log(values)))
    return float(np.interp(env_steps, times, values))
