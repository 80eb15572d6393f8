"""Work on a GPU that is recorded once and then done by one call: hundreds of small kernels without Python between them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

# torch's allocator goes on to ask a graph whose capture has failed, if it is there or not (pytorch/pytorch#180395).
_FAILED: list[torch.cuda.CUDAGraph] = []


class CudaGraph:
    """What a function does to tensors on a GPU.

    The function must do the same whenever it is called: the numbers it reads are those of the same tensors, and what Python
    decides in it, or reads from a device, is decided once and for all.
    """

    def __init__(self, device: torch.device):
        """
        Args:
            device: A GPU, on which all of the work is done.
        """
        self._device = device
        self._stream = _stream_of(device)
        self._graph = torch.cuda.CUDAGraph()

    @staticmethod
    def why_not(device: torch.device) -> str:
        """Why there are no graphs on a device; empty: there are."""
        return "" if device.type == "cuda" else "the Learner has no GPU (`num_gpus_per_learner`)"

    def warm_up(self, work: Callable[[], T]) -> T:
        """Does the work, as it has to be done before it is captured: libraries make themselves ready the first time."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream):
                return work()
        finally:
            here.wait_stream(self._stream)

    def capture(self, work: Callable[[], T]) -> T:
        """Records the work without doing it.

        Returns:
            What the function returned; `replay` fills the tensors that are in it.
        """
        # Autograd's own thread takes part, and other threads may use the GPU meanwhile.
        graph = torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local")
        # Where a capture fails, torch would go on in its stream.
        try:
            with _unfilled_memory(), torch.cuda.stream(torch.cuda.current_stream(self._device)), graph:
                return work()
        except BaseException:
            _FAILED.append(self._graph)
            raise

    def replay(self) -> None:
        """Does the work; does not wait for it."""
        self._graph.replay()


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """The stream in which work is captured. cuBLAS keeps memory for each stream, so that one for all of it is best."""
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def _unfilled_memory() -> Iterator[None]:
    """Without the fills that torch adds to a deterministic program, one kernel for each piece of new memory."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before
