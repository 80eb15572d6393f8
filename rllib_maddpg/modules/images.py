"""Networks that see images: RLlib's CNN encoder, and behind it the MLP that everybody has.

An image lies in an observation row by row, `[H * W * C]` numbers. Its encoder gets them scaled to 0 ... 1 by the bounds of its
space, and gives `[features]`; the MLP sees these in place of the image. Where a network sees images of several agents, as
critics do, there is one encoder for each kind of image, whoever observes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core.models.configs import CNNEncoderConfig
from torch import Tensor, nn

from rllib_maddpg.modules.image_filters import default_filters
from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.stacking import is_plain_mlp, shape_of
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.observations import image_shape

# Keys of `model_config` that encoders are made from, RLlib's own; and those by which critics' may differ.
ENCODER_KEYS = (
    "conv_filters",
    "conv_activation",
    "conv_kernel_initializer",
    "conv_kernel_initializer_kwargs",
    "conv_bias_initializer",
    "conv_bias_initializer_kwargs",
)
CRITIC_ENCODER_KEYS = ("critic_conv_filters", "critic_conv_activation")
CONV_KEYS = (*ENCODER_KEYS, *CRITIC_ENCODER_KEYS)


@dataclass(frozen=True)
class ImagePlace:
    """Where an image lies in what a network sees.

    Attributes:
        start: Its first column.
        space: Of its values, a Box of rank 3.
    """

    start: int
    space: gym.spaces.Box

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.space.shape

    @property
    def size(self) -> int:
        """Columns that it takes."""
        return math.prod(self.shape)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that a pixel may have."""
        return float(self.space.low.min()), float(self.space.high.max())


def images_of_agent(layout: JointLayout, module: str) -> list[ImagePlace]:
    """The image that the agents of a module observe, in the observation of one of them; or none."""
    space = layout.slots_of(module)[0].observed
    return [ImagePlace(0, space)] if image_shape(space) else []


def images_of_view(layout: JointLayout, module: str, view: View) -> list[ImagePlace]:
    """The images that a view shows to a network of a module."""
    if not view.observations:
        return []
    if not view.is_shared:
        return images_of_agent(layout, module)
    return [ImagePlace(slot.obs.start, slot.observed) for slot in layout.slots if slot.image]


def encoder_settings(model: Mapping[str, Any], critic: bool) -> dict[str, Any]:
    """Of a `model_config` what the encoders of actors are made from, or those of critics."""
    settings = {key: model[key] for key in ENCODER_KEYS if model.get(key) is not None}
    for key in CRITIC_ENCODER_KEYS if critic else ():
        if model.get(key) is not None:
            settings[key.removeprefix("critic_")] = model[key]
    return settings


class ImageEncoder(nn.Module):
    """RLlib's CNN encoder, for images that lie row by row.

    Attributes:
        width: Number of features.
        low, scale: It sees (pixels - low) * scale.
        net: The encoder, `[R, H, W, C]` -> `[R, features]`.
    """

    def __init__(self, place: ImagePlace, settings: Mapping[str, Any]):
        """
        Args:
            place: One of the images.
            settings: Of `encoder_settings`.
        """
        super().__init__()
        low, high = place.bounds
        self._shape, self.low, self.scale = place.shape, low, 1.0 / (high - low)
        config = CNNEncoderConfig(
            input_dims=list(place.shape),
            cnn_filter_specifiers=settings.get("conv_filters") or default_filters(place.shape),
            cnn_activation=settings.get("conv_activation", "relu"),
            cnn_kernel_initializer=settings.get("conv_kernel_initializer"),
            cnn_kernel_initializer_config=settings.get("conv_kernel_initializer_kwargs"),
            cnn_bias_initializer=settings.get("conv_bias_initializer"),
            cnn_bias_initializer_config=settings.get("conv_bias_initializer_kwargs"),
            cnn_use_layernorm=False,
        )
        self.width: int = config.output_dims[0]
        # Without the dicts around it.
        self.net: nn.Sequential = config.build(framework="torch").net

    @property
    def kind(self) -> Hashable:
        """What encoders of equal parameters must share to compute the same."""
        return self._shape, self.low, self.scale, repr(self.net)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., H * W * C]` -> `[..., features]`."""
        pixels = (x - self.low if self.low else x) * self.scale
        return self.net(pixels.reshape(-1, *self._shape)).reshape(*x.shape[:-1], self.width)


class ImageFeatures(nn.Module):
    """What a network sees, with features in place of images: those of all images first, then all other columns in their order.

    Attributes:
        width: Of the result.
    """

    def __init__(self, in_dim: int, places: Sequence[ImagePlace], settings: Mapping[str, Any]):
        """
        Args:
            in_dim: Width of what the network sees.
            places: Of the images in it, in their order.
            settings: Of `encoder_settings`.
        """
        super().__init__()
        alike: dict[Hashable, list[ImagePlace]] = {}
        for place in places:
            alike.setdefault((place.shape, place.bounds), []).append(place)
        self.encoders = nn.ModuleList(ImageEncoder(own[0], settings) for own in alike.values())
        self._images = [([place.start for place in own], own[0].size) for own in alike.values()]
        starts = [0, *(place.start + place.size for place in places)]
        ends = [*(place.start for place in places), in_dim]
        self._others = [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
        self._sizes = sum(place.size for place in places)
        self._features = sum(
            encoder.width * len(starts) for encoder, (starts, _) in zip(self.encoders, self._images, strict=True)
        )
        self.width = self.width_of(in_dim)

    def width_of(self, dim: int) -> int:
        """Width of what becomes of the first `dim` columns, which have all images."""
        return dim - self._sizes + self._features

    @property
    def kind(self) -> Hashable:
        """As in `ImageEncoder`."""
        return tuple(encoder.kind for encoder in self.encoders), repr(self._images), repr(self._others)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_dim]` -> `[..., width]`."""
        parts = []
        for encoder, (starts, size) in zip(self.encoders, self._images, strict=True):
            parts.append(encoder(_side_by_side(x, starts, size)).flatten(-2))
        return torch.cat([*parts, *(x[..., start:end] for start, end in self._others)], -1)


def _side_by_side(x: Tensor, starts: Sequence[int], size: int) -> Tensor:
    """Images `[..., k, size]` of k places; a view where they lie one behind the other."""
    if list(starts) == list(range(starts[0], starts[0] + len(starts) * size, size)):
        return x[..., starts[0] : starts[0] + len(starts) * size].unflatten(-1, (len(starts), size))
    return torch.stack([x[..., start : start + size] for start in starts], -2)


class ImageNetwork(nn.Module):
    """An MLP that sees features of images: `[..., in_dim]` -> `[..., out_dim]`."""

    def __init__(self, features: ImageFeatures, mlp: MLP):
        super().__init__()
        self.features, self.mlp = features, mlp

    def forward(self, x: Tensor) -> Tensor:
        """Images as they lie in observations, and whatever else there is."""
        return self.mlp(self.features(x))


def with_images(
    make: Callable[[int], MLP], in_dim: int, places: Sequence[ImagePlace], settings: Mapping[str, Any]
) -> MLP | ImageNetwork:
    """A network whose MLP is made by `make`, from the width of its input; the MLP itself, where there are no images.

    Args:
        make: Makes it.
        in_dim: Width of what the network sees.
        places: Of the images in it.
        settings: Of `encoder_settings`.
    """
    if not places:
        return make(in_dim)
    features = ImageFeatures(in_dim, places, settings)
    return ImageNetwork(features, make(features.width))


def is_plain_image_network(network: nn.Module) -> bool:
    """Whether it computes what `ImageNetwork` computes, so that it may be stacked."""
    if type(network) is not ImageNetwork or not is_plain_mlp(network.mlp):
        return False
    return not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def image_kind_of(network: ImageNetwork) -> tuple:
    """What image networks must share to be stacked."""
    tensors = [(tuple(p.shape), p.dtype, p.requires_grad) for p in network.features.parameters()]
    return (network.features.kind, *tensors, *shape_of(network.mlp))
