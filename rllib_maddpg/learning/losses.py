"""The paper's equations as functions of tensors (Lowe et al. 2017, equations 5 and 6, Algorithm 1). No Ray here.

Shapes: B rows, n agents of each of G modules. `alive` is 1.0 where the agent took part in the row. Sums over a whole batch
are divided by `count`, the number of agent rows of the module that count, so that shards of a batch add up to its loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CRITIC_LOSSES = ("mse", "huber")


def td_target(reward: Tensor, terminated: Tensor, gamma: float, next_q: Tensor) -> Tensor:
    """y = r + gamma (1 - terminated) Q'(x', a'_1 ... a'_N), all `[G, n, B]`. Truncation is not termination."""
    return reward + gamma * (1.0 - terminated) * next_q


def critic_loss(q: Tensor, target: Tensor, alive: Tensor, count: Tensor, kind: str = "mse", delta: float = 1.0) -> Tensor:
    """Mean squared (or Huber) TD error of the living agents, `[G]` (equation 6).

    Args:
        q, target, alive: `[G, n, B]`.
        count: `[G]`.
        kind: One of `CRITIC_LOSSES`.
        delta: TD error from which the Huber loss is linear.
    """
    error = F.huber_loss(q, target, reduction="none", delta=delta) if kind == "huber" else (q - target).square()
    return (alive * error).sum((-2, -1)) / count


def actor_loss(q: Tensor, output: Tensor, alive: Tensor, count: Tensor, output_reg: float) -> Tensor:
    """-Q with the agent's own action from its current actor (equation 5), plus a pull of the head output to zero.

    Args:
        q: Q_i(x, a_1 ... mu_i(o_i) ... a_N) `[G, n, B]`.
        output: Head output (logits or pre-tanh) `[G, n, B, dim]`.
        alive: `[G, n, B]`.
        count: `[G]`.
        output_reg: Weight of mean(output^2), 1e-3 in the paper's released code.
    """
    return (alive * (output_reg * output.square().mean(-1) - q)).sum((-2, -1)) / count


@torch.no_grad()
def polyak_update(targets: Sequence[Tensor], sources: Sequence[Tensor], tau: float) -> None:
    """theta' <- tau theta + (1 - tau) theta', in place (Algorithm 1, last line)."""
    if targets:
        torch._foreach_lerp_(list(targets), list(sources), tau)


@torch.no_grad()
def clip_gradients(grads: Sequence[Tensor], clip: float | None, by: str) -> Tensor:
    """Clips the gradients of G networks in place, each network by itself, and returns their norms before clipping, `[G]`.

    Args:
        grads: Gradients of G actors or critics of one shape, each `[G, ...]`.
        clip: Largest norm (or value); None: no clipping.
        by: "global_norm" (all tensors of a network together), "norm" (each tensor by itself) or "value" (each element).
    """
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads]
    total = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    if clip is None:
        return total
    if by == "value":
        torch._foreach_clamp_min_(grads, -clip)
        torch._foreach_clamp_max_(grads, clip)
        return total
    scales = [(clip / (norm + 1e-6)).clamp(max=1.0) for norm in (norms if by == "norm" else [total])]
    for k, grad in enumerate(grads):
        grad.mul_(scales[k if by == "norm" else 0].view(-1, *[1] * (grad.dim() - 1)))
    return total


def gumbel_noise(shape: Sequence[int], generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise -log(-log(u)), drawn on the CPU so that every device sees the same numbers."""
    tiny = torch.finfo(torch.float32).tiny
    u = torch.rand(*shape, generator=generator).clamp_(min=tiny, max=1.0 - 2**-24)
    return (-torch.log(-torch.log(u))).to(device=device, dtype=dtype)
