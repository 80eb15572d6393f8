"""Updates that are recorded once for each kind of update and then made without Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.finite_checks import DeferredCheck
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import RowSchema

logger = logging.getLogger(__name__)

# Updates of a kind that are made as they come before one is recorded.
WARM_UPS = 2


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
        schema: RowSchema,
        check: DeferredCheck,
        make_update: Callable[[JointBatch, UpdatePlan, DeferredCheck], UpdateResults],
        must: bool,
    ):
        """
        Args:
            new_graph: Makes what records, a `CudaGraph`.
            schema: Of the rows.
            check: Of the stages.
            make_update: One update of the Learner, without anything that waits for the device.
            must: Whether it is an error if an update cannot be recorded.
        """
        self.check = check
        self._new_graph, self._schema, self._make_update, self._must = new_graph, schema, make_update, must
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
        rows, newest = self._put("drawn", batch), None if batch.newest is None else self._put("newest", batch.newest)
        key = plan, steps, *((x.shape, x.dtype) for x in (rows, newest) if x is not None)
        if key not in self._kinds:
            self._kinds[key] = _Kind(self._new_graph())
        kind = self._kinds[key]
        if kind.results is None:
            kind.seen += 1
            if kind.seen <= WARM_UPS or not self._record(kind, rows, newest, plan):
                return kind.graph.warm_up(lambda: self._make(rows, newest, plan))
        kind.graph.replay()
        return kind.results

    def _put(self, name: str, batch: JointBatch) -> Tensor:
        """Copies rows to where recorded updates read them."""
        rows = batch.joint_rows
        key = name, rows.shape, rows.dtype
        if key not in self._static:
            self._static[key] = torch.empty_like(rows, memory_format=torch.contiguous_format)
        return self._static[key].copy_(rows)

    def _make(self, rows: Tensor, newest: Tensor | None, plan: UpdatePlan) -> UpdateResults:
        # A new batch each time, for it keeps what is computed of it.
        batch = JointBatch(self._schema, rows)
        batch.newest = None if newest is None else JointBatch(self._schema, newest)
        return self._make_update(batch, plan, self.check)

    def _record(self, kind: _Kind, rows: Tensor, newest: Tensor | None, plan: UpdatePlan) -> bool:
        if self._failed:
            return False
        try:
            kind.results = kind.graph.capture(lambda: self._make(rows, newest, plan))
        except RuntimeError as error:  # torch's, of CUDA
            if self._must:
                raise ValueError(
                    f"`cuda_graph`=True, but an update cannot be recorded: {error}. Set 'auto' or False."
                ) from error
            logger.warning("Updates are not made as CUDA graphs, which takes longer: %s", error)
            self._failed = True
        return kind.results is not None
