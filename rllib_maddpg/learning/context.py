"""What the stages of one update share: rows, groups, noise and actions. Whatever several of them need is computed once.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning.beliefs import Beliefs
from rllib_maddpg.learning.finite_checks import FiniteCheck
from rllib_maddpg.learning.group_rows import GroupRows
from rllib_maddpg.learning.groups import NetworkGroup, actors_of, of_role, trained
from rllib_maddpg.learning.joint_actions import JointActions
from rllib_maddpg.learning.moments import NewMoments
from rllib_maddpg.learning.update_noise import UpdateNoise
from rllib_maddpg.learning.update_plan import UpdatePlan, UpdateResults
from rllib_maddpg.modules.critic_inputs import CriticInputs, SeparateInputs
from rllib_maddpg.modules.specs import ACTOR, INFERRED
from rllib_maddpg.rows.joint_batch import JointBatch


class _Made:
    """What an update has made so far: for itself, since no context may hold itself until Python collects its garbage."""

    def __init__(self) -> None:
        self._made: dict[tuple, Any] = {}

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """As `UpdateContext.once`."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def forget(self, *kinds: str) -> None:
        """Forgets all of some kinds."""
        self._made = {key: made for key, made in self._made.items() if key[0] not in kinds}


class UpdateContext:
    """One update.

    Attributes:
        batch: The rows.
        newest: The newest rows, for stages that ask for them (`Stage.newest`); without any, those of the batch.
        temperature: At which the env runners act now, where they act by Gumbel noise, without dimensions; `[S]` of S games.
        plan: What the host has decided about it.
        results: What it leaves beside other weights.
        check: Whether its numbers are finite.
        stage: Number of the stage that runs.
        stepped: Roles of the networks that have learned in it so far.
        reports: Whether anybody will see metrics of the stage that runs.
        moments: What the rows make of the moments by which they are normalized; None: they are not.
    """

    def __init__(
        self,
        batch: JointBatch,
        rows_of: Mapping[str, JointBatch],
        plan: UpdatePlan,
        check: FiniteCheck,
        groups: Mapping[str, list[NetworkGroup]],
        rules: Mapping[str, Any],
        noise: UpdateNoise,
        temperature: Tensor,
        distributed: bool = False,
        smooths: bool = False,
        moments: NewMoments | None = None,
    ):
        """
        Args:
            batch: The rows.
            rows_of: Per module those that it learns from.
            plan: Who learns, and what else is known.
            check: Asks whether numbers are finite.
            groups: All networks, by name.
            rules: Modules that act by a rule of their own, and do not learn.
            noise: For the rows of all modules.
            temperature: As in the attributes.
            distributed: Whether there are other Learners.
            smooths: Whether some module has `target_policy_noise`.
            moments: As in the attributes.
        """
        self.batch, self.plan, self.check, self.temperature = batch, plan, check, temperature
        self.results, self.moments = UpdateResults(), moments
        self.stage = 0
        # Rows that stand for themselves where nobody has brought any newer ones.
        self.newest = batch if batch.newest is None else batch.newest
        self.stepped: list[str] = []
        self.reports = True
        self.metrics_stay = False
        self._rows_of, self._groups, self._distributed = rows_of, groups, distributed
        self._layout = batch.layout
        self._made = _Made()
        self._actions = JointActions(batch.layout, groups, rules, noise, self._made.once, smooths)
        self._beliefs = Beliefs(self._actions)
        self._added: dict[str, dict[str, Tensor]] = {}

    @property
    def trained(self) -> tuple[str, ...]:
        """Ids of the modules that learn in it, in layout order."""
        return self.plan.trained

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make()` returns, which is called in an update once for a key, a tuple that begins with its kind."""
        return self._made.once(key, make)

    def has_changed(self, role: str) -> None:
        """Networks of a role have learned: what was computed with them is old."""
        if role == ACTOR:
            self._made.forget("policy", "head_outputs", "current_actions", "current")
            if any(group.target is None for group in actors_of(self._groups)):
                self.targets_have_changed()  # such actors stand for their own targets
        if role == INFERRED:
            self._made.forget("current_beliefs", "current")

    def targets_have_changed(self) -> None:
        """As `has_changed`, for all targets."""
        self._made.forget("next_codes", "next_actions", "next_beliefs", "next")

    def __getitem__(self, module_id: str) -> JointBatch:
        """The joint rows that a module learns from: the same for all, unless `minibatch_per_module`."""
        return self._rows_of[module_id]

    def groups(self, role: str) -> list[NetworkGroup]:
        """The groups of networks of a role in which somebody learns."""
        return trained(of_role(self._groups, role), self.trained)

    def all_groups(self, role: str) -> list[NetworkGroup]:
        """All groups of networks of a role."""
        return of_role(self._groups, role)

    def learning_groups(self) -> list[NetworkGroup]:
        """All groups in which somebody learns, whatever their role."""
        return [group for by_name in self._groups.values() for group in trained(by_name, self.trained)]

    def learns(self, group: NetworkGroup) -> Tensor | float:
        """1 for the group's modules that learn, else 0, `[G, 1, 1]`; 1.0 if all of them do."""
        if set(group.modules) <= set(self.trained):
            return 1.0
        learns = group.network.parameters[0].new_zeros(len(group), 1, 1)
        for k, module_id in enumerate(group.modules):
            if module_id in self.trained:
                learns[k].fill_(1.0)  # without a list of numbers that would have to be copied to a GPU
        return learns

    def rows(self, group: NetworkGroup) -> GroupRows:
        """The rows from which a group learns."""
        joint = self._joint(group)
        return self.once(
            ("rows", group.modules, joint), lambda: GroupRows(joint, group.modules, self._distributed, self._added)
        )

    def temperature_of(self, group: NetworkGroup) -> Tensor:
        """`temperature`, to be broadcast over `[G, n, B, dim]`."""
        if not self.temperature.dim():
            return self.temperature
        each = self.temperature.to(self.batch.joint_rows.dtype).view(-1, 1)
        return each.expand(-1, len(group) // len(each)).reshape(-1, 1, 1, 1)

    def newest_rows(self, modules: tuple[str, ...]) -> GroupRows:
        """The newest rows, of some modules that have equally many agents."""
        return self.once(("newest", modules), lambda: GroupRows(self.newest, modules, self._distributed, {}))

    def head_outputs(self, joint: JointBatch) -> dict[str, Tensor]:
        """Head outputs of each module's actor in some rows, `[n, B, dim]`, for reports; but for modules that act by a rule."""
        return self._actions.head_outputs(joint)

    def add_column(self, group: NetworkGroup, **values: Tensor) -> None:
        """Adds columns to the rows of this update, for later stages: `add_column(group, predicted=...)` is `rows["predicted"]`.

        Rows of modules for which nobody adds it have zeros there.

        Args:
            group: Whose modules they belong to, in a group of whatever networks.
            **values: Of each agent in each row, `[G, n, B]`. No gradient goes through them.

        Raises:
            ValueError: If rows have a column of this name already, or the shape is another one.
        """
        rows = self.rows(group)
        for name, value in values.items():
            shape = rows["rewards"].shape
            if name in rows.joint.schema:
                raise ValueError(f"`add_column`: rows have a column {name!r} already. Give it another name.")
            if value.shape != shape:
                raise ValueError(f"`add_column`: {name!r} is {[*value.shape]}, not {[*shape]} (modules, agents of each, rows).")
            self._added.setdefault(name, {}).update(zip(group.modules, value.detach(), strict=True))

    def note(self, group: NetworkGroup, **values: Tensor) -> None:
        """Metrics of the group's modules, `[G]` each: `note(group, qf_mean=...)`. Ask `reports` before computing them."""
        self.results.metrics.note(group.modules, values, self.metrics_stay)

    # ------------------------------------------------------------------------------------------ what networks see

    def inputs(self, group: NetworkGroup) -> CriticInputs | SeparateInputs | Tensor:
        """What the networks of a group with a view see of its rows: (x, a)."""
        return self._seen("row", group, dict)

    def next_inputs(self, group: NetworkGroup) -> CriticInputs | SeparateInputs | Tensor:
        """(x', mu'(o')) by the target actors, by approximations of them, or by a module's own rule.

        It has zeros for agents that do not act there.
        """
        joint, view = self._joint(group), group.view
        return self._seen(
            "next",
            group,
            lambda: {
                "obs": self._next_obs(joint) if view.observations else None,
                "actions": self._next_actions(group),
                "at_next": True,
            },
        )

    def current_inputs(self, group: NetworkGroup) -> CriticInputs | SeparateInputs | Tensor:
        """(x, what the current actors, or approximations of them, do in x); zeros for agents that do not act.

        No gradient goes to any actor.
        """
        return self._seen("current", group, lambda: {"actions": self._current_actions(group)})

    def _seen(
        self, when: str, group: NetworkGroup, other: Callable[[], dict[str, Any]]
    ) -> CriticInputs | SeparateInputs | Tensor:
        # The same for all groups where everybody sees the same, and nobody has an idea of its own what others do.
        same, joint = group.view.is_shared and (when == "row" or not self._infers(group)), self._joint(group)
        whose = () if same else group.modules
        return self.once((when, group.view, joint, whose), lambda: group.view.inputs(joint, group.modules, **other()))

    def _joint(self, group: NetworkGroup) -> JointBatch:
        return self._rows_of[group.modules[0]]

    # ------------------------------------------------------------------------------------------ actions

    def policy(self, group: NetworkGroup, joint: JointBatch | None = None) -> tuple[Tensor, Tensor]:
        """What the modules of a group of actors do now: head outputs and action codes `[G, n, B, dim]`, with gradients.

        Args:
            group: Of actors. The first one of some modules (`is_first`) says it of all their sub-policies, in each row of the
                one that acts there.
            joint: Rows to act in; None: those from which the group learns.
        """
        return self._actions.policy(group, self._joint(group) if joint is None else joint)

    def _next_obs(self, joint: JointBatch) -> Tensor:
        """x', `[B, obs_dim of all agents]`, zeros for agents that are not in the game there."""

        def masked() -> Tensor:
            widths = [slot.obs.stop - slot.obs.start for slot in self._layout.slots]
            alive = joint.columns["next_alive"].split(1, -1)
            agents = zip(joint.columns["new_obs"].split(widths, -1), alive, strict=True)
            return torch.cat([obs * there for obs, there in agents], -1)

        return self.once(("next_obs", joint), masked)

    def _next_actions(self, group: NetworkGroup) -> Tensor:
        """mu'(o') of all agents, `[B, code_dim of all agents]`; `[G, B, ...]` where the group's modules approximate others."""
        joint = self._joint(group)
        if self._infers(group):
            return self._beliefs.next_actions(group.modules, joint)
        return self._actions.next_actions(joint)

    def _current_actions(self, group: NetworkGroup) -> Tensor:
        """What all agents do now, as `_next_actions`."""
        joint = self._joint(group)
        if self._infers(group):
            return self._beliefs.current_actions(group.modules, joint)
        return self._actions.current_actions(joint)

    def _infers(self, group: NetworkGroup) -> bool:
        """Whether the group's modules, whose critics all see others, have approximations to ask."""
        return group.view.is_shared and group.settings.infer_other_policies and self._beliefs.are_of(group.modules)
