"""Networks of equal shape, computed as one: fewer and larger matrix products. No Ray here.

Shapes: G networks, each of which serves n agents on B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rllib_maddpg.networks import MLP


class _StackedLinear(torch.autograd.Function):
    """x W^T + b of G layers at once; like autograd's own, but with contiguous gradients and none that nobody asks for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            torch.bmm(grad, weight) if need_x else None,
            torch.bmm(grad.transpose(1, 2), x) if need_weight else None,
            grad.sum(1) if need_bias else None,
        )


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x `[G, R, in]` (or `[1, R, in]`, the same for all), weight `[G, out, in]`, bias `[G, out]` -> `[G, R, out]`."""
    return _StackedLinear.apply(x.expand(len(weight), -1, -1), weight, bias)


class StackedMLP:
    """G MLPs of one shape.

    The parameters of a layer lie side by side in one tensor, and those of each MLP become views of it: an optimizer or
    `load_state_dict` may go on to write to the MLPs. Whoever gives an MLP new storage (`.double()`, `.to()`) is noticed by
    `is_tied`.

    Attributes:
        parameters: W_1 `[G, out, in]`, b_1 `[G, out]`, W_2 ... as leaf tensors, to be differentiated by.
        is_stacked: True: `parameters` have a first dimension G.
    """

    is_stacked = True

    def __init__(self, mlps: Sequence[MLP]):
        self.activation = mlps[0].activation
        self._first = [mlp.linears[0].weight for mlp in mlps]
        self.parameters: list[Tensor] = []
        for own in zip(*(mlp.parameters() for mlp in mlps), strict=True):
            stacked = torch.stack([p.detach() for p in own])
            for k, param in enumerate(own):
                param.data = stacked[k]
            self.parameters.append(stacked.requires_grad_(own[0].requires_grad))
        self._storage = [p.data_ptr() for p in self._first]

    def is_tied(self) -> bool:
        """Whether the MLPs still lie in this stack."""
        return [p.data_ptr() for p in self._first] == self._storage

    def __call__(self, x: Tensor) -> Tensor:
        """`[G, n, B, in]` -> `[G, n, B, out]`."""
        weight, bias = self.parameters[:2]
        first = stacked_linear(x.flatten(1, 2), weight, bias)
        return self.after_first_layer(first).unflatten(1, x.shape[1:3])

    def after_first_layer(self, x: Tensor, detach: bool = False) -> Tensor:
        """The rest of the network: `[G, R, width]`, before the activation -> `[G, R, out]`.

        Args:
            x: What the first layer gave; overwritten by an activation that works in place.
            detach: True: a gradient goes to `x` only.
        """
        later = [p.detach() for p in self.parameters[2:]] if detach else self.parameters[2:]
        for weight, bias in zip(later[::2], later[1::2], strict=True):
            x = stacked_linear(self.activation(x), weight, bias)
        return x


class SingleNetwork:
    """A network of any kind with the interface of `StackedMLP`; G is 1, and `parameters` are the network's own."""

    is_stacked = False

    def __init__(self, network: nn.Module):
        self.network = network
        self.parameters = list(network.parameters())

    def is_tied(self) -> bool:
        """True: it is the network itself."""
        return True

    def __call__(self, x: Tensor) -> Tensor:
        """`[1, n, B, in]` -> `[1, n, B, out]`."""
        return self.network(x[0]).unsqueeze(0)


def is_plain_mlp(network: nn.Module) -> bool:
    """Whether the network computes what `MLP` computes, so that it may be stacked."""
    # The exact type, because a subclass may compute something else.
    return type(network) is MLP


def shape_of(network: MLP) -> tuple:
    """What MLPs must share to be stacked."""
    return (type(network.activation), *(tuple(linear.weight.shape) for linear in network.linears))
