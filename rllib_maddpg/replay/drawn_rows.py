"""How stored rows become drawn ones, which have columns of their own.

n-step returns (Sutton 1988; Mnih et al. 2016) need what came after a row. That is read from the ring when rows are drawn, and
not summed up before: so the discount may change, or differ between modules, after rows were stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_maddpg.replay.links import EpisodeLinks
from rllib_maddpg.rows.drawn_columns import LATER_REWARDS, STEPS, columns_at_next, most_steps
from rllib_maddpg.rows.schema import RowSchema


class DrawnRows:
    """Makes whole rows of a schema of those that a ring has.

    The x' of a row is up to n steps after its x: the episode's end, a step in which an agent is truncated, and the newest row
    that is known of the episode end it earlier. What is said of x', and of the step that leads to it, is that of the last step,
    but an agent is terminated if it is in any of them.

    Attributes:
        n: Most steps from x to x'.
    """

    def __init__(self, schema: RowSchema, ring: Tensor, links: EpisodeLinks | None):
        """
        Args:
            schema: Of drawn rows.
            ring: Stored rows, `[capacity, row_width of the stored ones]`.
            links: Between these, where n is more than 1.
        """
        self.n = most_steps(schema)
        self._schema, self._links, self._columns = schema, links, schema.split(ring)
        self._stored_width = schema.stored.row_width
        self._added = torch.from_numpy(schema.empty()[self._stored_width :]).to(ring.device)

    def __call__(self, ring: Tensor, places: Tensor) -> Tensor:
        """The rows at these places: `[B, row_width]`.

        Args:
            ring: The stored rows.
            places: int64 `[B]`, on the ring's device.
        """
        stored = ring.index_select(0, places)
        if not len(self._added):
            return stored
        rows = torch.cat([stored, self._added.expand(len(places), -1)], -1)
        if self.n > 1:
            self._look_ahead(ring, places, rows)
        return rows

    def _look_ahead(self, ring: Tensor, places: Tensor, rows: Tensor) -> None:
        schema, (window, steps) = self._schema, self._links.windows(places, self.n)
        columns, last = schema.split(rows), schema.stored.split(ring.index_select(0, window[-1]))
        ended = columns["terminateds"].clone()
        # Whole rows of the steps between would be more to read than these two columns.
        rewards, ends = (self._columns[name][window[1:]] for name in ("rewards", "terminateds"))
        later = columns[LATER_REWARDS].unflatten(-1, (-1, self.n - 1))
        for k in range(self.n - 1):
            is_there = (steps > k + 1).unsqueeze(-1)
            # An agent whose part is over gets nothing more, should it come back.
            later[:, :, k] = rewards[k] * (is_there & (ended == 0))
            ended = torch.maximum(ended, ends[k] * is_there)
        for name in columns_at_next(schema):
            columns[name].copy_(last[name])
        columns["terminateds"].copy_(ended)
        columns[STEPS].copy_(steps.unsqueeze(-1))
