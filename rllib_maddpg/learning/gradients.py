"""Gradients of groups of networks, summed over Learners and clipped. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.groups import NetworkGroup, once_each
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout


@dataclass
class ClippedGradients:
    """What the networks of a role are to step along.

    Attributes:
        of_groups: For each group the gradients of its parameters, `[G, ...]` each, and the numbers of its networks that learn.
        losses: By module, scalars.
        norms: By network and module: norms before clipping, scalars.
    """

    of_groups: list[tuple[NetworkGroup, list[Tensor], list[int]]]
    losses: dict[str, Tensor]
    norms: dict[str, dict[str, Tensor]]

    def are_finite(self, layout: JointLayout) -> Tensor:
        """Whether there is neither NaN nor infinity, a bool on the device; in each game, if the layout is that of several."""
        values = [item for own in (*self.norms.values(), self.losses) for item in own.items()]
        # NaN and infinity make the sum so, too; float64, so that nothing else does.
        return torch.isfinite(layout.by_game(values).sum(-1, dtype=torch.float64))

    def what_is_not_finite(self, role: str, batches: Sequence[JointBatch]) -> list[str]:
        """Columns, losses and gradients with NaN or infinity in them, as an error names them."""
        # Other columns may have NaN in them.
        finite = [name for name, column in batches[0].schema.columns.items() if column.finite]
        rows = [(m, own) for batch in dict.fromkeys(batches) for m, own in batch.modules.items()]
        bad = [f"column {c!r} of module {m!r}" for m, own in rows for c in finite if not _is_finite(own[c])]
        bad += [f"the {role} loss of module {m!r}" for m, loss in self.losses.items() if not _is_finite(loss)]
        for network, own in self.norms.items():
            bad += [f"the {network} gradient of module {m!r}" for m, norm in own.items() if not _is_finite(norm)]
        return bad


def clipped_gradients(
    role: str,
    groups: Sequence[NetworkGroup],
    module_losses: Mapping[str, Tensor],
    sum_over_learners: Callable[[Collection[Tensor]], list[Tensor]],
) -> ClippedGradients:
    """Gradients of the sum of all losses.

    Args:
        role: That of the networks, for messages.
        groups: Groups of networks that learn.
        module_losses: Of each trained module a scalar.
        sum_over_learners: Adds tensors of all Learners up.

    Raises:
        ValueError: If a group's networks have no part in the losses.
    """
    each = torch.stack(list(module_losses.values()))
    total = each.sum()
    if not total.requires_grad:
        raise ValueError(f"The {role} loss depends on no parameter that can be trained. Compute it with `group.network`.")
    leaders = once_each(groups)
    stacked = [p for group in leaders for p in group.network.parameters]
    learning = [p for p in stacked if p.requires_grad]
    found = dict(zip(map(id, learning), torch.autograd.grad(total, learning, allow_unused=True), strict=True))
    for group in leaders:
        if all(found.get(id(p)) is None for p in group.network.parameters):
            raise ValueError(
                f"The {role} loss does not depend on network {group.name!r} of modules {list(group.modules)}. Compute it with "
                "the network of its group, `group.network` of `ctx.groups(...)`, of which a module's own parameters are only "
                "views; or set `stacks_modules = False` on the Learner's class."
            )
    gradients = [torch.zeros_like(p) if (g := found.get(id(p))) is None else _laid_out_as(p, g) for p in stacked]
    # The losses go along: they are logged, and all Learners must agree on whether they are finite.
    *gradients, totals = sum_over_learners([*gradients, each.detach()])
    result = ClippedGradients([], dict(zip(module_losses, totals, strict=True)), {})
    remaining = iter(gradients)
    for group in leaders:
        network, settings = group.network, group.settings
        own = [g if network.is_stacked else g.unsqueeze(0) for _, g in zip(network.parameters, remaining, strict=False)]
        if group.common is not None:
            _finish_common(group, own, groups, module_losses, result)
            continue
        norm = losses.clip_gradients(own, settings.grad_clip.flatten(), settings.grad_clip_by)
        members = [k for k, module_id in enumerate(group.modules) if module_id in module_losses]
        norms = result.norms.setdefault(group.name, {})
        norms.update({group.modules[k]: norm[k] for k in members})
        result.of_groups.append((group, own, members))
    return result


def _finish_common(
    group: NetworkGroup,
    gradients: list[Tensor],
    groups: Sequence[NetworkGroup],
    module_losses: Mapping[str, Tensor],
    result: ClippedGradients,
) -> None:
    """The gradient of weights that several modules have in common is that of the mean of their losses, as in MAAC.

    So it is as large as that of one module's critic, and `grad_clip` means the same.
    """
    learn = [m for other in groups if other.common is group.common for m in other.modules if m in module_losses]
    torch._foreach_mul_(gradients, 1 / len(learn))
    (norm,) = losses.clip_gradients(gradients, group.settings.grad_clip.flatten()[:1], group.settings.grad_clip_by)
    result.norms.setdefault(group.name, {}).update(dict.fromkeys(learn, norm))
    result.of_groups.append((group, gradients, [0]))


def _laid_out_as(p: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its parameter: fused Adam reads both in the order of memory.

    On a GPU it refuses others, even where they mean nothing, as those of a layer's weights for a single input.
    """
    return gradient if gradient.stride() == p.stride() else torch.empty_like(p).copy_(gradient)


def _is_finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or bool(torch.isfinite(x).all())
