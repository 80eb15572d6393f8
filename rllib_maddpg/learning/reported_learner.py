"""What is told of a Learner's updates: metrics, TD errors, and updates that were skipped."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    WEIGHTS_SEQ_NO,
)
from torch import Tensor

from rllib_maddpg.learning.context import UpdateContext
from rllib_maddpg.learning.gradients import ClippedGradients
from rllib_maddpg.learning.grouped_learner import GroupedTorchLearner
from rllib_maddpg.learning.groups import NetworkGroup
from rllib_maddpg.learning.metrics import UpdateMetrics
from rllib_maddpg.learning.not_finite import not_finite
from rllib_maddpg.learning.td_errors import TDErrors
from rllib_maddpg.ray_compat import log_value


class ReportedTorchLearner(GroupedTorchLearner):
    """A Learner that tells of its updates.

    Metrics are taken of the last update before a report only, and leave the device in one transfer.
    """

    # Whether it keeps what `take_td_errors` returns, and what that is of each row: the agents' "mean", or the "max" of them.
    collects_td_errors = False
    td_errors_of = "mean"

    @override(GroupedTorchLearner)
    def build(self) -> None:
        super().build()
        # Metrics of the last update, and what was trained since they were reported.
        self._update_metrics = UpdateMetrics()
        self._updates_to_report: int | None = 0  # how many come after this one; None: nobody will look
        self._rows_trained = 0
        self._td_errors = TDErrors()

    # ------------------------------------------------------------------------------------------ metrics

    def _note_total_losses(self, ctx: UpdateContext) -> None:
        """RLlib's total loss: the sum over the roles that have learned."""
        if ctx.plan.reports:
            noted, roles = ctx.results.metrics.noted, dict.fromkeys(ctx.stepped)
            own = {m: [noted[m, f"{role}_loss"] for role in roles if (m, f"{role}_loss") in noted] for m in ctx.trained}
            totals = {m: sum(losses) for m, losses in own.items() if losses}
            if totals:
                ctx.results.metrics.note(totals, {self.TOTAL_LOSS_KEY: torch.stack(list(totals.values()))})

    def keep_td_errors(self, ctx: UpdateContext, group: NetworkGroup, q: Tensor, target: Tensor, acts: Tensor) -> None:
        """Adds a group's TD errors to those of the update's rows, for whoever wants them (`collects_td_errors`)."""
        if ctx.results.td_sums is not None:
            # With rows of its own for each module, those of module d.
            modules = self.layout.modules
            own = (
                slice(modules.index(group.modules[0]), None, len(modules)) if self.config.minibatch_per_module else slice(None)
            )
            # Modules that do not learn may stand in the group.
            acts = acts * ctx.learns(group)
            errors = (q - target).abs() * acts
            sums, largest = ctx.results.td_sums[..., own], ctx.batch.max_over_agents(errors)
            sums[:2] += torch.stack([ctx.batch.sum_over_agents(x) for x in (errors, acts)])
            sums[2].copy_(torch.maximum(sums[2], largest))

    def collect_td_errors(self, of: str) -> None:
        """Has it keep what `take_td_errors` returns: of each row the agents' "mean", or the "max" of them."""
        self.collects_td_errors, self.td_errors_of = True, of

    def take_td_errors(self) -> np.ndarray:
        """Mean (or largest: `td_errors_of`) |TD error| of the trained modules' acting agents in each row of the last call.

        In float32, by the rows of the batch that `update` was given.

        It is 0 in rows of updates that were skipped for NaN, which nobody should draw for their errors.
        """
        return self._td_errors.take(largest=self.td_errors_of == "max")

    def _log_metrics_of_updates(self, batch_size: int) -> None:
        """Gives RLlib the metrics of the last update, and the counts of all since the last report."""
        log, rows = partial(log_value, self.metrics), self._rows_trained
        self._update_metrics.report(self.metrics)
        for module_id in self.layout.modules:
            log((module_id, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)
            log((module_id, MODULE_TRAIN_BATCH_SIZE_MEAN), batch_size, reduce="mean")
            for key in (module_id, ALL_MODULES):
                log((key, NUM_MODULE_STEPS_TRAINED), rows, reduce="sum")
                log((key, NUM_MODULE_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED), rows, reduce="sum", with_throughput=True)
        log((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), rows, reduce="lifetime_sum", with_throughput=True)
        self._rows_trained = 0

    # ------------------------------------------------------------------------------------------ NaN and infinity

    def _skip_or_raise(self, role: str, found: ClippedGradients, ctx: UpdateContext) -> None:
        """Raises, or counts the skipped update where `torch_skip_nan_gradients` is set."""
        self._update_metrics.clear()
        if not self.config.torch_skip_nan_gradients:
            raise not_finite(role, found, ctx)
        ctx.results.was_skipped = True
        self._count_skipped(found.losses)

    def _count_skipped(self, modules: Iterable[str], updates: int = 1) -> None:
        # All Learners skip alike; one counts.
        for module_id in modules if self._rank == 0 else ():
            log_value(self.metrics, (module_id, "num_updates_skipped_lifetime"), updates, reduce="lifetime_sum")
