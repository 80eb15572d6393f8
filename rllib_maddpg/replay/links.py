"""Which row of a ring comes after which in its episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.rows.rollout import JointRollout

# Worker -> episode -> number of its last row among all that were added, and its `t`.
Tails = dict[int, dict[int, tuple[int, int]]]


class EpisodeLinks:
    """Links from each row to the next one of its episode, known by env runner, episode and time.

    A link is a distance in the order in which rows were added: it holds wherever the rows lie, as long as they do. The row
    that it leads to is the younger one, and is overwritten later. There is none from a row in which an agent is truncated:
    what comes after it is nothing to that agent, whose return goes on from the x' of this row.

    Attributes:
        ahead: Of the row at each place, how far ahead its next one is; 0: there is none, or none yet. int32 `[capacity]`.
    """

    def __init__(self, capacity: int, device: torch.device):
        """
        Args:
            capacity: Places of the ring.
            device: That of the ring.
        """
        # NumPy's zeros take memory only as rows come.
        zeros = torch.from_numpy(np.zeros(capacity, np.int32))
        self.ahead = zeros if device.type == "cpu" else zeros.to(device)
        self.tails: Tails = {}

    def add(self, rollout: JointRollout, skip: int, number: int, place: int) -> None:
        """Links the rows of a rollout to each other, and to those of the rollout before it of the same runner.

        Args:
            rollout: Rows of an env one after the other, each one env step later, except where there was a failure.
            skip: Rows at its front that the ring has no place for.
            number: Of its first row that is kept, among all that were added.
            place: Of that row.
        """
        given = rollout.columns
        columns = {name: given[name][skip:] for name in ("episodes", "t", "truncateds")}
        rows, capacity = len(columns["t"]), len(self.ahead)
        if not rows:
            return
        episodes, t = columns["episodes"][:, 0], columns["t"][:, 0]
        goes_on = (episodes >= 0) & ~columns["truncateds"].any(1)
        linked = goes_on[:-1] & (episodes[1:] == episodes[:-1]) & (t[1:] == t[:-1] + 1)
        self._write(np.append(linked, False).astype(np.int32), place)
        tails, linked_to = self.tails.get(rollout.worker_index, {}), {}
        for first in np.flatnonzero(np.append(True, ~linked)).tolist():
            last_number, last_t = tails.get(int(episodes[first]), (-1, -1))
            # It may have been overwritten by this very rollout.
            if 0 <= last_t == t[first] - 1 and number + rows - last_number <= capacity:
                ahead = number + first - last_number
                linked_to[(place + first - ahead) % capacity] = ahead
        if linked_to:
            where, values = (torch.tensor([*each], device=self.ahead.device) for each in zip(*linked_to.items(), strict=True))
            self.ahead[where] = values.int()
        # Every episode that goes on in the next fragment has rows in this one.
        self.tails[rollout.worker_index] = {
            int(episodes[last]): (number + last, int(t[last]))
            for last in np.flatnonzero(np.append(~linked, True)).tolist()
            if goes_on[last]
        }

    def _write(self, ahead: np.ndarray, place: int) -> None:
        values = torch.from_numpy(ahead)
        first = min(len(values), len(self.ahead) - place)
        self.ahead[place : place + first] = values[:first]
        self.ahead[: len(values) - first] = values[first:]

    def windows(self, places: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The rows of up to n steps of an episode.

        Args:
            places: Of their first rows, int64 `[B]`.
            n: Steps.

        Returns:
            Places of all of them, `[n, B]`, the last one again and again where there are fewer; and how many there are, `[B]`.
        """
        window, steps = [places], torch.ones_like(places)
        for _ in range(n - 1):
            ahead = self.ahead.index_select(0, places)
            steps = steps + (ahead > 0)
            places = places + ahead
            places = torch.where(places < len(self.ahead), places, places - len(self.ahead))
            window.append(places)
        return torch.stack(window), steps

    # ------------------------------------------------------------------------------------------ checkpoints

    def get_tails(self) -> Tails:
        """Where episodes may go on."""
        return {worker: dict(own) for worker, own in self.tails.items()}

    def set_state(self, ahead: np.ndarray | None, tails: Mapping[int, Any] | None) -> None:
        """Takes over the links of restored rows; None: they have none."""
        self.ahead.zero_()
        if ahead is not None:
            self.ahead[: len(ahead)] = torch.from_numpy(np.ascontiguousarray(ahead))
        self.tails = {worker: dict(own) for worker, own in (tails or {}).items()}
