"""Actor and critic networks: plain MLPs, described by RLlib's `model_config` keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # what it gets is needed nowhere else
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
}


class MLP(nn.Module):
    """Fully connected network with a linear output layer.

    Weights start from torch's default `nn.Linear` initialization; the last layer is scaled by `final_scale`, which keeps
    a fresh tanh actor away from its saturated ends (Lillicrap et al. 2016, section 7, take small final layers for that reason).

    With `layer_norm` each hidden layer's numbers are normalized before the activation (Ba et al. 2016, arXiv 1607.06450).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hiddens: Sequence[int] = (64, 64),
        activation: str = "relu",
        final_scale: float = 1.0,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.activation = ACTIVATIONS[activation]()
        layers: list[nn.Module] = []
        for width in hiddens:
            norms = [nn.LayerNorm(width)] if layer_norm else []
            layers += [nn.Linear(in_dim, width), *norms, self.activation]
            in_dim = width
        final = nn.Linear(in_dim, out_dim)
        if final_scale != 1.0:
            final.weight.data.mul_(final_scale)
            final.bias.data.mul_(final_scale)
        self.layers = nn.Sequential(*layers, final)

    @property
    def linears(self) -> list[nn.Linear]:
        """The linear layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def norms(self) -> list[nn.LayerNorm]:
        """The normalizations behind all linear layers but the last; none without `layer_norm`."""
        return [layer for layer in self.layers if isinstance(layer, nn.LayerNorm)]

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_dim]` -> `[..., out_dim]`."""
        return self.layers(x)
