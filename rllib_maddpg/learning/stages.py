"""An update is a list of stages, which run one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rllib_maddpg.modules.specs import ACTOR, CRITIC

if TYPE_CHECKING:
    from rllib_maddpg.learning.context import UpdateContext


@dataclass(frozen=True)
class Stage(ABC):
    """One step of an update.

    Attributes:
        every: It runs in every so many updates, first in this one: 2 is in the second, the fourth ...
        newest: Whether it needs the newest rows of the replay buffer (`UpdateContext.newest`), beside those that were drawn.
    """

    every: int = 1
    newest: bool = False

    @abstractmethod
    def run(self, learner: Any, ctx: UpdateContext) -> bool | None:
        """Does it. Returns False if numbers were not finite, which ends the update; anything else goes on."""


@dataclass(frozen=True)
class LossStage(Stage):
    """The networks of a role make a step down the gradient of their losses.

    Attributes:
        role: That of the networks which learn.
        losses: Method of the Learner, or function of (learner, ctx): the loss of each trained module, a scalar; where a module
            has several networks of the role, the sum of theirs. In metrics it is called `<role>_loss`.
    """

    role: str = ""
    losses: Callable[[Any, UpdateContext], Mapping[str, Tensor]] | None = None

    def run(self, learner: Any, ctx: UpdateContext) -> bool | None:
        return learner.descend(self.role, self.losses(learner, ctx), ctx)


@dataclass(frozen=True)
class TargetStage(Stage):
    """The targets of all trained networks move towards them."""

    def run(self, learner: Any, ctx: UpdateContext) -> bool | None:
        learner.update_targets(ctx)
        return True


def check_stages(stages: Any, learner: str, roles: Mapping[str, Collection[str]]) -> None:
    """The stages of an update train networks that there are.

    Args:
        stages: What `stages()` of a Learner returned.
        learner: Name of its class.
        roles: Module id -> the roles of its networks that can be trained, of all modules that have any.

    Raises:
        ValueError: Naming class, stage and role.
    """
    if not isinstance(stages, (list, tuple)) or not all(isinstance(stage, Stage) for stage in stages):
        raise ValueError(f"`stages()` of {learner} returned {stages!r}. Return a list of `LossStage`s and `TargetStage`s.")
    for stage in stages:
        if not isinstance(stage.every, int) or isinstance(stage.every, bool) or stage.every < 1:
            raise ValueError(f"`stages()` of {learner}: {stage} has every={stage.every!r}. Give a whole number of updates > 0.")
        if not isinstance(stage, LossStage):
            continue
        if not callable(stage.losses):
            raise ValueError(f"`stages()` of {learner}: {stage} has losses={stage.losses!r}. Give a method of the Learner.")
        if not isinstance(stage.role, str):
            raise ValueError(f"`stages()` of {learner}: {stage} has role={stage.role!r}. Give a word, such as 'critic'.")
        # Actors and critics are all modules'; a network of another role may be that of some.
        everybody = stage.role in (ACTOR, CRITIC)
        without = [module for module, known in roles.items() if stage.role not in known]
        if without and (everybody or len(without) == len(roles)):
            raise ValueError(
                f"`stages()` of {learner} has a stage for networks of the role {stage.role!r}, but module {without[0]!r} has "
                f"only networks of {sorted(roles[without[0]])} to train. Declare one in `networks()` of its RLModule, or "
                "correct the role."
            )


def check_losses(role: str, losses: Any, modules: Sequence[str]) -> None:
    """A stage has a loss for each module that learns in it, and for no other.

    Args:
        role: That of the networks which learn.
        losses: What the stage's function returned.
        modules: Ids of the modules that have such networks and learn.

    Raises:
        ValueError: Naming role and module.
    """
    if not isinstance(losses, Mapping) or set(losses) != set(modules):
        found = sorted(map(str, losses)) if isinstance(losses, Mapping) else f"what is of type {type(losses).__name__}"
        raise ValueError(
            f"The {role} stage has losses for {found}. Return a dict with one for each of the modules {list(modules)}."
        )
    for module, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.dim():
            found = f"shape {[*loss.shape]}" if isinstance(loss, Tensor) else f"type {type(loss).__name__}"
            raise ValueError(f"The {role} loss of module {module!r} has {found}. It must be a tensor without dimensions.")
