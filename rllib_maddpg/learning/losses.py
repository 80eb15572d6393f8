"""The paper's equations as functions of tensors (Lowe et al. 2017, equations 5 and 6, Algorithm 1). No Ray here.

Shapes: B rows, n agents of each of G modules. `acts` is 1.0 where the agent chose its action and learns from the row.
Sums over a whole batch are divided by `count`, the number of agent rows of the module that count, so that shards of a batch add
up to its loss.
Numbers that a module may have for itself, such as gamma, are tensors `[G, 1, 1]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CRITIC_LOSSES = ("mse", "huber")


def td_target(reward: Tensor, terminated: Tensor, gamma: Tensor, next_q: Tensor) -> Tensor:
    """y = r + gamma (1 - terminated) Q'(x', a'_1 ... a'_N), all `[G, n, B]`. Truncation is not termination.

    For x' n steps after x, r is the discounted sum of n rewards, and gamma is gamma^n.
    """
    return reward + gamma * (1.0 - terminated) * next_q


def squared_error(q: Tensor, target: Tensor) -> Tensor:
    """(q - target)^2."""
    return (q - target).square()


def huber_error(q: Tensor, target: Tensor, delta: Tensor) -> Tensor:
    """Half the squared error, and from |q - target| = delta on linear."""
    error = (q - target).abs()
    return torch.where(error <= delta, 0.5 * error.square(), delta * (error - 0.5 * delta))


def critic_loss(error: Tensor, acts: Tensor, count: Tensor) -> Tensor:
    """Mean error of the agents that act, `[G]` (equation 6).

    Args:
        error: `squared_error` or `huber_error`, `[G, n, B]`.
        acts: `[G, n, B]`; times the weights of rows, where they have any.
        count: `[G]`.
    """
    return masked_mean(error, acts, count)


def masked_mean(value: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Sum over agents and rows of `[G, n, B]` times `mask`, over `count`, `[G]` or `[1]`: `[G]`."""
    return (value * mask).sum((-2, -1)) / count


def actor_loss(
    q: Tensor, output: Tensor, acts: Tensor, count: Tensor, output_reg: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """-Q with the agent's own action from its current actor (equation 5), plus a pull of the head output to zero.

    Args:
        q: Q_i(x, a_1 ... mu_i(o_i) ... a_N) `[G, n, B]`.
        output: Head output (logits or pre-tanh) `[G, n, B, dim]`.
        acts: `[G, n, B]`; times the weights of rows, where they have any.
        count: `[G]`.
        output_reg: Weight of mean(output^2), 1e-3 in the paper's released code.
        allowed: Which actions the agent might have chosen, bool `[G, n, B, dim]`: the mean is over these; None: over all. Head
            outputs of others are zero (`without_masked`).
    """
    squares = output.square()
    size = squares.mean(-1) if allowed is None else squares.sum(-1) / allowed.sum(-1)
    return masked_mean(output_reg * size - q, acts, count)


def without_masked(output: Tensor, allowed: Tensor | None) -> Tensor:
    """Head outputs `[..., dim]` with zeros for actions that are not allowed; None: all are."""
    return output if allowed is None else output.masked_fill(~allowed, 0.0)


@torch.no_grad()
def polyak_update(targets: Sequence[Tensor], sources: Sequence[Tensor], tau: Tensor, skip: Tensor | None = None) -> None:
    """theta' <- tau theta + (1 - tau) theta', in place (Algorithm 1, last line).

    Args:
        targets, sources: Parameters of G networks of one shape, each `[G, ...]`.
        tau: `[G]`; 0 leaves a target as it is.
        skip: Without dimensions, or `[G]`; above 0: targets are left as they are, whatever is in the sources.
    """
    if skip is not None:
        # Not by a tau of 0, for 0 times NaN is NaN.
        skip = skip > 0.0
        sources = [torch.where(_beside(target, skip), target, s) for target, s in zip(targets, sources, strict=True)]
    torch._foreach_lerp_(list(targets), list(sources), [_beside(target, tau) for target in targets])


def _beside(tensor: Tensor, numbers: Tensor) -> Tensor:
    """Numbers `[G]`, or a single one, to be broadcast over a tensor `[G, ...]`."""
    return numbers.view(-1, *[1] * (tensor.dim() - 1))


@torch.no_grad()
def clip_gradients(grads: Sequence[Tensor], clip: Tensor, by: str) -> Tensor:
    """Clips the gradients of G networks in place, each network by itself, and returns their norms before clipping, `[G]`.

    Args:
        grads: Gradients of G networks of one shape, each `[G, ...]`.
        clip: Largest norm (or value), `[G]`; infinity: no clipping.
        by: "global_norm" (all tensors of a network together), "norm" (each tensor by itself) or "value" (each element).
    """
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads]
    total = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    scales = [clip] * len(grads)
    if by != "value":
        scales = [((norm + 1e-6).reciprocal() * clip).clamp(max=1.0) for norm in (norms if by == "norm" else [total])]
        scales = scales if by == "norm" else scales * len(grads)
    for grad, scale in zip(grads, scales, strict=True):
        scale = scale.view(-1, *[1] * (grad.dim() - 1))
        if by == "value":
            grad.clamp_(-scale, scale)
        else:
            grad.mul_(scale)
    return total


def check_shape(value: Any, shape: Sequence[int], hook: str) -> Tensor:
    """What a hook returned, if it is a tensor of this shape.

    Raises:
        ValueError: Naming the hook.
    """
    if not isinstance(value, Tensor) or value.shape != tuple(shape):
        found = f"shape {[*value.shape]}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise ValueError(f"`{hook}` returned what has {found}. It must be a tensor of shape {[*shape]}; see its docstring.")
    return value
