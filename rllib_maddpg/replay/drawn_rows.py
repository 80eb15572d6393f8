"""How stored rows become drawn ones, which have columns of their own.

n-step returns (Sutton 1988; Mnih et al. 2016) need what came after a row. That is read from the ring when rows are drawn, and
not summed up before: so the discount may change, or differ between modules, after rows were stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rllib_maddpg.replay.links import EpisodeLinks
from rllib_maddpg.replay.next_observations import NextObservations
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

    def __init__(self, schema: RowSchema, ring: Tensor, links: EpisodeLinks | None, next_obs: NextObservations | None = None):
        """
        Args:
            schema: Of drawn rows.
            ring: Rows, `[capacity, kept_width of the schema]`.
            links: Between these, where n is more than 1.
            next_obs: Where their x' are, if rows of the ring do not have them.
        """
        self.n = most_steps(schema)
        self._links, self._next_obs = links, next_obs
        columns = views(ring, schema.kept)
        self._rewards, self._ends = columns[_REWARDS], columns[_ENDS]
        self._added = torch.from_numpy(schema.empty()[schema.stored.row_width :]).to(ring.device)
        self._places = {place.name: slice(place.start, place.start + place.words) for place in schema.places}
        # What is needed of a last step lies side by side, or nearly: it takes less time to read all that is between.
        at_next = _spans([place for place in schema.kept if place.name in columns_at_next(schema)])
        self._read = slice(min(self._places[_REWARDS].start, at_next[0].start), at_next[-1].stop)
        self._at_next = at_next

    def __call__(self, ring: Tensor, places: Tensor) -> Tensor:
        """The rows at these places: `[B, row_width]`.

        Args:
            ring: The rows.
            places: int64 `[B]`, on the ring's device.
        """
        stored = ring.index_select(0, places)
        window = self._links.windows(places, self.n) if self.n > 1 else None
        if self._next_obs is not None:
            stored = torch.cat([stored, self._next_obs(ring, places if window is None else window[-1])], -1)
        if not len(self._added):
            return stored
        rows = torch.cat([stored, self._added.expand(len(places), -1)], -1)
        if window is not None:
            self._look_ahead(ring, window, rows)
        return rows

    def _look_ahead(self, ring: Tensor, window: Tensor, rows: Tensor) -> None:
        # A window with fewer steps has its last one again and again.
        is_there = (window[1:] != window[:-1]).unsqueeze(-1)
        last, first = ring[:, self._read].index_select(0, window[-1]), self._read.start
        of_last = {name: last[:, _moved(self._places[name], first)] for name in (_REWARDS, _ENDS)}
        # Of the steps between two columns are read.
        between = window[1:-1].unbind(0)
        rewards = [*(self._rewards.index_select(0, step) for step in between), of_last[_REWARDS]]
        ends = [*(self._ends.index_select(0, step) for step in between), of_last[_ENDS]]
        ended = rows[:, self._places[_ENDS]].clone()
        later = rows[:, self._places[LATER_REWARDS]].unflatten(-1, (-1, self.n - 1))
        for k, (reward, end, there) in enumerate(zip(rewards, ends, is_there, strict=True)):
            # An agent whose part is over gets nothing more, should it come back.
            torch.mul(reward, there > ended, out=later[..., k])
            ended = torch.maximum(ended, end * there)
        for span in self._at_next:
            rows[:, span] = last[:, _moved(span, first)]
        rows[:, self._places[_ENDS]] = ended
        rows[:, self._places[STEPS]] += is_there.sum(0)


def _moved(span: slice, first: int) -> slice:
    """Where a span lies in rows that are read from their word `first` on."""
    return slice(span.start - first, span.stop - first)


def _spans(places: Sequence[Place]) -> list[slice]:
    """The words of columns, in the order of the row; those side by side as one."""
    spans: list[slice] = []
    for place in places:
        start, stop = place.start, place.start + place.words
        if spans and spans[-1].stop == start:
            start = spans.pop().start
        spans.append(slice(start, stop))
    return spans
