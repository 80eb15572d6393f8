"""The networks of a module, each declared once. Whatever is done with networks is a loop over these declarations."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from torch import nn

from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

# Roles that MADDPG's own stages train. Others' stages may train networks of other roles.
ACTOR, CRITIC, INFERRED = "actor", "critic", "inferred"


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a module.

    Attributes:
        name: The module's attribute that holds it; also the name of its optimizer and in metrics.
        role: Which stage of the update trains it: "actor" (every module has one for each sub-policy), "critic", or that of a
            stage of your own.
        build: Makes the network.
        lr: Its learning rate: a number or a schedule over env steps, or the setting that has it, such as "critic_lr". None: it
            is not trained.
        has_target: Whether a slowly moving copy, `target_<name>`, goes with it.
        on_runners: Whether env runners need it, too.
        view: What it sees, for networks that give one number for each agent of the module from what a view shows, as critics
            do. None: it sees its own agent's observation, as actors do.
        about: Id of another module, for networks about what its agents do.
    """

    name: str
    role: str
    build: Callable[[], nn.Module]
    lr: float | list | str | None = "lr"
    has_target: bool = True
    on_runners: bool = False
    view: View | None = None
    about: str | None = None

    @property
    def target(self) -> str:
        """The module's attribute that holds the target."""
        return f"target_{self.name}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The network's attribute, and its target's if it has one."""
        return (self.name, self.target) if self.has_target else (self.name,)


def check_specs(specs: Any, schema: RowSchema, taken: Container[str], module: str) -> None:
    """The networks of a module can live side by side, and critics can be asked.

    Args:
        specs: What `networks()` returned.
        schema: Of the rows.
        taken: Names of attributes that the module has already.
        module: What the module is called in errors.

    Raises:
        ValueError: Naming module and network.
    """
    for wrong in [spec for spec in specs if not isinstance(spec, NetworkSpec)] if isinstance(specs, (list, tuple)) else [specs]:
        raise ValueError(f"{module}: `networks()` returned {wrong!r}. Return a list of `NetworkSpec`s.")
    seen: set[str] = set()
    for spec in specs:
        _check_kinds(spec, schema.layout, module)
        for name in spec.attributes:
            if name in seen:
                raise ValueError(
                    f"{module}: `networks()` has two networks of the name {name!r} (a network's target is called "
                    "'target_<name>'). Rename one of them."
                )
            if name in taken:
                raise ValueError(f"{module}: a network is named {name!r}, which the module has for something else. Rename it.")
            seen.add(name)
        if spec.view is not None:
            try:
                spec.view.check(schema)
            except ValueError as error:
                raise ValueError(f"{module}: network {spec.name!r}: {error}") from None
        if spec.role == INFERRED and spec.about is None:
            raise ValueError(f"{module}: network {spec.name!r} of the role 'inferred' has about=None. Give the id of a module.")
        if spec.role == CRITIC and (spec.view is None or not spec.has_target):
            raise ValueError(
                f"{module}: network {spec.name!r} is a critic and has view={spec.view!r} and has_target={spec.has_target}. "
                "Give it a view, such as `self.critic_view`, and a target; a network for something else has another role."
            )


def _check_kinds(spec: NetworkSpec, layout: JointLayout, module: str) -> None:
    """Each value of a declaration is of its kind."""
    name = spec.name
    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
        raise ValueError(f"{module}: a network is named {name!r}. Give it a name that an attribute can have.")
    if not isinstance(spec.role, str) or not spec.role:
        raise ValueError(f"{module}: network {name!r} has role={spec.role!r}. Give a word, such as 'critic'.")
    for key in ("has_target", "on_runners"):
        if not isinstance(getattr(spec, key), bool):
            raise ValueError(f"{module}: network {name!r} has {key}={getattr(spec, key)!r}. Give True or False.")
    if not callable(spec.build):
        raise ValueError(f"{module}: network {name!r} has build={spec.build!r}. Give a function that makes the network.")
    if spec.view is not None and not isinstance(spec.view, View):
        raise ValueError(f"{module}: network {name!r} has view={spec.view!r}. Give a `View`, such as `ALL`, or None.")
    if spec.about is not None and spec.about not in layout.modules:
        raise ValueError(f"{module}: network {name!r} has about={spec.about!r}. The modules are {list(layout.modules)}.")


def check_network(spec: NetworkSpec, network: Any, module: str) -> None:
    """A network that was made can be one.

    Raises:
        ValueError: Naming module and network.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"{module}: `build` of network {spec.name!r} made {type(network).__name__}, which is no `nn.Module`.")
    if spec.lr is not None and not any(p.requires_grad for p in network.parameters()):
        raise ValueError(
            f"{module}: network {spec.name!r} has no parameters that can be trained. Give it `lr=None`, or parameters that "
            "require a gradient."
        )
