"""A CUDA graph on the CPU: records what a function does to tensors, executes nothing, and does it again at each replay.

What a capture on a GPU cannot do raises here. What a replay on a GPU gets wrong comes out wrong here: Python's numbers and
addresses are those of the capture, and whoever uses results before a replay gets NaN.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

T = TypeVar("T")

_TORCH = os.path.dirname(torch.__file__) + os.sep
_HERE = sys._getframe().f_code.co_filename
# Their values are whatever the memory holds: nothing is executed for them.
_EMPTY = {"empty", "empty_strided", "empty_permuted", "empty_like", "new_empty", "new_empty_strided"}
# Give memory to a tensor, or take it, which a replay cannot.
_MOVES = {"resize_", "resize_as_", "set_"}
# Which C++ does without telling a dispatch mode.
_READS = ("tolist", "numpy", "cpu", "__array__", "__dlpack__")


class CaptureError(Exception):
    """What a capture on a GPU could not do, or what a replay would get wrong.

    No RuntimeError, as a GPU's is: a Learner would go on without graphs, and no test would notice.
    """


class FakeGraph:
    """`CudaGraph` of the CPU.

    Stricter than a GPU: `x[0] = 2.0` looks like a tensor made from Python's data and is refused (`x[0].fill_(2.0)` is not),
    as are torch's random numbers, which a graph may draw, but which would not be the CPU's. Not seen are reads within a C++
    kernel of the CPU, such as that of a fused Adam's rate.

    Attributes:
        replays: How often it has been replayed.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.replays = 0
        self._recorder: _Recorder | None = None

    @staticmethod
    def why_not(device: torch.device) -> str:
        """Why there can be no graph: never."""
        return ""

    def warm_up(self, work: Callable[[], T]) -> T:
        """Executes the work."""
        return work()

    def capture(self, work: Callable[[], T]) -> T:
        """Records the work without executing it.

        Returns:
            The work's result, whose tensors each replay fills; until then they are poisoned.

        Raises:
            CaptureError: With the operation and the line of Python that called it.
        """
        if self._recorder is not None:
            raise CaptureError("This graph has been captured already.")
        recorder = _Recorder()
        try:
            with _forbidden_reads(), recorder:
                result = work()
        finally:
            recorder.undo()
        self._recorder = recorder
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Executes what was recorded, on the same tensors."""
        if self._recorder is None:
            raise CaptureError("Nothing has been captured.")
        self.replays += 1
        for func, args, kwargs, made in self._recorder.calls:
            results = list(tree_iter(func(*args, **kwargs)))
            for place, tensor in made:
                tensor.copy_(results[place])

    def names(self) -> list[str]:
        """Of the recorded operations, such as `aten.mul.Tensor`, in order."""
        return [] if self._recorder is None else [str(func) for func, *_ in self._recorder.calls]


class _Recorder(TorchDispatchMode):
    """Executes each operation, notes it with its very tensors, and takes back at the end what was written.

    Attributes:
        calls: (operation, arguments, keyword arguments, [(place among the results, the new tensor)]).
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, list[tuple[int, Tensor]]]] = []
        # By identity; held, so that no other storage gets the address of one.
        self._before = {storage._cdata: storage for storage in _all_storages()}
        self._made: dict[int, tuple[torch.UntypedStorage, torch.dtype]] = {}
        self._saved: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        _check(func, args, kwargs)
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        for tensor in given:
            key = tensor.untyped_storage()._cdata
            if key not in self._before and key not in self._made:
                raise _error(func, "uses a tensor that was made from data outside torch during the capture")
        written = [] if torch.Tag.inplace_view in func.tags else _written(func, args, kwargs)
        sizes = [self._save(tensor) for tensor in written]
        # Without autograd, and as they are now: `unsqueeze_` and its like change a tensor's shape later.
        plain_args, plain_kwargs = tree_map_only(Tensor, lambda x: x.data, (args, kwargs))
        result = func(*args, **kwargs)
        if sizes != [tensor.untyped_storage().nbytes() for tensor in written]:
            raise _error(func, "gives more memory to its `out`")
        made = []
        for place, tensor in enumerate(tree_iter(result)):
            if isinstance(tensor, Tensor) and self._is_new(tensor):
                made.append((place, tensor.data))
        if written or (made and func.overloadpacket.__name__ not in _EMPTY):
            self.calls.append((func, plain_args, plain_kwargs, made))
        return result

    def _save(self, tensor: Tensor) -> int:
        """Keeps what is in memory that was there before; returns its size in bytes."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._before and storage._cdata not in self._saved:
            self._saved[storage._cdata] = storage, storage.clone()
        return storage.nbytes()

    def _is_new(self, tensor: Tensor) -> bool:
        """Whether the tensor lies in memory of its own. Whether an operation makes a view, its storage knows best."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._before or storage._cdata in self._made:
            return False
        self._made[storage._cdata] = storage, tensor.dtype
        return True

    def undo(self) -> None:
        """As if nothing had been executed."""
        for storage, saved in self._saved.values():
            storage.copy_(saved)
        for storage, dtype in self._made.values():
            torch.empty(0, dtype=dtype, device=storage.device).set_(storage).fill_(_poison(dtype))
        for kept in (self._before, self._made, self._saved):
            kept.clear()


def _all_storages() -> Iterator[torch.UntypedStorage]:
    """Of all tensors that Python knows, and of their gradients."""
    for tensor in gc.get_objects():
        if issubclass(type(tensor), Tensor) and tensor.layout == torch.strided:
            yield tensor.untyped_storage()
            if tensor.is_leaf and tensor.grad is not None:
                yield tensor.grad.untyped_storage()


def _written(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """The tensors into which the operation writes."""
    result = []
    for k, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[k] if k < len(args) else kwargs.get(argument.name)
            result += [x for x in tree_iter(value) if isinstance(x, Tensor)]
    return result


def _check(func: Any, args: tuple, kwargs: dict) -> None:
    """Raises for what a graph cannot hold."""
    name, tags = func.overloadpacket.__name__, func.tags
    if name == "lift_fresh":
        raise _error(func, "makes a tensor from data of Python or NumPy")
    if torch.Tag.data_dependent_output in tags:
        raise _error(func, "reads a value, for which the host waits for the device")
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"):
        if any(x.dtype in (torch.bool, torch.uint8) for x in args[1] if x is not None):
            raise _error(func, "is indexed by booleans: how many rows there are depends on data")
    elif torch.Tag.dynamic_output_shape in tags:
        raise _error(func, "has a result whose shape depends on data")
    if torch.Tag.nondeterministic_seeded in tags or kwargs.get("generator") is not None:
        raise _error(func, "draws torch's random numbers, which differ from device to device")
    if name in _MOVES:
        raise _error(func, "moves a tensor's memory")
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    devices = {x.device for x in tensors if x.dim() or name in ("copy_", "_to_copy")}
    if tensors and kwargs.get("device") is not None:
        devices.add(torch.device(kwargs["device"]))
    if len(devices) > 1:
        raise _error(func, f"copies between devices ({', '.join(sorted(map(str, devices)))})")


def _poison(dtype: torch.dtype) -> float | int | bool:
    """What nobody takes for a result."""
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return True if dtype is torch.bool else torch.iinfo(dtype).min or torch.iinfo(dtype).max


def _error(what: Any, why: str) -> CaptureError:
    """An error that names the innermost line of Python outside torch."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename == _HERE or frame.f_code.co_filename.startswith((_TORCH, "<"))
    ):
        frame = frame.f_back
    return CaptureError(f"{what} {why}: {frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}")


@contextmanager
def _forbidden_reads() -> Iterator[None]:
    """In this thread no tensor gives its values to Python or NumPy."""
    thread = threading.get_ident()

    def forbidden(name: str, original: Callable) -> Callable:
        def read(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                raise _error(f"Tensor.{name}", "brings values to the host")
            return original(*args, **kwargs)

        return read

    with ExitStack() as stack:
        for name in _READS:
            stack.enter_context(mock.patch.object(Tensor, name, forbidden(name, getattr(Tensor, name))))
        yield
