"""Adam (Kingma and Ba 2015, Algorithm 1) of G networks of one shape, each with its own rate and clock. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def adam_of_each(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    steps: Tensor,
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    steps_now: Tensor | None = None,
) -> None:
    """Makes a step, in place.

    Args:
        parameters, gradients, means, squares: `[G, ...]` each.
        steps: The clocks, for each parameter those of all networks, `[number of parameters, G]`.
        lr: Rates, float64 `[G]`.
        betas, eps: Adam's.
        steps_now: Who makes a step, bool `[G]`; all else stays as it is, whatever the gradients are. None: all networks.
    """
    beta1, beta2 = betas
    if steps_now is not None:
        lr = lr * steps_now
    steps += 1 if steps_now is None else steps_now
    # A network that has never made a step has no moments either.
    clocks = steps.double().clamp(min=1.0)
    step_sizes, roots = lr / (1 - beta1**clocks), (1 - beta2**clocks).sqrt()
    for i, (p, gradient, mean, square) in enumerate(zip(parameters, gradients, means, squares, strict=True)):
        shape = -1, *[1] * (p.dim() - 1)
        if steps_now is None:
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        else:
            now = steps_now.view(shape)
            gradient = torch.where(now, gradient, 0.0)  # 0 times NaN is NaN
            now = now.to(p.dtype)
            mean.lerp_(gradient, now * (1 - beta1))
            square.mul_(1 - now * (1 - beta2)).addcmul_(gradient, gradient, value=1 - beta2)
        size, root = (x[i].to(p.dtype).view(shape) for x in (step_sizes, roots))
        p.sub_(size * mean / (square.sqrt() / root + eps))
