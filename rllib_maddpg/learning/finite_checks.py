"""Whether the numbers of a stage are finite: asked at once, or noted on the device and asked later. No Ray here.

A stage whose losses or gradients are not finite changes nothing, and neither do the later ones of its update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rllib_maddpg.learning.groups import NetworkGroup


class FiniteCheck(Protocol):
    """Of the stages of one update after the other.

    Attributes:
        skip: 1.0 on the device where the present stage is to change nothing, else 0.0, float32 without dimensions; None: it
            does what it has to.
    """

    skip: Tensor | None

    def skip_of(self, group: NetworkGroup) -> Tensor | None:
        """`skip` of the networks of a group; where it differs among them, `[G]`."""

    def begin(self) -> None:
        """An update begins."""

    def passes(self, stage: int, finite: Tensor) -> bool:
        """Whether a stage is to go on, of which the device knows whether its numbers are finite."""

    def end(self) -> None:
        """The update has ended."""


class ImmediateCheck:
    """Asks at once; a GPU has to be waited for."""

    skip = None

    def skip_of(self, group: NetworkGroup) -> None:
        """As in `FiniteCheck`."""

    def begin(self) -> None:
        """Nothing."""

    def passes(self, stage: int, finite: Tensor) -> bool:
        """As in `FiniteCheck`."""
        return bool(finite)

    def end(self) -> None:
        """Nothing."""


@dataclass
class Findings:
    """What a `DeferredCheck` has found in some updates.

    Attributes:
        sound: Number of updates in which nothing was skipped. Unless later updates were to go on, these are the first ones.
        bad: For each stage the number of updates in which it was the first one that was not finite.
        last_was_bad: Whether something was skipped in the last update.
    """

    sound: int
    bad: list[int]
    last_was_bad: bool

    @property
    def bad_stage(self) -> int | None:
        """The stage that was bad, where no update came after a bad one; None: all were sound."""
        return next((stage for stage, count in enumerate(self.bad) if count), None)


class SlotsCheck:
    """Keeps on the device what it finds in one update of each of several slots.

    Attributes:
        due: 1.0 for slots whose update it is; nothing is changed in the others. float32 `[S]`.
        bad: For each slot the number of its first stage that was not finite, counted from 1; 0: all were. float32 `[S]`.
    """

    def __init__(self, slots: int, device: torch.device):
        self.due, self.bad = torch.zeros(slots, device=device), torch.zeros(slots, device=device)
        self._one = torch.ones((), device=device)
        self.skip: Tensor | None = None

    def skip_of(self, group: NetworkGroup) -> Tensor:
        """As in `FiniteCheck`."""
        return self.skip.unsqueeze(1).expand(-1, len(group) // len(self.skip)).flatten()

    def begin(self) -> None:
        """As in `FiniteCheck`."""
        self.bad.zero_()
        self.skip = 1.0 - self.due

    def passes(self, stage: int, finite: Tensor) -> bool:
        """As in `FiniteCheck`, with one answer for each slot; True, for the host does not know."""
        before = self.skip
        self.skip = torch.where(finite, before, self._one)
        self.bad.add_(self.skip - before, alpha=stage + 1)
        return True

    def end(self) -> None:
        """Nothing."""


class DeferredCheck:
    """Keeps what it finds on the device, where stages are skipped without the host's knowing."""

    def __init__(self, stages: int, device: torch.device, goes_on: bool):
        """
        Args:
            stages: Number of stages of an update.
            device: That of the losses.
            goes_on: Whether updates after a bad one are to be made.
        """
        self._goes_on = goes_on
        # Updates that were sound, the first bad stages of the others, whether the last one was bad.
        self._found = torch.zeros(stages + 2, dtype=torch.float32, device=device)
        self._one = torch.ones((), device=device)
        self.skip: Tensor | None = None

    def skip_of(self, group: NetworkGroup) -> Tensor:
        """As in `FiniteCheck`."""
        return self.skip

    def begin(self) -> None:
        """As in `FiniteCheck`."""
        self.skip = torch.zeros_like(self._one) if self._goes_on else self._found[-1].clone()

    def passes(self, stage: int, finite: Tensor) -> bool:
        """As in `FiniteCheck`; True, for the host does not know."""
        before = self.skip
        self.skip = torch.where(finite, before, self._one)
        self._found[1 + stage].add_(self.skip - before)
        return True

    def end(self) -> None:
        """As in `FiniteCheck`."""
        self._found[0].add_(1.0 - self.skip)
        self._found[-1].copy_(self.skip)

    def take(self) -> Findings:
        """What was found since the last time; waits for the device."""
        sound, *bad, last = self._found.tolist()
        self.clear()
        return Findings(int(sound), [int(n) for n in bad], bool(last))

    def clear(self) -> None:
        """Forgets it."""
        self._found.zero_()
