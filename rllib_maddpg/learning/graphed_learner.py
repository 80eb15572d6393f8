"""A Learner whose updates are CUDA graphs, where nothing forbids it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.rllib.utils.annotations import override

from rllib_maddpg.learning.cuda_graph import CudaGraph
from rllib_maddpg.learning.finite_checks import DeferredCheck, ImmediateCheck
from rllib_maddpg.learning.groups import of_role
from rllib_maddpg.learning.joint_learner import JointTorchLearner
from rllib_maddpg.learning.not_finite import not_finite
from rllib_maddpg.learning.stages import LossStage, TargetStage
from rllib_maddpg.learning.update_call import UpdateCall
from rllib_maddpg.learning.update_graphs import UpdateGraphs
from rllib_maddpg.learning.update_noise import GeneratorNoise
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.rows.joint_batch import JointBatch

logger = logging.getLogger(__name__)


class GraphedTorchLearner(JointTorchLearner):
    """A `JointTorchLearner` that has a GPU make updates without the host (`cuda_graph`).

    - Of each kind of update one is recorded, and from then on replayed.
    - Whether all numbers were finite is asked once at the end of each call of `update`. A bad stage changes nothing, as if the
      host had asked at once; the updates after it are not made.
    """

    # What records updates on a GPU.
    graph_class = CudaGraph

    @override(JointTorchLearner)
    def build(self) -> None:
        super().build()
        self._graphs: UpdateGraphs | None = None  # None: updates are made one after the other
        self._graphs_of: tuple[Any, Any] = (None, None)
        self._unasked: list[_Unasked] = []
        if self.config.cuda_graph is True:
            self._tie()  # says so now if it cannot be

    # ------------------------------------------------------------------------------------------ whether there are any

    @override(JointTorchLearner)
    def _tie(self) -> None:
        super()._tie()
        now = self._groups, self._noise
        if any(old is not new for old, new in zip(self._graphs_of, now, strict=True)):
            self._graphs = None  # also if there can be no others
            self._graphs, self._graphs_of = self._make_graphs(), now

    def _make_graphs(self) -> UpdateGraphs | None:
        """Whatever records updates; None: they are made one after the other.

        Raises:
            ValueError: If `cuda_graph` is True and updates cannot be recorded.
        """
        setting = self.config.cuda_graph
        without_gpu = self.graph_class.why_not(self._device)
        why_not = without_gpu or self.why_no_graphs(self.config) or self._why_not_mine()
        if setting is True and why_not:
            raise ValueError(f"`cuda_graph`=True, but {why_not}. Set 'auto', which makes graphs where they can be, or False.")
        if setting is False or why_not:
            if setting and not without_gpu:
                logger.warning("Updates are not made as CUDA graphs, which takes longer: %s.", why_not)
            return None
        check = DeferredCheck(len(self._stages), self._device, self.config.torch_skip_nan_gradients)
        new_batch = partial(JointBatch, self.schema)
        return UpdateGraphs(partial(self.graph_class, self._device), new_batch, check, self._make_update, setting is True)

    @classmethod
    def why_no_graphs(cls, config: Any) -> str:
        """Why updates of such a Learner cannot be recorded, as far as its config says it; empty: they can be."""
        if config.num_learners > 1:
            return "there are several Learners, which wait for each other"
        if config.torch_compile_learner:
            return "`torch_compile_learner` is set"
        if config.torch_skip_nan_gradients and config.target_network_update_freq:
            return "with `torch_skip_nan_gradients` the next `target_network_update_freq` depends on which updates are skipped"
        for stage in cls.stages(config):
            if type(stage) not in (LossStage, TargetStage):
                return f"{cls.__name__} has a stage of its own, {type(stage).__name__}"
        return ""

    def _why_not_mine(self) -> str:
        """As `why_no_graphs`, of these networks and this noise."""
        if isinstance(self._noise, GeneratorNoise):
            return "the checkpoint is of a version that drew its noise on the CPU, and goes on so"
        if self._rules:
            return f"module {next(iter(self._rules))!r} acts by a rule of its own"
        for group in self._all_groups():
            of = f"network {group.name!r} of module {group.modules[0]!r}"
            if not group.network.is_stacked and group.common is None:
                return f"{of} is not one of the MLPs that are computed together"
            if group.is_trainable and not group.optimizer.is_joint:
                return f"the optimizer of {of} is no plain Adam"
        return ""

    # ------------------------------------------------------------------------------------------ updates

    @override(JointTorchLearner)
    def begin_call(self, *args: Any, **kwargs: Any) -> UpdateCall:
        if self._unasked:  # of a call that has failed
            self._unasked.clear()
            if self._graphs is not None:
                self._graphs.check.clear()
        return super().begin_call(*args, **kwargs)

    @override(JointTorchLearner)
    def run_update(self, batch: JointBatch, plan: UpdatePlan) -> UpdateResults:
        if self._graphs is None:
            return super().run_update(batch, plan)
        self._tell_device(self._num_updates)
        self._unasked.append(_Unasked(batch, plan, self._num_updates, self._last_target_update))
        self._last_results = self._graphs.update(batch, plan, self._prepare_steps(plan))
        return self._last_results

    def _prepare_steps(self, plan: UpdatePlan) -> tuple:
        """Gets optimizers ready for steps without the host; equal for steps that are alike."""
        steps = []
        for stage in (self._stages[k] for k in plan.stages):
            for group in of_role(self._groups, stage.role) if isinstance(stage, LossStage) else ():
                members = [k for k, module_id in enumerate(group.modules) if module_id in plan.trained]
                if group.is_trainable and members:
                    steps.append(group.optimizer.prepare(members))
        return tuple(steps)

    @override(JointTorchLearner)
    def finish_updates(self) -> None:
        """Asks the device whether all was finite in the updates of this call; waits for them.

        Raises:
            ValueError: As if they had been made one by one, in the same state.
        """
        if not self._unasked:
            return
        updates, found = tuple(self._unasked), self._graphs.check.take()
        self._unasked.clear()
        if not any(found.bad):
            return
        # Whatever earlier updates have left may be that of a bad one.
        self._update_metrics.clear()
        if not found.last_was_bad:
            self._update_metrics.add(self._last_results.metrics)
        if self.config.torch_skip_nan_gradients:
            for stage, count in zip(self._stages, found.bad, strict=True):
                if count:
                    self._count_skipped(self._learning(stage.role, updates[0].plan.trained), count)
            return
        # The device has made none of the updates from the bad one on.
        bad, stage = updates[found.sound], found.bad_stage
        self._num_updates, self._last_target_update = bad.number, bad.last_target_update
        self._rows_trained -= sum(len(update.batch) for update in updates[found.sound :])
        self._tell_device(bad.number)
        raise self.why_not_finite(bad.batch, bad.plan, stage)

    def forget_graphs(self) -> None:
        """What it has on the device is to move: graphs would go on with the old tensors."""
        self._graphs, self._graphs_of = None, (None, None)

    def was_not_finite(self, batch: JointBatch, plan: UpdatePlan, stage: int) -> None:
        """Raises, or counts a skipped update, where somebody else has found that a stage was not finite; args as below."""
        self._update_metrics.clear()
        if not self.config.torch_skip_nan_gradients:
            raise self.why_not_finite(batch, plan, stage)
        self._count_skipped(self._learning(self._stages[stage].role, plan.trained))

    def why_not_finite(self, batch: JointBatch, plan: UpdatePlan, stage: int) -> ValueError:
        """The error of an update whose stages before a bad one have been made; that one is computed again.

        Args:
            batch: Its rows.
            plan: What was due.
            stage: Number of the bad stage.
        """
        ctx = self._context(batch, plan, ImmediateCheck())
        ctx.stepped = [self._stages[k].role for k in plan.stages if k < stage]
        role, losses = self._stages[stage].role, self._stages[stage].losses
        if self._graphs is None:
            return not_finite(role, self._gradients(role, losses(self, ctx), ctx), ctx)
        # Where updates are recorded: whoever catches the error may hold autograd's nodes, and those of another stream would
        # break the next capture.
        aside = self.graph_class(self._device)
        return not_finite(role, aside.warm_up(lambda: self._gradients(role, losses(self, ctx), ctx)), ctx)


@dataclass(frozen=True)
class _Unasked:
    """An update of which nobody knows yet whether its numbers were finite.

    Attributes:
        batch: Its rows.
        plan: What was due.
        number: That of the update.
        last_target_update: When targets had moved before it, in env steps.
    """

    batch: JointBatch
    plan: UpdatePlan
    number: int
    last_target_update: int
