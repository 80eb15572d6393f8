"""The random numbers of one update. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from rllib_maddpg.learning import losses
from rllib_maddpg.rows.joint_batch import JointBatch


class UpdateNoise:
    """Noise for the rows of an update. A kind is drawn when somebody first asks for it, for all rows at once, so that the
    numbers do not depend on who asks first.

    Every Learner draws for the rows of all Learners and takes its own, so that the noise of a row does not depend on how many
    Learners there are.
    """

    def __init__(self, joints: Iterable[JointBatch], rank: int, world: int, generator: torch.Generator):
        """
        Args:
            joints: All rows that modules learn from.
            rank: Number of this Learner.
            world: Number of Learners.
            generator: In the same state on all of them.
        """
        self._joints = list(dict.fromkeys(joints))
        self._rank, self._world, self._generator = rank, world, generator
        self._drawn: dict[str, dict[JointBatch, dict[str, Tensor]]] = {}

    def gumbel(self, joint: JointBatch) -> dict[str, Tensor]:
        """Standard Gumbel noise `[n, B, code_dim]` for each module with categorical actions."""
        layout = joint.layout
        wanted = [m for m in layout.modules if layout.codec_of(m).categorical]
        return self._of("gumbel", joint, wanted, losses.gumbel_noise)

    def normal(self, joint: JointBatch) -> dict[str, Tensor]:
        """Standard normal noise `[n, B, code_dim]` for each module."""
        return self._of("normal", joint, joint.layout.modules, losses.normal_noise)

    def _of(self, kind: str, joint: JointBatch, modules: Iterable[str], draw: Callable[..., Tensor]) -> dict[str, Tensor]:
        if kind not in self._drawn:
            self._drawn[kind] = {each: self._draw(each, modules, draw) for each in self._joints}
        return self._drawn[kind][joint]

    def _draw(self, joint: JointBatch, modules: Iterable[str], draw: Callable[..., Tensor]) -> dict[str, Tensor]:
        noise, rows = {}, len(joint)
        for module_id in modules:
            code = joint.modules[module_id]["actions"]
            drawn = draw((self._world * rows, *code.shape[1:]), self._generator, code.device, code.dtype)
            noise[module_id] = drawn[self._rank * rows : (self._rank + 1) * rows].transpose(0, 1)
        return noise
