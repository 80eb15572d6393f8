"""Normalization of all agents' observations in one go, for sampling."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from rllib_maddpg.modules.normalizing import LIMIT, ObservationFilter
from rllib_maddpg.rows.layout import JointLayout


class JointFilter:
    """The `ObservationFilter`s of all modules, as one.

    Means and scales lie side by side, and those of the modules are views: new ones need no copy here, as long as they are
    written into the filters (`is_current`).
    """

    def __init__(self, layout: JointLayout, filters: Mapping[str, ObservationFilter]):
        """
        Args:
            layout: Order of agents.
            filters: By module id; in a game of several runs some modules may have none.
        """
        self._filters = {m: filters[m] for m in layout.modules if m in filters}
        # Agents of one module have the same numbers.
        slots = [slot for slot in layout.slots if slot.module in filters]
        joint = np.arange(layout.obs_dim)
        starts = dict(zip(self._filters, np.cumsum([0, *(len(own.mean) for own in self._filters.values())]), strict=False))
        self._joint = np.concatenate([joint[slot.obs] for slot in slots])
        self._own = np.concatenate([starts[s.module] + np.arange(s.obs.stop - s.obs.start) for s in slots])
        # Where they are, no columns need to be picked.
        self._is_plain = len(self._joint) == len(joint) and len(slots) == len(self._filters)
        self._stacked = self._side_by_side()
        if self._stacked[0].device.type == "cpu":
            for name, values in zip(("mean", "scale"), self._stacked, strict=True):
                for m, own in self._filters.items():
                    getattr(own, name).data = values[starts[m] : starts[m] + len(own.mean)]
        self._storage = self._pointers()

    def _side_by_side(self) -> list[torch.Tensor]:
        return [torch.cat([getattr(own, name) for own in self._filters.values()]) for name in ("mean", "scale")]

    def _pointers(self) -> list[int]:
        return [x.data_ptr() for own in self._filters.values() for x in (own.mean, own.scale)]

    def is_current(self, filters: Mapping[str, ObservationFilter]) -> bool:
        """Whether these still are the filters, and nobody has given them new storage."""
        same = filters.keys() == self._filters.keys() and all(filters[m] is own for m, own in self._filters.items())
        return same and self._pointers() == self._storage

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Joint observations `[E, obs_dim]` float32, normalized."""
        on_cpu = self._stacked[0].device.type == "cpu"
        mean, scale = (values.cpu().numpy() for values in (self._stacked if on_cpu else self._side_by_side()))
        if self._is_plain:
            return _filtered(obs, mean, scale)
        result = obs.copy()
        result[:, self._joint] = _filtered(obs[:, self._joint], mean[self._own], scale[self._own])
        return result


def _filtered(obs: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """As `normalizing.standardized`, in the same order of operations."""
    x = obs - mean
    x *= scale
    return np.clip(x, -LIMIT, LIMIT, out=x)
