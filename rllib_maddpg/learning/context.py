"""What the stages of one update share: rows, groups, noise and actions. Whatever several of them need is computed once.

Shapes: B rows; G modules of n agents each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.groups import NetworkGroup, actors_of, of_role, trained
from rllib_maddpg.learning.metrics import UpdateMetrics
from rllib_maddpg.modules.critic_inputs import CriticInputs
from rllib_maddpg.modules.rule_modules import rule_codes
from rllib_maddpg.modules.specs import ACTOR
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.schema import ALIASES


class GroupRows:
    """The rows from which the modules of a group learn.

    `rows["rewards"]` is a column's share of G modules of n agents each, `[G, n, B]`, or `[G, n, B, dim]` for observations and
    actions. What an earlier stage has added (`UpdateContext.add_column`) is a column, too.

    Attributes:
        joint: The rows of all agents.
        modules: Ids of the G modules.
    """

    def __init__(
        self,
        joint: JointBatch,
        modules: tuple[str, ...],
        distributed: bool,
        added: Mapping[str, Mapping[str, Tensor]],
    ):
        self.joint = joint
        self.modules, self._distributed, self._added = modules, distributed, added
        self._counts: dict[str, Tensor] = {}

    def __getitem__(self, column: str) -> Tensor:
        if column in self._added:
            return self._stack_added(column)
        if column not in self.joint.schema:
            known = [*self.joint.schema.columns, *ALIASES, *self._added]
            raise ValueError(f"Rows have no column {column!r}, and no stage of this update has added one. There are: {known}.")
        return self.joint.stack(self.modules, column)

    def _stack_added(self, column: str) -> Tensor:
        # Modules that do not learn may have been left out.
        absent = torch.zeros_like(self["alive"][0])
        return torch.stack([self._added[column].get(m, absent) for m in self.modules])

    def count(self, column: str) -> Tensor:
        """Sum of a column of zeros and ones over rows, agents and Learners, at least 1, `[G]`."""
        name = ALIASES.get(column, column)  # columns that are one are counted once
        if name not in self._counts:
            count = self[name].sum((1, 2))
            if self._distributed:
                dist.all_reduce(count)
            self._counts[name] = count.clamp(min=1.0)
        return self._counts[name]


class UpdateContext:
    """One update.

    Attributes:
        batch: The rows.
        trained: Ids of the modules that learn in it, in layout order.
        stepped: Roles of the networks that have learned in it so far.
        reports: Whether anybody will see metrics of the stage that runs.
    """

    def __init__(
        self,
        batch: JointBatch,
        rows_of: Mapping[str, JointBatch],
        trained: list[str],
        groups: Mapping[str, list[NetworkGroup]],
        rules: Mapping[str, Any],
        draw_noise: Callable[[JointBatch], dict[str, Tensor]],
        metrics: UpdateMetrics,
        distributed: bool = False,
    ):
        """
        Args:
            batch: The rows.
            rows_of: Per module those that it learns from.
            trained: Modules that learn.
            groups: All networks, by name.
            rules: Modules that act by a rule of their own, and do not learn.
            draw_noise: Draws Gumbel noise `[B, n, code_dim]` for the rows, for each module that needs any.
            metrics: Where metrics are noted.
            distributed: Whether there are other Learners.
        """
        self.batch, self.trained = batch, trained
        self.stepped: list[str] = []
        self.reports = True
        self.metrics_stay = False
        self._rows_of, self._groups, self._rules = rows_of, groups, rules
        self._draw_noise, self._metrics, self._distributed = draw_noise, metrics, distributed
        self._layout = batch.layout
        self._made: dict[tuple, Any] = {}
        self._added: dict[str, dict[str, Tensor]] = {}

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make()` returns, which is called in an update once for a key, a tuple that begins with its kind."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def has_changed(self, role: str) -> None:
        """Networks of a role have learned: what was computed with them is old."""
        if role == ACTOR:
            self._forget("policy", "current_actions", "current")
            if any(group.target is None for group in actors_of(self._groups)):
                self.targets_have_changed()  # such actors stand for their own targets

    def targets_have_changed(self) -> None:
        """As `has_changed`, for all targets."""
        self._forget("next_actions", "next")

    def _forget(self, *kinds: str) -> None:
        self._made = {key: made for key, made in self._made.items() if key[0] not in kinds}

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
        like = group.network.parameters[0]
        learns = [float(m in self.trained) for m in group.modules]
        return torch.tensor(learns, dtype=like.dtype, device=like.device).view(-1, 1, 1)

    def rows(self, group: NetworkGroup) -> GroupRows:
        """The rows from which a group learns."""
        joint = self._joint(group)
        return self.once(
            ("rows", group.modules, joint), lambda: GroupRows(joint, group.modules, self._distributed, self._added)
        )

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
        self._metrics.note(group.modules, values, self.metrics_stay)

    # ------------------------------------------------------------------------------------------ what networks see

    def inputs(self, group: NetworkGroup) -> CriticInputs | Tensor:
        """What the networks of a group with a view see of its rows: (x, a)."""
        return self._seen("row", group, dict)

    def next_inputs(self, group: NetworkGroup) -> CriticInputs | Tensor:
        """(x', mu'(o')) by the target actors, or by a module's own rule; zeros for agents that do not act there."""
        joint = self._joint(group)
        return self._seen(
            "next", group, lambda: {"obs": self._next_obs(joint), "actions": self._next_actions(joint), "at_next": True}
        )

    def current_inputs(self, group: NetworkGroup) -> CriticInputs | Tensor:
        """(x, what the current actors do in x); zeros for agents that do not act. No gradient goes to any actor."""
        joint = self._joint(group)
        return self._seen("current", group, lambda: {"actions": self._current_actions(joint)})

    def _seen(self, when: str, group: NetworkGroup, other: Callable[[], dict[str, Any]]) -> CriticInputs | Tensor:
        # The same for all groups where everybody sees the same.
        whose, joint = () if group.view.is_shared else group.modules, self._joint(group)
        return self.once((when, group.view, joint, whose), lambda: group.view.inputs(joint, group.modules, **other()))

    def _joint(self, group: NetworkGroup) -> JointBatch:
        return self._rows_of[group.modules[0]]

    # ------------------------------------------------------------------------------------------ actions

    def policy(self, group: NetworkGroup, joint: JointBatch | None = None) -> tuple[Tensor, Tensor]:
        """What a group of actors does now: head outputs and action codes `[G, n, B, dim]`, through which gradients go.

        Args:
            group: Of actors.
            joint: Rows to act in; None: those from which the group learns.
        """
        joint = self._joint(group) if joint is None else joint
        return self.once(("policy", group, joint), lambda: self._act(group, joint))

    @torch.enable_grad()
    def _act(self, group: NetworkGroup, joint: JointBatch) -> tuple[Tensor, Tensor]:
        output = group.network(joint.stack(group.modules, "obs"))
        gumbel = None
        if group.codec.categorical:
            noise = self.once(("noise",), self._all_noise)[joint]
            gumbel = torch.stack([noise[m].transpose(0, 1) for m in group.modules])
        return output, group.codec.sample(output, gumbel, group.settings.gumbel_softmax_temperature.unsqueeze(-1))

    def _all_noise(self) -> dict[JointBatch, dict[str, Tensor]]:
        """Drawn for all rows at once, so that the numbers do not depend on who asks first."""
        return {joint: self._draw_noise(joint) for joint in dict.fromkeys(self._rows_of.values())}

    def _next_obs(self, joint: JointBatch) -> Tensor:
        """x', `[B, obs_dim of all agents]`, zeros for agents that do not act there."""

        def masked() -> Tensor:
            widths = [slot.obs.stop - slot.obs.start for slot in self._layout.slots]
            acts = joint.columns["next_acts"].split(1, -1)
            agents = zip(joint.columns["new_obs"].split(widths, -1), acts, strict=True)
            return torch.cat([obs * does for obs, does in agents], -1)

        return self.once(("next_obs", joint), masked)

    @torch.no_grad()
    def _next_actions(self, joint: JointBatch) -> Tensor:
        """mu'(o') of all agents, `[B, code_dim of all agents]`."""

        def act() -> Tensor:
            actions = {}
            for group in actors_of(self._groups):
                output = (group.target or group.network)(joint.stack(group.modules, "new_obs"))
                code = group.codec.greedy(output) * joint.stack(group.modules, "next_acts").unsqueeze(-1)
                actions.update(zip(group.modules, code, strict=True))
            return self._joined(actions | self._rule_actions(joint, "new_obs", "next_acts"))

        return self.once(("next_actions", joint), act)

    @torch.no_grad()
    def _current_actions(self, joint: JointBatch) -> Tensor:
        """What all agents do now, `[B, code_dim of all agents]`."""

        def act() -> Tensor:
            actions = {}
            for group in actors_of(self._groups):
                _, code = self.policy(group, joint)
                code = code.detach() * joint.stack(group.modules, "acts").unsqueeze(-1)
                actions.update(zip(group.modules, code, strict=True))
            return self._joined(actions | self._rule_actions(joint, "obs", "acts"))

        return self.once(("current_actions", joint), act)

    def _rule_actions(self, joint: JointBatch, obs: str, acts: str) -> dict[str, Tensor]:
        """Codes `[n, B, code_dim]` of the modules that act by a rule; networks they have do not say it."""
        return {
            m: rule_codes(m, module, self._layout.codec_of(m), joint.modules[m][obs], joint.modules[m][acts])
            for m, module in self._rules.items()
        }

    def _joined(self, actions: Mapping[str, Tensor]) -> Tensor:
        """Per module codes `[n, B, code_dim]` -> `[B, code_dim of all agents]`."""
        return torch.cat([actions[m].transpose(0, 1).flatten(1) for m in self._layout.modules], -1)


def gumbel_noise_of(joint: JointBatch, rank: int, world: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Gumbel noise `[B, n, code_dim]` for each module with categorical actions.

    Every Learner draws for the rows of all Learners and takes its own, so that the noise of a row does not depend on how many
    Learners there are.

    Args:
        joint: The rows of this Learner.
        rank: Number of this Learner.
        world: Number of Learners.
        generator: In the same state on all of them.
    """
    noise, rows = {}, len(joint)
    for module_id in joint.layout.modules:
        if joint.layout.codec_of(module_id).categorical:
            code = joint.modules[module_id]["actions"]
            drawn = losses.gumbel_noise((world * rows, *code.shape[1:]), generator, code.device, code.dtype)
            noise[module_id] = drawn[rank * rows : (rank + 1) * rows]
    return noise
