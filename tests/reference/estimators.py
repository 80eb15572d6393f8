"""Estimators of gradients through discrete actions, transcribed agent by agent and row by row, to test against. float64.

Jang et al. 2017 (straight-through Gumbel-Softmax), Fan et al. 2022 (gapped straight-through), Paulus et al. 2021 (Gumbel-Rao).
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_of(estimator: str, theta: Tensor, g: Tensor, temperature: float, gap: float, more: Tensor | None) -> Tensor:
    """What is differentiated in place of the drawn one-hot, of one row and one part: [n]. ``more``: [K, n], Gumbel noise."""
    d = int((theta + g).argmax())
    constant = theta.detach()
    if estimator in ("straight_through", "tags"):
        return torch.softmax((theta + g) / temperature, 0)
    if estimator == "gapped_straight_through":
        largest = constant.max()
        shift = torch.tensor(
            [
                float(largest - constant[d]) if j == d else -max(0.0, float(constant[j] + gap - largest))
                for j in range(len(theta))
            ],
            dtype=torch.float64,
        )
        return torch.softmax((theta + shift) / temperature, 0)
    assert estimator == "gumbel_rao"
    total = torch.zeros_like(theta)
    z = constant.exp().sum()
    for each in more:
        e = torch.exp(-each)  # exponential variables
        y = -torch.log(e / constant.exp() + e[d] / z)
        y[d] = torch.log(z) - torch.log(e[d])
        noise = y - constant
        total = total + torch.softmax((theta + noise) / temperature, 0)
    return total / len(more)


def estimated(
    estimator: str,
    parts: tuple[int, ...],
    logits: Tensor,
    noise: Tensor,
    temperature: float,
    gap: float = 1.0,
    more: Tensor | None = None,
) -> Tensor:
    """Codes [B, a] whose value is the drawn one-hots; ``more``: [K, B, a]."""
    rows = []
    for b in range(len(logits)):
        codes, start = [], 0
        for n in parts:
            span = slice(start, start + n)
            theta, g = logits[b, span], noise[b, span]
            soft = soft_of(estimator, theta, g, temperature, gap, None if more is None else more[:, b, span])
            hard = torch.zeros_like(theta)
            hard[int((theta + g).argmax())] = 1.0
            codes.append(hard + soft - soft.detach())
            start += n
        rows.append(torch.cat(codes))
    return torch.stack(rows)
