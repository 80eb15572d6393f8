"""Several Learners that are alike, side by side: an update of all that are due is one pass over all of them.

Shapes: S slots, a Learner in each; G modules of a group of its networks; B rows of each.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.context import UpdateContext
from rllib_maddpg.learning.finite_checks import SlotsCheck
from rllib_maddpg.learning.groups import NetworkGroup, of_role
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.metrics import UpdateMetrics
from rllib_maddpg.learning.slot_groups import SlotsGroup
from rllib_maddpg.learning.stages import LossStage
from rllib_maddpg.learning.update_graphs import UpdateGraphs
from rllib_maddpg.learning.update_noise import CounterNoise, SlotsNoise, UpdateNoise
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.slots import SlotsBatch, SlotsLayout

# On a CPU a pass computes all slots, and what its layers leave for the backward pass must stay in the cache. Rows of a slot up
# to which that takes less time than one update after the other (`python -m benchmarks shared --batch 256`).
MAX_ROWS_ON_CPU = 256
# On a GPU a pass over so many slots may take as long as the update of one Learner.
SLOTS_OF_ONE_ON_GPU = 8
# Sizes of batches for which there is memory at a time; population based training may try ever new ones.
MAX_SHAPES = 8


class SlotStack:
    """The Learners of several slots, whose weights, targets, moments, clocks, settings and keys of noise lie side by side.

    Slots whose update is not due, and those without a Learner, are computed, too, but nothing of them changes: on a GPU that
    takes little more time, and there is one CUDA graph for each kind of update, whoever is due.

    Attributes:
        layout: Of all slots.
        learners: By slot; None: it is free.
    """

    def __init__(self, like: MADDPGTorchLearner, slots: int):
        """
        Args:
            like: A Learner; all others are of its kind (`kind_of`).
            slots: S.
        """
        self.learners: list[MADDPGTorchLearner | None] = [None] * slots
        self.layout = SlotsLayout(like.layout, slots)
        self._schema, self._device = like.schema, like._device
        self._groups = {name: [SlotsGroup(own, self.layout) for own in groups] for name, groups in like._groups.items()}
        self._noise = SlotsNoise(slots, self._device)
        self._smooths = smooths(like)
        self._normalizer = like._normalizer and like._normalizer.repeated(slots)
        self._temperatures = [1.0] * slots
        self._temperature = torch.ones(slots, dtype=torch.float64, device=self._device)
        self._check = SlotsCheck(slots, self._device)
        self._rows: dict[Hashable, Tensor] = {}
        self._graphs: UpdateGraphs | None = None
        if like._graphs is not None:
            new_graph = partial(like.graph_class, self._device)
            self._graphs = UpdateGraphs(new_graph, self._batch, self._check, self._make, like.config.cuda_graph is True)

    def take(self, learner: MADDPGTorchLearner, slot: int) -> None:
        """Lets all that a Learner has on the device lie in a slot."""
        learner.forget_graphs()
        for groups, own_groups in zip(self._groups.values(), learner._groups.values(), strict=True):
            for group, own in zip(groups, own_groups, strict=True):
                group.take(own, slot)
        self._noise.take(learner._noise, slot)
        learner._temperature = self._temperature[slot]
        if self._normalizer is not None:
            self._normalizer.take(learner._normalizer, slot)
        learner._tie()
        self.learners[slot] = learner

    def leave(self, slot: int) -> None:
        """A slot is free again; the numbers in it are left as they are."""
        self.learners[slot] = None
        for group in self._all_groups():
            if group.optimizer is not None:
                group.optimizer.leave(slot)

    def close(self) -> None:
        """Nobody lies here any more: gives graphs and their memory back now, and not when Python collects its garbage."""
        self._graphs = None

    def pays(self, due: int, rows: int) -> bool:
        """Whether a pass takes less time than the updates that are due, one after the other.

        Args:
            due: How many.
            rows: Of each.
        """
        if self._device.type != "cpu":
            return SLOTS_OF_ONE_ON_GPU * due >= len(self.learners)
        return 1 < due > len(self.learners) / 2 and rows <= MAX_ROWS_ON_CPU

    def update(self, due: Mapping[int, tuple[JointBatch, UpdatePlan]]) -> dict[int, UpdateResults]:
        """Makes an update of each of some slots.

        Args:
            due: By slot its rows and what the host has decided, where no two differ but in what is reported or kept.

        Returns:
            By slot what its update leaves. A `bad_stage` has changed nothing, and neither have the later ones.
        """
        plans = {slot: plan for slot, (_, plan) in due.items()}
        first = next(iter(plans.values()))
        plan = UpdatePlan(
            self.layout.of_all_slots(first.trained),
            first.stages,
            first.moves_targets,
            any(plan.reports for plan in plans.values()),
            any(plan.keeps_td_errors for plan in plans.values()),
        )
        batches = {slot: batch for slot, (batch, _) in due.items()}
        batch = self._batch(self._gather("drawn", {slot: batch.joint_rows for slot, batch in batches.items()}))
        if all(own.newest is not None for own in batches.values()):
            newest = {slot: own.newest.joint_rows for slot, own in batches.items()}
            batch.newest = self._batch(self._gather("newest", newest))
        self._tell_device(plans)
        self._prepare_steps(plans, plan)
        results = self._graphs.update(batch, plan, None) if self._graphs else self._make(batch, plan, self._check)
        # Waits for the device, as everybody does who is to get new weights.
        bad = self._check.bad.tolist()
        metrics = results.metrics.of_slots({slot: plan.reports for slot, plan in plans.items() if not bad[slot]})
        return {
            slot: UpdateResults(
                metrics.get(slot, UpdateMetrics()),
                results.td_sums[:, slot] if plan.keeps_td_errors else None,
                results.moved_targets and not bad[slot],
                bool(bad[slot]),
                int(bad[slot]) - 1 if bad[slot] else None,
            )
            for slot, plan in plans.items()
        }

    # ------------------------------------------------------------------------------------------ before a pass

    def _gather(self, kind: str, rows: Mapping[int, Tensor]) -> Tensor:
        """The rows of all slots, `[S, B, row_width]`; those of slots that are not due are old ones."""
        like = next(iter(rows.values()))
        key = kind, like.shape, like.dtype
        if key not in self._rows:
            while len(self._rows) >= MAX_SHAPES:
                del self._rows[next(iter(self._rows))]
            # Any rows that are like others: no slot is to have NaN without need.
            self._rows[key] = like.expand(len(self.learners), *like.shape).clone()
        for slot, own in rows.items():
            self._rows[key][slot].copy_(own)
        return self._rows[key]

    def _tell_device(self, slots: Mapping[int, Any]) -> None:
        """Who is due, and of each the number of its update, the temperature of its env runners, and settings that change."""
        numbers = [learner._num_updates if learner else 0 for learner in self.learners]
        self._noise.number.copy_(torch.tensor(numbers))
        for slot in slots:
            self._temperatures[slot] = self.learners[slot].exploration_temperature
            self.learners[slot].write_schedules()
        self._temperature.copy_(torch.tensor(self._temperatures, dtype=torch.float64))
        self._check.due.copy_(torch.tensor([float(slot in slots) for slot in range(len(self.learners))]))

    def _prepare_steps(self, slots: Mapping[int, Any], plan: UpdatePlan) -> None:
        trained = {module.module for module in plan.trained}
        learner = self.learners[next(iter(slots))]
        for stage in (learner._stages[k] for k in plan.stages):
            for group in of_role(self._groups, stage.role) if isinstance(stage, LossStage) else ():
                own = group.modules[: len(group) // len(self.learners)]
                members = [k for k, module in enumerate(own) if module.module in trained]
                if group.is_trainable and members:
                    group.optimizer.prepare(slots, members)

    # ------------------------------------------------------------------------------------------ the pass

    def _batch(self, rows: Tensor) -> SlotsBatch:
        return SlotsBatch(self._schema, rows, self.layout)

    def _make(self, batch: SlotsBatch, plan: UpdatePlan, check: SlotsCheck) -> UpdateResults:
        moments = None
        if self._normalizer is not None:
            batch, moments = self._normalizer.normalized(batch, {module.module for module in plan.trained})
        ctx = UpdateContext(
            batch,
            dict.fromkeys(self.layout.modules, batch),
            plan,
            check,
            self._groups,
            {},
            UpdateNoise(self._noise, [batch]),
            self._temperature,
            smooths=self._smooths,
            moments=moments,
        )
        # Whose stages these are does not matter: they depend on the context only, and Learners with others are of another kind.
        return next(learner for learner in self.learners if learner).run_stages(ctx)

    def _all_groups(self) -> list[NetworkGroup]:
        return [group for groups in self._groups.values() for group in groups]


def kind_of(learner: MADDPGTorchLearner) -> Hashable | None:
    """Equal for Learners that can be in one stack; None: updates of this one are made by itself."""
    groups = learner._all_groups()
    apart = learner._world > 1 or learner._rules or learner.config.minibatch_per_module
    if apart or learner.why_not_ours(learner.config) or not isinstance(learner._noise, CounterNoise):
        return None
    for group in groups:
        options = group.optimizer and group.optimizer.is_joint and group.optimizer.options()
        if not group.network.is_stacked or (group.is_trainable and not options):
            return None
    stages, graphs = tuple(learner._stages), learner._graphs is not None
    of_groups = tuple(map(_kind_of_group, groups))
    return (
        type(learner),
        repr(learner.layout.description()),
        learner.schema.places,
        stages,
        of_groups,
        str(learner._device),
        smooths(learner),
        graphs,
        normalizes(learner),
    )


def smooths(learner: MADDPGTorchLearner) -> bool:
    """Whether some module has noise on target actions."""
    return any(config.target_policy_noise for config in learner._configs.values())


def normalizes(learner: MADDPGTorchLearner) -> tuple[bool, bool]:
    """Whether observations are normalized, and whether rewards are."""
    return learner.config.normalize_observations, learner.config.normalize_rewards


def _kind_of_group(group: NetworkGroup) -> Hashable:
    network = group.network
    shapes = tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in network.parameters)
    words = tuple((key, repr(value)) for key, value in group.settings.words.items())
    options = group.optimizer and group.optimizer.options()
    declared = group.name, group.role, group.view, group.about, group.modules, group.target is None
    return *declared, network.kind, shapes, words, options
