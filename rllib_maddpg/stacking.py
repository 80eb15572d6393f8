"""Networks of equal shape, computed as one: fewer and larger matrix products. No Ray here.

Shapes: G networks, each of which serves n agents on B rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rllib_maddpg.networks import MLP


class StackedMLP:
    """G MLPs of one shape.

    The parameters of a layer lie side by side in one tensor, and those of each MLP become views of it: an optimizer or
    `load_state_dict` may go on to write to the MLPs. Whoever gives an MLP new storage (`.double()`, `.to()`) is noticed by
    `is_tied`.

    Attributes:
        parameters: W_1 `[G, out, in]`, b_1 `[G, out]`, W_2 ... as leaf tensors, to be differentiated by.
    """

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
        first = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, 2), weight.transpose(1, 2))
        return self.after_first_layer(first.unflatten(1, x.shape[1:3]))

    def after_first_layer(self, x: Tensor, detach: bool = False) -> Tensor:
        """The rest of the network: `[G, n, B, width]`, before the activation -> `[G, n, B, out]`.

        Args:
            x: What the first layer gave.
            detach: True: a gradient goes to `x` only.
        """
        agents = x.shape[1:3]
        x = x.flatten(1, 2)
        later = [p.detach() for p in self.parameters[2:]] if detach else self.parameters[2:]
        for weight, bias in zip(later[::2], later[1::2], strict=True):
            x = torch.baddbmm(bias.unsqueeze(1), self.activation(x), weight.transpose(1, 2))
        return x.unflatten(1, agents)

    @staticmethod
    def gradients_of(k: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Of gradients by `parameters` those of MLP number k, in the order of its own parameters."""
        return [gradient[k] for gradient in gradients]


class SingleNetwork:
    """A network of any kind with the interface of `StackedMLP`; G is 1."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.parameters = list(network.parameters())

    def is_tied(self) -> bool:
        """True: it is the network itself."""
        return True

    def __call__(self, x: Tensor) -> Tensor:
        """`[1, n, B, in]` -> `[1, n, B, out]`."""
        return self.network(x[0]).unsqueeze(0)

    @staticmethod
    def gradients_of(k: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients themselves."""
        return list(gradients)


def is_plain_mlp(network: nn.Module) -> bool:
    """Whether the network computes what `MLP` computes, so that it may be stacked."""
    return type(network) is MLP


def shape_of(network: MLP) -> tuple:
    """What MLPs must share to be stacked."""
    return (type(network.activation), *(tuple(linear.weight.shape) for linear in network.linears))
