"""The baseline's update from rows on the device: drawn, sliced and learned from there; eagerly, or all of it in a CUDA graph.

What is fair here:

- The arithmetic is that of `BareMADDPG.learn`, the same code in both ways.
- Row numbers come from torch's own generator on the device, so that the host has nothing to do for a graph but to start it.
- Nobody looks at the result: no check for NaN, no metrics, and no wait for one update before the next one is started.
- In the graph Adam is fused, with its rate and clock on the device; eagerly it is Adam as it comes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.bare_update import COLUMNS, BareMADDPG
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema

_WARM_UPS = 3


class BareFromRows:
    """Updates from a ring of rows.

    Attributes:
        bare: The networks that learn.
    """

    def __init__(self, bare: BareMADDPG, schema: RowSchema, rows: Tensor, batch: int):
        """
        Args:
            bare: The networks, on the device of the rows.
            schema: The columns of a row.
            rows: All rows, `[rows, row_width]`.
            batch: Rows of an update.
        """
        self.bare, self._rows = bare, rows
        self._places = torch.zeros(batch, dtype=torch.int64, device=rows.device)
        # Where in a row an agent's share of a column lies: found by a row that holds its own column numbers.
        numbers = JointBatch(schema, torch.arange(schema.row_width, dtype=torch.float32)[None]).modules
        found = {a: {c: numbers[a][c].flatten().int().tolist() for c in COLUMNS} for a in bare.agents}
        self._places_in_row = {a: {c: slice(x[0], x[-1] + 1) for c, x in own.items()} for a, own in found.items()}

    def update(self) -> None:
        """An update on rows drawn uniformly with replacement."""
        torch.randint(0, len(self._rows), self._places.shape, out=self._places)
        self._learn()

    def update_at(self, places: Tensor) -> None:
        """An update on these rows, `[batch]`."""
        self._places.copy_(places)
        self._learn()

    def _learn(self) -> None:
        drawn = self._rows.index_select(0, self._places)
        self.bare.learn({a: {c: drawn[:, at] for c, at in own.items()} for a, own in self._places_in_row.items()})


class BareGraph(BareFromRows):
    """The same as one CUDA graph. Its networks need `capturable=True`."""

    def __init__(self, bare: BareMADDPG, schema: RowSchema, rows: Tensor, batch: int):
        super().__init__(bare, schema, rows, batch)
        params = [p for nets in bare.nets.values() for net in nets.values() for p in net.parameters()]
        start = [p.detach().clone() for p in params]
        _warm_up(super().update)
        self._drawing, self._given = _captured(super().update), _captured(self._learn)
        # What the warm-up has done is undone, in place.
        with torch.no_grad():
            torch._foreach_copy_(params, start)
        for optimizers in bare.optimizers.values():
            for optimizer in optimizers.values():
                for state in optimizer.state.values():
                    for value in state.values():
                        value.zero_()

    def update(self) -> None:
        self._drawing.replay()

    def update_at(self, places: Tensor) -> None:
        self._places.copy_(places)
        self._given.replay()


def _warm_up(work: Callable[[], None]) -> None:
    """On another stream, as torch wants it before a capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)


def _captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph
