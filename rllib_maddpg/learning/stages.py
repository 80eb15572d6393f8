"""An update is a list of stages, which run one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from rllib_maddpg.learning.context import UpdateContext


@dataclass(frozen=True)
class Stage(ABC):
    """One step of an update.

    Attributes:
        every: It runs in every so many updates, first in this one: 2 is in the second, the fourth ...
    """

    every: int = 1

    @abstractmethod
    def run(self, learner: Any, ctx: UpdateContext) -> bool:
        """Does it. Returns False if numbers were not finite, which ends the update."""


@dataclass(frozen=True)
class LossStage(Stage):
    """The networks of a role make a step down the gradient of their losses.

    Attributes:
        role: That of the networks which learn.
        losses: Method of the Learner, or function of (learner, ctx): module id -> loss, a scalar, of each trained module; where
            one has several networks of the role, the sum of theirs. In metrics it is called `<role>_loss`.
    """

    role: str = ""
    losses: Callable[[Any, UpdateContext], Mapping[str, Tensor]] | None = None

    def run(self, learner: Any, ctx: UpdateContext) -> bool:
        losses = self.losses(learner, ctx)
        problem = _problem_of(losses, ctx.trained)
        if problem:
            name = getattr(self.losses, "__name__", self.losses)
            raise ValueError(
                f"`{name}`, the losses of the stage for networks of the role {self.role!r}, returned {problem}. Return a dict "
                f"with a scalar tensor for each trained module, made by its network: {ctx.trained}."
            )
        return learner.descend(self.role, losses, ctx)


def _problem_of(losses: Any, modules: Collection[str]) -> str:
    """What is wrong with the losses of these modules, or nothing."""
    if not isinstance(losses, Mapping):
        return f"a {type(losses).__name__}"
    if losses.keys() != set(modules):
        return f"losses of {sorted(losses)}"
    for module, loss in losses.items():
        if not isinstance(loss, Tensor):
            return f"a {type(loss).__name__} for {module!r}"
        if loss.dim():
            return f"a tensor of shape {[*loss.shape]} for {module!r}"
    if losses and not any(loss.requires_grad for loss in losses.values()):
        return "losses without a gradient"
    return ""


@dataclass(frozen=True)
class TargetStage(Stage):
    """The targets of all trained networks move towards them."""

    def run(self, learner: Any, ctx: UpdateContext) -> bool:
        learner.update_targets(ctx)
        return True


def check_stages(stages: Any, learner: str, roles: Mapping[str, Collection[str]]) -> None:
    """The stages of an update train roles that the modules have.

    Args:
        stages: What `stages()` of a Learner returned.
        learner: Name of its class.
        roles: Module id -> the roles of its networks, of all modules that can be trained.

    Raises:
        ValueError: Naming class, stage and role.
    """
    if not isinstance(stages, Sequence) or not all(isinstance(stage, Stage) for stage in stages):
        raise ValueError(f"`stages()` of {learner} returned {stages!r}. Return a list of `LossStage`s and `TargetStage`s.")
    for stage in stages:
        if not isinstance(stage.every, int) or isinstance(stage.every, bool) or stage.every < 1:
            raise ValueError(
                f"`stages()` of {learner}: {stage} has every={stage.every!r}. Give a whole number of updates >= 1."
            )
        if not isinstance(stage, LossStage):
            continue
        if not callable(stage.losses):
            raise ValueError(f"`stages()` of {learner}: {stage} has losses={stage.losses!r}. Give a method of the Learner.")
        for module, known in roles.items():
            if stage.role not in known:
                raise ValueError(
                    f"`stages()` of {learner} has a stage for networks of the role {stage.role!r}, but module {module!r} has "
                    f"only networks of {sorted(known)}. Declare one in `networks()` of its RLModule, or correct the role."
                )
