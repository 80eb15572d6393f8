"""Updates that are recorded once for each kind of update and then made without Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.finite_checks import DeferredCheck
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.rows.joint_batch import JointBatch

logger = logging.getLogger(__name__)

# Updates of a kind that are made as they come before one is recorded.
WARM_UPS = 2
# Each of them has memory of its own on the GPU. Updates of other kinds, such as those of ever new sets of modules that
# learn, are made as they come.
MAX_KINDS = 64


@dataclass
class _Kind:
    """Updates that are alike.

    Attributes:
        graph: In which one of them is recorded, or is going to be.
        seen: Number of those before it was.
        results: What each of them leaves, once it is recorded.
    """

    graph: Any
    seen: int = 0
    results: UpdateResults | None = None


class UpdateGraphs:
    """The updates of a Learner on a GPU.

    Rows are copied to where the recorded update reads them. All else that changes from update to update is on the device, too:
    weights, Adam's moments and clocks, learning rates, settings, keys of the noise and the number of the update.

    Attributes:
        check: Knows, when it is asked, whether all numbers were finite.
    """

    def __init__(
        self,
        new_graph: Callable[[], Any],
        new_batch: Callable[[Tensor], JointBatch],
        check: DeferredCheck,
        make_update: Callable[[JointBatch, UpdatePlan, DeferredCheck], UpdateResults],
        must: bool,
    ):
        """
        Args:
            new_graph: Makes what records, a `CudaGraph`.
            new_batch: Makes a batch of its rows.
            check: Of the stages.
            make_update: One update of the Learner, without anything that waits for the device.
            must: Whether it is an error if an update cannot be recorded.
        """
        self.check = check
        self._new_graph, self._new_batch, self._make_update, self._must = new_graph, new_batch, make_update, must
        self._kinds: dict[Hashable, _Kind] = {}
        self._static: dict[Hashable, Tensor] = {}
        self._failed = False

    def update(self, batch: JointBatch, plan: UpdatePlan, steps: Hashable) -> UpdateResults:
        """Makes an update, or has the device make it.

        Args:
            batch: The rows, on the device.
            plan: What is due in it.
            steps: How its optimizers are going to step, `GroupOptimizer.prepare`.

        Returns:
            Numbers in it hold until the next update.

        Raises:
            ValueError: If it cannot be recorded, but has to be.
        """
        given = [x.joint_rows for x in (batch, batch.newest) if x is not None]
        kind = self._kind((plan, steps, *((rows.shape, rows.dtype) for rows in given)))
        if kind.results is None:
            kind.seen += 1
            if kind.seen <= WARM_UPS or not self._record(kind, given, plan):
                return kind.graph.warm_up(lambda: self._make(given, plan))
        for rows, there in zip(given, self._places(given), strict=True):
            there.copy_(rows)
        kind.graph.replay()
        return kind.results

    def _kind(self, key: Hashable) -> _Kind:
        if key in self._kinds:
            return self._kinds[key]
        kind = _Kind(self._new_graph())
        if len(self._kinds) < MAX_KINDS:
            self._kinds[key] = kind
        return kind

    def _places(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Where recorded updates read drawn rows, and the newest ones."""
        keys = [(k, rows.shape, rows.dtype) for k, rows in enumerate(given)]
        for key, rows in zip(keys, given, strict=True):
            if key not in self._static:
                self._static[key] = torch.empty_like(rows, memory_format=torch.contiguous_format)
        return [self._static[key] for key in keys]

    def _make(self, rows: Sequence[Tensor], plan: UpdatePlan) -> UpdateResults:
        # New batches each time, for they keep what is computed of them.
        batch, *newest = (self._new_batch(each) for each in rows)
        batch.newest = newest[0] if newest else None
        return self._make_update(batch, plan, self.check)

    def _record(self, kind: _Kind, given: Sequence[Tensor], plan: UpdatePlan) -> bool:
        if self._failed:
            return False
        rows = self._places(given)
        try:
            kind.results = kind.graph.capture(lambda: self._make(rows, plan))
        except RuntimeError as error:  # torch's, of CUDA
            if self._must:
                raise ValueError(
                    f"`cuda_graph`=True, but an update cannot be recorded: {error}. Set 'auto' or False."
                ) from error
            logger.warning("Updates are not made as CUDA graphs, which takes longer: %s", error)
            self._failed = True
        return kind.results is not None
