"""How rows get into the ring of a replay buffer, and places to its device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class RingUpload:
    """Writes rows into a ring. On a GPU they go up from pinned memory, on a stream of their own beside the updates.

    The host waits for no copy: PyTorch gives pinned memory out again only when the copies from it are done.
    """

    def __init__(self, ring: Tensor):
        """
        Args:
            ring: `[capacity, row_width]`, float32, contiguous.
        """
        self._ring = ring
        self._array = None if ring.is_cuda else ring.numpy()
        if ring.is_cuda:
            self._stream = torch.cuda.Stream(ring.device)
            # Its memory must not be given away while a copy runs.
            ring.record_stream(self._stream)
            self._used = torch.cuda.current_stream(ring.device).record_event()

    def write(self, rows: np.ndarray, at: int) -> None:
        """Copies rows `[n, row_width]`, float32, to the places from `at` on; after the ring's end it goes on at 0.

        Args:
            rows: At most as many as the ring has.
            at: A place.
        """
        # In two pieces where the end is reached.
        first = min(len(rows), len(self._ring) - at)
        if self._array is not None:
            self._array[at : at + first] = rows[:first]
            self._array[: len(rows) - first] = rows[first:]
            return
        staged = torch.empty(rows.shape, pin_memory=True)
        staged.numpy()[:] = rows
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used)
            self._ring[at : at + first].copy_(staged[:first], non_blocking=True)
            self._ring[: len(rows) - first].copy_(staged[first:], non_blocking=True)

    def __enter__(self) -> Tensor:
        """The ring, to be used within: after the copies that have begun, and before those that come."""
        if self._array is None:
            torch.cuda.current_stream(self._ring.device).wait_stream(self._stream)
        return self._ring

    def __exit__(self, *error: object) -> None:
        if self._array is None:
            self._used = torch.cuda.current_stream(self._ring.device).record_event()

    def places(self, places: np.ndarray | Tensor) -> Tensor:
        """Places, int64, on the ring's device, where they may lie already; the host does not wait."""
        return places if isinstance(places, Tensor) else self.there(torch.from_numpy(places))

    def there(self, numbers: Tensor) -> Tensor:
        """Numbers of the host on the ring's device; the host does not wait."""
        return numbers if self._array is not None else numbers.pin_memory().to(self._ring.device, non_blocking=True)
