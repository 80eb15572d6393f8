"""Joint rows of several games of one layout, side by side, for updates of several Learners in one pass.

The games are alike; what is learned of them is not, so each has modules of its own. Shapes: S games ("slots"), B rows of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rllib_maddpg.rows.actions import ActionCodec
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import AgentSlot, JointLayout
from rllib_maddpg.rows.schema import RowSchema


class SlotModule(NamedTuple):
    """Id of a module among those of all slots."""

    slot: int
    module: str


class SlotsLayout(JointLayout):
    """A layout, once for each slot: columns are `[S, B, width]`, and modules are `SlotModule`s, one slot after the other.

    Whatever is said of a single agent or of the columns of a row is said within its slot.
    """

    def __init__(self, layout: JointLayout, slots: int):
        self.__dict__.update(layout.__dict__)
        self._one, self.slots_count = layout, slots
        self.modules = self.of_all_slots(layout.modules)

    @property
    def of_one_game(self) -> JointLayout:
        """As in `JointLayout`."""
        return self._one

    def of_all_slots(self, modules: Sequence[str]) -> tuple[SlotModule, ...]:
        """Some modules of the layout, of every slot."""
        return tuple(SlotModule(slot, m) for slot in range(self.slots_count) for m in modules)

    def everywhere(self, module: str) -> tuple[SlotModule, ...]:
        """As in `JointLayout`."""
        return self.of_all_slots((module,))

    def beside(self, modules: Sequence[SlotModule], other: str) -> tuple[SlotModule, ...]:
        """As in `JointLayout`."""
        return tuple(SlotModule(m.slot, other) for m in modules)

    def slots_of(self, module: SlotModule) -> tuple[AgentSlot, ...]:
        """As in `JointLayout`."""
        return self._one.slots_of(module.module)

    def codec_of(self, module: SlotModule) -> ActionCodec:
        """As in `JointLayout`."""
        return self._one.codec_of(module.module)

    def span(self, modules: Sequence[SlotModule], what: str, width: int = 1) -> slice | None:
        """As in `JointLayout`, of modules of one slot."""
        return self._one.span([m.module for m in modules], what, width)

    def stack(self, joint: Tensor, modules: Sequence[SlotModule], what: str, width: int = 1) -> Tensor:
        """As in `JointLayout`, of a column `[S, B, ...]` and the same modules of all slots: `[S * G, n, B, dim]`."""
        own = [m.module for m in modules[: len(modules) // self.slots_count]]
        values = self._one.stack(joint.flatten(0, 1), own, what, width)
        return values.unflatten(2, (self.slots_count, -1)).movedim(2, 0).flatten(0, 1)

    def join(self, codes: Mapping[SlotModule, Tensor]) -> Tensor:
        """As in `JointLayout`: `[S, B, action_dim]`."""
        return super().join(codes).unflatten(-1, (self.slots_count, -1)).movedim(1, 0)

    def by_game(self, values: Sequence[tuple[SlotModule, Tensor]]) -> Tensor:
        """Numbers of modules, as many of each slot: `[S, numbers of a slot]`."""
        ordered = sorted(values, key=lambda item: item[0].slot)
        return torch.stack([value for _, value in ordered]).view(self.slots_count, -1)


class SlotsBatch(JointBatch):
    """B joint rows of each slot; columns are `[S, B, width]`.

    Attributes:
        joint_rows: `[S, B, row_width]`.
    """

    def __init__(self, schema: RowSchema, joint_rows: Tensor, layout: SlotsLayout):
        super().__init__(schema, joint_rows)
        self._layout = layout

    @property
    def layout(self) -> SlotsLayout:
        """Order of agents and modules."""
        return self._layout

    def __len__(self) -> int:
        return self.joint_rows.shape[1]

    def stack(self, modules: Sequence[SlotModule], column: str) -> Tensor:
        """The column of the same modules of all slots: `[S * G, n, B, dim]` or `[S * G, n, B]`."""
        column = self.schema.real_name(column)
        key = (modules, column)
        if key not in self._stacked:
            kind, values = self.schema.columns[column], self.columns[column]
            if kind.per == "env":
                slots, own = self.layout.slots_count, len(modules) // self.layout.slots_count
                agents = len(self.layout.slots_of(modules[0]))
                each = values[:, None, None].expand(slots, own, agents, *values.shape[1:])
                self._stacked[key] = each.flatten(0, 1)
            else:
                self._stacked[key] = self.layout.stack(values, modules, kind.per, kind.width)
        return self._stacked[key]

    def with_rows(self, rows: Tensor) -> SlotsBatch:
        """As in `JointBatch`."""
        return SlotsBatch(self.schema, rows, self.layout)

    def sum_over_agents(self, values: Tensor) -> Tensor:
        """Numbers of the agents of some modules of all slots, `[S * G, n, B]` -> `[S, B]`."""
        return values.unflatten(0, (self.layout.slots_count, -1)).sum((1, 2))

    def max_over_agents(self, values: Tensor) -> Tensor:
        """The largest of these numbers, `[S * G, n, B]` -> `[S, B]`."""
        return values.unflatten(0, (self.layout.slots_count, -1)).amax((1, 2))
