"""Modules of the tests' folder, which other processes do not know."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from ray import cloudpickle


@contextmanager
def travelling(modules: Iterable[ModuleType]) -> Iterator[None]:
    """What is sent to other processes takes these along."""
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
