"""Classes by their path, as configs that are text name them."""

from __future__ import annotations

import importlib
from typing import Any


def load_class(path: str) -> Any:
    """What "package.module.Class" names.

    Raises:
        ValueError: Naming the part of the path that is not there, or what its module failed with.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"{path!r} is no path of the form 'package.module.Class'.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"There is no module {error.name!r}: correct the path, or put it on PYTHONPATH.") from error
        raise ValueError(f"Module {module_name!r} needs {error.name!r}, which is not installed.") from error
    except Exception as error:  # a module can raise anything
        raise ValueError(f"Module {module_name!r} cannot be imported ({type(error).__name__}: {error}).") from error
    if not hasattr(module, name):
        classes = [n for n, value in vars(module).items() if not n.startswith("_") and _is_of(value, module_name)]
        raise ValueError(f"Module {module_name!r} has no {name!r}. Its classes are {classes}.")
    return getattr(module, name)


def _is_of(value: Any, module_name: str) -> bool:
    """Whether it is a class that the module, or another one in that package, defines."""
    return isinstance(value, type) and f"{value.__module__}.".startswith(f"{module_name}.")
