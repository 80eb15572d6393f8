"""Versions of this package and of what its results depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("ray", "torch", "numpy", "gymnasium", "pettingzoo", "mpe2", "supersuit")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


__version__ = _version("rllib-maddpg") or "0.0.0"  # that, if it is run from a source tree


def versions() -> dict[str, str]:
    """Of Python, this package and `PACKAGES`; those that are not installed are left out."""
    found = {"rllib_maddpg": __version__, **{package: _version(package) for package in PACKAGES}}
    return {"python": platform.python_version(), **{name: number for name, number in found.items() if number}}
