"""How stored rows become drawn ones, which have columns of their own.

n-step returns (Sutton 1988; Mnih et al. 2016) need what came after a row. That is read from the ring when rows are drawn, and
not summed up before: so the discount may change, or differ between modules, after rows were stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rllib_maddpg.replay.links import EpisodeLinks
from rllib_maddpg.rows.drawn_columns import LATER_REWARDS, STEPS, columns_at_next, most_steps
from rllib_maddpg.rows.schema import Place, RowSchema, views

_REWARDS, _ENDS = "rewards", "terminateds"


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
        self._schema, self._links = schema, links
        self._columns = {name: column for name, column in schema.stored.split(ring).items() if name in (_REWARDS, _ENDS)}
        self._added = torch.from_numpy(schema.empty()[schema.stored.row_width :]).to(ring.device)
        # What is needed of a last step lies side by side, or nearly: it takes less time to read all that is between.
        at_next = [place for place in schema.stored.places if place.name in (_REWARDS, *columns_at_next(schema))]
        self._first, self._end = at_next[0].start, at_next[-1].start + at_next[-1].words
        self._at_next = [place._replace(start=place.start - self._first) for place in at_next]

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
        window, steps = self._links.windows(places, self.n)
        columns = self._schema.split(rows)
        part = ring[:, self._first : self._end].index_select(0, window[-1])
        last = views_of(part, self._at_next)
        # Of the steps between two columns are read, as `[n - 1, B, N]` with those of the last step.
        between = window[1:-1].flatten()
        rewards, ends = (
            torch.cat([self._columns[name].index_select(0, between), last[name]]).unflatten(0, (self.n - 1, -1))
            for name in (_REWARDS, _ENDS)
        )
        later, ended = columns[LATER_REWARDS].unflatten(-1, (-1, self.n - 1)), columns[_ENDS].clone()
        for k in range(self.n - 1):
            # A window with fewer steps has its last one again and again. An agent whose part is over gets nothing more, should
            # it come back.
            is_there = (steps > k + 1).unsqueeze(-1)
            later[..., k] = rewards[k] * (is_there > ended)
            ended = torch.maximum(ended, ends[k] * is_there)
        for name in columns_at_next(self._schema):
            columns[name].copy_(last[name])
        columns[_ENDS].copy_(ended)
        columns[STEPS].copy_(steps.unsqueeze(-1))


def views_of(rows: Tensor, places: Sequence[Place]) -> dict[str, Tensor]:
    """Some columns of rows `[B, ...]`, as views `[B, width]` of their own types."""
    return {place.name: views(rows[:, place.start : place.start + place.words], [place])[place.name] for place in places}
