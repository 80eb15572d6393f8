"""The optimizers of a group of networks: one call for all of them, where they are Adam and agree. No Ray here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam


class GroupOptimizer:
    """Steps the optimizers of G networks of one shape.

    Each network keeps an optimizer of its own, which checkpoints and learning-rate schedules know. Adam's moments of all of
    them lie side by side like the parameters of a `StackedMLP`, and those of each optimizer are views: G steps are one call.
    Optimizers that are no plain Adam, or differ in their settings, step one by one.
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
        self._stacked, self._is_even = None, True
        plain = all(_is_plain_adam(o, own) for o, own in zip(self._optimizers, self._params, strict=True))
        if stacked is not None and plain:
            self._stacked = list(stacked)
            self._moments = [self._tied(name) for name in ("exp_avg", "exp_avg_sq")]
            # One clock for each parameter of each network, as Adam has it.
            steps = torch.stack([torch.stack([self._state(k, p)["step"] for p in own]) for k, own in enumerate(self._params)])
            for k, own in enumerate(self._params):
                for p, step in zip(own, steps[k], strict=True):
                    self._state(k, p)["step"] = step
            self._steps = steps
            self._is_even = bool((steps == steps[:1]).all())

    def step(self, gradients: Sequence[Tensor], members: Collection[int]) -> None:
        """Steps some of the networks.

        Args:
            gradients: Of each parameter, `[G, ...]`, contiguous.
            members: Numbers of the networks to step.
        """
        if self._stacked is not None and len(members) == len(self._optimizers) and self._is_even and self._agree():
            self._step_all(gradients)
            return
        self._is_even = self._is_even and len(members) == len(self._optimizers)
        self._hand_out(gradients)
        for k in members:
            self._optimizers[k].step()

    def _hand_out(self, gradients: Sequence[Tensor]) -> None:
        for params, gradient in zip(zip(*self._params, strict=True), gradients, strict=True):
            for param, own in zip(params, gradient.unbind(), strict=True):
                param.grad = own

    @torch.no_grad()
    def _step_all(self, gradients: Sequence[Tensor]) -> None:
        options = self._optimizers[0].param_groups[0]
        adam(
            self._stacked,
            list(gradients),
            *self._moments,
            [],
            list(self._steps[0]),
            fused=True,
            amsgrad=False,
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            lr=options["lr"],
            weight_decay=0.0,
            eps=options["eps"],
            maximize=False,
        )
        self._steps[1:] = self._steps[0]

    def _agree(self) -> bool:
        first, *others = [
            (o.param_groups[0]["lr"], o.param_groups[0]["betas"], o.param_groups[0]["eps"]) for o in self._optimizers
        ]
        return all(other == first for other in others)

    def _tied(self, name: str) -> list[Tensor]:
        """One moment of each parameter, `[G, ...]`, of which those of the optimizers become views."""
        moments = []
        for params in zip(*self._params, strict=True):
            stacked = torch.stack([self._state(k, p)[name] for k, p in enumerate(params)])
            for k, p in enumerate(params):
                self._state(k, p)[name] = stacked[k]
            moments.append(stacked)
        return moments

    def _state(self, k: int, param: Tensor) -> dict:
        """The optimizer's state of a parameter; as Adam itself makes it in its first step."""
        state = self._optimizers[k].state[param]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(param), torch.zeros_like(param)
        return state


def _is_plain_adam(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    options = optimizer.param_groups[0]
    if list(map(id, options["params"])) != list(map(id, parameters)):
        return False
    return bool(options["fused"]) and not (options["amsgrad"] or options["weight_decay"] or options["maximize"])
