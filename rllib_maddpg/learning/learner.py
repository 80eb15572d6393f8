"""Algorithm 1 of Lowe et al. 2017: one update of all critics, actors and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.learner.learner import Learner
from ray.rllib.utils.annotations import override
from torch import Tensor

from rllib_maddpg.learning import losses
from rllib_maddpg.learning.context import UpdateContext
from rllib_maddpg.learning.graphed_learner import GraphedTorchLearner
from rllib_maddpg.learning.group_rows import GroupRows
from rllib_maddpg.learning.group_settings import GroupSettings
from rllib_maddpg.learning.groups import NetworkGroup, first_of, trained
from rllib_maddpg.learning.inferred import inferred_losses
from rllib_maddpg.learning.joint_learner import JointTorchLearner
from rllib_maddpg.learning.losses import check_shape
from rllib_maddpg.learning.stages import LossStage, Stage, TargetStage
from rllib_maddpg.modules.specs import ACTOR, CRITIC, INFERRED


class MADDPGTorchLearner(GraphedTorchLearner):
    """Updates critics first, then actors, then targets, with one Adam for each actor and each critic.

    `examples/maddpg_in_one_file.py` has the plain case of it, in plain PyTorch.

    Modules with equal networks are computed as one (`NetworkGroup`): shapes below are for a group of G modules of n agents each
    and B rows. Modules outside `policies_to_train` stay as they are; their actions still enter all critics. One that acts by a
    rule of its own, which may have no networks at all, is asked what it does next.

    To change a loss, override `td_target`, `critic_loss` or `actor_loss`, functions of such groups' tensors; to add a step to
    the update, `stages`. Losses that need a module's own parameters, such as a penalty on its weights, need
    `stacks_modules = False`.
    """

    @classmethod
    @override(JointTorchLearner)
    def stages(cls, config: Any) -> list[Stage]:
        """Algorithm 1: critics, then actors, then targets; before them what approximates others' policies (section 4.2)."""
        inferred = LossStage(role=INFERRED, losses=cls.compute_inferred_losses, newest=True)
        return [
            *([inferred] if config.infers else []),
            LossStage(role=CRITIC, losses=cls.compute_critic_losses),
            LossStage(role=ACTOR, losses=cls.compute_actor_losses, every=config.policy_delay),
            TargetStage(every=config.policy_delay),
        ]

    # ------------------------------------------------------------------------------------------ losses, to be overridden

    def td_target(self, next_q: Tensor, rows: GroupRows, settings: GroupSettings) -> Tensor:
        """y, what the critics learn, `[G, n, B]`.

        With `n_step` > 1 the x' of a row is up to so many steps after x, and r the reward of the first one only. So an override
        takes `rows.returns(settings.gamma)` for r and `rows.discount(settings.gamma)` for gamma, which are these with
        `n_step=1`. `rows["terminateds"]` is 1 where the agent is terminated on the way.

        Args:
            next_q: Q'(x', a'_1 ... a'_N), `[G, n, B]`.
            rows: The rows; any column of them is at hand.
            settings: Of the modules; numbers are `[G, 1, 1]`.
        """
        returns, discount = rows.returns(settings.gamma), rows.discount(settings.gamma)
        return losses.td_target(returns, rows["terminateds"], discount, next_q)

    def critic_loss(self, q: Tensor, target: Tensor, rows: GroupRows, settings: GroupSettings) -> Tensor:
        """The loss of each module's critic, `[G]` (paper, equation 6).

        An override sums over `rows.weighted("acts")`: who acts in which row, times the weights of rows that are not drawn
        uniformly. Where agents act in turns not all that are in the game do (docs/turns.md).

        Args:
            q: Q(x, a_1 ... a_N), `[G, n, B]`.
            target: `td_target`, `[G, n, B]`.
            rows, settings: As in `td_target`.
        """
        huber = settings.critic_loss == "huber"
        error = losses.huber_error(q, target, settings.huber_delta) if huber else losses.squared_error(q, target)
        return losses.critic_loss(error, rows.weighted("acts"), rows.count("acts"))

    def actor_loss(self, q: Tensor, output: Tensor, rows: GroupRows, settings: GroupSettings) -> Tensor:
        """The loss of each module's actor, `[G]` (paper, equation 5).

        An override takes `rows.weighted("acts")`, as in `critic_loss`.

        Args:
            q: Q(x, a_1 ... mu_i(o_i) ... a_N), `[G, n, B]`.
            output: Head output of the actors, `[G, n, B, dim]`; zeros for actions that are not allowed (`rows.allowed`).
            rows, settings: As in `td_target`.
        """
        acts, count = rows.weighted("acts"), rows.count("acts")
        return losses.actor_loss(q, output, acts, count, settings.actor_output_reg, rows.allowed)

    # ------------------------------------------------------------------------------------------ the stages

    def compute_inferred_losses(self, ctx: UpdateContext) -> Mapping[str, Tensor]:
        """The losses of each trained module's approximations of the others' policies."""
        return inferred_losses(ctx)

    def compute_critic_losses(self, ctx: UpdateContext) -> Mapping[str, Tensor]:
        """The critic loss of each trained module; where it has several critics, their sum.

        With `twin_q` they learn the same target, else each one that of its own target network.
        """
        result = {}
        next_values = self._next_values(ctx)
        for group in ctx.groups(CRITIC):
            rows, next_q = ctx.rows(group), next_values[group]
            with torch.no_grad():
                target = self.td_target(next_q, rows, group.settings)
            check_shape(target, next_q.shape, "td_target")
            q = group.network.q_values(ctx.inputs(group))
            loss = check_shape(self.critic_loss(q, target, rows, group.settings), (len(group),), "critic_loss")
            for m, own in zip(group.modules, loss, strict=True):
                result[m] = result[m] + own if m in result else own
            if group.is_first:
                self._note_critics(ctx, group, q, target)
        return {m: result[m] for m in ctx.trained}

    @torch.no_grad()
    def _next_values(self, ctx: UpdateContext) -> dict[NetworkGroup, Tensor]:
        """Q'(x', a'_1 ... a'_N) of each group of critics, `[G, n, B]`; with `twin_q` the smaller one (Fujimoto et al. 2018)."""
        values = {group: group.target.q_values(ctx.next_inputs(group)) for group in ctx.groups(CRITIC)}
        least: dict[str, Tensor] = {}
        twins = [group for group in values if group.settings.twin_q]
        for group in twins:
            for m, value in zip(group.modules, values[group], strict=True):
                least[m] = torch.minimum(least[m], value) if m in least else value
        return values | {group: torch.stack([least[m] for m in group.modules]) for group in twins}

    def compute_actor_losses(self, ctx: UpdateContext) -> Mapping[str, Tensor]:
        """The actor loss of each trained module: own action from its current actor.

        The others' actions are those of the row (`others_actions="replay"`, the paper) or of their current actors
        ("current"), or of approximations of these; in no case does a gradient reach another agent's actor. Of several critics
        the first one judges. Of several sub-policies each one learns from the rows of the episodes in which it acts (paper,
        equation 9, whose 1/K is its share of all rows).
        """
        outputs, mu, q, result = {}, {}, {}, {}
        for group in first_of(ctx.all_groups(ACTOR)):
            outputs[group], code = ctx.policy(group)
            mu.update(zip(group.modules, code, strict=True))
        learning = first_of(ctx.groups(ACTOR))
        # A frozen module may stand beside trained ones in a group of actors, and alone in one of critics.
        judged = {m for group in learning for m in group.modules}
        for group in first_of(trained(ctx.all_groups(CRITIC), judged)):
            inputs = ctx.current_inputs(group) if group.settings.others_actions == "current" else ctx.inputs(group)
            values = group.network.q_values_with_own(inputs, torch.stack([mu[m] for m in group.modules]))
            q.update(zip(group.modules, values, strict=True))
        for group in learning:
            rows, values = ctx.rows(group), torch.stack([q[m] for m in group.modules])
            output = losses.without_masked(outputs[group], rows.allowed)
            loss = check_shape(self.actor_loss(values, output, rows, group.settings), (len(group),), "actor_loss")
            result.update(zip(group.modules, loss, strict=True))
            self._note_actors(ctx, group, outputs[group])
        return {m: result[m] for m in ctx.trained}

    @classmethod
    @override(JointTorchLearner)
    def why_not_stacked(cls) -> str:
        if not cls.stacks_modules:
            return super().why_not_stacked()
        # Such a loss may depend on a module's own parameters, so these must be the ones that learn.
        names = ("compute_critic_losses", "compute_actor_losses", "compute_inferred_losses")
        own = [name for name in names if _overrides(cls, name)]
        return f"{cls.__name__} overrides `{own[0]}`" if own else ""

    @classmethod
    @override(GraphedTorchLearner)
    def why_no_graphs(cls, config: Any) -> str:
        # What is a user's own may wait for the device.
        return cls.why_not_ours(config) or super().why_no_graphs(config)

    @classmethod
    def why_not_ours(cls, config: Any) -> str:
        """What of such a Learner's updates is a user's own; empty: nothing is."""
        for name in ("td_target", "critic_loss", "actor_loss", "descend", "update_targets", "keep_td_errors"):
            if _overrides(cls, name):
                return f"{cls.__name__} overrides `{name}`"
        own = MADDPGTorchLearner
        ours = [_without_rays(x) for x in (own.compute_inferred_losses, own.compute_critic_losses, own.compute_actor_losses)]
        for stage in cls.stages(config):
            if isinstance(stage, LossStage) and _without_rays(stage.losses) not in ours:
                return f"{cls.__name__} has losses of its own for networks of the role {stage.role!r}"
        return ""

    @override(Learner)
    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        raise NotImplementedError(
            "MADDPG's critics need the rows of all modules: override `td_target`, `critic_loss` or `actor_loss`."
        )

    # ------------------------------------------------------------------------------------------ metrics

    @torch.no_grad()
    def _note_critics(self, ctx: UpdateContext, group: NetworkGroup, q: Tensor, target: Tensor) -> None:
        acts = ctx.rows(group)["acts"]
        self.keep_td_errors(ctx, group, q, target, acts)
        if ctx.reports:
            acting = acts.sum((1, 2)).clamp(min=1.0)
            mean, td_error = (q * acts).sum((1, 2)) / acting, ((q - target).abs() * acts).sum((1, 2)) / acting
            q = torch.where(acts > 0, q, mean[:, None, None]).flatten(1)
            ctx.note(group, qf_mean=mean, qf_min=q.amin(1), qf_max=q.amax(1), td_error_mean=td_error)

    @torch.no_grad()
    def _note_actors(self, ctx: UpdateContext, group: NetworkGroup, output: Tensor) -> None:
        if ctx.reports:
            acts = ctx.rows(group)["acts"]
            acting = acts.sum((1, 2)).clamp(min=1.0)
            metrics = group.codec.head_metrics(output)
            ctx.note(group, **{name: (value * acts).sum((1, 2)) / acting for name, value in metrics.items()})


def _overrides(cls: type, name: str) -> bool:
    """Whether a Learner's class has another method than `MADDPGTorchLearner`."""
    return _without_rays(getattr(cls, name)) is not _without_rays(getattr(MADDPGTorchLearner, name))


def _without_rays(method: Any) -> Any:
    """A method without what Ray wraps around those of the classes that it makes actors from; wrappers of users' stay."""
    while hasattr(method, "__wrapped__") and getattr(method, "__globals__", {}).get("__name__", "").startswith("ray."):
        method = method.__wrapped__
    return method
