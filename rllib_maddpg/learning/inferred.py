"""How modules learn what the others do, from what these were seen to do (Lowe et al. 2017, section 4.2, equation 7).

Shapes: B rows; G modules that approximate the policy of another module, which has n agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_maddpg.learning import likelihoods, losses
from rllib_maddpg.learning.beliefs import approximations, outputs_of
from rllib_maddpg.learning.context import UpdateContext
from rllib_maddpg.learning.groups import NetworkGroup
from rllib_maddpg.modules.inferred import has_std, std_name, std_of
from rllib_maddpg.modules.specs import INFERRED


def inferred_losses(ctx: UpdateContext) -> dict[str, Tensor]:
    """Of each module that approximates others the sum over its approximations of

        -(log pi(a | o) + lambda H(pi(. | o))),

    each a mean over the newest rows in which the agents that it is about act.
    """
    result: dict[str, Tensor] = {}
    stds = _stds(ctx)
    for group in approximations(ctx.groups(INFERRED)):
        rows = ctx.newest_rows(ctx.batch.layout.beside(group.modules, group.about))
        output = outputs_of(group, ctx.newest, "obs")
        std, temperature = stds.get(group), ctx.temperature_of(group)
        log_likelihood = likelihoods.log_likelihood(group.codec, output, rows["actions"], std, temperature)
        entropy = likelihoods.entropy(group.codec, output, std, temperature)
        value = log_likelihood + group.settings.inferred_policy_entropy * entropy
        loss = losses.masked_mean(-value, rows.weighted("acts"), rows.count("acts"))
        for m, own in zip(group.modules, loss, strict=True):
            result[m] = result[m] + own if m in result else own
        if ctx.reports:
            _note(ctx, group, output, log_likelihood, entropy)
    return {m: result[m] for m in ctx.trained if m in result}


def _stds(ctx: UpdateContext) -> dict[NetworkGroup, Tensor]:
    """Standard deviations of the groups that need them, `[G, 1, 1, dim]`."""
    groups = ctx.groups(INFERRED)
    found: dict[tuple[str, str], Tensor] = {}
    for group in groups:
        if group.target is None:
            nothing = ctx.batch.joint_rows.new_zeros(*ctx.batch.joint_rows.shape[:-2], 1, 0)
            found.update(
                {(group.name, m): std for m, std in zip(group.modules, std_of(group.network.of_all(nothing)), strict=True)}
            )
    return {
        group: torch.stack([found[std_name(ctx.batch.layout.of_one_game, group.about), m] for m in group.modules]).unsqueeze(1)
        for group in approximations(groups)
        if has_std(group.codec)
    }


@torch.no_grad()
def _note(ctx: UpdateContext, group: NetworkGroup, output: Tensor, log_likelihood: Tensor, entropy: Tensor) -> None:
    """Metrics of each pair of a module and an agent of another one."""
    about = ctx.batch.layout.beside(group.modules, group.about)
    acts = ctx.newest_rows(about)["acts"]
    values = {"log_likelihood": log_likelihood, "entropy": entropy}
    outputs = ctx.head_outputs(ctx.newest)
    true_output = torch.stack([outputs[m] for m in about]) if outputs.keys() >= set(about) else None
    if true_output is not None and group.codec.categorical:
        values["kl"] = likelihoods.kl(group.codec, output, true_output, ctx.temperature_of(group))
    elif true_output is not None:
        values["rmse"] = (group.codec.greedy(output) - group.codec.greedy(true_output)).square().mean(-1)
    for k, slot in enumerate(ctx.batch.layout.slots_of(about[0])):
        acting = acts[:, k].sum(-1).clamp(min=1.0)
        means = {name: (value[:, k] * acts[:, k]).sum(-1) / acting for name, value in values.items()}
        if "rmse" in means:
            means["rmse"] = means["rmse"].sqrt()
        ctx.note(group, **{f"inferred_{slot.agent}_{name}": mean for name, mean in means.items()})
