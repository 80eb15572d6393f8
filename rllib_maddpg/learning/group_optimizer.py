"""The optimizers of a group of networks: one call for all of them, where they are Adam and agree. No Ray here."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

MOMENTS = ("exp_avg", "exp_avg_sq")


class GroupOptimizer:
    """Steps the optimizers of G networks of one shape.

    Each network keeps an optimizer of its own, which checkpoints and learning-rate schedules know. Adam's moments of all of
    them lie side by side like the parameters of a `StackedMLP`, and those of each optimizer are views: G steps are one call,
    torch's own where their rates and clocks are equal. Optimizers that are no plain Adam, or differ in anything but their
    rates, step one by one.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        parameters: Sequence[Sequence[Tensor]],
        stacked: Sequence[Tensor] | None,
    ):
        """
        Args:
            optimizers: Of each network.
            parameters: Of each network, in order. An optimizer may have them in another order, or not all of them.
            stacked: The parameters of all of them, `[G, ...]` each; None: a single network that has its own.
        """
        self._optimizers = list(optimizers)
        self._params = [list(own) for own in parameters]
        plain = all(_is_plain_adam(o, own) for o, own in zip(self._optimizers, self._params, strict=True))
        self._stacked = list(stacked) if stacked is not None and plain else None
        if self._stacked is not None:
            # For each parameter Adam's moments of all networks, and one clock of each.
            self._moments = [[torch.zeros_like(p, requires_grad=False) for p in self._stacked] for _ in MOMENTS]
            device = self._stacked[0].device
            self._steps = torch.zeros(len(self._stacked), len(self._optimizers), device=device)
            # The learning rates that `prepare` has put on the device, where fused Adam takes single precision only.
            self._rates: list[float] = []
            self._device_rates = torch.zeros(len(self._optimizers), device=device)
            self.tie()

    @property
    def is_joint(self) -> bool:
        """Whether the optimizers can step as one."""
        return self._stacked is not None

    def tie(self) -> None:
        """Takes over the optimizers' states, such as loaded ones, and makes them views of what lies side by side here."""
        if self._stacked is None:
            return
        for i, params in enumerate(zip(*self._params, strict=True)):
            for k, p in enumerate(params):
                state = self._optimizers[k].state[p]
                for name, place in zip(MOMENTS, (moments[i][k] for moments in self._moments), strict=True):
                    place.copy_(state[name]) if name in state else place.zero_()
                    state[name] = place
                clock = self._steps[i, k]
                clock.copy_(state["step"]) if "step" in state else clock.zero_()
                state["step"] = clock
        self._is_even = self._have_one_clock()

    def move_to(self, stacked: Sequence[Tensor], moments: Sequence[Sequence[Tensor]], steps: Tensor) -> None:
        """Lets Adam's moments and clocks lie in other tensors, beside parameters that have moved already."""
        self._stacked, self._moments, self._steps = list(stacked), [list(own) for own in moments], steps
        self.tie()

    def rates(self) -> list[float]:
        """The learning rates of the networks."""
        # Somebody may have put tensors there, whose values change.
        return [float(o.param_groups[0]["lr"]) for o in self._optimizers]

    def options(self) -> tuple[tuple[float, float], float] | None:
        """Adam's betas and epsilon; None: the networks differ in them."""
        first = self._optimizers[0].param_groups[0]
        return (first["betas"], first["eps"]) if self._are_alike() else None

    def has_stepped(self, members: Collection[int]) -> None:
        """Somebody else has made a step of some of the networks."""
        self._is_even = self._is_even and len(members) == len(self._optimizers)

    def prepare(self, members: Collection[int]) -> Hashable:
        """Gets a step of some of the networks ready that is made without the host (`step` with `skip`): rates go to the device.

        Returns:
            Equal for steps that are made alike, but for the values of the rates.
        """
        rates = self.rates()
        if rates != self._rates:
            self._device_rates.copy_(torch.tensor(rates))
            self._rates = rates
        everybody = len(members) == len(self._optimizers)
        as_one = everybody and self._is_even and self._are_alike() and all(rate == rates[0] for rate in rates)
        # Whether those who step without the others have caught up is known when their states are tied next.
        self._is_even = self._is_even and everybody
        self._as_one = as_one
        return as_one, tuple((*o.param_groups[0]["betas"], o.param_groups[0]["eps"]) for o in self._optimizers)

    def step(self, gradients: Sequence[Tensor], members: Collection[int], skip: Tensor | None = None) -> None:
        """Steps some of the networks.

        Args:
            gradients: Of each parameter, `[G, ...]`, contiguous.
            members: Numbers of the networks to step.
            skip: Given after `prepare`: float32 without dimensions, on the device. 1: no step is made; 0: the step is made.
        """
        if skip is not None:
            self._step_on_device(gradients, members, skip)
            return
        everybody = len(members) == len(self._optimizers)
        if self._stacked is not None and everybody and self._are_alike():
            self._is_even = self._is_even or self._have_one_clock()
            rates = [o.param_groups[0]["lr"] for o in self._optimizers]
            if self._is_even and all(rate == rates[0] for rate in rates):
                self._step_all(gradients, rates[0])
            else:
                self._step_each_at_its_rate(gradients, rates)
            return
        self._is_even = self._stacked is not None and self._is_even and everybody
        self._hand_out(gradients)
        for k in members:
            self._optimizers[k].step()

    def _hand_out(self, gradients: Sequence[Tensor]) -> None:
        for params, gradient in zip(zip(*self._params, strict=True), gradients, strict=True):
            for param, own in zip(params, gradient.unbind(), strict=True):
                param.grad = own

    def _step_all(self, gradients: Sequence[Tensor], lr: float | Tensor, skip: Tensor | None = None) -> None:
        self._fused(0, self._stacked, gradients, *self._moments, list(self._steps[:, 0]), lr, skip)
        self._steps[:, 1:] = self._steps[:, :1]

    def _step_on_device(self, gradients: Sequence[Tensor], members: Collection[int], skip: Tensor) -> None:
        if self._as_one:
            self._step_all(gradients, self._device_rates[0], skip)
            return
        for k in members:
            own = ([x[k] for x in tensors] for tensors in (self._stacked, gradients, *self._moments))
            self._fused(k, *own, list(self._steps[:, k]), self._device_rates[k], skip)

    @torch.no_grad()
    def _fused(
        self,
        k: int,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        steps: list[Tensor],
        lr: float | Tensor,
        skip: Tensor | None,
    ) -> None:
        """torch's fused Adam with the options of the k-th optimizer."""
        options = self._optimizers[k].param_groups[0]
        adam(
            list(parameters),
            list(gradients),
            list(means),
            list(squares),
            [],
            steps,
            fused=True,
            found_inf=skip,
            amsgrad=False,
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            lr=lr,
            weight_decay=0.0,
            eps=options["eps"],
            maximize=False,
        )

    @torch.no_grad()
    def _step_each_at_its_rate(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """Adam (Kingma and Ba 2015, Algorithm 1) of all networks, each with its own rate and clock."""
        (beta1, beta2), eps = self.options()
        self._steps += 1
        lr = torch.tensor(rates, dtype=torch.float64, device=self._steps.device)
        step_sizes, roots = corrected(lr, self._steps, beta1, beta2)
        for i, (p, gradient, mean, square) in enumerate(zip(self._stacked, gradients, *self._moments, strict=True)):
            shape = -1, *[1] * (p.dim() - 1)
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            size, root = (x[i].to(p.dtype).view(shape) for x in (step_sizes, roots))
            p.sub_(size * mean / (square.sqrt() / root + eps))

    def _have_one_clock(self) -> bool:
        """Whether all networks have made as many steps. Where some have learned without the others, they may have caught up."""
        return bool((self._steps == self._steps[:, :1]).all())

    def _are_alike(self) -> bool:
        """Whether the optimizers differ in their rates only."""
        first, *others = [(o.param_groups[0]["betas"], o.param_groups[0]["eps"]) for o in self._optimizers]
        return all(other == first for other in others)


def corrected(lr: Tensor, steps: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """The rate of a step and the root of the second moment's bias, corrected for clocks that begin at 0; float64."""
    steps = steps.double()
    return lr / (1 - beta1**steps), (1 - beta2**steps).sqrt()


def _is_plain_adam(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    options = optimizer.param_groups[0]
    if list(map(id, options["params"])) != list(map(id, parameters)):
        return False
    return bool(options["fused"]) and not (options["amsgrad"] or options["weight_decay"] or options["maximize"])
