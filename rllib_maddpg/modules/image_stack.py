"""Image networks of equal shape as one. Each row's images go through an encoder once, however many agents are judged by them.

The encoders run one after the other, since each has other weights; what they give is the input of the networks' MLPs, which are
computed as those of any other networks (`stacking`, `critics`).

Shapes: G networks, each of which serves n agents on B rows; S games whose networks lie one game after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rllib_maddpg.modules.critic_inputs import CriticInputs, SeparateInputs, SlotInputs
from rllib_maddpg.modules.critics import StackedCritics, StackedOwnCritics
from rllib_maddpg.modules.images import ImageFeatures, ImageNetwork
from rllib_maddpg.modules.stacking import StackedMLP, StackedParameters
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.schema import RowSchema

Inputs = CriticInputs | SlotInputs | SeparateInputs | Tensor


class StackedFeatures(StackedParameters):
    """What encoders of G networks make of images."""

    def __init__(self, features: Sequence[ImageFeatures]):
        super().__init__(features)
        # Computes with whatever parameters it is given; its own are of no use.
        self._network: nn.Module = copy.deepcopy(features[0])
        self._names = [name for name, _ in features[0].named_parameters()]

    @property
    def kind(self) -> Hashable:
        """As in `StackedMLP`."""
        return self._network.kind

    def __call__(self, x: Tensor) -> Tensor:
        """`[S, ..., in]` -> `[G, ..., width]`, where each of S parts is what G / S networks see."""
        each = len(self.parameters[0]) // len(x)
        own = zip(*(p.unbind() for p in self.parameters), strict=True)
        seen = [
            functional_call(self._network, dict(zip(self._names, parameters, strict=True)), (x[k // each],))
            for k, parameters in enumerate(own)
        ]
        return seen[0].unsqueeze(0) if len(seen) == 1 else torch.stack(seen)


class ImageStack:
    """G image networks with the interface of `StackedMLP`; those of critics with that of `StackedCritics` or
    `StackedOwnCritics`."""

    is_stacked = True

    def __init__(self, features: StackedFeatures, head: StackedMLP):
        """
        Args:
            features: Of all networks.
            head: Their MLPs.
        """
        self._features, self._head = features, head

    @classmethod
    def of_actors(cls, networks: Sequence[ImageNetwork]) -> ImageStack:
        """Of networks without a view."""
        return cls(StackedFeatures([n.features for n in networks]), StackedMLP([n.mlp for n in networks]))

    @classmethod
    def of_critics(cls, schema: RowSchema, modules: Sequence[str], networks: Sequence[ImageNetwork], view: View) -> ImageStack:
        """Of networks with a view; arguments as in `StackedCritics`."""
        features, heads = StackedFeatures([n.features for n in networks]), [n.mlp for n in networks]
        if not view.is_shared:
            return cls(features, StackedOwnCritics(heads))
        obs_dim = networks[0].features.width_of(view.obs_dim(schema, modules[0]))
        return cls(features, StackedCritics(schema, modules, heads, view, obs_dim))

    # ------------------------------------------------------------------------------------------ parameters

    @property
    def parameters(self) -> list[Tensor]:
        """Those of the encoders and behind them those of the MLPs, as in `StackedMLP`."""
        return [*self._features.parameters, *self._head.parameters]

    @parameters.setter
    def parameters(self, tensors: Sequence[Tensor]) -> None:
        self._features.parameters, self._head.parameters = self._parts(tensors)

    def _parts(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        number = len(self._features.parameters)
        return list(tensors[:number]), list(tensors[number:])

    @property
    def kind(self) -> Hashable:
        """As in `StackedMLP`."""
        return self._features.kind, self._head.kind

    def move_to(self, tensors: Sequence[Tensor]) -> None:
        """As in `StackedMLP`."""
        of_features, of_head = self._parts(tensors)
        self._features.move_to(of_features)
        self._head.move_to(of_head)

    def repeated(self, times: int) -> ImageStack:
        """As in `StackedMLP`."""
        return ImageStack(self._features.repeated(times), self._head.repeated(times))

    def is_tied(self) -> bool:
        """As in `StackedMLP`."""
        return self._features.is_tied() and self._head.is_tied()

    # ------------------------------------------------------------------------------------------ forward

    def __call__(self, x: Tensor) -> Tensor:
        """`[G, n, B, in]` -> `[G, n, B, out]`."""
        return self._head(self._features(x))

    def of_all(self, x: Tensor) -> Tensor:
        """`[R, in]`, or of S games `[S, R, in]` -> `[G, R, out]`."""
        return self._head.of_all(self._features(x.unsqueeze(0) if x.dim() == 2 else x))

    def q_values(self, inputs: Inputs) -> Tensor:
        """As in the critics: `[G, n, B]`."""
        return self._head.q_values(self._seen(inputs))

    def q_values_with_own(self, inputs: Inputs, own: Tensor) -> Tensor:
        """As in the critics: `[G, n, B]`, to be differentiated by `own`, which no image depends on."""
        with torch.no_grad():
            seen = self._seen(inputs)
        return self._head.q_values_with_own(seen, own)

    def _seen(self, inputs: Inputs) -> SlotInputs | SeparateInputs | Tensor:
        """What critics see, with features in place of images: of each network its own."""
        if isinstance(inputs, Tensor):
            return self._features(inputs)
        if isinstance(inputs, SeparateInputs):
            # Actions lie behind all that features are made of.
            return SeparateInputs(self._seen(inputs.obs), inputs.actions)
        values = inputs.values
        return SlotInputs(self._features(values.unsqueeze(0) if values.dim() == 2 else values))
