"""Networks of several Learners that are alike, computed as one: a group of each Learner becomes part of one group of all.

Shapes: S slots, a Learner in each; G modules of its group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from rllib_maddpg.learning.group_optimizer import MOMENTS, GroupOptimizer, corrected
from rllib_maddpg.learning.groups import NetworkGroup
from rllib_maddpg.rows.slots import SlotModule, SlotsLayout


class SlotsGroup(NetworkGroup):
    """The networks of one group of each of S Learners: S * G networks, slot by slot.

    What a group of a Learner has on the device lies here: its parameters, targets, moments, clocks and settings are views. So
    each Learner can go on by itself at any time, and all of them can make an update as one.
    """

    def __init__(self, own: NetworkGroup, layout: SlotsLayout):
        """
        Args:
            own: The group of one of the Learners; the others' are like it.
            layout: Of all slots.
        """
        self.name, self.role, self.view, self.about = own.name, own.role, own.view, own.about
        self.is_trainable, self.place, self.codec = own.is_trainable, own.place, own.codec
        self.common = None  # Learners of networks with weights in common are not stacked
        self.modules: tuple[SlotModule, ...] = layout.of_all_slots(own.modules)
        self.network = own.network.repeated(layout.slots_count)
        self.network.parameters = side_by_side(self.network.parameters)
        self.target = own.target and own.target.repeated(layout.slots_count)
        self.settings = own.settings.repeated(layout.slots_count)
        self.optimizer = own.optimizer and SlotsOptimizer(self.network.parameters, own.optimizer, layout.slots_count)

    def take(self, own: NetworkGroup, slot: int) -> None:
        """Lets all that a Learner's group has lie here."""

        def part(tensor: Tensor) -> Tensor:
            # Not a view of a parameter, but of its numbers.
            return tensor.detach()[slot * len(own) : (slot + 1) * len(own)]

        own.network.move_to([part(p) for p in self.network.parameters])
        if own.target is not None:
            own.target.move_to([part(p) for p in self.target.parameters])
        own.settings.move_to(self.settings, part)
        if own.optimizer is not None:
            self.optimizer.take(own.optimizer, slot, own.network.parameters, part)


class SlotsOptimizer:
    """Steps the optimizers of S * G networks, each with its own rate and clock, in one go.

    The optimizers are those of the Learners' own groups, whose moments and clocks lie here. All parameters lie in one tensor,
    since on a GPU a step of many small ones costs a launch for each.
    """

    def __init__(self, parameters: Sequence[Tensor], like: GroupOptimizer, slots: int):
        """
        Args:
            parameters: Of all networks, `[S * G, ...]` each, side by side in one tensor (`side_by_side`).
            like: The optimizers of one slot; the others have the same options but for their rates.
            slots: S.
        """
        (self._betas, self._eps), device = like.options(), parameters[0].device
        self._flat = parameters[0].detach().as_strided((sum(p.numel() for p in parameters),), (1,), 0)
        self._flat_moments = [torch.zeros_like(self._flat) for _ in MOMENTS]
        self._moments = [_views(flat, parameters) for flat in self._flat_moments]
        networks = len(parameters[0])
        self._steps = torch.zeros(len(parameters), networks, device=device)
        # For each number of the parameters the place of its clock among all clocks.
        places = [torch.arange(networks).repeat_interleave(p[0].numel()) + i * networks for i, p in enumerate(parameters)]
        self._clock_of = torch.cat(places).to(device, torch.int32)
        self._own: list[GroupOptimizer | None] = [None] * slots
        self._rates = [0.0] * networks
        self._device_rates = torch.zeros(networks, dtype=torch.float64, device=device)

    def take(self, own: GroupOptimizer, slot: int, parameters: Sequence[Tensor], part: Callable[[Tensor], Tensor]) -> None:
        """Lets the moments and clocks of a slot's optimizers lie here; its parameters already do."""
        self._own[slot] = own
        own.move_to(parameters, [[part(m) for m in moments] for moments in self._moments], part(self._steps.t()).t())

    def leave(self, slot: int) -> None:
        """A slot's optimizers are gone."""
        self._own[slot] = None

    def prepare(self, slots: Collection[int], members: Collection[int]) -> None:
        """Gets a step ready: rates go to the device.

        Args:
            slots: Those that step.
            members: Numbers of the networks of each group that learn.
        """
        each = len(self._rates) // len(self._own)
        rates = list(self._rates)
        for slot in slots:
            rates[slot * each : (slot + 1) * each] = self._own[slot].rates()
        if rates != self._rates:
            self._device_rates.copy_(torch.tensor(rates, dtype=torch.float64))
            self._rates = rates
        for slot in slots:
            self._own[slot].has_stepped(members)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], members: Collection[int], skip: Tensor) -> None:
        """Steps some of the networks, after `prepare`.

        Args:
            gradients: Of each parameter, `[S * G, ...]`.
            members: Numbers of the networks that learn.
            skip: 1.0 for those that make no step all the same, `[S * G]`.
        """
        now = skip == 0.0
        if len(members) < len(now):
            learns = torch.zeros_like(now)
            for k in members:
                learns[k].fill_(True)  # without a list of numbers that would have to be copied to a GPU
            now = now & learns
        (beta1, beta2), (mean, square), dtype = self._betas, self._flat_moments, self._flat.dtype
        self._steps += now
        # Nobody divides by a clock that has not begun; such a network has no moments.
        sizes, roots = corrected(self._device_rates * now, self._steps.clamp(min=1.0), beta1, beta2)
        of_each = [x.to(dtype).expand_as(self._steps).flatten().index_select(0, self._clock_of) for x in (now, sizes, roots)]
        steps, size, root = of_each
        gradient = torch.where(steps > 0.0, torch.cat([g.flatten() for g in gradients]), 0.0)  # 0 times NaN is NaN
        mean.lerp_(gradient, steps * (1 - beta1))
        square.mul_(1 - steps * (1 - beta2)).addcmul_(gradient, gradient, value=1 - beta2)
        self._flat.sub_(size * mean / (square.sqrt() / root + self._eps))


def side_by_side(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The same parameters as leaf tensors that lie in one tensor, one after the other."""
    flat = torch.cat([p.detach().flatten() for p in parameters])
    return [view.requires_grad_(p.requires_grad) for view, p in zip(_views(flat, parameters), parameters, strict=True)]


def _views(flat: Tensor, shapes: Sequence[Tensor]) -> list[Tensor]:
    return [part.view(p.shape) for part, p in zip(flat.split([p.numel() for p in shapes]), shapes, strict=True)]
