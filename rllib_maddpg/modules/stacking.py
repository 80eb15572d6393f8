"""Networks of equal shape, computed as one: fewer and larger matrix products. No Ray here.

Shapes: G networks, each of which serves n agents on B rows.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rllib_maddpg.modules.networks import MLP


class _StackedLinear(torch.autograd.Function):
    """x W^T + b of G layers at once; like autograd's own, but without gradients that nobody asks for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            _times(grad, weight) if need_x else None,
            _weight_gradient(grad, x) if need_weight else None,
            grad.sum(1) if need_bias else None,
        )


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products of G pairs; a critic's last layer has one output, for which the product is slower than it should be."""
    return a * b if a.shape[-1] == 1 else torch.bmm(a, b)


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad^T x of one layer or of G. BLAS takes up to five times as long for a tall result as for a wide one."""
    product = torch.mm if x.dim() == 2 else torch.bmm  # which would copy an x that is part of wider rows
    return product(x.mT, grad).mT if x.shape[-1] < grad.shape[-1] else product(grad.mT, x)


class _WideLinear(torch.autograd.Function):
    """x W^T + b of G layers on one and the same x, as one wide product, which takes a sixth less time than G narrow ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, columns: Tensor | None) -> Tensor:
        groups, out, ctx.width = weight.shape
        ctx.save_for_backward(x, columns)
        ctx.groups = groups
        wide = weight.reshape(groups * out, -1)
        wide = wide if columns is None else wide.index_select(1, columns)
        # Of the shape [G, B, out], but in memory row by row. No view, because what follows may write into it.
        y = torch.empty_strided((groups, len(x), out), (out, groups * out, 1), dtype=x.dtype, device=x.device)
        torch.addmm(bias.flatten(), x, wide.t(), out=y.transpose(0, 1).view(len(x), -1))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x, columns = ctx.saved_tensors
        wide = grad.transpose(0, 1).reshape(len(x), -1)
        weight = _weight_gradient(wide, x)
        if columns is not None:
            picked, weight = weight, weight.new_zeros(len(weight), ctx.width)
            weight.scatter_(1, columns.expand(len(weight), -1), picked)
        return None, weight.unflatten(0, (ctx.groups, -1)), wide.sum(0).view(ctx.groups, -1), None


class _ReLULayers(torch.autograd.Function):
    """relu, linear, relu, linear ... of G networks: all layers after the first.

    Written out, because at these sizes calls and passes over memory take as long as the products: what lies between two layers
    is overwritten by its activation, and so is its gradient. `python -m benchmarks gradients` says what it brings:
    some 10 % of an update with 3 agents.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        # Autograd is not told that x is overwritten: the layer that made it does not need it, and nobody else has it.
        ctx.shape = x.shape
        y, hidden = _relu_layers(x, parameters)
        ctx.save_for_backward(*hidden, *parameters[::2])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        gradients: list[Tensor | None] = [None] * (2 * layers)
        for i in reversed(range(layers)):
            hidden, weight = ctx.saved_tensors[i], ctx.saved_tensors[layers + i]
            if ctx.needs_input_grad[1 + 2 * i]:
                gradients[2 * i], gradients[2 * i + 1] = _weight_gradient(grad, hidden), grad.sum(1)
            grad = _times(grad, weight)
            torch.ops.aten.threshold_backward.grad_input(grad, hidden, 0, grad_input=grad)
        return grad.view(ctx.shape), *gradients


def _relu_layers(x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Output, and what went into each linear layer."""
    hidden = []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        hidden.append(x.relu_().reshape(len(weight), -1, x.shape[-1]))
        x = torch.baddbmm(bias.unsqueeze(1), hidden[-1], weight.transpose(1, 2))
    return x, hidden


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x `[G, R, in]`, weight `[G, out, in]`, bias `[G, out]` -> `[G, R, out]`."""
    return _StackedLinear.apply(x, weight, bias)


def wide_linear(x: Tensor, weight: Tensor, bias: Tensor, columns: Tensor | None = None) -> Tensor:
    """x `[R, in]`, the same for all, weight `[G, out, in]`, bias `[G, out]` -> `[G, R, out]`; no gradient goes to x.

    Args:
        columns: If x has been left only some of its columns, their numbers.
    """
    return _WideLinear.apply(x, weight, bias, columns)


def wide_linear_of_games(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x `[S, R, in]`, weight `[S * G, out, in]`, bias `[S * G, out]` -> `[S * G, R, out]`: the same x for G layers."""
    games, out = len(x), weight.shape[1]
    y = stacked_linear(x, weight.unflatten(0, (games, -1)).flatten(1, 2), bias.reshape(games, -1))
    return y.unflatten(-1, (-1, out)).transpose(1, 2).flatten(0, 1)


class StackedParameters:
    """The parameters of G networks of one shape, side by side.

    Each becomes one tensor, and those of each network views of it: an optimizer or `load_state_dict` may go on to write to the
    networks. Whoever gives a network new parameters or new storage (`.double()`, `.to()`, `load_state_dict(assign=True)`) is
    noticed by `is_tied`.

    Attributes:
        parameters: `[G, ...]` each, in the order of the networks' own, as leaf tensors, to be differentiated by.
        is_stacked: True: `parameters` have a first dimension G.
    """

    is_stacked = True

    def __init__(self, networks: Sequence[nn.Module]):
        # Where each parameter stands, which is quicker to ask than the networks.
        self._places = [
            (module._parameters, name)
            for network in networks
            for module in network.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
        self.parameters: list[Tensor] = []
        for own in zip(*(network.parameters() for network in networks), strict=True):
            stacked = torch.stack([p.detach() for p in own])
            for k, param in enumerate(own):
                param.data = stacked[k]
            self.parameters.append(stacked.requires_grad_(own[0].requires_grad))
        self._storage = self._pointers()

    def move_to(self, tensors: Sequence[Tensor]) -> None:
        """Lets the parameters lie in other tensors of their shapes, to which their values are copied."""
        for i, (old, new) in enumerate(zip(self.parameters, tensors, strict=True)):
            new.copy_(old.detach())
            for k, (parameters, name) in enumerate(self._places[i :: len(tensors)]):
                parameters[name].data = new[k]
        self.parameters = [new.requires_grad_(old.requires_grad) for old, new in zip(self.parameters, tensors, strict=True)]
        self._storage = self._pointers()

    def repeated(self, times: int) -> Self:
        """So many copies of these networks, one after the other, that no network has."""
        new = copy.copy(self)
        new.parameters = [
            p.detach().repeat(times, *[1] * (p.dim() - 1)).requires_grad_(p.requires_grad) for p in self.parameters
        ]
        new._places, new._storage = [], []
        return new

    def is_tied(self) -> bool:
        """Whether the networks still lie in this stack."""
        return self._pointers() == self._storage

    def _pointers(self) -> list[int]:
        return [parameters[name].data_ptr() for parameters, name in self._places]


class StackedMLP(StackedParameters):
    """G MLPs of one shape.

    Attributes:
        parameters: W_1 `[G, out, in]`, b_1 `[G, out]`, W_2 ... With layer norm its gains and shifts, `[G, out]` each, come
            behind those of the layer that they normalize.
    """

    def __init__(self, mlps: Sequence[MLP]):
        self.activation = mlps[0].activation
        self._has_norms = bool(mlps[0].norms)
        super().__init__(mlps)

    @property
    def kind(self) -> Hashable:
        """What stacks of equally large parameters must share to compute the same."""
        return type(self), type(self.activation)

    def __call__(self, x: Tensor, detach: bool = False) -> Tensor:
        """`[G, n, B, in]` -> `[G, n, B, out]`; with `detach` a gradient goes to `x` only."""
        weight, bias = (p.detach() for p in self.parameters[:2]) if detach else self.parameters[:2]
        first = stacked_linear(x.flatten(1, 2), weight, bias)
        return self.after_first_layer(first, detach).unflatten(1, x.shape[1:3])

    def of_all(self, x: Tensor) -> Tensor:
        """What all networks make of the same `[R, in]`; those of S games of their part of `[S, R, in]`: `[G, R, out]`.

        No gradient goes to x.
        """
        linear = wide_linear if x.dim() == 2 else wide_linear_of_games
        return self.after_first_layer(linear(x, *self.parameters[:2]))

    def after_first_layer(self, x: Tensor, detach: bool = False) -> Tensor:
        """The rest of the network.

        Args:
            x: What the first layer gave, before the activation, which overwrites it: `[G, R, width]`, or with the rows of
                each network in more dimensions.
            detach: True: a gradient goes to `x` only.

        Returns:
            `[G, R, out]`.
        """
        later = [p.detach() for p in self.parameters[2:]] if detach else self.parameters[2:]
        if self._has_norms:
            return self._normalized_layers(x, later)
        if isinstance(self.activation, nn.ReLU) and later:
            return _ReLULayers.apply(x, *later) if torch.is_grad_enabled() else _relu_layers(x, later)[0]
        for weight, bias in zip(later[::2], later[1::2], strict=True):
            x = self.activation(x)
            x = stacked_linear(x.reshape(len(weight), -1, x.shape[-1]), weight, bias)
        return x

    def _normalized_layers(self, x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """norm, activation, linear, norm ... of G networks: all layers after the first."""
        for gain, shift, weight, bias in zip(*(parameters[k::4] for k in range(4)), strict=True):
            beside = len(gain), *[1] * (x.dim() - 2), -1
            plain = functional.layer_norm(x, x.shape[-1:])
            x = self.activation(torch.addcmul(shift.view(beside), plain, gain.view(beside)))
            x = stacked_linear(x.reshape(len(weight), -1, x.shape[-1]), weight, bias)
        return x


class SingleNetwork:
    """A network of any kind with the interface of `StackedMLP`; G is 1, and `parameters` are the network's own."""

    is_stacked = False

    def __init__(self, network: nn.Module):
        self.network = network
        self.parameters = list(network.parameters())  # also those that require no gradient, as all of a target do

    def is_tied(self) -> bool:
        """True: it is the network itself."""
        return True

    def __call__(self, x: Tensor) -> Tensor:
        """`[1, n, B, in]` -> `[1, n, B, out]`."""
        return self.network(x[0]).unsqueeze(0)

    def of_all(self, x: Tensor) -> Tensor:
        """`[R, in]` -> `[1, R, out]`."""
        return self.network(x).unsqueeze(0)


def is_plain_mlp(network: nn.Module) -> bool:
    """Whether the network computes what `MLP` computes, so that it may be stacked."""
    # The exact types, because a subclass may compute something else.
    if type(network) is not MLP:
        return False
    layers = list(network.layers)
    step = 3 if network.norms else 2
    linears, norms, activations = layers[::step], layers[1::3] if step == 3 else [], layers[step - 1 :: step]
    plain = all(type(layer) is nn.Linear for layer in linears) and all(map(_is_plain_norm, norms))
    plain &= not any(hasattr(layer, "parametrizations") for layer in layers)
    plain &= len(layers) % step == 1 and all(layer is network.activation for layer in activations)
    return plain and not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _is_plain_norm(layer: nn.Module) -> bool:
    return type(layer) is nn.LayerNorm and layer.bias is not None and layer.eps == nn.LayerNorm(1).eps


def layers_of(network: MLP) -> list[nn.Module]:
    """The layers with parameters, in order."""
    return [layer for layer in network.layers if isinstance(layer, (nn.Linear, nn.LayerNorm))]


def shape_of(network: MLP) -> tuple:
    """What MLPs must share to be stacked."""
    tensors = [(tuple(p.shape), p.dtype, p.requires_grad) for layer in layers_of(network) for p in (layer.weight, layer.bias)]
    return (type(network.activation), *tensors)
