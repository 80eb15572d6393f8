"""Numbers of updates, one for each module, which stay on the device until they are reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.ray_compat import log_value

# How a metric of several Learners becomes one, where that is not its mean.
OVER_LEARNERS = {"qf_min": {"reduce": "min"}, "qf_max": {"reduce": "max"}}


class UpdateMetrics:
    """The metrics of the last update before a report.

    Attributes:
        noted: (module id, name) -> value.
    """

    def __init__(self) -> None:
        self.noted: dict[tuple[str, str], Tensor] = {}
        self._stay: set[tuple[str, str]] = set()

    def note(self, modules: Iterable[str], values: Mapping[str, Tensor], stay: bool = False) -> None:
        """Keeps numbers `[G]` of G modules.

        Args:
            modules: Their ids.
            values: By the names of the metrics.
            stay: Report them again until they are noted again: for stages that do not run in every update.
        """
        for name, value in values.items():
            new = {(m, name): v for m, v in zip(modules, value.detach().unbind(), strict=False)}
            self.noted.update(new)
            if stay:
                self._stay.update(new)

    def add(self, others: UpdateMetrics) -> None:
        """Keeps those of an update, too, and forgets older ones of the same names."""
        self.noted.update(others.noted)
        self._stay.update(others._stay)

    def of_slots(self, wanted: Mapping[int, bool]) -> dict[int, UpdateMetrics]:
        """Copies of the metrics of several slots, whose modules are `SlotModule`s.

        Args:
            wanted: By slot, whether all of them are wanted; else only those that stay.
        """
        result = {slot: UpdateMetrics() for slot in wanted}
        keys = [key for key in self.noted if key[0].slot in wanted and (wanted[key[0].slot] or key in self._stay)]
        if keys:
            # Whoever computed them may overwrite them in the next update.
            values = torch.stack([self.noted[key].float() for key in keys])
            for (module, name), value in zip(keys, values.unbind(), strict=True):
                result[module.slot].note((module.module,), {name: value[None]}, ((module, name) in self._stay))
        return result

    def report(self, logger: Any) -> None:
        """Gives them to RLlib's logger."""
        if self.noted:
            # One transfer from the device for all metrics.
            values = torch.stack([v.float() for v in self.noted.values()]).tolist()
            for key, value in zip(self.noted, values, strict=True):
                log_value(logger, key, value, **OVER_LEARNERS.get(key[1], {"reduce": "mean", "window": 1}))
        self.noted = {key: self.noted[key] for key in self._stay}

    def clear(self) -> None:
        """Forgets all."""
        self.noted.clear()
        self._stay.clear()
