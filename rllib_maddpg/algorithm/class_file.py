"""RLlib's file of a checkpoint that says of which class it is, and with which arguments that is made.

An actor's class is one that Ray derives from the real one. It has no name to be found by, so pickle writes it down with all of
its methods: such a file can be read only as long as each of them is where it was. Files are written with the real class here,
and read so that no method matters.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from ray import cloudpickle
from ray.rllib.utils.checkpoints import Checkpointable

# What only the classes of actors have of their own.
_OF_ACTORS = "__ray_call__"
_WRAPPERS = "ray.util.tracing.tracing_helper"
_PACKAGE = __name__.split(".")[0]


def is_actors(cls: type) -> bool:
    """Whether a class is one that Ray derived for an actor; its base is the real one."""
    return _OF_ACTORS in vars(cls)


def dumps(component: Checkpointable) -> bytes:
    """The file of a component, as RLlib writes it, but with the real class."""
    cls = type(component)
    return cloudpickle.dumps(
        {
            "class": cls.__base__ if is_actors(cls) else cls,
            "ctor_args_and_kwargs": component.get_ctor_args_and_kwargs(),
        }
    )


def loads(data: bytes) -> dict[str, Any]:
    """The content of such a file: "class", a real one, and "ctor_args_and_kwargs".

    Raises:
        Exception: Any that reading a damaged pickle may raise, or one of names that cannot be imported.
    """
    unpickler = _Unpickler(io.BytesIO(data))
    content = unpickler.load()
    if content["class"] in unpickler.of_actors:
        content["class"] = content["class"].__base__
    return content


class _Unpickler(pickle.Unpickler):
    """Takes actors' classes without the methods that were written down with them.

    Attributes:
        of_actors: The actors' classes that were in the file.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.of_actors: list[type] = []

    def find_class(self, module: str, name: str) -> Any:
        if name == "_class_setstate" and module.endswith("cloudpickle"):
            return self._set_up_class
        try:
            return super().find_class(module, name)
        except (AttributeError, ModuleNotFoundError):
            # A method that this package no longer has or this Ray has not, or what another Ray wraps around methods.
            if ("." in name and module.split(".")[0] in (_PACKAGE, "ray")) or module == _WRAPPERS:
                return None
            raise

    def _set_up_class(self, cls: type, state: tuple[dict[str, Any], Any]) -> type:
        if _OF_ACTORS not in state[0]:
            return cloudpickle.cloudpickle._class_setstate(cls, state)
        self.of_actors.append(cls)
        return cls
