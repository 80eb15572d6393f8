"""The x' of rows of images, which a ring keeps once: as the x of the row that follows, or beside the ring where none does."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from rllib_maddpg.replay.links import Followers
from rllib_maddpg.replay.row_pool import RowPool
from rllib_maddpg.replay.upload import RingUpload
from rllib_maddpg.rows.rollout import JointRollout
from rllib_maddpg.rows.schema import OBSERVATIONS, RowSchema

logger = logging.getLogger(__name__)

# Rows whose follower may be on its way, of which no more is said than that they are few.
_ENDS = 64


class NextObservations:
    """Where in a ring the x' of each row is to be found.

    It is the x of the row that follows in the episode, if it is that to the bit: an agent that dies is seen once more in x',
    and is zeros in the next x. All others have their x' in a pool: the last row of an episode, the last one of a fragment until
    its follower comes, that before a failure. The row that follows is the younger one, so it is overwritten later.
    """

    def __init__(self, schema: RowSchema, capacity: int, device: torch.device, upload: RingUpload):
        """
        Args:
            schema: Of stored rows, which observe images of bytes.
            capacity: Places of the ring.
            device: That of the ring.
            upload: That of the ring.
        """
        place = {place.name: place for place in schema.places}
        obs, new_obs = (place[name] for name in OBSERVATIONS)
        self._bytes = obs.size
        # In rows of the ring, and in whole rows.
        self._obs, self._new_obs = (slice(p.start, p.start + p.words) for p in (obs, new_obs))
        self._upload = upload
        self._pool = RowPool(obs.words, device, upload)
        # Of the row at each place the place whose x is its x'; or -1 - its slot in the pool.
        self._sources = np.zeros(capacity, np.int32)
        self._sources_there = torch.from_numpy(self._sources)
        if device.type != "cpu":
            self._sources_there = self._sources_there.to(device)
        self._followers = Followers(capacity)
        # Worker -> number of a row that may get a follower -> its x'.
        self._ends: dict[int, dict[int, np.ndarray]] = {}
        self._percent = schema.alone_percent
        self._counted = capacity * self._percent // 100 + _ENDS
        self._has_told = False

    @property
    def alone(self) -> int:
        """Rows whose x' is in the pool."""
        return len(self._pool)

    def add(self, rollout: JointRollout, skip: int, number: int, place: int) -> None:
        """Takes the x' of the rows of a rollout, before or after these lie in the ring; arguments as of `EpisodeLinks.add`."""
        rows, capacity = rollout.rows[skip:], len(self._sources)
        if not len(rows):
            return
        columns, worker = rollout.columns, rollout.worker_index
        episodes, t = columns["episodes"][skip:, 0], columns["t"][skip:, 0]
        # As whole numbers: as floats, NaN would not equal itself.
        obs, new_obs = rows[:, self._obs].view(np.int32), rows[:, self._new_obs].view(np.int32)
        found = self._followers.of(worker, episodes, t, episodes >= 0, number)
        places = (place + np.arange(len(rows))) % capacity
        self._give_back(places)  # of the rows that are overwritten
        ends, tails = self._ends.get(worker, {}), {}
        for last, first in zip(found.before.tolist(), found.after.tolist(), strict=True):
            at = (place + last - number) % capacity
            if self._sources[at] < 0 and last in ends and np.array_equal(ends[last], obs[first]):
                tails[at] = places[first]
        self._give_back(np.array(list(tails), np.int64))
        is_followed = np.append(found.linked & (new_obs[:-1] == obs[1:]).all(1), False)
        sources = (places + 1) % capacity
        sources[~is_followed] = -1 - self._pool.put(np.ascontiguousarray(new_obs[~is_followed]))
        self._write(np.append(places, list(tails)).astype(np.int64), np.append(sources, list(tails.values())))
        self._ends[worker] = {number + last: new_obs[last].copy() for last in found.ends}
        if self._pool.is_sparse:
            self._close_ranks()
        self._tell()

    def __call__(self, ring: Tensor, places: Tensor) -> Tensor:
        """The x' of the rows at these places, `[B, words]` float32, whose bits are bytes.

        Args:
            ring: The rows.
            places: int64 or int32 `[B]`, on the ring's device.
        """
        sources = self._sources_there.index_select(0, places)
        of_ring = ring[:, self._obs].view(torch.int32).index_select(0, sources.clamp(min=0))
        of_pool = self._pool.words.index_select(0, (-1 - sources).clamp(min=0))
        return torch.where((sources < 0).unsqueeze(-1), of_pool, of_ring).view(torch.float32)

    def _give_back(self, places: np.ndarray) -> None:
        """Empties the slots of the rows at these places; their sources are to be written next."""
        sources = self._sources[places]
        self._pool.free(-1 - sources[sources < 0].astype(np.int64))

    def _close_ranks(self) -> None:
        places = np.flatnonzero(self._sources < 0)
        self._pool.keep(-1 - self._sources[places].astype(np.int64))
        self._write(places, -1 - np.arange(len(places)))

    def _write(self, places: np.ndarray, sources: np.ndarray) -> None:
        self._sources[places] = sources
        if self._sources_there.is_cuda:
            at, values = (self._upload.there(torch.from_numpy(x)) for x in (places, sources.astype(np.int32)))
            self._sources_there[at] = values

    def _tell(self) -> None:
        if self.alone > self._counted and not self._has_told:
            self._has_told = True
            logger.warning(
                "The next images of more than %d%% of the rows that the replay buffer can keep are not images of other rows, "
                "since episodes or agents' lives are short. It needs more memory than was counted: up to twice as much.",
                self._percent,
            )

    # ------------------------------------------------------------------------------------------ checkpoints

    def get_state(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows at the first places, what `set_state` takes."""
        sources, capacity = self._sources[:rows], len(self._sources)
        is_alone = sources < 0
        ahead = np.where(is_alone, 0, (sources - np.arange(rows)) % capacity).astype(np.int32)
        slots = torch.from_numpy(-1 - sources[is_alone].astype(np.int64)).to(self._pool.words.device)
        words = self._pool.words.index_select(0, slots).cpu().numpy()
        return ahead, words.view(np.uint8)[:, : self._bytes].copy()

    def set_state(self, ahead: np.ndarray, alone: np.ndarray) -> None:
        """Takes over where the x' of restored rows are, which lie at the first places.

        No episode goes on in rows that come later, as of `EpisodeLinks.set_ahead`.

        Args:
            ahead: For each row how far ahead the one lies whose x it is, in the order in which rows are added; 0: nowhere.
                int32 `[rows]`.
            alone: The x' of those that are nowhere, in the order of their places. uint8 `[k, obs_dim]`.
        """
        taken = self._sources[self._sources < 0]
        self._pool.free(-1 - taken.astype(np.int64))
        words = np.zeros((len(alone), 4 * self._pool.words.shape[1]), np.uint8)
        words[:, : self._bytes] = alone
        sources = np.zeros(len(self._sources), np.int64)
        sources[: len(ahead)] = (np.arange(len(ahead)) + ahead) % len(sources)
        sources[: len(ahead)][ahead == 0] = -1 - self._pool.put(words.view(np.int32))
        self._write(np.arange(len(sources)), sources)
        self._followers.forget()
        if self._pool.is_sparse:
            self._close_ranks()
