"""Which row of a ring comes after which in its episode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.rows.rollout import JointRollout


class Followers:
    """Finds which row follows which in its episode, known by env runner, episode and time, while rollouts come in."""

    def __init__(self, capacity: int):
        """
        Args:
            capacity: Places of the ring.
        """
        self._capacity = capacity
        # Worker -> episode -> number of its last row among all that were added, and its `t`.
        self._tails: dict[int, dict[int, tuple[int, int]]] = {}

    def of(self, worker: int, episodes: np.ndarray, t: np.ndarray, goes_on: np.ndarray, number: int) -> Found:
        """Looks at the rows of a rollout, one at least, and at the ends of the rollout before it of the same runner.

        Args:
            worker: Number of the runner.
            episodes, t: Of rows of an env one after the other, each one env step later, except where there was a failure.
            goes_on: Of each row whether another one may follow it.
            number: Of the first row, among all that were added.
        """
        rows = len(t)
        linked = goes_on[:-1] & (episodes[1:] == episodes[:-1]) & (t[1:] == t[:-1] + 1)
        before, after = [], []
        tails = self._tails.get(worker, {})
        for first in np.flatnonzero(np.append(True, ~linked)).tolist():
            last_number, last_t = tails.get(int(episodes[first]), (-1, -1))
            # It may have been overwritten by this very rollout.
            if 0 <= last_t == t[first] - 1 and number + rows - last_number <= self._capacity:
                before.append(last_number)
                after.append(first)
        ends = [last for last in np.flatnonzero(np.append(~linked, True)).tolist() if goes_on[last]]
        # Every episode that goes on in the next fragment has rows in this one.
        self._tails[worker] = {int(episodes[last]): (number + last, int(t[last])) for last in ends}
        return Found(linked, np.array(before, np.int64), np.array(after, np.int64), ends)

    def forget(self) -> None:
        """No episode goes on in rows that come later."""
        self._tails = {}


class Found(NamedTuple):
    """What follows what, as `Followers` found it for the n rows of a rollout.

    Attributes:
        linked: Of each row but the last whether the next one follows it, bool `[n - 1]`.
        before: Numbers of rows of an earlier rollout.
        after: Of each of these the row that follows it.
        ends: Rows that some row of the next rollout may follow.
    """

    linked: np.ndarray
    before: np.ndarray
    after: np.ndarray
    ends: list[int]


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
        self._followers = Followers(capacity)

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
        found = self._followers.of(rollout.worker_index, episodes, t, goes_on, number)
        places = (place + np.arange(rows)) % capacity
        following = places + np.append(found.linked, False)
        before = (place + found.before - number) % capacity
        self._write(np.append(places, before), np.append(following, places[found.after]) % capacity)

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
        self._followers.forget()
