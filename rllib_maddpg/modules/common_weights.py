"""One set of weights for the networks of several modules. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class CommonWeights:
    """Networks of one shape, of several modules, that have one set of weights: parameters of all lie where the first one's do.

    So each module has a network as any other, in checkpoints, too, and no two of them can drift apart. Whoever gives one of
    them parameters or storage of its own is noticed by `is_tied`.

    Attributes:
        network: The first one, which is computed.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        self.network = networks[0]
        self._networks = list(networks)
        for others in self._sets():
            for other in others[1:]:
                other.data = others[0].data
        self._storage = self._pointers()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those of the first network."""
        return list(self.network.parameters())

    def is_tied(self) -> bool:
        """Whether the networks still have one set of weights."""
        return self._pointers() == self._storage

    def _sets(self) -> list[tuple[nn.Parameter, ...]]:
        return list(zip(*(network.parameters() for network in self._networks), strict=True))

    def _pointers(self) -> list[int]:
        return [p.data_ptr() for own in self._sets() for p in own]
