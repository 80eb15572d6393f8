"""What centralized critics see of a batch, without the columns that hold nothing. No Ray here."""

from __future__ import annotations

import torch
from torch import Tensor

# Values that are worth looking at; and the rows whose products take as long as it takes to pick columns out of the weights.
MIN_VALUES = 2**17
PICKING_COSTS_ROWS = 200


class CriticInputs:
    """(x, a_1 ... a_N) of B rows.

    A column that is zero in all rows adds nothing to a critic's first layer and has no gradient there. Games have many: padded
    observations, messages of agents that are silent, agents that are dead. In `simple_spread` it is up to a third.

    Attributes:
        values: `[B, obs_dim + code_dim of all agents]`.
        columns: Numbers of those that hold something, `[C]`; None: all are taken, since picking some would not pay (small
            batches, few empty columns) or cannot be done (a GPU, a compiled update).
        picked: The values in these columns, `[B, C]`.
    """

    def __init__(self, values: Tensor):
        self.values = values
        self.columns = _worth_picking(values)
        self.picked = values if self.columns is None else values.index_select(1, self.columns)


def _worth_picking(values: Tensor) -> Tensor | None:
    # A GPU would have to be waited for, and a compiled update cannot have shapes that depend on values.
    if values.numel() < MIN_VALUES or values.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    rows, width = values.shape
    columns = (values.abs().amax(0) != 0).nonzero().flatten()  # NaN is something, too
    return columns if (width - len(columns)) * rows > PICKING_COSTS_ROWS * width else None
