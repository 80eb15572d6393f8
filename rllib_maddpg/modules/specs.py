"""The networks of a module, each declared once. Whatever is done with networks is a loop over these declarations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.schema import RowSchema

# Roles that MADDPG's own stages train. Others' stages may train networks of other roles.
ACTOR, CRITIC = "actor", "critic"


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a module.

    Attributes:
        name: The module's attribute that holds it; also the name of its optimizer and in metrics.
        role: Which stage of the update trains it: "actor" (every module has one), "critic", or that of a stage of your own.
        build: Makes the network.
        lr: Its learning rate: a number, or the setting that has it ("actor_lr", "critic_lr", "lr"). None: it is not trained.
        has_target: Whether a slowly moving copy, `target_<name>`, goes with it.
        on_runners: Whether env runners need it, too.
        view: What it sees, for networks that give one number for each agent of the module from what a view shows, as critics
            do. None: it sees its own agent's observation, as actors do.
    """

    name: str
    role: str
    build: Callable[[], nn.Module]
    lr: float | str | None = "lr"
    has_target: bool = True
    on_runners: bool = False
    view: View | None = None

    @property
    def target(self) -> str:
        """The module's attribute that holds the target."""
        return f"target_{self.name}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The network's attribute, and its target's if it has one."""
        return (self.name, self.target) if self.has_target else (self.name,)


def check_specs(specs: Sequence[NetworkSpec], schema: RowSchema, module: str) -> None:
    """The networks of a module can live side by side, and one of them acts.

    Args:
        specs: Its networks.
        schema: Of the rows.
        module: What the module is called in errors.

    Raises:
        ValueError: Naming module and network.
    """
    seen: set[str] = set()
    for spec in specs:
        if not isinstance(spec, NetworkSpec):
            raise ValueError(f"{module}: `networks()` returned {spec!r}. Return a list of `NetworkSpec`s.")
        if not spec.name.isidentifier():
            raise ValueError(f"{module}: a network is named {spec.name!r}. Give it a name that an attribute can have.")
        for name in spec.attributes:
            if name in seen:
                raise ValueError(
                    f"{module}: `networks()` has two networks of the name {name!r} (a network's target is called "
                    "'target_<name>'). Rename one of them."
                )
            seen.add(name)
        if spec.view is not None and not isinstance(spec.view, View):
            raise ValueError(f"{module}: network {spec.name!r} has view={spec.view!r}. Give a `View`, such as `ALL`, or None.")
        if spec.view is not None:
            try:
                spec.view.check(schema)
            except ValueError as error:
                raise ValueError(f"{module}: network {spec.name!r}: {error}") from None
    actors = [spec.name for spec in specs if spec.role == ACTOR]
    if len(actors) != 1 or not next(spec for spec in specs if spec.role == ACTOR).on_runners:
        raise ValueError(
            f"{module}: `networks()` has {len(actors)} networks of the role 'actor' ({actors}). Give exactly one, with "
            "`on_runners=True`: it chooses the actions."
        )
