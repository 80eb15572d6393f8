"""The file formats: from an `ActorProgram` to the bytes of its file."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rllib_maddpg.deploy.program import ActorProgram
from rllib_maddpg.modules.images import ImageEncoder, ImageNetwork, is_plain_image_network
from rllib_maddpg.modules.networks import ACTIVATIONS, MLP
from rllib_maddpg.modules.normalizing import LIMIT
from rllib_maddpg.modules.stacking import is_plain_mlp

# Of the observations that a program is traced with; not 1, which torch would take for a constant.
_TRACED_BATCH = 2
_NAMES = {type(make()): name for name, make in ACTIVATIONS.items() if name != "swish"}  # "silu" by another name


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        suffix: Of its files.
        packages: What is imported to write and check it, beside the package's own requirements.
        encode: Program -> content of its file.
    """

    suffix: str
    packages: tuple[str, ...]
    encode: Callable[[ActorProgram], bytes]

    def require(self, name: str) -> None:
        """Refuses where a package is missing.

        Raises:
            ValueError: Naming it, and how to install it.
        """
        for package in self.packages:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ValueError(
                    f"--format {name} needs the package {package}, which cannot be imported ({error}). Install it: "
                    "pip install rllib-maddpg[export]"
                ) from error


def to_onnx(program: ActorProgram) -> bytes:
    """An ONNX model with a batch axis of any size; inputs are named as in the manifest, the output is `action`."""
    batch = torch.export.Dim("batch")
    with _quiet():
        exported = torch.onnx.export(
            program,
            program.example(_TRACED_BATCH),
            dynamo=True,
            dynamic_shapes=(tuple({0: batch} for _ in program.inputs),),
            input_names=[spec["name"] for spec in program.inputs],
            output_names=["action"],
            verbose=False,
        )
    return exported.model_proto.SerializeToString()


def to_torchscript(program: ActorProgram) -> bytes:
    """A traced torch.jit program."""
    file = io.BytesIO()
    with _quiet():
        torch.jit.save(torch.jit.trace(program, program.example(_TRACED_BATCH)), file)
    return file.getvalue()


def to_safetensors(program: ActorProgram) -> bytes:
    """The weights alone; `describe_network` and the manifest have the rest.

    Raises:
        ValueError: If the actor is neither an `MLP` nor one that sees images by RLlib's encoder.
    """
    from safetensors.torch import save

    describe_network(program)
    mlp, convolutions = _parts(program.actor)
    weights: dict[str, torch.Tensor] = {}
    for prefix, layers in {"": mlp.linears, "norm_": mlp.norms}.items():
        for i, layer in enumerate(layers):
            weights.update({f"{i}.{prefix}{name}": p.detach().contiguous() for name, p in layer.named_parameters()})
    for i, layer in enumerate(convolutions):
        weights.update({f"conv_{i}.{name}": p.detach().contiguous() for name, p in layer.named_parameters()})
    if program.obs_filter is not None:
        weights.update(program.obs_filter.named_buffers(prefix="obs"))
    return save(weights, metadata={"format": "pt"})


def describe_network(program: ActorProgram) -> dict[str, Any]:
    """What the weights do not tell of an `MLP`, or of a CNN with an MLP behind it.

    Raises:
        ValueError: If the actor is something else.
    """
    mlp, _ = _parts(program.actor)
    widths = [mlp.linears[0].in_features, *(layer.out_features for layer in mlp.linears)]
    network = {"activation": _NAMES[type(mlp.activation)], "widths": widths}
    if mlp.norms:
        network["layer_norm"] = mlp.norms[0].eps
    if program.obs_filter is not None:
        network["obs_limit"] = LIMIT
    if isinstance(program.actor, ImageNetwork):
        network["image"] = _describe_encoder(program.actor.features.encoders[0])
    return network


def _parts(actor: nn.Module) -> tuple[MLP, list[nn.Conv2d]]:
    """The MLP of an actor, and the convolutions ahead of it, if it sees images.

    Raises:
        ValueError: As `describe_network`.
    """
    sees_image = is_plain_image_network(actor) and len(actor.features.encoders) == 1
    mlp = actor.mlp if sees_image else actor
    if not is_plain_mlp(mlp) or mlp._forward_hooks or mlp._forward_pre_hooks or type(mlp.activation) not in _NAMES:
        raise ValueError(
            f"The actor is a {type(actor).__name__} of your own, and safetensors holds weights only, which say nothing of how "
            "it computes. Use --format onnx or --format torchscript, which trace it."
        )
    layers = actor.features.encoders[0].net.modules() if sees_image else ()
    return mlp, [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _describe_encoder(encoder: ImageEncoder) -> dict[str, Any]:
    """Pixels become (value - low) * scale; a layer has its padding (left, right, top, bottom) and strides (height, width)."""
    layers: list[dict[str, Any]] = []
    padding, activation = [0, 0, 0, 0], "linear"
    for layer in encoder.net[0].cnn:
        if isinstance(layer, nn.ZeroPad2d):
            padding = list(layer.padding)
        elif isinstance(layer, nn.Conv2d):
            layers.append({"padding": padding, "strides": list(layer.stride)})
            padding = [0, 0, 0, 0]
        else:
            activation = _NAMES[type(layer)]  # the same behind all layers
    return {"low": encoder.low, "scale": encoder.scale, "activation": activation, "layers": layers}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what torch has to say about itself: deprecations, and operators of packages that nobody uses here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), to_onnx),
    "torchscript": Format(".pt", (), to_torchscript),
    "safetensors": Format(".safetensors", ("safetensors",), to_safetensors),
}
