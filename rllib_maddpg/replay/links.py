"""Which row of a ring comes after which in its episode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.rows.rollout import JointRollout

# Worker -> episode -> number of its last row among all that were added, and its `t`.
Tails = dict[int, dict[int, tuple[int, int]]]


class EpisodeLinks:
    """Links from each row to the next one of its episode, known by env runner, episode and time.

    The row to which a link leads is the younger one, and is overwritten later. There is no link from a row in which an agent is
    truncated: what comes after it is nothing to that agent, whose return goes on from the x' of this row.

    Attributes:
        following: Of the row at each place the place of its next one; its own, where there is none, or none yet. int32
            `[capacity]`.
    """

    def __init__(self, capacity: int, device: torch.device):
        """
        Args:
            capacity: Places of the ring.
            device: That of the ring.
        """
        self.following = torch.arange(capacity, dtype=torch.int32, device=device)
        self._tails: Tails = {}

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
        rows, capacity = len(columns["t"]), len(self.following)
        if not rows:
            return
        episodes, t = columns["episodes"][:, 0], columns["t"][:, 0]
        goes_on = (episodes >= 0) & ~columns["truncateds"].any(1)
        linked = goes_on[:-1] & (episodes[1:] == episodes[:-1]) & (t[1:] == t[:-1] + 1)
        places = (place + np.arange(rows)) % capacity
        before, after = [], []
        tails = self._tails.get(rollout.worker_index, {})
        for first in np.flatnonzero(np.append(True, ~linked)).tolist():
            last_number, last_t = tails.get(int(episodes[first]), (-1, -1))
            # It may have been overwritten by this very rollout.
            if 0 <= last_t == t[first] - 1 and number + rows - last_number <= capacity:
                before.append((place + last_number - number) % capacity)
                after.append(places[first])
        following = places + np.append(linked, False)
        self._write(np.append(places, np.array(before, np.int64)), np.append(following, after) % capacity)
        # Every episode that goes on in the next fragment has rows in this one.
        self._tails[rollout.worker_index] = {
            int(episodes[last]): (number + last, int(t[last]))
            for last in np.flatnonzero(np.append(~linked, True)).tolist()
            if goes_on[last]
        }

    def _write(self, places: np.ndarray, following: np.ndarray) -> None:
        device = self.following.device
        self.following[torch.from_numpy(places).to(device)] = torch.from_numpy(following.astype(np.int32)).to(device)

    def windows(self, places: Tensor, n: int) -> Tensor:
        """The rows of up to n steps of an episode.

        Args:
            places: Of their first rows, int64 `[B]`.
            n: Steps.

        Returns:
            Places of all of them, int32 `[n, B]`, the last one again and again where there are fewer.
        """
        window = [places.int()]
        for _ in range(n - 1):
            window.append(self.following.index_select(0, window[-1]))
        return torch.stack(window)

    # ------------------------------------------------------------------------------------------ checkpoints

    def get_ahead(self, rows: int) -> np.ndarray:
        """Of the rows at the first places, how far ahead their next ones lie in the order in which rows are added: int32."""
        following, capacity = self.following[:rows].cpu().numpy(), len(self.following)
        return ((following - np.arange(rows)) % capacity).astype(np.int32)

    def set_ahead(self, ahead: np.ndarray | None) -> None:
        """Takes over the links of restored rows, which lie at the first places; None: they have none.

        No episode goes on in rows that come later: those of the env runners may have the numbers of episodes of another run.
        """
        capacity = len(self.following)
        places = np.arange(capacity)
        following = places.copy()
        if ahead is not None:
            following[: len(ahead)] += ahead
        self._write(places, following % capacity)
        self._tails = {}
